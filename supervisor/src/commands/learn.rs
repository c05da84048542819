//! `learn`: one watched run in a ring, and the file that it comes to.
//!
//! The run is a supervisor's, as that of `run`: same ring, same limits, same records. But the workdir has an overlay before it, there
//! are no secrets, and no network but what the operator's file gives an agent of that name. What was tried comes back as notices.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agt_rings::Ring;
use agt_rings::builtin::OWN_ID_BASE;
use agt_rings::plan::{Plan, Refused, Root};
use agt_rings::probe::outlook::outlook;
use agt_rings::report::in_words;
use agt_rings::spec::{Access, Enforcement};

use super::check::{config_failure, surroundings};
use super::learn_scratch::{discard, settle};
use super::learn_world::Here;
use super::run::{stdio_kind, term};
use super::supervise::{Task, supervise};
use super::{Failure, Outcome, dirs, print};
use crate::cli::{Global, agent_name};
use crate::config::plan::EnvValue;
use crate::config::spec::{AgentSpec, RestartPolicy, Stdio, Switch};
use crate::config::{self, AgentName, AgentPlan, Command, Overrides, Surroundings, Wish, grant};
use crate::dirs::Dirs;
use crate::driver::Talk;
use crate::driver::definition::Definition;
use crate::driver::launching::in_full;
use crate::driver::records::wall_ms;
use crate::exit;
use crate::govern::governor::Vouching;
use crate::learning::propose::{Proposal, propose};
use crate::learning::render::{Frame, lines, numbers, yaml};
use crate::learning::{Learning, Observed};
use crate::store::StoreError;
use crate::store::lock::StateLock;
use crate::telemetry::endpoint::Choice;

/// What `learn` says at its end, in `--help`.
pub(crate) const HELP: &str = "The command runs once, here, in the ring: it sees what the ring shows, writes its folder into an overlay (your files \
stay as they are), and has neither secrets nor network. What it tried and did not have becomes a line of the proposal; a \
line that needs the operator's file is marked REVIEW, and the operator's lines are printed beside it. A path that it only asked \
about (stat, access) is not seen. A program that ends at its first error shows what it needs up to there: allow that, and learn \
what is still lacking with `learn FILE --operator FILE`: then the agent of that file runs, with what it has, and the lines to add are \
printed.

Examples:
  agt-supervise learn -- python3 researcher.py \"find flights\"
  agt-supervise learn -o agent.yaml -- .venv/bin/python agent.py
  agt-supervise learn --ring 3 -- node server.mjs
  agt-supervise learn agent.yaml --operator operator.yaml";

/// `learn`.
#[derive(Debug, clap::Args)]
pub struct LearnArgs {
    /// Run the agent of this file, and print the lines that it lacks
    #[arg(value_name = "FILE", conflicts_with_all = ["command", "output", "name", "workdir"])]
    pub file: Option<PathBuf>,
    /// Write the proposal to this new file (default: standard output, behind the command's own)
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The ring to run in and to propose (default: 2, or that of the file)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub ring: Option<u8>,
    /// What the agent will be called (default: as its script or program)
    #[arg(long, value_name = "NAME", value_parser = agent_name)]
    pub name: Option<AgentName>,
    /// The operator's file
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
    /// The folder in which the agent works, and its file will stand (default: where you stand)
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Keep what the run wrote, and say where
    #[arg(long, conflicts_with = "discard")]
    pub keep: bool,
    /// Drop what the run wrote, without asking
    #[arg(long = "drop")]
    pub discard: bool,
    /// Say nothing but errors and the proposal
    #[arg(long, short)]
    pub quiet: bool,
    /// The command
    #[arg(last = true, required_unless_present = "file", value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What is learnt about, before anything runs.
struct Subject {
    around: Surroundings,
    /// As it runs now.
    plan: AgentPlan,
    /// What it has been given so far, compiled: what is in there needs no line.
    compiled: Plan,
    /// What this host can't enforce of the ring: the proposed file has to say that it goes without.
    missing: Vec<String>,
    /// The proposed file without its lines, and where it will stand.
    spec: AgentSpec,
    file: PathBuf,
    /// Variables that the file has to take over.
    pass: Vec<String>,
}

/// Runs, watches, proposes.
///
/// # Errors
/// A command that can't be run as asked, a host on which nobody can listen, a file that is there already. Nothing was started then.
pub fn learn(global: &Global, args: LearnArgs) -> Outcome {
    let dirs = dirs(global)?;
    let around = surroundings(&dirs)?;
    if let Some(output) = args.output.as_deref().filter(|output| output.exists()) {
        let text = format!("{} is there already", output.display());
        return Err(Failure::new(exit::CANT_CREATE, text)
            .help("name a file that is not, or take that one away; nothing was started"));
    }
    let lock = StateLock::acquire(&dirs.state).map_err(|e| match e {
        StoreError::Locked { .. } => {
            Failure::from(e).help("learn beside a running supervisor with a folder of its own: --state-dir DIR")
        }
        other => other.into(),
    })?;
    let scratch = dirs.state.join("learn").join(format!("{}", wall_ms()));
    let subject = subject(&args, around, &scratch)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&scratch)
        .map_err(|e| Failure::new(exit::CANT_CREATE, format!("{} can't be made: {e}", scratch.display())))?;
    let learning = Arc::new(Learning::new(scratch.clone()));
    let ended = watched(&dirs, lock, &args, &subject, &learning);
    let mut observed = learning.observed().clone();
    observed.programs.retain(|program| program.exists());
    let result = ended.and_then(|code| {
        if code != 0 && observed.is_empty() {
            // It was not started, or ended before it did anything; why, is said.
            discard(&scratch).map_err(|e| Failure::new(exit::CANT_CREATE, format!("{}: {e}", scratch.display())))?;
            return Ok(code);
        }
        // What was learnt is said first, whatever becomes of the files.
        let code = conclude(&args, &subject, &observed, code)?;
        crate::say::flush();
        settle(&args, &scratch)?;
        Ok(code)
    });
    if result.is_err() {
        // Somebody who was told of an error has no use for half a run's files.
        let _ = discard(&scratch);
    }
    result
}

