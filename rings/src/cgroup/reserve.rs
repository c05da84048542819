//! What is kept for the supervisor itself, so that agents that take all there is do not take it from who ends them.
//!
//! On v2 it has a leaf of its own, and that gets a CPU weight of its own and memory that reclaim leaves alone
//! (`admin-guide/cgroup-v2.rst`: cpu.weight, memory.min). Protection is handed down level by level, so the base above the leaf has
//! the same. In v2's root group and on v1 there is no leaf: the supervisor weighs what everything weighs there, agents a fifth
//! of it, and nothing reserves memory.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::file;

/// The supervisor's CPU weight in its leaf: fifty times that of all agents together, ten times the kernel's default.
const CPU_WEIGHT: u32 = 1000;
/// Memory that reclaim leaves to the supervisor: above what it has with a hundred agents (40 MB), below what would hurt a small host.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// What is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// CPU weight on v2's scale (1 to 10000, default 100); `None` where it has no weight of its own.
    pub cpu_weight: Option<u32>,
    /// Bytes of memory that are not reclaimed from it.
    pub memory_bytes: Option<u64>,
}

/// Gives the supervisor's leaf below `base` what is its own; a file that is not there (no controller, an older kernel) is none.
pub(super) fn keep(base: &Path, leaf: &Path) -> Result<Reserve> {
    let weight = set(&leaf.join("cpu.weight"), &CPU_WEIGHT.to_string())?;
    // Above first: what a level does not have, the one below can't be given.
    let above = set(&base.join("memory.min"), &MEMORY_BYTES.to_string())?;
    let memory = above.is_some() && set(&leaf.join("memory.min"), &MEMORY_BYTES.to_string())?.is_some();
    Ok(Reserve { cpu_weight: weight.map(|()| CPU_WEIGHT), memory_bytes: memory.then_some(MEMORY_BYTES) })
}

/// Writes and reads back; `None` where there is no such file.
fn set(path: &Path, text: &str) -> Result<Option<()>> {
    if !path.exists() {
        return Ok(None);
    }
    file::write(path, text)?;
    let found = file::read(path)?;
    if found != text {
        return Err(Error::LimitDidNotStick { file: path.to_owned(), wanted: text.to_owned(), found });
    }
    Ok(Some(()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn the_leaf_gets_weight_and_memory_and_the_base_above_it_the_same_memory() {
        let base = tempfile::tempdir().unwrap();
        let leaf = base.path().join("supervisor");
        fs::create_dir(&leaf).unwrap();
        assert_eq!(keep(base.path(), &leaf).unwrap(), Reserve::default());
        for file in [leaf.join("cpu.weight"), leaf.join("memory.min"), base.path().join("memory.min")] {
            fs::write(file, "0\n").unwrap();
        }
        let kept = keep(base.path(), &leaf).unwrap();
        assert_eq!(kept, Reserve { cpu_weight: Some(1000), memory_bytes: Some(64 << 20) });
        assert_eq!(fs::read_to_string(base.path().join("memory.min")).unwrap(), (64 << 20).to_string());
        assert_eq!(fs::read_to_string(leaf.join("cpu.weight")).unwrap(), "1000");
    }

    #[test]
    fn memory_that_the_level_above_does_not_have_is_not_said_to_be_kept() {
        let base = tempfile::tempdir().unwrap();
        let leaf = base.path().join("supervisor");
        fs::create_dir(&leaf).unwrap();
        fs::write(leaf.join("memory.min"), "0\n").unwrap();
        assert_eq!(keep(base.path(), &leaf).unwrap().memory_bytes, None);
    }
}
