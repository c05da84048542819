//! What saga.yaml says, word for word.
//!
//! Only serde and the JSON schema: no defaults that depend on other fields, no judgement. `lint` judges and `plan`
//! resolves. Unknown keys are refused everywhere, for a misspelt `compensate` is a rollback that never happens. The
//! YAML parser is the caller's.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use calls::{AgentSpec, ApprovalSpec, BodySpec, CheckSpec, CompensateSpec, HttpSpec, McpSpec, SubSagaSpec};
pub use flow::{BackoffSpec, ClassSpec, EffectsSpec, OnUnknownSpec, PublishSpec};
pub use flow::{EachSpec, EnoughSpec, NonRetryableSpec, RetrySpec, WhenSpec};
pub use steps::{StepsForm, StepsSpec};

mod calls;
mod flow;
mod steps;

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
    /// What it is given when it begins, by name. Steps refer to it as `params.NAME`.
    pub params: BTreeMap<String, ParamSpec>,
    /// The steps: a list of steps with a `name` each, or a map from name to step.
    pub steps: StepsSpec,
}

/// A parameter of a saga.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParamSpec {
    /// What it means, for people.
    pub description: String,
    /// What stands in when it isn't given, perhaps `null`; without one it must be.
    #[serde(deserialize_with = "crate::plan::present", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The shape it must have, as a JSON Schema.
    pub schema: Option<Value>,
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

/// One step of a saga. It says one thing that it does: `command`, `http`, `mcp`, `agent`, `saga`, `wait` or `approval`.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepSpec {
    /// The step's name: letters, digits, `-` and `_`. In the map form the key is the name.
    pub name: String,
    /// The program and its arguments. No shell stands between.
    pub command: Vec<String>,
    /// A request over HTTP, through the gateway.
    pub http: Option<HttpSpec>,
    /// A call of an MCP server's tool, over stdio. Its arguments are the inputs.
    pub mcp: Option<McpSpec>,
    /// Another agent does it. It is given the inputs and answers as a command does.
    pub agent: Option<AgentSpec>,
    /// Another saga does it, with the inputs as its parameters.
    pub saga: Option<SubSagaSpec>,
    /// Nothing happens for so long ("10m").
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub wait: Option<Duration>,
    /// Operators have to agree before anything that needs this step starts.
    pub approval: Option<ApprovalSpec>,
    /// Steps that must be done before this one starts.
    pub needs: Vec<String>,
    /// When it runs at all. Where it doesn't, the steps that need it go on without.
    pub when: Option<WhenSpec>,
    /// Runs once for each item of a list, all at the same time; `item` and `index` are references then.
    pub each: Option<EachSpec>,
    /// The ring it runs in, 0 to 3.
    pub ring: Option<u8>,
    /// Where it runs; relative to the saga's file.
    pub workdir: Option<String>,
    /// Variables added to its clean environment.
    pub env: BTreeMap<String, String>,
    /// Secrets by the name under which it is given them, each as the name that the supervisor knows it by.
    pub secrets: BTreeMap<String, String>,
    /// What it is given as JSON: a value, or a reference: `steps.NAME.outputs.KEY` for what an earlier step gave,
    /// `params.NAME` where the saga has parameters, `item` and `index` under `each`. `{from: REFERENCE, default: VALUE}`
    /// has a value for where there is nothing. For a text that begins with `steps.` write `{literal: "steps. ..."}`.
    pub inputs: BTreeMap<String, Value>,
    /// The shape that its output must have, as a JSON Schema. One that hasn't is of no use, and the step is undone.
    pub output_schema: Option<Value>,
    /// The longest one attempt may take ("30s"); 5 minutes when absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub timeout: Option<Duration>,
    /// How often and how soon a failed attempt is repeated; not at all when absent (after the pivot: 10 attempts).
    pub retry: Option<RetrySpec>,
    /// Whether running it twice with the same idempotency key is the same as once.
    pub idempotent: bool,
    /// What it is to the saga; told by its place and what undoes it when absent.
    pub class: Option<ClassSpec>,
    /// What the step changes in the world: `external` (the default), `files` of its workspace alone, or `none`, for one
    /// that only reads.
    pub effects: EffectsSpec,
    /// When its files are published, with `effects: files`; when the saga is completed if absent.
    pub publish: Option<PublishSpec>,
    /// What to do when nobody knows whether it took effect (timeout, signal, crash). When absent: `rerun` for an
    /// idempotent step, else `check` or `compensate` where declared, else `operator`.
    pub on_unknown: Option<OnUnknownSpec>,
    /// A command that says whether the effect is there: prints `{"applied": true}` or `{"applied": false}`.
    pub check: Option<CheckSpec>,
    /// The same as `check`.
    pub probe: Option<CheckSpec>,
    /// How the effect is undone. Must succeed when there is nothing to undo.
    pub compensate: Option<CompensateSpec>,
    /// The same as `compensate`.
    pub undo: Option<CompensateSpec>,
    /// The point of no return: once this step is done, the saga goes forward only. The same as `class: pivot`.
    pub pivot: bool,
}

