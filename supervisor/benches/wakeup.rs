//! How late a supervisor wakes up while agents in R2 do their worst: a fork bomb at its task limit, and a memory hog at its limit.
//!
//! `cargo bench -p agt-supervise --bench wakeup [-- SECONDS]`. Root on a host with control groups. Measured in two ways:
//! - `wakeup`: a process that sits in the supervisor's own groups sleeps for a millisecond again and again; how much later than
//!   asked it runs is what the kernel makes anybody there wait;
//! - `answer`: the supervisor's own smallest answer over its socket, there and back: two wake-ups and the work between.
//!
//! Each is measured without agents that do anything and with them, by turns; both agents must be seen at their limits in every
//! turn, by the kernel's counters. The last lines are `RATIO name=value`, in milliseconds.

#![allow(missing_docs, clippy::unwrap_used, unreachable_pub, dead_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::pulse::{Pulse, at};
use support::{Rig, Supervisor, quoted, until};

/// Of each turn.
const SECONDS: u64 = 10;
const TURNS: usize = 3;
const SLEEP: Duration = Duration::from_millis(1);
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Asks this program to be the one that sleeps: for how many seconds.
const SLEEPER: &str = "--sleeper";

const BOMB: &str = "command: [sh, -c, \"exec perl -e 'fork while 1'\"]\n";
/// Takes all that it may have, and goes on taking: each page anew once the kernel has taken it back or ended the one that held it.
const HOG: &str = r#"
import os
while True:
    if os.fork() == 0:
        held = []
        while True: held.append(bytearray(b"x" * (8 << 20)))
    os.wait()
"#;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == SLEEPER) {
        return sleep_and_tell(Duration::from_secs(arguments[place + 1].parse().unwrap()));
    }
    if !support::is_root() {
        return println!("SKIP wakeup: needs root");
    }
    let seconds = arguments.iter().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(SECONDS);
    let mut quiet = [Vec::new(), Vec::new()];
    let mut stressed = [Vec::new(), Vec::new()];
    for turn in 0..TURNS {
        println!("turn {turn}");
        for (agents, all) in [(Agents::Asleep, &mut quiet), (Agents::AtTheirWorst, &mut stressed)] {
            for (all, found) in all.iter_mut().zip(measure(agents, seconds)) {
                all.extend(found);
            }
        }
    }
    for (load, all) in [("quiet", quiet), ("stressed", stressed)] {
        for (what, mut took) in ["wakeup", "answer"].into_iter().zip(all) {
            took.sort_unstable();
            let in_ms = |thousandth| at(&took, thousandth).as_secs_f64() * 1e3;
            println!("RATIO {what}_{load}_p50_ms={:.3}", in_ms(500));
            println!("RATIO {what}_{load}_p99_ms={:.3}", in_ms(990));
            println!("{what} {load}: n={} max={:.3} ms", took.len(), in_ms(1000));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agents {
    Asleep,
    AtTheirWorst,
}

/// How late the sleeper was, and how long the answers took.
fn measure(agents: Agents, seconds: u64) -> [Vec<Duration>; 2] {
    let rig = Rig::new();
    let hog = format!("limits: {{memory: 256MiB}}\ncommand: [python3, -c, {}]\n", quoted(HOG));
    let [bomb, hog] = match agents {
        Agents::Asleep => ["command: [sleep, '1000']\n".to_owned(), "command: [sleep, '1000']\n".to_owned()],
        Agents::AtTheirWorst => [BOMB.to_owned(), hog],
    };
    let files = [("bomb", bomb), ("hog", hog)].map(|(name, keys)| {
        std::fs::create_dir(rig.work.join(name)).unwrap();
        let path = rig.work.join(name).join("agent.yaml");
        std::fs::write(&path, format!("version: 1\nname: {name}\nring: 2\n{keys}")).unwrap();
        path
    });
    let mut command = rig.command(["run"]);
    command.args(&files).stdout(Stdio::null()).stderr(Stdio::null());
    let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
    until("both run", || rig.output(["ps", "--json"]).stdout.matches("\"state\": \"running\"").count() == 2);
    let hits = || ["bomb", "hog"].map(|name| hits(&rig, name));
    if agents == Agents::AtTheirWorst {
        until("both are at their limits", || hits().iter().all(|hits| *hits > 0));
    }
    let before = hits();
    let pulse = Pulse::start(&rig.state.join("operator.sock"), Duration::from_millis(5), ANSWERS_WITHIN);
    let late = sleeper(supervisor.pid().as_raw(), seconds);
    let took = pulse.end();
    let after = hits();
    if agents == Agents::AtTheirWorst {
        assert!(
            before.iter().zip(&after).all(|(before, after)| after > before),
            "at their limits: {before:?} {after:?}"
        );
        println!("refused forks {}, memory limit met {}", after[0] - before[0], after[1] - before[1]);
    }
    let ended = rig.output(["kill", "--all", "--reason", "bench", "--yes"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    supervisor.wait();
    [late, took]
}

/// How often the kernel says that the agent has met its limit: forks for the bomb, memory for the hog.
fn hits(rig: &Rig, name: &str) -> u64 {
    let usage =
        rig.ps()["agents"].as_array().unwrap().iter().find(|agent| agent["name"] == name).unwrap()["usage"].clone();
    let of = |key: &str| usage[key].as_u64().unwrap_or(0);
    if name == "bomb" { of("tasks_limit_hits") } else { of("memory_limit_hits") + of("oom_kills") }
}

/// Starts this program as the sleeper, puts it where the supervisor is, and hears how late it was.
fn sleeper(supervisor: i32, seconds: u64) -> Vec<Duration> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(SLEEPER).arg(seconds.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    for group in groups(supervisor) {
        std::fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(|line| Duration::from_nanos(line.parse().unwrap())).collect()
}

fn groups(pid: i32) -> Vec<PathBuf> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let place = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        mounts.lines().find_map(|mount| {
            let fields: Vec<&str> = mount.split(' ').collect();
            let fits = match controllers {
                "" => fields[2] == "cgroup2",
                named => fields[2] == "cgroup" && named.split(',').all(|one| fields[3].split(',').any(|o| o == one)),
            };
            fits.then(|| PathBuf::from(format!("{}{path}", fields[1])))
        })
    };
    own.lines().filter_map(place).collect()
}

fn sleep_and_tell(lasts: Duration) {
    // Until it is put into its place.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    let mut late = Vec::new();
    let began = Instant::now();
    while began.elapsed() < lasts {
        let asked = Instant::now();
        std::thread::sleep(SLEEP);
        late.push(asked.elapsed().saturating_sub(SLEEP));
    }
    let lines: Vec<String> = late.iter().map(|late| late.as_nanos().to_string()).collect();
    println!("{}", lines.join("\n"));
}
