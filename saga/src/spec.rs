//! What saga.yaml says, word for word.
//!
//! Only serde and the JSON schema: no defaults that depend on other fields, no judgement. `lint` judges and `plan`
//! resolves. Unknown keys are refused everywhere, for a misspelt `compensate` is a rollback that never happens. The
//! YAML parser is the caller's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A saga: steps that either all take effect or are all undone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SagaSpec {
    /// Version of the format: 1.
    pub version: u32,
    /// Always `saga`.
    pub kind: String,
    /// The saga's name: letters, digits, `-` and `_`.
    pub name: String,
    /// The most privileged ring any step may have, 0 to 3.
    pub ring: Option<u8>,
    /// What happens where the host can't enforce the steps' rings in full; the caller's to heed.
    pub enforcement: EnforcementSpec,
    /// The longest the whole saga may take before it is undone ("10m"); none when absent. Past the pivot it has no
    /// effect: from there the saga only goes forward.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub timeout: Option<Duration>,
    /// The steps: a list of steps with a `name` each, or a map from name to step.
    pub steps: StepsSpec,
}

/// What happens where a ring can't be enforced in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementSpec {
    /// The step is not started.
    #[default]
    Required,
    /// It is started, and what is missing is said.
    BestEffort,
}

/// One step of a saga.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepSpec {
    /// The step's name: letters, digits, `-` and `_`. In the map form the key is the name.
    pub name: String,
    /// The program and its arguments. No shell stands between.
    pub command: Vec<String>,
    /// Steps that must be done before this one starts.
    pub needs: Vec<String>,
    /// The ring it runs in, 0 to 3.
    pub ring: Option<u8>,
    /// Where it runs; relative to the saga's file.
    pub workdir: Option<String>,
    /// Variables added to its clean environment.
    pub env: BTreeMap<String, String>,
    /// What it is given as JSON: a value, or `steps.NAME.outputs.KEY` for what an earlier step gave. For a text that
    /// begins with `steps.` write `{literal: "steps. ..."}`.
    pub inputs: BTreeMap<String, Value>,
    /// The longest one attempt may take ("30s"); 5 minutes when absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub timeout: Option<Duration>,
    /// How often and how soon a failed attempt is repeated; not at all when absent (after the pivot: 10 attempts).
    pub retry: Option<RetrySpec>,
    /// Whether running it twice with the same idempotency key is the same as once.
    pub idempotent: bool,
    /// What the step changes in the world: `external` (the default) or `none`, for one that only reads.
    pub effects: EffectsSpec,
    /// What to do when nobody knows whether it took effect (timeout, signal, crash). When absent: `rerun` for an
    /// idempotent step, else `check` or `compensate` where declared, else `operator`.
    pub on_unknown: Option<OnUnknownSpec>,
    /// A command that says whether the effect is there: prints `{"applied": true}` or `{"applied": false}`.
    pub check: Option<CheckSpec>,
    /// How the effect is undone. Must succeed when there is nothing to undo.
    pub compensate: Option<CompensateSpec>,
    /// The point of no return: once this step is done, the saga goes forward only.
    pub pivot: bool,
}

impl fmt::Debug for StepSpec {
    /// Values of `env` are left out: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepSpec")
            .field("name", &self.name)
            .field("command", &self.command)
            .field("needs", &self.needs)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("on_unknown", &self.on_unknown)
            .field("compensate", &self.compensate)
            .field("pivot", &self.pivot)
            .finish_non_exhaustive()
    }
}

/// Retries of a step or a compensation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySpec {
    /// How many failed attempts make a failure, the first one included.
    pub attempts: u32,
    /// The waits between attempts.
    pub backoff: BackoffSpec,
    /// Exit codes that no retry mends.
    pub non_retryable: Vec<i32>,
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

/// How an effect is undone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompensateSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The ring it runs in; the step's own when absent.
    pub ring: Option<u8>,
    /// The longest one attempt may take; 5 minutes when absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub timeout: Option<Duration>,
    /// Its own retries; 5 attempts when absent.
    pub retry: Option<RetrySpec>,
}

/// How one learns whether an effect is there. A bare command is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CheckSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The longest one attempt may take; 30 seconds when absent.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
}

/// What a step changes in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectsSpec {
    /// Something: it must be undone, or be past the point of no return.
    #[default]
    External,
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

/// How the steps were written; names in messages follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepsForm {
    /// `steps: [{name: a, ...}]`, shown as `steps[0]`.
    #[default]
    List,
    /// `steps: {a: {...}}`, shown as `steps.a`.
    Map,
}

