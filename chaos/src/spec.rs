//! What a `kind: chaos` file says: serde only, strict, every time and size with its unit.
//!
//! The parameters of all faults stand in one flat table of optional fields instead of a type per fault: the file stays
//! flat, the JSON schema stays precise, and a parameter that belongs to another fault is named as such by
//! [`crate::plan::Plan::resolve`], which reports every problem at once.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::FaultKind;
use crate::unit::{Bytes, CpuShare};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// Format version: 1.
    pub version: u32,
    /// Always `chaos`.
    pub kind: Kind,
    /// The experiment's name.
    pub name: String,
    /// The agent that the fault is done to. It must have opted in.
    pub agent: String,
    /// A template from `chaos list`: a fault with parameters that make sense. This or `fault`.
    pub template: Option<String>,
    /// The fault itself. This or `template`.
    pub fault: Option<FaultKind>,
    /// The fault's parameters; with a template they replace the template's own, one by one.
    pub parameters: Parameters,
    /// How long the faulty phase lasts: `30s`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub duration: Duration,
    /// How the fault is spread over the faulty phase.
    pub bursts: Bursts,
    /// Where the bursts fall: the same seed gives the same schedule.
    pub seed: u64,
    /// How long is watched before and after, and how often.
    pub windows: Windows,
    /// What must hold before and after, and is scored during. At least one line names an SLI.
    pub steady_state: Vec<Condition>,
    /// The experiment is aborted as soon as one of these *becomes true*, or can't be told for lack of data.
    pub abort: Vec<Condition>,
    /// Times that must be kept for the experiment to pass.
    pub expect: Expect,
    /// How much harm the experiment may do.
    pub blast_radius: BlastRadius,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            version: 1,
            kind: Kind::Chaos,
            name: String::new(),
            agent: String::new(),
            template: None,
            fault: None,
            parameters: Parameters::default(),
            duration: Duration::from_secs(30),
            bursts: Bursts::default(),
            seed: 0,
            windows: Windows::default(),
            steady_state: Vec::new(),
            abort: Vec::new(),
            expect: Expect::default(),
            blast_radius: BlastRadius::default(),
        }
    }
}

/// The file's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A chaos experiment.
    #[default]
    Chaos,
}

/// The parameters of all faults; each fault takes its own and refuses the others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// `crash-at-step`: the saga step at whose start the agent is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `cpu-squeeze`: what is left to the agent, in percents of one CPU: `10%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuShare>,
    /// `memory-pressure`: the limit is lowered to this first: `64MiB`. Left out: the agent's own limit stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// `memory-pressure`: how fast memory is taken, per second: `64MiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bytes>,
    /// `fd-exhaustion`: how many more files each process may still open: `0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<u32>,
    /// `trust-manipulation`: the score that the agent has meanwhile (0-1000); it can only be lowered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u16>,
}

/// How often the fault is injected within the faulty phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bursts {
    /// How many times: 1 to 32.
    pub count: u32,
    /// How long each lasts; left out: the whole phase for one burst, else half of an equal share.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub length: Option<Duration>,
}

impl Default for Bursts {
    fn default() -> Self {
        Self { count: 1, length: None }
    }
}

/// The phases before and after the fault, and how readings are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Windows {
    /// How long is watched before the fault.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub baseline: Duration,
    /// How long is watched after the fault is undone.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub observe: Duration,
    /// How far back one reading of an SLI looks. A phase's value is the mean of the readings that don't reach into the
    /// phase before it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub look_back: Duration,
    /// How often a reading is taken.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub every: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            baseline: Duration::from_secs(30),
            observe: Duration::from_secs(60),
            look_back: Duration::from_secs(10),
            every: Duration::from_secs(1),
        }
    }
}

/// One reading compared with one number. Exactly one of `sli`, `metric` and `budget` names the reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// An SLI of the agent: good events / valid events, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sli: Option<String>,
    /// Any other reading: `oom_kills`, `restarts`, ..., or one that the supervisor adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// What is left of an SLO's error budget, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: f64,
}

/// How a reading is compared with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `<`
    Below,
}

/// Times that must be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// From the first injection until an incident is open.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub detect_within: Option<Duration>,
    /// From the last undo until the steady state holds again.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub recover_within: Option<Duration>,
}

/// How much harm is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlastRadius {
    /// Agents touched: 1, for now.
    pub max_agents: u32,
    /// The largest part of any error budget that the experiment may burn (0 to 1); more aborts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_budget_burn: Option<f64>,
}

impl Default for BlastRadius {
    fn default() -> Self {
        Self { max_agents: 1, max_budget_burn: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{
        "version": 1, "kind": "chaos", "name": "hang", "agent": "researcher", "fault": "process-hang",
        "duration": "1m30s",
        "steady_state": [{"sli": "availability", "comparison": "at-least", "value": 0.9}]
    }"#;

    #[test]
    fn a_small_file_gets_the_defaults() {
        let spec: Spec = serde_json::from_str(SMALL).unwrap();
        assert_eq!(spec.duration, Duration::from_secs(90));
        assert_eq!(spec.windows, Windows::default());
        assert_eq!(spec.blast_radius.max_agents, 1);
    }

    #[test]
    fn every_misspelled_key_is_refused() {
        for key in ["version", "name", "agent", "fault", "duration", "steady_state", "sli", "comparison"] {
            let wrong = SMALL.replacen(&format!("\"{key}\""), &format!("\"{key}x\""), 1);
            assert!(serde_json::from_str::<Spec>(&wrong).is_err(), "`{key}x` was let through");
        }
    }

    #[test]
    fn a_duration_without_unit_is_refused() {
        assert!(serde_json::from_str::<Spec>(&SMALL.replace("\"1m30s\"", "\"90\"")).is_err());
        assert!(serde_json::from_str::<Spec>(&SMALL.replace("\"1m30s\"", "90")).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let spec: Spec = serde_json::from_str(SMALL).unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }

    #[test]
    fn the_schema_forbids_unknown_keys_everywhere() {
        let schema = schemars::schema_for!(Spec).to_value();
        assert_eq!(schema["additionalProperties"], false);
        for part in ["Parameters", "Windows", "Condition", "Bursts", "Expect", "BlastRadius"] {
            assert_eq!(schema["$defs"][part]["additionalProperties"], false, "{part}");
        }
    }
}
