//! Which control groups this process could use, found from `/proc/self` and never changed by looking.
//!
//! Why per controller: a host may keep cpu on v1 and memory on v2, a container may see one mount read-only and another
//! writable. Instead of naming a "mode" and hoping, each controller gets its own place or its own reason for having none.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::mounts::{self, Hierarchy, Mount, Own};

/// A kernel controller that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// CPU quota and weight.
    Cpu,
    /// Memory limit and the OOM killer.
    Memory,
    /// Number of tasks.
    Pids,
    /// v1 only: stops a tree (v2 has it in every group).
    Freezer,
    /// v1 only: CPU time used (v2 has it in every group).
    Cpuacct,
    /// v2 only: bytes read and written. v1's `blkio` counts nothing unless somebody throttles a device, and no write that goes
    /// through the page cache: its zeros would be invented numbers.
    Io,
}

impl Controller {
    /// The controllers that keep limits.
    pub const LIMITING: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];
    /// What a v2 group passes on to agents where it can: those that limit, and one that only counts.
    pub(super) const PASSED_ON: [Controller; 4] =
        [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Io];

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Freezer => "freezer",
            Controller::Cpuacct => "cpuacct",
            Controller::Io => "io",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A controller that is not to be had, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {controller} controller: {reason}")]
pub struct Gap {
    /// Which one.
    pub controller: Controller,
    /// Why not.
    pub reason: GapReason,
}

/// Why a controller is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GapReason {
    /// Neither our v2 group nor a v1 mount offers it.
    #[error("neither the v2 group we are in nor a v1 mount offers it")]
    NotOffered,
    /// Its v1 group can't be written.
    #[error("{path} can't be written ({errno})")]
    NotWritable {
        /// The group.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Other processes share our v2 group, so the kernel lets nobody enable controllers below it.
    #[error("{path} also holds processes that are not ours ({}), so no controller can be enabled below it", some(pids))]
    Shared {
        /// Our own group.
        path: PathBuf,
        /// The first of them.
        pids: Vec<i32>,
    },
    /// The kernel refused to enable it.
    #[error("{path} refused it ({errno})")]
    Refused {
        /// The `cgroup.subtree_control` file, or the group to be made.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// A few numbers, for a message.
fn some(pids: &[i32]) -> String {
    let shown: Vec<String> = pids.iter().take(5).map(i32::to_string).collect();
    format!("pid {}{}", shown.join(", "), if pids.len() > shown.len() { ", ..." } else { "" })
}

impl Gap {
    /// What a person can do about it: one line.
    #[must_use]
    pub fn help(&self) -> String {
        match &self.reason {
            GapReason::NotOffered => format!(
                "delegate it: a systemd unit or scope with Delegate={0}; or boot without cgroup_disable={0}",
                self.controller
            ),
            GapReason::NotWritable { .. } => "start as root, or in a group delegated to this user".to_owned(),
            GapReason::Shared { .. } | GapReason::Refused { .. } => "start in a group of its own: systemd-run --user \
                 --scope -p Delegate=yes COMMAND (as root without --user), or a unit with Delegate=cpu memory pids"
                .to_owned(),
        }
    }
}

/// Why no group at all can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// No cgroup file system is mounted.
    #[error("no control group file system is mounted")]
    NotMounted,
    /// Our own group lies outside everything that is mounted here.
    #[error("our own control group {own} is not visible below any mounted hierarchy")]
    OutOfSight {
        /// As `/proc/self/cgroup` names it.
        own: PathBuf,
    },
    /// There are groups, but none that could hold an agent can be written.
    #[error("{path} can't be written ({errno}), and no other hierarchy could hold an agent's processes")]
    NotWritable {
        /// Our own group.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Something is writable, but neither v2 nor the v1 freezer: a tree could not be ended for certain.
    #[error("neither a v2 hierarchy nor the v1 freezer is mounted: a tree of processes could not be ended for certain")]
    NoMembership,
}

impl Unusable {
    /// What a person can do about it: one line.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Unusable::NotMounted | Unusable::NoMembership => "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
            Unusable::OutOfSight { .. } => {
                "in a container: start it with a private cgroup namespace (--cgroupns=private)"
            }
            Unusable::NotWritable { .. } => {
                "start as root, or in a delegated group: systemd-run --user --scope -p Delegate=yes COMMAND; in a \
                 container: mount /sys/fs/cgroup read-write"
            }
        }
    }
}

