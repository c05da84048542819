//! What a reload would do, as it is shown before anybody agrees to it.

use std::fmt;
use std::path::PathBuf;

use agt_rings::Ring;
use agt_rings::spec::Access;
use serde::{Deserialize, Serialize};

use crate::config::{AgentPlan, Change};
use crate::driver::reload::{Known, Life};
use crate::driver::streams::escaped;

/// What becomes of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its plan is the same.
    Unchanged,
    /// It is stopped in order and started with the new plan.
    Restart,
    /// The new plan holds at once; its process is not touched.
    Adopt,
    /// It doesn't run; its next start has the new plan.
    Keep,
    /// Its file is new in the served folder: it is started.
    Start,
    /// Its file is gone from the served folder: it is stopped and forgotten.
    Stop,
}

/// One agent's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDifference {
    /// Its name.
    pub agent: String,
    /// Its file.
    pub file: PathBuf,
    /// What becomes of it.
    pub what: What,
    /// Each changed key of its plan.
    pub changes: Vec<Change>,
    /// An attestation of the old plan is void.
    pub attestation_void: bool,
    /// Other loaded agents that work where the file stands: one that runs since before the file was loaded can have written it.
    #[serde(default)]
    pub written_by: Vec<String>,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Each agent that has a file, those that stay as they are included.
    pub agents: Vec<AgentDifference>,
    /// Stands for exactly this difference: what is agreed to is what is done.
    pub token: String,
    /// Whether it was done.
    pub applied: bool,
}

impl Difference {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.iter().all(|agent| agent.what == What::Unchanged)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for agent in self.agents.iter().filter(|agent| agent.what != What::Unchanged) {
            let (name, file) = (&agent.agent, agent.file.display().to_string());
            let file = escaped(&file);
            match agent.what {
                What::Unchanged => {}
                What::Restart => writeln!(f, "{name}  ({file}) is stopped and started with:")?,
                What::Adopt => writeln!(f, "{name}  ({file}) runs on with:")?,
                What::Keep => writeln!(f, "{name}  ({file}) does not run; at its next start:")?,
                What::Start => writeln!(f, "{name}  ({file}) is new: it is started")?,
                What::Stop => writeln!(f, "{name}  ({file}) is gone: it is stopped")?,
            }
            for change in &agent.changes {
                writeln!(f, "  {}", escaped(&change.to_string()))?;
            }
            if !agent.written_by.is_empty() {
                writeln!(
                    f,
                    "  {} may write where this file stands: is this your change?",
                    agent.written_by.join(", ")
                )?;
            }
            if agent.attestation_void {
                writeln!(
                    f,
                    "  the attestation of its old plan is void: `agt-supervise attest {name}` makes a new one"
                )?;
            }
        }
        Ok(())
    }
}

/// Whether the running process can stay as it is: only what the supervisor itself does with the plan differs.
#[must_use]
pub(super) fn needs_no_restart(old: &AgentPlan, new: &AgentPlan) -> bool {
    let mut like = new.clone();
    like.restart = old.restart.clone();
    like.labels = old.labels.clone();
    like.slos = old.slos.clone();
    like.chaos = old.chaos.clone();
    like.vouch = old.vouch;
    like.environment = old.environment;
    like.notes = old.notes.clone();
    like.ring_limits_most = old.ring_limits_most;
    like.ring_requests_per_minute = old.ring_requests_per_minute;
    // Where the same listeners are open inside, the gateway takes new entries while it runs.
    let inside = |plan: &AgentPlan, ring: Ring| (plan.openings_at(ring), plan.way_variables(ring));
    if [Ring::R1, Ring::R2, Ring::R3].iter().all(|ring| inside(old, *ring) == inside(new, *ring)) {
        like.network = old.network.clone();
        like.models = old.models.clone();
    }
    like == *old
}

/// An agent that runs, with the trees that it may write.
pub(super) fn writer(known: &Known) -> Option<(String, Vec<PathBuf>)> {
    let trees = known.plan.files.iter().filter(|rule| rule.access == Access::Write).map(|rule| rule.path.clone());
    (known.life == Life::Runs).then(|| (known.plan.name().to_owned(), trees.collect()))
}
