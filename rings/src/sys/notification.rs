//! seccomp's listener (seccomp_unotify(2)): a call that waits, and what it is answered with. Nothing here allocates.

use std::io;
use std::os::fd::RawFd;

/// `struct seccomp_notif`: a call that waits for its answer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// Of this notification.
    pub(crate) id: u64,
    /// The thread, as the receiver's PID namespace numbers it.
    pub(crate) tid: u32,
    flags: u32,
    /// The call's number.
    pub(crate) number: i32,
    /// `AUDIT_ARCH_*`.
    pub(crate) arch: u32,
    pointer: u64,
    /// The argument registers.
    pub(crate) args: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct Given {
    id: u64,
    flags: u32,
    fd: u32,
    new_fd: u32,
    new_fd_flags: u32,
}

const RECEIVE: u32 = 0xC050_2100;
const SEND: u32 = 0xC018_2101;
const IS_VALID: u32 = 0x4008_2102;
const ADD_FD: u32 = 0x4018_2103;
const ADD_FD_FLAG_SEND: u32 = 2;

fn ioctl<T>(listener: RawFd, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: each request is made with the structure that its number names, which lives until the call returns.
    let ret = unsafe { libc::ioctl(listener, request as libc::Ioctl, std::ptr::from_mut(argument)) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next call that waits; blocks. ENOENT when its caller ended while it was fetched.
pub(crate) fn receive(listener: RawFd) -> io::Result<Waiting> {
    let mut waiting = Waiting::default();
    ioctl(listener, RECEIVE, &mut waiting)?;
    Ok(waiting)
}

/// Whether the call still waits: so its number is its caller's still.
pub(crate) fn is_waiting(listener: RawFd, mut id: u64) -> bool {
    ioctl(listener, IS_VALID, &mut id).is_ok()
}

/// Ends the call with a value, or with an errno.
pub(crate) fn answer(listener: RawFd, id: u64, result: Result<i64, i32>) -> io::Result<()> {
    let (value, error) = result.map_or_else(|errno| (0, -errno), |value| (value, 0));
    ioctl(listener, SEND, &mut Answer { id, value, error, flags: 0 })
}

/// Ends the call with a copy of a descriptor.
pub(crate) fn answer_with(listener: RawFd, id: u64, fd: RawFd, close_on_exec: bool) -> io::Result<()> {
    let new_fd_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
    ioctl(listener, ADD_FD, &mut Given { id, flags: ADD_FD_FLAG_SEND, fd: fd.unsigned_abs(), new_fd: 0, new_fd_flags })
}
