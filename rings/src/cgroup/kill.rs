//! The kill: nothing of the tree is left, the kernel says so, and the report says how many and how long.
//!
//! Why these steps, in this order:
//! 1. The agents' low CPU weight is raised to everybody's for the time of the kill, and the quota lifted: a tree also
//!    *dies* at the pace of its weight and of its quota (126 ms against 54 ms measured).
//! 2. v2 `cgroup.kill` (kernel 5.14): one write, nested groups, forks in flight and frozen tasks included. Where it is
//!    missing: freeze, so that nobody forks or reuses a pid while we read the list, SIGKILL everybody, thaw. The thaw
//!    comes after the signals: a task that the v1 freezer holds dies only then, and nothing of the agent runs in between.
//! 3. Wait for `populated 0`, then look at the v1 lists. Whoever is still there meets the next round.
//!    (Empty means: every task is past its memory, files and namespaces. The last may need a moment more to be a zombie.)
//! 4. A group that was frozen is thawed, empty as it is, for whoever joins it next.
//!
//! It waits for no disk, lock or queue. Its time is bounded; what is left then is named in the error.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::file;
use super::freeze::State;
use super::grip::{Grip, look_until};
use super::layout::Controller;
use super::limits::{self, Weight};
use super::tree::{Version, with_nested};

/// How long one round waits for the tree to be empty before it strikes again.
const ROUND: Duration = Duration::from_millis(250);
/// How long a round waits for everybody to stand still before it signals anyway.
const STAND_STILL: Duration = Duration::from_millis(50);

/// How long v1 may lag behind v2 before its tasks are taken for stragglers.
const LEGACY_LAG: Duration = Duration::from_millis(5);

/// How a tree is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// v2 `cgroup.kill`.
    CgroupKill,
    /// v2 freeze, SIGKILL all, thaw (kernels before 5.14).
    FreezeV2,
    /// v1 freeze, SIGKILL all, thaw.
    FreezerV1,
    /// SIGKILL all, again and again: nothing to freeze with.
    Signals,
}

/// A kill that was verified: the group is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct KillReport {
    /// Processes seen in the tree, each once: those there at the trigger, and those of later rounds. Less than the truth
    /// for a tree that forks meanwhile, and when no list could be opened (no descriptor left); never more.
    pub processes: usize,
    /// How often it had to strike; 0 when the tree was empty already.
    pub rounds: u32,
    /// From the trigger to verified empty.
    pub took: Duration,
    /// How.
    pub means: Means,
}

impl Grip {
    /// Ends everything in the tree and verifies that it is empty.
    ///
    /// # Errors
    /// [`Error::Survivors`] when processes are left after `within` (stuck in the kernel, say); calling again is fine.
    /// [`Error::Write`] or [`Error::Read`] when the kernel refuses the means.
    pub fn kill(&self, within: Duration) -> Result<KillReport> {
        self.kill_by(self.means(), within)
    }

    /// The same by given means.
    pub(super) fn kill_by(&self, means: Means, within: Duration) -> Result<KillReport> {
        let start = Instant::now();
        self.weigh(Weight::Dying);
        let report = self.end_all(means, start, within);
        self.weigh(Weight::Agents);
        if report.is_ok() && self.is_frozen().unwrap_or(true) {
            // The verdict stands either way; a group that can't be thawed refuses the next join.
            let _join_insists = self.request_thaw();
        }
        report
    }

    fn end_all(&self, means: Means, start: Instant, within: Duration) -> Result<KillReport> {
        let deadline = start + within;
        // Only counted here: a list that can't be read stops no kill.
        let mut seen = self.tree.members().unwrap_or_default();
        let mut rounds = 0;
        let mut until = start;
        while !self.wait_empty(until)? {
            if rounds > 0 && Instant::now() >= deadline {
                let pids = self.tree.pids()?;
                return Err(Error::Survivors { path: self.tree.shown(), pids, after: start.elapsed() });
            }
            rounds += 1;
            self.strike(means, rounds, deadline, &mut seen)?;
            until = deadline.min(Instant::now() + ROUND);
        }
        let took = start.elapsed();
        seen.sort_unstable();
        seen.dedup();
        Ok(KillReport { processes: seen.len(), rounds, took, means })
    }

    /// One blow.
    fn strike(&self, means: Means, round: u32, deadline: Instant, seen: &mut Vec<i32>) -> Result<()> {
        match (means, &self.kill) {
            (Means::CgroupKill, Some(kill)) => {
                kill.write("1")?;
                if round == 1 {
                    self.lift_quota();
                }
                // Whoever is left sits in a v1 group alone, out of cgroup.kill's reach.
                if round > 1 { self.signal_everybody(seen) } else { Ok(()) }
            }
            (Means::Signals, _) => self.signal_everybody(seen),
            _ => {
                self.lift_quota();
                self.request_freeze()?;
                // Not standing still is no reason to wait: the next round will find the rest.
                self.wait_state(State::Frozen, deadline.min(Instant::now() + STAND_STILL))?;
                self.signal_everybody(seen)?;
                self.request_thaw()
            }
        }
    }

    fn signal_everybody(&self, seen: &mut Vec<i32>) -> Result<()> {
        let pids = self.tree.pids()?;
        signal_all(&pids);
        seen.extend(pids);
        Ok(())
    }

    /// Waits until the tree is empty in every hierarchy; whether it is.
    fn wait_empty(&self, deadline: Instant) -> Result<bool> {
        if let Some(events) = &self.events
            && !events.wait_for("populated", 0, deadline)?
        {
            return Ok(false);
        }
        if self.tree.legacy.is_empty() {
            return Ok(true);
        }
        // A task leaves all hierarchies at one moment: who is still in v1 now was never in v2.
        let deadline = if self.events.is_some() { deadline.min(Instant::now() + LEGACY_LAG) } else { deadline };
        look_until(deadline, || self.tree.legacy_is_empty())
    }

    /// Gives the tree all the CPU there is, to die with. Failing is no reason not to kill.
    fn lift_quota(&self) {
        let Some((dir, version)) = self.tree.place(Controller::Cpu) else { return };
        let (name, value) = match version {
            Version::V1 => ("cpu.cfs_quota_us", "-1"),
            Version::V2 => ("cpu.max", "max"),
        };
        lift_below(dir, name, value);
    }

    /// Failing costs time alone; a weight that stays raised is lowered by the next kill or start.
    fn weigh(&self, weight: Weight) {
        if let Some(file) = &self.tree.weight {
            let _slower = limits::weigh(file, weight);
        }
    }
}

fn lift_below(dir: &Path, name: &str, value: &str) {
    for group in with_nested(dir) {
        // The kill goes on without: it is slower then, and still verified.
        let _slower = file::write(&group.join(name), value);
    }
}

fn signal_all(pids: &[i32]) {
    for &pid in pids.iter().filter(|&&pid| pid > 0) {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            // ESRCH: it went by itself. EPERM can't be helped here; the verdict is the emptiness that is checked next.
            Ok(()) | Err(Errno::ESRCH | _) => {}
        }
    }
}
