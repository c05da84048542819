//! Real children in real groups: what is claimed here is what the kernel did. Each runs on this host's layout and, where
//! there is a v1 freezer, again as on a host without v2.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::fixture::{Agent, PATIENCE, until};
use super::{Group, Limits};

mod base;
mod hold;
mod kill;

pub(super) const NONE: Limits = Limits { memory_bytes: None, cpu_millis: None, tasks: None };
pub(super) const MIB: u64 = 1 << 20;

/// Trees that get away from a signal to the process, or to its process group, with the number of their `sleep`s.
pub(super) const TREES: [(&str, usize, &str); 5] = [
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
pub(super) const BOMB: &str =
    r#"export BOMB='trap "exec sh -c \"\$BOMB\"" EXIT; while :; do sh -c "$BOMB" & done'; exec sh -c "$BOMB""#;

/// A tree that has grown to this many `sleep`s.
pub(super) fn tree_of(group: &Group, sleeps: usize, script: &str) -> Agent {
    let agent = Agent::start(group, script);
    until("the tree has grown", || group.pids().unwrap().into_iter().filter(|&pid| is_sleep(pid)).count() == sleeps);
    agent
}

/// Ends what the test started.
pub(super) fn end(group: &Group) {
    let report = group.kill(PATIENCE).unwrap();
    assert!(group.is_empty().unwrap(), "{report:?}");
}

fn is_sleep(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|b| *b == 0).any(|word| word == b"1000"))
        && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

pub(super) fn is_alive(pid: i32) -> bool {
    // A zombie has ended; only its parent has not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X'])))
}
