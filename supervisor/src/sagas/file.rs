//! From saga.yaml to a plan whose every command is resolved, or everything that is wrong with it at its line.
//!
//! The engine judges the graph, the agents' resolver judges each command (program, workdir, rights), and both kinds of
//! problem are drawn by the same renderer. Nothing is started when there is one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_saga::id::RunKind;
use agt_saga::lint::{self, Segment};
use agt_saga::plan::{Plan, Work};
use agt_saga::spec::{EnforcementSpec, StepsForm};
use serde::{Deserialize, Serialize};

use super::not_yet;
pub use super::spec::{Ours, SagaFile};

use crate::config::tree::KeyPath;
use crate::config::{
    self, AgentName, AgentPlan, AgentSpec, Class, Command, ConfigError, Document, Kind, Loaded, Problem, Surroundings,
};

/// The ring of a step that asks for none.
const RING_DEFAULT: u8 = 2;

/// What is journaled with a saga and needed to run its commands after a crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The saga's file, links resolved: relative paths are relative to its folder.
    pub file: PathBuf,
    /// The operator's file that was named, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<PathBuf>,
    /// Who started it: older journals don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Whether steps start where their ring can't be enforced in full.
    #[serde(default)]
    pub enforcement: EnforcementSpec,
    /// What of its file the engine has no use for.
    #[serde(flatten)]
    pub ours: Ours,
}

/// Every command of a saga, resolved.
pub type Commands = HashMap<(String, RunKind), AgentPlan>;

/// A saga that may start.
#[derive(Debug)]
pub struct Ready {
    /// For the engine.
    pub plan: Plan,
    /// For the journal.
    pub context: Context,
    /// For the launches.
    pub commands: Commands,
}

/// Reads, judges and resolves a saga.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path, around: &Surroundings, operator: Option<&Path>) -> Result<Ready, ConfigError> {
    let mut partial = config::load_partial::<SagaFile>(&around.cwd.join(path), Kind::Saga)?;
    partial.loaded.document.shown = path.to_path_buf();
    if partial.has_problems() {
        let Loaded { value, document } = &partial.loaded;
        let (value, _) = value.clone().parts();
        let later = lint::plan(&value).map_or_else(|problems| drawn(document, &problems), |_| Vec::new());
        return Err(partial.error_with(later));
    }
    let Loaded { value, document } = partial.loaded;
    let (value, ours) = value.parts();
    let plan = lint::plan(&value).map_err(|problems| document.error(drawn(&document, &problems)))?;
    let unreadable = |source| ConfigError::Unreadable { path: path.to_path_buf(), source };
    let file = around.cwd.join(path).canonicalize().map_err(unreadable)?;
    let operator = operator.map(|path| around.cwd.join(path));
    let context = Context { file, operator, uid: Some(around.uid), enforcement: value.enforcement, ours };
    let commands = commands(&plan, &context, around, Some((&document, value.steps.form)))?;
    Ok(Ready { plan, context, commands })
}

/// Resolves every command of a plan. `place` says where the file's lines are, when the plan has just been read from it.
///
/// # Errors
/// All commands that can't be started.
pub fn commands(
    plan: &Plan,
    context: &Context,
    around: &Surroundings,
    place: Option<(&Document, StepsForm)>,
) -> Result<Commands, ConfigError> {
    let mut commands = Commands::new();
    let (ours, mut problems) = ours(plan, context, around, place.map(|(document, _)| document));
    problems.extend(not_yet::problems(plan, place));
    for (index, step) in plan.steps().iter().enumerate() {
        let works = [
            (RunKind::Forward, Some(&step.forward)),
            (RunKind::Check, step.check.as_ref()),
            (RunKind::Compensate, step.compensate.as_ref()),
        ];
        for (kind, work) in works {
            let Some(work) = work.filter(|work| work.call.command().is_some()) else { continue };
            match command(plan, work, context, around) {
                Ok(mut agent) => {
                    agent.slos.clone_from(&ours.slos);
                    agent.chaos.clone_from(&ours.chaos);
                    commands.insert((step.name.clone(), kind), agent);
                }
                Err(error) => problems.extend(placed(&error, place, index, &step.name, kind)?),
            }
        }
    }
    match (problems.is_empty(), place) {
        (true, _) => Ok(commands),
        (false, Some((document, _))) => Err(document.error(problems)),
        (false, None) => Err(ConfigError::from_report(config::Report::new(&context.file, "".into(), problems))),
    }
}

