//! Limits, usage, freezing: what holds while an agent runs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::cgroup::error::Error;
use crate::cgroup::fixture::{Agent, PATIENCE, Rig, skip, until};
use crate::cgroup::freeze::State;
use crate::cgroup::layout::Controller;
use crate::cgroup::tree::Version;
use crate::cgroup::{Alarm, Grip, Group, Limits, Wait};

use super::{MIB, NONE, end, tree_of};

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
fn quota_throttles_is_lifted_by_the_kill_and_back_at_the_next_join() {
    Rig::each("quota_throttles_is_lifted_by_the_kill_and_back_at_the_next_join", |rig| {
        let quota = |group: &Group| held(group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
        // So little that it runs out on a busy machine too.
        let group = rig.group("busy", Limits { cpu_millis: Some(20), ..NONE });
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
        // Time used before may be booked a moment late; a shell that still runs never stands still for so long.
        let mut last = cpu();
        until("no more CPU is used", || {
            std::thread::sleep(Duration::from_millis(50));
            std::mem::replace(&mut last, cpu()) == last
        });
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

/// Whether one of the alarms rings within [`PATIENCE`].
fn rings(alarms: &[Alarm]) -> bool {
    let wanted = |alarm: &Alarm| if alarm.wait() == Wait::Priority { PollFlags::POLLPRI } else { PollFlags::POLLIN };
    let mut fds: Vec<PollFd<'_>> = alarms.iter().map(|alarm| PollFd::new(alarm.as_fd(), wanted(alarm))).collect();
    let millis = PollTimeout::try_from(PATIENCE).unwrap();
    poll(&mut fds, millis).unwrap() > 0
}

#[test]
fn an_alarm_rings_when_memory_runs_out_and_is_silent_before_and_once_hushed() {
    Rig::each("an_alarm_rings_when_memory_runs_out_and_is_silent_before_and_once_hushed", |rig| {
        let group = rig.group("alarm", Limits { memory_bytes: Some(16 * MIB), ..NONE });
        let alarms = group.tree().alarms().unwrap();
        assert!(!alarms.is_empty());
        let ready = |flags: PollFlags| {
            let mut fds: Vec<PollFd<'_>> = alarms.iter().map(|alarm| PollFd::new(alarm.as_fd(), flags)).collect();
            poll(&mut fds, PollTimeout::ZERO).unwrap()
        };
        assert_eq!(ready(PollFlags::POLLPRI), 0);
        let mut agent = Agent::start(&group, "x=0123456789abcdef; while :; do x=$x$x; done");
        assert!(rings(&alarms));
        agent.child.wait().unwrap();
        assert!(group.tree().hits().unwrap().oom_kills >= Some(1));
        until("the hog's group is empty", || group.is_empty().unwrap());
        alarms.iter().for_each(Alarm::hush);
        assert_eq!(ready(PollFlags::POLLPRI), 0);
    });
}

#[test]
fn the_kernel_shows_the_limits_that_were_set() {
    Rig::each("the_kernel_shows_the_limits_that_were_set", |rig| {
        let limits = Limits { memory_bytes: Some(64 * MIB), cpu_millis: Some(500), tasks: Some(7) };
        let group = rig.group("force", limits);
        assert_eq!(group.tree().limits_in_force().unwrap(), limits);
        group.set_limits(&NONE).unwrap();
        assert_eq!(group.tree().limits_in_force().unwrap(), NONE);
    });
}

#[test]
fn limits_over_all_hold_an_agent_that_has_more_for_itself() {
    let name = "limits_over_all_hold_an_agent_that_has_more_for_itself";
    // One after the other: a rig holds the turn of all kernel tests.
    for open in [Rig::host, Rig::legacy] {
        let Some(mut rig) = open(name) else { continue };
        let total = Limits { memory_bytes: Some(24 * MIB), cpu_millis: Some(500), tasks: Some(20) };
        rig.base.as_mut().unwrap().limit_all(&total).unwrap();
        let roomy = Limits { memory_bytes: Some(256 * MIB), cpu_millis: Some(1000), tasks: Some(200) };
        let group = rig.group("roomy", roomy);
        assert_eq!(group.tree().limits_in_force().unwrap().cpu_millis, Some(500), "v1 would refuse more");
        let mut agent = Agent::start(&group, "x=0123456789abcdef; while :; do x=$x$x; done");
        let status = agent.child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status:?}");
        let agents = rig.base.as_ref().unwrap().agents().tree();
        assert!(agents.usage().unwrap().memory_peak_bytes.is_none_or(|peak| peak <= 24 * MIB));
        until("the hog's group is empty", || group.is_empty().unwrap());
        end(&group);
        drop(agent);
        rig.base.as_mut().unwrap().limit_all(&NONE).unwrap();
        assert_eq!(rig.base.as_ref().unwrap().agents().tree().limits_in_force().unwrap(), NONE);
    }
}
