//! What a caller has at its first three descriptors, opened again by a name that only stands for it.
//!
//! /dev/tty is the terminal that controls the caller, not the one of whoever opens, and may stand nowhere in the agent's view: it
//! came as a descriptor. /dev/stderr is often a pipe of whoever started the supervisor, whom the agent is not. Either way the
//! caller gets what it has already, with no more rights than it has there.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{FileStat, fstat};

use super::Outcome;
use super::caller::Reader;
use crate::sys::{check, process};

/// A descriptor of the terminal, fit for these flags.
pub(super) fn terminal(caller: &Reader, flags: i32) -> Outcome<OwnedFd> {
    let Some(number) = caller.terminal()? else { return Err(Errno::ENXIO) };
    let is_it = |stat: &FileStat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == number;
    copied(caller, flags, is_it)?.ok_or(Errno::ENXIO)
}

/// A descriptor of this pipe, fit for these flags; `None` if none of the three is.
pub(super) fn pipe(caller: &Reader, pipe: &FileStat, flags: i32) -> Outcome<Option<OwnedFd>> {
    copied(caller, flags, |stat| (stat.st_dev, stat.st_ino) == (pipe.st_dev, pipe.st_ino))
}

fn copied(caller: &Reader, flags: i32, is_it: impl Fn(&FileStat) -> bool) -> Outcome<Option<OwnedFd>> {
    let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    let process = process::pidfd_open(caller.process()?).map_err(errno)?;
    for at in 0..3 {
        let Ok(object) = caller.descriptor(at) else { continue };
        if !is_it(&fstat(&object)?) {
            continue;
        }
        // SAFETY: numbers only.
        let copied = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), at, 0) });
        let Ok(copied) = copied else { continue };
        // SAFETY: a new descriptor of ours.
        let copied = unsafe { OwnedFd::from_raw_fd(copied as i32) };
        let mode = fcntl(&copied, FcntlArg::F_GETFL)? & libc::O_ACCMODE;
        // By another number than the one looked at, if the caller has moved it meanwhile.
        if is_it(&fstat(&copied)?) && (mode == libc::O_RDWR || mode == flags & libc::O_ACCMODE) {
            return Ok(Some(copied));
        }
    }
    Ok(None)
}
