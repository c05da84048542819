//! v2's rule that a group with processes of its own can't pass controllers on, and how we get around it.
//!
//! Why it needs care: the group that we start in is often shared (a login shell and everything typed into it). Our own
//! processes we may move into a leaf; anybody else's we leave alone and say so, because moving a user's shell is not ours
//! to do. Source: cgroup-v2.rst, "No Internal Process Constraint".

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::error::{Error, Result};
use super::file;
use super::grip::look_until;
use super::layout::{Controller, Gap, GapReason, Place, Unified};
use super::tree::read_pids;

/// How long our own group may take to become empty. A thread that is just exiting is left behind by a move of its process,
/// unseen in any list, and keeps the group busy until it is gone; and something of ours may be forked meanwhile.
const EMPTY_WITHIN: Duration = Duration::from_secs(1);

const CONTROL: &str = "cgroup.subtree_control";

/// The controllers that `dir` passes on to its children.
pub(super) fn enabled(dir: &Path) -> Result<Vec<Controller>> {
    let text = file::read_if_there(&dir.join(CONTROL))?.unwrap_or_default();
    Ok(Controller::PASSED_ON.into_iter().filter(|c| text.split_whitespace().any(|name| name == c.name())).collect())
}

/// Enables `wanted` in `dir`, each by itself so that one refusal doesn't cost the others. Returns those that came new.
pub(super) fn enable(dir: &Path, wanted: &[Controller], gaps: &mut Vec<Gap>) -> Result<Vec<Controller>> {
    let before = enabled(dir)?;
    let path = dir.join(CONTROL);
    for &controller in wanted.iter().filter(|c| !before.contains(c)) {
        if let Err(Error::Write { source, .. }) = file::write(&path, &format!("+{controller}")) {
            let errno = Errno::from_raw(source.raw_os_error().unwrap_or(0));
            gaps.push(Gap { controller, reason: GapReason::Refused { path: path.clone(), errno } });
        }
    }
    Ok(enabled(dir)?.into_iter().filter(|c| !before.contains(c)).collect())
}

/// Takes back what [`enable`] brought.
pub(super) fn disable(dir: &Path, controllers: &[Controller]) -> Result<()> {
    controllers.iter().try_for_each(|controller| file::write(&dir.join(CONTROL), &format!("-{controller}")))
}

/// Moves a process. Costs an RCU grace period: for start and end, not for launches.
pub(super) fn move_into(dir: &Path, pid: i32) -> Result<()> {
    file::write(&dir.join("cgroup.procs"), &pid.to_string())
}

/// What was changed in our own group, to be undone at the end.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Controllers that we enabled in our own group.
    pub(super) enabled: Vec<Controller>,
    /// The leaf that holds ourselves now.
    pub(super) leaf: Option<PathBuf>,
}

/// Empties our own group into `leaf` (made when needed) and enables the offered controllers in it.
pub(super) fn make_room(unified: &Unified, leaf: &Path, ours: &[i32], gaps: &mut Vec<Gap>) -> Result<Room> {
    let mut room = Room::default();
    if unified.offered.is_empty() {
        return Ok(room);
    }
    let mut refused = Vec::new();
    look_until(Instant::now() + EMPTY_WITHIN, || {
        refused.clear();
        if unified.place == Place::Inner {
            let mut pids = Vec::new();
            read_pids(&unified.own, &mut pids)?;
            let foreign: Vec<i32> = pids.iter().copied().filter(|pid| !ours.contains(pid)).collect();
            if !foreign.is_empty() {
                let reason = GapReason::Shared { path: unified.own.clone(), pids: foreign };
                refused.extend(unified.offered.iter().map(|&controller| Gap { controller, reason: reason.clone() }));
                return Ok(true);
            }
            move_to_leaf(leaf, &pids)?;
            room.leaf = Some(leaf.to_owned());
        }
        room.enabled.extend(enable(&unified.own, &unified.offered, &mut refused)?);
        Ok(!refused.iter().any(|gap| matches!(gap.reason, GapReason::Refused { errno: Errno::EBUSY, .. })))
    })?;
    gaps.extend(refused);
    Ok(room)
}

fn move_to_leaf(leaf: &Path, pids: &[i32]) -> Result<()> {
    if !leaf.exists() {
        std::fs::create_dir(leaf).map_err(|source| Error::Create { path: leaf.to_owned(), source })?;
    }
    move_all(leaf, pids)
}

/// Moves those that still live.
pub(super) fn move_all(dir: &Path, pids: &[i32]) -> Result<()> {
    pids.iter().try_for_each(|&pid| match move_into(dir, pid) {
        Err(Error::Write { source, .. }) if source.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn inner(root: &Path, procs: &str) -> Unified {
        std::fs::write(root.join("cgroup.procs"), procs).unwrap();
        std::fs::write(root.join(CONTROL), "").unwrap();
        Unified { own: root.to_owned(), place: Place::Inner, offered: Controller::LIMITING.to_vec() }
    }

    #[test]
    fn process_of_somebody_else_costs_the_controllers_and_is_not_moved() {
        let root = tempfile::tempdir().unwrap();
        let unified = inner(root.path(), "10\n11\n");
        let mut gaps = Vec::new();
        let room = make_room(&unified, &root.path().join("leaf"), &[10], &mut gaps).unwrap();
        assert!(room.leaf.is_none() && room.enabled.is_empty());
        assert_eq!(gaps.len(), 3);
        assert_eq!(gaps[0].reason, GapReason::Shared { path: root.path().to_owned(), pids: vec![11] });
        assert!(gaps[0].to_string().contains("pid 11"), "{}", gaps[0]);
        assert!(gaps[0].help().contains("systemd-run"));
        assert!(!root.path().join("leaf").exists());
        assert_eq!(std::fs::read_to_string(root.path().join(CONTROL)).unwrap(), "");
    }

    #[test]
    fn controllers_that_are_on_already_are_not_ours_to_turn_off() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(CONTROL), "cpuset cpu pids").unwrap();
        let mut gaps = Vec::new();
        assert_eq!(enabled(root.path()).unwrap(), [Controller::Cpu, Controller::Pids]);
        assert_eq!(enable(root.path(), &[Controller::Cpu], &mut gaps).unwrap(), []);
        assert_eq!(gaps, []);
    }
}
