//! The entries of a built root: what is listed is there, nothing else is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Ids, Mount, Plan, Root, SystemEntry, SystemTrees};
use crate::builtin::{self, Definition};
use crate::host::Tree;
use crate::seccomp::Nested;
use crate::spec::{Access, FileRule, Spec};

/// Where overlayfs keeps its marks (what is gone, what is opaque).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Marks {
    /// In `trusted.*`: root of the host alone.
    Trusted,
    /// In `user.*`: all that a user namespace can write.
    User,
}

/// Whether files of a private directory can be executed, and mapped as code (what the dynamic linker does for `ld.so PROGRAM`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Execute {
    /// As anywhere: compilers and package managers run what they wrote.
    Allowed,
    /// A noexec mount.
    Refused,
}

/// What of a fresh /proc an agent gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcView {
    /// Nothing can be written.
    ReadOnly,
    /// As the kernel has it, so that a user namespace inside may have a fresh one too: the kernel gives that only to who sees one
    /// without a mask and without a mount flag that the new one would lack (mount_too_revealing).
    Whole,
}

/// Whether a system path is part of this ring's view: every ring sees the runtime, R1 sees more.
pub(super) fn belongs(path: &Path, definition: &Definition) -> bool {
    let more = builtin::definition(crate::ring::Ring::R1).system_read;
    let only_more = more.iter().any(|tree| path == Path::new(tree));
    if definition.system_read.is_empty() {
        !only_more
    } else {
        // A whole /etc is shown instead of its parts.
        only_more || !path.starts_with("/etc")
    }
}

impl Mount {
    /// Where it appears.
    #[must_use]
    pub fn target(&self) -> &Path {
        match self {
            Mount::Bind { target, .. }
            | Mount::Overlay { target, .. }
            | Mount::Private { target, .. }
            | Mount::Link { target, .. }
            | Mount::File { target, .. }
            | Mount::Pin { target }
            | Mount::Protect { target }
            | Mount::Hide { target } => target,
            Mount::Device { path } => path,
            Mount::Proc { .. } => Path::new("/proc"),
            Mount::Terminals => Path::new("/dev/pts"),
        }
    }
}

impl Plan {
    /// What exists inside its writable trees and is read-only all the same.
    pub fn protected(&self) -> impl Iterator<Item = &Path> {
        let mounts = match &self.root {
            Root::Built { mounts, .. } => mounts.as_slice(),
            Root::Host { .. } | Root::Unchanged => &[],
        };
        mounts.iter().filter_map(|mount| match mount {
            Mount::Protect { target } => Some(target.as_path()),
            _ => None,
        })
    }
}

/// Lists the mounts, parents before children.
pub(super) fn built(
    spec: &Spec,
    (definition, nested): (&Definition, Nested),
    ids: Option<Ids>,
    account: Ids,
    trees: &[Tree],
    system: &SystemTrees,
) -> Vec<Mount> {
    let mut mounts: Vec<(PathBuf, Mount)> = Vec::new();
    let mut add = |target: &Path, mount: Mount| mounts.push((target.to_owned(), mount));
    for (path, entry) in system.entries.iter().filter(|(path, _)| belongs(path, definition)) {
        let mount = match entry {
            SystemEntry::Real(real) => {
                Mount::Bind { source: real.clone(), target: path.clone(), access: Access::Read, id_map: None }
            }
            SystemEntry::Small(content) => Mount::File { target: path.clone(), content: content.clone() },
            SystemEntry::Link(to) => Mount::Link { target: path.clone(), to: to.clone() },
        };
        add(path, mount);
    }
    if definition.system_read.is_empty() {
        for (path, content) in account_files(account.uid, account.gid) {
            let target = PathBuf::from(path);
            add(&target, Mount::File { target: target.clone(), content });
        }
    }
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"] {
        add(Path::new(device), Mount::Device { path: PathBuf::from(device) });
    }
    for (target, to) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
        ("/var/run", "/run"),
        ("/var/tmp", "/tmp"),
    ] {
        let target = PathBuf::from(target);
        // A declared tree below the link needs a real directory there: no mount point is reached through a link.
        if !spec.files.iter().any(|rule| rule.path.starts_with(&target)) {
            add(&target, Mount::Link { target: target.clone(), to: PathBuf::from(to) });
        }
    }
    let view = if nested == Nested::Allowed { ProcView::Whole } else { ProcView::ReadOnly };
    add(Path::new("/proc"), Mount::Proc { view });
    add(Path::new("/dev/pts"), Mount::Terminals);
    // Nothing is started from shared memory or /run in any ring. R3 is one program that was there before, so that what it writes
    // need not run at all.
    let programs = if spec.ring == crate::ring::Ring::R3 { Execute::Refused } else { Execute::Allowed };
    for (target, mode, execute) in [
        ("/tmp", 0o1777, programs),
        (builtin::HOME, 0o700, programs),
        ("/dev/shm", 0o1777, Execute::Refused),
        ("/run", 0o755, Execute::Refused),
    ] {
        let target = PathBuf::from(target);
        add(&target, Mount::Private { target: target.clone(), mode, execute });
    }
    for rule in &spec.files {
        let tree = trees.iter().find(|tree| tree.path == rule.path);
        let id_map = match (ids, tree) {
            (Some(ids), Some(tree)) if counts_as_owner(spec, rule) && tree.id_map.is_yes() && tree.uid != ids.uid => {
                Some((tree.uid, tree.gid))
            }
            _ => None,
        };
        let access = if spec.ring == crate::ring::Ring::R3 { Access::Read } else { rule.access };
        let shown = match &spec.scratch {
            Some(scratch) if rule.path == spec.workdir && access == Access::Write => {
                let marks = if account_is_mapped(ids) { Marks::User } else { Marks::Trusted };
                Mount::Overlay { target: rule.path.clone(), scratch: scratch.clone(), id_map, marks }
            }
            _ => Mount::Bind { source: rule.path.clone(), target: rule.path.clone(), access, id_map },
        };
        add(&rule.path, shown);
    }
    // The same path twice: the last one wins (a declared path over a system one, write over read).
    mounts.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| rank(&a.1).cmp(&rank(&b.1))));
    mounts.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
    let mut listed: Vec<Mount> = drop_covered(mounts);
    // Last, over everything that is there by then. Outer before inner: a mount covers what was mounted below it.
    listed.extend(pinned(spec).into_iter().map(|target| Mount::Pin { target }));
    listed.extend(spec.protect.iter().map(|target| Mount::Protect { target: target.clone() }));
    listed.extend(spec.hide.iter().chain(&spec.sockets).map(|target| Mount::Hide { target: target.clone() }));
    // The kernel's command line is the host's: it can hold addresses, disks and keys.
    if view == ProcView::ReadOnly {
        listed.push(Mount::Hide { target: PathBuf::from("/proc/cmdline") });
    }
    listed
}

