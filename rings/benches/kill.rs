//! How long a kill takes, from the trigger to verified empty, beside the least that the kernel needs.
//!
//! ```text
//! cargo bench -p agt-rings --bench kill [-- SAMPLES]
//! ```
//!
//! Root on a host with a writable v2 hierarchy. Two comparisons, each interleaved in one run, because only ratios in one
//! run mean anything on a shared machine:
//! - 200 sleeping processes: `Group::kill` (quota lifted, weight lent, counted, every hierarchy verified) against a bare
//!   write to `cgroup.kill` and a wait for `populated 0`. Target: p50 and p95 at most 1.5, later 1.1.
//! - a fork bomb at R2's limits (1 CPU, 256 tasks): `Group::kill` against the same bare write (`bomb_vs_raw`), against a loop that reads the list and SIGKILLs until it
//!   is empty, with the quota left on (`bomb_vs_loop`), and against the same loop as an operator types it into a shell
//!   (`bomb_vs_shell_loop`). Wanted: 4 times faster. A loop in a process of its own that does nothing else is as fast as
//!   `cgroup.kill` here, because the limit of tasks stops the bomb's growth for it; it has no bound, and verifies one hierarchy.
//!   What makes ours faster than both is the quota: without it the bomb dies on every CPU.
//!
//! Both others run at the default CPU weight: whoever kills so has set no weights.
//!
//! The last lines are `RATIO name=value`.

#![allow(missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agt_rings::cgroup::{Base, Group, Layout, Limits};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROCESSES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);
const SAMPLES: usize = 60;
/// A bomb takes long to end by the loop.
const BOMBS_PER_SAMPLES: usize = 3;

const SLEEPERS: &str = "read gate; i=1; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; wait";
/// Forks without end and without exec, and doesn't stop when fork is refused: the bomb that a loop has most trouble with.
const BOMB: &str = "read gate; exec perl -e 'fork while 1'";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ours,
    RawCgroupKill,
    SigkillLoop,
    ShellLoop,
}

fn main() {
    let samples = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(SAMPLES);
    let layout = match Layout::detect() {
        Ok(layout) if layout.unified.is_some() => layout,
        Ok(_) => return println!("SKIP kill: no writable v2 hierarchy to compare with"),
        Err(error) => return println!("SKIP kill: {error}"),
    };
    let base = Base::open(&layout, &format!("bench-{}", std::process::id()), &[]).expect("a base can be made");
    let [ours, raw] = compare(&base, "sleepers", [Way::Ours, Way::RawCgroupKill], samples);
    let bombs = (samples / BOMBS_PER_SAMPLES).max(3);
    let [bomb_beside_raw, raw_bomb] = compare(&base, "bomb", [Way::Ours, Way::RawCgroupKill], bombs);
    let [bomb, by_loop] = compare(&base, "bomb", [Way::Ours, Way::SigkillLoop], bombs);
    let [bomb_again, by_shell] = compare(&base, "bomb", [Way::Ours, Way::ShellLoop], bombs);
    base.close().expect("the base can be removed");
    println!("RATIO kill_p50_vs_raw={:.3}", ratio(&ours, &raw, 50));
    println!("RATIO kill_p95_vs_raw={:.3}", ratio(&ours, &raw, 95));
    println!("RATIO bomb_vs_raw={:.3}", ratio(&raw_bomb, &bomb_beside_raw, 50));
    println!("RATIO bomb_vs_loop={:.3}", ratio(&by_loop, &bomb, 50));
    println!("RATIO bomb_vs_shell_loop={:.3}", ratio(&by_shell, &bomb_again, 50));
}

/// Both ways by turns, the first one changing each time; sorted.
fn compare(base: &Base, shape: &str, ways: [Way; 2], samples: usize) -> [Vec<Duration>; 2] {
    let mut took = [Vec::new(), Vec::new()];
    for turn in 0..samples * 2 {
        let which = (turn + turn / 2) % 2;
        took[which].push(sample(base, shape, ways[which]));
    }
    for (way, took) in ways.iter().zip(&mut took) {
        took.sort_unstable();
        println!(
            "{shape:9} {:14} n={} p50={:.2?} p95={:.2?} max={:.2?}",
            format!("{way:?}"),
            took.len(),
            at(took, 50),
            at(took, 95),
            at(took, 100)
        );
    }
    took
}

