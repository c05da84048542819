//! What a tree uses and what limits it has met, read from whichever files the host has.
//!
//! Why every number is optional: kernels differ (`memory.peak` came with 5.19, `pids.peak` with 6.11), and a missing number must
//! stay missing. 0 would be an invented one.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::file;
use super::layout::Controller;
use super::pressure::Pressures;
use super::tree::{Tree, Version};

/// A tree's use of the machine. `None`: this host does not say.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Bytes of memory charged now.
    pub memory_bytes: Option<u64>,
    /// The most bytes charged at any time.
    pub memory_peak_bytes: Option<u64>,
    /// How often the memory limit was met and memory had to be reclaimed. On v1 hosts with swap accounting often unknown:
    /// [`Usage::oom_kills`] is the number to act on.
    pub memory_limit_hits: Option<u64>,
    /// How often it was above `memory.high` and slowed down (v2; we set no such limit, whoever delegated the group may).
    pub memory_high_hits: Option<u64>,
    /// Processes that the OOM killer ended in it.
    pub oom_kills: Option<u64>,
    /// CPU time used, in microseconds.
    pub cpu_usec: Option<u64>,
    /// Time spent waiting for the next CPU period, in microseconds (summed over CPUs).
    pub cpu_throttled_usec: Option<u64>,
    /// Periods in which the CPU quota ran out.
    pub cpu_throttled_periods: Option<u64>,
    /// Periods in which it ran at all, under a quota.
    pub cpu_periods: Option<u64>,
    /// Tasks (processes and threads) now; zombies count until they are reaped.
    pub tasks: Option<u64>,
    /// The most tasks at any time.
    pub tasks_peak: Option<u64>,
    /// Forks and clones that the tasks limit refused.
    pub tasks_limit_hits: Option<u64>,
    /// What it read and wrote on block devices (v2 with the io controller).
    pub io: Option<Io>,
    /// How long its tasks waited for the machine (kernels with PSI; with a v2 mount, even one without controllers).
    pub pressure: Pressures,
}

/// Block device traffic, all devices together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Io {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written; what went through the page cache is counted when it reaches the device.
    pub written_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

impl Io {
    /// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a line for each device. A group that has done none has no line.
    fn parse(text: &str) -> Io {
        let sum = |key: &str| {
            let values = text
                .split_whitespace()
                .filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
            values.fold(0, u64::saturating_add)
        };
        Io { read_bytes: sum("rbytes"), written_bytes: sum("wbytes"), reads: sum("rios"), writes: sum("wios") }
    }
}

impl Tree {
    /// Reads all numbers.
    ///
    /// # Errors
    /// [`super::Error::Read`] or [`super::Error::Malformed`]; a file that does not exist is `None`, not an error.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        match self.place(Controller::Memory) {
            Some((dir, Version::V2)) => memory_v2(dir, &mut usage)?,
            Some((dir, Version::V1)) => memory_v1(dir, &mut usage)?,
            None => {}
        }
        if let Some((dir, _)) = self.place(Controller::Pids) {
            usage.tasks = file::read_u64_if_there(&dir.join("pids.current"))?;
            usage.tasks_peak = file::read_u64_if_there(&dir.join("pids.peak"))?;
            usage.tasks_limit_hits = keys(dir, "pids.events")?.get("max");
        }
        if let Some((dir, Version::V2)) = self.place(Controller::Io) {
            usage.io = file::read_if_there(&dir.join("io.stat"))?.as_deref().map(Io::parse);
        }
        if let Some(dir) = &self.unified {
            usage.pressure = Pressures::of(dir);
        }
        self.cpu(&mut usage)?;
        Ok(usage)
    }

    fn cpu(&self, usage: &mut Usage) -> Result<()> {
        // Every v2 group shows its CPU time, with or without the controller; cpuacct counts nanoseconds.
        if let Some(dir) = &self.unified {
            usage.cpu_usec = keys(dir, "cpu.stat")?.get("usage_usec");
        } else if let Some(dir) = self.legacy_dir(Controller::Cpuacct) {
            usage.cpu_usec = file::read_u64_if_there(&dir.join("cpuacct.usage"))?.map(|ns| ns / 1000);
        }
        if let Some((dir, version)) = self.place(Controller::Cpu) {
            let stat = keys(dir, "cpu.stat")?;
            usage.cpu_throttled_periods = stat.get("nr_throttled");
            usage.cpu_periods = stat.get("nr_periods");
            usage.cpu_throttled_usec = match version {
                Version::V2 => stat.get("throttled_usec"),
                Version::V1 => stat.get("throttled_time").map(|ns| ns / 1000),
            };
        }
        Ok(())
    }
}

fn memory_v2(dir: &Path, usage: &mut Usage) -> Result<()> {
    usage.memory_bytes = file::read_u64_if_there(&dir.join("memory.current"))?;
    usage.memory_peak_bytes = file::read_u64_if_there(&dir.join("memory.peak"))?;
    let events = keys(dir, "memory.events")?;
    usage.oom_kills = events.get("oom_kill");
    usage.memory_limit_hits = events.get("max");
    usage.memory_high_hits = events.get("high");
    Ok(())
}

