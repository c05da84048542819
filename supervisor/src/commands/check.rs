//! `check`: what files resolve to, and everything that is wrong with them. Starts nothing.

use std::io::IsTerminal;

use agt_rings::builtin;
use agt_rings::ring::Ring;

use serde_json::{Value, json};

use super::{Failure, Outcome, dirs, print};
use crate::cli::{CheckArgs, Global};
use crate::config::{
    self, AgentPlan, Color, ConfigError, Overrides, OwnFolders, Problem, RingDefaults, RingTable, Surroundings,
};
use crate::dirs::Dirs;
use crate::exit;

/// The rings' defaults, as the resolver wants them.
fn ring_table() -> RingTable {
    RingTable(Ring::ALL.map(|ring| {
        let definition = builtin::definition(ring);
        RingDefaults { limits: definition.limits, open_files: u32::try_from(definition.open_files).ok() }
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

/// Resolves each file and prints the plan.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn check(global: &Global, args: &CheckArgs) -> Outcome {
    let around = surroundings(&dirs(global)?)?;
    let overrides = Overrides { workdir: args.workdir.clone(), ..Overrides::default() };
    let mut worst = 0;
    let mut plans: Vec<AgentPlan> = Vec::new();
    let mut found: Vec<Value> = Vec::new();
    for path in &args.files {
        match config::load_agent(path, &around, args.operator.as_deref(), &overrides) {
            Ok(plan) => {
                found.push(plan.to_json());
                plans.push(plan);
            }
            Err(e) => {
                found.push(json!({ "file": path, "problems": problems_json(&e) }));
                worst = config_failure(&e).report();
            }
        }
    }
    if global.json {
        print(&(serde_json::to_string_pretty(&found).map_err(|e| Failure::of(exit::BUG, &e))? + "\n"));
    } else {
        plans.iter().for_each(|plan| print(&plan.to_string()));
    }
    Ok(worst)
}
