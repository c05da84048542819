//! The agent under experiment, as the supervisor offers it to the driver.
//!
//! Everything is done in the poll itself, by small writes to the agent's own cgroup: a future that was dropped has no thread
//! left that would act after the undo. What this supervisor can't do is refused by [`Target::missing`], never done in part.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agt_chaos::error::KernelError;
use agt_chaos::interlock;
use agt_chaos::kernel::{self, CgroupFile};
use agt_chaos::replay;
use agt_chaos::target::{Act, Environment, Missing, Need, Observation, OptIn, Process, Target, TargetError};
use agt_chaos::undo::{Outcome, Undo, UndoEntry};
use agt_rings::cgroup::Group;
use agt_sre::breaker::BreakerState;
use agt_sre::engine::{AlertState, SloStatus};
use agt_sre::sli::Sli;

use super::places::{self, Quota};
use super::saga_steps;
use crate::config::spec;
use crate::driver::Handle;
use crate::driver::scene::{Scene, SceneGoverned};
use crate::machine::lifecycle::State;

/// Looks that are kept; an experiment of two hours at the fastest pace stays below.
const LOOKS_MAX: usize = 8192;

/// One agent.
#[derive(Debug)]
pub(super) struct AgentTarget {
    handle: Handle,
    agent: String,
    looks: Mutex<VecDeque<Look>>,
}

/// One look at the agent, for SLIs over a few seconds.
#[derive(Debug)]
struct Look {
    at: Instant,
    up: bool,
    /// Good and bad events ever counted, by indicator.
    totals: BTreeMap<&'static str, (u64, u64)>,
}

fn failed(doing: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TargetError {
    TargetError::Failed { doing: doing.to_owned(), source: io::Error::other(error) }
}

fn refused(reason: impl Into<String>) -> TargetError {
    TargetError::Refused(interlock::Refusal::Target { reason: reason.into() })
}

impl AgentTarget {
    pub(super) fn new(handle: Handle, agent: String) -> AgentTarget {
        AgentTarget { handle, agent, looks: Mutex::default() }
    }

    async fn scene(&self) -> Result<Scene, TargetError> {
        self.handle.scene(&self.agent).await.map_err(|e| failed("asking the supervisor for the agent", e))
    }

    async fn group(&self) -> Result<Arc<Group>, TargetError> {
        self.scene().await?.group.ok_or_else(|| refused("it does not run in a cgroup of its own"))
    }

    /// Notes a look and gives the SLIs over `look_back`.
    fn slis(&self, look: Look, look_back: Duration, named: &[SloStatus]) -> BTreeMap<String, Option<f64>> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = look.at;
        looks.push_back(look);
        while looks.len() > LOOKS_MAX || looks.front().is_some_and(|first| now.duration_since(first.at) > look_back) {
            looks.pop_front();
        }
        let mut slis: BTreeMap<String, Option<f64>> =
            named.iter().map(|slo| (slo.sli.as_str().to_owned(), None)).collect();
        let (Some(first), Some(last)) = (looks.front(), looks.back()) else { return slis };
        for (sli, (good, bad)) in &last.totals {
            let before = first.totals.get(sli).copied().unwrap_or_default();
            let (good, bad) = (good.saturating_sub(before.0), bad.saturating_sub(before.1));
            slis.insert((*sli).to_owned(), ratio(good, good + bad));
        }
        // The supervisor's own look counts for this one: a frozen agent has a process, and is not up.
        let up = looks.iter().filter(|look| look.up).count() as u64;
        slis.insert(Sli::Availability.as_str().to_owned(), ratio(up, looks.len() as u64));
        slis
    }
}

fn ratio(good: u64, valid: u64) -> Option<f64> {
    (valid > 0).then(|| good as f64 / valid as f64)
}

fn process_of(state: &State, killed: bool) -> Process {
    match state {
        State::Running { .. } => Process::Alive,
        State::Starting | State::Backoff { .. } => Process::Restarting,
        _ if killed => Process::Killed,
        State::Idle | State::Stopping { .. } | State::Killing { .. } | State::Ended { .. } => Process::Dead,
    }
}

fn opt_in(chaos: &spec::ChaosSpec) -> OptIn {
    if !chaos.opt_in {
        return OptIn::No;
    }
    if chaos.faults.is_empty() {
        return OptIn::Any;
    }
    let known = agt_chaos::fault::FaultKind::ALL.into_iter();
    OptIn::Only(known.filter(|kind| chaos.faults.iter().any(|name| name == kind.name())).collect())
}

fn environment(environment: spec::Environment) -> Environment {
    match environment {
        spec::Environment::Production => Environment::Production,
        spec::Environment::Staging => Environment::Staging,
        spec::Environment::Dev => Environment::Dev,
    }
}

