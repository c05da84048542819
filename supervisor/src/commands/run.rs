//! `run` and `serve`: the supervisor itself, or the hand-over to the one that is there.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use agt_rings::launch::Streams;
use agt_rings::ring::Ring;
use tokio::signal::unix::{SignalKind, signal};

use super::check::{config_failure, surroundings};
use super::{Failure, Outcome, dirs};
use crate::cli::{Global, RunArgs, ServeArgs, StdioChoice};
use crate::config::spec::Stdio;
use crate::config::{self, AgentPlan, Overrides, Surroundings};
use crate::control::protocol::About;
use crate::control::server::{Operators, Socket};
use crate::dirs::Dirs;
use crate::driver::definition::Definition;
use crate::driver::event::{Refusal, Request};
use crate::driver::ground::Ground;
use crate::driver::streams::Wiring;
use crate::driver::{Handle, Mode, Supervisor, Talk};
use crate::exit;
use crate::machine::lifecycle::Death;
use crate::store::lock::StateLock;
use crate::store::{Options, Store, StoreError};

/// Starts agents and stays until they have ended.
///
/// # Errors
/// Bad files, a refusal, no ground to stand on. Nothing was started then.
pub fn run(global: &Global, args: RunArgs) -> Outcome {
    let dirs = dirs(global)?;
    let around = surroundings(&dirs)?;
    let ring = args.ring.and_then(Ring::from_number);
    let overrides = Overrides { workdir: args.workdir.clone(), ring, ..Overrides::default() };
    let operator = args.operator.as_deref();
    let mut plans = Vec::new();
    if args.command.is_empty() {
        for path in files(&args.files)? {
            plans.push(config::load_agent(&path, &around, operator, &overrides).map_err(|e| config_failure(&e))?);
        }
    } else {
        let plan = config::agent_from_command(args.command.clone(), &around, operator, &overrides);
        plans.push(plan.map_err(|e| config_failure(&e))?);
    }
    let talk = if args.quiet { Talk::Quiet } else { Talk::Normal };
    for note in plans.iter().flat_map(|plan| &plan.notes).filter(|_| talk == Talk::Normal) {
        eprintln!("note: {note}");
    }
    let several = plans.len() > 1;
    let definitions: Vec<(Definition, StdioKind)> = plans
        .into_iter()
        .map(|plan| {
            let kind = stdio_kind(&plan, args.stdio, several);
            let mut definition = Definition::new(plan);
            definition.status_file = args.status_file.clone();
            (definition, kind)
        })
        .collect();
    let lock = match StateLock::acquire(&dirs.state) {
        Ok(lock) => lock,
        Err(StoreError::Locked { pid, .. }) => {
            let holder = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            return Err(Failure::new(
                exit::UNAVAILABLE,
                format!("another supervisor{holder} works with {}", dirs.state.display()),
            )
            .help("give this one a folder of its own with --state-dir"));
        }
        Err(e) => return Err(e.into()),
    };
    supervise(&dirs, lock, Mode::UntilLast, talk, definitions)
}

/// Starts the agents of a folder and stays.
///
/// # Errors
/// As [`run`].
pub fn serve(global: &Global, args: &ServeArgs) -> Outcome {
    let dirs = dirs(global)?;
    let around = surroundings(&dirs)?;
    let definitions = load_folder(&args.folder, &around, args.operator.as_deref())?;
    let lock = StateLock::acquire(&dirs.state)?;
    supervise(&dirs, lock, Mode::Service, Talk::Normal, definitions)
}

fn load_folder(
    folder: &Path,
    around: &Surroundings,
    operator: Option<&Path>,
) -> Result<Vec<(Definition, StdioKind)>, Failure> {
    let load = |path: PathBuf| {
        config::load_agent(&path, around, operator, &Overrides::default())
            .map(|plan| (Definition::new(plan), StdioKind::Log))
            .map_err(|e| config_failure(&e))
    };
    files(&[folder.to_owned()])?.into_iter().map(load).collect()
}

/// Files stand for themselves, a folder for the YAML files in it.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for path in named {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        let is_yaml = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let mut found: Vec<PathBuf> =
            entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_yaml).collect();
        found.sort();
        if found.is_empty() {
            return Err(Failure::usage(format!("{} holds no .yaml file", path.display())));
        }
        all.extend(found);
    }
    Ok(all)
}

/// What is to become of an agent's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StdioKind {
    Raw,
    Prefixed,
    Log,
}

