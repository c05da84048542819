//! Our own subtree: where a supervisor keeps all its agents, and what it finds there from an earlier life.
//!
//! Why nested below the group we run in: that is the part of the hierarchy that was given to us (by systemd, a container
//! or nobody); limits set above keep holding. Why one `agents` group over all agents: one kill ends them all, also from
//! another process, and one low CPU weight keeps the supervisor awake under any number of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Error, Result};
use super::file;
use super::grip::{Grip, look_until};
use super::group::{self, Group};
use super::layout::{Controller, Gap, GapReason, Layout, Place};
use super::limits;
use super::reserve::{self, Reserve};
use super::subtree::{self, Room};
use super::tree::{LegacyDir, NESTED_MAX, Tree, Version, read_pids};
use crate::spec::Limits;

/// Every base's name begins so; nothing else is ever swept.
pub const PREFIX: &str = "agt-supervise-";
/// The leaf for ourselves (v2).
const SUPERVISOR: &str = "supervisor";
/// The group over all agents.
const AGENTS: &str = "agents";
/// The longest id.
const ID_MAX: usize = 64;
/// The leaf for the watchdog.
const WATCHDOG: &str = "watchdog";
/// How long an empty group may take to vanish.
const REMOVE_WITHIN: Duration = Duration::from_secs(2);

/// Our subtree, ready to hold agents.
#[derive(Debug)]
pub struct Base {
    tree: Tree,
    agents: Grip,
    gaps: Vec<Gap>,
    ours: Vec<i32>,
    /// Our v2 group from before, and what we changed in it.
    own: Option<PathBuf>,
    room: Room,
    reserve: Reserve,
    /// Limits of all agents together.
    pub(super) total: Limits,
}

/// What a sweep found and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct SweepReport {
    /// Groups of agents that were left over.
    pub groups: usize,
    /// Processes that were still in them.
    pub processes: usize,
    /// Until all were gone.
    pub took: Duration,
}

