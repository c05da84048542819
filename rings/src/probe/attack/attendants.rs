//! The process that answers for the agent's filter: it stands in the same namespaces, with the agent's uid, and holds the listener.
//! Whoever gets hold of that answers its own calls; whoever looks into it learns nothing, but might write as well.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::{Answer, Attack, Need, Stopped, attack, open, proc_path, raw};
use crate::probe::Layer::{Capabilities, Landlock, NonDumpable, Seccomp};
use crate::probe::scene::Scene;
use crate::sys::process;

const ANSWERS: &str = "to answer its own calls, the refused ones too";
const SPOILS: &str = "to have its refused calls go unnoticed";

pub(super) const ATTACKS: &[Attack] = &[
    attendant("attendant-ptrace", "trace the process that answers for its filter", ANSWERS, |s| {
        // SAFETY: numbers only; PTRACE_SEIZE stops nobody, and the trace ends with us.
        unsafe { raw(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, target(s)? as usize, 0, 0, 0, 0]) }.map(drop)
    })
    .by(&[NonDumpable, Seccomp, Landlock, Capabilities]),
    attendant("attendant-memory", "open the memory of the process that answers for its filter", ANSWERS, |s| {
        open(&proc_path(target(s)?, "mem"), OFlag::O_RDONLY).map(drop)
    })
    .by(&[NonDumpable, Landlock]),
    attendant("attendant-vm-read", "read the memory of the process that answers for its filter", ANSWERS, |s| {
        let mut bytes = [0u8; 8];
        // Unconfined there is an address; here any that is refused for itself (EFAULT) would be past the check.
        let base = s.victim.map_or(0x1000, |victim| victim.address);
        let remote = [RemoteIoVec { base, len: bytes.len() }];
        process_vm_readv(Pid::from_raw(target(s)?), &mut [IoSliceMut::new(&mut bytes)], &remote)?;
        Ok(())
    })
    .by(&[NonDumpable, Seccomp, Landlock])
    .past(&[nix::errno::Errno::EFAULT]),
    attendant("attendant-getfd", "take the listener of its filter (pidfd_getfd)", ANSWERS, |s| {
        let fd = process::pidfd_open(target(s)?)?;
        // Each of the numbers that it may have: the first answer that is not about the number counts.
        for number in 0..16 {
            // SAFETY: numbers only; the descriptor that a success makes goes with this process.
            match unsafe { raw(libc::SYS_pidfd_getfd, [fd.as_raw_fd() as usize, number, 0, 0, 0, 0]) } {
                Err(Stopped::Errno(libc::EBADF)) => {}
                got => return got.map(drop),
            }
        }
        Err(Stopped::Errno(libc::EBADF))
    })
    .by(&[NonDumpable, Seccomp, Landlock]),
    attendant("attendant-descriptors", "list what the process that answers for its filter has open", ANSWERS, |s| {
        fs::read_dir(proc_path(target(s)?, "fd")).map(drop).map_err(Stopped::from)
    })
    .by(&[NonDumpable, Landlock]),
    attendant("attendant-stop", "send SIGSTOP to the process that answers for its filter", SPOILS, |s| {
        let fd = process::pidfd_open(target(s)?)?;
        Ok(process::pidfd_send_signal(fd.as_fd(), Signal::SIGSTOP as i32)?)
    })
    .by(&[Landlock, Seccomp])
    .with(&[Need::Attendant, Need::SignalScope]),
    attack("attendant-flood", "make a refused call thousands of times: one might get through", ANSWERS, |_| {
        let (mut last, began) = (None, Instant::now());
        for _ in 0..FLOOD {
            // Where each takes long (an emulated processor), fewer must do.
            if began.elapsed() > FLOOD_LASTS {
                break;
            }
            const KEYCTL_GET_KEYRING_ID: usize = 0;
            const KEY_SPEC_PROCESS_KEYRING: usize = -2isize as usize;
            // SAFETY: numbers only: asks for the number of its own keyring, and makes none.
            match unsafe { raw(libc::SYS_keyctl, [KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 0, 0, 0, 0]) } {
                Err(Stopped::Errno(errno)) if errno != libc::ENOKEY => last = Some(Stopped::Errno(errno)),
                // No keyring is an answer of the kernel's.
                _ => return Ok(()),
            }
        }
        last.map_or(Ok(()), Err)
    })
    .by(&[Seccomp]),
];

/// Calls of the flood: some tenths of a second on a machine of its own.
const FLOOD: usize = 20_000;
/// And no longer than this, which is well below what an attack may take.
const FLOOD_LASTS: Duration = Duration::from_secs(2);

const fn attendant(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).with(&[Need::Attendant])
}

/// It is there a moment after the program was executed.
const APPEARS_WITHIN: Duration = Duration::from_secs(2);
/// As the kernel shows its name.
const NAME: &str = "agt-attendant\n";

/// The attendant, found by its name, once it has given up what the launch needed. Unconfined an ordinary process stands in.
fn target(scene: &Scene) -> Result<i32, Stopped> {
    if let Some(victim) = scene.victim {
        return Ok(victim.pid);
    }
    let until = Instant::now() + APPEARS_WITHIN;
    while Instant::now() < until {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let is_it = fs::read_to_string(proc_path(pid, "comm")).is_ok_and(|comm| comm == NAME);
            let status = fs::read_to_string(proc_path(pid, "status")).unwrap_or_default();
            // Yama may have it keep the capability that looks into others.
            let other = !(1 << process::CAP_SYS_PTRACE);
            if is_it && super::privileges::capability_lines(&status).all(|(_, set)| set & other == 0) {
                return Ok(pid);
            }
        }
        std::thread::yield_now();
    }
    Err(Stopped::Setup("the process that answers for the filter did not appear".to_owned()))
}
