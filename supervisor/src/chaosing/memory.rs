//! An agent's memory group: its limit, its OOM count, and how much may be pressed without anybody else suffering.

use std::path::{Path, PathBuf};

use agt_chaos::error::KernelError;
use agt_chaos::hog::HOST_RESERVE;
use agt_chaos::target::Limit;
use agt_rings::cgroup::{Controller, Tree};

use super::places;

/// v1 shows "no limit" as the largest number of whole pages, which depends on the page.
const V1_UNLIMITED: u64 = i64::MAX.unsigned_abs() - (1 << 20);
/// Groups above the agent's own: deeper than any hierarchy that somebody makes on purpose.
const ABOVE_MAX: usize = 64;

/// The files of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemoryGroup {
    dir: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl MemoryGroup {
    /// Where the tree's memory is limited; `None`: nowhere.
    pub(super) fn of(tree: &Tree) -> Option<MemoryGroup> {
        if tree.unified_controllers.contains(&Controller::Memory) {
            return tree.unified.clone().map(|dir| MemoryGroup { dir, version: Version::V2 });
        }
        places::legacy(tree, Controller::Memory).map(|dir| MemoryGroup { dir, version: Version::V1 })
    }

    fn limit_file(&self) -> PathBuf {
        self.dir.join(match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        })
    }

    /// The files that hold the limit, in the order in which it is lowered; raised in the other one (v1 keeps memory plus swap
    /// apart, which must never be the smaller of the two).
    pub(super) fn limit_files(&self) -> Vec<PathBuf> {
        let both = self.dir.join("memory.memsw.limit_in_bytes");
        let with_swap = (self.version == Version::V1 && both.exists()).then_some(both);
        [self.limit_file()].into_iter().chain(with_swap).collect()
    }

    /// The file whose `oom_kill` counts.
    pub(super) fn counter(&self) -> PathBuf {
        self.dir.join(match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        })
    }

    /// The list of its processes; who is written there is charged here.
    pub(super) fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Whether the OOM killer takes all of it together (`memory.oom.group`).
    pub(super) fn dies_together(&self) -> bool {
        std::fs::read_to_string(self.dir.join("memory.oom.group")).is_ok_and(|text| text.trim() == "1")
    }

    /// The limit.
    pub(super) fn limit(&self) -> Result<Option<Limit>, KernelError> {
        Ok(places::read(&self.limit_file())?.as_deref().and_then(limit_of))
    }

    /// Why so much may not be pressed against, if it may not: the host, or a group above, would run out first, and the OOM
    /// killer would look for its victim there.
    pub(super) fn too_tight(&self, limit: u64) -> Option<String> {
        let wanted = limit.saturating_sub(used(&self.dir).unwrap_or(0));
        let available = match agt_chaos::kernel::memory_available() {
            Ok(available) => available,
            Err(e) => return Some(format!("how much memory the host has left can't be told: {e}")),
        };
        if available < wanted.saturating_add(HOST_RESERVE) {
            return Some(format!(
                "up to its limit {} MiB are missing, and the host has {} MiB left, of which {} stay: set a lower `memory`",
                wanted >> 20,
                available >> 20,
                HOST_RESERVE >> 20
            ));
        }
        let mut above = self.dir.as_path();
        for _ in 0..ABOVE_MAX {
            above = above.parent()?;
            // Above the mount there is no such file.
            let room = room(above)?;
            if room < wanted {
                return Some(format!(
                    "up to its limit {} MiB are missing, and the group above ({}) has room for {}: the OOM killer would choose among all in it; set a lower `memory`",
                    wanted >> 20,
                    above.display(),
                    room >> 20
                ));
            }
        }
        None
    }
}

/// How much more a group may take; `None`: it is no memory group. The v2 root has no limit file, and no limit.
fn room(dir: &Path) -> Option<u64> {
    let text =
        ["memory.max", "memory.limit_in_bytes"].iter().find_map(|name| std::fs::read_to_string(dir.join(name)).ok());
    match limit_of(&text?)? {
        Limit::Unlimited => Some(u64::MAX),
        Limit::At(limit) => Some(limit.saturating_sub(used(dir)?)),
    }
}

fn used(dir: &Path) -> Option<u64> {
    let names = ["memory.current", "memory.usage_in_bytes"];
    names.iter().find_map(|name| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok())
}

fn limit_of(text: &str) -> Option<Limit> {
    match text.trim() {
        "max" => Some(Limit::Unlimited),
        number => {
            number.parse().ok().map(|limit| if limit >= V1_UNLIMITED { Limit::Unlimited } else { Limit::At(limit) })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn files(dir: &Path, list: &[(&str, &str)]) {
        std::fs::create_dir_all(dir).unwrap();
        list.iter().for_each(|(name, text)| std::fs::write(dir.join(name), text).unwrap());
    }

    #[test]
    fn no_limit_is_told_apart_from_a_large_one_in_both_versions() {
        assert_eq!(limit_of("max\n"), Some(Limit::Unlimited));
        assert_eq!(limit_of("9223372036854771712\n"), Some(Limit::Unlimited));
        assert_eq!(limit_of("9223372036854710272\n"), Some(Limit::Unlimited), "64 KiB pages");
        assert_eq!(limit_of("67108864"), Some(Limit::At(64 << 20)));
        assert_eq!(limit_of("-"), None);
    }

    #[test]
    fn a_limit_that_a_group_above_could_not_fill_is_not_pressed_against() {
        let root = tempfile::tempdir().unwrap();
        let (parent, own) = (root.path().join("parent"), root.path().join("parent/agent"));
        files(&parent, &[("memory.max", "100000000\n"), ("memory.current", "90000000\n")]);
        files(&own, &[("memory.max", "33554432\n"), ("memory.current", "1048576\n")]);
        let group = MemoryGroup { dir: own, version: Version::V2 };
        let why = group.too_tight(32 << 20).unwrap();
        assert!(why.contains("31 MiB are missing") && why.contains("room for 9"), "{why}");
        assert_eq!(group.too_tight(8 << 20), None);
        files(&parent, &[("memory.max", "max\n")]);
        assert_eq!(group.too_tight(32 << 20), None);
    }

    #[test]
    fn what_the_host_does_not_have_is_not_pressed() {
        let own = tempfile::tempdir().unwrap();
        let group = MemoryGroup { dir: own.path().to_owned(), version: Version::V1 };
        assert!(group.too_tight(u64::MAX / 2).unwrap().contains("the host has"));
    }

    #[test]
    fn v1_is_lowered_memory_first_and_swap_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let v1 = MemoryGroup { dir: dir.path().to_owned(), version: Version::V1 };
        let names = |group: &MemoryGroup| {
            group.limit_files().iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&v1), ["memory.limit_in_bytes"]);
        files(dir.path(), &[("memory.memsw.limit_in_bytes", "1"), ("memory.oom.group", "1\n")]);
        assert_eq!(names(&v1), ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]);
        assert!(v1.dies_together());
        assert_eq!(names(&MemoryGroup { version: Version::V2, ..v1 }), ["memory.max"]);
    }
}
