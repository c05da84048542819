//! What metrics are told of the agents: copied out of the loop, so that writing it down keeps nobody waiting.

use std::sync::Arc;

use agt_rings::cgroup::Group;
use agt_sre::breaker::BreakerState;
use agt_sre::engine::SloStatus;

use super::Supervisor;
use super::status::{AgentStatus, Frozen};

/// All agents, now.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What `ps` shows.
    pub agents: Vec<AgentStatus>,
    /// What they have earned and spent.
    pub governed: Vec<GovernedNumbers>,
}

/// What one agent has earned and spent.
#[derive(Debug, Clone)]
pub struct GovernedNumbers {
    /// Its name.
    pub agent: String,
    /// Its SLOs.
    pub slos: Vec<SloStatus>,
    /// Its trust, 0 to 1000.
    pub trust: u16,
    /// Its circuit breaker.
    pub breaker: BreakerState,
}

/// One agent as the loop knows it; what the kernel knows is read by whoever asked, so that the loop waits for no file.
#[derive(Debug)]
pub struct Seen {
    status: AgentStatus,
    group: Option<Arc<Group>>,
}

impl Seen {
    /// Reads the kernel's part.
    #[must_use]
    pub fn read(mut self) -> AgentStatus {
        if let Some(group) = &self.group {
            self.status.usage = group.usage().ok();
            self.status.limits.in_force = group.tree().limits_in_force().ok();
            if self.status.frozen.is_none() && group.is_frozen().unwrap_or(false) {
                self.status.frozen = Some(Frozen::Other);
            }
        }
        self.status
    }
}

/// Reads the kernel's part of all, beside the runtime: a thousand agents are tens of thousands of small files.
pub(super) async fn read_all(seen: Vec<Seen>) -> Vec<AgentStatus> {
    let read = tokio::task::spawn_blocking(move || seen.into_iter().map(Seen::read).collect());
    // It only ends early with the runtime, and then nobody hears the answer.
    read.await.unwrap_or_default()
}

impl Supervisor {
    pub(super) fn see(&self, names: &[String]) -> Vec<Seen> {
        let see =
            |name: &String| Some(Seen { status: self.status_of(name)?, group: self.agents.get(name)?.group.clone() });
        names.iter().filter_map(see).collect()
    }

    pub(super) fn observe(&self) -> (Vec<Seen>, Vec<GovernedNumbers>) {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        let now = self.governor.now();
        let governed = names.iter().chain(self.hosting.names()).filter_map(|name| {
            let governed = self.governor.get(name)?;
            Some(GovernedNumbers {
                agent: name.clone(),
                slos: governed.slo_status(now),
                trust: governed.trust().score(now).get(),
                breaker: governed.breaker_state(now),
            })
        });
        (self.see(&names), governed.collect())
    }
}
