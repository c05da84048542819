//! `run` and `serve`: the supervisor itself, or the hand-over to the one that is there.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agt_rings::launch::Streams;
use agt_rings::ring::Ring;
use agt_rings::spec::Terminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::check::{config_failure, surroundings};
use super::handover::{Turn, take_turn};
use super::namesakes;
use super::{Failure, Outcome, dirs};
use crate::chaosing::{self, Chaos};
use crate::cli::{Global, RunArgs, ServeArgs, StdioChoice};
use crate::config::spec::{Stdio, Switch};
use crate::config::{self, AgentPlan, Overrides, Surroundings};
use crate::control::handoff::{Door, refusal_code};
use crate::control::protocol::About;
use crate::control::server::{Operators, Socket};
use crate::dirs::Dirs;
use crate::driver::audience::{Tenure, Wish};
use crate::driver::definition::Definition;
use crate::driver::event::{Refusal, Request};
use crate::driver::ground::Ground;
use crate::driver::streams::Wiring;
use crate::driver::{Handle, Mode, Supervisor, Talk};
use crate::exit;
use crate::govern::governor::Vouching;
use crate::govern::kill_mark;
use crate::machine::lifecycle::Conclusion;
use crate::store::lock::StateLock;
use crate::store::{Options, Store};
use crate::telemetry::Telemetry;
use crate::telemetry::endpoint::{Bound, Choice, Endpoint};
use crate::telemetry::scrape::Scraper;

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
    namesakes::refuse(plans.iter())?;
    let several = plans.len() > 1;
    let definitions: Vec<(Definition, StdioKind)> = plans
        .into_iter()
        .map(|plan| {
            let kind = stdio_kind(&plan, args.stdio, several)?;
            let mut definition = Definition::new(plan);
            definition.status_file = args.status_file.clone();
            definition.term = term();
            if kind == StdioKind::Pty {
                definition.terminal = Terminal::Controlling;
            }
            if definition.plan.vouch == Switch::On {
                definition.vouching = Vouching::ByHand;
            }
            Ok((definition, kind))
        })
        .collect::<Result<_, Failure>>()?;
    let lock = match take_turn(&dirs, talk, &definitions, args.metrics.metrics)? {
        Turn::Ours(lock) => lock,
        Turn::Theirs(code) => return Ok(code),
    };
    supervise(&dirs, lock, Mode::UntilLast, talk, args.metrics.choice(), definitions)
}

/// Starts the agents of a folder and stays.
///
/// # Errors
/// As [`run`].
pub fn serve(global: &Global, args: &ServeArgs) -> Outcome {
    let dirs = dirs(global)?;
    let around = surroundings(&dirs)?;
    let definitions = load_folder(&args.folder, &around, args.operator.as_deref())?;
    namesakes::refuse(definitions.iter().map(|(definition, _)| &definition.plan))?;
    let lock = StateLock::acquire(&dirs.state)?;
    supervise(&dirs, lock, Mode::Service, Talk::Normal, args.metrics.choice(), definitions)
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
pub(super) enum StdioKind {
    Raw,
    Pty,
    Prefixed,
    Log,
}

fn stdio_kind(plan: &AgentPlan, typed: Option<StdioChoice>, several: bool) -> Result<StdioKind, Failure> {
    // A terminal can only be joined to a terminal; without one the bytes go through untouched.
    let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = if both && !several { StdioKind::Pty } else { StdioKind::Raw };
    Ok(match (typed, plan.stdio) {
        (Some(StdioChoice::Prefixed), _) => StdioKind::Prefixed,
        (Some(StdioChoice::Raw), _) => StdioKind::Raw,
        (Some(StdioChoice::Pty), _) if several => {
            return Err(Failure::usage("--stdio pty joins one agent to this terminal, and several are named")
                .help("run them one by one, or with --stdio prefixed; nothing was started"));
        }
        (Some(StdioChoice::Pty), _) if !both => {
            return Err(Failure::usage("--stdio pty needs a terminal, and standard input or output is none")
                .help("run it at a terminal, under script(1), or with --stdio raw; nothing was started"));
        }
        (Some(StdioChoice::Pty), _) => StdioKind::Pty,
        (None, Some(Stdio::Prefixed)) => StdioKind::Prefixed,
        (None, Some(Stdio::Raw)) => StdioKind::Raw,
        (None, Some(Stdio::Pty)) => terminal,
        (None, None) if several => StdioKind::Prefixed,
        (None, None) => terminal,
    })
}

/// What the caller's terminal is called, for an agent that gets a terminal joined to it.
fn term() -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-+._".contains(c);
    std::env::var("TERM").ok().filter(|term| (1..=64).contains(&term.len()) && term.chars().all(plain))
}

pub(super) fn wiring(kind: StdioKind) -> std::io::Result<Wiring> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| -> std::io::Result<OwnedFd> { fd.try_clone_to_owned() };
    Ok(match kind {
        StdioKind::Raw => Wiring::Direct(Streams {
            stdin: own(std::io::stdin().as_fd())?,
            stdout: own(std::io::stdout().as_fd())?,
            stderr: own(std::io::stderr().as_fd())?,
        }),
        StdioKind::Pty => Wiring::Terminal,
        StdioKind::Prefixed => Wiring::Prefixed,
        StdioKind::Log => Wiring::Log,
    })
}

