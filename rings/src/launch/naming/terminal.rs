//! /dev/tty of a caller: the terminal that controls it, not the one of whoever opens.
//!
//! The terminal itself may stand nowhere in the agent's view (it came as a descriptor), so it is had from the caller's own
//! descriptors: shells and whatever runs under them have it at one of the first three.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::fstat;

use super::Outcome;
use super::caller::Reader;
use crate::sys::{check, process};

/// A descriptor of the terminal, fit for these flags.
pub(super) fn of(caller: &Reader, flags: i32) -> Outcome<OwnedFd> {
    let Some(number) = caller.terminal()? else { return Err(Errno::ENXIO) };
    let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    let process = process::pidfd_open(caller.process()?).map_err(errno)?;
    for at in 0..3 {
        let Ok(object) = caller.descriptor(at) else { continue };
        let stat = fstat(&object)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != number {
            continue;
        }
        // SAFETY: numbers only.
        let copied = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), at, 0) });
        let Ok(copied) = copied else { continue };
        // SAFETY: a new descriptor of ours.
        let copied = unsafe { OwnedFd::from_raw_fd(copied as i32) };
        let mode = fcntl(&copied, FcntlArg::F_GETFL)? & libc::O_ACCMODE;
        if mode == libc::O_RDWR || mode == flags & libc::O_ACCMODE {
            return Ok(copied);
        }
    }
    Err(Errno::ENXIO)
}
