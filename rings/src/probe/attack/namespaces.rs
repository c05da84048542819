//! Namespaces and mounts: the walls themselves.

use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use super::{Answer, Attack, D, Ready, Stopped, attack, open, raw};
use crate::probe::Layer::{Capabilities, Seccomp};
use crate::probe::scene::Scene;

const SURFACE: &str = "all capabilities inside a namespace of its own, which most kernel exploits of recent years need";
const WALLS: &str = "to take down the walls of its own view";

pub(super) const ATTACKS: &[Attack] = &[
    attack("unshare-user", "make a user namespace (unshare)", SURFACE, |_| {
        Ok(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?)
    })
    .by(&[Seccomp]),
    attack("clone-user", "start a child in a user namespace (clone)", SURFACE, |_| {
        // SAFETY: without CLONE_VM the child has its own copy of everything; it ends at once.
        let pid = unsafe { raw(libc::SYS_clone, [(libc::CLONE_NEWUSER | libc::SIGCHLD) as usize, 0, 0, 0, 0, 0]) }?;
        ended(pid)
    })
    .by(&[Seccomp]),
    attack("clone3-user", "start a child in a user namespace (clone3, flags behind a pointer)", SURFACE, |_| {
        clone3(libc::CLONE_NEWUSER as u64)
    })
    .by(&[Seccomp]),
    kernel("unshare-mount", "make a mount namespace", WALLS, |_| Ok(nix::sched::unshare(CloneFlags::CLONE_NEWNS)?)),
    kernel("unshare-network", "make a network namespace", SURFACE, |_| {
        Ok(nix::sched::unshare(CloneFlags::CLONE_NEWNET)?)
    }),
    kernel("unshare-pid", "make a PID namespace", SURFACE, |_| Ok(nix::sched::unshare(CloneFlags::CLONE_NEWPID)?)),
    kernel("unshare-cgroup", "make a cgroup namespace", SURFACE, |_| {
        Ok(nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP)?)
    }),
    kernel("unshare-time", "make a time namespace", SURFACE, |_| {
        const CLONE_NEWTIME: usize = 0x80;
        // SAFETY: a flag; it concerns this process alone.
        unsafe { raw(libc::SYS_unshare, [CLONE_NEWTIME, 0, 0, 0, 0, 0]) }.map(drop)
    }),
    kernel(
        "setns",
        "enter a network namespace (its own: nothing changes)",
        "other agents' and the host's networks",
        |_| {
            let own = open(Path::new("/proc/self/ns/net"), OFlag::O_RDONLY)
                .map_err(|stopped| Stopped::Setup(format!("open our own namespace: {stopped:?}")))?;
            Ok(nix::sched::setns(own, CloneFlags::CLONE_NEWNET)?)
        },
    ),
    // Without a source a bind mount is EINVAL, which comes after the permission check.
    kernel("mount", "bind-mount", WALLS, |s| {
        Ok(nix::mount::mount(Some(""), &s.own, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    })
    .past(&[Errno::EINVAL]),
    // What is no mount point is EINVAL, which comes after the permission check.
    kernel("umount", "unmount", WALLS, |s| Ok(nix::mount::umount2(&s.own.join("."), MntFlags::MNT_DETACH)?))
        .past(&[Errno::EINVAL]),
    // Names that don't exist: ENOENT comes after the permission check.
    kernel("pivot-root", "pivot_root", WALLS, |_| {
        // Refused to everybody as a loop, behind the permission check; since Linux 7.2 paths are looked up before that.
        Ok(nix::unistd::pivot_root("/", "/")?)
    })
    .past(&[Errno::EBUSY, Errno::EINVAL]),
    kernel("chroot", "chroot", "the classic way out of a view, by a descriptor left outside", |s| {
        Ok(nix::unistd::chroot(&s.own)?)
    }),
    kernel("fsopen", "prepare a file system by the new mount calls (fsopen)", WALLS, |_| {
        // SAFETY: a NUL-terminated name; what a success makes goes with this process.
        unsafe { raw(libc::SYS_fsopen, [c"tmpfs".as_ptr() as usize, 1, 0, 0, 0, 0]) }.map(drop)
    }),
    kernel("open-tree", "copy a mount by the new mount calls (open_tree)", WALLS, |s| {
        let path = std::ffi::CString::new(s.own.as_os_str().as_encoded_bytes()).ready("a path without NUL")?;
        let flags = 1 | libc::O_CLOEXEC as usize;
        // SAFETY: a NUL-terminated path; what a success makes goes with this process.
        unsafe { raw(libc::SYS_open_tree, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0]) }.map(drop)
    }),
    kernel("mount-setattr", "change the attributes of a mount (mount_setattr)", WALLS, |s| {
        let dir = open(&s.own, OFlag::O_PATH)
            .map_err(|stopped| Stopped::Setup(format!("open our own directory: {stopped:?}")))?;
        // An unknown attribute: EINVAL, which comes after the permission check.
        let attributes: [u64; 4] = [1 << 40, 0, 0, 0];
        let size = size_of_val(&attributes);
        let empty = c"".as_ptr() as usize;
        let flags = libc::AT_EMPTY_PATH as usize;
        // SAFETY: an empty name and a mount_attr of the size given, both living past the call.
        unsafe {
            raw(
                libc::SYS_mount_setattr,
                [dir.as_raw_fd() as usize, empty, flags, attributes.as_ptr() as usize, size, 0],
            )
        }
        .map(drop)
    })
    .past(&[Errno::EINVAL]),
];

/// What needs a capability outside: refused in every ring.
const fn kernel(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([D; 4]).by(&[Seccomp, Capabilities])
}

/// Both sides of a raw clone come here: the child ends, the parent waits for it.
pub(super) fn ended(pid: libc::c_long) -> Answer {
    if pid == 0 {
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) }
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).ready("a pid")?);
    nix::sys::wait::waitpid(pid, None).map(drop).ready("wait for the child")
}

/// clone3(2) with these flags and a child that ends at once.
pub(super) fn clone3(flags: u64) -> Answer {
    let mut args = [0u64; 8];
    args[0] = flags;
    args[4] = libc::SIGCHLD as u64;
    // SAFETY: clone_args of version 0, eight u64; without CLONE_VM the child has its own copy of everything.
    let pid = unsafe { raw(libc::SYS_clone3, [args.as_ptr() as usize, size_of_val(&args), 0, 0, 0, 0]) }?;
    ended(pid)
}
