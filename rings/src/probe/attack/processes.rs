//! Processes outside: a victim of the same uid, the init of one's own namespace, another agent. Uids are no wall here by
//! design, so what stops these is the PID namespace, and Landlock and the filters behind it.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::privileges::capability_lines;
use super::{Answer, Attack, D, Need, Ready, Stopped, attack, holds_mark, open, proc_path, raw, read_secret};
use crate::probe::Layer::{Capabilities, Landlock, NonDumpable, Pid as PidNamespace, Seccomp, Uid};
use crate::probe::scene::{Scene, Victim};
use crate::sys::process;

const STOPS: &str = "to stop or end the user's programs";
const READS: &str = "passwords and keys in the memory of the user's programs";
const WRITES: &str = "to make the user's programs do what it likes";
const SLOWS: &str = "to starve the user's programs";
const ENDS: &str = "to be reaped, watched and ended by nobody";
const NEIGHBOUR: &str = "another agent's work and secrets";

pub(super) const ATTACKS: &[Attack] = &[
    victim("signal", "send SIGSTOP to a process outside", STOPS, |s| {
        Ok(kill(Pid::from_raw(target(s)?.pid), Signal::SIGSTOP)?)
    })
    .by(&[PidNamespace, Landlock]),
    victim("pidfd-signal", "send SIGSTOP by pidfd to a process outside", STOPS, |s| {
        let fd = process::pidfd_open(target(s)?.pid)?;
        Ok(process::pidfd_send_signal(fd.as_fd(), libc::SIGSTOP)?)
    })
    .by(&[PidNamespace, Seccomp, Landlock]),
    victim("ptrace", "trace a process outside (PTRACE_SEIZE)", READS, |s| seize(target(s)?.pid)).by(&[
        PidNamespace,
        Seccomp,
        Landlock,
    ]),
    victim("process-vm-read", "read the memory of a process outside (process_vm_readv)", READS, vm_read).by(&[
        PidNamespace,
        Seccomp,
        Landlock,
    ]),
    victim(
        "process-vm-write",
        "write to the memory of a process outside (what stands there already)",
        WRITES,
        vm_write,
    )
    .by(&[PidNamespace, Seccomp, Landlock]),
    victim("proc-mem", "read /proc/PID/mem of a process outside", READS, |s| {
        let victim = target(s)?;
        read_memory(victim.pid, victim.address)
    })
    .by(&[PidNamespace, Landlock]),
    victim("proc-environ", "read /proc/PID/environ of a process outside", READS, |s| {
        read_secret(&proc_path(target(s)?.pid, "environ"))
    })
    .by(&[PidNamespace, Landlock]),
    victim("proc-list", "find a process outside in /proc", "to learn what runs here, with its arguments", list)
        .by(&[PidNamespace]),
    victim("pidfd-getfd", "take a descriptor out of a process outside (pidfd_getfd)", READS, getfd).by(&[
        PidNamespace,
        Seccomp,
        Landlock,
    ]),
    victim("prlimit", "change a limit of a process outside", SLOWS, prlimit).by(&[PidNamespace, Seccomp]),
    victim("renice", "lower the priority of a process outside", SLOWS, renice).by(&[PidNamespace, Seccomp]),
    victim("affinity", "set the CPU affinity of a process outside", SLOWS, affinity).by(&[PidNamespace]),
    victim("io-priority", "lower the disk priority of a process outside", SLOWS, |s| {
        // IOPRIO_WHO_PROCESS; class 2 (best effort), level 7.
        // SAFETY: numbers only.
        unsafe { raw(libc::SYS_ioprio_set, [1, target(s)?.pid as usize, (2 << 13) | 7, 0, 0, 0]) }.map(drop)
    })
    .by(&[PidNamespace, Seccomp]),
    victim("scheduler", "put a process outside into the batch class", SLOWS, |s| {
        let priority = 0i32;
        let (pid, class) = (target(s)?.pid as usize, libc::SCHED_BATCH as usize);
        // SAFETY: the kernel reads one sched_param, an int.
        unsafe { raw(libc::SYS_sched_setscheduler, [pid, class, (&raw const priority) as usize, 0, 0, 0]) }.map(drop)
    })
    .by(&[PidNamespace, Seccomp]),
    victim("init-stop", "stop the init of one's own namespace", ENDS, stop_init).by(&[PidNamespace, Uid, Landlock]),
    victim("init-ptrace", "trace the init of one's own namespace", ENDS, |s| seize(settled_init(s))).by(&[
        NonDumpable,
        Seccomp,
        Landlock,
        Capabilities,
    ]),
    victim("init-environ", "read the environment of the init", READS, |s| {
        read_secret(&proc_path(settled_init(s), "environ"))
    })
    .by(&[NonDumpable, Uid, Landlock]),
    victim("init-memory", "open the memory of the init", "the secrets of the launch", |s| {
        open(&proc_path(settled_init(s), "mem"), nix::fcntl::OFlag::O_RDONLY).map(drop)
    })
    .by(&[NonDumpable, Uid, Landlock]),
    neighbour("neighbour-home", "read another agent's HOME through /proc/PID/root", |s| {
        read_secret(&proc_path(other(s)?, "root").join("home/agent/secret"))
    })
    .by(&[PidNamespace, Landlock, Uid]),
    neighbour("neighbour-environ", "read another agent's environment", |s| {
        fs::read(proc_path(other(s)?, "environ")).map(drop).map_err(Stopped::from)
    })
    .by(&[PidNamespace, Landlock, Uid]),
    neighbour("neighbour-memory", "open another agent's memory", |s| {
        open(&proc_path(other(s)?, "mem"), nix::fcntl::OFlag::O_RDONLY).map(drop)
    })
    .by(&[PidNamespace, Landlock, Uid]),
    neighbour("neighbour-signal", "send SIGSTOP to another agent", |s| {
        Ok(kill(Pid::from_raw(other(s)?), Signal::SIGSTOP)?)
    })
    .by(&[PidNamespace, Landlock, Uid]),
];

