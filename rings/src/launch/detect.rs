//! What this host offers, found by trying: in throw-away children of the launcher, with the code that launches use.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::statfs::statfs;
use nix::unistd::pipe2;

use super::root::Ground;
use super::server::KnownMaps;
use crate::builtin;
use crate::capability::Capabilities;
use crate::host::{Controllers, Host, Privilege, Support, Tree};
use crate::plan::{Mount, Root, SystemEntry, SystemTrees};
use crate::sys::process::{self, Cloned};
use crate::sys::{self, mount};

/// A small text file of /etc is carried in the plan rather than mounted: writing 4 KiB to a tmpfs costs less than a mount.
const SMALL_FILE_BYTES_MAX: u64 = 4096;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether we hold the power of root, not just its number: in a container uid 0 may have no capabilities.
pub(super) fn privilege() -> Privilege {
    let uid = nix::unistd::geteuid().as_raw();
    if uid == 0 && capability_set("CapEff:").has(CAP_SYS_ADMIN) {
        Privilege::Root
    } else {
        Privilege::User { uid, gid: nix::unistd::getegid().as_raw() }
    }
}

/// One of our own sets, from /proc; empty where it can't be read.
fn capability_set(key: &str) -> Capabilities {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    Capabilities::from_mask(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
}

/// What could be left to an agent: permitted, and still in the bounding set. A user's namespace gives none that means anything
/// on the host.
fn held_capabilities(privilege: Privilege) -> Capabilities {
    match privilege {
        Privilege::User { .. } => Capabilities::NONE,
        Privilege::Root => Capabilities::from_mask(capability_set("CapPrm:").mask() & capability_set("CapBnd:").mask()),
    }
}

/// Collects the facts. The controllers are the supervisor's to find: it owns the cgroups.
pub(super) fn host(privilege: Privilege) -> (Host, SystemTrees) {
    let kernel = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let seccomp = if sys::seccomp_filter_available() {
        Support::Yes
    } else {
        Support::No { reason: "seccomp(2) knows no filters here".to_owned() }
    };
    let host = Host {
        kernel,
        landlock_abi: sys::landlock_abi(),
        seccomp,
        notify: notify(privilege),
        privilege,
        namespaces: namespaces(privilege),
        controllers: Controllers::none("not looked at"),
        capabilities: held_capabilities(privilege),
        own_ids: own_ids(),
    };
    (host, system_trees())
}

/// Whether the range of own uids is mapped into this user namespace.
fn own_ids() -> Support {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mapped = map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [inside, _, count] = numbers[..] else { return false };
        let base = u64::from(builtin::OWN_ID_BASE);
        inside <= base && base + u64::from(builtin::OWN_ID_COUNT) <= inside + count
    });
    if mapped {
        Support::Yes
    } else {
        Support::No { reason: format!("uids from {} on are not mapped in this container", builtin::OWN_ID_BASE) }
    }
}

/// Really makes a listener in a child; and whether Yama would let its holder look into an agent.
fn notify(privilege: Privilege) -> Support {
    let no = |reason: String| Support::No { reason };
    let pipe = match pipe2(OFlag::O_CLOEXEC) {
        Ok(pipe) => pipe,
        Err(e) => return no(format!("pipe2: {e}")),
    };
    // SAFETY: the launcher is single-threaded.
    match unsafe { process::fork_into(0, None) } {
        Err(e) => return no(format!("clone3: {e}")),
        Ok(Cloned::Child) => {
            let answer = sys::notify::try_listener().err().map_or_else(String::new, |e| e.to_string());
            let _ = nix::unistd::write(&pipe.1, answer.as_bytes());
            // SAFETY: ends the child without running the launcher's exit handlers.
            unsafe { libc::_exit(0) }
        }
        Ok(Cloned::Parent { .. }) => drop(pipe.1),
    }
    let mut answer = String::new();
    match fs::File::from(pipe.0).read_to_string(&mut answer) {
        Ok(_) if answer.is_empty() => {}
        Ok(_) => return no(format!("a filter with a listener: {answer}")),
        Err(e) => return no(format!("read the child's answer: {e}")),
    }
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let has_capability = match privilege {
        // In the user namespace of an agent its attendant has every capability there is.
        Privilege::User { .. } => true,
        Privilege::Root => held_capabilities(privilege).has(process::CAP_SYS_PTRACE),
    };
    match yama.trim() {
        "3" => no("kernel.yama.ptrace_scope is 3: nobody may look into another process".to_owned()),
        "1" | "2" if !has_capability => {
            no(format!("kernel.yama.ptrace_scope is {}, and the supervisor lacks CAP_SYS_PTRACE", yama.trim()))
        }
        _ => Support::Yes,
    }
}

