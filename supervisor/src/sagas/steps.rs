//! Steps as processes: each in its ring, its cgroup and its namespaces, through the same launch as an agent's.
//!
//! A step is told who it is by its environment (`AGT_SAGA`, `AGT_STEP`, `AGT_RUN`, `AGT_ATTEMPT`, `AGT_IDEMPOTENCY_KEY`) and
//! what it is given by its standard input (see `given`). Its ring is the least privileged of what its file says and what the
//! trust in its saga allows, asked anew for each run.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use agt_rings::launch::Exit;
use agt_rings::ring::Ring;
use agt_rings::spec::Limits;
use agt_saga::driver::{Steps, StepsError};
use agt_saga::id::{RunId, SagaId};
use agt_saga::machine::{Fate, StepRun};
use agt_saga::outcome::{Again, Ending, StepOutcome};

use super::ambush::Ambush;
use super::file::Commands;
use super::given::{Wired, tell};
use super::live::{END_WITHIN, Entry, LiveRuns, Seen};
use super::noticing::{Of, Told};
use super::output::{Tail, answer};
use crate::config::AgentPlan;
use crate::driver::Handle;
use crate::driver::beside::beside;
use crate::driver::event::{Gone, Launched, OutOfMemory, Whose};
use crate::driver::ground::Ground;
use crate::driver::launching::{Asked, clear_away, exit_of, in_full, perform};

/// The wait between two looks for processes of an earlier supervisor, where there is no cgroup that would tell.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The processes of all sagas of this supervisor.
#[derive(Debug)]
pub struct ProcessSteps {
    /// Not held: the ground is taken away by whoever laid it, when nothing runs on it any more.
    ground: Weak<Ground>,
    handle: Handle,
    told: Told,
    logs: PathBuf,
    sagas: Mutex<HashMap<SagaId, Arc<Hosted>>>,
    live: LiveRuns,
    launches: AtomicU64,
    ambush: Ambush,
}

/// One saga whose steps run here.
#[derive(Debug)]
struct Hosted {
    commands: Commands,
    /// Set when this supervisor lets go of the saga: nothing more begins, and what ends is not an answer any more.
    closing: AtomicBool,
    said: AtomicBool,
}

impl ProcessSteps {
    /// Steps on laid ground, with their logs in this folder. Laying the ground swept away whatever an earlier supervisor
    /// had left, so nothing of any saga runs now.
    #[must_use]
    pub(super) fn new(ground: &Arc<Ground>, handle: Handle, told: Told, logs: PathBuf) -> ProcessSteps {
        ProcessSteps {
            ground: Arc::downgrade(ground),
            handle,
            told,
            logs,
            sagas: Mutex::default(),
            live: LiveRuns::default(),
            launches: AtomicU64::new(0),
            ambush: Ambush::default(),
        }
    }

    /// The commands of a saga that is about to be driven.
    pub(super) fn adopt(&self, saga: SagaId, commands: Commands) {
        let hosted = Hosted { commands, closing: AtomicBool::new(false), said: AtomicBool::new(false) };
        self.sagas().insert(saga, Arc::new(hosted));
    }

    /// It is not driven any more.
    pub(super) fn forget(&self, saga: &SagaId) {
        self.sagas().remove(saga);
    }

    /// Ends everything of a saga that runs and lets nothing begin: their outcomes stay unrecorded, so that whoever takes the
    /// saga up again treats them as what they are, unknown. The driver must be polled meanwhile.
    ///
    /// # Errors
    /// When a tree is not known to be empty.
    pub(super) async fn let_go(&self, saga: &SagaId) -> Result<(), StepsError> {
        if let Some(hosted) = self.hosted(saga) {
            hosted.closing.store(true, Ordering::SeqCst);
        }
        for run in self.live.of(saga) {
            run.end().await?;
        }
        Ok(())
    }

    /// What runs now.
    #[must_use]
    pub fn live(&self) -> &LiveRuns {
        &self.live
    }

    /// Where an experiment lies in wait for a step.
    #[must_use]
    pub fn ambush(&self) -> &Ambush {
        &self.ambush
    }