/// The steps in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepsSpec {
    /// List or map.
    pub form: StepsForm,
    /// The steps; two of one name are both here, for the linter to name.
    pub list: Vec<StepSpec>,
}

impl Serialize for StepsSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StepsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Steps;
        impl<'de> Visitor<'de> for Steps {
            type Value = StepsSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of steps, or a map from names to steps")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StepsSpec, A::Error> {
                let mut list = Vec::new();
                while let Some(step) = seq.next_element()? {
                    list.push(step);
                }
                Ok(StepsSpec { form: StepsForm::List, list })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StepsSpec, A::Error> {
                let mut list = Vec::new();
                while let Some((name, mut step)) = map.next_entry::<String, StepSpec>()? {
                    if !step.name.is_empty() && step.name != name {
                        let both = format!("step `{name}` calls itself `{}`: leave `name` out here", step.name);
                        return Err(de::Error::custom(both));
                    }
                    step.name = name;
                    list.push(step);
                }
                Ok(StepsSpec { form: StepsForm::Map, list })
            }
        }
        deserializer.deserialize_any(Steps)
    }
}

impl JsonSchema for StepsSpec {
    fn schema_name() -> Cow<'static, str> {
        "StepsSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let step = generator.subschema_for::<StepSpec>();
        json_schema!({
            "description": "A list of steps with a name each, or a map from name to step.",
            "anyOf": [
                {"type": "array", "items": step},
                {"type": "object", "additionalProperties": step},
            ],
        })
    }
}

/// The long form of a check; the short one is its command alone.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct CheckLong {
    /// The program and its arguments.
    command: Vec<String>,
    /// The longest one attempt may take; 30 seconds when absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    timeout: Option<Duration>,
}

impl<'de> Deserialize<'de> for CheckSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Check;
        impl<'de> Visitor<'de> for Check {
            type Value = CheckSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command as a list, or a map with `command` and `timeout`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<CheckSpec, A::Error> {
                let command = Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                Ok(CheckSpec { command, timeout: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CheckSpec, A::Error> {
                let long = CheckLong::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(CheckSpec { command: long.command, timeout: long.timeout })
            }
        }
        deserializer.deserialize_any(Check)
    }
}

impl JsonSchema for CheckSpec {
    fn schema_name() -> Cow<'static, str> {
        "CheckSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<CheckLong>();
        json_schema!({
            "description": "A command that says whether the effect is there.",
            "anyOf": [{"type": "array", "items": {"type": "string"}}, long],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SagaSpec, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn steps_may_be_a_list_or_a_map_in_the_order_of_the_file() {
        let list = parse(r#"{"steps": [{"name": "b", "command": ["x"]}, {"name": "a"}]}"#).unwrap();
        let map = parse(r#"{"steps": {"b": {"command": ["x"]}, "a": {}}}"#).unwrap();
        assert_eq!(list.steps.list, map.steps.list);
        assert_eq!((list.steps.form, map.steps.form), (StepsForm::List, StepsForm::Map));
        assert_eq!(map.steps.list[0].name, "b");
    }

    #[test]
    fn a_misspelt_key_is_refused_at_every_level() {
        for text in [
            r#"{"nmae": "x"}"#,
            r#"{"steps": [{"name": "a", "compensat": {}}]}"#,
            r#"{"steps": [{"retry": {"attempt": 1}}]}"#,
            r#"{"steps": [{"retry": {"backoff": {"initail": "1s"}}}]}"#,
            r#"{"steps": [{"compensate": {"comand": []}}]}"#,
            r#"{"steps": [{"check": {"comand": []}}]}"#,
            r#"{"steps": {"a": {"name": "b"}}}"#,
        ] {
            assert!(parse(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse(r#"{"timeout": "1h30m"}"#).unwrap().timeout, Some(Duration::from_secs(5400)));
        assert!(parse(r#"{"timeout": 30}"#).is_err());
        assert!(parse(r#"{"timeout": "30"}"#).is_err());
    }

    #[test]
    fn a_check_may_be_its_command_alone() {
        let short = parse(r#"{"steps": [{"check": ["a", "b"]}]}"#).unwrap();
        let long = parse(r#"{"steps": [{"check": {"command": ["a", "b"]}}]}"#).unwrap();
        assert_eq!(short, long);
    }

    #[test]
    fn the_schema_knows_both_forms_and_refuses_unknown_keys() {
        let schema = serde_json::to_value(schemars::schema_for!(SagaSpec)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["$defs"]["StepSpec"]["additionalProperties"], false);
        assert_eq!(schema["$defs"]["StepsSpec"]["anyOf"].as_array().unwrap().len(), 2);
    }
}
