//! `check`: what files resolve to, and everything that is wrong with them. Starts nothing.

use std::io::IsTerminal;

use agt_rings::builtin;
use agt_rings::ring::Ring;

use super::{Failure, Outcome, dirs, print};
use crate::cli::{CheckArgs, Global};
use crate::config::{
    self, AgentPlan, Color, ConfigError, Overrides, OwnFolders, RingDefaults, RingTable, Surroundings,
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

/// Resolves each file and prints the plan.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn check(global: &Global, args: &CheckArgs) -> Outcome {
    let around = surroundings(&dirs(global)?)?;
    let overrides = Overrides { workdir: args.workdir.clone(), ..Overrides::default() };
    let mut worst = 0;
    let mut plans: Vec<AgentPlan> = Vec::new();
    for path in &args.files {
        match config::load_agent(path, &around, args.operator.as_deref(), &overrides) {
            Ok(plan) => plans.push(plan),
            Err(e) => worst = config_failure(&e).report(),
        }
    }
    if global.json {
        let plans: Vec<serde_json::Value> = plans.iter().map(AgentPlan::to_json).collect();
        print(&(serde_json::to_string_pretty(&plans).map_err(|e| Failure::of(exit::BUG, &e))? + "\n"));
    } else {
        plans.iter().for_each(|plan| print(&plan.to_string()));
    }
    Ok(worst)
}