fn stdio_kind(plan: &AgentPlan, typed: Option<StdioChoice>, several: bool) -> StdioKind {
    match (typed, plan.stdio) {
        (Some(StdioChoice::Prefixed), _) => StdioKind::Prefixed,
        (Some(StdioChoice::Raw | StdioChoice::Pty), _) => StdioKind::Raw,
        (None, Some(Stdio::Prefixed)) => StdioKind::Prefixed,
        (None, Some(Stdio::Raw | Stdio::Pty)) => StdioKind::Raw,
        (None, None) if several => StdioKind::Prefixed,
        (None, None) => StdioKind::Raw,
    }
}

fn wiring(kind: StdioKind) -> std::io::Result<Wiring> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| -> std::io::Result<OwnedFd> { fd.try_clone_to_owned() };
    Ok(match kind {
        StdioKind::Raw => Wiring::Direct(Streams {
            stdin: own(std::io::stdin().as_fd())?,
            stdout: own(std::io::stdout().as_fd())?,
            stderr: own(std::io::stderr().as_fd())?,
        }),
        StdioKind::Prefixed => Wiring::Prefixed,
        StdioKind::Log => Wiring::Log,
    })
}

fn supervise(
    dirs: &Dirs,
    lock: StateLock,
    mode: Mode,
    talk: Talk,
    definitions: Vec<(Definition, StdioKind)>,
) -> Outcome {
    let made = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|e| Failure::new(exit::CANT_CREATE, format!("{}: {e}", path.display())))
    };
    made(&dirs.runtime)?;
    made(&dirs.logs())?;
    let ground = Ground::lay(&dirs.state, &dirs.cgroup_record())?;
    if let Some(swept) = ground.swept.filter(|swept| swept.processes > 0) {
        eprintln!("note: ended {} processes that an earlier supervisor left behind", swept.processes);
    }
    let store = Store::open_locked(lock, Options::default())?;
    if mode == Mode::Service {
        crate::sagas::host::name_unfinished(dirs);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::of(exit::BUG, &e))?;
    let code = runtime.block_on(live(dirs, ground, store, mode, talk, definitions));
    // Blocking reads of our own standard input would hold the runtime's end up.
    runtime.shutdown_background();
    code
}

async fn live(
    dirs: &Dirs,
    ground: Ground,
    store: Store,
    mode: Mode,
    talk: Talk,
    definitions: Vec<(Definition, StdioKind)>,
) -> Outcome {
    let operators = Operators::default();
    let socket = Socket::bind(&dirs.operator_socket(), &operators).map_err(|e| Failure::of(exit::CANT_CREATE, &e))?;
    let (supervisor, handle) = Supervisor::new(mode, dirs.clone(), ground, store, talk);
    let about = About { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned(), metrics: None };
    let served = tokio::spawn(socket.serve(handle.clone(), operators, about));
    let signals = tokio::spawn(heed_signals(handle.clone()));
    let looped = tokio::spawn(supervisor.run());
    let mut waits = Vec::new();
    for (definition, kind) in definitions {
        let name = definition.name().to_owned();
        let wiring = wiring(kind).map_err(|e| Failure::of(exit::BUG, &e))?;
        waits.push((name, handle.add(definition, wiring)));
    }
    let mut code = 0;
    for (name, wait) in waits {
        let ended = match wait.await {
            Ok(Ok(death)) => exit_code(&death),
            Ok(Err(refusal)) => {
                eprintln!("error: {name} was not started: {refusal}");
                refusal_code(&refusal)
            }
            Err(_) => exit::BUG,
        };
        code = if code == 0 { ended } else { code };
    }
    if mode == Mode::UntilLast {
        handle.send(Request::Shutdown);
    }
    if let Err(e) = looped.await {
        eprintln!("error: the supervisor's loop ended badly: {e}");
        code = exit::BUG;
    }
    served.abort();
    signals.abort();
    // Wait for the abort, so that the socket's file is gone when we are.
    let _ = served.await;
    Ok(code)
}

fn exit_code(death: &Death) -> u8 {
    death.exit_code()
}

fn refusal_code(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::NameTaken { .. } => exit::REFUSED,
        Refusal::NotNow(_) => exit::KILLED,
        Refusal::NotRecorded(_) => exit::CANT_CREATE,
        Refusal::Unknown(_) | Refusal::Ending => exit::UNAVAILABLE,
    }
}

/// TERM, INT and HUP stop in order; the second one kills.
async fn heed_signals(handle: Handle) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else {
        eprintln!("error: signals can't be heard: stop this supervisor with `agt-supervise stop --all`");
        return;
    };
    let mut first = true;
    loop {
        let heard = tokio::select! {
            heard = term.recv() => heard,
            heard = int.recv() => heard,
            heard = hup.recv() => heard,
        };
        if heard.is_none() {
            return;
        }
        if first && std::io::stderr().is_terminal() {
            eprintln!("\nstopping; once more to kill");
        }
        handle.send(if first { Request::Shutdown } else { Request::ShutdownNow });
        first = false;
    }
}
