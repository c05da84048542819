//! The acts of faults on an agent's cgroup, and the way back from each, read before anything is done.
//!
//! Everything is done by small writes in the caller's own poll: nothing acts later that a dropped future could no longer stop.

use std::io;
use std::path::{Path, PathBuf};

use agt_chaos::error::KernelError;
use agt_chaos::hog::{Hog, Pressing};
use agt_chaos::interlock;
use agt_chaos::kernel::{self, CgroupFile};
use agt_chaos::target::{Act, Limit, Need, TargetError};
use agt_chaos::undo::{UndoEntry, UndoSignal};
use agt_rings::cgroup::Group;

use super::memory::MemoryGroup;
use super::places::{self, Quota};

pub(super) fn failed(doing: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TargetError {
    TargetError::Failed { doing: doing.to_owned(), source: io::Error::other(error) }
}

pub(super) fn refused(reason: impl Into<String>) -> TargetError {
    TargetError::Refused(interlock::Refusal::Target { reason: reason.into() })
}

fn gone() -> TargetError {
    refused("its cgroup is gone")
}

pub(super) fn no_file() -> TargetError {
    refused("the host lacks the file for it")
}

/// Why a need of the group is not met.
pub(super) fn lacks(need: Need, group: Option<&Group>) -> Option<String> {
    let Some(group) = group else {
        return Some("the agent does not run in a cgroup of its own".to_owned());
    };
    let tree = group.tree();
    let openable = |path: Option<PathBuf>| match path.as_deref().map(CgroupFile::open) {
        None => Some("no hierarchy here has it".to_owned()),
        Some(Ok(Some(_))) => None,
        Some(Ok(None)) => Some("its file isn't there".to_owned()),
        Some(Err(e)) => Some(in_words(&e)),
    };
    match need {
        Need::Freezer => openable(places::freezer(tree)),
        Need::CpuQuota => openable(Quota::of(tree).map(|quota| quota.file().clone())),
        Need::Prlimit => prlimit(places::procs(tree)?),
        Need::MemoryLimit => {
            let Some(memory) = MemoryGroup::of(tree) else { return openable(None) };
            memory.limit_files().into_iter().chain([memory.procs()]).find_map(|file| openable(Some(file)))
        }
        Need::SagaSteps => super::saga_steps::lacks(need, None),
        Need::TrustScores => None,
    }
}

/// Sets a limit to what it is: the kernel says whether it may be set.
fn prlimit(procs: PathBuf) -> Option<String> {
    let tried = || -> Result<(), KernelError> {
        let Some(file) = CgroupFile::open(&procs)? else { return Ok(()) };
        for process in kernel::members(&file.read()?.unwrap_or_default())? {
            if let Some(limits) = kernel::file_limits(process)? {
                kernel::set_file_limit(process, limits.soft)?;
            }
        }
        Ok(())
    };
    tried().err().map(|e| in_words(&e))
}

fn in_words(error: &KernelError) -> String {
    crate::driver::launching::in_full(error)
}

pub(super) fn write(path: &Path, word: &str) -> Result<(), TargetError> {
    let doing = format!("writing {word} to {}", path.display());
    let file = CgroupFile::open(path).map_err(|e| failed(&doing, e))?.ok_or_else(gone)?;
    file.write(word).map_err(|e| failed(&doing, e))?.ok_or_else(gone)
}

/// What puts one act right again. A pressing needs a hog, idle as yet, that is handed out too.
pub(super) fn way_back(act: &Act, all: &[Act], group: &Group) -> Result<(Vec<UndoEntry>, Option<Hog>), TargetError> {
    let tree = group.tree();
    let kernel = |e: KernelError| failed("reading what is to be put back", e);
    let entries = match act {
        Act::Freeze => {
            vec![kernel::thaw(&places::freezer(tree).ok_or_else(no_file)?).map_err(kernel)?.ok_or_else(gone)?]
        }
        Act::SetCpuQuota(_) => {
            let quota = Quota::of(tree).ok_or_else(no_file)?;
            vec![kernel::write_back(quota.file()).map_err(kernel)?.ok_or_else(gone)?]
        }
        Act::LimitFds { .. } => {
            let procs = places::procs(tree).ok_or_else(no_file)?;
            kernel::file_limits_back(&procs).map_err(kernel)?.ok_or_else(gone)?
        }
        Act::SetMemoryLimit(_) => {
            let files = MemoryGroup::of(tree).ok_or_else(no_file)?.limit_files().into_iter().rev();
            files.map(|file| kernel::write_back(&file).map_err(kernel)?.ok_or_else(gone)).collect::<Result<_, _>>()?
        }
        Act::PressMemory { .. } => return way_back_from_pressing(all, group),
        Act::CrashAtStep { .. } | Act::SetTrust(_) => return Err(refused("that is done to no cgroup")),
    };
    Ok((entries, None))
}

fn way_back_from_pressing(all: &[Act], group: &Group) -> Result<(Vec<UndoEntry>, Option<Hog>), TargetError> {
    let memory = MemoryGroup::of(group.tree()).ok_or_else(no_file)?;
    let asked = all.iter().find_map(|act| match act {
        Act::SetMemoryLimit(bytes) => Some(bytes.0),
        _ => None,
    });
    let own = match memory.limit().map_err(|e| failed("reading the memory limit", e))? {
        Some(Limit::At(limit)) => Some(limit),
        Some(Limit::Unlimited) => None,
        None => return Err(gone()),
    };
    let Some(limit) = asked.into_iter().chain(own).min() else {
        return Err(refused("it has no memory limit to press against"));
    };
    if let Some(why) = memory.too_tight(limit) {
        return Err(refused(why));
    }
    let hog = Hog::start().map_err(|e| failed("preparing the pressing", e))?;
    let mut entries = vec![UndoEntry::Signal { process: hog.id(), signal: UndoSignal::Kill }];
    if !memory.dies_together() {
        let scores = kernel::oom_scores_back(&memory.procs());
        entries.extend(scores.map_err(|e| failed("reading what is to be put back", e))?);
    }
    Ok((entries, Some(hog)))
}

/// Whether an entry lets an agent's tasks run again.
pub(super) fn is_thaw(entry: &UndoEntry) -> bool {
    let UndoEntry::WriteFile { path, .. } = entry else { return false };
    path.file_name().is_some_and(|name| name == "freezer.state" || name == "cgroup.freeze")
}

/// Whether an entry sets one of the limits that operators set too.
pub(super) fn is_limit(entry: &UndoEntry) -> bool {
    matches!(entry, UndoEntry::WriteFile { .. }) && !is_thaw(entry)
}

/// Does one act.
pub(super) fn perform(act: &Act, group: &Group, hog: Option<&mut Hog>) -> Result<(), TargetError> {
    let tree = group.tree();
    match act {
        Act::Freeze => {
            let path = places::freezer(tree).ok_or_else(no_file)?;
            write(&path, places::frozen_word(&path))
        }
        Act::SetCpuQuota(share) => {
            let quota = Quota::of(tree).ok_or_else(no_file)?;
            let word = quota.word(share.0).map_err(|e| failed("reading the CPU quota", e))?.ok_or_else(gone)?;
            write(quota.file(), &word)
        }
        Act::LimitFds { headroom } => {
            let procs = places::procs(tree).ok_or_else(no_file)?;
            let lowered = kernel::lower_file_limits(&procs, *headroom);
            lowered.map(drop).map_err(|e| failed("lowering the file limits of the agent's processes", e))
        }
        Act::SetMemoryLimit(bytes) => {
            let files = MemoryGroup::of(tree).ok_or_else(no_file)?.limit_files();
            files.iter().try_for_each(|file| write(file, &bytes.0.to_string()))
        }
        Act::PressMemory { per_second } => {
            let hog = hog.ok_or_else(|| refused("it was not prepared"))?;
            press(&MemoryGroup::of(tree).ok_or_else(no_file)?, per_second.0, hog)
        }
        Act::CrashAtStep { .. } | Act::SetTrust(_) => Err(refused("that is done to no cgroup")),
    }
}

fn press(memory: &MemoryGroup, per_second: u64, hog: &mut Hog) -> Result<(), TargetError> {
    let limit = memory.limit().map_err(|e| failed("reading the memory limit", e))?;
    let Some(Limit::At(most)) = limit else { return Err(refused("it has no memory limit to press against")) };
    if !memory.dies_together() {
        kernel::prefer_for_oom(&memory.procs()).map_err(|e| failed("making the agent the OOM killer's choice", e))?;
    }
    // After the agent's own: the hog must not be preferred.
    write(&memory.procs(), &hog.id().pid.to_string())?;
    let pressing = Pressing { per_second, most, counter: memory.counter() };
    hog.press(&pressing).map_err(|e| failed("beginning to press", e))
}
