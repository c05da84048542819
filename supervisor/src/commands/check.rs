//! `check`: what files resolve to, and everything that is wrong with them. Starts nothing.

use std::io::{ErrorKind, IsTerminal};
use std::path::PathBuf;

use agt_gateway::route::{BadKey, Key, KeySpec, RouteSpec};
use agt_rings::builtin::{self, OWN_ID_BASE};
use agt_rings::plan::{Ids, Plan, Refused};
use agt_rings::probe::outlook::outlook;
use agt_rings::report::in_words;
use agt_rings::ring::Ring;
use agt_rings::spec::{Spec, User};

use serde_json::{Value, json};

use super::run::files;
use super::{Failure, Outcome, client_runtime, dirs, print};
use crate::cli::Global;
use crate::config::plan::BUILT_IN_RATES;
use crate::config::{
    self, AgentPlan, Color, ConfigError, Overrides, OwnFolders, Problem, RingDefaults, RingTable, Surroundings,
};
use crate::control::client;
use crate::control::protocol::{About, SUPERVISOR};
use crate::dirs::Dirs;
use crate::driver::launching::in_full;
use crate::exit;
use crate::reloading::Served;

/// `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Files to check
    #[arg(required_unless_present = "serve")]
    pub files: Vec<PathBuf>,
    /// The files of this folder, as `serve FOLDER` resolves them
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["files", "workdir"])]
    pub serve: Option<PathBuf>,
    /// The operator's file
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
    /// The folder in which the agent would work
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
}

/// The rings' defaults, as the resolver wants them.
fn ring_table() -> RingTable {
    RingTable(Ring::ALL.map(|ring| {
        let definition = builtin::definition(ring);
        RingDefaults {
            limits: definition.limits,
            open_files: u32::try_from(definition.open_files).ok(),
            requests_per_minute: BUILT_IN_RATES.at(ring),
        }
    }))
}

/// What surrounds this process.
///
/// # Errors
/// The working folder is gone, or the user database can't be read.
pub fn surroundings(dirs: &Dirs) -> Result<Surroundings, Failure> {
    let own = OwnFolders { config: dirs.config.clone(), state: dirs.state.clone(), runtime: dirs.runtime.clone() };
    let faults = crate::chaosing::fault_names();
    let mut around = Surroundings::of_process(own, ring_table(), faults).map_err(|e| Failure::of(exit::USAGE, &e))?;
    around.operator_file = dirs.operator_file();
    Ok(around)
}

/// A configuration error as a failure, in the form that the terminal wants.
#[must_use]
pub fn config_failure(error: &ConfigError) -> Failure {
    Failure::rendered(error.exit_code(), error.render(color()))
}

/// Colours only on a terminal, and not where somebody said no (https://no-color.org).
pub(super) fn color() -> Color {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if std::io::stderr().is_terminal() && !refused && !dumb { Color::Always } else { Color::Never }
}

/// What is wrong, as data: the same that the text says.
fn problems_json(error: &ConfigError) -> Vec<Value> {
    let Some(report) = error.report() else {
        let problem = Failure::of(error.exit_code(), error).to_string();
        return vec![
            json!({ "file": null, "line": null, "column": null, "key": null, "problem": problem, "help": null }),
        ];
    };
    let problem = |problem: &Problem| {
        let start = problem.place.map(|place| place.start);
        let label = Some(&problem.label).filter(|label| !label.is_empty());
        json!({
            "file": report.file,
            "line": start.map(|start| start.line),
            "column": start.map(|start| start.column),
            "key": problem.path.as_ref().map(ToString::to_string),
            "problem": problem.message,
            "label": label,
            "help": problem.help,
            "exit_code": problem.class.exit_code(),
        })
    };
    report.problems.iter().map(problem).collect()
}

/// Resolves each file and prints the plan; what this host would not enforce is a warning.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn check(global: &Global, args: &CheckArgs) -> Outcome {
    let dirs = dirs(global)?;
    let around = surroundings(&dirs)?;
    if args.serve.is_none() {
        say_who_serves(&dirs, &args.files);
    }
    let (named, overrides) = match &args.serve {
        Some(folder) => (files(std::slice::from_ref(folder))?, Served::new(folder, None, &around).overrides()),
        None => (args.files.clone(), Overrides { workdir: args.workdir.clone(), ..Overrides::default() }),
    };
    let mut worst = 0;
    let mut plans: Vec<AgentPlan> = Vec::new();
    let mut found: Vec<Value> = Vec::new();
    for path in &named {
        match config::load_agent(path, &around, args.operator.as_deref(), &overrides) {
            Ok(plan) => {
                // Filled in below, when all of them are judged together.
                found.push(Value::Null);
                plans.push(plan);
            }
            Err(e) => {
                found.push(json!({ "file": path, "problems": problems_json(&e) }));
                worst = config_failure(&e).report();
            }
        }
    }
    let prospects = prospects(&plans);
    for (place, (plan, prospect)) in found.iter_mut().filter(|place| place.is_null()).zip(plans.iter().zip(&prospects))
    {
        *place = plan.to_json();
        place["host"] = prospect.to_json();
    }
    if global.json {
        print(&(serde_json::to_string_pretty(&found).map_err(|e| Failure::of(exit::BUG, &e))? + "\n"));
    } else {
        plans.iter().zip(&prospects).for_each(|(plan, prospect)| print(&plan.page(prospect.user.as_deref())));
    }
    plans
        .iter()
        .zip(&prospects)
        .filter_map(|(plan, prospect)| prospect.warning(plan))
        .for_each(|text| eprint!("{text}"));
    plans.iter().flat_map(bad_keys).for_each(|text| eprint!("{text}"));
    Ok(worst)
}