const fn victim(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([D; 4]).with(&[Need::Victim])
}

const fn neighbour(name: &'static str, asked: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, NEIGHBOUR, act).with(&[Need::Neighbour])
}

fn target(scene: &Scene) -> Result<Victim, Stopped> {
    scene.victim.ok_or_else(|| Stopped::Setup("there is no victim".to_owned()))
}

fn other(scene: &Scene) -> Result<i32, Stopped> {
    scene.neighbour.ok_or_else(|| Stopped::Setup("there is no other agent".to_owned()))
}

fn seize(pid: i32) -> Answer {
    // PTRACE_SEIZE stops nobody, and the trace ends with us.
    // SAFETY: numbers only.
    unsafe { raw(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid as usize, 0, 0, 0, 0]) }.map(drop)
}

fn vm_read(scene: &Scene) -> Answer {
    let victim = target(scene)?;
    let mut bytes = [0u8; super::MARK.len()];
    let remote = [RemoteIoVec { base: victim.address, len: bytes.len() }];
    process_vm_readv(Pid::from_raw(victim.pid), &mut [IoSliceMut::new(&mut bytes)], &remote)?;
    found(&bytes)
}

fn vm_write(scene: &Scene) -> Answer {
    let victim = target(scene)?;
    let remote = [RemoteIoVec { base: victim.address, len: super::MARK.len() }];
    process_vm_writev(Pid::from_raw(victim.pid), &[IoSlice::new(super::MARK.as_bytes())], &remote)?;
    Ok(())
}

fn read_memory(pid: i32, address: usize) -> Answer {
    let memory = fs::File::open(proc_path(pid, "mem"))?;
    let mut bytes = [0u8; super::MARK.len()];
    memory.read_exact_at(&mut bytes, address as u64)?;
    found(&bytes)
}

fn found(bytes: &[u8]) -> Answer {
    if holds_mark(bytes) { Ok(()) } else { Err(Stopped::Nothing("other memory than the victim's".to_owned())) }
}

fn list(scene: &Scene) -> Answer {
    let victim = target(scene)?;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let line = fs::read(proc_path(pid, "cmdline")).unwrap_or_default();
        let is_victim = line.split(|byte| *byte == 0).nth(1).is_some_and(|name| name == b"victim");
        if pid == victim.pid && is_victim {
            return Ok(());
        }
    }
    Err(Stopped::Nothing("/proc does not list it".to_owned()))
}

