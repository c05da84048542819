//! A tree that is declared for reading and belongs to the agent's own uid: permission bits would let all of this through, so
//! only the read-only mount and Landlock stand in the way. Landlock alone has no right for chmod, chown, utime and xattr.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{Answer, Attack, D, N, Ready, attack, open, proc_path, raw};
use crate::probe::Layer::{Landlock, MountNamespace, ReadOnlyMount, Seccomp};
use crate::probe::scene::Scene;

const GAIN: &str = "to change what it was only shown, and what others then read";

pub(super) const ATTACKS: &[Attack] = &[
    attack("readonly-write", "write to a file declared for reading", GAIN, |s| overwrite(&file(s)))
        .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-truncate", "truncate a file declared for reading", GAIN, |s| {
        Ok(nix::unistd::truncate(&file(s), 0)?)
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-chmod", "chmod a file declared for reading", GAIN, |s| {
        Ok(fs::set_permissions(file(s), fs::Permissions::from_mode(0o777))?)
    })
    .by(&[ReadOnlyMount]),
    attack("readonly-chown", "chown a file declared for reading to its own group", GAIN, |s| {
        Ok(chown(file(s), None, Some(nix::unistd::getegid().as_raw()))?)
    })
    .by(&[ReadOnlyMount, Seccomp]),
    attack("readonly-utime", "set the times of a file declared for reading", GAIN, |s| {
        let moment = nix::sys::time::TimeVal::new(1, 0);
        Ok(nix::sys::stat::utimes(&file(s), &moment, &moment)?)
    })
    .by(&[ReadOnlyMount]),
    attack("readonly-xattr", "set an extended attribute on a file declared for reading", GAIN, |s| {
        set_attribute(&file(s))
    })
    .by(&[ReadOnlyMount, Seccomp]),
    attack("readonly-create", "create a file in a tree declared for reading", GAIN, |s| {
        Ok(fs::File::create_new(s.readonly.join("created")).map(drop)?)
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-mkdir", "make a directory in a tree declared for reading", GAIN, |s| {
        Ok(fs::create_dir(s.readonly.join("made"))?)
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-symlink", "plant a symbolic link in a tree declared for reading", GAIN, |s| {
        Ok(symlink("/etc/passwd", s.readonly.join("planted"))?)
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-link", "hard-link inside a tree declared for reading", GAIN, |s| {
        Ok(fs::hard_link(file(s), s.readonly.join("linked"))?)
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-link-out", "hard-link a file declared for reading into a writable directory", GAIN, |s| {
        Ok(fs::hard_link(file(s), s.own.join("linked"))?)
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
    attack("readonly-rename", "rename a file declared for reading", GAIN, |s| {
        Ok(fs::rename(file(s), s.readonly.join("renamed"))?)
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-unlink", "remove a file declared for reading", GAIN, |s| Ok(fs::remove_file(file(s))?))
        .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-reopen", "open for reading, then reopen for writing through /proc/self/fd", GAIN, reopen)
        .by(&[ReadOnlyMount, Landlock]),
    attack("readonly-o-path-chmod", "chmod through /proc/self/fd of an O_PATH descriptor", GAIN, o_path_chmod)
        .by(&[ReadOnlyMount]),
    attack("system-write", "open a system program for writing", "to change what every other user runs", |s| {
        let _unused = s;
        let program = ["/usr/bin/env", "/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
        let program = program.ok_or(Errno::ENOENT).ready("find a system program")?;
        open(program, OFlag::O_WRONLY).map(drop)
    })
    .past(&[Errno::ETXTBSY])
    .by(&[ReadOnlyMount, Landlock]),
    attack("workdir-write", "write to the workdir (R3 only reads it)", GAIN, |s| overwrite(&s.work.join("file")))
        .rings([N, N, N, D])
        .by(&[ReadOnlyMount, Landlock]),
];

fn file(scene: &Scene) -> PathBuf {
    scene.readonly.join("file")
}

fn overwrite(path: &Path) -> Answer {
    Ok(fs::OpenOptions::new().write(true).open(path)?.write_all(b"changed")?)
}

pub(super) fn set_attribute(path: &Path) -> Answer {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).ready("a path without NUL")?;
    let (name, value) = (c"user.agt-probe", b"x");
    // SAFETY: two NUL-terminated strings and one byte, all living past the call.
    unsafe {
        raw(
            libc::SYS_setxattr,
            [path.as_ptr() as usize, name.as_ptr() as usize, value.as_ptr() as usize, value.len(), 0, 0],
        )
    }
    .map(drop)
}

fn reopen(scene: &Scene) -> Answer {
    let fd = fs::File::open(file(scene)).ready("open it for reading")?;
    overwrite(&proc_path(nix::unistd::getpid().as_raw(), &format!("fd/{}", fd.as_raw_fd())))
}

fn o_path_chmod(scene: &Scene) -> Answer {
    let fd = nix::fcntl::open(&file(scene), OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        .ready("open it with O_PATH")?;
    let through = proc_path(nix::unistd::getpid().as_raw(), &format!("fd/{}", fd.as_raw_fd()));
    Ok(fs::set_permissions(through, fs::Permissions::from_mode(0o777))?)
}
