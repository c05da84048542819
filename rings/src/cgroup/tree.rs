//! One group as it stands in every hierarchy: the same directory name, once on v2 and once per v1 hierarchy.
//!
//! Why a value of paths and not of descriptors: another process must be able to take it up (the kill command while the
//! supervisor hangs, a watchdog, the next start after a crash), so it is plain data that can be stored. Descriptors are
//! held by [`super::Grip`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::file;
use super::layout::Controller;

/// The most groups below one that are looked at; an agent that makes more is still killed and counted short.
pub const NESTED_MAX: usize = 10_000;

/// How long between two tries to remove a group whose last task is still leaving.
const REMOVE_PAUSE: Duration = Duration::from_micros(500);

/// A group in all hierarchies that we use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// On v2.
    pub unified: Option<PathBuf>,
    /// The controllers that v2 keeps for it.
    pub unified_controllers: Vec<Controller>,
    /// On v1, one entry a hierarchy.
    pub legacy: Vec<LegacyDir>,
    /// The file that gives all agents together their low CPU weight; a kill lends them more to die with.
    pub weight: Option<PathBuf>,
}

/// A group in one v1 hierarchy; several controllers can share it (cpu,cpuacct).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyDir {
    /// Which controllers.
    pub controllers: Vec<Controller>,
    /// The group's directory.
    pub dir: PathBuf,
}

/// Which kind of files a controller's directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

impl Tree {
    /// The group `name` below this one, in every hierarchy. Makes nothing.
    #[must_use]
    pub(super) fn child(&self, name: &str) -> Tree {
        let legacy = self.legacy.iter().map(|d| LegacyDir { dir: d.dir.join(name), ..d.clone() }).collect();
        Tree {
            unified: self.unified.as_ref().map(|dir| dir.join(name)),
            unified_controllers: self.unified_controllers.clone(),
            legacy,
            weight: self.weight.clone(),
        }
    }

