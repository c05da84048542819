//! One agent's group: made with its limits, joined by the agent's first process, ended, read, removed.
//!
//! Why the group outlives no launch: a killed agent's group is removed and made anew, so every launch starts from limits
//! that were just read back. Where a caller keeps a group, [`Group::join`] sets again what a kill had lifted.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::{Error, Result};
use super::grip::Grip;
use super::kill::KillReport;
use super::layout::Gap;
use super::limits::{self, Absent};
use super::subtree;
use super::tree::Tree;
use super::usage::Usage;
use crate::spec::Limits;

/// The longest agent name: leaves room for the prefix in the 255 bytes of a file name.
pub const NAME_MAX: usize = 128;
/// Keeps an agent called `tasks` or `memory.max` from meeting the kernel's own files.
pub(super) const PREFIX: &str = "agent-";

/// How long an empty group may take to thaw.
const THAW_WITHIN: Duration = Duration::from_secs(1);

/// An agent's group.
#[derive(Debug)]
pub struct Group {
    grip: Grip,
    gaps: Vec<Gap>,
    limits: Mutex<Limits>,
    /// A kill has lifted the CPU quota, and found the group frozen perhaps. Not in the mutex: a kill waits for no lock.
    was_killed: AtomicBool,
}

/// How a new process gets into a group without anybody writing its pid (which would cost an RCU grace period). By default into none.
#[derive(Debug, Default)]
pub struct Join {
    /// The v2 directory, for `CLONE_INTO_CGROUP`.
    pub into_cgroup: Option<OwnedFd>,
    /// v1 `tasks` files: the child, while it has one thread, writes `0` to each.
    pub tasks: Vec<OwnedFd>,
    /// The v2 `cgroup.procs`: for a child that was started without `CLONE_INTO_CGROUP`; it writes `0`. Slow.
    pub procs: Option<OwnedFd>,
}

impl Group {
    pub(super) fn create(agents: &Tree, name: &str, limits: &Limits, gaps: &[Gap]) -> Result<Group> {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(['/', '\n', '\0']) {
            return Err(Error::Name { name: name.escape_debug().to_string(), max: NAME_MAX });
        }
        let tree = agents.child(&format!("{PREFIX}{name}"));
        tree.create()?;
        let ready = limits::apply(&tree, limits, Absent::IsUnlimited, gaps).and_then(|()| Grip::open(tree.clone()));
        match ready {
            Ok(grip) => {
                let (limits, was_killed) = (Mutex::new(*limits), AtomicBool::new(false));
                Ok(Group { grip, gaps: gaps.to_vec(), limits, was_killed })
            }
            Err(error) => {
                // Empty and a moment old; the error that counts is the first.
                drop(tree.remove(Duration::ZERO));
                Err(error)
            }
        }
    }

    /// The group's places.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        self.grip.tree()
    }

    /// What a launcher hands to the child. After a kill the group is made ready again: limits set, thawed.
    ///
    /// # Errors
    /// [`Error::Read`] when a file can't be opened; after a kill those of [`Group::set_limits`] and [`Group::thaw`].
    pub fn join(&self) -> Result<Join> {
        if self.was_killed.load(Ordering::SeqCst) {
            limits::apply(self.tree(), &self.limits(), Absent::IsUnlimited, &self.gaps)?;
            self.grip.thaw(THAW_WITHIN)?;
            self.was_killed.store(false, Ordering::SeqCst);
        }
        let directory = |dir: &Path| open(dir, OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY));
        let writable = |path: &Path| open(path, OpenOptions::new().write(true));
        let unified = self.tree().unified.as_deref();
        Ok(Join {
            into_cgroup: unified.map(directory).transpose()?,
            tasks: self.tree().legacy.iter().map(|d| writable(&d.dir.join("tasks"))).collect::<Result<_>>()?,
            procs: unified.map(|dir| writable(&dir.join("cgroup.procs"))).transpose()?,
        })
    }

    /// Moves a running process in, with all its threads. Slow (an RCU grace period a hierarchy): not for launches.
    ///
    /// # Errors
    /// [`Error::Write`] when the kernel refuses.
    pub fn adopt(&self, pid: i32) -> Result<()> {
        self.tree().dirs().try_for_each(|dir| subtree::move_into(dir, pid))
    }

    /// Ends everything in the group, nested groups included, and verifies that it is empty. Safe to call again, from
    /// several threads, and on an empty group.
    ///
    /// # Errors
    /// [`Error::Survivors`] when processes are left after `within`.
    pub fn kill(&self, within: Duration) -> Result<KillReport> {
        self.was_killed.store(true, Ordering::SeqCst);
        self.grip.kill(within)
    }

    /// Stops every task; returns once the kernel shows that all stand still.
    ///
    /// # Errors
    /// [`Error::NotSettled`] when that took longer than `within`; the request stands.
    pub fn freeze(&self, within: Duration) -> Result<Duration> {
        self.grip.freeze(within)
    }

    /// Lets every task run again.
    ///
    /// # Errors
    /// [`Error::NotSettled`] when a group above is frozen.
    pub fn thaw(&self, within: Duration) -> Result<Duration> {
        self.grip.thaw(within)
    }

    /// Whether every task stands still.
    ///
    /// # Errors
    /// [`Error::Read`] when the kernel's state can't be read.
    pub fn is_frozen(&self) -> Result<bool> {
        self.grip.is_frozen()
    }

    /// Whether nothing is left in any hierarchy.
    ///
    /// # Errors
    /// [`Error::Read`] when the kernel's state can't be read.
    pub fn is_empty(&self) -> Result<bool> {
        self.tree().is_empty()
    }

    /// The processes in it, nested groups included.
    ///
    /// # Errors
    /// [`Error::Read`] when a list can't be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.tree().pids()
    }

    /// What it uses now.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Malformed`].
    pub fn usage(&self) -> Result<Usage> {
        self.tree().usage()
    }

    /// The limits that were asked for last.
    #[must_use]
    pub fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limits of the running group, each read back; `None` takes a limit away. A memory limit below what is in
    /// use makes the kernel reclaim, and on v2 end processes.
    ///
    /// # Errors
    /// [`Error::LimitDidNotStick`], [`Error::Write`] (v1 refuses a memory limit that it can't reclaim down to),
    /// [`Error::NoController`], [`Error::ImpossibleLimit`]. Earlier limits of the same call may be set already.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        let mut kept = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits::apply(self.tree(), limits, Absent::Lift, &self.gaps)?;
        *kept = *limits;
        Ok(())
    }

    /// Removes the group from every hierarchy, nested groups included.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] when processes are left (kill first), [`Error::Remove`] when the kernel keeps it past `within`.
    pub fn remove(self, within: Duration) -> Result<()> {
        self.tree().remove(within)
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<OwnedFd> {
    // std opens with O_CLOEXEC.
    options.open(path).map(File::into).map_err(|source| Error::Read { path: path.to_owned(), source })
}
