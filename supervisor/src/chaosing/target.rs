//! The agent under experiment, as the supervisor offers it to the driver.
//!
//! Everything is done in the poll itself, by small writes to the agent's own cgroup or a word to the supervisor's loop: a future
//! that was dropped has no thread left that would act after the undo. What this supervisor can't do is refused by
//! [`Target::missing`], never done in part.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agt_chaos::hog::Hog;
use agt_chaos::kernel;
use agt_chaos::replay;
use agt_chaos::target::{Act, Missing, Need, Observation, Process, Target, TargetError};
use agt_chaos::undo::{Outcome, ProcessId, Undo, UndoEntry};
use agt_rings::cgroup::Group;
use agt_sre::trust::Score;

use super::acts::{self, failed, refused};
use super::happenings::{Happenings, Moment};
use super::memory::MemoryGroup;
use super::places;
use super::saga_steps;
use super::seeing::{self, Look, Looks};
use super::standstill;
use crate::driver::Handle;
use crate::driver::experimenting::Order;
use crate::driver::records::obituary;
use crate::driver::scene::Scene;
use crate::machine::lifecycle::State;

/// How long an ended hog may take to be gone: it gives back all it has taken.
const HOG_GONE_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks whether it is.
const HOG_LOOK: Duration = Duration::from_millis(5);

/// One agent.
#[derive(Debug)]
pub(super) struct AgentTarget {
    handle: Handle,
    agent: String,
    looks: Mutex<Looks>,
    happenings: Mutex<Happenings>,
    prepared: Mutex<Prepared>,
    /// OOM kills that took a hog: none of the agent's.
    hogs_killed: AtomicU64,
}

/// What the next burst was prepared on.
#[derive(Debug, Default)]
struct Prepared {
    /// Which life: its cgroup is not that of the next one.
    life: u64,
    hog: Option<Hog>,
    /// OOM kills when the pressing began.
    kills_before: Option<u64>,
    /// Whether the undo has begun: from then on a hog that is killed was killed by us.
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Ending {
    #[default]
    No,
    Yes,
}

impl Prepared {
    fn is_pressing(&mut self) -> bool {
        self.ending == Ending::No && self.hog.as_mut().is_some_and(|hog| hog.ended().is_none())
    }

    /// Whether the OOM killer took the hog and let the agent live: with the agent gone, its whole cgroup is ended anyway.
    fn was_chosen_alone(&mut self, scene: &Scene) -> bool {
        self.ending == Ending::No && self.was_killed() && self.agent_lives(scene)
    }

    fn was_killed(&mut self) -> bool {
        let status = self.hog.as_mut().and_then(Hog::ended);
        status.is_some_and(|status| status.signal() == Some(libc::SIGKILL))
    }

