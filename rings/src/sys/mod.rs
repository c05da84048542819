//! Thin typed wrappers around system calls, one call a function; nix and rustix first, these are what they lack.
//!
//! Unsafe code is allowed here, in [`crate::launch`] and in the probe's attacks, and nowhere else.

pub mod attribute;
pub(crate) mod birth;
pub mod fdpass;
pub(crate) mod mount;
pub(crate) mod net;
pub mod peer;
pub(crate) mod process;

use std::io;

/// Turns a raw system call's return value into a `Result`.
pub(crate) fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// The Landlock ABI of this kernel; `None` where Landlock is absent or off.
#[must_use]
pub(crate) fn landlock_abi() -> Option<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with the VERSION flag the kernel wants a null attribute of size 0 and only returns a number.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(ret).ok().filter(|abi| *abi > 0)
}

/// Whether seccomp filters can be loaded here.
#[must_use]
pub(crate) fn seccomp_filter_available() -> bool {
    const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one u32 behind the pointer, which lives until the call returns.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    ret == 0
}