    fn sagas(&self) -> MutexGuard<'_, HashMap<SagaId, Arc<Hosted>>> {
        self.sagas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosted(&self, saga: &SagaId) -> Option<Arc<Hosted>> {
        self.sagas().get(saga).cloned()
    }

    async fn perform(
        &self,
        run: &StepRun,
        agent: &AgentPlan,
        ring: Ring,
        hosted: &Hosted,
        entry: &Entry<'_>,
    ) -> StepOutcome {
        let not_started = |reason: String, again| StepOutcome::ended(Ending::NotStarted { reason, again });
        let Some(ground) = self.ground.upgrade() else {
            return not_started("the supervisor is ending".to_owned(), Again::No);
        };
        ground.loaded.note(&agent.identity.source);
        let mut spec = match agent.launch_spec(ring) {
            Ok(spec) => spec,
            Err(e) => return not_started(in_full(&e), Again::Yes),
        };
        spec.own_id = own_id(&run.id.step, &agent.identity);
        tell(&mut spec, run);
        let wired = match Wired::new(run, self.log(agent, &run.id.step)).await {
            Ok(wired) => wired,
            Err(e) => return not_started(format!("its standard streams can't be made: {e}"), Again::Yes),
        };
        // No agent's name has a dot: a step's cgroup never meets an agent's.
        let group_name = format!("{}.{}", spec.name, run.id.step);
        let whose = Whose { agent: group_name, life: self.launches.fetch_add(1, Ordering::SeqCst) };
        let (streams, asked) = (wired.streams, Asked { plan: agent.clone(), spec, roots: None });
        let launched = beside("agt-launch", move || perform(&ground, asked, &whose, &streams, None)).await;
        let Launched { mut running, group, plan } = match launched {
            Ok(Ok(launched)) => launched,
            Ok(Err(failed)) => return not_started(failed.error, Again::No),
            Err(e) => return not_started(e.to_string(), Again::No),
        };
        if !plan.report.gaps.is_empty() && !hosted.said.swap(true, Ordering::SeqCst) {
            for gap in &plan.report.gaps {
                eprintln!("  not enforced: {} {}", gap.protection, gap.reason);
            }
        }
        let of = Of { run: run.id.clone(), name: entry.run().name(), saga: agent.name().to_owned(), ring: plan.ring };
        let ear = running.take_notices().map(|notices| self.told.listen(of, notices, plan.names.as_ref()));
        let running = Arc::new(running);
        entry.runs(&running, group.as_ref(), &plan);
        self.ambush.spring(agent.name(), &run.id, entry.run());
        let exit = match exit_of(&running).await {
            Ok(exit) => exit,
            Err(e) => {
                eprintln!("error: {}: how it ended can't be read: {e}", run.id);
                Exit::Taken
            }
        };
        let name = entry.run().name();
        let cleared = beside("agt-clear", move || clear_away(&name, exit, &running, group.as_deref())).await;
        let gone = cleared.unwrap_or(Gone { exit, out_of_memory: OutOfMemory::NotSeen, usage: None });
        // What it was denied comes before its end.
        if let Some(ear) = ear {
            ear.end().await;
        }
        // The tree is gone and with it the last writers: both pumps end.
        let stdout = wired.stdout.await.unwrap_or_else(|_| Tail::new(0));
        let stderr = wired.stderr.await.unwrap_or_else(|_| Tail::new(0));
        outcome(gone, entry.run().struck(), &stdout, &stderr)
    }

    fn log(&self, agent: &AgentPlan, step: &str) -> PathBuf {
        self.logs.join(format!("saga-{}-{step}.log", agent.name()))
    }
}

