//! The supervisor's own life in this process: ground, store, loop, sockets, signals, and back again.
//!
//! In this order: the lock (nobody else works with this state directory), the sweep (nothing of an earlier supervisor runs),
//! the store, the loop and whoever reaches it. At the end the same backwards.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::check::config_failure;
use super::run::{StdioKind, wiring};
use super::{Failure, Outcome};
use crate::chaosing::{self, Chaos};
use crate::config::{self, Surroundings};
use crate::control::gate::Operators;
use crate::control::handoff::{Door, refusal_code};
use crate::control::protocol::About;
use crate::control::server::{Answers, Socket};
use crate::dirs::Dirs;
use crate::driver::audience::{Tenure, Wish};
use crate::driver::definition::Definition;
use crate::driver::event::Request;
use crate::driver::ground::Ground;
use crate::driver::status::AgentStatus;
use crate::driver::{Handle, Mode, Supervisor, Talk};
use crate::exit;
use crate::govern::kill_mark;
use crate::machine::lifecycle::State;
use crate::reloading::{Reloader, Served};
use crate::sagas::hosted::{DriveError, Driven, Listener, Sagas, Submission};
use crate::store::lock::StateLock;
use crate::store::{Options, Store, directory};
use crate::telemetry::Telemetry;
use crate::telemetry::endpoint::{Bound, Choice, Endpoint};
use crate::telemetry::scrape::Scraper;

/// What a supervisor is started for.
pub(super) struct Task {
    /// The folder that a service serves; without one the supervisor ends with its last agent.
    pub(super) served: Option<Served>,
    pub(super) talk: Talk,
    pub(super) metrics: Choice,
    pub(super) around: Surroundings,
    /// The operator's file that was named.
    pub(super) operator: Option<PathBuf>,
    pub(super) definitions: Vec<(Definition, StdioKind)>,
    /// One saga that somebody asked for. Without one, all that are unfinished are taken up.
    pub(super) errand: Option<Errand>,
}

/// A saga that somebody asked for by hand: the supervisor ends with it.
pub(super) struct Errand {
    pub(super) submission: Submission,
    /// The saga's name.
    pub(super) name: String,
    pub(super) listener: Listener,
    /// For tests.
    pub(super) crash_at: Option<u64>,
    /// Told how it ended.
    pub(super) ended: Box<dyn FnOnce(Result<Driven, DriveError>) + Send>,
}

/// Becomes the supervisor of this state directory until its work is done.
///
/// # Errors
/// A metrics address that is taken, no ground, no store, no sockets. Nothing was started then.
pub(super) fn supervise(dirs: &Dirs, lock: StateLock, task: Task) -> Outcome {
    let Bound { endpoint, warning } = Endpoint::bind(task.metrics).map_err(|e| {
        Failure::of(exit::CANT_CREATE, &e)
            .help("name another address with --metrics, or `--metrics off`; nothing was started")
    })?;
    if let Some(warning) = warning.filter(|_| task.talk == Talk::Normal) {
        eprintln!("warning: {warning}");
    }
    let operators = operators(&task)?;
    let total = config::total(task.operator.as_deref(), &task.around).map_err(|e| config_failure(&e))?;
    raise_open_files();
    if dirs.runtime != dirs.state {
        directory::prepare_runtime(&dirs.runtime)?;
    }
    directory::prepare_logs(&dirs.logs())?;
    if !operators.is_empty() {
        warn_of_closed_folders(&dirs.operator_socket());
    }
    let ground = Ground::lay(&dirs.state, &dirs.cgroup_record(), &total)?;
    // All of them before the first launch: neighbours are started side by side.
    task.definitions.iter().for_each(|(definition, _)| definition.note_files(&ground.loaded));
    if let Some(folder) = task.served.as_ref().and_then(|served| served.overrides().served) {
        ground.loaded.serve(folder);
    }
    if let Some(swept) = ground.swept.filter(|swept| swept.processes > 0) {
        eprintln!("note: ended {} processes that an earlier supervisor left behind", swept.processes);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::of(exit::BUG, &e))?;
    let store = match Store::open_locked(lock, Options::default()) {
        Ok(store) => store,
        Err(e) => {
            runtime.block_on(Ground::leave(Arc::new(ground), &dirs.cgroup_record()));
            return Err(e.into());
        }
    };
    let code = runtime.block_on(live(dirs, Arc::new(ground), store, (endpoint, operators), task));
    // Blocking reads of our own standard input would hold the runtime's end up.
    runtime.shutdown_background();
    code
}

/// Who may command it.
fn operators(task: &Task) -> Result<Operators, Failure> {
    let named = config::commanders(task.operator.as_deref(), &task.around).map_err(|e| config_failure(&e))?;
    Ok(Operators { uids: named.uids, gids: named.gids })
}

/// The operator's file names others who may command, but a folder on the way to the socket keeps them out.
fn warn_of_closed_folders(socket: &Path) {
    use std::os::unix::fs::MetadataExt;
    let closed = |folder: &&Path| std::fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o001 == 0);
    if let Some(folder) = socket.ancestors().skip(1).find(closed) {
        eprintln!(
            "warning: `operators:` in the operator's file has no effect: other users can't enter {} (on the way to {})\nhelp: run without --state-dir, or `chmod o+x` that folder",
            folder.display(),
            socket.display()
        );
    }
}

