//! Groups, bases and the life after a crash.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::unistd::Pid;

use crate::cgroup::base::{agents_of, sweep_recorded};
use crate::cgroup::error::Error;
use crate::cgroup::fixture::{Agent, PATIENCE, Rig, skip, until};
use crate::cgroup::layout::{Controller, Gap, GapReason, Place};
use crate::cgroup::subtree;
use crate::cgroup::{Base, Grip, Layout, Limits};

use super::{MIB, NONE, end, is_alive, tree_of};

#[test]
fn agents_weigh_less_than_everything_beside_them_also_after_a_kill() {
    Rig::each("agents_weigh_less_than_everything_beside_them_also_after_a_kill", |rig| {
        let weight = || fs::read_to_string(rig.base().tree().weight.as_ref().unwrap()).unwrap().trim().to_owned();
        let low = weight();
        assert!(low == "20" || low == "204", "{low}");
        let group = rig.group("light", NONE);
        let agent = tree_of(&group, 1, "exec sleep 1000");
        end(&group);
        assert_eq!(weight(), low);
        drop(agent);
    });
}

#[test]
fn child_joins_every_hierarchy_by_itself() {
    Rig::each("child_joins_every_hierarchy_by_itself", |rig| {
        let group = rig.group("join", NONE);
        let join = group.join().unwrap();
        assert_eq!(join.into_cgroup.is_some(), rig.layout.unified.is_some());
        let files = join.tasks.iter().chain(&join.procs);
        let paths: Vec<String> =
            files.map(|fd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())).collect();
        let mut agent = Agent::at_gate("for file in \"$@\"; do echo 0 > \"$file\"; done; exec sleep 1000", &paths);
        agent.open_gate();
        let mut missing = Vec::new();
        until("it is everywhere", || {
            missing = group.tree().dirs().map(|dir| dir.join("cgroup.procs")).collect();
            missing.retain(|path| fs::read_to_string(path).unwrap().trim() != agent.pid().to_string());
            missing.is_empty()
        });
        assert_eq!(group.pids().unwrap(), [agent.pid()]);
        end(&group);
    });
}

#[test]
fn names_and_limits_that_can_not_be_leave_no_group() {
    Rig::each("names_and_limits_that_can_not_be_leave_no_group", |rig| {
        for name in ["", "a/b", "a\nb", &"x".repeat(129)] {
            assert!(matches!(rig.base().create(name, &NONE), Err(Error::Name { .. })), "{name}");
        }
        let refused = rig.base().create("zero", &Limits { tasks: Some(0), ..NONE });
        assert!(matches!(refused, Err(Error::ImpossibleLimit { .. })));
        let first = rig.group("zero", NONE);
        assert!(matches!(rig.base().create("zero", &NONE), Err(Error::Create { .. })));
        // Names of the kernel's own files are names like any other.
        for name in ["tasks", "memory.max", "..", "cgroup.procs"] {
            rig.group(name, NONE).remove(PATIENCE).unwrap();
        }
        first.remove(PATIENCE).unwrap();
    });
}

#[test]
fn group_with_processes_is_not_removed() {
    Rig::each("group_with_processes_is_not_removed", |rig| {
        let group = rig.group("full", NONE);
        let agent = Agent::start(&group, "exec sleep 1000");
        let tree = group.tree().clone();
        let refused = group.remove(Duration::from_millis(5));
        assert!(matches!(&refused, Err(Error::NotEmpty { pids, .. }) if *pids == [agent.pid()]), "{refused:?}");
        assert_eq!(Grip::open(tree.clone()).unwrap().kill(PATIENCE).unwrap().processes, 1);
        tree.remove(PATIENCE).unwrap();
    });
}

#[test]
fn limit_whose_controller_is_missing_is_refused_and_the_rest_still_works() {
    Rig::each("limit_whose_controller_is_missing_is_refused_and_the_rest_still_works", |rig| {
        let mut layout = rig.layout.clone();
        let gap = Gap { controller: Controller::Memory, reason: GapReason::NotOffered };
        layout.legacy.retain(|(controller, _)| *controller != Controller::Memory);
        if let Some(unified) = &mut layout.unified {
            unified.offered.retain(|controller| *controller != Controller::Memory);
        }
        layout.gaps.push(gap.clone());
        let base = Base::open(&layout, &format!("{}-part", rig.id), &[]).unwrap();
        if base.keeps(Controller::Memory) {
            base.close().unwrap();
            return skip("limit_whose_controller_is_missing", "memory is on for every group here");
        }
        assert_eq!(base.gaps(), std::slice::from_ref(&gap));
        let refused = base.create("a", &Limits { memory_bytes: Some(MIB), ..NONE });
        assert!(matches!(refused, Err(Error::NoController(g)) if g == gap));
        let group = base.create("a", &Limits { tasks: Some(5), ..NONE }).unwrap();
        let agent = tree_of(&group, 1, "exec sleep 1000");
        assert_eq!(group.usage().unwrap().memory_bytes, None);
        assert_eq!(group.kill(PATIENCE).unwrap().processes, 1);
        drop(agent);
        base.close().unwrap();
    });
}