/// Keys of model routes that a launch would miss. They are read anew by each launch, in its own environment: variables, and files that
/// only somebody else may read, can't be judged here.
fn bad_keys(plan: &AgentPlan) -> Vec<String> {
    let judged = |(route, spec): (&String, &RouteSpec)| {
        let bad = match spec.key.as_ref()? {
            KeySpec::Variable(_) => return None,
            file @ KeySpec::File(_) => Key::read(file).err()?,
        };
        if matches!(&bad, BadKey::File { source, .. } if source.kind() == ErrorKind::PermissionDenied) {
            return None;
        }
        let (name, why, help) = (&plan.identity.name, in_full(&bad), bad.help());
        Some(format!("warning: {name}: `run` would not start it: model route {route}: {why}\nhelp: {help}\n"))
    };
    plan.models.routes.iter().filter_map(judged).collect()
}

/// A served file is resolved differently (its workdir, what it may write): said where a supervisor that is here serves it.
fn say_who_serves(dirs: &Dirs, files: &[PathBuf]) {
    let Ok(runtime) = client_runtime() else { return };
    // Nobody there, or nobody who answers us: then there is nothing to say.
    let Ok(about) = runtime.block_on(client::get::<About>(&dirs.operator_socket(), SUPERVISOR)) else { return };
    let Some(folder) = about.served else { return };
    let is_served = |file: &PathBuf| file.canonicalize().is_ok_and(|real| real.parent() == Some(&folder));
    if let Some(file) = files.iter().find(|file| is_served(file)) {
        eprintln!(
            "note: this is how `run` would resolve {}; pid {} serves it\nhelp: agt-supervise check --serve {}",
            file.display(),
            about.pid,
            folder.display()
        );
    }
}

/// What this host would make of a plan. A file is checked on other hosts than it runs on, so it decides over no exit code.
#[derive(Debug, Default)]
struct Prospect {
    /// `full` or `partial`; `None` when it would be refused, or when nobody can tell.
    enforced: Option<&'static str>,
    /// What `run` would refuse it with.
    refused: Option<String>,
    /// What can't be enforced and is left out, under `best-effort`.
    missing: Vec<String>,
    /// What helps against the first of that.
    help: Option<String>,
    /// Why nobody can tell.
    unknown: Option<String>,
    /// Whose uid it would have.
    user: Option<String>,
}

impl Prospect {
    fn of(plan: &AgentPlan, judged: Result<Plan, Refused>) -> Prospect {
        match judged {
            Ok(compiled) => Prospect {
                enforced: Some(compiled.report.extent()),
                missing: in_words(&compiled.report.gaps),
                help: compiled.report.gaps.first().map(|gap| gap.help.clone()),
                user: user(plan, compiled.ids),
                ..Prospect::default()
            },
            Err(refused) => Prospect {
                help: refused.gaps.first().map(|gap| gap.help.clone()),
                refused: Some(refused.to_string()),
                ..Prospect::default()
            },
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "enforced": self.enforced,
            "refused": self.refused,
            "missing": self.missing,
            "help": self.help,
            "unknown": self.unknown,
            "user": self.user,
        })
    }

    fn warning(&self, plan: &AgentPlan) -> Option<String> {
        let name = plan.name();
        let help = self
            .help
            .as_ref()
            .map_or_else(String::new, |help| format!("help: {help}. `agt-supervise doctor` shows what works here.\n"));
        if let Some(refused) = &self.refused {
            return Some(format!(
                "warning: {name}: `run` would refuse it on this host (exit {}): {refused}\n{help}",
                exit::UNAVAILABLE
            ));
        }
        if let Some(unknown) = &self.unknown {
            return Some(format!("warning: {name}: what this host would enforce can't be told: {unknown}\n"));
        }
        (!self.missing.is_empty()).then(|| {
            let lines: String = self.missing.iter().map(|words| format!("  not enforced: {words}\n")).collect();
            format!("warning: {name}: this host would not enforce all of {}\n{lines}{help}", plan.ceiling)
        })
    }
}

/// Whose uid a plan comes to on this host, if that is not the plan's own word.
fn user(plan: &AgentPlan, ids: Option<Ids>) -> Option<String> {
    let ids = ids.filter(|_| plan.user == User::Own)?;
    if ids.uid == OWN_ID_BASE {
        return Some("its own: a uid that nobody else has".to_owned());
    }
    let whose = "the workdir's owner, for its file system has no id-mapped mounts here";
    let group = if ids.gid == OWN_ID_BASE { "a group of its own".to_owned() } else { format!("gid {}", ids.gid) };
    Some(format!("uid {}, {group}: {whose}", ids.uid))
}

/// What this host would make of each plan at its ceiling: compiled as for a launch, without the environment, whose secrets are
/// nothing to a check.
fn prospects(plans: &[AgentPlan]) -> Vec<Prospect> {
    let bare = |plan: &AgentPlan| {
        let mut plan = plan.clone();
        plan.env.clear();
        let mut spec = plan.launch_spec(plan.ceiling).map_err(|e| e.to_string())?;
        spec.own_id = OWN_ID_BASE;
        Ok::<Spec, String>(spec)
    };
    if plans.is_empty() {
        return Vec::new();
    }
    let specs: Result<Vec<Spec>, String> = plans.iter().map(bare).collect();
    match specs.and_then(|specs| outlook(&specs).map_err(|e| in_full(&e))) {
        Ok(judged) => plans.iter().zip(judged).map(|(plan, judged)| Prospect::of(plan, judged)).collect(),
        Err(why) => plans.iter().map(|_| Prospect { unknown: Some(why.clone()), ..Prospect::default() }).collect(),
    }
}
