//! Files that nothing declares: reached by name, by link, by descriptor, by number, through /proc and under covers.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

use super::{A, Answer, Attack, D, N, Need, Ready, Stopped, attack, holds_mark, open, proc_path, raw, read_secret};
use crate::probe::Layer::{Capabilities, Landlock, MountNamespace, NonDumpable, Seccomp, Uid};
use crate::probe::scene::Scene;

const READS: &str = "the user's files: keys, tokens, sources";
const WRITES: &str = "to change the user's files, and with them what runs next";
const LEARNS: &str = "to learn which files exist and when they are used";

pub(super) const ATTACKS: &[Attack] = &[
    attack("outside-read", "read a file that nothing declares", READS, read)
        .rings([A, D, D, D])
        .by(&[MountNamespace, Landlock]),
    attack("outside-write", "write to a file that nothing declares", WRITES, write)
        .rings([A, D, D, D])
        .by(&[MountNamespace, Landlock]),
    attack("outside-create", "create a file outside every declared tree", WRITES, create)
        .by(&[MountNamespace, Landlock]),
    attack("outside-list", "list a directory that nothing declares", LEARNS, list).by(&[MountNamespace, Landlock]),
    attack("outside-stat", "stat a file that nothing declares", LEARNS, |s| {
        Ok(fs::metadata(s.outside.join("secret")).map(drop)?)
    })
    .by(&[MountNamespace]),
    attack(
        "installation-secret",
        "read a file in a program's installation that its owner alone may read",
        READS,
        |s| read_secret(&s.installed.join("secret.conf")),
    )
    .by(&[Uid, Capabilities])
    .with(&[Need::OwnUid]),
    attack("outside-inotify", "watch a directory that nothing declares", LEARNS, watch).by(&[MountNamespace, Landlock]),
    attack("outside-truncate", "truncate a file that nothing declares", WRITES, |s| {
        Ok(nix::unistd::truncate(&s.outside.join("secret"), 0)?)
    })
    .by(&[MountNamespace, Landlock]),
    attack("outside-chmod", "chmod a file that nothing declares", WRITES, |s| {
        Ok(fs::set_permissions(s.outside.join("secret"), fs::Permissions::from_mode(0o666))?)
    })
    .by(&[MountNamespace]),
    attack("outside-chown", "chown a file that nothing declares to its own group", WRITES, |s| {
        let group = nix::unistd::getegid().as_raw();
        Ok(std::os::unix::fs::chown(s.outside.join("secret"), None, Some(group))?)
    })
    .by(&[MountNamespace, Seccomp]),
    attack("outside-utime", "set the times of a file that nothing declares", WRITES, |s| {
        let moment = nix::sys::time::TimeVal::new(1, 0);
        Ok(nix::sys::stat::utimes(&s.outside.join("secret"), &moment, &moment)?)
    })
    .by(&[MountNamespace]),
    attack("outside-xattr", "set an extended attribute of a file that nothing declares", WRITES, |s| {
        super::declared::set_attribute(&s.outside.join("secret"))
    })
    .by(&[MountNamespace, Seccomp]),
    attack("outside-unlink", "remove a file that nothing declares", WRITES, |s| {
        Ok(fs::remove_file(s.outside.join("secret"))?)
    })
    .by(&[MountNamespace, Landlock]),
    attack("outside-link", "hard-link an outside file into a writable directory", READS, |s| {
        Ok(fs::hard_link(s.outside.join("secret"), s.own.join("linked"))?)
    })
    .by(&[MountNamespace, Landlock]),
    attack("outside-rename", "move an outside file into a writable directory", READS, |s| {
        Ok(fs::rename(s.outside.join("secret"), s.own.join("moved"))?)
    })
    .by(&[MountNamespace, Landlock]),
    attack("outside-symlink", "read an outside file through a symbolic link of one's own", READS, through_link)
        .by(&[MountNamespace, Landlock]),
    attack("outside-dotdot", "read an outside file by `..` from the workdir's descriptor", READS, dotdot)
        .by(&[MountNamespace, Landlock]),
    attack("outside-openat2", "read an outside file by openat2(2)", READS, openat2).by(&[
        Seccomp,
        MountNamespace,
        Landlock,
    ]),
    attack("outside-o-path", "reopen an O_PATH descriptor of an outside file through /proc/self/fd", READS, o_path)
        .by(&[MountNamespace, Landlock]),
    attack("file-handle", "open an outside file by its handle (open_by_handle_at)", READS, by_handle)
        .rings([D; 4])
        .by(&[Seccomp, Capabilities])
        .past(&[Errno::ESTALE, Errno::EBADF]),
    attack("name-to-handle", "get the handle of a file (name_to_handle_at)", "names that outlive masks", |s| {
        to_handle(&s.work.join("file")).map(drop).map_err(Stopped::from)
    })
    .rings([N, N, D, D])
    .by(&[Seccomp]),
    attack("proc-root", "read an outside file through /proc/PID/root of the init", READS, proc_root)
        .rings([D; 4])
        .by(&[NonDumpable, Landlock, MountNamespace])
        .with(&[Need::Victim]),
    attack("shadow", "read /etc/shadow", "password hashes", |s| {
        let _unused = s;
        Ok(fs::read("/etc/shadow").map(drop)?)
    })
    .by(&[MountNamespace, Landlock, Uid, Capabilities]),
    attack("kernel-command-line", "read the kernel's command line", "disks, addresses and keys of the host", |s| {
        let _unused = s;
        if fs::read("/proc/cmdline")?.is_empty() { Err(Stopped::Nothing("it is empty".to_owned())) } else { Ok(()) }
    })
    .by(&[MountNamespace, Landlock]),
    attack("kernel-log", "open /dev/kmsg", "kernel addresses and other programs' messages", |s| {
        let _unused = s;
        open(Path::new("/dev/kmsg"), OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(drop)
    })
    .by(&[MountNamespace, Landlock, Uid]),
    attack("supervisor-state", "read the supervisor's key", "to sign what it likes", |s| {
        read_secret(&s.state.join("key"))
    })
    .rings([D; 4])
    .by(&[MountNamespace]),
    attack(
        "supervisor-state-in-workdir",
        "read the supervisor's key below the workdir",
        "to sign what it likes",
        |s| read_secret(&s.work.join(".state/key")),
    )
    .rings([D; 4])
    .by(&[MountNamespace]),
    attack("uncover", "unmount the cover of the supervisor's state in a user namespace of one's own", READS, uncover)
        .rings([D; 4])
        .by(&[MountNamespace, Seccomp]),
    attack("peek-by-bind", "bind-mount the parent of the supervisor's state to look under its cover", READS, peek)
        .rings([D; 4])
        .by(&[MountNamespace, Seccomp]),
];

fn read(scene: &Scene) -> Answer {
    read_secret(&scene.outside.join("secret"))
}

fn write(scene: &Scene) -> Answer {
    let mut file = fs::OpenOptions::new().write(true).open(scene.outside.join("secret"))?;
    Ok(file.write_all(b"changed")?)
}

fn create(scene: &Scene) -> Answer {
    Ok(fs::File::create_new(scene.outside.join("created")).map(drop)?)
}

fn list(scene: &Scene) -> Answer {
    if fs::read_dir(&scene.outside)?.next().is_some() {
        Ok(())
    } else {
        Err(Stopped::Nothing("an empty directory".to_owned()))
    }
}

fn watch(scene: &Scene) -> Answer {
    watch_directory(&scene.outside)
}

pub(super) fn watch_directory(directory: &Path) -> Answer {
    // SAFETY: flags only; the kernel makes a new descriptor.
    let fd = unsafe { raw(libc::SYS_inotify_init1, [libc::IN_CLOEXEC as usize, 0, 0, 0, 0, 0]) }.ready_stopped()?;
    // SAFETY: the descriptor was made for us a moment ago.
    let inotify = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let path = c_path(directory)?;
    // SAFETY: path is a NUL-terminated string that outlives the call.
    let watch = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), libc::IN_ALL_EVENTS) };
    if watch < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

