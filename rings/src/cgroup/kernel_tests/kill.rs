//! Every kind of tree, ended by every means.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::error::Error;
use crate::cgroup::fixture::{Agent, PATIENCE, Rig, skip, until};
use crate::cgroup::kill::Means;
use crate::cgroup::layout::Controller;
use crate::cgroup::tree::Tree;
use crate::cgroup::{Grip, Limits};

use super::{BOMB, NONE, TREES, end, is_alive, tree_of};

/// Kills by every means that the group's files allow, each a tree of its own.
#[test]
fn killed_trees_leave_nothing_by_any_means() {
    Rig::each("killed_trees_leave_nothing_by_any_means", |rig| {
        for (name, sleeps, script) in TREES {
            for means in [Means::CgroupKill, Means::FreezeV2, Means::FreezerV1, Means::Signals] {
                let group = rig.group("tree", NONE);
                let grip = Grip::open(group.tree().clone()).unwrap();
                let v2 = rig.layout.unified.is_some();
                if v2 == (means == Means::FreezerV1) || !v2 && matches!(means, Means::CgroupKill | Means::FreezeV2) {
                    group.remove(PATIENCE).unwrap();
                    continue;
                }
                let agent = tree_of(&group, sleeps, script);
                let before = group.pids().unwrap();
                let report = grip.kill_by(means, PATIENCE).unwrap();
                assert!(report.processes >= sleeps, "{name} by {means:?}: {report:?}");
                assert!(report.rounds >= 1 && report.means == means);
                assert!(group.is_empty().unwrap() && group.pids().unwrap().is_empty());
                // The group is empty once the last task is past its memory and files; it ends a moment later.
                until(&format!("all of {name} have ended"), || !before.iter().any(|&pid| is_alive(pid)));
                let tree = group.tree().clone();
                group.remove(PATIENCE).unwrap();
                assert!(!tree.exists());
                drop(agent);
            }
        }
    });
}

#[test]
fn best_means_of_the_host_is_chosen() {
    Rig::each("best_means_of_the_host_is_chosen", |rig| {
        let group = rig.group("means", NONE);
        let agent = tree_of(&group, 1, "exec sleep 1000");
        let means = group.kill(PATIENCE).unwrap().means;
        let expected = if rig.layout.unified.is_some() { Means::CgroupKill } else { Means::FreezerV1 };
        assert_eq!(means, expected);
        drop(agent);
    });
}

#[test]
fn kill_of_an_empty_group_strikes_nobody() {
    Rig::each("kill_of_an_empty_group_strikes_nobody", |rig| {
        let group = rig.group("empty", NONE);
        let report = group.kill(PATIENCE).unwrap();
        assert_eq!((report.processes, report.rounds), (0, 0));
    });
}

#[test]
fn stopped_and_frozen_trees_die_and_thaw() {
    Rig::each("stopped_and_frozen_trees_die_and_thaw", |rig| {
        let group = rig.group("cold", NONE);
        let agent = tree_of(&group, 2, "sleep 1000 & sleep 1000 & wait");
        for pid in group.pids().unwrap() {
            kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        }
        group.freeze(PATIENCE).unwrap();
        assert!(group.is_frozen().unwrap());
        let report = group.kill(PATIENCE).unwrap();
        assert_eq!(report.processes, 3);
        assert!(group.is_empty().unwrap());
        assert!(!group.is_frozen().unwrap());
        drop(agent);
        let agent = tree_of(&group, 1, "exec sleep 1000");
        end(&group);
        drop(agent);
    });
}

#[test]
fn members_of_nested_groups_die_too_and_the_nest_is_removed() {
    Rig::each("members_of_nested_groups_die_too_and_the_nest_is_removed", |rig| {
        let group = rig.group("nest", NONE);
        let inner = group.tree().child("inner");
        inner.create().unwrap();
        let deep = inner.child("deep");
        deep.create().unwrap();
        let agent = Agent::start(&group, "exec sleep 1000");
        let mut hidden = Agent::at_gate("sleep 1000 & wait", &[]);
        deep.dirs().for_each(|dir| fs::write(dir.join("cgroup.procs"), hidden.pid().to_string()).unwrap());
        hidden.open_gate();
        until("the nest is full", || group.pids().unwrap().len() >= 3);
        // Frozen by itself: the kill must reach it all the same.
        let nested = Grip::open(deep).unwrap();
        nested.freeze(PATIENCE).unwrap();
        assert!(group.kill(PATIENCE).unwrap().processes >= 3);
        assert!(group.is_empty().unwrap());
        until("the nested one has ended", || !is_alive(hidden.pid()));
        let tree = group.tree().clone();
        group.remove(PATIENCE).unwrap();
        assert!(!tree.exists());
        drop(agent);
    });
}