impl Base {
    /// Makes the subtree `agt-supervise-<id>` below our own group in each hierarchy, or takes up the one that is there.
    /// On v2 this process and `companions` (our helper processes) move into a leaf of it, so that limits can be kept;
    /// where that can't be, agents can still be held and killed, and [`Base::gaps`] says which limits are lost.
    ///
    /// `id`: stable for a state directory (a hash of its path), ASCII letters, digits and `-`.
    ///
    /// # Errors
    /// [`Error::Create`] when the group that holds agents can't be made; [`Error::LimitDidNotStick`] for the CPU weight.
    pub fn open(layout: &Layout, id: &str, companions: &[i32]) -> Result<Base> {
        if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Error::Name { name: id.to_owned(), max: ID_MAX });
        }
        let name = format!("{PREFIX}{id}");
        let mut gaps = layout.gaps.clone();
        let mut ours = vec![Pid::this().as_raw()];
        ours.extend(companions);
        let mut tree = Tree::default();
        if let Some(unified) = &layout.unified {
            let dir = leave_own_leaf(&unified.own, &name).join(&name);
            ensure(&dir)?;
            tree.unified = Some(dir);
        }
        tree.legacy = make_legacy(layout, &name, tree.unified.as_deref(), &mut gaps)?;
        let mut room = Room::default();
        let mut own = None;
        let mut kept = Reserve::default();
        if let (Some(unified), Some(dir)) = (&layout.unified, &tree.unified) {
            let mut unified = unified.clone();
            unified.own = leave_own_leaf(&unified.own, &name);
            room = subtree::make_room(&unified, &dir.join(SUPERVISOR), &ours, &mut gaps)?;
            let passed = subtree::enabled(&unified.own)?;
            let agents = dir.join(AGENTS);
            subtree::enable(dir, &passed, &mut gaps)?;
            ensure(&agents)?;
            subtree::enable(&agents, &passed, &mut gaps)?;
            tree.unified_controllers = subtree::enabled(&agents)?;
            if let Some(leaf) = &room.leaf {
                kept = reserve::keep(dir, leaf)?;
            }
            own = Some(unified.own);
        }
        tree.child(AGENTS).dirs().try_for_each(ensure)?;
        let place = layout.unified.as_ref().map_or(Place::Root, |unified| unified.place);
        tree.weight = set_weight(&tree, place)?;
        let agents = tree.child(AGENTS);
        // What only counts is no limit that is lost.
        gaps.retain(|gap| Controller::LIMITING.contains(&gap.controller));
        gaps.dedup();
        Ok(Base { tree, agents: Grip::open(agents)?, gaps, ours, own, room, reserve: kept, total: Limits::default() })
    }

    /// Limits that can't be kept here, each with its reason.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What is kept for ourselves.
    #[must_use]
    pub fn reserve(&self) -> Reserve {
        self.reserve
    }

    /// Whether limits of this controller can be kept.
    #[must_use]
    pub fn keeps(&self, controller: Controller) -> bool {
        self.tree.place(controller).is_some()
    }

    /// Where the subtree is: plain data for a file, from which another process can end every agent
    /// ([`agents_of`], [`sweep_recorded`]).
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// All agents together: `kill` here ends every one of them.
    #[must_use]
    pub fn agents(&self) -> &Grip {
        &self.agents
    }

    /// Moves the watchdog into a leaf of its own: whoever ends our cgroup, or the agents', does not end it with them.
    ///
    /// # Errors
    /// [`Error::Create`], [`Error::Write`].
    pub fn hold_watchdog(&self, pid: i32) -> Result<()> {
        let leaf = self.watchdog_leaf();
        ensure(&leaf)?;
        subtree::move_into(&leaf, pid)
    }

    /// In one hierarchy: membership is all that it is for.
    fn watchdog_leaf(&self) -> PathBuf {
        self.tree.shown().join(WATCHDOG)
    }

    /// Makes the group of one agent and sets its limits, each read back.
    ///
    /// # Errors
    /// [`Error::Create`] when there is one of that name (remove it first), [`Error::NoController`] for a limit that can't be
    /// kept here, [`Error::LimitDidNotStick`], [`Error::ImpossibleLimit`], [`Error::Name`]. Nothing is left behind then.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group> {
        Group::create(self.agents.tree(), name, &self.under_total(limits), &self.gaps)
    }

    /// Ends and removes whatever an earlier life left in our subtree: its watchdog, agents, and everybody in the supervisor's leaf but
    /// us and our `companions`. To be called right after [`Base::open`], before other helpers are forked.
    ///
    /// # Errors
    /// [`Error::Survivors`] when something lives longer than `within`.
    pub fn sweep(&self, within: Duration) -> Result<SweepReport> {
        let start = Instant::now();
        // First of all: it would take what is launched next for the agents of its own, dead, supervisor.
        end_strangers(&self.watchdog_leaf(), &self.ours, start + within)?;
        let mut processes = self.agents.kill(within)?.processes;
        self.agents.thaw(within)?;
        let groups = remove_children(self.agents.tree())?;
        if let Some(dir) = &self.tree.unified {
            processes += end_strangers(&dir.join(SUPERVISOR), &self.ours, start + within)?;
        }
        Ok(SweepReport { groups, processes, took: start.elapsed() })
    }

    /// Takes the subtree away again and moves us back to where we were. Every agent must be gone.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] when agents are left, else whatever the kernel refuses.
    pub fn close(self) -> Result<()> {
        self.agents.tree().remove(REMOVE_WITHIN)?;
        if let (Some(own), Some(dir)) = (&self.own, &self.tree.unified) {
            subtree::disable(dir, &subtree::enabled(dir)?)?;
            subtree::disable(own, &self.room.enabled)?;
            if let Some(leaf) = &self.room.leaf {
                let mut pids = Vec::new();
                read_pids(leaf, &mut pids)?;
                subtree::move_all(own, &pids)?;
            }
        }
        self.tree.remove(REMOVE_WITHIN)
    }
}