/// Whether the root is made in a user namespace: there a supervisor has no other ids to give.
fn account_is_mapped(ids: Option<Ids>) -> bool {
    ids.is_none()
}

/// An id-mapped mount makes the agent the owner of what it shows: it opens what is readable to the owner alone. So only trees
/// that were given to it have one; in a program's installation it reads what every user reads.
fn counts_as_owner(spec: &Spec, rule: &FileRule) -> bool {
    rule.access == Access::Write || rule.path == spec.workdir || spec.as_owner.contains(&rule.path)
}

/// The directories between a writable tree and what is protected or hidden inside it. Without a pin the whole directory could
/// be moved away, mask included, and one without it be made in its place.
fn pinned(spec: &Spec) -> Vec<PathBuf> {
    let writable =
        || spec.files.iter().filter(|rule| rule.access == Access::Write && spec.ring != crate::ring::Ring::R3);
    let mut pins: Vec<PathBuf> = spec
        .protect
        .iter()
        .chain(&spec.hide)
        .chain(&spec.sockets)
        .flat_map(|target| target.ancestors().skip(1))
        .filter(|dir| writable().any(|rule| dir.starts_with(&rule.path) && *dir != rule.path))
        // A declared tree of its own is a mount point already.
        .filter(|dir| !spec.files.iter().any(|rule| rule.path == *dir))
        .map(Path::to_owned)
        .collect();
    pins.sort();
    pins.dedup();
    pins
}

/// Which of two mounts on the same path wins: the later rank.
fn rank(mount: &Mount) -> u8 {
    match mount {
        Mount::Bind { access: Access::Write, .. } | Mount::Overlay { .. } => 2,
        Mount::Bind { .. } => 1,
        _ => 0,
    }
}

/// A read-only bind below another read-only bind of the same place shows what is there already.
fn drop_covered(mounts: Vec<(PathBuf, Mount)>) -> Vec<Mount> {
    let mut kept: Vec<(PathBuf, Mount)> = Vec::new();
    for (path, mount) in mounts {
        let plain = |mount: &Mount| matches!(mount, Mount::Bind { source, target, access: Access::Read, id_map: None } if source == target);
        let innermost = kept.iter().rev().find(|(parent, _)| path.starts_with(parent));
        if plain(&mount) && innermost.is_some_and(|(_, parent)| plain(parent)) {
            continue;
        }
        kept.push((path, mount));
    }
    kept.into_iter().map(|(_, mount)| mount).collect()
}

/// The agent's own passwd and group: the host's would tell it who else is here.
fn account_files(uid: u32, gid: u32) -> [(&'static str, String); 4] {
    let (passwd, group) = if uid == 0 {
        (format!("root:x:0:0:root:{}:/bin/sh\n", builtin::HOME), "root:x:0:\n".to_owned())
    } else {
        (
            format!(
                "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:{uid}:{gid}:agent:{}:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
                builtin::HOME
            ),
            format!("root:x:0:\nagent:x:{gid}:\nnogroup:x:65534:\n"),
        )
    };
    [
        ("/etc/passwd", passwd),
        ("/etc/group", group),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        ("/etc/resolv.conf", "# No resolver here: names are resolved by the supervisor's gateway.\n".to_owned()),
    ]
}
