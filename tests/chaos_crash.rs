//! Whoever dies in the middle of a fault: it is undone within a bounded time, and the next start settles what is open.

use std::path::PathBuf;

use agt_rings::cgroup::{Controller, Tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::chaos::{Scene, audit, pending_undos, report};
use crate::support::{Supervisor, effort, needs_root, processes_with, until};

/// The faults that change a file of the agent's cgroup or start a process, and what shows them.
struct Fault {
    yaml: &'static str,
    controller: Controller,
    file: &'static [&'static str],
}

/// The cgroup of the agent's first life, where `controller` is.
fn group(scene: &Scene, controller: Controller) -> PathBuf {
    let tree: Tree = serde_json::from_slice(&std::fs::read(scene.rig.state.join("cgroup.json")).unwrap()).unwrap();
    let parent = if tree.unified_controllers.contains(&controller) {
        tree.unified.unwrap()
    } else {
        tree.legacy.into_iter().find(|dir| dir.controllers.contains(&controller)).unwrap().dir
    };
    let named = |dir: &PathBuf| dir.join("agent-ticker-1");
    let nested = |dir: &PathBuf| {
        let entries = std::fs::read_dir(dir).unwrap().filter_map(Result::ok).map(|entry| entry.path());
        entries.map(|path| named(&path)).find(|path| path.is_dir())
    };
    Some(named(&parent)).filter(|path| path.is_dir()).or_else(|| nested(&parent)).unwrap()
}

/// Children of the supervisor that were started under another name.
fn children(supervisor: &Supervisor, name: &str) -> Vec<i32> {
    let parent = supervisor.pid().to_string();
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(parent.as_str()))
    };
    processes_with(name).into_iter().filter(is_child).collect()
}

fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
}

