//! JSON for tests, borrowed from schemars: what is written must be read again, and specs are written as text.

use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer};

/// A value as JSON text.
pub(crate) fn write<T: Serialize>(value: &T) -> String {
    let schema = SchemaGenerator::default().into_root_schema_for_value(value).expect("a value that serializes");
    schema.get("examples").expect("the value itself").as_array().expect("a list of one")[0].to_string()
}

/// A value from JSON text.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    fn parsed<'de, V, T>(_: impl Fn(Schema) -> V, text: &str) -> Result<T, String>
    where
        V: std::str::FromStr<Err: std::fmt::Debug> + Deserializer<'de, Error: std::fmt::Display>,
        T: DeserializeOwned,
    {
        let value: V = text.parse().expect("JSON");
        T::deserialize(value).map_err(|error| error.to_string())
    }
    parsed(Schema::to_value, text)
}
