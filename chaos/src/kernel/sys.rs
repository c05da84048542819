//! System calls that no safe wrapper offers, one a function.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::FileLimits;

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// pidfd_open(2), since Linux 5.3. Close-on-exec.
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers and no memory.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2), since Linux 5.1.
pub(super) fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means "as kill(2)"; the descriptor is borrowed for the call.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) })?;
    Ok(())
}

/// prlimit(2) on RLIMIT_NOFILE.
pub(super) fn set_nofile(pid: i32, limits: FileLimits) -> io::Result<()> {
    let new = libc::rlimit { rlim_cur: limits.soft, rlim_max: limits.hard };
    // SAFETY: `new` lives through the call; a null old limit means that none is wanted.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, ptr::null_mut()) };
    checked(result.into()).map(drop)
}

/// Takes a uid and gid for the calling thread alone, for good. The raw calls: glibc's wrappers change all threads.
pub(super) fn become_for_this_thread(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: takes three numbers and no memory; changes the credentials of this thread only.
    checked(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// Closes every descriptor from 3 on.
///
/// Only for the very beginning of a process's main, when nothing owns one yet.
pub(crate) fn close_inherited() -> io::Result<()> {
    // SAFETY: takes three numbers. The caller is the first thing in main, so no owner of a descriptor above 2 exists.
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) })?;
    Ok(())
}

/// Gives every signal its default action back: an ignored one stays ignored through exec.
pub(crate) fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. Numbers that can't be changed (KILL, STOP, two of libc's) fail without effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
