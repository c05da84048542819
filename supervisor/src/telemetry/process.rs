//! The supervisor's own process, from /proc: the numbers that every Prometheus client library exports (proc_pid_stat(5)).

use std::fs;

use super::names;
use super::sample::Sample;

/// Adds what can be read; what can't has no series.
pub(super) fn sample(into: &mut Sample) {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    // The second field is the program's name in parentheses and may hold anything: count from the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().map(|ticks| ticks as f64);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().map(|bytes| bytes as f64);
    let seconds = |ticks: Option<f64>| Some(ticks? / per_second?);
    let cpu = field(14).zip(field(15)).map(|(user, system)| user + system);
    into.set_known(&names::PROCESS_CPU, &[], seconds(cpu));
    into.set_known(&names::PROCESS_START, &[], seconds(field(22)).zip(boot_time()).map(|(since, boot)| boot + since));
    into.set_known(&names::PROCESS_MEMORY, &[], field(24).zip(page).map(|(pages, bytes)| pages * bytes));
    // One of them is the folder being read.
    let fds = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1) as f64);
    into.set_known(&names::PROCESS_FDS, &[], fds);
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
