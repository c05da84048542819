//! Does nothing, through every station of a real fault: what an experiment changes by itself, and a template for new
//! faults.

use serde::{Deserialize, Serialize};

use super::{About, Fault, Risk, Seen};
use crate::target::{Act, Observation};

/// See [`super::FaultKind::Noop`].
pub const ABOUT: About = About {
    does: "nothing; shows what the experiment itself changes",
    undo: "nothing to undo",
    sign: "always",
    needs: &[],
    risk: Risk::None,
    watch: "availability",
    parameters: &[],
};

/// The reference fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noop {}

impl Fault for Noop {
    fn acts(&self) -> Vec<Act> {
        Vec::new()
    }

    fn refuse(&self, _now: &Observation) -> Option<String> {
        None
    }

    fn acted(&self, _before: &Observation, _now: &Observation) -> Seen {
        Seen::Yes
    }

    fn restored(&self, _before: &Observation, _now: &Observation) -> Seen {
        Seen::Yes
    }
}
