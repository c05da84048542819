//! Which file of an agent's cgroup does what, on v1 and v2.

use std::path::PathBuf;

use agt_chaos::error::KernelError;
use agt_chaos::kernel::CgroupFile;
use agt_chaos::target::Limit;
use agt_rings::cgroup::{Controller, Tree};

pub(super) fn legacy(tree: &Tree, controller: Controller) -> Option<PathBuf> {
    tree.legacy.iter().find(|dir| dir.controllers.contains(&controller)).map(|dir| dir.dir.clone())
}

/// The freezer: v2 `cgroup.freeze` (since kernel 5.2), else v1 `freezer.state`. The same order as that of the group itself, so
/// that what is frozen here is seen frozen there.
pub(super) fn freezer(tree: &Tree) -> Option<PathBuf> {
    let v2 = tree.unified.as_ref().map(|dir| dir.join("cgroup.freeze")).filter(|file| file.exists());
    v2.or_else(|| legacy(tree, Controller::Freezer).map(|dir| dir.join("freezer.state")))
}

/// The word that freezes.
pub(super) fn frozen_word(freezer: &std::path::Path) -> &'static str {
    if freezer.ends_with("freezer.state") { "FROZEN" } else { "1" }
}

/// The word that lets go again.
pub(super) fn thawed_word(freezer: &std::path::Path) -> &'static str {
    if freezer.ends_with("freezer.state") { "THAWED" } else { "0" }
}

/// The list of its processes.
pub(super) fn procs(tree: &Tree) -> Option<PathBuf> {
    let dir = tree.unified.clone().or_else(|| tree.legacy.first().map(|dir| dir.dir.clone()));
    dir.map(|dir| dir.join("cgroup.procs"))
}

/// The CPU quota.
#[derive(Debug)]
pub(super) enum Quota {
    /// `cpu.max`: quota and period in one.
    V2(PathBuf),
    /// `cpu.cfs_quota_us`, and the period beside it.
    V1(PathBuf, PathBuf),
}

impl Quota {
    pub(super) fn of(tree: &Tree) -> Option<Quota> {
        if tree.unified_controllers.contains(&Controller::Cpu) {
            return tree.unified.as_ref().map(|dir| Quota::V2(dir.join("cpu.max")));
        }
        legacy(tree, Controller::Cpu).map(|dir| Quota::V1(dir.join("cpu.cfs_quota_us"), dir.join("cpu.cfs_period_us")))
    }

    /// The file that is written, and written back.
    pub(super) fn file(&self) -> &PathBuf {
        let (Quota::V2(file) | Quota::V1(file, _)) = self;
        file
    }

    /// Quota (`None`: without limit) and period in microseconds; `None` when they can't be told.
    fn read(&self) -> Result<Option<(Option<u64>, u64)>, KernelError> {
        let Some(text) = read(self.file())? else { return Ok(None) };
        let (quota, period) = match self {
            Quota::V2(_) => {
                let Some((quota, period)) = text.split_once(' ') else { return Ok(None) };
                (quota.to_owned(), period.to_owned())
            }
            Quota::V1(_, period) => {
                let Some(period) = read(period)? else { return Ok(None) };
                (text, period)
            }
        };
        // v2 says `max`, v1 -1.
        Ok(period.trim().parse().ok().filter(|period| *period > 0).map(|period| (quota.trim().parse().ok(), period)))
    }

    /// The quota in thousandths of a CPU.
    pub(super) fn limit(&self) -> Result<Option<Limit>, KernelError> {
        Ok(self.read()?.map(|(quota, period)| {
            quota.map_or(Limit::Unlimited, |quota| Limit::At(quota.saturating_mul(1000) / period))
        }))
    }

    /// What has to be written for so many thousandths of a CPU. The kernel takes no quota under a millisecond.
    pub(super) fn word(&self, millis: u32) -> Result<Option<String>, KernelError> {
        Ok(self.read()?.map(|(_, period)| {
            let quota = (u64::from(millis) * period / 1000).max(1000);
            match self {
                Quota::V2(_) => format!("{quota} {period}"),
                Quota::V1(..) => quota.to_string(),
            }
        }))
    }
}

pub(super) fn read(path: &std::path::Path) -> Result<Option<String>, KernelError> {
    match CgroupFile::open(path)? {
        Some(file) => file.read(),
        None => Ok(None),
    }
}
