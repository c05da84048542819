//! The watchdog ends every agent when the supervisor is gone, whatever else still stands; and it is never missing for long.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Rig, Supervisor, needs_root, processes_with, quoted, unique, until};

fn children(pid: i32) -> Vec<i32> {
    let mut all: Vec<i32> = Vec::new();
    // Of every thread of it.
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn called(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(line.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

pub fn child(of: i32, name: &str) -> Option<i32> {
    children(of).into_iter().find(|pid| called(*pid) == name)
}

pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// An agent with a daemon beside it, both marked.
fn tree(rig: &Rig, marker: &str) -> Supervisor {
    let script = format!("(setsid sh -c 'sleep 1000; : {marker}' &); touch ready; sleep 1000; : {marker}");
    let file = rig.agent("tree", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&script)));
    let supervisor = rig.start(&file);
    until("the tree stands", || rig.work.join("ready").exists() && processes_with(marker).len() >= 2);
    supervisor
}

/// The launcher and all inits, stopped: the way by parent death signals leads nowhere while this lives.
struct Stopped(Vec<i32>);

impl Stopped {
    fn new(supervisor: &Supervisor) -> Stopped {
        let launcher = child(supervisor.pid().as_raw(), "agt-launcher").expect("a launcher");
        let mut pids = children(launcher);
        assert!(!pids.is_empty(), "an init for each agent");
        pids.push(launcher);
        pids.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
        Stopped(pids)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            // Nobody reaps them while their parent is stopped: the numbers are theirs.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn watchdog_alone_ends_the_agents_of_a_dead_supervisor() {
    if !needs_root("watchdog_alone_ends_the_agents_of_a_dead_supervisor") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("watched");
    let supervisor = tree(&rig, &marker);
    let _stopped = Stopped::new(&supervisor);
    supervisor.signal(Signal::SIGKILL);
    drop(supervisor);
    until("the tree is gone", || processes_with(&marker).is_empty());
}

#[test]
fn watchdog_ends_agents_that_are_frozen() {
    if !needs_root("watchdog_ends_agents_that_are_frozen") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("frozen");
    let supervisor = tree(&rig, &marker);
    assert_eq!(rig.output(["freeze", "tree", "--reason", "test"]).code, 0);
    let _stopped = Stopped::new(&supervisor);
    supervisor.signal(Signal::SIGKILL);
    drop(supervisor);
    until("the tree is gone", || processes_with(&marker).is_empty());
}

#[test]
fn killed_watchdog_is_replaced_and_said_so() {
    if !needs_root("killed_watchdog_is_replaced_and_said_so") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("replaced");
    let supervisor = tree(&rig, &marker);
    let pid = supervisor.pid().as_raw();
    let first = child(pid, "agt-watchdog").expect("a watchdog");
    send(first, Signal::SIGTERM);
    send(first, Signal::SIGINT);
    send(first, Signal::SIGKILL);
    let another = || child(pid, "agt-watchdog").filter(|second| *second != first);
    until("another stands", || another().is_some());
    assert!(processes_with(&marker).len() >= 2, "the agents live on");
    let audit = rig.output(["audit", "show", "--json"]);
    assert!(audit.stdout.contains("watchdog.restart"), "{}", audit.stdout);
    let second = another().unwrap();
    until("it has its own group", || has_own_group(second));
    let stopped = Stopped::new(&supervisor);
    supervisor.signal(Signal::SIGKILL);
    until("the tree is gone", || processes_with(&marker).is_empty());
    // They hold the other end of its standard error.
    drop(stopped);
    let outcome = supervisor.wait();
    assert!(outcome.stderr.contains("starting another"), "{}", outcome.stderr);
}

fn has_own_group(watchdog: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{watchdog}/cgroup")).unwrap_or_default();
    text.lines().any(|line| line.ends_with("/watchdog"))
}

#[test]
fn supervisor_and_watchdog_killed_at_once_leave_nothing() {
    if !needs_root("supervisor_and_watchdog_killed_at_once_leave_nothing") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("both");
    let supervisor = tree(&rig, &marker);
    let watchdog = child(supervisor.pid().as_raw(), "agt-watchdog").expect("a watchdog");
    // The supervisor stands still meanwhile: it must not get to start another one between the two.
    supervisor.signal(Signal::SIGSTOP);
    send(watchdog, Signal::SIGKILL);
    supervisor.signal(Signal::SIGKILL);
    drop(supervisor);
    until("the tree is gone", || processes_with(&marker).is_empty());
}

#[test]
fn clean_end_leaves_no_watchdog_and_no_group() {
    if !needs_root("clean_end_leaves_no_watchdog_and_no_group") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("clean");
    let supervisor = tree(&rig, &marker);
    let watchdog = child(supervisor.pid().as_raw(), "agt-watchdog").expect("a watchdog");
    let record = std::fs::read_to_string(rig.state.join("cgroup.json")).unwrap();
    let tree: agt_rings::cgroup::Tree = serde_json::from_str(&record).unwrap();
    assert!(tree.exists());
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
    assert_ne!(called(watchdog), "agt-watchdog", "it ended with the supervisor");
    assert!(!tree.exists(), "its group is gone too");
}

/// The end must not come before the renewal has let go of the cgroups.
#[test]
fn agent_that_ends_while_the_watchdog_is_renewed_leaves_no_cgroups() {
    if !needs_root("agent_that_ends_while_the_watchdog_is_renewed_leaves_no_cgroups") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("renewed");
    let supervisor = tree(&rig, &marker);
    let record = rig.state.join("cgroup.json");
    let groups: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let groups = folders_in(&groups);
    assert!(groups.iter().all(|folder| std::path::Path::new(folder).exists()), "{groups:?}");
    let pid = supervisor.pid().as_raw();
    let (before, agent) = (children(pid), rig.ps()["agents"][0]["pid"].as_i64().unwrap());
    send(child(pid, "agt-watchdog").expect("a watchdog"), Signal::SIGKILL);
    // Held before it can say that it watches: the renewal lasts as long as this does. Looked for without a pause.
    let next = loop {
        if let Some(next) = children(pid).into_iter().find(|child| !before.contains(child)) {
            break next;
        }
    };
    send(next, Signal::SIGSTOP);
    send(i32::try_from(agent).unwrap(), Signal::SIGKILL);
    until("the agent is gone", || processes_with(&marker).is_empty() && children(pid).len() <= 2);
    let waits = std::thread::spawn(move || supervisor.wait());
    // An end that does not wait comes in this time; one that does is let go on.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while !waits.is_finished() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Gone already where the end did not wait.
    let _ = kill(Pid::from_raw(next), Signal::SIGCONT);
    let outcome = waits.join().unwrap();
    assert_eq!(outcome.code, 137, "{}", outcome.stderr);
    assert!(!record.exists(), "the record is left: {}", outcome.stderr);
    for folder in groups {
        assert!(!std::path::Path::new(&folder).exists(), "{folder} is left: {}", outcome.stderr);
    }
}

/// Every path that a record of cgroups names.
fn folders_in(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::String(text) if text.starts_with('/') => vec![text.clone()],
        serde_json::Value::Array(all) => all.iter().flat_map(folders_in).collect(),
        serde_json::Value::Object(all) => all.values().flat_map(folders_in).collect(),
        _ => Vec::new(),
    }
}
