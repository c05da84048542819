//! `ps`, `status`: what is there.

use std::time::Duration;

use agt_rings::host::LaunchPath;

use super::{Failure, Outcome, client_runtime, dirs, limits, metered, print, used};
use crate::cli::Global;
use crate::control::client;
use crate::control::protocol::{AGENTS, Agents};
use crate::driver::status::{AgentStatus, CheckSeen, HealthState, HealthStatus};
use crate::driver::streams::escaped;
use crate::exit;
use crate::machine::lifecycle::{Death, GaveUp, State};

/// Most protected names in a status for people.
const PROTECTED_SHOWN: usize = 20;

pub(super) fn fetch(global: &Global, agent: Option<&str>) -> Result<Agents, Failure> {
    let dirs = dirs(global)?;
    let path = agent.map_or_else(|| AGENTS.to_owned(), |agent| format!("{AGENTS}?agent={agent}"));
    Ok(client_runtime()?.block_on(client::get(&dirs.operator_socket(), &path))?)
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    print(&(serde_json::to_string_pretty(value).map_err(|e| Failure::of(exit::BUG, &e))? + "\n"));
    Ok(())
}

/// Lists the agents.
///
/// # Errors
/// No supervisor.
pub fn ps(global: &Global) -> Outcome {
    let agents = fetch(global, None)?;
    if global.json {
        json(&agents)?;
        return Ok(0);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "AGENT",
        "STATE",
        "RING",
        "ENFORCED",
        "LEAST BUDGET",
        "BURN 1H",
        "BREAKER",
        "MEMORY",
        "TASKS",
        "CPU",
        "REQUESTS",
        "SPENT 1D",
        "UP",
    ]);
    for agent in &agents.agents {
        table.add_row([
            agent.name.clone(),
            state_word(agent),
            ring(agent),
            agent.report.as_ref().map_or("-", |report| report.extent()).to_owned(),
            least_budget(agent),
            burn(agent),
            breaker(agent),
            memory(agent),
            used::tasks(agent),
            used::cpu_time(agent),
            metered::requests(agent),
            metered::spent(agent),
            agent.up_ms.map_or("-".to_owned(), up),
        ]);
    }
    let total = agents.total.as_ref().and_then(limits::total_line).map_or_else(String::new, |line| line + "\n");
    print(&format!("{}\n{total}", table.trim_fmt()));
    Ok(0)
}

/// The effective ring, and the one that an SLO took away.
pub(super) fn ring(agent: &AgentStatus) -> String {
    let was = agent.governed.as_ref().and_then(|governed| governed.demoted_from);
    match was.filter(|was| was.is_more_privileged_than(agent.ring)) {
        Some(was) => format!("{} (was {})", agent.ring.number(), was.number()),
        None => agent.ring.number().to_string(),
    }
}

fn least_budget(agent: &AgentStatus) -> String {
    let least = agent.governed.as_ref().and_then(|governed| governed.least_budget.as_ref());
    least.map_or_else(|| "no data".to_owned(), |least| format!("{} {:.0}%", least.slo, least.left_ratio * 100.0))
}

fn burn(agent: &AgentStatus) -> String {
    let burn = agent.governed.as_ref().and_then(|governed| governed.burn_1h);
    burn.map_or_else(|| "no data".to_owned(), |rate| format!("{rate:.1}x"))
}

fn breaker(agent: &AgentStatus) -> String {
    let Some(governed) = &agent.governed else { return "-".to_owned() };
    match governed.breaker_open_s {
        Some(seconds) => format!("{} {seconds}s", governed.breaker),
        None => governed.breaker.clone(),
    }
}

pub(super) fn state_word(agent: &AgentStatus) -> String {
    match &agent.state {
        State::Idle => "idle".to_owned(),
        State::Starting => "starting".to_owned(),
        State::Running { .. } => match (&agent.frozen, &agent.health) {
            (Some(by), _) => format!("frozen (by {})", by.word()),
            (None, None) => "running".to_owned(),
            (None, Some(health)) if health.state == HealthState::Failing => {
                format!("running, failing {}/{}", health.failures, health.retries)
            }
            (None, Some(health)) => format!("running, {}", health.state.word()),
        },
        State::Stopping { death: Death::Unhealthy } | State::Killing { death: Death::Unhealthy } => {
            "ending (unhealthy)".to_owned()
        }
        State::Stopping { .. } => "stopping".to_owned(),
        State::Killing { .. } => "killing".to_owned(),
        State::Backoff { death, .. } => format!("restarting ({})", death_words(death)),
        State::Ended { death, gave_up: GaveUp::Yes } => {
            format!("gave up after {} restarts ({})", agent.restarts, death_words(death))
        }
        State::Ended { death, .. } => death_words(death),
    }
}

/// A death in few words, with its number if it has one.
fn death_words(death: &Death) -> String {
    match death {
        Death::Exit { code } => format!("exit {code}"),
        Death::Signal { signal } => format!("signal {signal}"),
        Death::Stopped { code } if *code != 0 => format!("stopped ({code})"),
        Death::Killed { reason } => format!("killed ({reason})"),
        _ => death.word().to_owned(),
    }
}

