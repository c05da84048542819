//! Freeze and thaw, verified by the state that the kernel shows.
//!
//! Why v2 first even on hybrid hosts: v2 says when everything stands still (`frozen 1`), and a task frozen there can
//! still be killed; one frozen by v1 dies only after the thaw. A thaw reaches nested groups too, so that nobody's old
//! freeze is left over.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::file;
use super::grip::{Freezer, Grip, look_until};
use super::tree::with_nested;

const V1_STATE: &str = "freezer.state";
const V2_FREEZE: &str = "cgroup.freeze";
/// How long the tasks of a group take to stop where none waits for another: hundreds of them some milliseconds.
const SETTLES_WITHIN: Duration = Duration::from_millis(250);
/// For how long they go on between two attempts: many times what an answer takes.
const MOMENT: Duration = Duration::from_millis(20);

impl Grip {
    /// Stops every task and waits until all stand still. The request stands even when that takes longer than `within`.
    ///
    /// A task that waits for another's answer in a way that only a kill ends (a listener's, a FUSE file system's) can't stop, and
    /// the other can't answer once it has stopped: so where not all stand still soon, all go on for a moment, and are stopped
    /// again.
    ///
    /// # Errors
    /// [`Error::NotSettled`] when a task (in an uninterruptible call, say) did not stop in time.
    pub fn freeze(&self, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        let end = start + within;
        loop {
            self.request_freeze()?;
            let soon = Instant::now() + SETTLES_WITHIN;
            if self.wait_state(State::Frozen, soon.min(end))? {
                return Ok(start.elapsed());
            }
            if soon + MOMENT >= end {
                break;
            }
            self.request_thaw()?;
            look_until(Instant::now() + MOMENT, || Ok(false))?;
        }
        if self.wait_state(State::Frozen, end)? {
            return Ok(start.elapsed());
        }
        Err(Error::NotSettled { path: self.tree.shown(), wanted: "frozen", after: start.elapsed() })
    }

    /// Lets every task run again and waits until the kernel shows it.
    ///
    /// # Errors
    /// [`Error::NotSettled`] when a parent group is frozen too.
    pub fn thaw(&self, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        self.request_thaw()?;
        if self.wait_state(State::Thawed, start + within)? {
            return Ok(start.elapsed());
        }
        Err(Error::NotSettled { path: self.tree.shown(), wanted: "thawed", after: start.elapsed() })
    }

    /// Whether every task stands still, by the kernel's account.
    ///
    /// # Errors
    /// [`Error::Read`] when the state can't be read.
    pub fn is_frozen(&self) -> Result<bool> {
        self.wait_state(State::Frozen, Instant::now())
    }

    /// Asks for a freeze without waiting for it.
    pub(super) fn request_freeze(&self) -> Result<()> {
        match &self.freezer {
            Some(Freezer::V2(dir)) => file::write(&dir.join(V2_FREEZE), "1"),
            Some(Freezer::V1(dir)) => file::write(&dir.join(V1_STATE), "FROZEN"),
            None => Ok(()),
        }
    }

    /// Asks for a thaw in every group of the tree, without waiting.
    pub(super) fn request_thaw(&self) -> Result<()> {
        match &self.freezer {
            Some(Freezer::V2(dir)) => thaw_below(dir, V2_FREEZE, "0"),
            Some(Freezer::V1(dir)) => thaw_below(dir, V1_STATE, "THAWED"),
            None => Ok(()),
        }
    }

    /// Waits until the tree is in this state; whether it is.
    pub(super) fn wait_state(&self, state: State, deadline: Instant) -> Result<bool> {
        match (&self.freezer, &self.events) {
            (Some(Freezer::V1(dir)), _) => {
                // Reading the state is what makes v1 look whether everybody has stopped.
                let wanted = if state == State::Frozen { "FROZEN" } else { "THAWED" };
                let path = dir.join(V1_STATE);
                look_until(deadline, || Ok(file::read_if_there(&path)?.is_none_or(|found| found == wanted)))
            }
            (Some(Freezer::V2(_)), Some(events)) => {
                events.wait_for("frozen", u64::from(state == State::Frozen), deadline)
            }
            _ => Ok(state == State::Thawed),
        }
    }
}

/// What a tree can be brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Frozen,
    Thawed,
}

fn thaw_below(dir: &Path, name: &str, value: &str) -> Result<()> {
    for group in with_nested(dir) {
        match file::write(&group.join(name), value) {
            Err(Error::Write { source, .. }) if file::is_gone(&source) => {}
            other => other?,
        }
    }
    Ok(())
}
