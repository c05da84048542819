//! What one look at an agent says about its availability.
//!
//! Frozen is down: nothing is answered, whatever the process table says. So a hang that an experiment (or anybody else) makes
//! burns the budget. One exception: while the supervisor itself holds the agent, by an operator's `freeze` or a quarantine, there
//! is no event at all, neither good nor bad. Holding it was decided, and is no failure of the agent's; and a quarantine that
//! burned the very budget that called for it would end in a kill for certain.

use agt_sre::sli::Outcome;

use super::agent::Agent;
use crate::machine::lifecycle::State;

/// The evidence; `None`: this is no moment at which it could be available.
pub(super) fn look(agent: &Agent) -> Option<Outcome> {
    let seen = super::health::evidence(agent)?;
    if !matches!(agent.life.state(), State::Running { .. }) {
        return Some(seen);
    }
    if agent.frozen.is_some() {
        return None;
    }
    // A freezer that can't be read says nothing; the process is there.
    let frozen = agent.group.as_ref().is_some_and(|group| group.is_frozen().unwrap_or(false));
    Some(if frozen { Outcome::Bad } else { seen })
}
