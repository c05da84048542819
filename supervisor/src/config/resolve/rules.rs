//! What holds between the lines of a file: rings and what they exclude, waiting times, limits, opt-ins.

use agt_rings::Ring;
use agt_rings::spec::Limits;

use super::{Context, limit_rights};
use crate::config::diagnostic::Problem;
use crate::config::grant::Right;
use crate::config::plan::RingRates;
use crate::config::tree::KeyPath;
use crate::config::units::{ByteSize, Cpu, Span};

/// Less memory than this starts no program at all.
const MIN_MEMORY: u64 = 1 << 20;

/// Most labels of one agent: each becomes a dimension of metrics.
const MAX_LABELS: usize = 16;

/// Everything that the types can't say.
pub(super) fn check(context: &mut Context<'_>) {
    ring(context);
    waiting_times(context);
    chaos(context);
    slos(context);
    let spec = context.spec;
    if spec.labels.len() > MAX_LABELS {
        let problem = Problem::config(format!("{} labels, the limit is {MAX_LABELS}", spec.labels.len()));
        context.problem(&KeyPath::of("labels"), problem.label("each becomes a dimension of metrics"));
    }
    if spec.limits.memory.is_some_and(|ByteSize(bytes)| bytes < MIN_MEMORY) {
        let problem = Problem::config("no program starts with less than 1MiB of memory").label("impossible value");
        context.problem(&KeyPath::of("limits.memory"), problem);
    }
    if spec.log.max_size.0 < 4096 {
        let problem = Problem::config("a log file needs at least 4KiB").label("impossible value");
        context.problem(&KeyPath::of("log.max_size"), problem);
    }
}

/// What the ring that the file itself asks for excludes is a contradiction, not a refusal.
fn ring(context: &mut Context<'_>) {
    if context.asked != Ring::R3 {
        return;
    }
    let spec = context.spec;
    let help = if spec.ring.is_none() && context.overrides.ring.is_none() {
        "no `ring:` means 3; add `ring: 2`, or take the line out"
    } else {
        "ask for `ring: 2`, or take the line out"
    };
    let contradictions = [
        (!spec.network.is_empty(), "network", "R3 has no network"),
        (!spec.files.write.is_empty(), "files.write", "R3 writes nothing but its private HOME and TMPDIR"),
    ];
    for (is_there, path, why) in contradictions {
        if is_there {
            context.problem(&KeyPath::of(path), Problem::config(why).label("not in this ring").help(help));
        }
    }
}

fn waiting_times(context: &mut Context<'_>) {
    let spec = context.spec;
    let mut positive = vec![
        ("restart.window", Some(spec.restart.window)),
        ("restart.backoff.max", Some(spec.restart.backoff.max)),
        ("timeouts.run", spec.timeouts.run),
        ("timeouts.start", Some(spec.timeouts.start)),
    ];
    if let Some(health) = &spec.health {
        positive.push(("health.interval", Some(health.interval)));
        positive.push(("health.timeout", health.timeout));
    }
    for (path, span) in positive {
        if span == Some(Span::seconds(0)) {
            let problem = Problem::config(format!("`{path}` is 0")).label("impossible value");
            context.problem(&KeyPath::of(path), problem.help("give it a time, for example `10s`"));
        }
    }
    let backoff = &spec.restart.backoff;
    if backoff.initial > backoff.max {
        let message = format!("the first wait ({}) is longer than the longest ({})", backoff.initial, backoff.max);
        context.problem(&KeyPath::of("restart.backoff.initial"), Problem::config(message).label("impossible value"));
    }
    if let Some(health) = &spec.health
        && let Some(timeout) = health.timeout.filter(|timeout| *timeout > health.interval)
    {
        let message = format!("a check may take {timeout}, but the next one is due after {}", health.interval);
        let help = format!("shorten `timeout:` to at most {0}, or lengthen `interval: {0}`", health.interval);
        let problem = Problem::config(message).label("impossible value").help(help);
        context.problem(&KeyPath::of("health.timeout"), problem);
    }
}

/// The SLO engine's own checks, each with its line.
fn slos(context: &mut Context<'_>) {
    let Err(errors) = agt_sre::spec::resolve(&context.spec.slos) else { return };
    for error in errors {
        let mut path = KeyPath::of("slos");
        for part in error.path.split('.').filter(|part| !part.is_empty()) {
            path = part.parse().map_or_else(|_| path.key(part), |index| path.item(index));
        }
        let problem = Problem::config(format!("{} (`{path}`)", error.problem)).label("impossible value");
        context.problem(&path, problem);
    }
}