    /// The directories, v2 first.
    pub(super) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.unified.as_deref().into_iter().chain(self.legacy.iter().map(|d| d.dir.as_path()))
    }

    /// The directory that names this group in messages.
    pub(super) fn shown(&self) -> PathBuf {
        self.dirs().next().map(Path::to_owned).unwrap_or_default()
    }

    /// Where `controller` keeps its files for this group.
    pub(super) fn place(&self, controller: Controller) -> Option<(&Path, Version)> {
        if self.unified_controllers.contains(&controller) {
            return self.unified.as_deref().map(|dir| (dir, Version::V2));
        }
        self.legacy_dir(controller).map(|dir| (dir, Version::V1))
    }

    /// The v1 directory of `controller`.
    pub(super) fn legacy_dir(&self, controller: Controller) -> Option<&Path> {
        self.legacy.iter().find(|d| d.controllers.contains(&controller)).map(|d| d.dir.as_path())
    }

    /// Makes the directories. None may be there yet: a group left over by somebody else must not be joined. On failure
    /// those just made are taken away again.
    pub(super) fn create(&self) -> Result<()> {
        let mut made: Vec<&Path> = Vec::new();
        for dir in self.dirs() {
            if let Err(source) = fs::create_dir(dir) {
                // Empty and a moment old: nothing can hold them.
                made.iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
                return Err(Error::Create { path: dir.to_owned(), source });
            }
            made.push(dir);
        }
        Ok(())
    }

    /// Whether any of the directories exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dirs().any(Path::exists)
    }

    /// The processes in it and in every group below it, in any hierarchy: sorted, each once. A process that our PID
    /// namespace can't see counts as 0.
    ///
    /// # Errors
    /// [`Error::Read`]; a group that is gone is simply empty.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for dir in self.dirs() {
            for group in with_nested(dir) {
                read_pids(&group, &mut pids)?;
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Like [`Tree::pids`], from v2 alone where there is v2: one list instead of four.
    pub(super) fn members(&self) -> Result<Vec<i32>> {
        let Some(dir) = &self.unified else { return self.pids() };
        let mut pids = Vec::new();
        with_nested(dir).iter().try_for_each(|group| read_pids(group, &mut pids))?;
        Ok(pids)
    }

    /// Whether no process is left in it or below it, in any hierarchy.
    ///
    /// # Errors
    /// [`Error::Read`]; a group that is gone is empty.
    pub fn is_empty(&self) -> Result<bool> {
        if let Some(dir) = &self.unified {
            let events = file::read_if_there(&dir.join("cgroup.events"))?;
            if events.is_some_and(|text| file::flat_key(&text, "populated") != Some(0)) {
                return Ok(false);
            }
        }
        self.legacy_is_empty()
    }

    /// The v1 half of [`Tree::is_empty`].
    pub(super) fn legacy_is_empty(&self) -> Result<bool> {
        let mut pids = Vec::new();
        for LegacyDir { dir, .. } in &self.legacy {
            for group in with_nested(dir) {
                read_pids(&group, &mut pids)?;
                if !pids.is_empty() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Removes it and every group below it, in every hierarchy. A task that has left may still hold a group for a moment,
    /// so this tries again until `within` is over.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] when processes are left, [`Error::Remove`] when the kernel keeps a group.
    pub fn remove(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for dir in self.dirs() {
            while let Err((path, source)) = remove_below(dir) {
                let busy = source.raw_os_error() == Some(Errno::EBUSY as i32);
                if busy && Instant::now() < deadline {
                    thread::sleep(REMOVE_PAUSE);
                    continue;
                }
                let pids = self.pids()?;
                return Err(if pids.is_empty() {
                    Error::Remove { path, source }
                } else {
                    Error::NotEmpty { path, pids }
                });
            }
        }
        Ok(())
    }
}

/// `dir` and all groups below it, parents first, at most [`NESTED_MAX`]. Groups that vanish on the way are left out.
pub(super) fn with_nested(dir: &Path) -> Vec<PathBuf> {
    let mut groups = vec![dir.to_owned()];
    let mut next = 0;
    while next < groups.len() && groups.len() < NESTED_MAX {
        if let Ok(entries) = fs::read_dir(&groups[next]) {
            let below = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
            groups.extend(below.take(NESTED_MAX));
        }
        next += 1;
    }
    groups
}

/// Appends the processes that are directly in `group`.
pub(super) fn read_pids(group: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let path = group.join("cgroup.procs");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // EOPNOTSUPP: a threaded v2 group, whose processes are listed at the head of its domain.
        Err(e) if file::is_gone(&e) || e.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(()),
        Err(source) => return Err(Error::Read { path, source }),
    };
    for line in text.lines() {
        let pid = line.trim().parse().map_err(|_| Error::Malformed {
            path: path.clone(),
            found: line.to_owned(),
            expected: "a process id",
        })?;
        pids.push(pid);
    }
    Ok(())
}

/// Children before parents. What is gone already is fine.
fn remove_below(dir: &Path) -> std::result::Result<(), (PathBuf, io::Error)> {
    for group in with_nested(dir).into_iter().rev() {
        match fs::remove_dir(&group) {
            Err(error) if !file::is_gone(&error) => return Err((group, error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn two(root: &Path) -> Tree {
        let legacy = vec![LegacyDir { controllers: vec![Controller::Pids], dir: root.join("pids/g") }];
        let unified_controllers = vec![Controller::Cpu];
        Tree { unified: Some(root.join("unified/g")), unified_controllers, legacy, weight: None }
    }

    #[test]
    fn every_controller_has_its_own_place() {
        let tree = two(Path::new("/r"));
        assert_eq!(tree.place(Controller::Cpu), Some((Path::new("/r/unified/g"), Version::V2)));
        assert_eq!(tree.place(Controller::Pids), Some((Path::new("/r/pids/g"), Version::V1)));
        assert_eq!(tree.place(Controller::Memory), None);
        assert_eq!(tree.child("x").legacy_dir(Controller::Pids), Some(Path::new("/r/pids/g/x")));
    }

    #[test]
    fn failed_create_takes_back_what_it_made() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("unified")).unwrap();
        let tree = two(root.path());
        assert!(matches!(tree.create(), Err(Error::Create { path, .. }) if path.ends_with("pids/g")));
        assert!(!tree.exists());
    }

    #[test]
    fn group_of_somebody_else_is_never_taken_over() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("unified/g")).unwrap();
        fs::create_dir(root.path().join("pids")).unwrap();
        assert!(matches!(two(root.path()).create(), Err(Error::Create { .. })));
        assert!(root.path().join("unified/g").exists());
    }

    #[test]
    fn processes_are_gathered_from_nested_groups_of_all_hierarchies_once() {
        let root = tempfile::tempdir().unwrap();
        for (dir, pids) in [("unified/g", "12\n7\n"), ("unified/g/in/deep", "9\n"), ("pids/g", "12\n40\n")] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
            fs::write(root.path().join(dir).join("cgroup.procs"), pids).unwrap();
        }
        assert_eq!(two(root.path()).pids().unwrap(), [7, 9, 12, 40]);
        assert!(!two(root.path()).is_empty().unwrap());
    }

    #[test]
    fn group_that_is_gone_is_empty() {
        let tree = two(Path::new("/nonexistent"));
        assert!(tree.is_empty().unwrap() && tree.pids().unwrap().is_empty());
        tree.remove(Duration::ZERO).unwrap();
    }
}
