//! Real children in real groups: what is claimed here is what the kernel did. Each runs on this host's layout and, where
//! there is a v1 freezer, again as on a host without v2.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::base::{agents_of, sweep_recorded};
use super::error::Error;
use super::fixture::{Agent, PATIENCE, Rig, skip, until};
use super::freeze::State;
use super::kill::Means;
use super::layout::{Controller, Gap, GapReason, Place};
use super::subtree;
use super::tree::{Tree, Version};
use super::{Base, Grip, Group, Layout, Limits};

const NONE: Limits = Limits { memory_bytes: None, cpu_millis: None, tasks: None };
const MIB: u64 = 1 << 20;

/// Trees that get away from a signal to the process, or to its process group, with the number of their `sleep`s.
const TREES: [(&str, usize, &str); 5] = [
    ("sleepers", 8, "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait"),
    ("own sessions", 4, "for i in 1 2 3 4; do setsid sleep 1000 & done; wait"),
    ("double fork", 5, "for i in 1 2 3 4; do (setsid sleep 1000 &) & done; sleep 1000"),
    (
        "deaf to signals",
        2,
        "trap '' TERM INT HUP QUIT; for i in 1 2; do sh -c 'while :; do sleep 1000; done' & done; wait",
    ),
    ("parent gone", 4, "for i in 1 2 3 4; do setsid sleep 1000 & done"),
];

/// A shell whose fork is refused exits: the trap turns it into a new one, so that the bomb does not burn out.
const BOMB: &str =
    r#"export BOMB='trap "exec sh -c \"\$BOMB\"" EXIT; while :; do sh -c "$BOMB" & done'; exec sh -c "$BOMB""#;

/// A tree that has grown to this many `sleep`s.
fn tree_of(group: &Group, sleeps: usize, script: &str) -> Agent {
    let agent = Agent::start(group, script);
    until("the tree has grown", || group.pids().unwrap().into_iter().filter(|&pid| is_sleep(pid)).count() == sleeps);
    agent
}

/// Ends what the test started.
fn end(group: &Group) {
    let report = group.kill(PATIENCE).unwrap();
    assert!(group.is_empty().unwrap(), "{report:?}");
}

fn is_sleep(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|b| *b == 0).any(|word| word == b"1000"))
        && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

fn is_alive(pid: i32) -> bool {
    // A zombie has ended; only its parent has not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X'])))
}

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

#[test]
fn memory_hog_is_ended_at_its_limit_and_counted() {
    Rig::each("memory_hog_is_ended_at_its_limit_and_counted", |rig| {
        let limit = 16 * MIB;
        let group = rig.group("hog", Limits { memory_bytes: Some(limit), ..NONE });
        let mut agent = Agent::start(&group, "x=0123456789abcdef; while :; do x=$x$x; done");
        let status = agent.child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status:?}");
        let usage = group.usage().unwrap();
        assert!(usage.oom_kills >= Some(1), "{usage:?}");
        assert!(usage.memory_limit_hits.is_none_or(|hits| hits > 0), "{usage:?}");
        assert!(usage.memory_peak_bytes.is_none_or(|peak| peak <= limit && peak > limit / 2), "{usage:?}");
        until("the hog's group is empty", || group.is_empty().unwrap());
    });
}

#[test]
fn out_of_memory_takes_the_whole_agent_on_v2() {
    let name = "out_of_memory_takes_the_whole_agent_on_v2";
    let Some(rig) = Rig::host(name) else { return };
    let group = rig.group("family", Limits { memory_bytes: Some(16 * MIB), ..NONE });
    if !matches!(group.tree().place(Controller::Memory), Some((_, Version::V2))) {
        return skip(name, "memory is on v1 here, where the OOM killer takes one process");
    }
    let mut agent =
        Agent::start(&group, "sleep 1000 & sh -c 'x=0123456789abcdef; while :; do x=$x$x; done' & wait; wait");
    agent.child.wait().unwrap();
    until("everybody is gone", || group.is_empty().unwrap());
    assert!(group.usage().unwrap().oom_kills >= Some(1));
}

fn held(group: &Group, controller: Controller, v1: &str, v2: &str) -> String {
    let (dir, version) = group.tree().place(controller).unwrap();
    fs::read_to_string(dir.join(if version == Version::V1 { v1 } else { v2 })).unwrap().trim().to_owned()
}

