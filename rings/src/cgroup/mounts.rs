//! Pure readers of `/proc/self/cgroup` and `/proc/self/mountinfo`: which group we are in, and where it can be seen.
//!
//! Why both: the first gives a path relative to the cgroup namespace, the second says which part of each hierarchy is
//! mounted where. A container often sees a mount whose root is its own group, or a path that lies outside its mounts.
//! Formats: cgroups(7), proc_pid_mountinfo(5).

use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The group that stands at the mount point.
    pub(super) root: PathBuf,
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// Which hierarchy.
    pub(super) hierarchy: Hierarchy,
}

/// Which hierarchy a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hierarchy {
    /// cgroup v2.
    Unified,
    /// A v1 hierarchy with its mount options, the controllers among them.
    Legacy(Vec<String>),
}

impl Mount {
    /// Where the group `own` (a path as in `/proc/self/cgroup`) can be seen through this mount, if it can.
    pub(super) fn locate(&self, own: &Path) -> Option<PathBuf> {
        // A process outside our cgroup namespace shows as `/..`: no directory of ours leads there.
        if own.components().any(|part| part == std::path::Component::ParentDir) {
            return None;
        }
        let below = own.strip_prefix(&self.root).ok()?;
        Some(if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) })
    }

    /// Whether this is the v1 hierarchy of `controller`.
    pub(super) fn carries(&self, controller: &str) -> bool {
        matches!(&self.hierarchy, Hierarchy::Legacy(options) if options.iter().any(|option| option == controller))
    }
}

/// All cgroup mounts, in the order of the file: a later mount hides an earlier one at the same point.
pub(super) fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (unescape(left.next()?), unescape(left.next()?));
    let mut right = right.split(' ');
    let hierarchy = match right.next()? {
        "cgroup2" => Hierarchy::Unified,
        "cgroup" => Hierarchy::Legacy(right.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Mount { root: root.into(), point: point.into(), hierarchy })
}

/// Mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Our own group in each hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Own {
    /// In v2.
    pub(super) unified: Option<PathBuf>,
    /// In v1: (controllers, path).
    pub(super) legacy: Vec<(Vec<String>, PathBuf)>,
}

impl Own {
    /// Our own group in the v1 hierarchy of `controller`.
    pub(super) fn legacy_of(&self, controller: &str) -> Option<&Path> {
        self.legacy.iter().find(|(names, _)| names.iter().any(|n| n == controller)).map(|(_, path)| path.as_path())
    }
}

/// Reads `/proc/<pid>/cgroup`. The path may itself hold colons.
pub(super) fn parse_own(text: &str) -> Own {
    let mut own = Own::default();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            own.unified = Some(path.into());
        } else {
            own.legacy.push((controllers.split(',').map(str::to_owned).collect(), path.into()));
        }
    }
    own
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_of_both_versions_are_read() {
        let text = "29 26 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
                    30 26 0:27 /kubepods/pod1 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n\
                    31 26 0:28 / /proc rw - proc proc rw\nnonsense\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert!(mounts[0].carries("cpu") && mounts[0].carries("cpuacct") && !mounts[0].carries("cp"));
        assert_eq!(mounts[1].hierarchy, Hierarchy::Unified);
        assert_eq!(mounts[1].root, Path::new("/kubepods/pod1"));
    }

    #[test]
    fn escaped_spaces_in_mount_points_are_undone() {
        let mounts = parse_mountinfo("1 2 0:3 /a\\040b /mnt/x\\040y\\134z rw - cgroup2 none rw\n");
        assert_eq!(mounts[0].root, Path::new("/a b"));
        assert_eq!(mounts[0].point, Path::new("/mnt/x y\\z"));
    }

    #[test]
    fn own_paths_with_colons_survive() {
        let own = parse_own("2:cpu,cpuacct:/system.slice:cri:1\n1:name=systemd:/x\n0::/init.scope\n");
        assert_eq!(own.legacy_of("cpuacct").unwrap(), Path::new("/system.slice:cri:1"));
        assert_eq!(own.unified.as_deref(), Some(Path::new("/init.scope")));
        assert_eq!(own.legacy_of("memory"), None);
    }

    #[test]
    fn group_is_located_only_below_the_mounts_root() {
        let mount = Mount { root: "/pod".into(), point: "/sys/fs/cgroup".into(), hierarchy: Hierarchy::Unified };
        assert_eq!(mount.locate(Path::new("/pod/x")), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(mount.locate(Path::new("/pod")), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount.locate(Path::new("/podium")), None);
        assert_eq!(mount.locate(Path::new("/pod/../../x")), None);
        let outside = Mount { root: "/..".into(), point: "/sys/fs/cgroup".into(), hierarchy: Hierarchy::Unified };
        assert_eq!(outside.locate(Path::new("/")), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,200}", tail in "[0-9:/\\\\ a-z-]{0,80}") {
            let _ = parse_own(&text);
            let _ = parse_mountinfo(&text);
            let _ = parse_mountinfo(&format!("1 2 0:3 {tail} - cgroup {tail}"));
        }
    }
}
