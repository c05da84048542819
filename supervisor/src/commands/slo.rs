//! `slo`: how the service level objectives stand, the arithmetic behind it, and the same arithmetic as Prometheus rules.

use std::path::PathBuf;

use agt_sre::export::{RuleNames, rules_for_all};

use super::check::{config_failure, surroundings};
use super::trust::ask;
use super::{Failure, Outcome, dirs, print};
use crate::cli::Global;
use crate::config::{self, Overrides};
use crate::exit;
use crate::govern::ask::{AgentSlos, Answer, Ask, SloView};

/// `slo`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SloArgs {
    /// Another thing than the state
    #[command(subcommand)]
    pub verb: Option<SloVerb>,
    /// The agent's name; every agent without it
    pub agent: Option<String>,
    /// Show the arithmetic, step by step
    #[arg(long)]
    pub explain: bool,
}

/// `slo ...`.
#[derive(Debug, clap::Subcommand)]
pub enum SloVerb {
    /// Print the SLOs of agent.yaml files as Prometheus recording and alerting rules
    #[command(
        after_help = "Examples:\n  agt-supervise slo rules agent.yaml > rules.yml && promtool check rules rules.yml"
    )]
    Rules {
        /// agent.yaml files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The operator's file
        #[arg(long, value_name = "FILE")]
        operator: Option<PathBuf>,
    },
}

/// Performs the verb.
///
/// # Errors
/// No such agent; a store or supervisor that can't be asked; bad files.
pub fn slo(global: &Global, args: SloArgs) -> Outcome {
    match args.verb {
        Some(SloVerb::Rules { files, operator }) => rules(global, &files, operator.as_deref()),
        None => status(global, args.agent, if args.explain { Detail::Explain } else { Detail::Status }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Status,
    Explain,
}

fn rules(global: &Global, files: &[PathBuf], operator: Option<&std::path::Path>) -> Outcome {
    let around = surroundings(&dirs(global)?)?;
    let mut agents = Vec::new();
    for path in files {
        let plan =
            config::load_agent(path, &around, operator, &Overrides::default()).map_err(|e| config_failure(&e))?;
        let slos = crate::govern::governed::slos(plan.name(), &plan.slos).map_err(|e| Failure::of(exit::USAGE, &e))?;
        agents.push((plan.name().to_owned(), slos));
    }
    let named = agents.iter().map(|(name, slos)| (name.as_str(), slos.as_slice()));
    print(&rules_for_all(named, &RuleNames::default()));
    Ok(0)
}

fn status(global: &Global, agent: Option<String>, detail: Detail) -> Outcome {
    let Answer::Slos(mut agents) = ask(global, Ask::Slo { agent })? else {
        return Err(Failure::new(exit::BUG, "the supervisor answered another question"));
    };
    if detail == Detail::Status {
        agents.iter_mut().flat_map(|agent| &mut agent.slos).for_each(|slo| slo.explain.clear());
    }
    if global.json {
        print(&(serde_json::to_string_pretty(&agents).map_err(|e| Failure::of(exit::BUG, &e))? + "\n"));
        return Ok(0);
    }
    if agents.is_empty() {
        eprintln!("no agent has run with this state directory yet");
        return Ok(0);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["AGENT", "SLO", "STATUS", "BUDGET LEFT", "BURN 5M", "BURN 1H", "BURN 6H", "EVENTS", "IN FORCE"]);
    for (agent, slo) in agents.iter().flat_map(|agent| agent.slos.iter().map(move |slo| (agent, slo))) {
        table.add_row(row(agent, slo));
    }
    if detail == Detail::Status {
        print(&format!("{}\n", table.trim_fmt()));
        if agents.iter().flat_map(|agent| &agent.slos).any(|slo| slo.period_seconds != DAYS_30) {
            eprintln!(
                "note: 5m, 1h and 6h are the windows of a period of 30 days; a shorter one has them in proportion"
            );
        }
        return Ok(0);
    }
    for (agent, slo) in agents.iter().flat_map(|agent| agent.slos.iter().map(move |slo| (agent, slo))) {
        let mut text = format!("{} / {} ({}): {}\n", agent.agent, slo.slo, slo.sli, slo.status);
        for step in &slo.explain {
            text.push_str(&format!("  {:<20} {} = {}\n", step.what, step.formula, step.result));
        }
        print(&text);
    }
    Ok(0)
}

/// The period whose burn windows are 5 minutes, 1 hour and 6 hours, in seconds.
const DAYS_30: f64 = 30.0 * 86_400.0;

fn row(agent: &AgentSlos, slo: &SloView) -> Vec<String> {
    let burn = |look_back: &str| {
        let found = slo.burn.iter().find(|burn| burn.look_back == look_back).and_then(|burn| burn.rate);
        found.map_or_else(|| "no data".to_owned(), |rate| format!("{rate:.1}x"))
    };
    let own = if slo.self_reported_bad > 0 { format!(", {} own word", slo.self_reported_bad) } else { String::new() };
    let in_force = if slo.in_force.is_empty() { "-".to_owned() } else { slo.in_force.join(", ") };
    vec![
        agent.agent.clone(),
        slo.slo.clone(),
        slo.status.clone(),
        slo.budget_left_ratio.map_or_else(|| "no data".to_owned(), |left| format!("{:.1}%", left * 100.0)),
        burn("5m"),
        burn("1h"),
        burn("6h"),
        format!("{} good, {} bad{own}", slo.good, slo.bad),
        in_force,
    ]
}
