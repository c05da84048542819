//! The agent stands still: its whole tree is frozen, connections stay open, nothing is answered.
//!
//! The cgroup freezer rather than SIGSTOP: it takes the whole tree at once, the agent can neither see nor undo it, and a
//! parent in the tree is not told of a stopped child. It sticks, so the guardian holds the thaw.

use serde::{Deserialize, Serialize};

use super::{About, Fault, Risk, Seen};
use crate::target::{Act, Need, Observation};

/// See [`super::FaultKind::ProcessHang`].
pub const ABOUT: About = About {
    does: "freezes the agent's whole process tree: it neither answers nor ends",
    undo: "thaw; by the guardian if the supervisor dies (a frozen task of cgroup v1 could not even be killed)",
    sign: "the freezer reads frozen",
    needs: &[Need::Freezer],
    risk: Risk::Delay,
    watch: "availability",
    parameters: &[],
};

/// The fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessHang {}

impl Fault for ProcessHang {
    fn acts(&self) -> Vec<Act> {
        vec![Act::Freeze]
    }

    fn refuse(&self, now: &Observation) -> Option<String> {
        (now.frozen == Some(true)).then(|| "it is frozen already, and thawing it would end a quarantine".to_owned())
    }

    fn acted(&self, _before: &Observation, now: &Observation) -> Seen {
        Seen::from(now.frozen)
    }

    fn restored(&self, _before: &Observation, now: &Observation) -> Seen {
        Seen::from(now.frozen.map(|frozen| !frozen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantined_agent_is_refused() {
        let frozen = Observation { frozen: Some(true), ..Observation::default() };
        assert!(ProcessHang {}.refuse(&frozen).is_some());
        assert!(ProcessHang {}.refuse(&Observation::default()).is_none());
    }

    #[test]
    fn only_a_frozen_tree_is_a_hang() {
        let at = |frozen| Observation { frozen, ..Observation::default() };
        assert_eq!(ProcessHang {}.acted(&at(Some(false)), &at(Some(true))), Seen::Yes);
        assert_eq!(ProcessHang {}.acted(&at(Some(false)), &at(Some(false))), Seen::No);
        assert_eq!(ProcessHang {}.restored(&at(Some(false)), &at(Some(true))), Seen::No);
    }
}