    fn agent_lives(&self, scene: &Scene) -> bool {
        scene.launches == self.life && matches!(scene.state, State::Running { .. })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for AgentTarget {
    /// Whatever ended the experiment: what lives in the supervisor's memory must not stay there.
    fn drop(&mut self) {
        drop(self.handle.order(&self.agent, Order::GiveTrustBack));
        drop(self.handle.order(&self.agent, Order::RelieveMemory));
    }
}

impl AgentTarget {
    pub(super) fn new(handle: Handle, agent: String) -> AgentTarget {
        AgentTarget {
            handle,
            agent,
            looks: Mutex::default(),
            happenings: Mutex::default(),
            prepared: Mutex::default(),
            hogs_killed: AtomicU64::new(0),
        }
    }

    async fn scene(&self) -> Result<Scene, TargetError> {
        self.handle.scene(&self.agent).await.map_err(|e| failed("asking the supervisor for the agent", e))
    }

    async fn order(&self, order: Order) -> Result<(), TargetError> {
        self.handle.experiment(&self.agent, order).await.map_err(|e| failed("asking the supervisor's loop", e))
    }

    /// The OOM kills that were the agent's, of all that its cgroup has counted. While a hog has yet to end (it does so by
    /// itself after a kill) nobody knows whose the last ones were: then those from before the pressing.
    fn own_kills(&self, counted: Option<u64>, scene: &Scene) -> Option<u64> {
        let mut prepared = lock(&self.prepared);
        let before = prepared.kills_before;
        let mut of_hogs = self.hogs_killed.load(Ordering::Relaxed);
        let mut known = counted;
        if prepared.is_pressing() {
            known = counted.map(|now| before.map_or(now, |before| now.min(before)));
        } else if prepared.was_chosen_alone(scene) {
            of_hogs += 1;
        }
        known.map(|known| known.saturating_sub(of_hogs))
    }

    fn moment(&self, scene: &Scene, now: &Observation) -> Moment {
        let hog = lock(&self.prepared).hog.as_ref().map(Hog::id);
        let obituary = scene.last_death.as_ref().map(|death| obituary(&self.agent, death, None, 0));
        Moment {
            life: scene.launches,
            obituary,
            is_down: matches!(scene.state, State::Backoff { .. } | State::Ended { .. }),
            ring: scene.governed.as_ref().and_then(|governed| governed.ring),
            oom_kills: now.oom_kills,
            processes: scene.group.as_deref().map_or_else(Default::default, |group| processes(group, hog)),
        }
    }

    /// Waits until an ended hog is gone, so that the memory is the agent's again.
    async fn see_hog_gone(&self) -> Result<(), TargetError> {
        let asked = Instant::now();
        loop {
            {
                let mut prepared = lock(&self.prepared);
                if prepared.hog.as_mut().is_none_or(|hog| hog.ended().is_some()) {
                    prepared.hog = None;
                    return Ok(());
                }
            }
            if asked.elapsed() > HOG_GONE_WITHIN {
                return Err(failed("ending what presses", "it is still there"));
            }
            tokio::time::sleep(HOG_LOOK).await;
        }
    }
}

/// The processes that the agent's memory is charged for, or else those of its cgroup, by name; the hog left out.
fn processes(group: &Group, hog: Option<ProcessId>) -> std::collections::BTreeMap<i32, String> {
    let place = MemoryGroup::of(group.tree()).map(|memory| memory.procs());
    let text = place.or_else(|| places::procs(group.tree())).and_then(|procs| places::read(&procs).ok().flatten());
    let pids = text.iter().flat_map(|text| text.split_whitespace()).filter_map(|word| word.parse().ok());
    pids.filter(|pid| hog.is_none_or(|hog| hog.pid != *pid))
        .map(|pid: i32| {
            // A name that can't be read any more belongs to one that is about to be gone.
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (pid, name.trim_end().escape_debug().to_string())
        })
        .collect()
}

fn needs_group(act: &Act) -> bool {
    !matches!(act, Act::SetTrust(_) | Act::CrashAtStep { .. })
}

fn group_of(scene: &Scene) -> Result<&Arc<Group>, TargetError> {
    scene.group.as_ref().ok_or_else(|| refused("it does not run in a cgroup of its own"))
}

impl Target for AgentTarget {
    async fn missing(&self, needs: &[Need]) -> Vec<Missing> {
        let scene = self.scene().await.ok();
        let saga = scene.as_ref().and_then(|scene| scene.saga.as_ref());
        let group = scene.as_ref().and_then(|scene| scene.group.clone());
        let knows_trust = scene.as_ref().is_some_and(|scene| scene.governed.is_some());
        let lacking = |need: &Need| {
            let reason = match need {
                need if saga.is_some() || *need == Need::SagaSteps => saga_steps::lacks(*need, saga),
                Need::TrustScores if knows_trust => None,
                Need::TrustScores => Some("nothing is known of its trust".to_owned()),
                need => acts::lacks(*need, group.as_deref()),
            };
            Some(Missing { need: *need, reason: reason? })
        };
        needs.iter().filter_map(lacking).collect()
    }

    async fn observe(&self, look_back: Duration) -> Result<Observation, TargetError> {
        let scene = self.scene().await?;
        let mut now = Observation {
            environment: seeing::environment(scene.environment),
            opt_in: seeing::opt_in(&scene.chaos),
            // There is one place for experiments, and this one has it.
            other_experiment: None,
            restarts: Some(scene.launches.saturating_sub(1)),
            crash_armed: Some(false),
            ..Observation::default()
        };
        match &scene.group {
            Some(group) => seeing::look_at(group, scene.oom_kills_before, &mut now),
            // Nothing of a group can be read that isn't there, but what was counted is known.
            None => now.oom_kills = Some(scene.oom_kills_before),
        }
        let killed = scene.governed.as_ref().is_some_and(|governed| governed.killed);
        let process = seeing::process_of(&scene.state, killed);
        now.process = Some(process);
        let slos = scene.governed.as_ref().map_or(&[][..], |governed| &governed.slos);
        let healthy = matches!(scene.state, State::Running { unhealthy: 0, .. });
        let mut up = healthy && now.frozen != Some(true);
        if let Some(saga) = &scene.saga {
            saga_steps::look_at(&self.agent, saga, &mut now);
            up = saga_steps::is_well(saga) == Some(true);
        }
        let look = Look { at: Instant::now(), up, totals: seeing::totals(slos) };
        now.slis = lock(&self.looks).slis(look, look_back, slos.iter().map(|slo| slo.sli));
        now.metrics.insert("alive".to_owned(), Some(f64::from(u8::from(process == Process::Alive))));
        if let Some(governed) = &scene.governed {
            now.incident_open = Some(seeing::incident(governed));
            now.trust = Some(governed.trust);
            now.trust_replaced = Some(governed.trust_lowered);
            now.safety_violations = Some(governed.violations);
            now.metrics.insert("ring".to_owned(), governed.ring.map(|ring| f64::from(ring.number())));
            let budget = |slo: &agt_sre::engine::SloStatus| (slo.slo.as_str().to_owned(), seeing::budget_left(slo));
            now.budgets = governed.slos.iter().map(budget).collect();
            let uncounted = governed.slos.iter().filter(|slo| seeing::is_uncounted(slo));
            now.uncounted = uncounted.map(|slo| slo.slo.as_str().to_owned()).collect();
        }
        now.oom_kills = self.own_kills(now.oom_kills, &scene);
        now.happened = lock(&self.happenings).since_last(self.moment(&scene, &now));
        Ok(now)
    }

    async fn prepare(&self, acts: &[Act]) -> Result<Vec<UndoEntry>, TargetError> {
        let scene = self.scene().await?;
        if let Some(entries) = saga_steps::way_back(&scene, acts)? {
            return Ok(entries);
        }
        let mut prepared = Prepared { life: scene.launches, ..Prepared::default() };
        let mut entries = Vec::new();
        // The last thing done is the first put back.
        for act in acts.iter().rev() {
            if let Act::SetTrust(score) = act {
                let original = scene.governed.as_ref().map(|governed| governed.trust);
                let original = original.ok_or_else(|| refused("nothing is known of its trust"))?;
                entries.push(UndoEntry::RestoreTrust { replaced: *score, original });
                continue;
            }
            let (back, hog) = acts::way_back(act, acts, group_of(&scene)?)?;
            entries.extend(back);
            prepared.hog = hog.or(prepared.hog);
        }
        *lock(&self.prepared) = prepared;
        Ok(entries)
    }

    async fn perform(&self, acts: &[Act]) -> Result<(), TargetError> {
        let scene = self.scene().await?;
        if saga_steps::perform(&self.agent, &scene, acts)?.is_some() {
            return Ok(());
        }
        if acts.iter().any(needs_group) && lock(&self.prepared).life != scene.launches {
            return Err(refused("it was started anew since the way back was written down"));
        }
        for act in acts {
            match act {
                Act::SetTrust(score) => {
                    let score = Score::new(*score).ok_or_else(|| refused("a trust score is 0 to 1000"))?;
                    self.order(Order::LowerTrust(score)).await?;
                    continue;
                }
                // Before anything is pressed: the death may come at once.
                Act::PressMemory { .. } => {
                    self.order(Order::PressMemory).await?;
                    let counted = group_of(&scene)?.usage().ok().and_then(|usage| usage.oom_kills);
                    lock(&self.prepared).kills_before = counted.map(|kills| kills + scene.oom_kills_before);
                }
                _ => {}
            }
            acts::perform(act, group_of(&scene)?, lock(&self.prepared).hog.as_mut())?;
            if matches!(act, Act::Freeze) {
                standstill::insist(group_of(&scene)?).await?;
            }
        }
        Ok(())
    }

    async fn undo(&self, undo: &Undo) -> Result<(), TargetError> {
        let doing = "undoing the fault";
        let boot = kernel::boot_id().map_err(|e| failed(doing, e))?;
        // A hog that is dead by now wasn't killed by us.
        let was_killed = {
            let mut prepared = lock(&self.prepared);
            let was_killed = prepared.ending == Ending::No && prepared.was_killed();
            prepared.ending = Ending::Yes;
            was_killed
        };
        let mut undo = saga_steps::undo(self.scene().await.ok().as_ref(), undo);
        // Not by the file: an operator or a quarantine may hold the agent by now, which only the loop knows.
        let entries = undo.entries.len();
        undo.entries.retain(|entry| !acts::is_thaw(entry));
        if undo.entries.len() < entries {
            self.order(Order::EndHang).await?;
        }
        let undo = &undo;
        let outcomes = replay::apply(undo, &boot);
        // The experiment began under limits that an operator may have changed since: the operator's hold.
        if undo.entries.iter().any(acts::is_limit) {
            self.order(Order::LimitsAgain).await?;
        }
        let mut left = Vec::new();
        for (entry, outcome) in undo.entries.iter().zip(outcomes) {
            match (entry, outcome) {
                (UndoEntry::RestoreTrust { .. }, Outcome::LeftToSupervisor) => {
                    self.order(Order::GiveTrustBack).await?;
                }
                (_, outcome) if !outcome.is_settled() => left.push(outcome),
                _ => {}
            }
        }
        self.see_hog_gone().await?;
        self.order(Order::RelieveMemory).await?;
        if was_killed {
            let scene = self.scene().await?;
            let alone = lock(&self.prepared).agent_lives(&scene);
            self.hogs_killed.fetch_add(u64::from(alone), Ordering::Relaxed);
        }
        if left.is_empty() { Ok(()) } else { Err(failed(doing, format!("{left:?}"))) }
    }
}