pub(super) fn memory(agent: &AgentStatus) -> String {
    const MIB: u64 = 1 << 20;
    let used = agent.usage.and_then(|usage| usage.memory_bytes);
    match (used, agent.memory_limit_bytes) {
        (Some(used), Some(limit)) => format!("{}/{} MiB", used.div_ceil(MIB), limit / MIB),
        (Some(used), None) => format!("{} MiB", used.div_ceil(MIB)),
        (None, _) => "-".to_owned(),
    }
}

pub(super) fn up(ms: u64) -> String {
    let seconds = Duration::from_millis(ms).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Shows one agent.
///
/// # Errors
/// No supervisor, no such agent.
pub fn status(global: &Global, agent: &str) -> Outcome {
    let agents = fetch(global, Some(agent))?;
    if global.json {
        // As `ps` has it: the supervisor, and with it the address of the metrics, belongs to the answer.
        json(&agents)?;
        return Ok(0);
    }
    for agent in &agents.agents {
        let mut text = format!("{}  {}  {}\n", agent.name, state_word(agent), agent.ring);
        if let Some(death) = &agent.last_death {
            let code = agent.exit_code.unwrap_or_else(|| death.exit_code());
            text.push_str(&format!("  last death: {} (exit code {code})\n", death_words(death)));
        }
        text.push_str(&format!(
            "  ring: {} of ceiling {}   pid: {}   trust: {}\n",
            ring(agent),
            agent.ceiling.number(),
            agent.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            agent.governed.as_ref().map_or("-".to_owned(), |g| format!("{} ({})", g.trust, g.tier)),
        ));
        text.push_str(&format!(
            "  restarts: {}   log: {}\n",
            agent.restarts,
            agent
                .log
                .as_deref()
                .map_or_else(|| "none: its output goes to its caller".into(), std::path::Path::to_string_lossy)
        ));
        for port in &agent.ports {
            text.push_str(&format!("  shows its port {} at {}\n", port.port, port.listen));
        }
        text.push_str(&used::lines(agent));
        text.push_str(&metered::lines(agent));
        if let Some(health) = &agent.health {
            text.push_str(&health_lines(health));
        }
        if let Some(report) = &agent.report {
            text.push_str(&format!("  enforced: {}\n", report.extent()));
            for line in &report.enforced {
                text.push_str(&format!("    {:<20} {}\n", line.protection.name(), line.by.join(", ")));
            }
            for gap in &report.gaps {
                text.push_str(&format!("    {:<20} NOT ENFORCED: {}\n", gap.protection.name(), gap.reason));
            }
            if let LaunchPath::Fork { because } = &report.launch {
                text.push_str(&format!("  launched by fork, which is slower: {because}\n"));
            }
        }
        text.push_str(&protected_lines(&agent.protected));
        print(&text);
    }
    if let Some(total) = agents.total.as_ref().and_then(limits::total_line) {
        print(&format!("  {total}\n"));
    }
    let url = agents.supervisor.and_then(|supervisor| supervisor.metrics);
    print(&format!("  metrics: {}\n", url.as_deref().unwrap_or("not served")));
    Ok(0)
}

/// What stays read-only in the trees that it may write.
fn protected_lines(protected: &[std::path::PathBuf]) -> String {
    if protected.is_empty() {
        return String::new();
    }
    let mut text = "  read-only, since its last launch:\n".to_owned();
    for path in protected.iter().take(PROTECTED_SHOWN) {
        text.push_str(&format!("    {}\n", escaped(&path.display().to_string())));
    }
    if protected.len() > PROTECTED_SHOWN {
        text.push_str(&format!("    and {} more (`status --json` has all)\n", protected.len() - PROTECTED_SHOWN));
    }
    text
}

/// Where its health stands, and what the last check said.
fn health_lines(health: &HealthStatus) -> String {
    let mut text = format!("  health: {}   failures: {} of {}\n", health.state.word(), health.failures, health.retries);
    let Some(last) = &health.last else { return text };
    text.push_str(&check_lines("the last check", last));
    // It may be the same one, or one that an earlier life was ended for.
    if let Some(failure) = health.last_failure.as_ref().filter(|failure| *failure != last) {
        text.push_str(&check_lines("the last failure", failure));
    }
    text
}

fn check_lines(which: &str, check: &CheckSeen) -> String {
    let mut text = format!("    {which} {} in {:.2} s", check.result, check.took_ms as f64 / 1000.0);
    if check.output.is_empty() {
        return text + "; it printed nothing\n";
    }
    text.push_str("; it printed:\n");
    if check.output_dropped > 0 {
        text.push_str(&format!("      [{} bytes before this were not kept]\n", check.output_dropped));
    }
    for line in check.output.lines() {
        text.push_str(&format!("      {}\n", escaped(line)));
    }
    text
}
