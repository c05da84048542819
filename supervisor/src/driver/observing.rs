//! What metrics are told of the agents: copied out of the loop, so that writing it down keeps nobody waiting.

use agt_sre::breaker::BreakerState;
use agt_sre::engine::SloStatus;

use super::Supervisor;
use super::status::AgentStatus;

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

impl Supervisor {
    pub(super) fn observe(&self) -> Observed {
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
        let governed = governed.collect();
        Observed { agents: self.statuses(&names), governed }
    }
}
