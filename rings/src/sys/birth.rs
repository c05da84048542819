//! How processes are made: clone3(2) where it can be had, else clone(2) and what it does not do in steps of its own.
//!
//! Why two ways: clone3 gives the child its control group and its parent a pidfd in the same step, and a child that shares its
//! parent's memory costs no page tables. Kernels before 5.7, kernels of sandboxes and filters of containers know it or some of its
//! flags not; the slow way needs nothing that fork(2) did not have, but pidfd_open(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::check;

/// `struct clone_args` of clone3(2), version 2 (with `cgroup`).
#[repr(C, align(8))]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of a clone we are on.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// We are the child.
    Child,
    /// We are the parent; the child's pid and pidfd.
    Parent {
        /// The child's pid as the parent sees it.
        pid: i32,
        /// A pidfd of the child.
        pidfd: OwnedFd,
    },
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a process is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Birth {
    /// clone3(2): with its pidfd, in its control group, and where it executes at once in its parent's memory until then.
    Direct,
    /// clone(2) as fork(2) does it, pidfd_open(2), and a control group that the child joins by itself.
    Fork,
}

/// fork(2) with namespaces and a pidfd, into a cgroup v2 group where one is given: then by [`Birth::Direct`] only.
///
/// # Safety
/// The calling process must be single-threaded: the child runs ordinary code (allocation included).
pub(crate) unsafe fn fork_into(birth: Birth, namespaces: libc::c_int, cgroup: Option<RawFd>) -> io::Result<Cloned> {
    match (birth, cgroup) {
        // SAFETY: the caller vouches for it.
        (Birth::Direct, _) => unsafe { fork_directly(namespaces, cgroup) },
        // SAFETY: the caller vouches for it.
        (Birth::Fork, None) => unsafe { fork_plainly(namespaces) },
        // Never in no group by mistake.
        (Birth::Fork, Some(_)) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// # Safety
/// As [`fork_into`].
unsafe fn fork_plainly(namespaces: libc::c_int) -> io::Result<Cloned> {
    let (gate, open) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: no stack and no pointers: the child goes on in its own copy of everything, as after fork(2).
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if pid == 0 {
        drop(open);
        // Waits until there is a pidfd of it: where ended children are reaped by the kernel its number could be another's by
        // then. A parent that has none closes the gate.
        if !matches!(nix::unistd::read(&gate, &mut [0u8; 1]), Ok(1)) {
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        return Ok(Cloned::Child);
    }
    drop(gate);
    let pid = i32::try_from(pid).expect("pids fit 22 bits");
    let pidfd = super::process::pidfd_open(pid)?;
    // One that was killed meanwhile is seen as ended by its pidfd.
    let _ = nix::unistd::write(&open, b"g");
    Ok(Cloned::Parent { pid, pidfd })
}

/// Whether [`Birth::Direct`] works here: really tried, because a kernel, a sandbox's own kernel and a container's filter all have
/// a say.
///
/// # Errors
/// What does not work, and the kernel's answer.
pub(crate) fn try_direct() -> Result<(), (&'static str, io::Error)> {
    const BORN_INTO_A_GROUP: &str = "clone3(2) with CLONE_PIDFD and CLONE_INTO_CGROUP";
    // SAFETY: a process may be made: it ends at once, see below.
    match unsafe { fork_directly(0, Some(RawFd::MAX)) } {
        // The one answer of a kernel that knows the flag: there is no such descriptor.
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => {}
        Err(e) => return Err((BORN_INTO_A_GROUP, e)),
        // SAFETY: ends the child without running the parent's exit handlers.
        Ok(Cloned::Child) => unsafe { libc::_exit(0) },
        Ok(Cloned::Parent { .. }) => return Err((BORN_INTO_A_GROUP, io::ErrorKind::InvalidData.into())),
    }
    extern "C" fn end(_: *mut libc::c_void) -> ! {
        // SAFETY: ends only this child.
        unsafe { libc::_exit(0) }
    }
    let mut stack = vec![0u8; 4096];
    // SAFETY: the stack is there until the child has ended, and `end` does nothing but end.
    unsafe { vfork_on(&mut stack, None, end, std::ptr::null_mut()) }
        .map(drop)
        .map_err(|e| ("clone3(2) with CLONE_VM, CLONE_VFORK and CLONE_PIDFD", e))
}

/// # Safety
/// As [`fork_into`].
unsafe fn fork_directly(namespaces: libc::c_int, cgroup: Option<RawFd>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: u64::from(namespaces.unsigned_abs()) | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.unsigned_abs());
    }
    // SAFETY: args is a valid clone_args of the size given; without CLONE_VM the child has its own copy of everything.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    let pid = check(ret)?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just stored a new descriptor there, and nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: i32::try_from(pid).expect("pids fit 22 bits"), pidfd })
}

/// clone3(2) with CLONE_VM|CLONE_VFORK: the child runs `entry(argument)` on `stack` in our memory, in a cgroup v2 group where one
/// is given, and we sleep until it has executed or ended. Returns its pid and a pidfd.
///
/// # Safety
/// `entry` must never return or unwind, and must only do what is sound in memory that is shared with the parent: the calling thread
/// sleeps, its other threads run on. So no allocation and no lock, and nothing at `argument` that another thread touches.
pub(crate) unsafe fn vfork_on(
    stack: &mut [u8],
    cgroup: Option<RawFd>,
    entry: extern "C" fn(*mut libc::c_void) -> !,
    argument: *mut libc::c_void,
) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    // The kernel puts the child's stack pointer at stack + size: aligned as a call expects it.
    let base = stack.as_mut_ptr() as u64;
    let size = (stack.len() as u64).saturating_sub((base + stack.len() as u64) % 16);
    let mut args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD).unsigned_abs().into(),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: base,
        stack_size: size,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.unsigned_abs());
    }
    // SAFETY: args is a valid clone_args; the caller vouches for stack, entry and argument.
    let ret = unsafe { clone3_onto_stack(&mut args, entry, argument) };
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-ret).unwrap_or(libc::EINVAL)));
    }
    // SAFETY: the kernel has just stored a new descriptor there, and nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((i32::try_from(ret).expect("pids fit 22 bits"), pidfd))
}

/// The system call itself. No library wrapper exists: the child comes back on another stack, so it must not return into a
/// frame of ours, and jumps to `entry` at once.
///
/// # Safety
/// As [`vfork_on`].
#[cfg(target_arch = "x86_64")]
unsafe fn clone3_onto_stack(
    args: &mut CloneArgs,
    entry: extern "C" fn(*mut libc::c_void) -> !,
    argument: *mut libc::c_void,
) -> i64 {
    let ret: i64;
    // SAFETY: registers survive the call in both processes (but rax, rcx, r11); the child never leaves the inner branch.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => ret,
            in("rdi") std::ptr::from_mut(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    ret
}

/// The system call itself, see the other architecture's.
///
/// # Safety
/// As [`vfork_on`].
#[cfg(target_arch = "aarch64")]
unsafe fn clone3_onto_stack(
    args: &mut CloneArgs,
    entry: extern "C" fn(*mut libc::c_void) -> !,
    argument: *mut libc::c_void,
) -> i64 {
    let ret: i64;
    // SAFETY: all registers but x0 survive the call in both processes; the child never leaves the inner branch.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_mut(args) as i64 => ret,
            in("x1") size_of::<CloneArgs>(),
            in("x20") argument,
            in("x21") entry,
        );
    }
    ret
}