/// How the hierarchies are split, for people to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything on v2.
    Unified,
    /// Membership on v2, limits on v1.
    Hybrid,
    /// v1 alone.
    Legacy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Unified => "cgroup v2",
            Kind::Hybrid => "cgroup v1 with a v2 hierarchy beside it",
            Kind::Legacy => "cgroup v1",
        })
    }
}

/// Our own v2 group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unified {
    /// Its directory.
    pub own: PathBuf,
    /// Root or not: the root may hold processes and still enable controllers.
    pub place: Place,
    /// The controllers that it could pass on (`cgroup.controllers`), those of ours.
    pub offered: Vec<Controller>,
}

/// Where a v2 group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The hierarchy's real root.
    Root,
    /// Below it: the no-internal-process rule holds.
    Inner,
}

/// What we could use: at least one hierarchy that can hold a tree of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Our own v2 group, when it is writable.
    pub unified: Option<Unified>,
    /// Our own writable v1 groups, one entry a controller.
    pub legacy: Vec<(Controller, PathBuf)>,
    /// Limiting controllers that are not to be had, whatever is done later.
    pub gaps: Vec<Gap>,
}

impl Layout {
    /// Looks at `/proc/self`.
    ///
    /// # Errors
    /// [`Error::Unusable`] when there is no group that could hold an agent, [`Error::Read`] without `/proc`.
    pub fn detect() -> Result<Layout> {
        let read = |path: &str| fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source });
        let layout = Layout::from_texts(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?, Path::new("/"));
        Ok(layout?)
    }

    /// The same from given texts, every mount point taken below `root`.
    ///
    /// # Errors
    /// [`Unusable`] when no group could hold an agent.
    pub fn from_texts(cgroup: &str, mountinfo: &str, root: &Path) -> std::result::Result<Layout, Unusable> {
        let own = mounts::parse_own(cgroup);
        let mut mounts = mounts::parse_mountinfo(mountinfo);
        for mount in &mut mounts {
            mount.point = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        }
        if mounts.is_empty() {
            return Err(Unusable::NotMounted);
        }
        let unified = find_unified(&own, &mounts);
        let freezer = find_legacy(&own, &mounts, Controller::Freezer);
        let membership = match (&unified, &freezer) {
            (Found::Writable(_), _) | (_, Found::Writable(_)) => None,
            (Found::ReadOnly(path, errno), _) | (_, Found::ReadOnly(path, errno)) => {
                Some(Unusable::NotWritable { path: path.clone(), errno: *errno })
            }
            (Found::Hidden(own), _) | (_, Found::Hidden(own)) => Some(Unusable::OutOfSight { own: own.clone() }),
            (Found::Absent, Found::Absent) => Some(Unusable::NoMembership),
        };
        if let Some(unusable) = membership {
            return Err(unusable);
        }
        let unified = unified.writable().map(describe_unified);
        Ok(Layout::assemble(unified, freezer.writable(), &own, &mounts))
    }

    fn assemble(unified: Option<Unified>, freezer: Option<PathBuf>, own: &Own, mounts: &[Mount]) -> Layout {
        let mut layout = Layout { unified, legacy: Vec::new(), gaps: Vec::new() };
        for controller in Controller::LIMITING {
            if layout.unified.as_ref().is_some_and(|u| u.offered.contains(&controller)) {
                continue;
            }
            let reason = match find_legacy(own, mounts, controller) {
                Found::Writable(path) => {
                    layout.legacy.push((controller, path));
                    continue;
                }
                Found::ReadOnly(path, errno) => GapReason::NotWritable { path, errno },
                Found::Hidden(_) | Found::Absent => GapReason::NotOffered,
            };
            layout.gaps.push(Gap { controller, reason });
        }
        if let Some(path) = freezer {
            layout.legacy.push((Controller::Freezer, path));
        }
        if let Found::Writable(path) = find_legacy(own, mounts, Controller::Cpuacct) {
            layout.legacy.push((Controller::Cpuacct, path));
        }
        layout
    }

    /// How the hierarchies are split.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let limits_on_v1 = self.legacy.iter().any(|(controller, _)| Controller::LIMITING.contains(controller));
        match (&self.unified, limits_on_v1) {
            (Some(_), false) => Kind::Unified,
            (Some(_), true) => Kind::Hybrid,
            (None, _) => Kind::Legacy,
        }
    }
}