/// Really makes every namespace and a new root in a child, and reports the step that fails.
fn namespaces(privilege: Privilege) -> Support {
    let no = |step: &str, e: &dyn std::fmt::Display| Support::No { reason: format!("{step}: {e}") };
    let (user, flags) = match privilege {
        Privilege::Root => (None, 0),
        Privilege::User { uid, gid } => (Some((uid, gid)), libc::CLONE_NEWUSER),
    };
    let all = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
    let pipes = pipe2(OFlag::O_CLOEXEC).and_then(|gate| Ok((gate, pipe2(OFlag::O_CLOEXEC)?)));
    let ((gate_read, gate_write), (answer_read, answer_write)) = match pipes {
        Ok(pipes) => pipes,
        Err(e) => return no("pipe2", &e),
    };
    // SAFETY: the launcher is single-threaded.
    match unsafe { process::fork_into(flags | all, None) } {
        Err(e) => no("clone3 with user, mount, PID, IPC, UTS and network namespaces", &e),
        Ok(Cloned::Child) => {
            drop((gate_write, answer_read));
            let mut go = [0u8; 1];
            let _ = nix::unistd::read(&gate_read, &mut go);
            let answer = rehearse().err().unwrap_or_default();
            let _ = nix::unistd::write(&answer_write, answer.as_bytes());
            // SAFETY: ends the child without running the launcher's exit handlers.
            unsafe { libc::_exit(0) }
        }
        Ok(Cloned::Parent { pid, pidfd: _pidfd }) => {
            drop((gate_read, answer_write));
            if let Some((uid, gid)) = user
                && let Err(e) = write_id_maps(pid, (uid, uid), (gid, gid))
            {
                return no("write uid_map", &e);
            }
            if let Err(e) = nix::unistd::write(&gate_write, b"g") {
                return no("wake the child", &e);
            }
            let mut answer = String::new();
            match fs::File::from(answer_read).read_to_string(&mut answer) {
                Ok(_) if answer.is_empty() => Support::Yes,
                Ok(_) => Support::No { reason: answer },
                Err(e) => no("read the child's answer", &e),
            }
        }
    }
}

/// The shortest root that touches every mechanism which a real one needs.
fn rehearse() -> Result<(), String> {
    sys::net::loopback_up().map_err(|e| format!("bring up loopback in a network namespace: {e}"))?;
    let mounts = vec![
        Mount::Device { path: PathBuf::from("/dev/null") },
        Mount::Proc,
        Mount::Terminals,
        Mount::Private { target: PathBuf::from("/tmp"), mode: 0o1777, execute: crate::plan::Execute::Allowed },
    ];
    let root = Root::Built { mounts, bytes: 1024 * 1024 };
    super::root::enter(&root, None, &[], None, &Ground::Own)
        .map(drop)
        .map_err(|f| format!("{}: {}", f.step, io::Error::from_raw_os_error(f.errno)))
}