/// What holds for all of its commands, and what is wrong with it at its own lines: found by resolving one command with and
/// without it. A saga that is taken up again goes on without what an operator allows no more.
fn ours(plan: &Plan, context: &Context, around: &Surroundings, document: Option<&Document>) -> (Ours, Vec<Problem>) {
    let ours = context.ours.clone();
    let mut works = plan.steps().iter().map(|step| &step.forward);
    let first = works.find(|work| work.call.command().is_some()).filter(|_| ours != Ours::default());
    let Some(first) = first else { return (ours, Vec::new()) };
    let problems = |ours: &Ours| -> Vec<Problem> {
        let Ok(mut spec) = spec(plan, first, context) else { return Vec::new() };
        spec.slos.clone_from(&ours.slos);
        spec.chaos.clone_from(&ours.chaos);
        let plan = config::agent_from_spec(&spec, &context.file, document, around, context.operator.as_deref());
        plan.err().and_then(|e| e.report().map(|report| report.problems.clone())).unwrap_or_default()
    };
    let without = problems(&Ours::default());
    let is_new = |problem: &Problem| without.iter().all(|other| other.message != problem.message);
    let found: Vec<Problem> = problems(&ours).into_iter().filter(is_new).collect();
    match (found.is_empty(), document) {
        (true, _) | (false, Some(_)) => (ours, found),
        (false, None) => (Ours { chaos: config::spec::ChaosSpec::default(), ..ours }, Vec::new()),
    }
}

/// One command as the agent that it is.
fn command(plan: &Plan, work: &Work, context: &Context, around: &Surroundings) -> Result<AgentPlan, ConfigError> {
    config::agent_from_spec(&spec(plan, work, context)?, &context.file, None, around, context.operator.as_deref())
}

fn spec(plan: &Plan, work: &Work, context: &Context) -> Result<AgentSpec, ConfigError> {
    let alone = |problem| ConfigError::from_report(config::Report::new(Path::new(""), "".into(), vec![problem]));
    let ring = ring(plan, work).map_err(|problem| alone(*problem))?;
    let words = Command::from_words(work.call.command().unwrap_or_default().to_vec());
    let words = words.map_err(|bad| alone(Problem::config(bad.message).help(bad.instead)))?;
    let mut spec = AgentSpec::new(AgentName::from_words(plan.name()), words);
    spec.ring = Some(ring);
    spec.workdir.clone_from(&work.workdir);
    spec.env.set.clone_from(&work.env);
    spec.enforcement = match context.enforcement {
        EnforcementSpec::Required => config::spec::EnforcementSpec::Required,
        EnforcementSpec::BestEffort => config::spec::EnforcementSpec::BestEffort,
    };
    Ok(spec)
}

/// The ring of a command: what it asks for, never above the saga's ceiling.
fn ring(plan: &Plan, work: &Work) -> Result<Ring, Box<Problem>> {
    let number = work.ring.unwrap_or(RING_DEFAULT).max(plan.ring().unwrap_or(0));
    match Ring::from_number(number) {
        Some(ring @ (Ring::R2 | Ring::R3)) => Ok(ring),
        Some(ring) => Err(Box::new(
            Problem::new(Class::Refused, format!("a step can't run in {ring}"))
                .label("2 or 3")
                .help("nobody can vouch for a step yet: leave `ring` out (R2) or say 3"),
        )),
        None => Err(Box::new(Problem::config(format!("there is no ring {number}")).label("2 or 3"))),
    }
}

/// The problems of one command at its line; a file that can't be read at all stops everything.
fn placed(
    error: &ConfigError,
    place: Option<(&Document, StepsForm)>,
    index: usize,
    step: &str,
    kind: RunKind,
) -> Result<Vec<Problem>, ConfigError> {
    let Some(report) = error.report() else {
        let text = error.render(config::Color::Never);
        return Ok(vec![Problem::config(text)]);
    };
    // Problems that know their place are the operator's file's own.
    if let Some(report) = error.report().filter(|report| report.problems.iter().any(|problem| problem.place.is_some()))
    {
        return Err(ConfigError::from_report(report.clone()));
    }
    let below = match kind {
        RunKind::Forward => "command",
        RunKind::Check => "check",
        RunKind::Compensate => "compensate",
    };
    let put = |problem: &Problem| {
        let mut problem = problem.clone();
        problem.message = format!("step `{step}`: {}", problem.message);
        match place {
            Some((document, form)) => {
                let steps = KeyPath::of("steps");
                let at = if form == StepsForm::List { steps.item(index) } else { steps.key(step) };
                problem.at(document.place(&at.key(below)))
            }
            None => problem,
        }
    };
    Ok(report.problems.iter().map(put).collect())
}

/// The engine's problems at their lines.
fn drawn(document: &Document, problems: &[lint::Problem]) -> Vec<Problem> {
    let draw = |problem: &lint::Problem| {
        let path = problem.path.0.iter().fold(KeyPath::default(), |path, segment| match segment {
            Segment::Key(key) => path.key(key),
            Segment::Index(index) => path.item(*index),
        });
        let mut drawn = Problem::config(problem.kind.to_string());
        let near = problem.kind.unknown_word().and_then(|(word, known)| nearest(word, known));
        if let Some(near) = near {
            drawn = drawn.label(format!("did you mean `{near}`?"));
        }
        if let Some(help) = problem.kind.help() {
            drawn = drawn.help(help);
        }
        document.locate(drawn, &path)
    };
    problems.iter().map(draw).collect()
}

/// The known word that is most like this one, if any is much like it.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let like = |other: &&String| (strsim::jaro_winkler(word, other) * 1000.0) as u32;
    known.iter().max_by_key(like).filter(|best| like(best) >= 700).map(String::as_str)
}
