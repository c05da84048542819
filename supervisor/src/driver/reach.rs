//! The kill switch's own way to the agents: past the loop, its queue, and the disk that it may be waiting for.
//!
//! An order to kill goes to the loop like every order, because the loop knows what follows from it. But the loop may be busy: it
//! waits for the disk when something gives power. So whoever brings the order waits a moment for the loop and then ends the
//! tree without it. The loop finds the agent dead, and the order still in its queue before the news of that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agt_rings::cgroup::Group;
use agt_rings::launch::Running;

use super::agent::STOP_WITHIN;
use super::beside::beside;
use super::event::Refusal;
use super::killing;
use super::status::KillSeen;

/// How long the loop may take to answer an order to kill before its trees are ended without it.
pub(super) const LOOP_WITHIN: Duration = Duration::from_millis(250);
/// How long the loop may take after that before the one who asked is told what was done.
pub(super) const WORD_WITHIN: Duration = Duration::from_secs(2);

/// The agents that run now, by name: what it takes to end them.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach(Arc<Mutex<BTreeMap<String, Alive>>>);

#[derive(Debug, Clone)]
struct Alive {
    running: Arc<Running>,
    group: Option<Arc<Group>>,
}

/// What a kill without the loop did to one agent.
#[derive(Debug)]
pub(super) struct Struck {
    name: String,
    seen: KillSeen,
}

impl Reach {
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Alive>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, name: &str, running: &Arc<Running>, group: Option<&Arc<Group>>) {
        self.map().insert(name.to_owned(), Alive { running: Arc::clone(running), group: group.cloned() });
    }

    pub(super) fn leave(&self, name: &str) {
        self.map().remove(name);
    }

    /// Ends one agent's tree, or all, each beside the runtime, whose pools can be full.
    pub(super) async fn strike(&self, agent: Option<&str>) -> Vec<Struck> {
        let meant = |name: &String| agent.is_none_or(|agent| agent == name);
        let targets: Vec<(String, Alive)> = self
            .map()
            .iter()
            .filter(|(name, _)| meant(name))
            .map(|(name, alive)| (name.clone(), alive.clone()))
            .collect();
        let mut waits = Vec::new();
        for (name, alive) in targets {
            let kill = move || killing::end(alive.group.as_deref(), Some(&alive.running), STOP_WITHIN);
            waits.push((name, beside("agt-kill", kill)));
        }
        let mut struck = Vec::new();
        for (name, wait) in waits {
            let seen = wait.await.ok().and_then(Result::ok);
            struck.push(Struck { name, seen: seen.unwrap_or_else(KillSeen::unverified) });
        }
        struck
    }
}

/// What is told when the loop has still not answered.
pub(super) fn unrecorded(struck: &[Struck]) -> Refusal {
    let one = |struck: &Struck| format!("{} was killed: {}", struck.name, struck.seen.words());
    let done = match struck {
        [] => "nothing of it ran".to_owned(),
        struck => struck.iter().map(one).collect::<Vec<_>>().join("; "),
    };
    Refusal::NotRecorded(format!("{done}, but this is not on record yet: the supervisor waits for its disk"))
}
