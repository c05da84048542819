//! `run` and `serve`: the supervisor itself, or the hand-over to the one that is there.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use agt_rings::launch::Streams;
use agt_rings::ring::Ring;
use agt_rings::spec::Terminal;

use super::check::{config_failure, surroundings};
use super::handover::{Turn, take_turn};
use super::namesakes;
use super::supervise::{Task, supervise};
use super::{Failure, Outcome, dirs};
use crate::cli::{EnforcementChoice, Global, RunArgs, ServeArgs, StdioChoice};
use crate::config::spec::{EnforcementSpec, Stdio, Switch};
use crate::config::{self, AgentPlan, Overrides, Surroundings};
use crate::driver::Talk;
use crate::driver::definition::Definition;
use crate::driver::status_file::StatusFile;
use crate::driver::streams::Wiring;
use crate::exit;
use crate::govern::governor::Vouching;
use crate::reloading::{Origin, Served, yaml_files};
use crate::store::lock::StateLock;

/// The one folder of which new files are started, and how to set it up.
pub(crate) const SERVE_HELP: &str = "Each agent works in a folder of its own, never in the served one: FOLDER/NAME, unless its file says `workdir:`. \
A workdir outside of FOLDER needs a line in the operator's file, and below /etc there is none.

Nobody vouches for a served agent: one that is new starts in R3 whatever its `ring:`. To let it start higher, say so before: \
`agt-supervise trust set FOLDER/NAME.yaml 700 --reason \"...\"`.

HUP or `agt-supervise reload` reads the folder again: new files are started, those of vanished files are stopped.

Examples:
  mkdir -p /srv/agents/researcher
  agt-supervise check --serve /srv/agents
  agt-supervise trust set /srv/agents/researcher.yaml 700 --reason \"reviewed\"
  agt-supervise serve /srv/agents";

