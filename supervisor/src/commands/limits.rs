//! `limits`: which limits hold for an agent and why, and changing them while it runs.

use std::fmt::Write as _;

use agt_rings::spec::Limits;

use super::{Failure, Outcome, client_runtime, dirs, print, show, trust};
use crate::cli::Global;
use crate::config::units::{ByteSize, Cpu};
use crate::control::client;
use crate::control::protocol::Agents;
use crate::driver::limiting::{Above, LIMITS, LimitBody, LimitChange, LimitsStatus};
use crate::driver::status::AgentStatus;
use crate::driver::streams::escaped;
use crate::driver::total::TotalStatus;
use crate::exit;

/// Less memory than this starts no program: the same bound as for a file.
const MEMORY_MIN: u64 = 1 << 20;
/// The most tasks that a kernel has.
const TASKS_MAX: u32 = 4_194_303;

/// `limits ...`.
#[derive(Debug, clap::Subcommand)]
pub enum LimitsVerb {
    /// Show the limits that the kernel keeps, those of the file, and the most that can be set
    #[command(after_help = "Examples:\n  agt-supervise limits show\n  agt-supervise limits show researcher --json")]
    Show {
        /// The agent's name; every agent without it
        agent: Option<String>,
    },
    /// Change limits of a running agent, at once and read back from the kernel; kept over its restarts until `limits reset`, a
    /// reload that restarts it, or the supervisor's end
    #[command(
        after_help = "Examples:\n  agt-supervise limits set researcher memory=768MiB --reason \"large index\"\n  agt-supervise limits set researcher cpu=50% tasks=100 --reason \"too greedy\"\n\nA memory limit below what is in use makes the kernel take memory back: cgroup v1 refuses what it can't take back, v2 ends the agent for it."
    )]
    Set(SetArgs),
    /// Let the limits of the agent's file hold again
    #[command(after_help = "Examples:\n  agt-supervise limits reset researcher --reason \"index is built\"")]
    Reset {
        /// The agent's name
        agent: String,
        /// Why; kept in the audit log
        #[arg(long, value_parser = trust::reason)]
        reason: String,
    },
}

/// `limits set`.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// The agent's name
    pub agent: String,
    /// memory=512MiB, cpu=50% (of one CPU) or cpu=1.5, tasks=100; what is not named stays
    #[arg(required = true, value_name = "LIMIT=VALUE", value_parser = one)]
    pub limits: Vec<One>,
    /// Why; kept in the audit log
    #[arg(long, value_parser = trust::reason)]
    pub reason: String,
    /// Set it although it is more than its ring and the operator's file give; the audit log says so
    #[arg(long)]
    pub above_ceiling: bool,
}

/// One limit as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum One {
    /// Bytes.
    Memory(u64),
    /// Thousandths of a CPU.
    Cpu(u32),
    /// Processes and threads.
    Tasks(u32),
}

fn one(text: &str) -> Result<One, String> {
    let known = "memory=512MiB, cpu=50%, tasks=100";
    let (name, value) = text.split_once('=').ok_or_else(|| format!("write it as one of {known}"))?;
    let bad = |e: crate::config::units::BadQuantity| format!("{}; {}", e.message, e.instead);
    match name {
        "memory" => match ByteSize::parse(value).map_err(bad)? {
            ByteSize(bytes) if bytes < MEMORY_MIN => Err("no program runs with less than 1MiB of memory".to_owned()),
            ByteSize(bytes) if i64::try_from(bytes).is_err() => Err("no machine has so much memory".to_owned()),
            ByteSize(bytes) => Ok(One::Memory(bytes)),
        },
        "cpu" => Ok(One::Cpu(Cpu::parse(value).map_err(bad)?.0)),
        "tasks" => match value.parse() {
            Ok(tasks @ 1..=TASKS_MAX) => Ok(One::Tasks(tasks)),
            _ => Err(format!("`{value}` is no number of tasks: 1 to {TASKS_MAX}")),
        },
        _ => {
            let guess = crate::config::did_you_mean(name, &["memory", "cpu", "tasks"]);
            Err(format!("there is no limit `{name}` that can be changed while it runs{guess}; {known}"))
        }
    }
}

