//! What an experiment sees of one agent: copied out of the loop in one go, so that its parts belong together.

use std::sync::Arc;

use agt_rings::Ring;
use agt_rings::cgroup::Group;
use agt_sre::breaker::BreakerState;
use agt_sre::engine::SloStatus;

use super::Supervisor;
use super::event::Refusal;
use crate::config::spec::{ChaosSpec, Environment};
use crate::machine::lifecycle::{Death, State};
use crate::sagas::ambush::Ambush;

/// One agent, now.
#[derive(Debug)]
pub struct Scene {
    /// What its life is at.
    pub state: State,
    /// How often it was launched.
    pub launches: u64,
    /// What it died of last.
    pub last_death: Option<Death>,
    /// OOM kills in its earlier lives.
    pub oom_kills_before: u64,
    /// Its cgroup, while it runs in one.
    pub group: Option<Arc<Group>>,
    /// What its file and the operator let experiments do.
    pub chaos: ChaosSpec,
    /// What the operator says this host is for.
    pub environment: Environment,
    /// What the governor knows; `None` when it knows nothing of it.
    pub governed: Option<SceneGoverned>,
    /// When it is a saga: what is particular to one.
    pub saga: Option<SagaScene>,
}

/// A saga's name under experiment.
#[derive(Debug)]
pub struct SagaScene {
    /// Where its steps can be waylaid.
    pub ambush: Ambush,
    /// Where the saga of this name that moved last stands, in the engine's word; `None` before any moved here.
    pub word: Option<String>,
}

/// What the governor knows of it.
#[derive(Debug)]
pub struct SceneGoverned {
    /// Its trust that counts, 0 to 1000.
    pub trust: u16,
    /// Whether an experiment lets a lower score count than its own.
    pub trust_lowered: bool,
    /// The ring that it would be launched in now.
    pub ring: Option<Ring>,
    /// Violations ever counted.
    pub violations: u64,
    /// Its SLOs.
    pub slos: Vec<SloStatus>,
    /// Its circuit breaker.
    pub breaker: BreakerState,
    /// Whether it is quarantined.
    pub quarantined: bool,
    /// Whether the kill switch's mark is on it.
    pub killed: bool,
}

impl Supervisor {
    pub(super) fn scene(&self, name: &str) -> Result<Scene, Refusal> {
        let Some(agent) = self.agents.get(name) else {
            return self.saga_scene(name).ok_or_else(|| Refusal::Unknown(name.to_owned()));
        };
        Ok(Scene {
            state: agent.life.state().clone(),
            launches: agent.launches,
            last_death: agent.last_death.clone(),
            oom_kills_before: agent.oom_kills_before,
            group: agent.group.clone(),
            chaos: agent.definition.plan.chaos.clone(),
            environment: agent.definition.plan.environment,
            governed: self.scene_governed(name),
            saga: None,
        })
    }
}
