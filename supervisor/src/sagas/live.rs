//! The runs that are under way: to be seen, and to be ended by whoever may.
//!
//! Beside the loop and the engine on purpose: the kill switch goes straight to a run's tree and waits for neither. What it
//! struck is marked first, so that the run's end can't pass for one that deserves another try.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agt_rings::cgroup::Group;
use agt_rings::launch::Running;
use agt_rings::plan::Plan;
use agt_rings::report::Report;
use agt_rings::ring::Ring;
use agt_rings::spec::Limits;
use agt_saga::driver::StepsError;
use agt_saga::id::{RunId, SagaId};
use tokio::sync::watch;

use crate::driver::beside::beside;
use crate::driver::killing;
use crate::driver::limiting::LimitsStatus;
use crate::driver::status::metered::RequestsStatus;
use crate::driver::status::{AgentStatus, KillSeen};
use crate::machine::lifecycle::State;

/// How long a step's tree may take to die once it is killed.
pub(super) const END_WITHIN: Duration = Duration::from_secs(10);

/// All of them.
#[derive(Debug, Default)]
pub struct LiveRuns(Mutex<BTreeMap<RunId, Arc<LiveRun>>>);

/// One run.
#[derive(Debug)]
pub struct LiveRun {
    id: RunId,
    /// The saga's name, which its governed entry has.
    of: String,
    began: Instant,
    phase: watch::Sender<Phase>,
    struck: Mutex<Option<String>>,
    seen: Mutex<Seen>,
}

/// Where a run stands.
#[derive(Debug, Clone)]
enum Phase {
    Launching,
    Running(Arc<Running>, Option<Arc<Group>>),
    /// Its tree is empty.
    Over,
    /// Nobody looks after it any more: what became of its tree is not known.
    Dropped,
}

/// What `ps` shows of it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) ring: Ring,
    pub(super) ceiling: Ring,
    pub(super) report: Option<Report>,
    pub(super) protected: Vec<PathBuf>,
    pub(super) limits: Limits,
    pub(super) log: PathBuf,
}

/// Its place in the list; free again when dropped.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    all: &'a LiveRuns,
    run: Arc<LiveRun>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.run.phase.send_if_modified(|phase| {
            let over = matches!(phase, Phase::Over);
            if !over {
                *phase = Phase::Dropped;
            }
            !over
        });
        self.all.map().remove(&self.run.id);
    }
}

impl LiveRuns {
    fn map(&self) -> MutexGuard<'_, BTreeMap<RunId, Arc<LiveRun>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a run that is about to be launched.
    pub(super) fn enter(&self, id: RunId, of: &str, seen: Seen) -> Entry<'_> {
        let phase = watch::Sender::new(Phase::Launching);
        let run = LiveRun {
            id: id.clone(),
            of: of.to_owned(),
            began: Instant::now(),
            phase,
            struck: Mutex::default(),
            seen: Mutex::new(seen),
        };
        let run = Arc::new(run);
        self.map().insert(id, Arc::clone(&run));
        Entry { all: self, run }
    }

    pub(super) fn get(&self, id: &RunId) -> Option<Arc<LiveRun>> {
        self.map().get(id).cloned()
    }

    /// The runs of one saga.
    pub(super) fn of(&self, saga: &SagaId) -> Vec<Arc<LiveRun>> {
        self.map().values().filter(|run| run.id.saga == *saga).cloned().collect()
    }

    /// The runs of all sagas of one name.
    #[must_use]
    pub fn of_name(&self, name: &str) -> Vec<Arc<LiveRun>> {
        self.map().values().filter(|run| run.of == name).cloned().collect()
    }

    /// The runs that `name` means: `SAGA/STEP`, or all of a saga; `None` for all there are.
    #[must_use]
    pub fn named(&self, name: Option<&str>) -> Vec<Arc<LiveRun>> {
        let means = |run: &LiveRun| name.is_none_or(|name| name == run.name() || name == run.id.saga.as_str());
        self.map().values().filter(|run| means(run)).cloned().collect()
    }
}

impl Entry<'_> {
    /// It was launched.
    pub(super) fn runs(&self, running: &Arc<Running>, group: Option<&Arc<Group>>, plan: &Plan) {
        let mut seen = self.run.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.ring = plan.ring;
        seen.limits = plan.limits;
        seen.report = Some(plan.report.clone());
        seen.protected = plan.protected().map(Into::into).collect();
        drop(seen);
        self.run.phase.send_replace(Phase::Running(Arc::clone(running), group.cloned()));
    }

    /// Its tree is empty.
    pub(super) fn over(&self) {
        self.run.phase.send_replace(Phase::Over);
    }

    pub(super) fn run(&self) -> &Arc<LiveRun> {
        &self.run
    }
}

impl LiveRun {
    /// As `ps` names it: `SAGA/STEP`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.id.saga, self.id.step)
    }

    /// The saga that it belongs to.
    #[must_use]
    pub fn saga(&self) -> &SagaId {
        &self.id.saga
    }

    /// Why the kill switch ended it, if it did.
    pub(super) fn struck(&self) -> Option<String> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The kill switch: its tree ends, and it is not tried again. What the kill did; `None` when it had ended before.
    ///
    /// # Errors
    /// When the tree is not known to be empty.
    pub async fn strike(&self, reason: &str) -> Result<Option<KillSeen>, StepsError> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.end().await
    }

    /// Ends its tree and returns when that is verified. `None` when it had ended before.
    ///
    /// # Errors
    /// When the tree is not known to be empty.
    pub(super) async fn end(&self) -> Result<Option<KillSeen>, StepsError> {
        let mut changes = self.phase.subscribe();
        let mut done = None;
        loop {
            let phase = changes.borrow_and_update().clone();
            match phase {
                Phase::Launching => {}
                Phase::Running(running, group) => done = Some(kill(running, group).await?),
                Phase::Over => return Ok(done),
                Phase::Dropped => return Err("the run was dropped before its tree was seen to be empty".into()),
            }
            changes.changed().await?;
        }
    }

    /// What `ps` and `status` show.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        let (phase, seen) =
            (self.phase.borrow().clone(), self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut limits =
            LimitsStatus { wanted: seen.limits, plan: seen.limits, most: seen.limits, ..LimitsStatus::default() };
        let (state, pid, usage) = match &phase {
            Phase::Running(running, group) => {
                let usage = group.as_ref().and_then(|group| group.usage().ok());
                limits.in_force = group.as_ref().and_then(|group| group.tree().limits_in_force().ok());
                (State::Running { since: 0, unhealthy: 0 }, Some(running.pid()), usage)
            }
            Phase::Launching | Phase::Over | Phase::Dropped => (State::Starting, None, None),
        };
        AgentStatus {
            name: self.name(),
            life: u64::from(self.id.attempt),
            state,
            ring: seen.ring,
            ceiling: seen.ceiling,
            report: seen.report,
            protected: seen.protected,
            pid,
            up_ms: Some(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)),
            restarts: self.id.attempt.saturating_sub(1),
            last_death: None,
            exit_code: None,
            usage,
            memory_limit_bytes: seen.limits.memory_bytes,
            limits,
            ports: Vec::new(),
            requests: RequestsStatus::default(),
            models: None,
            log: Some(seen.log),
            frozen: None,
            remark: None,
            kill: None,
            governed: None,
            health: None,
            made: crate::repositories::Found::default(),
        }
    }
}

async fn kill(running: Arc<Running>, group: Option<Arc<Group>>) -> Result<KillSeen, StepsError> {
    Ok(beside("agt-kill", move || killing::end(group.as_deref(), Some(&running), END_WITHIN)).await??)
}
