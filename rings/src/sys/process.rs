//! Processes: pidfds, namespaces, prctl, credentials.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;
use crate::capability::Capabilities;

/// pidfd_open(2).
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor of ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// pidfd_send_signal(2): never hits a recycled pid.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed and means "as kill(2)".
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    })?;
    Ok(())
}

/// unshare(2): new namespaces for this process, which has one thread.
pub(crate) fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}

/// setns(2): into the namespace behind a descriptor, which must be of the kind given.
pub(crate) fn enter_namespace(namespace: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) }.into()).map(drop)
}

/// Closes every descriptor from 3 on but `kept`. Whoever owned the others must never use or drop them.
pub(crate) fn close_all_but(kept: &mut [RawFd]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first: u32 = 3;
    for &number in kept.iter() {
        let number = number.unsigned_abs();
        if number > first {
            close_range(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// The host pid behind a pidfd: the kernel's own word, -1 once the process was reaped.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    match asked_pid(pidfd) {
        Some(pid) => Ok(pid),
        None => written_pid(pidfd),
    }
}

/// By ioctl, since Linux 6.13 (`PIDFD_GET_INFO`): a tenth of what reading /proc costs.
fn asked_pid(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B_u32 as libc::Ioctl;
    // `struct pidfd_info`, version 0: mask, cgroupid, pid, tgid, and ten numbers that are not asked for.
    let mut info = [0u64; 8];
    // SAFETY: the kernel reads and writes the 64 bytes that the number names.
    let ret = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) };
    // Low half first on both architectures that this runs on.
    i32::try_from(info[2] & u64::from(u32::MAX)).ok().filter(|pid| ret == 0 && *pid > 0)
}

fn written_pid(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Pid line in fdinfo"))
}

/// prctl(2) with plain numbers.
pub(crate) fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: only used with options whose arguments are numbers.
    let ret = unsafe { libc::prctl(option, a, b, 0, 0) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Names this thread in /proc/PID/comm; the kernel keeps 15 bytes.
pub(crate) fn set_name(name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: the kernel reads up to the NUL, or 16 bytes, of a text that lives until the call returns.
    let ret = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ignores signals for good.
pub(crate) fn ignore(signals: &[nix::sys::signal::Signal]) -> io::Result<()> {
    for &signal in signals {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// Makes this process invisible to ptrace and /proc/PID/mem of its own uid, and keeps it out of core dumps.
pub(crate) fn set_non_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// Undoes it: what a probe leaves out, and nothing else.
pub(crate) fn set_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 1, 0).map(drop)
}

/// Has the kernel send `signal` to us when the thread that created us ends.
pub(crate) fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0).map(drop)
}

/// The header of capset(2), version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// CAP_KILL: signals whom it likes.
pub(crate) const CAP_KILL: u32 = 5;
/// The capability that looks into other processes where Yama lets only parents do so.
pub(crate) const CAP_SYS_PTRACE: u32 = 19;

const PR_CAP_AMBIENT: libc::c_int = 47;

/// Clears the sets of this thread, and the ambient set, but for those in `keep` that are held: none of them survives an exec
/// of another uid than 0.
pub(crate) fn drop_capabilities_but(keep: Capabilities) -> io::Result<()> {
    const PR_CAP_AMBIENT_CLEAR_ALL: libc::c_ulong = 4;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    set_capabilities(keep, Capabilities::NONE)
}

/// Has exactly `keep`, in every set, the ambient one included: so they are there after the exec, whatever the uid.
pub(crate) fn keep_capabilities(keep: Capabilities) -> io::Result<()> {
    const PR_CAP_AMBIENT_RAISE: libc::c_ulong = 2;
    drop_capabilities_but(keep)?;
    set_capabilities(keep, keep)?;
    for number in (0..u64::BITS).filter(|number| keep.has(*number)) {
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number.into())?;
    }
    Ok(())
}

/// What this thread may use.
pub(crate) fn permitted_capabilities() -> io::Result<Capabilities> {
    let mut header = CapHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    // SAFETY: header and data have the layout of version 3 (two triples) and live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(Capabilities::from_mask(u64::from(data[1]) | u64::from(data[4]) << 32))
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn set_capabilities(keep: Capabilities, inheritable: Capabilities) -> io::Result<()> {
    let header = CapHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let halves = |set: Capabilities| (set.mask() as u32, (set.mask() >> 32) as u32);
    let ((low, high), (low_inherited, high_inherited)) = (halves(keep), halves(inheritable));
    // Effective, permitted, inheritable, twice.
    let data = [low, low, low_inherited, high, high, high_inherited];
    // SAFETY: header and data have the layout of version 3 (two triples) and live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Takes all but `keep` out of the bounding set, so that no exec can give a capability back. Looks first: a look is cheap, and
/// each removal copies the credentials.
pub(crate) fn drop_bounding_set_but(keep: Capabilities) -> io::Result<()> {
    for capability in (0..u64::BITS).filter(|number| !keep.has(*number)).map(libc::c_ulong::from) {
        // Past the last capability that this kernel knows a look fails; the removal says whether it is that.
        if let Ok(0) = prctl(libc::PR_CAPBSET_READ, capability, 0) {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(_) => {}
            // Past the last capability that this kernel knows.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && capability > 30 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