trait ReadyStopped<T> {
    fn ready_stopped(self) -> Result<T, Stopped>;
}

impl<T> ReadyStopped<T> for Result<T, Stopped> {
    fn ready_stopped(self) -> Result<T, Stopped> {
        self.map_err(|stopped| Stopped::Setup(format!("{stopped:?}")))
    }
}

fn through_link(scene: &Scene) -> Answer {
    let link = scene.own.join("link");
    symlink(scene.outside.join("secret"), &link).ready("make a link of our own")?;
    read_secret(&link)
}

fn work_dir(scene: &Scene) -> Result<OwnedFd, Stopped> {
    nix::fcntl::open(&scene.work, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ready("open the workdir")
}

fn secret_through(fd: OwnedFd) -> Answer {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut fs::File::from(fd), &mut bytes)?;
    if holds_mark(&bytes) { Ok(()) } else { Err(Stopped::Nothing("the file shows something else".to_owned())) }
}

fn dotdot(scene: &Scene) -> Answer {
    let dir = work_dir(scene)?;
    secret_through(nix::fcntl::openat(&dir, "../outside/secret", OFlag::O_RDONLY, Mode::empty())?)
}

fn openat2(scene: &Scene) -> Answer {
    let dir = work_dir(scene)?;
    let how: [u64; 3] = [libc::O_CLOEXEC as u64, 0, 0];
    let path = c"../outside/secret";
    // SAFETY: a NUL-terminated path and an open_how of three u64, both living past the call.
    let fd = unsafe {
        raw(
            libc::SYS_openat2,
            [dir.as_raw_fd() as usize, path.as_ptr() as usize, how.as_ptr() as usize, size_of_val(&how), 0, 0],
        )
    }?;
    // SAFETY: a new descriptor of ours.
    secret_through(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn o_path(scene: &Scene) -> Answer {
    let fd = open(&scene.outside.join("secret"), OFlag::O_PATH)?;
    read_secret(&proc_path(nix::unistd::getpid().as_raw(), &format!("fd/{}", fd.as_raw_fd())))
}

/// A file handle as the kernel writes it.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

/// Asks the kernel for the handle of a file.
pub(in crate::probe) fn to_handle(path: &Path) -> io::Result<crate::probe::scene::Handle> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut handle = FileHandle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount = 0i32;
    // SAFETY: handle offers the 128 bytes that it says, mount is one int; both outlive the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), &raw mut handle, &raw mut mount, 0)
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(crate::probe::scene::Handle { kind: handle.kind, bytes: handle.data[..handle.bytes as usize].to_vec() })
}

fn by_handle(scene: &Scene) -> Answer {
    let Some(wanted) = &scene.handle else {
        return Err(Stopped::Setup("this file system has no file handles".to_owned()));
    };
    let dir = work_dir(scene)?;
    let mut handle = FileHandle { bytes: wanted.bytes.len() as u32, kind: wanted.kind, data: [0; 128] };
    handle.data[..wanted.bytes.len()].copy_from_slice(&wanted.bytes);
    // SAFETY: a handle with as many bytes as it says, living past the call.
    let fd = unsafe {
        raw(
            libc::SYS_open_by_handle_at,
            [dir.as_raw_fd() as usize, (&raw const handle) as usize, libc::O_CLOEXEC as usize, 0, 0, 0],
        )
    }?;
    // SAFETY: a new descriptor of ours.
    secret_through(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn proc_root(scene: &Scene) -> Answer {
    let below = scene.outside.strip_prefix("/").unwrap_or(&scene.outside);
    read_secret(&proc_path(super::processes::settled_init(scene), "root").join(below).join("secret"))
}

/// The steps before the last read may fail: what counts is whether the key can be read in the end. Nothing is mounted unless
/// the mount namespace is our own: the control runs on the host.
fn uncover(scene: &Scene) -> Answer {
    if own_namespaces() {
        let _refused = nix::mount::umount2(&scene.state, MntFlags::MNT_DETACH);
    }
    read_secret(&scene.state.join("key"))
}

fn peek(scene: &Scene) -> Answer {
    if own_namespaces() {
        let parent = scene.state.parent().unwrap_or(&scene.state);
        let _refused = nix::mount::mount(Some(parent), &scene.own, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    }
    read_secret(&scene.own.join("state/key")).or_else(|_| read_secret(&scene.state.join("key")))
}

fn own_namespaces() -> bool {
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).is_ok()
}

fn c_path(path: &Path) -> Result<std::ffi::CString, Stopped> {
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).ready("a path without NUL")
}
