//! Steps as processes: each in its ring, its cgroup and its namespaces, through the same launch as an agent's.
//!
//! A step is told who it is by its environment (`AGT_SAGA`, `AGT_STEP`, `AGT_RUN`, `AGT_ATTEMPT`, `AGT_IDEMPOTENCY_KEY`),
//! and what it is given by its standard input, a file with one JSON object `{"inputs": {...}, "output": ...}`: no path has
//! to be made visible in the ring and no size is out of reach. Small values stand in `AGT_INPUT_NAME` as well, and for an
//! undo what the step gave in `AGT_OUTPUT_NAME`, so that a shell script needs no JSON parser.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agt_rings::cgroup::Group;
use agt_rings::launch::{Exit, Running, Streams};
use agt_rings::spec::Spec;
use agt_saga::driver::{Steps, StepsError};
use agt_saga::id::{RunId, RunKind, SagaId};
use agt_saga::machine::{Fate, StepRun};
use agt_saga::outcome::{Again, Ending, StepOutcome};
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::file::Commands;
use super::output::{STDERR_TAIL_BYTES, STDOUT_BYTES_MAX, Tail, answer};
use crate::driver::event::{Gone, Launched, OutOfMemory, Whose};
use crate::driver::ground::Ground;
use crate::driver::launching::{clear_away, exit_of, in_full, perform};
use crate::driver::logfile::{LogFile, LogLimits};

/// How long a step's tree may take to die once it is killed.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Longest value that stands in a variable; longer ones are on standard input alone. The kernel's own limit for one
/// string is 128 KiB (execve(2), MAX_ARG_STRLEN).
const VARIABLE_BYTES_MAX: usize = 32 * 1024;
/// All such values together, so that the environment always fits.
const VARIABLES_BYTES_MAX: usize = 128 * 1024;
/// The wait between two looks for processes of an earlier supervisor, where there is no cgroup that would tell.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const READ_BYTES: usize = 16 * 1024;

/// The processes of one saga.
#[derive(Debug)]
pub struct ProcessSteps {
    ground: Arc<Ground>,
    commands: Commands,
    logs: PathBuf,
    live: Mutex<HashMap<RunId, watch::Receiver<Phase>>>,
    launches: AtomicU64,
    /// Set when this supervisor lets go of the saga: nothing more begins, and what ends is not an answer any more.
    closing: AtomicBool,
    said: AtomicBool,
}

/// Where a run stands.
#[derive(Debug, Clone)]
enum Phase {
    Launching,
    Running(Arc<Running>, Option<Arc<Group>>),
    Over,
}

impl ProcessSteps {
    /// Steps on laid ground, with their logs in this folder. Laying the ground swept away whatever an earlier supervisor
    /// had left, so nothing of any saga runs now.
    #[must_use]
    pub fn new(ground: Arc<Ground>, commands: Commands, logs: PathBuf) -> ProcessSteps {
        ProcessSteps {
            ground,
            commands,
            logs,
            live: Mutex::default(),
            launches: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            said: AtomicBool::new(false),
        }
    }

    /// Ends everything that runs and lets nothing begin: their outcomes stay unrecorded, so that a later supervisor treats
    /// them as what they are, unknown. The driver must be polled meanwhile.
    ///
    /// # Errors
    /// When a tree is not known to be empty.
    pub async fn let_go(&self) -> Result<(), StepsError> {
        self.closing.store(true, Ordering::SeqCst);
        let runs: Vec<RunId> = self.live().keys().cloned().collect();
        for run in runs {
            self.cancel(&run).await?;
        }
        Ok(())
    }