fn limits_of(typed: &[One]) -> Result<Limits, Failure> {
    let mut limits = Limits::default();
    for one in typed {
        let twice = match *one {
            One::Memory(bytes) => limits.memory_bytes.replace(bytes).is_some(),
            One::Cpu(millis) => limits.cpu_millis.replace(millis).is_some(),
            One::Tasks(tasks) => limits.tasks.replace(tasks).is_some(),
        };
        if twice {
            return Err(Failure::usage("the same limit is named twice"));
        }
    }
    Ok(limits)
}

/// Performs `limits ...`.
///
/// # Errors
/// No supervisor, no such agent, a limit that is too high (77) or that the host can't keep (69).
pub fn limits(global: &Global, verb: LimitsVerb) -> Outcome {
    let body = match verb {
        LimitsVerb::Show { agent } => {
            let agents = show::fetch(global, agent.as_deref())?;
            return if global.json { show::json(&as_json(&agents)).map(|()| 0) } else { shown(&agents) };
        }
        LimitsVerb::Set(args) => {
            let above = if args.above_ceiling { Above::Meant } else { Above::Refused };
            let change = LimitChange::Set { limits: limits_of(&args.limits)?, above };
            LimitBody { agent: args.agent, change, reason: args.reason }
        }
        LimitsVerb::Reset { agent, reason } => LimitBody { agent, change: LimitChange::Reset, reason },
    };
    let socket = dirs(global)?.operator_socket();
    let agents: Agents = client_runtime()?.block_on(client::post(&socket, LIMITS, &body))?;
    if global.json {
        show::json(&as_json(&agents))?;
        return Ok(0);
    }
    for agent in &agents.agents {
        let limits = agent.limits.in_force.unwrap_or(agent.limits.wanted);
        eprintln!("{}  {}", agent.name, words(&limits));
        if let Some(remark) = &agent.remark {
            eprintln!("note: {} {remark}", agent.name);
        }
    }
    Ok(0)
}

fn as_json(agents: &Agents) -> serde_json::Value {
    let of = |agent: &AgentStatus| {
        let mut value = serde_json::to_value(&agent.limits).expect("limits are plain data");
        value["name"] = agent.name.as_str().into();
        value["ring"] = agent.ring.number().into();
        value
    };
    let total = agents.total.as_ref().map(|total| total.limits);
    serde_json::json!({ "agents": agents.agents.iter().map(of).collect::<Vec<_>>(), "total": total })
}

fn shown(agents: &Agents) -> Outcome {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["AGENT", "LIMIT", "IN FORCE", "FILE", "MOST", "SET BY"]);
    for agent in &agents.agents {
        for (name, cells) in rows(&agent.limits) {
            table.add_row([&[agent.name.clone(), name.to_owned()], &cells[..]].concat());
        }
    }
    let mut text = format!("{}\n", table.trim_fmt());
    if let Some(total) = agents.total.as_ref().and_then(total_line) {
        let _ = writeln!(text, "{total}");
    }
    print(&text);
    Ok(0)
}