impl Steps for ProcessSteps {
    async fn run(&self, run: StepRun) -> StepOutcome {
        let no_command = || {
            let reason = "its command was not resolved".to_owned();
            StepOutcome::ended(Ending::NotStarted { reason, again: Again::No })
        };
        let Some(hosted) = self.hosted(&run.id.saga) else { return no_command() };
        let Some(agent) = hosted.commands.get(&(run.step().name.clone(), run.id.kind)) else { return no_command() };
        let (ceiling, log) = (agent.ceiling, self.log(agent, &run.id.step));
        let (protected, limits) = (Vec::new(), Limits::default());
        let seen = Seen { ring: ceiling, ceiling, report: None, protected, limits, log };
        // Entered first: whoever lets go of the saga marks it before it looks at the list, so one of us sees the other.
        let entry = self.live.enter(run.id.clone(), agent.name(), seen);
        let ring = self.handle.saga_ring(agent.name(), ceiling).await.unwrap_or(Ring::R3);
        if hosted.closing.load(Ordering::SeqCst) {
            entry.over();
            drop(entry);
            return std::future::pending().await;
        }
        let outcome = self.perform(&run, agent, ring, &hosted, &entry).await;
        entry.over();
        drop(entry);
        if hosted.closing.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        outcome
    }

    async fn cancel(&self, run: &RunId) -> Result<(), StepsError> {
        match self.live.get(run) {
            Some(run) => run.end().await.map(drop),
            None => Ok(()),
        }
    }

    async fn verify_empty(&self, saga: &SagaId, _: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        // The ground was swept before this object existed, and a sweep that leaves something alive lays no ground; what this
        // supervisor started itself it has ended when it let go. Where there are no cgroups to sweep, a step's tree dies with
        // its init and that with its launcher, a moment after the supervisor: wait for that moment. Of how the runs ended
        // nobody kept anything: all of them are lost.
        if let Some(left) = self.live.of(saga).first() {
            return Err(format!("{} still runs", left.name()).into());
        }
        if !self.ground.upgrade().is_some_and(|ground| ground.has_groups()) {
            let deadline = tokio::time::Instant::now() + END_WITHIN;
            while let Some(pid) = process_of(saga)? {
                if tokio::time::Instant::now() >= deadline {
                    return Err(format!("process {pid} of an earlier supervisor still runs").into());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(Vec::new())
    }
}

fn outcome(gone: Gone, struck: Option<String>, stdout: &Tail, stderr: &Tail) -> StepOutcome {
    let by_itself = matches!(gone.exit, Exit::Ended(usage) if libc::WIFEXITED(usage.status));
    let mut outcome = match gone.exit {
        _ if struck.is_some() && !by_itself => {
            let reason = format!("kill switch ({})", struck.unwrap_or_default());
            StepOutcome::ended(Ending::Killed { reason, again: Again::No })
        }
        Exit::Ended(usage) if libc::WIFEXITED(usage.status) && libc::WEXITSTATUS(usage.status) == 0 => {
            match answer(stdout) {
                Ok(output) => StepOutcome::ok(output),
                Err(ending) => StepOutcome::ended(ending),
            }
        }
        _ if gone.out_of_memory == OutOfMemory::Seen => {
            StepOutcome::ended(Ending::Killed { reason: "memory limit".to_owned(), again: Again::Yes })
        }
        Exit::Ended(usage) if libc::WIFEXITED(usage.status) => {
            StepOutcome::ended(Ending::Exited(libc::WEXITSTATUS(usage.status)))
        }
        Exit::Ended(usage) => StepOutcome::ended(Ending::Signalled(libc::WTERMSIG(usage.status))),
        // The init went with it, so nobody saw its status; only SIGKILL takes an init. Not its own doing, so no violation.
        Exit::Taken => StepOutcome::ended(Ending::Signalled(libc::SIGKILL)),
    };
    outcome.note = Some(stderr.text()).filter(|note| !note.is_empty());
    outcome
}

/// A process of this user that was started for this saga, by the variable that each has from us.
fn process_of(saga: &SagaId) -> std::io::Result<Option<String>> {
    let mark = format!("AGT_SAGA={saga}");
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Other users' processes can't be read and were not ours; one that ends meanwhile is gone.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// A uid of the step's own, the same at each run of it.
fn own_id(step: &str, identity: &crate::config::Identity) -> u32 {
    let mut hasher = DefaultHasher::new();
    (identity, step).hash(&mut hasher);
    let count = agt_rings::builtin::OWN_ID_COUNT;
    let offset = u32::try_from(hasher.finish() % u64::from(count)).expect("below a u32 count");
    agt_rings::builtin::OWN_ID_BASE + offset
}