    fn live(&self) -> MutexGuard<'_, HashMap<RunId, watch::Receiver<Phase>>> {
        self.live.lock().expect("nobody panics while holding this lock")
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    async fn perform(&self, run: &StepRun, phase: &watch::Sender<Phase>) -> StepOutcome {
        let not_started = |reason: String, again| StepOutcome::ended(Ending::NotStarted { reason, again });
        let Some(agent) = self.commands.get(&(run.id.step.clone(), run.id.kind)) else {
            return not_started("its command was not resolved".to_owned(), Again::No);
        };
        let mut spec = match agent.launch_spec(agent.ceiling) {
            Ok(spec) => spec,
            Err(e) => return not_started(in_full(&e), Again::Yes),
        };
        spec.own_id = own_id(&run.id.step, &agent.identity);
        tell(&mut spec, run);
        let log = self.logs.join(format!("saga-{}-{}.log", agent.name(), run.id.step));
        let wired = match Wired::new(run, log) {
            Ok(wired) => wired,
            Err(e) => return not_started(format!("its standard streams can't be made: {e}"), Again::Yes),
        };
        let whose = Whose { agent: spec.name.clone(), life: self.launches.fetch_add(1, Ordering::SeqCst) };
        let (ground, name, streams) = (Arc::clone(&self.ground), whose.agent.clone(), wired.streams);
        let launched = tokio::task::spawn_blocking(move || perform(&ground, &spec, &whose, &streams, None)).await;
        let Launched { running, group, plan } = match launched {
            Ok(Ok(launched)) => launched,
            Ok(Err(failed)) => return not_started(failed.error, Again::No),
            Err(e) => return not_started(e.to_string(), Again::No),
        };
        if !plan.report.gaps.is_empty() && !self.said.swap(true, Ordering::SeqCst) {
            for gap in &plan.report.gaps {
                eprintln!("  not enforced: {} {}", gap.protection, gap.reason);
            }
        }
        let running = Arc::new(running);
        phase.send_replace(Phase::Running(Arc::clone(&running), group.clone()));
        let exit = match exit_of(&running).await {
            Ok(exit) => exit,
            Err(e) => {
                eprintln!("error: {}: how it ended can't be read: {e}", run.id);
                Exit::Taken
            }
        };
        let cleared = tokio::task::spawn_blocking(move || clear_away(&name, exit, &running, group.as_deref())).await;
        let gone = cleared.unwrap_or(Gone { exit, out_of_memory: OutOfMemory::NotSeen, usage: None });
        // The tree is gone and with it the last writers: both pumps end.
        let stdout = wired.stdout.await.unwrap_or_else(|_| Tail::new(0));
        let stderr = wired.stderr.await.unwrap_or_else(|_| Tail::new(0));
        outcome(gone, &stdout, &stderr)
    }
}

impl Steps for ProcessSteps {
    async fn run(&self, run: StepRun) -> StepOutcome {
        if self.is_closing() {
            return std::future::pending().await;
        }
        let (phase, seen) = watch::channel(Phase::Launching);
        self.live().insert(run.id.clone(), seen);
        let outcome = self.perform(&run, &phase).await;
        self.live().remove(&run.id);
        phase.send_replace(Phase::Over);
        if self.is_closing() {
            return std::future::pending().await;
        }
        outcome
    }

    async fn cancel(&self, run: &RunId) -> Result<(), StepsError> {
        let Some(mut seen) = self.live().get(run).cloned() else { return Ok(()) };
        loop {
            let phase = seen.borrow_and_update().clone();
            match phase {
                Phase::Launching => {}
                Phase::Running(running, group) => {
                    let killed = tokio::task::spawn_blocking(move || {
                        let report = group.as_ref().map(|group| group.kill(END_WITHIN)).transpose();
                        // With a cgroup the init is gone already (ESRCH); without one this is the kill.
                        let _ = running.kill_init();
                        report
                    });
                    let _ = killed.await??;
                }
                Phase::Over => return Ok(()),
            }
            if seen.changed().await.is_err() && !matches!(*seen.borrow(), Phase::Over) {
                return Err("the run was dropped before its tree was seen to be empty".into());
            }
        }
    }