fn sample(base: &Base, shape: &str, way: Way) -> Duration {
    let bomb = shape == "bomb";
    let limits = match shape {
        "bomb" => Limits { memory_bytes: Some(1 << 30), cpu_millis: Some(1000), tasks: Some(256) },
        _ => Limits { tasks: Some(512), ..Limits::default() },
    };
    set_weight(base, if way == Way::Ours { Weight::Ours } else { Weight::Default });
    let group = base.create(shape, &limits).expect("a group can be made");
    let mut child = start(&group, if bomb { BOMB } else { SLEEPERS });
    let grown = Instant::now() + PATIENCE;
    while !(if bomb { has_hit_its_limit(&group) } else { sleepers(&group) == PROCESSES }) {
        assert!(Instant::now() < grown, "the tree does not grow");
        std::thread::sleep(Duration::from_millis(10));
    }
    let dir = group.tree().unified.clone().expect("checked at the start");
    let shell = (way == Way::ShellLoop).then(|| shell_loop(&dir));
    // Forked is not yet asleep.
    std::thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    match way {
        Way::Ours => {
            let report = group.kill(PATIENCE).expect("the kill is verified");
            assert!(bomb || report.processes == PROCESSES, "{report:?}");
        }
        Way::RawCgroupKill => raw_cgroup_kill(&dir),
        Way::SigkillLoop => sigkill_loop(&dir),
        Way::ShellLoop => {
            let mut shell = shell.expect("started above");
            shell.stdin.take().expect("piped").write_all(b"\n").expect("sh waits at its gate");
            shell.wait().expect("our own child");
        }
    }
    let took = start.elapsed();
    assert!(group.is_empty().expect("readable"));
    child.wait().expect("our own child");
    group.remove(PATIENCE).expect("an empty group can be removed");
    took
}

/// How the agents' CPU weight stands to ours.
#[derive(Debug, Clone, Copy)]
enum Weight {
    Ours,
    Default,
}

/// Whoever kills by other means has set no weights either: its agents die at the default weight from the start.
fn set_weight(base: &Base, weight: Weight) {
    let Some(file) = &base.tree().weight else { return };
    let value = match (weight, file.ends_with("cpu.shares")) {
        (Weight::Ours, true) => "204",
        (Weight::Ours, false) => "20",
        (Weight::Default, true) => "1024",
        (Weight::Default, false) => "100",
    };
    fs::write(file, value).expect("weights can be set");
}

fn start(group: &Group, script: &str) -> Child {
    let null = || Stdio::null();
    let mut command = Command::new("/bin/sh");
    let mut child =
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(null()).stderr(null()).spawn().expect("sh starts");
    group.adopt(child.id().try_into().expect("pids are small")).expect("a child can be moved");
    child.stdin.take().expect("piped").write_all(b"\n").expect("sh waits at its gate");
    child
}

fn sleepers(group: &Group) -> usize {
    group.pids().expect("readable").len()
}

fn has_hit_its_limit(group: &Group) -> bool {
    group.usage().expect("readable").tasks_limit_hits.is_some_and(|hits| hits > 100)
}

/// The least: one write, one wait. The files are open before the clock starts to matter, as in a program made for it.
fn raw_cgroup_kill(dir: &Path) {
    let mut trigger = OpenOptions::new().write(true).open(dir.join("cgroup.kill")).expect("kernel 5.14");
    let events = File::open(dir.join("cgroup.events")).expect("v2");
    trigger.write_all(b"1").expect("root may");
    while is_populated(&events) {
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::NONE).expect("events can be polled");
    }
}

fn is_populated(events: &File) -> bool {
    let mut text = [0; 128];
    let length = events.read_at(&mut text, 0).expect("readable");
    text[..length].starts_with(b"populated 1")
}

fn sigkill_loop(dir: &Path) {
    loop {
        let pids = fs::read_to_string(dir.join("cgroup.procs")).expect("readable");
        if pids.is_empty() {
            return;
        }
        for pid in pids.lines() {
            // Gone already is fine here.
            let _ended = kill(Pid::from_raw(pid.parse().expect("a pid")), Signal::SIGKILL);
        }
    }
}

/// The loop as it is typed, waiting for its gate.
fn shell_loop(dir: &Path) -> Child {
    let script = "read gate; while pids=$(cat \"$1\"); [ -n \"$pids\" ]; do kill -9 $pids 2>/dev/null; done";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(dir.join("cgroup.procs")).stdin(Stdio::piped());
    command.spawn().expect("sh starts")
}

fn ratio(a: &[Duration], b: &[Duration], percent: usize) -> f64 {
    at(a, percent).as_secs_f64() / at(b, percent).as_secs_f64()
}

/// The sample at this percentile of a sorted list.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