/// Every agent and every connection of one costs descriptors, and the soft limit of a login is 1024. Agents get a limit of
/// their own at launch.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Staying at the soft limit is no reason not to start.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

async fn live(
    dirs: &Dirs,
    ground: Arc<Ground>,
    store: Store,
    outside: (Option<Endpoint>, Operators),
    task: Task,
) -> Outcome {
    let (endpoint, operators) = outside;
    let Task { served, talk, around, definitions, errand, .. } = task;
    let mode = if served.is_some() { Mode::Service } else { Mode::UntilLast };
    let socket = match open_up(dirs, &store, &operators).await {
        Ok(socket) => socket,
        Err(failure) => {
            // Nothing was started: what was made for it goes too.
            Ground::leave(ground, &dirs.cgroup_record()).await;
            return Err(failure);
        }
    };
    let telemetry = Telemetry::new();
    let (supervisor, handle) = Supervisor::new(mode, dirs.clone(), Arc::clone(&ground), store.clone(), talk);
    let crash_at = errand.as_ref().and_then(|errand| errand.crash_at);
    let sagas = Sagas::new(handle.clone(), store.clone(), &ground, dirs, crash_at);
    let total = ground.total();
    if let Some(total) = total.clone() {
        telemetry.add_source(Arc::new(total));
    }
    // The loop alone holds the ground, and takes it away at its end.
    drop(ground);
    let supervisor = supervisor.counting_into(telemetry.clone()).hosting(sagas.guests(), Arc::clone(sagas.steps()));
    let supervisor = supervisor.keeping_from_agents(endpoint.as_ref().map(Endpoint::port));
    let chaos = Chaos::new(handle.clone(), store.clone());
    let folder = served.as_ref().and_then(|served| served.overrides().served);
    let reloader = Reloader::new(dirs.clone(), handle.clone(), store.clone(), served);
    let url = endpoint.as_ref().map(Endpoint::url);
    let scraper = Scraper::new(telemetry, handle.clone(), store.clone());
    let scraped = endpoint.map(|endpoint| tokio::spawn(endpoint.serve(scraper)));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let about = About { pid: std::process::id(), version, metrics: url, served: folder };
    let door = Door::open(&dirs.handoff_socket(), handle.clone(), sagas.clone());
    let door = door.map_err(|e| Failure::of(exit::CANT_CREATE, &e))?;
    let answers = Answers {
        handle: handle.clone(),
        about,
        chaos: chaos.clone(),
        sagas: sagas.clone(),
        reloader: reloader.clone(),
        store,
        total,
    };
    let (over, closes) = oneshot::channel();
    let mut served = tokio::spawn(socket.until(closes).serve(operators, answers));
    let (stop, stopped) = watch::channel(false);
    let own = definitions.iter().map(|(definition, _)| (definition.name().to_owned(), definition.tenure)).collect();
    let own = Arc::new(Own { agents: Mutex::new(own), stop });
    let heeding =
        Heeding { handle: handle.clone(), chaos, sagas: sagas.clone(), own: Arc::clone(&own), mode, reloader };
    let signals = tokio::spawn(heeding.heed());
    let looped = tokio::spawn(supervisor.run());
    let errand = match errand {
        Some(errand) => Some(tokio::spawn(run_errand(sagas, errand, stopped))),
        None => {
            // Nobody listens: a signal is about something else.
            drop(stopped);
            sagas.resume_unfinished(dirs, &around);
            None
        }
    };
    let ended = run_agents(&handle, &own, definitions).await?;
    // How its agents ended is no verdict on a service that was told to end and has.
    let mut code = if mode == Mode::Service { 0 } else { ended };
    if let Some(errand) = errand
        && let Err(e) = errand.await
    {
        eprintln!("error: the saga's task ended badly: {e}");
        code = exit::BUG;
    }
    if mode == Mode::UntilLast {
        tell_who_is_left(&handle, talk).await;
        handle.send(Request::Settle);
    }
    if let Err(e) = looped.await {
        eprintln!("error: the supervisor's loop ended badly: {e}");
        code = exit::BUG;
    }
    drop(door);
    signals.abort();
    scraped.iter().for_each(tokio::task::JoinHandle::abort);
    // Whoever was answered gets the answer. Waited for also after an abort, so that the socket's file is gone when we are.
    let _ = over.send(());
    if tokio::time::timeout(ANSWERS_WITHIN, &mut served).await.is_err() {
        served.abort();
        let _ = served.await;
    }
    Ok(code)
}

/// The operator socket, and what earlier supervisors and kills left to be done before anything starts.
async fn open_up(dirs: &Dirs, store: &Store, operators: &Operators) -> Result<Socket, Failure> {
    let socket = Socket::bind(&dirs.operator_socket(), operators).map_err(|e| Failure::of(exit::CANT_CREATE, &e))?;
    let marks = kill_mark::take_up(store, &dirs.state).await.map_err(|e| Failure::from(&e))?;
    for name in marks.iter().flat_map(|mark| &mark.agents) {
        eprintln!("note: {name} was killed by `kill --all` and stays dead until `agt-supervise revive {name}`");
    }
    chaosing::recover(store).await.map_err(|e| Failure::of(e.exit_code(), &e))?;
    Ok(socket)
}

