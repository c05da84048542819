//! The agent is killed at the moment a named saga step starts: does the saga finish or undo itself?
//!
//! The target is a saga's name; what is killed is the step's process tree, by the supervisor's own kill. The crash is armed
//! in the supervisor's memory, so that it falls exactly between the step's journaled intent and its outcome. Nothing of it sticks: a dead supervisor has disarmed it.

use serde::{Deserialize, Serialize};

use super::{About, Fault, Risk, Seen, grew};
use crate::plan::Problem;
use crate::spec::Parameters;
use crate::target::{Act, Need, Observation};

/// See [`super::FaultKind::CrashAtStep`].
pub const ABOUT: About = About {
    does: "kills the process tree of the named step when it starts next in a saga of this name",
    undo: "disarmed; the killed step is tried again or undone by the saga's own rules",
    sign: "the count of crashes carried out has grown",
    needs: &[Need::SagaSteps],
    risk: Risk::Kill,
    watch: "correctness",
    parameters: &["step"],
};

/// The fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashAtStep {
    /// The step's name.
    pub step: String,
}

impl CrashAtStep {
    /// Needs `step`.
    pub fn new(parameters: &Parameters) -> Result<Self, Problem> {
        match &parameters.step {
            Some(step) if !step.trim().is_empty() => Ok(Self { step: step.clone() }),
            Some(_) | None => Err(Problem::new("parameters.step", "crash-at-step needs the name of a saga step")),
        }
    }
}

impl Fault for CrashAtStep {
    fn acts(&self) -> Vec<Act> {
        vec![Act::CrashAtStep { step: self.step.clone() }]
    }

    fn refuse(&self, now: &Observation) -> Option<String> {
        (now.crash_armed == Some(true)).then(|| "a crash is armed already".to_owned())
    }

    fn acted(&self, before: &Observation, now: &Observation) -> Seen {
        grew(before.step_crashes, now.step_crashes)
    }

    fn restored(&self, _before: &Observation, now: &Observation) -> Seen {
        Seen::from(now.crash_armed.map(|armed| !armed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_must_be_named() {
        assert!(CrashAtStep::new(&Parameters::default()).is_err());
        assert!(CrashAtStep::new(&Parameters { step: Some(" ".into()), ..Parameters::default() }).is_err());
    }

    #[test]
    fn an_armed_crash_that_never_came_has_not_acted() {
        let fault = CrashAtStep { step: "pay".into() };
        let at = |n| Observation { step_crashes: Some(n), crash_armed: Some(true), ..Observation::default() };
        assert_eq!(fault.acted(&at(2), &at(2)), Seen::No);
        assert_eq!(fault.acted(&at(2), &at(3)), Seen::Yes);
        assert_eq!(fault.restored(&at(2), &at(2)), Seen::No);
    }
}