/// Which system paths exist here and what they are.
fn system_trees() -> SystemTrees {
    let mut entries = Vec::new();
    for path in builtin::RUNTIME_TREES.iter().map(Path::new) {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => {
                if let Ok(to) = fs::read_link(path) {
                    entries.push((path.to_owned(), SystemEntry::Link(to)));
                }
            }
            Ok(_) => entries.push((path.to_owned(), SystemEntry::Real(path.to_owned()))),
            Err(_) => {}
        }
    }
    let more = builtin::definition(crate::ring::Ring::R1).system_read;
    for path in builtin::RUNTIME_ETC.iter().chain(more).map(Path::new) {
        let Ok(real) = fs::canonicalize(path) else { continue };
        let Ok(meta) = fs::metadata(&real) else { continue };
        if meta.is_file() && meta.len() <= SMALL_FILE_BYTES_MAX && path.starts_with("/etc") {
            // Not text, or unreadable for us: then it is unreadable for the agent as well, or a mount shows it.
            if let Ok(content) = fs::read_to_string(&real) {
                entries.push((path.to_owned(), SystemEntry::Small(content)));
            }
        } else {
            entries.push((path.to_owned(), SystemEntry::Real(real)));
        }
    }
    SystemTrees { entries }
}

/// The facts about one declared tree.
pub(super) fn tree(path: &Path, privilege: Privilege, maps: &mut KnownMaps) -> Result<Tree, String> {
    let meta = fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let filesystem =
        statfs(path).map_or_else(|_| "this filesystem".to_owned(), |s| filesystem_name(s.filesystem_type().0));
    let id_map = match privilege {
        Privilege::User { .. } => Support::No { reason: "only root can make id-mapped mounts".to_owned() },
        Privilege::Root => match try_id_map(path, (meta.uid(), meta.gid()), maps) {
            Ok(()) => Support::Yes,
            Err(e) => Support::No { reason: format!("mount_setattr: {e}") },
        },
    };
    Ok(Tree { path: path.to_owned(), uid: meta.uid(), gid: meta.gid(), id_map, filesystem })
}

fn filesystem_name(magic: i64) -> String {
    match magic {
        0xEF53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683E => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x794c_7630 => "overlayfs".to_owned(),
        0x8584_58f6 => "ramfs".to_owned(),
        0x6969 => "nfs".to_owned(),
        0x6573_5546 => "fuse".to_owned(),
        other => format!("filesystem {other:#x}"),
    }
}

/// Maps a detached copy of the mount, which is never attached anywhere and goes with its descriptor.
fn try_id_map(path: &Path, owner: (u32, u32), maps: &mut KnownMaps) -> io::Result<()> {
    let namespace = maps.get(owner, (builtin::OWN_ID_BASE, builtin::OWN_ID_BASE))?;
    let root = fs::File::open("/")?;
    let at = mount::open_in_root(root.as_fd(), path)?;
    let copy = mount::clone_tree(at.as_fd())?;
    mount::set_id_map(copy.as_fd(), namespace.as_fd())
}

/// A user namespace whose map shows the on-disk owner as the agent: nobody lives in it, its map is all that is wanted.
pub(super) fn user_namespace(on_disk: (u32, u32), agent: (u32, u32)) -> io::Result<OwnedFd> {
    let (gate_read, gate_write) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the launcher is single-threaded.
    match unsafe { process::fork_into(libc::CLONE_NEWUSER, None) }? {
        Cloned::Child => {
            drop(gate_write);
            let mut nothing = [0u8; 1];
            // Ends when the launcher closes its end (or dies): the namespace lives on by its descriptor.
            let _ = nix::unistd::read(&gate_read, &mut nothing);
            // SAFETY: ends the child without running the launcher's exit handlers.
            unsafe { libc::_exit(0) }
        }
        Cloned::Parent { pid, pidfd: _pidfd } => {
            drop(gate_read);
            write_id_maps(pid, (on_disk.0, agent.0), (on_disk.1, agent.1))?;
            let namespace = fs::File::open(format!("/proc/{pid}/ns/user"))?;
            Ok(namespace.into())
        }
    }
}

/// Writes one-line id maps: (inside, outside) for users and for groups.
pub(super) fn write_id_maps(pid: i32, user: (u32, u32), group: (u32, u32)) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/uid_map"), format!("{} {} 1", user.0, user.1))?;
    fs::write(format!("/proc/{pid}/gid_map"), format!("{} {} 1", group.0, group.1))
}