/// How long the end waits for askers to take their answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Why the prompt does not come back: agents of other terminals run here.
async fn tell_who_is_left(handle: &Handle, talk: Talk) {
    let Ok(agents) = handle.status(None).await else { return };
    let lives = |agent: &&AgentStatus| !matches!(agent.state, State::Ended { .. } | State::Idle);
    let left: Vec<&str> = agents.iter().filter(lives).map(|agent| agent.name.as_str()).collect();
    if !left.is_empty() && talk == Talk::Normal {
        eprintln!("note: this supervisor stays for {}, started from elsewhere; Ctrl-C stops them too", left.join(", "));
    }
}

/// Starts the agents and waits until they are dead for good; the first code that is not 0.
async fn run_agents(handle: &Handle, own: &Arc<Own>, definitions: Vec<(Definition, StdioKind)>) -> Outcome {
    let mut waits = Vec::new();
    for (definition, kind) in definitions {
        let (name, tenure) = (definition.name().to_owned(), definition.tenure);
        let wiring = wiring(kind).map_err(|e| Failure::of(exit::BUG, &e))?;
        let (own, end) = (Arc::clone(own), handle.add(definition, wiring));
        waits.push(tokio::spawn(async move {
            let code = match end.await {
                Ok(Ok(conclusion)) => conclusion.exit_code(),
                Ok(Err(refusal)) => {
                    eprintln!("error: {name} was not started: {refusal}");
                    refusal_code(&refusal)
                }
                Err(_) => exit::BUG,
            };
            own.agents.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, left)| *left != tenure);
            code
        }));
    }
    let mut code = 0;
    for wait in waits {
        let ended = wait.await.unwrap_or(exit::BUG);
        code = if code == 0 { ended } else { code };
    }
    Ok(code)
}

async fn run_errand(sagas: Sagas, errand: Errand, stopped: watch::Receiver<bool>) {
    let seat = sagas.seat(&errand.name);
    let ended = sagas.drive(errand.submission, errand.listener, stopped, seat).await;
    (errand.ended)(ended);
}

/// What was started from this terminal.
struct Own {
    /// Those that live.
    agents: Mutex<Vec<(String, Tenure)>>,
    /// Stops the saga in order; nobody hears when there is none, or when it has ended.
    stop: watch::Sender<bool>,
}

/// Who has been told to stop already: the next word to them is to end at once.
#[derive(Default)]
struct Told {
    own: bool,
    all: bool,
}

/// Whom a signal concerns.
struct Heeding {
    handle: Handle,
    chaos: Chaos,
    sagas: Sagas,
    own: Arc<Own>,
    mode: Mode,
    reloader: Reloader,
}

impl Heeding {
    /// TERM stops everything in order. A service takes HUP for a reload: files are checked, and on an error the old plans stay.
    /// Else INT and HUP come from a terminal and stop what was started there, or, when that is over, everything. The second
    /// signal ends it all at once, without the kill switch: they may be started again.
    async fn heed(self) {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else {
            eprintln!("error: signals can't be heard: stop this supervisor with `agt-supervise stop --all`");
            return;
        };
        let mut told = Told::default();
        loop {
            let (heard, all) = tokio::select! {
                heard = term.recv() => (heard, true),
                heard = int.recv() => (heard, false),
                heard = hup.recv() => {
                    if self.mode == Mode::Service && heard.is_some() {
                        let reloader = self.reloader.clone();
                        // Beside this loop: a stop must be heard while files are read.
                        tokio::spawn(async move { reloader.on_hangup().await });
                        continue;
                    }
                    (heard, false)
                }
            };
            if heard.is_none() {
                return;
            }
            self.stop(&mut told, all);
        }
    }

    fn stop(&self, told: &mut Told, all: bool) {
        let uid = nix::unistd::geteuid().as_raw();
        let left = self.own.agents.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A saga's receiver lives as long as it is driven.
        let saga = self.own.stop.receiver_count() > 0;
        self.own.stop.send_replace(true);
        let all = all || (left.is_empty() && !saga) || self.mode == Mode::Service;
        // Those of other terminals hear it for the first time when ours have heard it twice.
        let first = !std::mem::replace(if all { &mut told.all } else { &mut told.own }, true);
        if first && std::io::stderr().is_terminal() {
            eprintln!("\nstopping; once more to end at once");
        }
        if all {
            self.sagas.close();
            self.handle.send(if first { Request::Shutdown } else { Request::ShutdownNow });
            // Its report is waited for; without one there is nothing to break off.
            let _ = self.chaos.abort("the supervisor was told to end", uid);
        } else {
            let wish = if first { Wish::Stop } else { Wish::End };
            left.iter().for_each(|(name, tenure)| self.handle.wish(name, *tenure, wish, uid));
        }
    }
}
