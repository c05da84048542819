//! What a saga.yaml says: the engine's own words, and those that only the supervisor has a use for.
//!
//! The keys of the engine stand here once more because serde can't refuse unknown keys in a group that is flattened into
//! another, and no misspelt key may pass. A test compares them with the engine's.

use std::collections::BTreeMap;

use agt_saga::spec::{EnforcementSpec, ParamSpec, SagaSpec, StepsSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::spec::{ChaosSpec, SloSpec};
use crate::config::units::Span;

/// A saga: steps that either all take effect or are all undone.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SagaFile {
    /// Version of the format: 1.
    pub version: u32,
    /// Always `saga`.
    pub kind: String,
    /// The saga's name: letters, digits, `-` and `_`.
    pub name: String,
    /// The most privileged ring any step may have, 0 to 3.
    pub ring: Option<u8>,
    /// What happens where the host can't enforce the steps' rings in full.
    pub enforcement: EnforcementSpec,
    /// The longest the whole saga may take before it is undone ("10m"); none when absent. Past the pivot it has no
    /// effect: from there the saga only goes forward.
    #[schemars(with = "Span")]
    pub timeout: Option<Span>,
    /// What it is given when it begins, by name. Steps refer to it as `params.NAME`.
    pub params: BTreeMap<String, ParamSpec>,
    /// The steps: a list of steps with a `name` each, or a map from name to step.
    pub steps: StepsSpec,
    /// Service level objectives over its steps, as an agent's: correctness (each attempt's answer), latency (each attempt's
    /// time), delegation (each step after its retries).
    pub slos: Vec<SloSpec>,
    /// Whether chaos experiments may target its steps.
    pub chaos: ChaosSpec,
}

/// What of a saga's file is the supervisor's alone. Journaled with the saga.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ours {
    /// Its objectives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<SloSpec>,
    /// Its opt-in.
    pub chaos: ChaosSpec,
}

impl SagaFile {
    /// The engine's part, and ours.
    #[must_use]
    pub fn parts(self) -> (SagaSpec, Ours) {
        let SagaFile { version, kind, name, ring, enforcement, timeout, params, steps, slos, chaos } = self;
        let timeout = timeout.map(|Span(timeout)| timeout);
        (SagaSpec { version, kind, name, ring, enforcement, timeout, params, steps }, Ours { slos, chaos })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_has_the_engines_keys_and_two_more() {
        let keys = |schema: schemars::Schema| -> Vec<String> {
            schema.as_value()["properties"].as_object().unwrap().keys().cloned().collect()
        };
        let mut expected = keys(schemars::schema_for!(SagaSpec));
        expected.extend(["slos".to_owned(), "chaos".to_owned()]);
        expected.sort();
        let mut found = keys(schemars::schema_for!(SagaFile));
        found.sort();
        assert_eq!(found, expected);
    }
}
