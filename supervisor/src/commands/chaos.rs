//! `chaos`: the catalogue, plans, runs, and their reports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agt_chaos::catalog;
use agt_chaos::fault::ReadyFault;
use agt_chaos::plan::Plan;
use agt_chaos::report::Report;
use agt_chaos::spec::Spec;
use agt_sre::sli::Sli;
use serde_json::{Value, json};

use super::check::{config_failure, surroundings};
use super::{Failure, Outcome, client_runtime, dirs, print};
use crate::chaosing::{AbortBody, Aborted, CHAOS_ABORT, CHAOS_RUN, REPORT, verdict_code};
use crate::cli::Global;
use crate::config::spec::Environment;
use crate::config::tree::KeyPath;
use crate::config::{self, Document, Kind, Loaded, Problem};
use crate::control::client;
use crate::driver::streams::escaped;
use crate::exit;
use crate::store::{DATABASE_FILE, Reader};

/// What an experiment may take beyond its own phases: checks, undos and a slow machine.
const MARGIN: Duration = Duration::from_secs(120);

/// `chaos ...`.
#[derive(Debug, clap::Subcommand)]
pub enum ChaosVerb {
    /// Show the faults that can be done to an agent
    #[command(after_help = "Examples:\n  agt-supervise chaos list")]
    List,
    /// Check an experiment and show what it would do; does nothing
    #[command(after_help = "Examples:\n  agt-supervise chaos plan chaos.yaml")]
    Plan {
        /// The experiment
        file: PathBuf,
    },
    /// Run an experiment on an agent that opted in; wait for its report
    #[command(after_help = "Examples:\n  agt-supervise chaos run chaos.yaml --operator operator.yaml")]
    Run {
        /// The experiment
        file: PathBuf,
        /// An operator's file that must allow experiments too; it can only refuse: what the agent was started with decides
        #[arg(long, value_name = "FILE")]
        operator: Option<PathBuf>,
    },
    /// Break the present experiment off; its fault is undone at once
    #[command(after_help = "Examples:\n  agt-supervise chaos abort --reason \"pager went off\"")]
    Abort {
        /// Why; kept in the report and in the audit log
        #[arg(long, default_value = "an operator's wish")]
        reason: String,
    },
    /// Show the last report, or that of one run
    #[command(after_help = "Examples:\n  agt-supervise chaos report\n  agt-supervise chaos report hang-19a3f-01c2")]
    Report {
        /// The run; the newest without it
        id: Option<String>,
    },
}

/// Performs `chaos ...`.
///
/// # Errors
/// Bad files, no supervisor, a refusal.
pub fn chaos(global: &Global, verb: ChaosVerb) -> Outcome {
    match verb {
        ChaosVerb::List => list(global),
        ChaosVerb::Plan { file } => plan(global, &file),
        ChaosVerb::Run { file, operator } => run(global, &file, operator.as_deref()),
        ChaosVerb::Abort { reason } => abort(global, reason),
        ChaosVerb::Report { id } => report(global, id.as_deref()),
    }
}

fn print_json(value: &Value) {
    print(&format!("{value:#}\n"));
}

fn list(global: &Global) -> Outcome {
    if global.json {
        let all: Vec<Value> = catalog::TEMPLATES
            .iter()
            .map(|template| json!({"name": template.name, "question": template.question, "fault": template.fault, "about": template.about()}))
            .collect();
        print_json(&Value::Array(all));
        return Ok(0);
    }
    for template in catalog::TEMPLATES {
        let about = template.about();
        print(&format!(
            "{}\n  asks   {}\n  does   {}\n  undo   {}\n",
            template.name, template.question, about.does, about.undo
        ));
        let needs: Vec<_> = about.needs.iter().map(|need| need.describe()).collect();
        if !needs.is_empty() {
            print(&format!("  needs  {}\n", needs.join(", ")));
        }
    }
    Ok(0)
}

fn load(path: &Path) -> Result<(Spec, Plan), Failure> {
    let partial = config::load_partial::<Spec>(path, Kind::Chaos).map_err(|e| config_failure(&e))?;
    let Loaded { value, document } = &partial.loaded;
    let resolved = Plan::resolve(value);
    let mut problems = unknown_indicators(value, document);
    problems.extend(resolved.as_ref().err().into_iter().flatten().map(|problem| drawn(problem, document)));
    match resolved {
        Ok(plan) if problems.is_empty() && !partial.has_problems() => Ok((partial.loaded.value, plan)),
        _ => Err(config_failure(&partial.error_with(problems))),
    }
}

/// The engine's problem at its line.
fn drawn(problem: &agt_chaos::plan::Problem, document: &Document) -> Problem {
    let path = KeyPath::read(&problem.path);
    let drawn = Problem::config(format!("`{}`: {}", problem.path, problem.message));
    let drawn = match &problem.help {
        Some(help) => drawn.help(help),
        None => drawn,
    };
    document.locate(drawn, &path)
}