/// The agents of a recorded base: for a kill from another process while the supervisor hangs.
///
/// # Errors
/// [`Error::NotOurs`] when the record names anything but a base.
pub fn agents_of(recorded: &Tree) -> Result<Tree> {
    check_ours(recorded)?;
    Ok(recorded.child(AGENTS))
}

/// The names under which groups were made in a base's part for agents.
///
/// # Errors
/// [`Error::Read`]; a part that is gone has none.
pub fn names_in(agents: &Tree) -> Result<Vec<String>> {
    let Some(dir) = agents.dirs().next() else { return Ok(Vec::new()) };
    let read = |source| Error::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(e) if file::is_gone(&e) => return Ok(Vec::new()),
        entries => entries.map_err(read)?,
    };
    let mut names = Vec::new();
    for entry in entries.take(NESTED_MAX) {
        let entry = entry.map_err(read)?;
        if entry.file_type().map_err(read)?.is_dir() {
            names.extend(
                entry.file_name().to_str().and_then(|name| name.strip_prefix(group::PREFIX)).map(str::to_owned),
            );
        }
    }
    names.sort();
    Ok(names)
}

/// The group that was made under one of [`names_in`]'s names.
#[must_use]
pub fn group_in(agents: &Tree, name: &str) -> Tree {
    agents.child(&format!("{}{name}", group::PREFIX))
}

/// Ends and removes everything in a base that an earlier supervisor recorded, wherever it ran then (another login session,
/// say). Its own leaf included: it is dead, or we would not hold its lock.
///
/// # Errors
/// [`Error::NotOurs`] when the record names anything but a base, or one that we run in ourselves.
pub fn sweep_recorded(recorded: &Tree, within: Duration) -> Result<SweepReport> {
    check_ours(recorded)?;
    let start = Instant::now();
    if !recorded.exists() {
        return Ok(SweepReport { groups: 0, processes: 0, took: start.elapsed() });
    }
    if recorded.pids()?.contains(&Pid::this().as_raw()) {
        return Err(Error::NotOurs { path: recorded.shown() });
    }
    let processes = Grip::open(recorded.clone())?.kill(within)?.processes;
    let groups = remove_children(&recorded.child(AGENTS))?;
    recorded.remove(REMOVE_WITHIN)?;
    Ok(SweepReport { groups, processes, took: start.elapsed() })
}

/// A record is a file that could be damaged: it must not make us kill the machine.
fn check_ours(recorded: &Tree) -> Result<()> {
    let ours = |dir: &Path| {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        dir.is_absolute() && name.starts_with(PREFIX) && !dir.components().any(|c| c.as_os_str() == "..")
    };
    match recorded.dirs().find(|dir| !ours(dir)) {
        Some(path) => Err(Error::NotOurs { path: path.to_owned() }),
        None => Ok(()),
    }
}

/// A process that was moved into its leaf (and restarted itself, or opens its base again) belongs where the leaf's base is.
fn leave_own_leaf(own: &Path, name: &str) -> PathBuf {
    let base = own.parent().filter(|base| own.ends_with(SUPERVISOR) && base.ends_with(name));
    base.and_then(Path::parent).unwrap_or(own).to_owned()
}