fn getfd(scene: &Scene) -> Answer {
    let fd = process::pidfd_open(target(scene)?.pid)?;
    // SAFETY: numbers only; the descriptor that a success makes goes with this process.
    unsafe { raw(libc::SYS_pidfd_getfd, [fd.as_raw_fd() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

fn prlimit(scene: &Scene) -> Answer {
    let core = libc::rlimit64 { rlim_cur: 0, rlim_max: libc::RLIM64_INFINITY };
    let mut old = core;
    let pid = target(scene)?.pid as usize;
    let resource = libc::RLIMIT_CORE as usize;
    // SAFETY: the kernel writes one rlimit64.
    unsafe { raw(libc::SYS_prlimit64, [pid, resource, 0, (&raw mut old) as usize, 0, 0]) }?;
    let same = libc::rlimit64 { rlim_cur: core.rlim_cur.min(old.rlim_max), rlim_max: old.rlim_max };
    // SAFETY: the kernel reads one rlimit64.
    unsafe { raw(libc::SYS_prlimit64, [pid, resource, (&raw const same) as usize, 0, 0, 0]) }.map(drop)
}

fn renice(scene: &Scene) -> Answer {
    let pid = target(scene)?.pid as usize;
    // One below our own, which is the victim's too: to raise a priority takes a capability, and the probe may run under `nice`.
    // SAFETY: numbers only. The call itself answers 1 to 40 for 19 to -20.
    let ours = 20
        - unsafe { raw(libc::SYS_getpriority, [libc::PRIO_PROCESS as usize, 0, 0, 0, 0, 0]) }
            .map_err(|stopped| Stopped::Setup(format!("get our own priority: {stopped:?}")))?;
    let lower = (ours + 1).min(LOWEST) as usize;
    // SAFETY: numbers only.
    unsafe { raw(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, pid, lower, 0, 0, 0]) }.map(drop)
}

/// The lowest priority that there is.
const LOWEST: libc::c_long = 19;

fn affinity(scene: &Scene) -> Answer {
    let pid = target(scene)?.pid as usize;
    let mut mask = [0u64; 128];
    let bytes = size_of_val(&mask);
    // SAFETY: the kernel writes at most `bytes` bytes.
    unsafe { raw(libc::SYS_sched_getaffinity, [0, bytes, mask.as_mut_ptr() as usize, 0, 0, 0]) }
        .map_err(|stopped| Stopped::Setup(format!("get our own affinity: {stopped:?}")))?;
    // SAFETY: the kernel reads `bytes` bytes.
    unsafe { raw(libc::SYS_sched_setaffinity, [pid, bytes, mask.as_ptr() as usize, 0, 0, 0]) }.map(drop)
}

/// How long the init may take to give up what the launch needed.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// The init, once it is as it stays. Before that it still holds capabilities, which refuse the same for another reason.
pub(super) fn settled_init(scene: &Scene) -> i32 {
    let until = Instant::now() + if scene.reaper == 1 { SETTLES_WITHIN } else { Duration::ZERO };
    while Instant::now() < until {
        let status = fs::read_to_string(proc_path(scene.reaper, "status")).unwrap_or_default();
        if capability_lines(&status).all(|(_, set)| set == 0) {
            break;
        }
        std::thread::yield_now();
    }
    scene.reaper
}

/// How long a stopped process may take to show it.
const STOP_SHOWS: Duration = Duration::from_secs(2);

fn stop_init(scene: &Scene) -> Answer {
    kill(Pid::from_raw(scene.reaper), Signal::SIGSTOP)?;
    // The kernel takes the signal and drops it when the target is the init of our own namespace: only its state tells.
    let until = Instant::now() + if scene.reaper == 1 { Duration::from_millis(50) } else { STOP_SHOWS };
    while Instant::now() < until {
        let state = fs::read_to_string(proc_path(scene.reaper, "status")).ready("read the state of the init")?;
        if state.lines().any(|line| line.starts_with("State:\tT")) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err(Stopped::Nothing("the signal was taken and ignored".to_owned()))
}