/// What looking for our own group in one hierarchy gave.
enum Found {
    Writable(PathBuf),
    ReadOnly(PathBuf, Errno),
    /// Mounted, but our own group lies outside of what is mounted.
    Hidden(PathBuf),
    Absent,
}

impl Found {
    fn writable(self) -> Option<PathBuf> {
        match self {
            Found::Writable(path) => Some(path),
            _ => None,
        }
    }
}

fn find_unified(own: &Own, mounts: &[Mount]) -> Found {
    let Some(own) = &own.unified else { return Found::Absent };
    find(own, mounts.iter().filter(|mount| mount.hierarchy == Hierarchy::Unified))
}

fn find_legacy(own: &Own, mounts: &[Mount], controller: Controller) -> Found {
    let Some(own) = own.legacy_of(controller.name()) else { return Found::Absent };
    find(own, mounts.iter().filter(|mount| mount.carries(controller.name())))
}

/// The best answer over all mounts of one hierarchy: bind mounts may show it twice, one of them read-only.
fn find<'a>(own: &Path, mounts: impl Iterator<Item = &'a Mount>) -> Found {
    let mut best = Found::Absent;
    for mount in mounts {
        let Some(path) = mount.locate(own).filter(|path| path.join("cgroup.procs").exists()) else {
            if matches!(best, Found::Absent) {
                best = Found::Hidden(own.to_owned());
            }
            continue;
        };
        // W on the directory: make groups. W on cgroup.procs: it is the common ancestor of every later move.
        let access = eaccess(&path, AccessFlags::W_OK | AccessFlags::X_OK)
            .and_then(|()| eaccess(&path.join("cgroup.procs"), AccessFlags::W_OK));
        match access {
            Ok(()) => return Found::Writable(path),
            Err(errno) => best = Found::ReadOnly(path, errno),
        }
    }
    best
}