fn subject(args: &LearnArgs, around: Surroundings, scratch: &Path) -> Result<Subject, Failure> {
    let operator = args.operator.as_deref();
    let (asked, spec, file) = match &args.file {
        Some(file) => of_file(args, file, &around)?,
        None => of_command(args, &around)?,
    };
    let mut plan = harmless(&asked);
    // What the ring lacks here is no reason not to learn; the proposal says it.
    let (missing, launched) = match compiled(&plan, Some(scratch))? {
        Ok(launched) => (Vec::new(), launched),
        Err(refused) => {
            plan.enforcement = Enforcement::BestEffort;
            let launched = compiled(&plan, Some(scratch))?.map_err(|refused| unavailable(&refused.to_string()))?;
            (in_words(&refused.gaps), launched)
        }
    };
    if !matches!(&launched.root, Root::Built { .. }) || launched.learning().is_none() {
        let text = "nobody can watch a program on this host: it takes namespaces and seccomp notifications";
        return Err(unavailable(text));
    }
    let asked = AgentPlan { enforcement: Enforcement::BestEffort, ..asked };
    let compiled = compiled(&asked, None)?.map_err(|refused| unavailable(&refused.to_string()))?;
    let mut subject = Subject { around, plan, compiled, missing, spec, file, pass: Vec::new() };
    // The same program without the user's own PATH: then the file needs no word on it.
    let same = || subject.here(operator).resolve(&[]).is_ok_and(|plan| plan.program == subject.plan.program);
    if args.file.is_none() && subject.around.env.contains_key("PATH") && !same() {
        subject.pass = vec!["PATH".to_owned()];
        subject.spec.env.pass = subject.pass.clone();
    }
    Ok(subject)
}

/// The agent that a command line is, the file that will be proposed for it, and where that will stand.
fn of_command(args: &LearnArgs, around: &Surroundings) -> Result<(AgentPlan, AgentSpec, PathBuf), Failure> {
    let ring = Some(args.ring.and_then(Ring::from_number).unwrap_or(Ring::R2));
    let overrides = Overrides { ring, workdir: args.workdir.clone(), ..Overrides::default() };
    let plan = config::agent_from_command(args.command.clone(), around, args.operator.as_deref(), &overrides)
        .map_err(|e| config_failure(&e))?;
    let name = args.name.clone().unwrap_or_else(|| config::plain_name(&plan.identity.source));
    let command =
        Command::from_words(args.command.clone()).map_err(|bad| Failure::usage(bad.message).help(bad.instead))?;
    let file = place(args.output.as_deref(), &plan.workdir, around)?;
    Ok((plan, AgentSpec { ring, ..AgentSpec::new(name, command) }, file))
}

/// The agent of a file that is there already.
fn of_file(args: &LearnArgs, file: &Path, around: &Surroundings) -> Result<(AgentPlan, AgentSpec, PathBuf), Failure> {
    let overrides = Overrides { ring: args.ring.and_then(Ring::from_number), ..Overrides::default() };
    let plan =
        config::load_agent(file, around, args.operator.as_deref(), &overrides).map_err(|e| config_failure(&e))?;
    let loaded = config::load_typed::<AgentSpec>(&around.cwd.join(file), config::Kind::Agent);
    let spec = loaded.map_err(|e| config_failure(&e))?.value;
    if plan.ceiling == Ring::R0 {
        return Err(Failure::usage("an R0 agent sees the host itself: there is nothing to learn for its files")
            .help("learn in the ring that it shall have: --ring 2"));
    }
    let file = plan.identity.source.clone();
    Ok((plan, spec, file))
}

/// The same for a run that must leave nothing behind: once, without secrets, writing the workdir's overlay alone.
fn harmless(asked: &AgentPlan) -> AgentPlan {
    let mut plan = asked.clone();
    plan.env.retain(|_, value| matches!(value, EnvValue::Plain(_)));
    for rule in plan.files.iter_mut().filter(|rule| rule.path != asked.workdir) {
        rule.access = Access::Read;
    }
    plan.restart.policy = RestartPolicy::Never;
    plan.health = None;
    plan.ports.clear();
    plan
}