/// Each limit: in force, of the file, the most, who set it.
fn rows(limits: &LimitsStatus) -> [(&'static str, [String; 4]); 3] {
    let by = |set: bool| match &limits.by_hand {
        Some(by_hand) if set => format!("uid {}: {}", by_hand.by, escaped(&by_hand.reason)),
        _ => "file".to_owned(),
    };
    let hand = limits.by_hand.as_ref();
    let row = |shown: fn(&Limits) -> String, set: bool| {
        let in_force = limits.in_force.as_ref().map_or_else(|| "-".to_owned(), shown);
        [in_force, shown(&limits.plan), shown(&limits.most), by(set)]
    };
    [
        ("memory", row(memory, hand.is_some_and(|hand| hand.memory_bytes.is_some()))),
        ("cpu", row(cpu, hand.is_some_and(|hand| hand.cpu_millis.is_some()))),
        ("tasks", row(tasks, hand.is_some_and(|hand| hand.tasks.is_some()))),
    ]
}

fn memory(limits: &Limits) -> String {
    limits.memory_bytes.map_or_else(|| "none".to_owned(), |bytes| ByteSize(bytes).to_string())
}

fn cpu(limits: &Limits) -> String {
    limits.cpu_millis.map_or_else(|| "none".to_owned(), |millis| Cpu(millis).to_string())
}

fn tasks(limits: &Limits) -> String {
    limits.tasks.map_or_else(|| "none".to_owned(), |tasks| tasks.to_string())
}

/// `memory 1GiB  cpu 100%  tasks 256`.
pub(super) fn words(limits: &Limits) -> String {
    format!("memory {}  cpu {}  tasks {}", memory(limits), cpu(limits), tasks(limits))
}

/// All agents together, where something limits them.
pub(super) fn total_line(total: &TotalStatus) -> Option<String> {
    let limits = &total.limits;
    if *limits == Limits::default() {
        return None;
    }
    let usage = total.usage.unwrap_or_default();
    let mut parts = Vec::new();
    if let Some(limit) = limits.memory_bytes {
        let used = usage.memory_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.div_ceil(1 << 20).to_string());
        parts.push(format!("memory {used}/{} MiB", limit >> 20));
    }
    if limits.cpu_millis.is_some() {
        parts.push(format!("cpu at most {}", cpu(limits)));
    }
    if let Some(limit) = limits.tasks {
        let used = usage.tasks.map_or_else(|| "-".to_owned(), |tasks| tasks.to_string());
        parts.push(format!("tasks {used}/{limit}"));
    }
    Some(format!("all agents together: {}", parts.join("  ")))
}

/// What `doctor` says of the operator's `total:`; the code of the failure if it is wrong.
pub(super) fn total_for_doctor(limits: &Limits, kept: &[&str]) -> Option<String> {
    if *limits == Limits::default() {
        return None;
    }
    let wanted = [
        ("memory", limits.memory_bytes.is_some()),
        ("cpu", limits.cpu_millis.is_some()),
        ("pids", limits.tasks.is_some()),
    ];
    let missing: Vec<&str> =
        wanted.into_iter().filter(|(name, wanted)| *wanted && !kept.contains(name)).map(|(name, _)| name).collect();
    let line = format!("  all agents together (`total:` of the operator's file): {}", words(limits));
    Some(if missing.is_empty() {
        line
    } else {
        format!(
            "{line}\n  missing: no cgroup controller {} here, so nothing starts with that `total:` (exit {})",
            missing.join(", "),
            exit::UNAVAILABLE
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_are_typed_with_their_units_and_a_wrong_one_says_what_to_write() {
        assert_eq!(one("memory=512MiB"), Ok(One::Memory(512 << 20)));
        assert_eq!(one("cpu=50%"), Ok(One::Cpu(500)));
        assert_eq!(one("cpu=1.5"), Ok(One::Cpu(1500)));
        assert_eq!(one("tasks=40"), Ok(One::Tasks(40)));
        for (wrong, says) in [
            ("memory=64M", "64MiB"),
            ("memory=5B", "1MiB"),
            ("memroy=1GiB", "memory"),
            ("tasks=0", "1 to"),
            ("tasks=-1", "1 to"),
            ("files=9", "there is no limit `files`"),
            ("memory", "memory=512MiB"),
            ("cpu=", "50%"),
        ] {
            let error = one(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
        assert!(limits_of(&[One::Tasks(1), One::Tasks(2)]).is_err());
    }

    #[test]
    fn a_total_that_the_host_cannot_keep_is_named() {
        let limits = Limits { memory_bytes: Some(1 << 30), tasks: Some(9), ..Limits::default() };
        assert_eq!(total_for_doctor(&Limits::default(), &[]), None);
        let text = total_for_doctor(&limits, &["cpu", "memory"]).unwrap();
        assert!(text.contains("no cgroup controller pids"), "{text}");
        assert!(!total_for_doctor(&limits, &["memory", "pids"]).unwrap().contains("missing"));
    }
}
