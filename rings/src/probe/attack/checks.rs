//! An agent's own health check: it runs in the same view, as the same uid, among the same processes. Only Landlock stands between
//! them, since each has a domain of its own; whoever gets past it writes the answer of its own check.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stand::CHECKED;
use super::{Answer, Attack, Need, Stopped, attack, open, proc_path};
use crate::probe::Layer::{Capabilities, Landlock, Seccomp};
use crate::probe::scene::Scene;
use crate::sys::process;

const FORGES: &str = "to write the answer of its own health check";
const SPOILS: &str = "to hold up or end its own health check";

pub(super) const ATTACKS: &[Attack] = &[
    check("check-memory", "open the memory of its own health check", FORGES, |s| {
        open(&proc_path(target(s)?, "mem"), OFlag::O_RDONLY).map(drop)
    }),
    check("check-output", "open the output of its own health check through /proc/PID/fd", FORGES, |s| {
        open(&proc_path(target(s)?, "fd/1"), OFlag::O_WRONLY).map(drop)
    }),
    check("check-environ", "read the environment of its own health check", FORGES, |s| {
        let environ = fs::read(proc_path(target(s)?, "environ"))?;
        if environ.is_empty() { Err(Stopped::Nothing("it is empty".to_owned())) } else { Ok(()) }
    })
    // CAP_PERFMON opens it before Landlock is asked.
    .by(&[Landlock, Capabilities]),
    check("check-root", "walk through /proc/PID/root of its own health check", FORGES, |s| {
        Ok(fs::metadata(proc_path(target(s)?, "root/.")).map(drop)?)
    }),
    check("check-signal", "send SIGSTOP to its own health check", SPOILS, |s| {
        Ok(kill(Pid::from_raw(target(s)?), Signal::SIGSTOP)?)
    })
    .with(&[Need::Check, Need::SignalScope]),
    check("check-pidfd-signal", "send SIGSTOP by pidfd to its own health check", SPOILS, |s| {
        let fd = process::pidfd_open(target(s)?)?;
        Ok(process::pidfd_send_signal(fd.as_fd(), libc::SIGSTOP)?)
    })
    .by(&[Landlock, Seccomp])
    .with(&[Need::Check, Need::SignalScope]),
];

const fn check(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).by(&[Landlock]).with(&[Need::Check])
}

/// How long a check may take to appear: it is started when the attacker is.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// The running check, found by its name: nobody can tell its number beforehand. Unconfined the victim stands in for it.
fn target(scene: &Scene) -> Result<i32, Stopped> {
    if let Some(victim) = scene.victim {
        return Ok(victim.pid);
    }
    let until = Instant::now() + APPEARS_WITHIN;
    while Instant::now() < until {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let line = fs::read(proc_path(pid, "cmdline")).unwrap_or_default();
            if line.split(|byte| *byte == 0).nth(1).is_some_and(|name| name == CHECKED.as_bytes()) {
                return Ok(pid);
            }
        }
        std::thread::yield_now();
    }
    Err(Stopped::Setup("the health check did not appear".to_owned()))
}