/// Starts agents and stays until they have ended.
///
/// # Errors
/// Bad files, a refusal, no ground to stand on. Nothing was started then.
pub fn run(global: &Global, args: RunArgs) -> Outcome {
    let dirs = dirs(global)?;
    let around = surroundings(&dirs)?;
    let ring = args.ring.and_then(Ring::from_number);
    let enforcement = match args.enforcement {
        EnforcementChoice::Required => EnforcementSpec::Required,
        EnforcementChoice::BestEffort => EnforcementSpec::BestEffort,
    };
    let (workdir, name) = (args.workdir.clone(), args.name.clone());
    let overrides = Overrides { workdir, ring, name, enforcement, ..Overrides::default() };
    let operator = args.operator.as_deref();
    let mut plans = Vec::new();
    if args.command.is_empty() {
        for path in files(&args.files)? {
            let plan = config::load_agent(&path, &around, operator, &overrides).map_err(|e| config_failure(&e))?;
            plans.push((plan, Some(Origin::new(&path, operator, &overrides, &around))));
        }
    } else {
        let plan = config::agent_from_command(args.command.clone(), &around, operator, &overrides);
        plans.push((plan.map_err(|e| config_failure(&e))?, None));
    }
    let talk = if args.quiet { Talk::Quiet } else { Talk::Normal };
    for note in plans.iter().flat_map(|(plan, _)| &plan.notes).filter(|_| talk == Talk::Normal) {
        eprintln!("note: {note}");
    }
    namesakes::refuse(plans.iter().map(|(plan, _)| plan))?;
    let several = plans.len() > 1;
    if several && args.status_file.is_some() {
        let text = "--status-file is the place for one agent's final state, and several are named";
        return Err(Failure::usage(text).help("run them one by one; nothing was started"));
    }
    let status_file = args.status_file.as_deref().map(status_file).transpose()?;
    let definitions: Vec<(Definition, StdioKind)> = plans
        .into_iter()
        .map(|(plan, origin)| {
            let kind = stdio_kind(&plan, args.stdio, several)?;
            let mut definition = Definition::new(plan);
            definition.status_file = status_file.clone();
            definition.origin = origin;
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
    let task = Task {
        served: None,
        talk,
        metrics: args.metrics.choice(),
        around,
        operator: args.operator,
        definitions,
        errand: None,
    };
    supervise(&dirs, lock, task)
}

/// Starts the agents of a folder and stays.
///
/// # Errors
/// As [`run`].
pub fn serve(global: &Global, args: &ServeArgs) -> Outcome {
    let dirs = dirs(global)?;
    let around = surroundings(&dirs)?;
    let served = Served::new(&args.folder, args.operator.as_deref(), &around);
    let definitions = load_folder(&args.folder, &around, args.operator.as_deref(), &served.overrides())?;
    namesakes::refuse(definitions.iter().map(|(definition, _)| &definition.plan))?;
    let lock = StateLock::acquire(&dirs.state)?;
    let served = Some(served);
    let (talk, metrics) = (Talk::Normal, args.metrics.choice());
    supervise(
        &dirs,
        lock,
        Task { served, talk, metrics, around, operator: args.operator.clone(), definitions, errand: None },
    )
}

fn status_file(path: &Path) -> Result<StatusFile, Failure> {
    StatusFile::new(path).map_err(|e| {
        Failure::new(exit::CANT_CREATE, format!("the status file {} can't be made: {e}", path.display()))
            .help("name a file in a folder that is there and that you may write; nothing was started")
    })
}

fn load_folder(
    folder: &Path,
    around: &Surroundings,
    operator: Option<&Path>,
    overrides: &Overrides,
) -> Result<Vec<(Definition, StdioKind)>, Failure> {
    let load = |path: PathBuf| {
        config::load_agent(&path, around, operator, overrides)
            .map(|plan| {
                let mut definition = Definition::new(plan);
                definition.origin = Some(Origin::new(&path, operator, overrides, around));
                (definition, StdioKind::Log)
            })
            .map_err(|e| config_failure(&e))
    };
    files(&[folder.to_owned()])?.into_iter().map(load).collect()
}

/// Files stand for themselves, a folder for the YAML files in it.
pub(super) fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for path in named {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let found = yaml_files(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
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
    /// Raw that nobody typed: a terminal among the streams stays ours.
    Tamed,
    Pty,
    Prefixed,
    Log,
}

pub(super) fn stdio_kind(plan: &AgentPlan, typed: Option<StdioChoice>, several: bool) -> Result<StdioKind, Failure> {
    // A terminal can only be joined to a terminal; without one the bytes go through untouched.
    let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = if both && !several { StdioKind::Pty } else { StdioKind::Tamed };
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
        (None, Some(Stdio::Raw)) => StdioKind::Tamed,
        (None, Some(Stdio::Pty)) => terminal,
        (None, None) if several => StdioKind::Prefixed,
        (None, None) => terminal,
    })
}

/// What the caller's terminal is called, for an agent that gets a terminal joined to it.
pub(super) fn term() -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-+._".contains(c);
    std::env::var("TERM").ok().filter(|term| (1..=64).contains(&term.len()) && term.chars().all(plain))
}

pub(super) fn wiring(kind: StdioKind) -> std::io::Result<Wiring> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| -> std::io::Result<OwnedFd> { fd.try_clone_to_owned() };
    let all = || -> std::io::Result<Streams> {
        Ok(Streams {
            stdin: own(std::io::stdin().as_fd())?,
            stdout: own(std::io::stdout().as_fd())?,
            stderr: own(std::io::stderr().as_fd())?,
        })
    };
    Ok(match kind {
        StdioKind::Raw => Wiring::Direct(all()?),
        StdioKind::Tamed => Wiring::Tamed(all()?),
        StdioKind::Pty => Wiring::Terminal,
        StdioKind::Prefixed => Wiring::Prefixed,
        StdioKind::Log => Wiring::Log,
    })
}
