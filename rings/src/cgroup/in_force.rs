//! The limits that the kernel shows, whoever set them and whatever was asked for.

use std::path::Path;

use super::error::Result;
use super::file;
use super::layout::Controller;
use super::tree::{Tree, Version};
use crate::spec::Limits;

/// v1 shows "no limit" as the largest number of whole pages, which depends on the page.
const V1_UNLIMITED: u64 = i64::MAX.unsigned_abs() - (1 << 20);

impl Tree {
    /// The limits of this very group, read now; `None`: none is set, or none can be kept here. A CPU quota that is no whole
    /// thousandth (nobody of us sets such a one) is rounded up.
    ///
    /// # Errors
    /// [`super::Error::Read`] or [`super::Error::Malformed`]; a group that is gone has none.
    pub fn limits_in_force(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        if let Some((dir, version)) = self.place(Controller::Memory) {
            let name = if version == Version::V1 { "memory.limit_in_bytes" } else { "memory.max" };
            limits.memory_bytes = bounded(&dir.join(name))?.filter(|bytes| *bytes < V1_UNLIMITED);
        }
        if let Some((dir, _)) = self.place(Controller::Pids) {
            limits.tasks = bounded(&dir.join("pids.max"))?.and_then(|tasks| tasks.try_into().ok());
        }
        if let Some((dir, version)) = self.place(Controller::Cpu) {
            limits.cpu_millis = cpu(dir, version)?;
        }
        Ok(limits)
    }
}

/// A number; `None` for `max`, or without the file.
fn bounded(path: &Path) -> Result<Option<u64>> {
    match file::read_if_there(path)?.as_deref() {
        None | Some("max") => Ok(None),
        Some(_) => file::read_u64_if_there(path),
    }
}

fn cpu(dir: &Path, version: Version) -> Result<Option<u32>> {
    let (quota, period) = match version {
        Version::V1 => {
            let quota = file::read_if_there(&dir.join("cpu.cfs_quota_us"))?;
            (quota, file::read_if_there(&dir.join("cpu.cfs_period_us"))?)
        }
        Version::V2 => {
            let text = file::read_if_there(&dir.join("cpu.max"))?.unwrap_or_default();
            let mut words = text.split_whitespace().map(str::to_owned);
            (words.next(), words.next())
        }
    };
    // -1 on v1 and `max` on v2 are no numbers of this kind: no limit.
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
    let (Some(quota), Some(period @ 1..)) = (number(quota), number(period)) else { return Ok(None) };
    Ok(Some(quota.saturating_mul(1000).div_ceil(period).try_into().unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cgroup::tree::LegacyDir;
    use std::fs;

    fn tree(version: Version, list: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        list.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        let path = dir.path().to_owned();
        let tree = match version {
            Version::V1 => Tree {
                legacy: vec![LegacyDir { controllers: Controller::LIMITING.to_vec(), dir: path }],
                ..Tree::default()
            },
            Version::V2 => {
                Tree { unified: Some(path), unified_controllers: Controller::LIMITING.to_vec(), ..Tree::default() }
            }
        };
        (dir, tree)
    }

    #[test]
    fn both_versions_show_the_same_limits_alike() {
        let wanted = Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(500), tasks: Some(9) };
        let (_dir, v2) =
            tree(Version::V2, &[("memory.max", "67108864\n"), ("cpu.max", "50000 100000\n"), ("pids.max", "9\n")]);
        assert_eq!(v2.limits_in_force().unwrap(), wanted);
        let (_dir, v1) = tree(
            Version::V1,
            &[
                ("memory.limit_in_bytes", "67108864\n"),
                ("cpu.cfs_quota_us", "50000\n"),
                ("cpu.cfs_period_us", "100000\n"),
                ("pids.max", "9\n"),
            ],
        );
        assert_eq!(v1.limits_in_force().unwrap(), wanted);
    }

    #[test]
    fn no_limit_is_none_in_both_versions_and_so_is_a_missing_controller() {
        let (_dir, v2) =
            tree(Version::V2, &[("memory.max", "max\n"), ("cpu.max", "max 100000\n"), ("pids.max", "max\n")]);
        assert_eq!(v2.limits_in_force().unwrap(), Limits::default());
        let (_dir, v1) = tree(
            Version::V1,
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("cpu.cfs_quota_us", "-1\n"),
                ("cpu.cfs_period_us", "100000\n"),
                ("pids.max", "max\n"),
            ],
        );
        assert_eq!(v1.limits_in_force().unwrap(), Limits::default());
        assert_eq!(Tree::default().limits_in_force().unwrap(), Limits::default());
    }
}
