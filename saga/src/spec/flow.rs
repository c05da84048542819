//! When and how often a step runs, and what it is to its saga.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// Retries of a step or a compensation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySpec {
    /// How many failed attempts make a failure, the first one included.
    pub attempts: u32,
    /// The waits between attempts.
    pub backoff: BackoffSpec,
    /// Exit codes, statuses of HTTP, or errors by name that no retry mends.
    pub non_retryable: Vec<NonRetryableSpec>,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { attempts: 3, backoff: BackoffSpec::default(), non_retryable: Vec::new() }
    }
}

/// Exponential backoff with full jitter: each wait is drawn between zero and twice the last bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackoffSpec {
    /// The bound of the first wait ("1s").
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub initial: Duration,
    /// No wait is longer ("30s").
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub max: Duration,
}

impl Default for BackoffSpec {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(30) }
    }
}

/// What no retry mends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NonRetryableSpec {
    /// An exit code, or a status of HTTP.
    Code(i32),
    /// An error by name.
    Error(String),
}

/// A condition: one test of one value, or several conditions together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WhenSpec {
    /// What is tested: `steps.NAME.outputs.KEY` or `params.NAME`. Without a test it must be `true`.
    pub value: Option<String>,
    /// It equals this.
    pub equals: Option<Value>,
    /// It is one of these.
    #[serde(rename = "in")]
    pub one_of: Option<Vec<Value>>,
    /// It is a number above this.
    pub above: Option<f64>,
    /// It is a number below this.
    pub below: Option<f64>,
    /// Whether it is there and not null.
    pub exists: Option<bool>,
    /// All of these hold.
    pub all: Option<Vec<WhenSpec>>,
    /// One of these holds.
    pub any: Option<Vec<WhenSpec>>,
    /// This doesn't hold.
    pub not: Option<Box<WhenSpec>>,
}

/// A list that a step fans out over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EachSpec {
    /// The list, or a reference to one.
    pub items: Value,
    /// How many branches have to be done: `all` (the default), `any`, `majority`, or a number. The others are ended,
    /// settled and undone.
    pub enough: EnoughSpec,
}

/// How many branches of a fan-out have to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EnoughSpec {
    /// Every one.
    #[default]
    All,
    /// One.
    Any,
    /// More than half.
    Majority,
    /// This many.
    Count(u32),
}

impl Serialize for EnoughSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Any => serializer.serialize_str("any"),
            Self::Majority => serializer.serialize_str("majority"),
            Self::Count(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for EnoughSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Enough;
        impl Visitor<'_> for Enough {
            type Value = EnoughSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all`, `any`, `majority` or a number")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<EnoughSpec, E> {
                match word {
                    "all" => Ok(EnoughSpec::All),
                    "any" => Ok(EnoughSpec::Any),
                    "majority" => Ok(EnoughSpec::Majority),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<EnoughSpec, E> {
                let count =
                    u32::try_from(count).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(count), &self))?;
                Ok(EnoughSpec::Count(count))
            }
        }
        deserializer.deserialize_any(Enough)
    }
}

impl JsonSchema for EnoughSpec {
    fn schema_name() -> Cow<'static, str> {
        "EnoughSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How many branches have to be done.",
            "anyOf": [{"enum": ["all", "any", "majority"]}, {"type": "integer", "minimum": 1}],
        })
    }
}

/// What a step is to its saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassSpec {
    /// It can be undone: needs `undo`.
    Compensatable,
    /// The point of no return.
    Pivot,
    /// Past the pivot, and repeated until it succeeds: needs `idempotent: true`.
    Retriable,
    /// It changes nothing.
    ReadOnly,
    /// It can't be undone, and stays if the saga goes back: needs an approval before it, or a `probe`.
    Irreversible,
}

/// When files are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublishSpec {
    /// When the saga is completed.
    Saga,
    /// When the step is done.
    Step,
}

/// What a step changes in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectsSpec {
    /// Something: it must be undone, or be past the point of no return.
    #[default]
    External,
    /// Files of its workspace, and nothing else: they are kept apart until they are published, and undoing it drops them.
    Files,
    /// Nothing: it only reads, so that it can be run again and needs no undo.
    None,
}

/// What to do with a step whose effect is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknownSpec {
    /// Run it again: needs `idempotent: true`.
    Rerun,
    /// Ask its `check`.
    Check,
    /// Undo it and then the saga.
    Compensate,
    /// Wait for an operator's word.
    Operator,
}
