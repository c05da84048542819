//! What an agent uses, in words: for `ps`, `status` and `top`. A number that the host does not have is `-` or left out, never 0.

use agt_rings::cgroup::{Hits, Pressure, Usage};

use super::limits;
use crate::driver::status::AgentStatus;
use crate::machine::limit_events::Limit;

const MIB: u64 = 1 << 20;

/// `12/256`.
pub(super) fn tasks(agent: &AgentStatus) -> String {
    let used = agent.usage.and_then(|usage| usage.tasks);
    match (used, agent.limits.wanted.tasks) {
        (Some(used), Some(limit)) => format!("{used}/{limit}"),
        (Some(used), None) => used.to_string(),
        (None, _) => "-".to_owned(),
    }
}

/// CPU time of its present life.
pub(super) fn cpu_time(agent: &AgentStatus) -> String {
    agent.usage.and_then(|usage| usage.cpu_usec).map_or_else(|| "-".to_owned(), cpu_text)
}

fn cpu_text(usec: u64) -> String {
    match usec {
        0..10_000_000 => format!("{:.2}s", seconds(usec)),
        10_000_000..3_600_000_000 => format!("{}m{:02}s", usec / 60_000_000, usec / 1_000_000 % 60),
        _ => format!("{}h{:02}m", usec / 3_600_000_000, usec / 60_000_000 % 60),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, to hundredths of a second")]
fn seconds(usec: u64) -> f64 {
    usec as f64 / 1e6
}

/// The lines of `status`.
pub(super) fn lines(agent: &AgentStatus) -> String {
    let mut text = match &agent.limits.in_force {
        Some(in_force) => format!("  limits: {}   (read from the kernel)\n", limits::words(in_force)),
        None => format!("  limits: {}   (at its next start)\n", limits::words(&agent.limits.wanted)),
    };
    if let Some(by_hand) = &agent.limits.by_hand {
        let (by, reason) = (by_hand.by, crate::driver::streams::escaped(&by_hand.reason));
        text.push_str(&format!("    set by uid {by}: {reason}; its file says {}\n", limits::words(&agent.limits.plan)));
    }
    let Some(usage) = &agent.usage else { return text };
    for (name, value) in [
        ("memory", memory(usage)),
        ("cpu", cpu(usage)),
        ("tasks", task_use(usage)),
        ("io", io(usage)),
        ("waits", waits(usage)),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("  {name}: {value}\n"));
        }
    }
    text
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(MIB))
}

fn memory(usage: &Usage) -> Option<String> {
    let mut text = mib(usage.memory_bytes?);
    if let Some(peak) = usage.memory_peak_bytes {
        text.push_str(&format!(", at most {}", mib(peak)));
    }
    text.push_str(&hit(&usage.hits(), Limit::Memory, "at its limit"));
    text.push_str(&hit(&usage.hits(), Limit::MemoryHigh, "above memory.high"));
    if let Some(kills @ 1..) = usage.oom_kills {
        text.push_str(&format!(", processes ended for it: {kills}"));
    }
    Some(text)
}

fn hit(hits: &Hits, limit: Limit, what: &str) -> String {
    match limit.count(hits) {
        Some(count @ 1..) => format!(", {what} {count} times"),
        _ => String::new(),
    }
}

fn cpu(usage: &Usage) -> Option<String> {
    let mut text = cpu_text(usage.cpu_usec?);
    if let (Some(periods @ 1..), Some(throttled)) = (usage.cpu_periods, usage.cpu_throttled_periods) {
        let waited = usage.cpu_throttled_usec.map_or_else(String::new, |usec| format!(" ({})", cpu_text(usec)));
        text.push_str(&format!(", held back by its limit in {throttled} of {periods} periods{waited}"));
    }
    Some(text)
}

