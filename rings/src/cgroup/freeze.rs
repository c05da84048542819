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

impl Grip {
    /// Stops every task and waits until all stand still. The request stands even when that takes longer than `within`.
    ///
    /// # Errors
    /// [`Error::NotSettled`] when a task (in an uninterruptible call, say) did not stop in time.
    pub fn freeze(&self, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        self.request_freeze()?;
        if self.wait_state(State::Frozen, start + within)? {
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