fn supervise(
    dirs: &Dirs,
    lock: StateLock,
    mode: Mode,
    talk: Talk,
    metrics: Choice,
    definitions: Vec<(Definition, StdioKind)>,
) -> Outcome {
    let Bound { endpoint, warning } = Endpoint::bind(metrics).map_err(|e| {
        Failure::of(exit::CANT_CREATE, &e)
            .help("name another address with --metrics, or `--metrics off`; nothing was started")
    })?;
    if let Some(warning) = warning.filter(|_| talk == Talk::Normal) {
        eprintln!("warning: {warning}");
    }
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
    let code = runtime.block_on(live(dirs, ground, store, mode, talk, endpoint, definitions));
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
    endpoint: Option<Endpoint>,
    definitions: Vec<(Definition, StdioKind)>,
) -> Outcome {
    let operators = Operators::default();
    let socket = Socket::bind(&dirs.operator_socket(), &operators).map_err(|e| Failure::of(exit::CANT_CREATE, &e))?;
    let marks = kill_mark::take_up(&store, &dirs.state).await.map_err(|e| Failure::from(&e))?;
    for name in marks.iter().flat_map(|mark| &mark.agents) {
        eprintln!("note: {name} was killed by `kill --all` and stays dead until `agt-supervise revive {name}`");
    }
    chaosing::recover(&store).await.map_err(|e| Failure::of(e.exit_code(), &e))?;
    let telemetry = Telemetry::new();
    let (supervisor, handle) = Supervisor::new(mode, dirs.clone(), ground, store.clone(), talk);
    let supervisor = supervisor.counting_into(telemetry.clone());
    let chaos = Chaos::new(handle.clone(), store.clone());
    let url = endpoint.as_ref().map(Endpoint::url);
    let scraped = endpoint.map(|endpoint| tokio::spawn(endpoint.serve(Scraper::new(telemetry, handle.clone(), store))));
    let about = About { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned(), metrics: url };
    let door = Door::open(&dirs.handoff_socket(), handle.clone()).map_err(|e| Failure::of(exit::CANT_CREATE, &e))?;
    let (over, closes) = tokio::sync::oneshot::channel();
    let mut served = tokio::spawn(socket.until(closes).serve(handle.clone(), operators, about, chaos.clone()));
    let own = definitions.iter().map(|(definition, _)| (definition.name().to_owned(), definition.tenure));
    let own: Own = Arc::new(Mutex::new(own.collect()));
    let signals = tokio::spawn(heed_signals(handle.clone(), chaos.clone(), Arc::clone(&own), mode));
    let looped = tokio::spawn(supervisor.run());
    let mut waits = Vec::new();
    for (definition, kind) in definitions {
        let name = definition.name().to_owned();
        let wiring = wiring(kind).map_err(|e| Failure::of(exit::BUG, &e))?;
        let (tenure, end) = (definition.tenure, handle.add(definition, wiring));
        waits.push(tokio::spawn(wait_for(name, tenure, end, Arc::clone(&own))));
    }
    let mut code = 0;
    for wait in waits {
        let ended = wait.await.unwrap_or(exit::BUG);
        // How its agents ended is no verdict on a service that was told to end and has.
        code = if code == 0 && mode == Mode::UntilLast { ended } else { code };
    }
    if mode == Mode::UntilLast {
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

/// How long the end waits for askers to take their answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// The agents that were started from here and live.
type Own = Arc<Mutex<Vec<(String, Tenure)>>>;

/// Waits for the end of one agent; the exit code for it.
async fn wait_for(name: String, tenure: Tenure, end: oneshot::Receiver<Result<Conclusion, Refusal>>, own: Own) -> u8 {
    let code = match end.await {
        Ok(Ok(conclusion)) => conclusion.exit_code(),
        Ok(Err(refusal)) => {
            eprintln!("error: {name} was not started: {refusal}");
            refusal_code(&refusal)
        }
        Err(_) => exit::BUG,
    };
    own.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, left)| *left != tenure);
    code
}

/// TERM stops everything in order. INT and HUP come from a terminal and stop the agents that were started there, or, when those
/// are dead, everything. The second signal ends them at once, without the kill switch: they may be started again.
async fn heed_signals(handle: Handle, chaos: Chaos, own: Own, mode: Mode) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else {
        eprintln!("error: signals can't be heard: stop this supervisor with `agt-supervise stop --all`");
        return;
    };
    let uid = nix::unistd::geteuid().as_raw();
    let mut first = true;
    loop {
        let (heard, all) = tokio::select! {
            heard = term.recv() => (heard, true),
            heard = int.recv() => (heard, false),
            heard = hup.recv() => (heard, false),
        };
        if heard.is_none() {
            return;
        }
        if first && std::io::stderr().is_terminal() {
            eprintln!("\nstopping; once more to end at once");
        }
        let left = own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if all || left.is_empty() || mode == Mode::Service {
            handle.send(if first { Request::Shutdown } else { Request::ShutdownNow });
            // Its report is waited for; without one there is nothing to break off.
            let _ = chaos.abort("the supervisor was told to end", uid);
        } else {
            let wish = if first { Wish::Stop } else { Wish::End };
            left.iter().for_each(|(name, tenure)| handle.wish(name, *tenure, wish, uid));
        }
        first = false;
    }
}