fn incident(governed: &SceneGoverned) -> bool {
    governed.quarantined
        || !matches!(governed.breaker, BreakerState::Closed | BreakerState::Disabled)
        || governed.slos.iter().any(|slo| slo.page == AlertState::Firing)
}

/// What is left of a budget. One of which no event has been counted is whole: that is known, not guessed.
fn budget_left(slo: &SloStatus) -> Option<f64> {
    let untouched = slo.events.good == 0 && slo.events.bad == 0;
    if untouched { Some(1.0) } else { slo.budget_left() }
}

fn totals(slos: &[SloStatus]) -> BTreeMap<&'static str, (u64, u64)> {
    let mut totals = BTreeMap::new();
    for slo in slos {
        // Two SLOs of one indicator have their own thresholds: the stricter view, which has more bad events, counts.
        let entry = totals.entry(slo.sli.as_str()).or_insert((0, 0));
        if slo.events_total.bad >= entry.1 {
            *entry = (slo.events_total.good, slo.events_total.bad);
        }
    }
    totals
}

/// What the kernel says of the group; what it doesn't say stays unknown.
fn look_at(group: &Group, now: &mut Observation) {
    now.frozen = group.is_frozen().ok();
    if let Ok(usage) = group.usage() {
        now.cpu_throttled = usage.cpu_throttled_periods;
        now.memory_usage = usage.memory_bytes;
        now.oom_kills = usage.oom_kills;
    }
    now.cpu_quota = Quota::of(group.tree()).and_then(|quota| quota.limit().ok().flatten());
    let room = places::procs(group.tree()).and_then(|procs| kernel::file_room(&procs).ok().flatten());
    now.fd_soft_limit = room.map(|room| room.soft);
    now.fd_room = room.map(|room| room.room);
}

fn lacks(need: Need, group: Option<&Group>) -> Option<String> {
    let Some(group) = group else {
        return Some("the agent does not run in a cgroup of its own".to_owned());
    };
    let tree = group.tree();
    let openable = |path: Option<PathBuf>| match path.as_deref().map(CgroupFile::open) {
        None => Some("no hierarchy here has it".to_owned()),
        Some(Ok(Some(_))) => None,
        Some(Ok(None)) => Some("its file isn't there".to_owned()),
        Some(Err(e)) => Some(in_words(&e)),
    };
    match need {
        Need::Freezer => openable(places::freezer(tree)),
        Need::CpuQuota => openable(Quota::of(tree).map(|quota| quota.file().clone())),
        Need::Prlimit => prlimit(places::procs(tree)?),
        Need::MemoryLimit => Some("this version doesn't press memory yet".to_owned()),
        Need::SagaSteps => saga_steps::lacks(need, None),
        Need::TrustScores => Some("this version doesn't replace scores yet".to_owned()),
    }
}

/// Sets a limit to what it is: the kernel says whether it may be set.
fn prlimit(procs: PathBuf) -> Option<String> {
    let tried = || -> Result<(), KernelError> {
        let Some(file) = CgroupFile::open(&procs)? else { return Ok(()) };
        for process in kernel::members(&file.read()?.unwrap_or_default())? {
            if let Some(limits) = kernel::file_limits(process)? {
                kernel::set_file_limit(process, limits.soft)?;
            }
        }
        Ok(())
    };
    tried().err().map(|e| in_words(&e))
}

fn in_words(error: &KernelError) -> String {
    crate::driver::launching::in_full(error)
}

fn gone() -> TargetError {
    refused("its cgroup is gone")
}

fn write(path: &Path, word: &str) -> Result<(), TargetError> {
    let doing = format!("writing {word} to {}", path.display());
    let file = CgroupFile::open(path).map_err(|e| failed(&doing, e))?.ok_or_else(gone)?;
    file.write(word).map_err(|e| failed(&doing, e))?.ok_or_else(gone)
}

fn way_back(act: &Act, group: &Group) -> Result<Vec<UndoEntry>, TargetError> {
    let tree = group.tree();
    let none = || refused("the host lacks the file for it");
    let kernel = |e: KernelError| failed("reading what is to be put back", e);
    Ok(match act {
        Act::Freeze => vec![kernel::thaw(&places::freezer(tree).ok_or_else(none)?).map_err(kernel)?.ok_or_else(gone)?],
        Act::SetCpuQuota(_) => {
            let quota = Quota::of(tree).ok_or_else(none)?;
            vec![kernel::write_back(quota.file()).map_err(kernel)?.ok_or_else(gone)?]
        }
        Act::LimitFds { .. } => {
            let procs = places::procs(tree).ok_or_else(none)?;
            kernel::file_limits_back(&procs).map_err(kernel)?.ok_or_else(gone)?
        }
        Act::SetMemoryLimit(_) | Act::PressMemory { .. } | Act::CrashAtStep { .. } | Act::SetTrust(_) => {
            return Err(refused("this supervisor can't do that to an agent"));
        }
    })
}

