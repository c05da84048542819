//! Pressure stall information: how long a tree's tasks waited for CPU, memory or disk.
//!
//! Why beside usage: use says how much was had, pressure how much was missed. A memory figure at 100 % is fine for a page cache and
//! a catastrophe for a heap; the stall time tells which. Source: the kernel's `accounting/psi.rst`. A host without PSI (or with
//! `psi=0`) says nothing, and nothing is what we say then.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The three resources. `None`: this host does not say.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressures {
    /// Waiting for a CPU, its own quota's pauses included.
    pub cpu: Option<Pressure>,
    /// Waiting for memory to be reclaimed or read back.
    pub memory: Option<Pressure>,
    /// Waiting for block devices.
    pub io: Option<Pressure>,
}

/// One resource.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All waited, so nothing was done at all. Kernels before 5.13 don't say it for the CPU.
    pub full: Option<Stall>,
}

/// Time lost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Since the group was made, in microseconds.
    pub total_usec: u64,
    /// Share of the last ten seconds, 0 to 1 (a running average of the kernel).
    pub ratio_10s: f64,
}

impl Pressures {
    /// Reads the three files of a v2 group. Each is told or not by itself: switched off, they answer EOPNOTSUPP.
    pub(super) fn of(dir: &Path) -> Pressures {
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok().and_then(|text| Pressure::parse(&text));
        Pressures { cpu: read("cpu.pressure"), memory: read("memory.pressure"), io: read("io.pressure") }
    }
}

impl Pressure {
    fn parse(text: &str) -> Option<Pressure> {
        let line = |word: &str| text.lines().find_map(|line| Stall::parse(line.strip_prefix(word)?));
        Some(Pressure { some: line("some ")?, full: line("full ") })
    }
}

impl Stall {
    fn parse(line: &str) -> Option<Stall> {
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let percent: f64 = value("avg10")?.parse().ok().filter(|percent: &f64| percent.is_finite())?;
        Some(Stall { total_usec: value("total")?.parse().ok()?, ratio_10s: (percent / 100.0).clamp(0.0, 1.0) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_lines_are_read_and_percent_becomes_a_ratio() {
        let text =
            "some avg10=25.00 avg60=1.00 avg300=0.10 total=123\nfull avg10=100.00 avg60=0.00 avg300=0.00 total=9\n";
        let pressure = Pressure::parse(text).unwrap();
        assert_eq!(pressure.some, Stall { total_usec: 123, ratio_10s: 0.25 });
        assert_eq!(pressure.full, Some(Stall { total_usec: 9, ratio_10s: 1.0 }));
    }

    #[test]
    fn a_host_without_it_says_nothing_and_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Pressures::of(dir.path()), Pressures::default());
        fs::write(dir.path().join("cpu.pressure"), "").unwrap();
        fs::write(dir.path().join("io.pressure"), "some avg10=nan total=1\n").unwrap();
        assert_eq!(Pressures::of(dir.path()), Pressures::default());
    }
}