#[test]
fn limits_are_in_the_kernel_and_change_live() {
    Rig::each("limits_are_in_the_kernel_and_change_live", |rig| {
        let memory = |group: &Group| held(group, Controller::Memory, "memory.limit_in_bytes", "memory.max");
        let cpu = |group: &Group| held(group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
        // Not a whole page: the kernel rounds down, never up.
        let group =
            rig.group("limits", Limits { memory_bytes: Some(64 * MIB + 5), cpu_millis: Some(500), tasks: Some(7) });
        assert_eq!(memory(&group), (64 * MIB).to_string());
        assert!(cpu(&group).starts_with("50000"), "{}", cpu(&group));
        let agent = Agent::start(&group, "exec sleep 1000");
        for (bytes, millis) in [(256 * MIB, 5), (32 * MIB, 1500), (128 * MIB, 10)] {
            let limits = Limits { memory_bytes: Some(bytes), cpu_millis: Some(millis), tasks: Some(9) };
            group.set_limits(&limits).unwrap();
            assert_eq!(memory(&group), bytes.to_string());
            assert_eq!(held(&group, Controller::Pids, "pids.max", "pids.max"), "9");
            assert_eq!(group.limits(), limits);
        }
        group.set_limits(&NONE).unwrap();
        assert!(cpu(&group).starts_with("-1") || cpu(&group).starts_with("max"), "{}", cpu(&group));
        assert_eq!(held(&group, Controller::Pids, "pids.max", "pids.max"), "max");
        end(&group);
        drop(agent);
    });
}

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
fn quota_throttles_is_lifted_by_the_kill_and_back_at_the_next_join() {
    Rig::each("quota_throttles_is_lifted_by_the_kill_and_back_at_the_next_join", |rig| {
        let quota = |group: &Group| held(group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
        let group = rig.group("busy", Limits { cpu_millis: Some(100), ..NONE });
        let agent = Agent::start(&group, "while :; do :; done");
        until("the quota has run out once", || group.usage().unwrap().cpu_throttled_periods > Some(0));
        let usage = group.usage().unwrap();
        assert!(usage.cpu_usec > Some(0) && usage.cpu_throttled_usec.is_some(), "{usage:?}");
        let before = quota(&group);
        end(&group);
        assert_ne!(quota(&group), before);
        drop(group.join().unwrap());
        assert_eq!(quota(&group), before);
        drop(agent);
    });
}

#[test]
fn frozen_tree_uses_no_cpu_and_goes_on_after_the_thaw() {
    Rig::each("frozen_tree_uses_no_cpu_and_goes_on_after_the_thaw", |rig| {
        let group = rig.group("ice", NONE);
        let agent = Agent::start(&group, "while :; do :; done");
        until("it runs", || group.usage().unwrap().cpu_usec > Some(0));
        group.freeze(PATIENCE).unwrap();
        assert!(group.is_frozen().unwrap());
        let cpu = || group.usage().unwrap().cpu_usec.unwrap();
        // The time of the last tick may be booked a moment late: two equal readings, then one more that must not differ.
        let mut last = cpu();
        until("the books are closed", || std::mem::replace(&mut last, cpu()) == last);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(cpu(), last);
        group.thaw(PATIENCE).unwrap();
        assert!(!group.is_frozen().unwrap());
        until("it runs again", || cpu() > last);
        end(&group);
        drop(agent);
    });
}

#[test]
fn frozen_parent_is_told_when_a_thaw_can_not_settle() {
    Rig::each("frozen_parent_is_told_when_a_thaw_can_not_settle", |rig| {
        let group = rig.group("below", NONE);
        let agent = Agent::start(&group, "exec sleep 1000");
        rig.base().agents().freeze(PATIENCE).unwrap();
        let refused = group.thaw(Duration::from_millis(20));
        assert!(matches!(refused, Err(Error::NotSettled { wanted: "thawed", .. })), "{refused:?}");
        // Even so a kill gets through, once whoever froze the parent lets go or on v2 at once.
        if rig.layout.unified.is_none() {
            rig.base().agents().thaw(PATIENCE).unwrap();
        }
        end(&group);
        if rig.layout.unified.is_some() {
            assert!(matches!(group.join(), Err(Error::NotSettled { .. })));
        }
        rig.base().agents().thaw(PATIENCE).unwrap();
        drop(group.join().unwrap());
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

/// The test runs itself again as the process that has no descriptor left.
#[test]
fn kill_needs_no_free_descriptor_on_v2() {
    let name = "kill_needs_no_free_descriptor_on_v2";
    if let Ok(tree) = std::env::var("AGT_TEST_TREE") {
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
    poor.args(["--exact", "cgroup::kernel_tests::kill_needs_no_free_descriptor_on_v2"]);
    let out = poor.env("AGT_TEST_TREE", serde_json::to_string(&tree).unwrap()).output().unwrap();
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

#[test]
fn waiting_for_a_state_that_does_not_come_is_bounded() {
    Rig::each("waiting_for_a_state_that_does_not_come_is_bounded", |rig| {
        let group = rig.group("wait", NONE);
        let agent = tree_of(&group, 1, "exec sleep 1000");
        let grip = Grip::open(group.tree().clone()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_millis(20);
        assert!(!grip.wait_state(State::Frozen, deadline).unwrap());
        end(&group);
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