fn task_use(usage: &Usage) -> Option<String> {
    let mut text = usage.tasks?.to_string();
    if let Some(peak) = usage.tasks_peak {
        text.push_str(&format!(", at most {peak}"));
    }
    if let Some(refused @ 1..) = usage.tasks_limit_hits {
        text.push_str(&format!(", forks refused: {refused}"));
    }
    Some(text)
}

fn io(usage: &Usage) -> Option<String> {
    let io = usage.io?;
    Some(format!(
        "{} read, {} written, in {} and {} operations",
        mib(io.read_bytes),
        mib(io.written_bytes),
        io.reads,
        io.writes
    ))
}

/// Shares of the last ten seconds.
fn waits(usage: &Usage) -> Option<String> {
    let of = |name: &str, pressure: Option<Pressure>| {
        pressure.map(|pressure| format!("{name} {:.0}%", pressure.some.ratio_10s * 100.0))
    };
    let pressure = &usage.pressure;
    let known: Vec<String> =
        [of("cpu", pressure.cpu), of("memory", pressure.memory), of("io", pressure.io)].into_iter().flatten().collect();
    (!known.is_empty()).then(|| format!("{} of the last 10 s", known.join("  ")))
}

/// `3/0/1`: pressure of cpu, memory and io in percent.
pub(super) fn pressure_cell(usage: &Usage) -> String {
    let pressure = &usage.pressure;
    let cell = |pressure: Option<Pressure>| {
        pressure.map_or_else(|| "-".to_owned(), |pressure| format!("{:.0}", pressure.some.ratio_10s * 100.0))
    };
    [cell(pressure.cpu), cell(pressure.memory), cell(pressure.io)].join("/")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use agt_rings::cgroup::{Io, Stall};

    #[test]
    fn what_the_host_does_not_know_is_left_out() {
        let usage = Usage::default();
        assert_eq!(
            (memory(&usage), cpu(&usage), task_use(&usage), io(&usage), waits(&usage)),
            (None, None, None, None, None)
        );
        assert_eq!(pressure_cell(&usage), "-/-/-");
        let usage = Usage { memory_bytes: Some(5 * MIB), cpu_usec: Some(1_500_000), tasks: Some(3), ..usage };
        assert_eq!(memory(&usage).unwrap(), "5 MiB");
        assert_eq!(cpu(&usage).unwrap(), "1.50s");
        assert_eq!(task_use(&usage).unwrap(), "3");
    }

    #[test]
    fn limits_that_were_met_are_said_with_their_numbers() {
        let stall = Stall { total_usec: 1, ratio_10s: 0.25 };
        let usage = Usage {
            memory_bytes: Some(60 * MIB),
            memory_peak_bytes: Some(64 * MIB),
            memory_limit_hits: Some(12),
            oom_kills: Some(1),
            cpu_usec: Some(61_000_000),
            cpu_periods: Some(100),
            cpu_throttled_periods: Some(90),
            cpu_throttled_usec: Some(2_000_000),
            tasks: Some(40),
            tasks_peak: Some(40),
            tasks_limit_hits: Some(7),
            io: Some(Io { read_bytes: MIB, written_bytes: 2 * MIB, reads: 3, writes: 4 }),
            pressure: agt_rings::cgroup::Pressures {
                cpu: Some(Pressure { some: stall, full: None }),
                ..Default::default()
            },
            ..Usage::default()
        };
        assert_eq!(memory(&usage).unwrap(), "60 MiB, at most 64 MiB, at its limit 12 times, processes ended for it: 1");
        assert_eq!(cpu(&usage).unwrap(), "1m01s, held back by its limit in 90 of 100 periods (2.00s)");
        assert_eq!(task_use(&usage).unwrap(), "40, at most 40, forks refused: 7");
        assert_eq!(io(&usage).unwrap(), "1 MiB read, 2 MiB written, in 3 and 4 operations");
        assert_eq!(waits(&usage).unwrap(), "cpu 25% of the last 10 s");
        assert_eq!(pressure_cell(&usage), "25/-/-");
    }
}