#[test]
fn next_life_sweeps_what_the_last_one_left() {
    Rig::each("next_life_sweeps_what_the_last_one_left", |rig| {
        let (one, two) = (rig.group("one", NONE), rig.group("two", NONE));
        let agents = [tree_of(&one, 1, "setsid sleep 1000 & wait"), tree_of(&two, 1, "exec sleep 1000")];
        rig.base().agents().freeze(PATIENCE).unwrap();
        // The last life's handles are dropped without a clean-up, as a SIGKILL would.
        drop((one, two));
        let again = Base::open(&rig.layout, &rig.id, &[]).unwrap();
        let report = again.sweep(PATIENCE).unwrap();
        assert_eq!((report.groups, report.processes), (2, 3));
        until("they have ended", || !agents.iter().any(|agent| is_alive(agent.pid())));
        assert!(again.agents().tree().is_empty().unwrap());
        assert_eq!(again.sweep(PATIENCE).unwrap().groups, 0);
        let group = again.create("one", &NONE).unwrap();
        let agent = tree_of(&group, 1, "exec sleep 1000");
        end(&group);
        drop(agent);
        group.remove(PATIENCE).unwrap();
    });
}

#[test]
fn recorded_base_is_killed_and_swept_by_its_record_alone() {
    Rig::each("recorded_base_is_killed_and_swept_by_its_record_alone", |rig| {
        let record = serde_json::to_string(rig.base().tree()).unwrap();
        let group = rig.group("far", Limits { cpu_millis: Some(100), ..NONE });
        let agent = tree_of(&group, 1, "exec sleep 1000");
        let recorded = serde_json::from_str(&record).unwrap();
        let everybody = Grip::open(agents_of(&recorded).unwrap()).unwrap();
        assert_eq!(everybody.kill(PATIENCE).unwrap().processes, 1);
        until("it has ended", || !is_alive(agent.pid()));
        drop(agent);
        let agent = tree_of(&group, 1, "exec sleep 1000");
        if recorded.pids().unwrap().contains(&Pid::this().as_raw()) {
            // On v2 this test itself sits in the base: no sweep may end it.
            assert!(matches!(sweep_recorded(&recorded, PATIENCE), Err(Error::NotOurs { .. })));
            end(&group);
        } else {
            assert_eq!(sweep_recorded(&recorded, PATIENCE).unwrap().processes, 1);
            assert!(!recorded.exists());
        }
        drop(agent);
    });
}

/// This process in a group below the real v2 root, as a service or a container would be; back at the root afterwards.
struct Inner {
    root: std::path::PathBuf,
    own: std::path::PathBuf,
}

impl Inner {
    fn enter(root: &std::path::Path) -> Inner {
        let own = root.join(format!("inner-test-{}", std::process::id()));
        fs::create_dir(&own).unwrap();
        let inner = Inner { root: root.to_owned(), own };
        subtree::move_into(&inner.own, Pid::this().as_raw()).unwrap();
        inner
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let left = subtree::move_into(&self.root, Pid::this().as_raw());
        let removed = fs::remove_dir(&self.own);
        if !std::thread::panicking() {
            left.unwrap();
            removed.unwrap();
        }
    }
}

#[test]
fn own_v2_group_is_emptied_into_a_leaf_and_given_back() {
    let name = "own_v2_group_is_emptied_into_a_leaf_and_given_back";
    let Some(rig) = Rig::host(name) else { return };
    let Some(root) = rig.layout.unified.as_ref().filter(|u| u.place == Place::Root && !u.offered.is_empty()) else {
        return skip(name, "needs the real root of a v2 hierarchy with controllers");
    };
    let inner = Inner::enter(&root.own);
    let helper = Agent::at_gate("exec sleep 1000", &[]);
    let layout = Layout::detect().unwrap();
    assert_eq!(layout.unified.as_ref().map(|u| (u.own.as_path(), u.place)), Some((inner.own.as_path(), Place::Inner)));

    let shared = Base::open(&layout, "shared", &[]).unwrap();
    assert_eq!(shared.gaps().len(), 3, "{:?}", shared.gaps());
    assert!(
        shared.gaps().iter().all(|g| matches!(&g.reason, GapReason::Shared { pids, .. } if *pids == [helper.pid()]))
    );
    assert!(matches!(shared.create("a", &Limits { tasks: Some(5), ..NONE }), Err(Error::NoController(_))));
    let group = shared.create("a", &NONE).unwrap();
    let agent = tree_of(&group, 1, "exec sleep 1000");
    assert_eq!(group.kill(PATIENCE).unwrap().processes, 1);
    drop(agent);
    shared.close().unwrap();

    let base = Base::open(&layout, "alone", &[helper.pid()]).unwrap();
    assert_eq!(base.gaps(), []);
    let leaf = base.tree().child("supervisor").unified.unwrap();
    let members = fs::read_to_string(leaf.join("cgroup.procs")).unwrap();
    assert_eq!(members.lines().count(), 2, "{members}");
    // A second look from inside the leaf finds the same base and nests no deeper.
    let again = Base::open(&Layout::detect().unwrap(), "alone", &[helper.pid()]).unwrap();
    assert_eq!(again.tree(), base.tree());
    let group =
        base.create("a", &Limits { memory_bytes: Some(64 * MIB), cpu_millis: Some(500), tasks: Some(5) }).unwrap();
    let agent = tree_of(&group, 1, "exec sleep 1000");
    // What is in the leaf and not ours is of an earlier life.
    let stranger = Agent::at_gate("exec sleep 1000", &[]);
    assert_eq!(again.sweep(PATIENCE).unwrap().processes, 2);
    until("strangers have ended", || !is_alive(stranger.pid()) && !is_alive(agent.pid()));
    assert!(is_alive(helper.pid()));
    base.close().unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(own.trim_end().ends_with(inner.own.file_name().unwrap().to_str().unwrap()), "{own}");
    drop(helper);
}