#[test]
fn process_in_one_hierarchy_alone_is_found_and_ended() {
    let name = "process_in_one_hierarchy_alone_is_found_and_ended";
    let Some(rig) = Rig::host(name) else { return };
    let group = rig.group("straggler", NONE);
    let Some(pids) = group.tree().legacy_dir(Controller::Pids) else { return skip(name, "no v1 hierarchy here") };
    let mut agent = Agent::at_gate("exec sleep 1000", &[]);
    fs::write(pids.join("cgroup.procs"), agent.pid().to_string()).unwrap();
    agent.open_gate();
    assert!(!group.is_empty().unwrap());
    let report = group.kill(PATIENCE).unwrap();
    assert!(report.processes >= 1);
    until("it has ended", || !is_alive(agent.pid()));
    assert!(group.is_empty().unwrap());
}

#[test]
fn fork_bomb_meets_its_limit_and_dies() {
    Rig::each("fork_bomb_meets_its_limit_and_dies", |rig| {
        let group = rig.group("bomb", Limits { tasks: Some(48), cpu_millis: Some(500), ..NONE });
        let agent = Agent::start(&group, BOMB);
        until("the bomb meets its limit", || group.usage().unwrap().tasks_limit_hits > Some(0));
        assert!(group.usage().unwrap().tasks <= Some(48));
        let report = group.kill(PATIENCE).unwrap();
        assert!(report.processes > 24, "{report:?}");
        assert!(group.is_empty().unwrap() && group.pids().unwrap().is_empty());
        drop(agent);
    });
}

/// The test runs itself again as the process that has no descriptor left.
#[test]
fn kill_needs_no_free_descriptor_on_v2() {
    let name = "kill_needs_no_free_descriptor_on_v2";
    if let Ok(tree) = std::env::var("AGT_TEST_CGROUP_TREE") {
        let grip = Grip::open(serde_json::from_str(&tree).unwrap()).unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // 0, 1 and 2 are taken: nothing can be opened any more.
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        assert!(fs::File::open("/dev/null").is_err());
        assert_eq!(grip.kill(PATIENCE).unwrap().rounds, 1);
        return;
    }
    let Some(rig) = Rig::host(name) else { return };
    let group = rig.group("poor", NONE);
    let Some(unified) = group.tree().unified.clone() else { return skip(name, "no v2 hierarchy here") };
    let agent = tree_of(&group, 2, "sleep 1000 & sleep 1000 & wait");
    let tree = Tree { unified: Some(unified), ..Tree::default() };
    let mut poor = Command::new(std::env::current_exe().unwrap());
    poor.args(["--exact", "cgroup::kernel_tests::kill::kill_needs_no_free_descriptor_on_v2"]);
    let out = poor.env("AGT_TEST_CGROUP_TREE", serde_json::to_string(&tree).unwrap()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    assert!(group.is_empty().unwrap());
    drop(agent);
}

#[test]
fn survivors_are_named_when_the_time_is_over() {
    Rig::each("survivors_are_named_when_the_time_is_over", |rig| {
        let group = rig.group("late", NONE);
        let agent = tree_of(&group, 1, "exec sleep 1000");
        let late = Grip::open(group.tree().clone()).unwrap().kill_by(Means::Signals, Duration::ZERO);
        match late {
            // With no time at all there is one blow and one look: either verdict is honest, but never a false one.
            Ok(report) => assert!(group.is_empty().unwrap(), "{report:?}"),
            Err(Error::Survivors { pids, .. }) => assert!(pids.iter().all(|pid| *pid == agent.pid()), "{pids:?}"),
            Err(other) => panic!("{other}"),
        }
        end(&group);
    });
}
