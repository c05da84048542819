//! How often limits were met: the few counters of [`Usage`] that are looked at again and again.
//!
//! Why two views: an agent's group is asked what happened anywhere in it. The group over all agents is asked what its *own* limits
//! did, because an agent that meets its own limit has not met that of all together; v2 keeps `.local` files for that.

use super::error::Result;
use super::file;
use super::layout::Controller;
use super::tree::{Tree, Version};
use super::usage::{Usage, keys, limit_hits_v1};

/// Counters since the group was made. `None`: this host does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hits {
    /// Times above `memory.high`.
    pub memory_high: Option<u64>,
    /// Times at the memory limit: memory had to be reclaimed, or could not be.
    pub memory: Option<u64>,
    /// Processes that the OOM killer ended (seen from the group over all agents: times that it was called).
    pub oom_kills: Option<u64>,
    /// Forks and clones that the tasks limit refused.
    pub tasks: Option<u64>,
    /// Periods in which the CPU quota ran out.
    pub cpu_throttled_periods: Option<u64>,
    /// Periods in which it ran at all.
    pub cpu_periods: Option<u64>,
}

impl Usage {
    /// The part that counts limits.
    #[must_use]
    pub fn hits(&self) -> Hits {
        Hits {
            memory_high: self.memory_high_hits,
            memory: self.memory_limit_hits,
            oom_kills: self.oom_kills,
            tasks: self.tasks_limit_hits,
            cpu_throttled_periods: self.cpu_throttled_periods,
            cpu_periods: self.cpu_periods,
        }
    }
}

/// Whose limits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Everything,
    ThisGroup,
}

impl Tree {
    /// What was met in this group and in every group below it: at most four small files.
    ///
    /// # Errors
    /// [`super::Error::Read`] or [`super::Error::Malformed`]; a file that does not exist is `None`.
    pub fn hits(&self) -> Result<Hits> {
        self.read_hits(Of::Everything)
    }

    /// What the limits of this very group did. Task limits only where the kernel tells them apart (6.11, or v1).
    ///
    /// # Errors
    /// As [`Tree::hits`].
    pub fn hits_here(&self) -> Result<Hits> {
        self.read_hits(Of::ThisGroup)
    }

    fn read_hits(&self, of: Of) -> Result<Hits> {
        let mut hits = Hits::default();
        match self.place(Controller::Memory) {
            Some((dir, Version::V2)) => {
                let (name, kills) = match of {
                    Of::Everything => ("memory.events", "oom_kill"),
                    // Who is ended is somebody below: here it counts that somebody had to be.
                    Of::ThisGroup => ("memory.events.local", "oom"),
                };
                let events = keys(dir, name)?;
                hits.memory_high = events.get("high");
                hits.memory = events.get("max");
                hits.oom_kills = events.get(kills);
            }
            Some((dir, Version::V1)) => {
                hits.memory = limit_hits_v1(dir)?;
                if of == Of::Everything {
                    hits.oom_kills = keys(dir, "memory.oom_control")?.get("oom_kill");
                }
            }
            None => {}
        }
        match self.place(Controller::Pids) {
            Some((dir, Version::V2)) if of == Of::ThisGroup => {
                hits.tasks =
                    file::read_if_there(&dir.join("pids.events.local"))?.and_then(|text| file::flat_key(&text, "max"));
            }
            // v1 counts where the fork was tried, which is never the group over all agents.
            Some((_, Version::V1)) if of == Of::ThisGroup => {}
            Some((dir, _)) => hits.tasks = keys(dir, "pids.events")?.get("max"),
            None => {}
        }
        if let Some((dir, _)) = self.place(Controller::Cpu) {
            let stat = keys(dir, "cpu.stat")?;
            hits.cpu_throttled_periods = stat.get("nr_throttled");
            hits.cpu_periods = stat.get("nr_periods");
        }
        Ok(hits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn what_agents_met_by_themselves_is_not_counted_to_the_limit_over_all() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("memory.events", "low 0\nhigh 1\nmax 9\noom 5\noom_kill 4\n"),
            ("memory.events.local", "low 0\nhigh 0\nmax 2\noom 1\noom_kill 0\n"),
            ("pids.events", "max 7\n"),
            ("cpu.stat", "usage_usec 1\nnr_periods 20\nnr_throttled 3\nthrottled_usec 4\n"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let tree = Tree {
            unified: Some(dir.path().to_owned()),
            unified_controllers: Controller::LIMITING.to_vec(),
            ..Tree::default()
        };
        let everything = tree.hits().unwrap();
        assert_eq!(everything, tree.usage().unwrap().hits());
        assert_eq!((everything.memory, everything.oom_kills, everything.tasks), (Some(9), Some(4), Some(7)));
        let here = tree.hits_here().unwrap();
        assert_eq!((here.memory, here.oom_kills, here.tasks), (Some(2), Some(1), None));
        assert_eq!((here.cpu_throttled_periods, here.cpu_periods), (Some(3), Some(20)));
    }
}