fn chaos(context: &mut Context<'_>) {
    let chaos = &context.spec.chaos;
    let path = KeyPath::of("chaos");
    let known = &context.around.faults;
    for (index, fault) in chaos.faults.iter().enumerate() {
        if !known.is_empty() && !known.contains(fault) {
            let problem = Problem::config(format!("unknown fault `{fault}`"))
                .label("`agt-supervise chaos list` shows them")
                .help(format!("faults: {}", known.join(", ")));
            context.problem(&path.key("faults").item(index), problem);
        }
    }
    if !chaos.opt_in {
        if !chaos.faults.is_empty() {
            let problem = Problem::config("faults are listed, but `opt_in` is not true").label("contradiction");
            context.problem(&path.key("faults"), problem.help("add `opt_in: true`, or take the list out"));
        }
        return;
    }
    let granted = &context.rights.chaos;
    let covered = granted.opt_in
        && (granted.faults.is_empty()
            || (!chaos.faults.is_empty() && chaos.faults.iter().all(|fault| granted.faults.contains(fault))));
    if !covered {
        let message = "being the target of chaos experiments needs an operator's line".to_owned();
        context.needs_operator(&path.key("opt_in"), message, Right::Chaos(chaos.faults.clone()));
    }
}

/// What holds at each ring, R0 first.
pub(super) struct RingRows {
    pub(super) limits: [Limits; 4],
    /// What an operator may set them to, without saying that it is more than the files give.
    pub(super) most: [Limits; 4],
    pub(super) open_files: [Option<u32>; 4],
    pub(super) requests: RingRates,
}

/// Limits and open files at each ring. At the ceiling: what was asked for, else the ring's default, above which an
/// operator must allow it. Below the ceiling: never more than that ring's default.
pub(super) fn limits(context: &mut Context<'_>) -> RingRows {
    let spec = &context.spec.limits;
    let defaults = context.rights.ring(context.ceiling);
    let granted = context.rights.limits.clone();
    let ring_most = [
        ("memory", defaults.limits.memory_bytes),
        ("cpu", defaults.limits.cpu_millis.map(u64::from)),
        ("tasks", defaults.limits.tasks.map(u64::from)),
        ("files", defaults.open_files.map(u64::from)),
        ("requests_per_minute", defaults.requests_per_minute.map(u64::from)),
    ];
    let granted_most = limit_rights(&granted);
    for (name, asked, right) in limit_rights(spec) {
        let most = ring_most.iter().find(|(other, _)| *other == name).and_then(|(_, most)| *most);
        let grant = granted_most.iter().find(|(other, _, _)| *other == name).map(|(_, most, _)| *most);
        let Some(most) = most.filter(|most| asked > *most && grant.is_none_or(|grant| asked > grant)) else { continue };
        let shown = |value: u64| match name {
            "memory" => ByteSize(value).to_string(),
            "cpu" => Cpu(u32::try_from(value).unwrap_or(u32::MAX)).to_string(),
            _ => value.to_string(),
        };
        let message = format!(
            "`limits.{name}` of {} needs an operator's line: {} gives {}",
            shown(asked),
            context.ceiling,
            shown(most.max(grant.unwrap_or(0)))
        );
        context.needs_operator(&KeyPath::of("limits").key(name), message, right);
    }
    let asked = Limits {
        memory_bytes: spec.memory.map(|size| size.0),
        cpu_millis: spec.cpu.map(|cpu| cpu.0),
        tasks: spec.tasks,
    };
    let at = |ring: Ring| {
        let row = context.rights.ring(ring);
        if ring == context.ceiling {
            let limits = Limits {
                memory_bytes: asked.memory_bytes.or(row.limits.memory_bytes),
                cpu_millis: asked.cpu_millis.or(row.limits.cpu_millis),
                tasks: asked.tasks.or(row.limits.tasks),
            };
            (limits, spec.files.or(row.open_files), spec.requests_per_minute.or(row.requests_per_minute))
        } else {
            let limits = Limits {
                memory_bytes: least(asked.memory_bytes, row.limits.memory_bytes),
                cpu_millis: least(asked.cpu_millis, row.limits.cpu_millis),
                tasks: least(asked.tasks, row.limits.tasks),
            };
            (limits, least(spec.files, row.open_files), least(spec.requests_per_minute, row.requests_per_minute))
        }
    };
    let rows = Ring::ALL.map(at);
    let most_rows = Ring::ALL.map(|ring| {
        let row = context.rights.ring(ring).limits;
        if ring != context.ceiling {
            return row;
        }
        Limits {
            memory_bytes: most(row.memory_bytes, granted.memory.map(|size| size.0), asked.memory_bytes),
            cpu_millis: most(row.cpu_millis, granted.cpu.map(|cpu| cpu.0), asked.cpu_millis),
            tasks: most(row.tasks, granted.tasks, asked.tasks),
        }
    });
    RingRows {
        limits: rows.map(|(limits, _, _)| limits),
        most: most_rows,
        open_files: rows.map(|(_, files, _)| files),
        requests: RingRates(rows.map(|(_, _, requests)| requests)),
    }
}

/// Where the ring sets a bound: the largest of what anybody with a say has named.
fn most<T: Ord>(row: Option<T>, granted: Option<T>, asked: Option<T>) -> Option<T> {
    row.map(|row| [granted, asked].into_iter().flatten().fold(row, T::max))
}

fn least<T: Ord>(asked: Option<T>, most: Option<T>) -> Option<T> {
    match (asked, most) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
