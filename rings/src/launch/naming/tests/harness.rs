//! A filter that lets creating calls wait, a thread that answers them, and a program of ours to make such calls.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::{Bond, Names};
use crate::launch::attendant::{Caller, Request};
use crate::names::Rules;
use crate::notice::What;
use crate::sys::notify::Listener;
use crate::sys::{check, process};

const SIMPLE: &[i64] = &[
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

/// (number, which argument has the flags).
const OPENS: &[(i64, u32)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

fn filter() -> Vec<libc::sock_filter> {
    let word = |k| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k };
    let give = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let mut program = vec![word(0)];
    for number in SIMPLE {
        program.push(libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: *number as u32 });
        program.push(give(libc::SECCOMP_RET_USER_NOTIF));
    }
    for (number, arg) in OPENS {
        program.push(libc::sock_filter { code: 0x15, jt: 0, jf: 4, k: *number as u32 });
        program.push(word(16 + 8 * arg));
        let made = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
        program.push(libc::sock_filter { code: 0x45, jt: 0, jf: 1, k: made });
        program.push(give(libc::SECCOMP_RET_USER_NOTIF));
        program.push(give(libc::SECCOMP_RET_ALLOW));
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}

/// Runs a command to its end with its creating calls answered under these rules.
pub(super) fn attended(top: &Path, mut command: Command, rules: Rules) -> (Output, Vec<What>) {
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let program = filter();
    let theirs = there.as_raw_fd();
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        const NEW_LISTENER: libc::c_ulong = 1 << 3;
        const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        // SAFETY: the program lives until the kernel has copied it; then numbers and eight live bytes.
        unsafe {
            let fd = check(libc::syscall(libc::SYS_seccomp, 1, NEW_LISTENER | WAIT_KILLABLE, &raw const filter))?;
            let told = [libc::getpid(), fd as i32];
            libc::write(theirs, told.as_ptr().cast(), 8);
            let mut go = 0u8;
            libc::read(theirs, (&raw mut go).cast(), 1);
        }
        Ok(())
    };
    // SAFETY: system calls alone.
    unsafe { command.pre_exec(install) };
    let wall = wall(top);
    let server = std::thread::spawn(move || serve(here, rules, wall));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(there);
    let output = child.wait_with_output().unwrap();
    (output, server.join().unwrap())
}

fn serve(mut socket: std::os::unix::net::UnixStream, rules: Rules, wall: Option<OwnedFd>) -> Vec<What> {
    let mut told = [0u8; 8];
    socket.read_exact(&mut told).unwrap();
    let number = |at: usize| i32::from_ne_bytes(told[at..at + 4].try_into().unwrap());
    let child = process::pidfd_open(number(0)).unwrap();
    // SAFETY: numbers; a new descriptor of ours.
    let listener = unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_getfd, child.as_raw_fd(), number(4), 0)).unwrap();
        Listener::new(OwnedFd::from_raw_fd(fd as i32))
    };
    let confine = || wall.as_ref().map_or(Ok(()), behind);
    // SAFETY: system calls alone.
    let mut names = unsafe { Names::start(rules, &confine, Bond::Apart) }.unwrap();
    socket.write_all(b"g").unwrap();
    let mut notices = Vec::new();
    let listener = std::rc::Rc::new(listener);
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
        if !fds[0].revents().unwrap().contains(PollFlags::POLLIN) {
            return notices;
        }
        let Some(waiting) = listener.receive().unwrap() else { continue };
        let request = Request { name: "", call: waiting.call };
        let (reply, more) = names.attend(&request, &Caller::new(&waiting, &listener));
        listener.reply(waiting.id, reply).unwrap();
        notices.extend(more);
    }
}