fn settled_at_the_next_start(scene: &Scene) {
    let again = scene.start();
    assert_eq!(pending_undos(&scene.rig.state), 0, "the next start settles it");
    let records = audit(&scene.rig);
    assert!(records.contains("replayed at the start"), "{records}");
    assert_eq!(records.matches("chaos.begin").count(), records.matches("chaos.end").count(), "{records}");
    let shown = scene.rig.output(["chaos", "report", "--json"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let report = report(&shown);
    assert_eq!((&report["verdict"], &report["undo"]["state"]), (&"aborted".into(), &"undone".into()), "{report:#}");
    assert_eq!(report["abort"]["abort"], "supervisor-died", "{report:#}");
    drop(again);
}

#[test]
fn each_fault_is_undone_when_the_supervisor_is_killed() {
    if !needs_root("each_fault_is_undone_when_the_supervisor_is_killed") {
        return;
    }
    let faults = [
        Fault {
            yaml: "template: cpu-squeeze\nparameters: {cpu: 1%}",
            controller: Controller::Cpu,
            file: &["cpu.cfs_quota_us", "cpu.max"],
        },
        Fault {
            yaml: "template: memory-pressure\nparameters: {memory: 48MiB, rate: 1MiB}",
            controller: Controller::Memory,
            file: &["memory.limit_in_bytes", "memory.max"],
        },
    ];
    for Fault { yaml, controller, file } in faults {
        let scene = Scene::new();
        scene.agent_also("limits: {memory: 64MiB, cpu: 50%}");
        scene.inject(yaml);
        scene.hang_for("10m");
        let supervisor = scene.start();
        let dir = group(&scene, controller);
        let file = file.iter().map(|name| dir.join(name)).find(|path| path.exists()).unwrap();
        let read = || std::fs::read_to_string(&file).ok();
        let before = read().unwrap();
        let client = scene.begin();
        until("the limit is lowered", || read().is_some_and(|now| now != before));
        let lowered = read().unwrap();
        let pressing = yaml.contains("memory");
        let hogs = || children(&supervisor, "agt-chaos-hog");
        until("a hog presses", || !pressing || !hogs().is_empty());
        let ours: Vec<i32> = hogs().into_iter().chain(children(&supervisor, "agt-chaos-guardian")).collect();
        assert_eq!(ours.len(), 1 + usize::from(pressing), "{yaml}");
        assert_eq!(pending_undos(&scene.rig.state), 1, "the way back is on the disk while the fault acts");
        supervisor.signal(Signal::SIGKILL);
        assert_eq!(supervisor.wait().code, 137);
        assert_eq!(client.wait().code, 69);
        // The kill of a dead supervisor's agents lifts quotas altogether.
        until("the limit is back", || read().is_none_or(|now| now != lowered));
        until("hog and guardian are gone", || ours.iter().all(|pid| is_gone(*pid)));
        until("the agent is gone", || processes_with(&scene.mark).is_empty());
        settled_at_the_next_start(&scene);
    }
}

#[test]
fn spent_files_are_settled_after_a_crash() {
    if !needs_root("spent_files_are_settled_after_a_crash") {
        return;
    }
    let scene = Scene::new();
    scene.inject("template: fd-exhaustion");
    scene.hang_for("10m");
    let supervisor = scene.start();
    let client = scene.begin();
    until("the fault is injected", || {
        let limits = processes_with(&scene.mark).into_iter();
        let limits = limits.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
        let low = |text: &String| {
            let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
            line.split_whitespace().nth(3).unwrap().parse::<u64>().is_ok_and(|soft| soft < 32)
        };
        limits.into_iter().any(|text| low(&text))
    });
    supervisor.signal(Signal::SIGKILL);
    assert_eq!(supervisor.wait().code, 137);
    assert_eq!(client.wait().code, 69);
    until("the agent is gone", || processes_with(&scene.mark).is_empty());
    settled_at_the_next_start(&scene);
}

#[test]
fn a_lowered_score_is_gone_with_the_supervisor_that_lowered_it() {
    let scene = Scene::new();
    scene.agent_also(effort().trim_end());
    scene.inject("template: trust-manipulation");
    scene.hang_for("10m");
    let supervisor = scene.start();
    let client = scene.begin();
    let trust = || -> Value {
        let shown = scene.rig.output(["trust", "show", "ticker", "--json"]);
        serde_json::from_str::<Value>(&shown.stdout).unwrap()[0].clone()
    };
    until("the score is lowered", || trust()["score"] == 300);
    supervisor.signal(Signal::SIGKILL);
    assert_eq!(supervisor.wait().code, 137);
    assert_eq!(client.wait().code, 69);
    until("the agent is gone", || processes_with(&scene.mark).is_empty());
    let after = trust();
    assert_eq!((&after["score"], &after["baseline"]), (&700.into(), &700.into()), "before any start: {after:#}");
    assert_eq!(pending_undos(&scene.rig.state), 1);
    settled_at_the_next_start(&scene);
    assert_eq!(trust()["score"], 700);
}

#[test]
fn without_a_guardian_no_fault_goes_on() {
    if !needs_root("without_a_guardian_no_fault_goes_on") {
        return;
    }
    let scene = Scene::new();
    scene.hang_for("10m");
    let supervisor = scene.start();
    let client = scene.begin();
    scene.until_frozen();
    let guardians = children(&supervisor, "agt-chaos-guardian");
    assert_eq!(guardians.len(), 1);
    kill(Pid::from_raw(guardians[0]), Signal::SIGKILL).unwrap();
    scene.until_ticking();
    let outcome = client.wait();
    let report = report(&outcome);
    assert_eq!((outcome.code, &report["verdict"]), (1, &"aborted".into()), "{report:#}");
    assert_eq!(report["undo"]["state"], "undone");
    assert_eq!(pending_undos(&scene.rig.state), 0);
}

#[test]
fn an_abort_in_the_middle_of_a_pressing_leaves_no_hog() {
    if !needs_root("an_abort_in_the_middle_of_a_pressing_leaves_no_hog") {
        return;
    }
    let scene = Scene::new();
    scene.agent_also("limits: {memory: 64MiB}");
    scene.inject("template: memory-pressure\nparameters: {rate: 1MiB}");
    scene.hang_for("10m");
    let supervisor = scene.start();
    let client = scene.begin();
    let dir = group(&scene, Controller::Memory);
    let members = || std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let hogs = || children(&supervisor, "agt-chaos-hog");
    until("a hog presses inside the group", || {
        hogs().first().is_some_and(|hog| members().lines().any(|pid| pid == hog.to_string()))
    });
    assert_eq!(scene.rig.output(["chaos", "abort", "--reason", "seen enough"]).code, 0);
    let outcome = client.wait();
    let report = report(&outcome);
    assert_eq!((&report["verdict"], &report["undo"]["state"]), (&"aborted".into(), &"undone".into()), "{report:#}");
    assert!(hogs().is_empty(), "gone when the report is there");
    scene.until_ticking();
}

#[test]
fn a_limit_that_an_operator_sets_during_an_experiment_outlives_its_undo() {
    if !needs_root("a_limit_that_an_operator_sets_during_an_experiment_outlives_its_undo") {
        return;
    }
    let scene = Scene::new();
    scene.agent_also("limits: {memory: 64MiB, cpu: 50%}");
    scene.inject("template: cpu-squeeze\nparameters: {cpu: 1%}");
    scene.hang_for("10m");
    let supervisor = scene.start();
    let dir = group(&scene, Controller::Cpu);
    let file =
        ["cpu.cfs_quota_us", "cpu.max"].map(|name| dir.join(name)).into_iter().find(|path| path.exists()).unwrap();
    let quota = || std::fs::read_to_string(&file).unwrap().split_whitespace().next().unwrap().to_owned();
    let before = quota();
    let client = scene.begin();
    until("the quota is lowered", || quota() != before);
    let set = scene.rig.output(["limits", "set", "ticker", "cpu=30%", "--reason", "meanwhile"]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(scene.rig.output(["chaos", "abort", "--reason", "seen enough"]).code, 0);
    let report = report(&client.wait());
    assert_eq!((&report["verdict"], &report["undo"]["state"]), (&"aborted".into(), &"undone".into()), "{report:#}");
    assert_eq!(quota(), "30000", "the operator's, not the {before} of before");
    assert_eq!(scene.rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}