fn unavailable(text: &str) -> Failure {
    Failure::new(exit::UNAVAILABLE, text).help("`agt-supervise doctor` shows what works here; nothing was started")
}

/// Where the proposed file will stand. Its folder is the agent's workdir, so it has to be the one in which the command ran.
fn place(output: Option<&Path>, workdir: &Path, around: &Surroundings) -> Result<PathBuf, Failure> {
    let Some(output) = output else { return Ok(workdir.join("agent.yaml")) };
    let path = around.cwd.join(output);
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) if folder == workdir => Ok(folder.join(name)),
        _ => Err(Failure::usage(format!(
            "{} is not in {}, where the command runs",
            output.display(),
            workdir.display()
        ))
        .help("an agent works in the folder of its file: stand there, or name it with --workdir; nothing was started")),
    }
}

fn compiled(plan: &AgentPlan, scratch: Option<&Path>) -> Result<Result<Plan, Refused>, Failure> {
    let mut bare = plan.clone();
    bare.env.clear();
    let mut spec = bare.launch_spec(plan.ceiling).map_err(|e| Failure::of(exit::BUG, &e))?;
    spec.own_id = OWN_ID_BASE;
    spec.scratch = scratch.map(Path::to_path_buf);
    let judged = outlook(&[plan.as_it_stands(spec)]).map_err(|e| Failure::new(exit::UNAVAILABLE, in_full(&e)))?;
    judged.into_iter().next().ok_or_else(|| Failure::new(exit::BUG, "the launcher has compiled nothing"))
}

impl Subject {
    fn here<'a>(&'a self, operator: Option<&'a Path>) -> Here<'a> {
        Here { around: &self.around, operator, plan: &self.compiled, spec: &self.spec, file: &self.file }
    }
}

/// The run itself: a supervisor for this one agent.
fn watched(dirs: &Dirs, lock: StateLock, args: &LearnArgs, subject: &Subject, learning: &Arc<Learning>) -> Outcome {
    let kind = stdio_kind(&subject.plan, None, false)?;
    let mut definition = Definition::new(subject.plan.clone());
    definition.learning = Some(Arc::clone(learning));
    definition.told_as = Some(subject.spec.name.to_string());
    definition.term = term();
    if subject.plan.stdio.is_none_or(|stdio| stdio == Stdio::Pty) && kind == super::run::StdioKind::Pty {
        definition.terminal = agt_rings::spec::Terminal::Controlling;
    }
    if definition.plan.vouch == Switch::On {
        definition.vouching = Vouching::ByHand;
    }
    let task = Task {
        served: None,
        talk: if args.quiet { Talk::Quiet } else { Talk::Normal },
        metrics: Choice::Off,
        around: subject.around.clone(),
        operator: args.operator.clone(),
        definitions: vec![(definition, kind)],
        errand: None,
    };
    supervise(dirs, lock, task)
}

/// Says what was seen, and writes the proposal.
fn conclude(args: &LearnArgs, subject: &Subject, observed: &Observed, code: u8) -> Outcome {
    let here = subject.here(args.operator.as_deref());
    let proposal = propose(observed, &here);
    let frame = Frame {
        name: subject.spec.name.to_string(),
        command: args.command.clone(),
        ring: subject.plan.ceiling,
        pass: subject.pass.clone(),
        missing: subject.missing.clone(),
    };
    let text = if args.file.is_some() { lines(&proposal) } else { yaml(&frame, observed, &proposal) };
    match &args.output {
        Some(_) => {
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&subject.file);
            file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| {
                Failure::new(exit::CANT_CREATE, format!("{} can't be written: {e}", subject.file.display()))
            })?;
        }
        None => print(&text),
    }
    if !args.quiet {
        let count = proposal.for_the_operator();
        let wrote = args.output.as_ref().map_or_else(String::new, |file| format!("  Wrote {}", file.display()));
        let review = match count {
            0 => String::new(),
            1 => "; review the line marked # REVIEW".to_owned(),
            _ => format!("; review the {count} lines marked # REVIEW"),
        };
        eprintln!(
            "observed: {}.{wrote} ({}, {} rules; {count} for the operator's file){review}",
            numbers(observed),
            frame.ring,
            proposal.lines.len()
        );
        if code != 0 {
            eprintln!("note: the command ended with {code}: what it would have done after that is not in the proposal");
        }
    }
    operators_lines(&here, &proposal);
    Ok(0)
}

/// The lines of the operator's file, from the resolver's own refusals of the whole proposal.
fn operators_lines(here: &Here<'_>, proposal: &Proposal) {
    let asked = proposal.lines.iter().filter(|line| !matches!(line.said, crate::learning::propose::Said::Never(_)));
    let wishes: Vec<Wish> = asked.map(|line| line.wish.clone()).collect();
    let Err(error) = here.resolve(&wishes) else { return };
    let problems = error.report().map(|report| report.problems.as_slice()).unwrap_or_default();
    if let Some(block) = grant::yaml_block(problems.iter().filter_map(|problem| problem.grant.as_ref())) {
        eprintln!("{block}");
    }
}