/// Makes our directory in each v1 hierarchy that we need; one that can't be made costs its controllers.
fn make_legacy(layout: &Layout, name: &str, unified: Option<&Path>, gaps: &mut Vec<Gap>) -> Result<Vec<LegacyDir>> {
    // With all of v2's own files there is no need to join the freezer (and cpuacct) at each launch too.
    let v2_suffices = unified.is_some_and(|dir| ["cgroup.kill", "cgroup.freeze"].iter().all(|f| dir.join(f).exists()));
    let mut legacy: Vec<LegacyDir> = Vec::new();
    for (controller, own) in &layout.legacy {
        let limiting = Controller::LIMITING.contains(controller);
        if !limiting && v2_suffices || *controller == Controller::Cpuacct && unified.is_some() {
            continue;
        }
        let dir = own.join(name);
        if let Some(shared) = legacy.iter_mut().find(|d| d.dir == dir) {
            shared.controllers.push(*controller);
            continue;
        }
        match ensure(&dir) {
            Ok(()) => legacy.push(LegacyDir { controllers: vec![*controller], dir }),
            Err(Error::Create { path, source }) if limiting => {
                let errno = Errno::from_raw(source.raw_os_error().unwrap_or(0));
                gaps.push(Gap { controller: *controller, reason: GapReason::Refused { path, errno } });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(legacy)
}

/// The low weight stands where it competes with the supervisor: on `agents` beside its leaf, else on the whole base.
fn set_weight(tree: &Tree, place: Place) -> Result<Option<PathBuf>> {
    let agents = tree.child(AGENTS);
    let beside_us = match (tree.place(Controller::Cpu), place) {
        (Some((_, Version::V2)), Place::Inner) => agents.place(Controller::Cpu),
        (other, _) => other,
    };
    beside_us.map(|(dir, version)| limits::set_weight(dir, version)).transpose()
}

/// Makes a directory unless it is there.
fn ensure(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(source) if source.raw_os_error() != Some(Errno::EEXIST as i32) => {
            Err(Error::Create { path: dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Removes all groups below `tree`; how many there were (a group counts once, whatever hierarchies it is in).
fn remove_children(tree: &Tree) -> Result<usize> {
    let mut names = Vec::new();
    for dir in tree.dirs() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
        names.extend(below.filter_map(|entry| entry.file_name().into_string().ok()));
    }
    names.sort_unstable();
    names.dedup();
    names.iter().try_for_each(|name| tree.child(name).remove(REMOVE_WITHIN))?;
    Ok(names.len())
}

/// SIGKILLs whoever is in `leaf` and isn't ours, and waits until they are gone.
fn end_strangers(leaf: &Path, ours: &[i32], deadline: Instant) -> Result<usize> {
    let mut ended = Vec::new();
    let mut left = Vec::new();
    let gone = look_until(deadline, || {
        left.clear();
        read_pids(leaf, &mut left)?;
        left.retain(|pid| *pid > 0 && !ours.contains(pid));
        for &pid in &left {
            if !ended.contains(&pid) {
                ended.push(pid);
            }
            // A refusal shows in the list next time.
            let _seen_by_the_list = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(left.is_empty())
    })?;
    if gone {
        return Ok(ended.len());
    }
    Err(Error::Survivors { path: leaf.to_owned(), pids: left, after: Instant::now().duration_since(deadline) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn damaged_record_never_reaches_beyond_our_own_groups() {
        for path in ["/sys/fs/cgroup", "/sys/fs/cgroup/system.slice", "agt-supervise-1", "/a/../agt-supervise-1/.."] {
            let tree = Tree { unified: Some(path.into()), ..Tree::default() };
            assert!(matches!(sweep_recorded(&tree, Duration::ZERO), Err(Error::NotOurs { .. })), "{path}");
            assert!(matches!(agents_of(&tree), Err(Error::NotOurs { .. })), "{path}");
        }
        let ours = Tree { unified: Some("/sys/fs/cgroup/agt-supervise-gone".into()), ..Tree::default() };
        assert_eq!(sweep_recorded(&ours, Duration::ZERO).unwrap().groups, 0);
    }

    #[test]
    fn process_in_its_own_leaf_does_not_nest_deeper_at_each_start() {
        let name = "agt-supervise-7";
        let leave = |own: &str| leave_own_leaf(Path::new(own), name);
        assert_eq!(leave("/x/agt-supervise-7/supervisor"), Path::new("/x"));
        assert_eq!(leave("/x/agt-supervise-8/supervisor"), Path::new("/x/agt-supervise-8/supervisor"));
        assert_eq!(leave("/x/supervisor"), Path::new("/x/supervisor"));
    }

    #[test]
    fn ids_that_are_no_plain_names_are_refused() {
        let layout = Layout { unified: None, legacy: Vec::new(), gaps: Vec::new() };
        for id in ["", "a/b", "..", "a b", &"x".repeat(65)] {
            assert!(matches!(Base::open(&layout, id, &[]), Err(Error::Name { .. })), "{id}");
        }
    }
}