impl StepSpec {
    /// How it is undone, whichever word was used, with that word.
    #[must_use]
    pub fn undoing(&self) -> Option<(&CompensateSpec, &'static str)> {
        let undo = self.undo.as_ref().map(|undo| (undo, "undo"));
        undo.or(self.compensate.as_ref().map(|undo| (undo, "compensate")))
    }

    /// How its effect is looked for, whichever word was used, with that word.
    #[must_use]
    pub fn probing(&self) -> Option<(&CheckSpec, &'static str)> {
        let probe = self.probe.as_ref().map(|probe| (probe, "probe"));
        probe.or(self.check.as_ref().map(|check| (check, "check")))
    }
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
            .field("compensate", &self.undoing())
            .field("pivot", &self.pivot)
            .finish_non_exhaustive()
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
            r#"{"params": {"a": {"defualt": 1}}}"#,
            r#"{"steps": [{"name": "a", "compensat": {}}]}"#,
            r#"{"steps": [{"retry": {"attempt": 1}}]}"#,
            r#"{"steps": [{"retry": {"backoff": {"initail": "1s"}}}]}"#,
            r#"{"steps": [{"compensate": {"comand": []}}]}"#,
            r#"{"steps": [{"check": {"comand": []}}]}"#,
            r#"{"steps": [{"http": {"uri": "x"}}]}"#,
            r#"{"steps": [{"mcp": {"tol": "x"}}]}"#,
            r#"{"steps": [{"approval": {"how": []}}]}"#,
            r#"{"steps": [{"when": {"value": "x", "equal": 1}}]}"#,
            r#"{"steps": [{"when": {"any": [{"valu": "x"}]}}]}"#,
            r#"{"steps": [{"each": {"item": []}}]}"#,
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
        assert!(parse(r#"{"steps": [{"wait": 30}]}"#).is_err());
    }

    #[test]
    fn a_check_may_be_its_command_alone() {
        let short = parse(r#"{"steps": [{"check": ["a", "b"]}]}"#).unwrap();
        let long = parse(r#"{"steps": [{"check": {"command": ["a", "b"]}}]}"#).unwrap();
        assert_eq!(short, long);
    }

    #[test]
    fn enough_is_a_word_or_a_number() {
        let enough = |text: &str| {
            let spec = parse(&format!(r#"{{"steps": [{{"each": {{"items": [], "enough": {text}}}}}]}}"#));
            spec.map(|spec| spec.steps.list[0].each.clone().unwrap().enough)
        };
        assert_eq!(enough("2").unwrap(), EnoughSpec::Count(2));
        assert_eq!(enough("\"majority\"").unwrap(), EnoughSpec::Majority);
        let error = enough("\"most\"").unwrap_err().to_string();
        assert!(error.contains("`all`, `any`, `majority` or a number"), "{error}");
    }

    #[test]
    fn the_schema_knows_both_forms_and_refuses_unknown_keys() {
        let schema = serde_json::to_value(schemars::schema_for!(SagaSpec)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["$defs"]["StepSpec"]["additionalProperties"], false);
        assert_eq!(schema["$defs"]["StepsSpec"]["anyOf"].as_array().unwrap().len(), 2);
    }
}