/// Conditions over an SLI that no agent has: they could never be told.
fn unknown_indicators(spec: &Spec, document: &Document) -> Vec<Problem> {
    let names = Sli::ALL.map(Sli::as_str);
    let mut problems = Vec::new();
    for (list, conditions) in [("steady_state", &spec.steady_state), ("abort", &spec.abort)] {
        for (index, condition) in conditions.iter().enumerate() {
            let Some(sli) = condition.sli.as_deref().filter(|sli| !names.contains(sli)) else { continue };
            let path = KeyPath::of(list).item(index).key("sli");
            let problem = Problem::config(format!("unknown value `{}` for `{path}`", escaped(sli)))
                .label(config::did_you_mean(sli, &names))
                .help(format!("values of `{path}`: {}", names.join(", ")));
            problems.push(document.locate(problem, &path));
        }
    }
    problems
}

fn plan(global: &Global, file: &Path) -> Outcome {
    let (_, plan) = load(file)?;
    if global.json {
        print_json(&serde_json::to_value(&plan).map_err(|e| Failure::of(exit::BUG, &e))?);
        return Ok(0);
    }
    let about = plan.fault_kind().about();
    let mut text = format!(
        "{} on {}: {}\n  fault    {}\n  does     {}\n  undo     {}\n  seen by  {}\n",
        plan.name,
        plan.agent,
        plan.fault_kind(),
        parameters(&plan.fault),
        about.does,
        about.undo,
        about.sign
    );
    let (windows, total) = (&plan.windows, plan.total());
    text.push_str(&format!(
        "  phases   {:?} before, {:?} with the fault, {:?} after: {total:?} in all\n",
        windows.baseline, plan.duration, windows.observe
    ));
    for burst in &plan.bursts {
        text.push_str(&format!("  burst    after {:?} for {:?}\n", burst.start, burst.length));
    }
    for check in &plan.steady_state {
        text.push_str(&format!("  steady   {check}\n"));
    }
    for check in &plan.abort {
        text.push_str(&format!("  abort    {check}\n"));
    }
    for need in about.needs {
        text.push_str(&format!("  needs    {}\n", need.describe()));
    }
    text.push_str(
        "  needs    the opt-in of agent.yaml and of the operator's file, an environment that is not production\n",
    );
    text.push_str("  needs    budget left, no open incident, no other experiment\n");
    print(&text);
    Ok(0)
}

fn parameters(fault: &ReadyFault) -> String {
    serde_json::to_string(fault).unwrap_or_else(|_| fault.kind().to_string())
}

fn run(global: &Global, file: &Path, operator: Option<&Path>) -> Outcome {
    let dirs = dirs(global)?;
    let (spec, plan) = load(file)?;
    if let Some(path) = operator {
        let operator = config::load_operator(path, &surroundings(&dirs)?).map_err(|e| config_failure(&e))?;
        if operator.spec.environment == Environment::Production {
            let text = format!("refused: {} says that this host is production", path.display());
            return Err(
                Failure::new(exit::REFUSED, text).help("experiments need `environment: staging` or `dev` there")
            );
        }
    }
    let within = plan.total() + MARGIN;
    let socket = dirs.operator_socket();
    let asked = client::post_within::<_, Report>(&socket, CHAOS_RUN, &spec, within);
    let report = client_runtime()?.block_on(asked)?;
    show(global, &report)?;
    Ok(verdict_code(report.verdict))
}

fn show(global: &Global, report: &Report) -> Result<(), Failure> {
    if global.json {
        print_json(&serde_json::to_value(report).map_err(|e| Failure::of(exit::BUG, &e))?);
    } else {
        print(&report.to_text());
    }
    Ok(())
}

fn abort(global: &Global, reason: String) -> Outcome {
    let dirs = dirs(global)?;
    let asked = client_runtime()?;
    let body = AbortBody { reason };
    let aborted: Aborted = asked.block_on(client::post(&dirs.operator_socket(), CHAOS_ABORT, &body))?;
    if global.json {
        print_json(&json!({"run": aborted.run, "experiment": aborted.experiment}));
    } else {
        eprintln!("{} ({}) is being broken off and undone", aborted.experiment, aborted.run);
    }
    Ok(0)
}

fn report(global: &Global, id: Option<&str>) -> Outcome {
    let dirs = dirs(global)?;
    let none = || Failure::new(exit::NO, "there is no such report").help("agt-supervise chaos run FILE makes one");
    if !dirs.state.join(DATABASE_FILE).exists() {
        return Err(none());
    }
    let mut kept = Reader::open(&dirs.state)?.states(REPORT)?;
    kept.sort_by_key(|state| std::cmp::Reverse(state.updated_ms));
    let key = id.map(|id| format!("chaos:{id}"));
    let found = kept.into_iter().find(|state| key.as_ref().is_none_or(|key| state.agent == *key)).ok_or_else(none)?;
    let report: Report = serde_json::from_value(found.value).map_err(|e| Failure::of(exit::DATA, &e))?;
    show(global, &report)?;
    Ok(0)
}