    async fn verify_empty(&self, saga: &SagaId, _: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        // The ground was swept before this object existed, and a sweep that leaves something alive lays no ground. Where
        // there are no cgroups to sweep, a step's tree dies with its init and that with its launcher, a moment after the
        // supervisor: wait for that moment. Of how the runs ended nobody kept anything: all of them are lost.
        if !self.ground.has_groups() {
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

fn outcome(gone: Gone, stdout: &Tail, stderr: &Tail) -> StepOutcome {
    let mut outcome = match gone.exit {
        Exit::Ended(usage) if libc::WIFEXITED(usage.status) && libc::WEXITSTATUS(usage.status) == 0 => {
            match answer(stdout) {
                Ok(output) => StepOutcome::ok(output),
                Err(ending) => StepOutcome::ended(ending),
            }
        }
        _ if gone.out_of_memory == OutOfMemory::Seen => {
            StepOutcome::ended(Ending::Killed { reason: "memory limit".to_owned() })
        }
        Exit::Ended(usage) if libc::WIFEXITED(usage.status) => {
            StepOutcome::ended(Ending::Exited(libc::WEXITSTATUS(usage.status)))
        }
        Exit::Ended(usage) => StepOutcome::ended(Ending::Signalled(libc::WTERMSIG(usage.status))),
        Exit::Taken => StepOutcome::ended(Ending::Killed { reason: "ended from outside".to_owned() }),
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

/// The environment that says what this run is and what it is given.
fn tell(spec: &mut Spec, run: &StepRun) {
    let mut set = |name: String, value: String| spec.env.push((OsString::from(name), OsString::from(value)));
    set("AGT_SAGA".to_owned(), run.id.saga.to_string());
    set("AGT_STEP".to_owned(), run.id.step.clone());
    set("AGT_RUN".to_owned(), run.id.kind.as_str().to_owned());
    set("AGT_ATTEMPT".to_owned(), run.id.attempt.to_string());
    set("AGT_IDEMPOTENCY_KEY".to_owned(), run.key.to_string());
    let mut room = VARIABLES_BYTES_MAX;
    let mut each = |prefix: &str, values: &Map<String, Value>| {
        for (name, value) in values {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if value.len() <= VARIABLE_BYTES_MAX.min(room) && !value.contains('\0') {
                room -= value.len();
                set(format!("{prefix}{}", variable(name)), value);
            }
        }
    };
    each("AGT_INPUT_", &run.inputs);
    if let (RunKind::Compensate, Value::Object(output)) = (run.id.kind, &run.output) {
        each("AGT_OUTPUT_", output);
    }
}

/// A name as a variable's: capitals, digits and `_`.
fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// A uid of the step's own, the same at each run of it.
fn own_id(step: &str, identity: &crate::config::Identity) -> u32 {
    let mut hasher = DefaultHasher::new();
    (identity, step).hash(&mut hasher);
    let count = agt_rings::builtin::OWN_ID_COUNT;
    let offset = u32::try_from(hasher.finish() % u64::from(count)).expect("below a u32 count");
    agt_rings::builtin::OWN_ID_BASE + offset
}

/// The streams of one run and who reads them.
struct Wired {
    streams: Streams,
    stdout: tokio::task::JoinHandle<Tail>,
    stderr: tokio::task::JoinHandle<Tail>,
}

impl Wired {
    fn new(run: &StepRun, log: PathBuf) -> std::io::Result<Wired> {
        // One log for a step of this name, not one for each saga: their number must not grow without bound.
        let mut log = LogFile::open(log, LogLimits::default());
        log.append(format!("== {}\n", run.id).as_bytes());
        let log = Arc::new(Mutex::new(log));
        let pump = |limit: usize| -> std::io::Result<(OwnedFd, tokio::task::JoinHandle<Tail>)> {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let from = pipe::Receiver::from_owned_fd(read)?;
            Ok((write, tokio::spawn(keep(from, Tail::new(limit), Arc::clone(&log)))))
        };
        let (out, stdout) = pump(STDOUT_BYTES_MAX)?;
        let (err, stderr) = pump(STDERR_TAIL_BYTES)?;
        Ok(Wired { streams: Streams { stdin: given(run)?, stdout: out, stderr: err }, stdout, stderr })
    }
}

/// What the run is given, as a file that can only be read.
fn given(run: &StepRun) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"agt-step-inputs", MFdFlags::MFD_CLOEXEC)?);
    let text = serde_json::json!({"inputs": run.inputs, "output": run.output}).to_string();
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

async fn keep(mut from: pipe::Receiver, mut tail: Tail, log: Arc<Mutex<LogFile>>) -> Tail {
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        match from.read(&mut buffer).await {
            // A pipe's read fails only when it is closed under us; both mean that nothing more comes.
            Ok(0) | Err(_) => return tail,
            Ok(length) => {
                tail.push(&buffer[..length]);
                if let Ok(mut log) = log.lock() {
                    log.append(&buffer[..length]);
                }
            }
        }
    }
}