fn memory_v1(dir: &Path, usage: &mut Usage) -> Result<()> {
    usage.memory_bytes = file::read_u64_if_there(&dir.join("memory.usage_in_bytes"))?;
    usage.memory_peak_bytes = file::read_u64_if_there(&dir.join("memory.max_usage_in_bytes"))?;
    usage.memory_limit_hits = limit_hits_v1(dir)?;
    usage.oom_kills = keys(dir, "memory.oom_control")?.get("oom_kill");
    Ok(())
}

/// Where swap is counted, the two limits are equal and the one that includes swap is asked first. Kernels from about 6.15
/// on count failures of the other one only (seen on 6.18): no failure counted then says nothing, and is not 0.
pub(super) fn limit_hits_v1(dir: &Path) -> Result<Option<u64>> {
    let memory = file::read_u64_if_there(&dir.join("memory.failcnt"))?;
    let with_swap = file::read_u64_if_there(&dir.join("memory.memsw.failcnt"))?;
    Ok(match (memory, with_swap) {
        (Some(memory), Some(with_swap)) => Some(memory + with_swap).filter(|&hits| hits > 0),
        (memory, _) => memory,
    })
}

/// A flat keyed file; empty when it does not exist.
pub(super) struct Keys(String);

pub(super) fn keys(dir: &Path, name: &str) -> Result<Keys> {
    Ok(Keys(file::read_if_there(&dir.join(name))?.unwrap_or_default()))
}

impl Keys {
    pub(super) fn get(&self, key: &str) -> Option<u64> {
        file::flat_key(&self.0, key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cgroup::pressure::{Pressure, Stall};
    use crate::cgroup::tree::LegacyDir;
    use std::fs;

    fn files(list: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        list.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    #[test]
    fn v2_numbers_are_read() {
        let dir = files(&[
            ("memory.current", "100\n"),
            ("memory.peak", "200\n"),
            ("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 1\n"),
            ("cpu.stat", "usage_usec 5000\nuser_usec 1\nnr_periods 9\nnr_throttled 3\nthrottled_usec 40\n"),
            ("pids.current", "4\n"),
            ("pids.events", "max 11\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=9 dios=9\n8:16 rbytes=10 wbytes=20 rios=30 wios=40\n",
            ),
            ("cpu.pressure", "some avg10=12.50 avg60=0.00 avg300=0.00 total=77\n"),
        ]);
        let tree = Tree {
            unified: Some(dir.path().to_owned()),
            unified_controllers: Controller::PASSED_ON.to_vec(),
            ..Tree::default()
        };
        let expected = Usage {
            memory_bytes: Some(100),
            memory_peak_bytes: Some(200),
            memory_limit_hits: Some(7),
            memory_high_hits: Some(0),
            oom_kills: Some(1),
            cpu_usec: Some(5000),
            cpu_throttled_usec: Some(40),
            cpu_throttled_periods: Some(3),
            cpu_periods: Some(9),
            io: Some(Io { read_bytes: 11, written_bytes: 22, reads: 33, writes: 44 }),
            pressure: Pressures {
                cpu: Some(Pressure { some: Stall { total_usec: 77, ratio_10s: 0.125 }, full: None }),
                ..Pressures::default()
            },
            tasks: Some(4),
            tasks_peak: None,
            tasks_limit_hits: Some(11),
        };
        assert_eq!(tree.usage().unwrap(), expected);
    }

    #[test]
    fn v1_numbers_are_read_and_nanoseconds_become_microseconds() {
        let dir = files(&[
            ("memory.usage_in_bytes", "100\n"),
            ("memory.max_usage_in_bytes", "200\n"),
            ("memory.failcnt", "3\n"),
            ("memory.memsw.failcnt", "4\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("cpuacct.usage", "5000000\n"),
            ("cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 40000\n"),
            ("pids.current", "4\n"),
            ("pids.peak", "6\n"),
            ("pids.events", "max 11\n"),
        ]);
        let controllers = vec![Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Cpuacct];
        let tree = Tree { legacy: vec![LegacyDir { controllers, dir: dir.path().to_owned() }], ..Tree::default() };
        let usage = tree.usage().unwrap();
        assert_eq!((usage.cpu_usec, usage.cpu_throttled_usec), (Some(5000), Some(40)));
        assert_eq!((usage.oom_kills, usage.memory_limit_hits, usage.tasks_peak), (Some(1), Some(7), Some(6)));
    }

    #[test]
    fn v1_limit_hits_that_the_kernel_may_not_count_are_unknown() {
        let hits = |list: &[(&str, &str)]| limit_hits_v1(files(list).path()).unwrap();
        assert_eq!(hits(&[("memory.failcnt", "0\n"), ("memory.memsw.failcnt", "0\n")]), None);
        assert_eq!(hits(&[("memory.failcnt", "0\n")]), Some(0));
        assert_eq!(hits(&[]), None);
    }

    #[test]
    fn what_the_host_does_not_say_is_none_and_not_zero() {
        let dir = files(&[]);
        let tree = Tree { unified: Some(dir.path().to_owned()), ..Tree::default() };
        assert_eq!(tree.usage().unwrap(), Usage::default());
    }
}
