//! Values as people write them: shares as number or percent, thresholds as duration or number.
//!
//! Reading them accepts every well-formed value; whether it makes sense is for the check that reports all problems
//! together.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A share as written: `0.995` or `99.5%`. Its range is checked later, together with everything else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as 0.995 or 99.5%")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Share, E> {
                Ok(Share(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Share, E> {
                Ok(Share(value as f64))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Share, E> {
                Ok(Share(value as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
                number
                    .map(|percent| Share(percent / 100.0))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A share: a number from 0 to 1 or percent, such as 0.995 or 99.5%.",
            "anyOf": [
                { "type": "number", "minimum": 0, "maximum": 1 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? *%$" },
            ],
        })
    }
}

/// A threshold as written: a duration or a number. Which of them fits is checked later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// `2s`, `1m30s`.
    Duration(Duration),
    /// `0.05`.
    Number(f64),
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Duration(duration) => humantime_serde::serialize(duration, serializer),
            Self::Number(number) => serializer.serialize_f64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 2s, or a number")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Limit, E> {
                Ok(Limit::Number(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Limit, E> {
                Ok(Limit::Number(value as f64))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Limit, E> {
                Ok(Limit::Number(value as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                let duration = humantime_serde::re::humantime::parse_duration(text);
                duration.map(Limit::Duration).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Latency: a duration such as 2s. Cost: US dollars such as 0.05. Throughput: the least number.",
            "anyOf": [
                { "type": "number", "exclusiveMinimum": 0 },
                { "type": "string", "x-check": "duration" },
            ],
        })
    }
}