fn perform(act: &Act, group: &Group) -> Result<(), TargetError> {
    let tree = group.tree();
    let none = || refused("the host lacks the file for it");
    match act {
        Act::Freeze => {
            let path = places::freezer(tree).ok_or_else(none)?;
            write(&path, places::frozen_word(&path))
        }
        Act::SetCpuQuota(share) => {
            let quota = Quota::of(tree).ok_or_else(none)?;
            let word = quota.word(share.0).map_err(|e| failed("reading the CPU quota", e))?.ok_or_else(gone)?;
            write(quota.file(), &word)
        }
        Act::LimitFds { headroom } => {
            let procs = places::procs(tree).ok_or_else(none)?;
            let lowered = kernel::lower_file_limits(&procs, *headroom);
            lowered.map(drop).map_err(|e| failed("lowering the file limits of the agent's processes", e))
        }
        Act::SetMemoryLimit(_) | Act::PressMemory { .. } | Act::CrashAtStep { .. } | Act::SetTrust(_) => {
            Err(refused("this supervisor can't do that to an agent"))
        }
    }
}

impl Target for AgentTarget {
    async fn missing(&self, needs: &[Need]) -> Vec<Missing> {
        let scene = self.scene().await.ok();
        let saga = scene.as_ref().and_then(|scene| scene.saga.as_ref());
        let group = scene.as_ref().and_then(|scene| scene.group.as_deref());
        let of_saga = |need: Need| saga.is_some() || need == Need::SagaSteps;
        let reason = |need: Need| if of_saga(need) { saga_steps::lacks(need, saga) } else { lacks(need, group) };
        let lacking = |need: &Need| Some(Missing { need: *need, reason: reason(*need)? });
        needs.iter().filter_map(lacking).collect()
    }

    async fn observe(&self, look_back: Duration) -> Result<Observation, TargetError> {
        let scene = self.scene().await?;
        let mut now = Observation {
            environment: environment(scene.environment),
            opt_in: opt_in(&scene.chaos),
            // There is one place for experiments, and this one has it.
            other_experiment: None,
            restarts: Some(scene.launches.saturating_sub(1)),
            crash_armed: Some(false),
            trust_replaced: Some(false),
            ..Observation::default()
        };
        if let Some(group) = &scene.group {
            look_at(group, &mut now);
        }
        let killed = scene.governed.as_ref().is_some_and(|governed| governed.killed);
        let process = process_of(&scene.state, killed);
        now.process = Some(process);
        let slos = scene.governed.as_ref().map_or(&[][..], |governed| &governed.slos);
        let healthy = matches!(scene.state, State::Running { unhealthy: 0, .. });
        let mut up = healthy && now.frozen != Some(true);
        if let Some(saga) = &scene.saga {
            saga_steps::look_at(&self.agent, saga, &mut now);
            up = saga_steps::is_well(saga) == Some(true);
        }
        let look = Look { at: Instant::now(), up, totals: totals(slos) };
        now.slis = self.slis(look, look_back, slos);
        now.metrics.insert("alive".to_owned(), Some(f64::from(u8::from(process == Process::Alive))));
        if let Some(governed) = &scene.governed {
            now.incident_open = Some(incident(governed));
            now.trust = Some(governed.trust);
            now.safety_violations = Some(governed.violations);
            now.budgets = governed.slos.iter().map(|slo| (slo.slo.as_str().to_owned(), budget_left(slo))).collect();
        }
        Ok(now)
    }

    async fn prepare(&self, acts: &[Act]) -> Result<Vec<UndoEntry>, TargetError> {
        if let Some(entries) = saga_steps::way_back(&self.scene().await?, acts)? {
            return Ok(entries);
        }
        let group = self.group().await?;
        let mut entries = Vec::new();
        // The last thing done is the first put back.
        for act in acts.iter().rev() {
            entries.extend(way_back(act, &group)?);
        }
        Ok(entries)
    }

    async fn perform(&self, acts: &[Act]) -> Result<(), TargetError> {
        if saga_steps::perform(&self.agent, &self.scene().await?, acts)?.is_some() {
            return Ok(());
        }
        let group = self.group().await?;
        acts.iter().try_for_each(|act| perform(act, &group))
    }

    async fn undo(&self, undo: &Undo) -> Result<(), TargetError> {
        let doing = "undoing the fault";
        let boot = kernel::boot_id().map_err(|e| failed(doing, e))?;
        let undo = saga_steps::undo(self.scene().await.ok().as_ref(), undo);
        let outcomes = replay::apply(&undo, &boot);
        let left: Vec<_> = outcomes.iter().filter(|outcome| !Outcome::is_settled(outcome)).collect();
        if left.is_empty() { Ok(()) } else { Err(failed(doing, format!("{left:?}"))) }
    }
}