fn describe_unified(own: PathBuf) -> Unified {
    // Only the root lacks `cgroup.type`; the root of a cgroup namespace has it and obeys the rules of an inner group.
    let place = if own.join("cgroup.type").exists() { Place::Inner } else { Place::Root };
    let listed = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    let offered =
        Controller::PASSED_ON.into_iter().filter(|c| listed.split_whitespace().any(|n| n == c.name())).collect();
    Unified { own, place, offered }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HYBRID_MOUNTS: &str = "\
        32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n\
        37 31 0:34 / /cg/freezer rw - cgroup cgroup rw,freezer\n\
        39 31 0:36 / /cg/pids rw - cgroup cgroup rw,pids\n\
        41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n";
    const HYBRID_OWN: &str = "8:pids:/\n6:freezer:/\n4:memory:/host/we\n1:cpu:/\n0::/\n";

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let dir = root.join(path);
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in [("cgroup.procs", "")].iter().chain(files) {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn hybrid_host_keeps_limits_on_v1_below_our_own_groups_and_membership_on_v2() {
        let root = tempfile::tempdir().unwrap();
        for path in ["cg/cpu", "cg/memory/host/we", "cg/freezer", "cg/pids"] {
            group(root.path(), path, &[]);
        }
        group(root.path(), "cg/unified", &[("cgroup.controllers", "")]);
        let layout = Layout::from_texts(HYBRID_OWN, HYBRID_MOUNTS, root.path()).unwrap();
        assert_eq!(layout.kind(), Kind::Hybrid);
        assert!(layout.legacy.contains(&(Controller::Memory, root.path().join("cg/memory/host/we"))));
        assert_eq!(layout.unified.unwrap().place, Place::Root);
        assert_eq!(layout.gaps, []);
    }

    #[test]
    fn v2_host_reports_controllers_that_were_not_delegated() {
        let root = tempfile::tempdir().unwrap();
        let files = [("cgroup.controllers", "cpuset memory pids\n"), ("cgroup.type", "domain\n")];
        group(root.path(), "sys/fs/cgroup/user.slice/app.scope", &files);
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::from_texts("0::/user.slice/app.scope\n", mounts, root.path()).unwrap();
        assert_eq!(layout.kind(), Kind::Unified);
        let unified = layout.unified.unwrap();
        assert_eq!((unified.place, unified.offered), (Place::Inner, vec![Controller::Memory, Controller::Pids]));
        assert_eq!(layout.gaps, [Gap { controller: Controller::Cpu, reason: GapReason::NotOffered }]);
        assert!(layout.gaps[0].help().contains("Delegate=cpu"), "{}", layout.gaps[0].help());
    }

    #[test]
    fn container_mount_rooted_at_our_own_group_is_found() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "sys/fs/cgroup/in", &[("cgroup.controllers", "cpu memory pids"), ("cgroup.type", "domain")]);
        let mounts = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let layout = Layout::from_texts("0::/docker/abc/in\n", mounts, root.path()).unwrap();
        assert_eq!(layout.unified.unwrap().own, root.path().join("sys/fs/cgroup/in"));
    }

    #[test]
    fn three_ways_of_having_no_group_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let mounts = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(Layout::from_texts("0::/\n", "", root.path()), Err(Unusable::NotMounted));
        let hidden = Layout::from_texts("0::/docker/xyz\n", mounts, root.path());
        assert_eq!(hidden, Err(Unusable::OutOfSight { own: "/docker/xyz".into() }));
        group(root.path(), "cg/cpu", &[]);
        let only_cpu = Layout::from_texts("1:cpu:/\n", "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n", root.path());
        assert_eq!(only_cpu, Err(Unusable::NoMembership));
    }

    #[test]
    fn group_that_may_not_be_written_is_named_with_the_kernels_answer() {
        use std::os::unix::fs::PermissionsExt;
        if nix::unistd::geteuid().is_root() {
            return crate::cgroup::fixture::skip("group_that_may_not_be_written", "root may write everywhere");
        }
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "b/x", &[("cgroup.controllers", "cpu")]);
        let own = root.path().join("b/x");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o555)).unwrap();
        let found = Layout::from_texts("0::/x\n", "2 0 0:1 / /b rw - cgroup2 c rw\n", root.path());
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(found, Err(Unusable::NotWritable { path: own, errno: Errno::EACCES }));
    }

    #[test]
    fn two_mounts_of_one_hierarchy_prefer_the_one_that_shows_our_group() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "b/x", &[("cgroup.controllers", "")]);
        let mounts = "1 0 0:1 /other /a rw - cgroup2 c rw\n2 0 0:1 / /b rw - cgroup2 c rw\n";
        let layout = Layout::from_texts("0::/x\n", mounts, root.path()).unwrap();
        assert_eq!(layout.unified.unwrap().own, root.path().join("b/x"));
    }
}
