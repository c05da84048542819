//! The price table as its file says it.

use super::money::decimal_of;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A table of prices. What it says of a model replaces what the built-in table says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TableSpec {
    /// What a model costs that is in no table. It should be the dearest that you can be billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ModelSpec")]
    pub unknown: Option<ModelSpec>,
    /// Models by name. A name stands for its dated versions too (`gpt-4o` for `gpt-4o-2024-08-06`); a `*` at the end for
    /// every name that begins so.
    pub models: BTreeMap<String, ModelSpec>,
}

/// The prices of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// A million tokens of input.
    pub input: PerMillion,
    /// A million tokens of output, hidden reasoning included.
    pub output: PerMillion,
    /// A million tokens of input read from the provider's cache. Left out: as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PerMillion")]
    pub cached: Option<PerMillion>,
    /// A million tokens written to the provider's cache. Left out: 1.25 times input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PerMillion")]
    pub cache_write: Option<PerMillion>,
    /// A million tokens written to the provider's cache for an hour. Left out: twice input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PerMillion")]
    pub cache_write_long: Option<PerMillion>,
    /// Dearer prices of the whole request once its input is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LongSpec")]
    pub long: Option<LongSpec>,
    /// The most tokens of input that the model takes. Left out: as the unknown model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub context: Option<u64>,
    /// The most tokens of output that the model gives. Left out: as the unknown model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub max_output: Option<u64>,
}

/// Prices of a request whose input is longer than `above`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LongSpec {
    /// Tokens of input, cached ones included, above which these prices hold.
    pub above: u64,
    /// As [`ModelSpec::input`].
    pub input: PerMillion,
    /// As [`ModelSpec::output`].
    pub output: PerMillion,
    /// As [`ModelSpec::cached`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PerMillion")]
    pub cached: Option<PerMillion>,
    /// As [`ModelSpec::cache_write`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PerMillion")]
    pub cache_write: Option<PerMillion>,
    /// As [`ModelSpec::cache_write_long`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PerMillion")]
    pub cache_write_long: Option<PerMillion>,
}

/// US dollars for a million tokens, which is as many billionths of a thousandth of a dollar for one token: up to six digits after
/// the point are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion {
    /// Billionths of a thousandth of a dollar (1e-12) for one token.
    pub(super) pico_per_token: u64,
}

impl Serialize for PerMillion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (whole, fraction) = (self.pico_per_token / 1_000_000, self.pico_per_token % 1_000_000);
        serializer.collect_str(&format_args!("{whole}.{fraction:06}"))
    }
}

impl<'de> Deserialize<'de> for PerMillion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { pico_per_token: decimal_of(deserializer, 6)? })
    }
}

impl JsonSchema for PerMillion {
    fn schema_name() -> Cow<'static, str> {
        "PerMillion".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "US dollars for a million tokens, for example \"2.50\"",
            "type": ["string", "number"],
            "pattern": r"^\$?[0-9]+(\.[0-9]{1,6})?$",
            "minimum": 0
        })
    }
}
