//! What a supervisor costs while its agents sleep: CPU time over a window, and memory, each process told apart.
//!
//! `cargo bench -p agt-supervise --bench idle [-- AGENTS...]`: R2, 100 agents and then 1,000. Root on a host with control groups.
//! CPU time is what the kernel has charged to a process in the window; memory is resident, and beside it the share that it has
//! in what it shares with others (PSS). Each agent's init is reported beside, as is what the kernel keeps for them all.

#![allow(missing_docs, clippy::unwrap_used, unreachable_pub, dead_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{Rig, Supervisor};

/// Long enough for what is done every few seconds to be in it several times over.
const WINDOW: Duration = Duration::from_secs(30);
/// After the last launch, so that nothing of the launches is in the window.
const SETTLES: Duration = Duration::from_secs(10);
const LAUNCHED_WITHIN: Duration = Duration::from_secs(120);

fn main() {
    if !support::is_root() {
        return println!("SKIP idle: needs root");
    }
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let numbers = if given.is_empty() { vec![100, 1_000] } else { given };
    for ratio in numbers.into_iter().flat_map(measure) {
        println!("RATIO {ratio}");
    }
}

fn measure(agents: usize) -> Vec<String> {
    let rig = Rig::new();
    let folder = rig.dir.path().join("agents");
    let write = |number: usize| {
        // Each has a workdir of its own.
        let own = folder.join(format!("a{number}"));
        std::fs::create_dir_all(&own).unwrap();
        let text = format!("version: 1\nname: a{number}\nring: 2\ncommand: [sleep, '1000000']\n");
        std::fs::write(own.join("agent.yaml"), text).unwrap();
        own.join("agent.yaml")
    };
    let files: Vec<_> = (0..agents).map(write).collect();
    let log = std::fs::File::create(rig.dir.path().join("stderr")).unwrap();
    let mut command = rig.command(["run"]);
    command.args(&files).stdout(std::process::Stdio::null()).stderr(log);
    let began = Instant::now();
    let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
    while running(&rig) < agents {
        let said = || std::fs::read_to_string(rig.dir.path().join("stderr")).unwrap();
        assert!(began.elapsed() < LAUNCHED_WITHIN, "only {} run: {}", running(&rig), said());
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("{agents} agents: all run after {:.1?}", began.elapsed());
    std::thread::sleep(SETTLES);
    let pid = supervisor.pid().as_raw();
    let helpers: Vec<i32> = children(pid);
    let launcher = helpers.iter().copied().find(|pid| named(*pid) == "agt-launcher").expect("a launcher");
    let watchdog = helpers.iter().copied().find(|pid| named(*pid) == "agt-watchdog").expect("a watchdog");
    let inits = children(launcher);
    let parts: [(&str, Vec<i32>); 4] =
        [("supervisor", vec![pid]), ("launcher", vec![launcher]), ("watchdog", vec![watchdog]), ("inits", inits)];
    let before = parts.each_ref().map(|(_, pids)| cpu(pids));
    let window = Instant::now();
    std::thread::sleep(WINDOW);
    let seconds = window.elapsed().as_secs_f64();
    let mut ratios = Vec::new();
    for ((what, pids), before) in parts.iter().zip(before) {
        let share = (cpu(pids) - before) / seconds * 100.0;
        let [rss, pss] = ["Rss:", "Pss:"].map(|key| memory(pids, key));
        let threads: usize =
            pids.iter().map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()).sum();
        println!(
            "{agents:5} agents  {what:10} n={:<5} cpu={share:.3} %  rss={rss:.1} MB  pss={pss:.1} MB  threads={threads}",
            pids.len()
        );
        ratios.push(format!("idle_{agents}_{what}_cpu_percent={share:.3}"));
        ratios.push(format!("idle_{agents}_{what}_rss_mb={rss:.1}"));
    }
    let ended = rig.output(["kill", "--all", "--reason", "bench", "--yes"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    supervisor.wait();
    ratios
}

fn running(rig: &Rig) -> usize {
    rig.output(["ps", "--json"]).stdout.matches("\"state\": \"running\"").count()
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

fn named(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Seconds that these have been charged, their ended threads' included.
fn cpu(pids: &[i32]) -> f64 {
    let ticks = |pid: &i32| -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
    pids.iter().map(ticks).sum::<f64>() / per_second
}

/// Megabytes (10^6 bytes).
fn memory(pids: &[i32], key: &str) -> f64 {
    let of = |pid: &i32| -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    pids.iter().map(of).sum::<f64>() * 1024.0 / 1e6
}