/// What stands below a folder: kind, mode, content or target.
pub(super) fn tree(top: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(top: &Path, at: &Path, found: &mut BTreeMap<PathBuf, String>) {
        // A folder without rights (umask 777) is as closed to an ordinary user here as it was to the acts.
        let entries = match std::fs::read_dir(at) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return,
            entries => entries.unwrap(),
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let meta = match path.symlink_metadata() {
                // It can be listed, and not looked into.
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                    found.insert(path.strip_prefix(top).unwrap().to_owned(), "closed".to_owned());
                    continue;
                }
                meta => meta.unwrap(),
            };
            let kind = meta.file_type();
            let mode = meta.permissions().mode();
            let what = if kind.is_symlink() {
                format!("link to {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                format!("folder {mode:o}")
            } else if kind.is_file() {
                format!(
                    "file {mode:o} {} {:?}",
                    meta.nlink(),
                    std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                )
            } else {
                format!("fifo {} {mode:o}", kind.is_fifo())
            };
            found.insert(path.strip_prefix(top).unwrap().to_owned(), what);
            if kind.is_dir() {
                walk(top, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(top, top, &mut found);
    found
}

/// The rules that hold below a folder by default.
pub(super) fn rules(top: &Path) -> Rules {
    Rules { roots: vec![top.to_owned()], workdir: top.to_owned(), ..Rules::default() }
}

/// Rules by which nothing outside of `top` can be made, moved or taken away, whatever acts are drawn: they are made as whoever
/// runs the tests. `None` where the kernel has no Landlock.
fn wall(top: &Path) -> Option<OwnedFd> {
    use landlock::{ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr};
    let rule = |path: &str, rights| PathBeneath::new(PathFd::new(path).unwrap(), rights);
    let created = Ruleset::default().handle_access(AccessFs::from_write(ABI::V3)).unwrap().create().unwrap();
    let created = created.add_rule(rule(top.to_str().unwrap(), AccessFs::from_write(ABI::V3))).unwrap();
    created.add_rule(rule("/dev/null", AccessFs::WriteFile.into())).unwrap().into()
}

fn behind(wall: &OwnedFd) -> std::io::Result<()> {
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, wall.as_raw_fd(), 0) }).map(drop)
}

/// Whether acts can be kept inside their folder here; says so where they can't.
pub(super) fn has_walls() -> bool {
    let has = crate::sys::landlock_abi().is_some_and(|abi| abi >= 2);
    if !has {
        eprintln!("skipped: drawn acts are made behind Landlock alone");
    }
    has
}

/// This test program, as one that makes the calls given to it inside `top` and prints what came of each.
pub(super) fn acting(top: &Path, folder: &Path, acts: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "launch::naming::tests::harness::acts_that_were_given",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(ACTS, acts.join("\n")).current_dir(folder);
    if let Some(wall) = wall(top) {
        // SAFETY: system calls alone.
        unsafe { command.pre_exec(move || behind(&wall)) };
    }
    command
}

const ACTS: &str = "AGT_TEST_ACTS";

/// The lines that [`acting`] printed.
pub(super) fn results(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.split_once("=> ").map(|(_, result)| result.to_owned())).collect()
}

#[test]
fn acts_that_were_given() {
    let Ok(acts) = std::env::var(ACTS) else { return };
    for act in acts.lines() {
        println!("=> {}", acted(act));
    }
}

/// One act: `call argument argument ...`, numbers in octal, paths escaped as JSON would (no spaces).
fn acted(act: &str) -> String {
    use std::ffi::CString;
    let words: Vec<&str> = act.split(' ').collect();
    let text = |at: usize| CString::new(words[at].replace("%20", " ").replace("%0A", "\n")).unwrap();
    let number = |at: usize| libc::c_long::from_str_radix(words[at], 8).unwrap();
    let cwd = libc::AT_FDCWD;
    // SAFETY: numbers, and texts that live until each call returns.
    let value = unsafe {
        match words[0] {
            "open" => libc::syscall(libc::SYS_openat, cwd, text(1).as_ptr(), number(2), number(3)),
            "mkdir" => libc::syscall(libc::SYS_mkdirat, cwd, text(1).as_ptr(), number(2)),
            "mknod" => libc::syscall(libc::SYS_mknodat, cwd, text(1).as_ptr(), number(2), 0),
            "symlink" => libc::syscall(libc::SYS_symlinkat, text(1).as_ptr(), cwd, text(2).as_ptr()),
            "link" => libc::syscall(libc::SYS_linkat, cwd, text(1).as_ptr(), cwd, text(2).as_ptr(), number(3)),
            "rename" => libc::syscall(libc::SYS_renameat2, cwd, text(1).as_ptr(), cwd, text(2).as_ptr(), number(3)),
            "rmdir" => libc::rmdir(text(1).as_ptr()).into(),
            "unlink" => libc::unlink(text(1).as_ptr()).into(),
            "chdir" => libc::chdir(text(1).as_ptr()).into(),
            "umask" => {
                libc::umask(number(1) as u32);
                0
            }
            other => panic!("{other}"),
        }
    };
    if value < 0 {
        return nix::errno::Errno::last().to_string();
    }
    if words[0] != "open" {
        return "done".to_owned();
    }
    let fd = value as i32;
    // SAFETY: numbers, and live bytes.
    unsafe {
        libc::write(fd, b"x".as_ptr().cast(), 1);
        // O_NOFOLLOW is ours: the caller's link was followed before.
        let (flags, closes) = (libc::fcntl(fd, libc::F_GETFL) & !libc::O_NOFOLLOW, libc::fcntl(fd, libc::F_GETFD));
        let at = libc::lseek(fd, 0, libc::SEEK_CUR);
        libc::close(fd);
        // O_PATH descriptors and odd files have no offset; that is compared too.
        format!("fd {fd} flags {flags:o} closes {closes} at {at}")
    }
}
