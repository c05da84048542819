//! Whom the OOM killer takes first in a cgroup, and how much memory there is.
//!
//! Whoever presses an agent's memory from a process of its own would be the OOM killer's first choice there: it is the largest.
//! So the agent's processes are made the preferred ones for that time, all by as much, so that among them the kernel chooses
//! as it would without us (cgroup v2 with `memory.oom.group` takes the whole group anyway). Raising that number needs no
//! capability, and lowering it again to what it was needs none either (proc(5), `oom_score_adj`); making the hog exempt instead
//! would need CAP_SYS_RESOURCE, and would leave the host's own OOM killer without its best choice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupFile, file_error, is_gone, is_present, members};
use crate::error::KernelError;
use crate::undo::{ProcessId, UndoEntry};

/// The most that `oom_score_adj` can be: taken before every process that has less.
pub const OOM_SCORE_MOST: i32 = 1000;
/// How often a group is gone through before it must be quiet: forks inherit the raised number meanwhile.
const PASSES: u32 = 8;

fn score_file(process: ProcessId) -> PathBuf {
    PathBuf::from(format!("/proc/{}/oom_score_adj", process.pid))
}

fn oom_score(process: ProcessId) -> Result<Option<i32>, KernelError> {
    let path = score_file(process);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(source) => return Err(file_error("reading", &path, source)),
    };
    if !is_present(process)? {
        return Ok(None);
    }
    match text.trim().parse() {
        Ok(score) => Ok(Some(score)),
        Err(_) => Err(KernelError::Unreadable { path, content: text.chars().take(80).collect() }),
    }
}

/// Checked for the right process before the writing. Between the two it may end and its pid be given away: the worst is then
/// that a stranger of our own uid is preferred by the OOM killer until the undo, which names the same number.
fn set_oom_score(process: ProcessId, score: i32) -> Result<(), KernelError> {
    let path = score_file(process);
    if !is_present(process)? {
        return Ok(());
    }
    match fs::write(&path, score.to_string()) {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(source) => Err(file_error(format!("writing {score} to"), &path, source)),
    }
}

fn present(procs: &CgroupFile) -> Result<Option<Vec<(ProcessId, i32)>>, KernelError> {
    let Some(content) = procs.read()? else { return Ok(None) };
    let mut found = Vec::new();
    for process in members(&content)? {
        if let Some(score) = oom_score(process)? {
            found.push((process, score));
        }
    }
    Ok(Some(found))
}

/// Those of a cgroup that stand above ourselves: what an agent runs does, and what a supervisor has put beside it does not.
fn preferable(procs: &CgroupFile) -> Result<Vec<(ProcessId, i32)>, KernelError> {
    let path = Path::new("/proc/self/oom_score_adj");
    let text = fs::read_to_string(path).map_err(|source| file_error("reading", path, source))?;
    let unreadable = || KernelError::Unreadable { path: path.to_owned(), content: text.clone() };
    let own: i32 = text.trim().parse().map_err(|_| unreadable())?;
    Ok(present(procs)?.unwrap_or_default().into_iter().filter(|(_, score)| *score > own).collect())
}

/// The entry that gives every process of an agent's cgroup (by its `cgroup.procs`) the `oom_score_adj` back that it has now, and to
/// those forked later the lowest of them. `None`: no process that stands above ourselves, or no cgroup.
pub fn oom_scores_back(procs: &Path) -> Result<Option<UndoEntry>, KernelError> {
    let Some(file) = CgroupFile::open(procs)? else { return Ok(None) };
    let before = preferable(&file)?;
    if before.is_empty() {
        return Ok(None);
    }
    Ok(Some(UndoEntry::OomScores { procs: procs.to_owned(), file: file.id(), before }))
}

/// Makes every process of a cgroup that stands above ourselves one that the OOM killer takes first. [`oom_scores_back`] must have been
/// asked before.
pub fn prefer_for_oom(procs: &Path) -> Result<(), KernelError> {
    let Some(file) = CgroupFile::open(procs)? else { return Ok(()) };
    for _ in 0..PASSES {
        let lower: Vec<_> = preferable(&file)?.into_iter().filter(|(_, score)| *score < OOM_SCORE_MOST).collect();
        if lower.is_empty() {
            return Ok(());
        }
        for (process, _) in lower {
            set_oom_score(process, OOM_SCORE_MOST)?;
        }
    }
    // A tree that forks as fast as that: its children have the number from their parents.
    Ok(())
}

/// Gives the numbers back. Whether something had to be done; `None`: the cgroup is gone.
pub(crate) fn give_oom_scores_back(
    procs: &CgroupFile,
    before: &[(ProcessId, i32)],
) -> Result<Option<bool>, KernelError> {
    let lowest = before.iter().map(|(_, score)| *score).min().unwrap_or(0);
    let mut was_done = false;
    for _ in 0..PASSES {
        let Some(present) = present(procs)? else { return Ok(None) };
        let mut is_quiet = true;
        for (process, score) in present.into_iter().filter(|(_, score)| *score == OOM_SCORE_MOST) {
            let own = before.iter().find(|(known, _)| *known == process).map_or(lowest, |(_, own)| *own);
            if own < score {
                set_oom_score(process, own)?;
                (is_quiet, was_done) = (false, true);
            }
        }
        if is_quiet {
            break;
        }
    }
    Ok(Some(was_done))
}

/// The `oom_kill` of a v1 `memory.oom_control` or a v2 `memory.events`.
pub(crate) fn oom_kills_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// How many bytes can be taken on this host before somebody suffers (`MemAvailable`, proc(5)).
///
/// # Errors
/// When /proc/meminfo can't be read, or doesn't say.
pub fn memory_available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_counts_are_read() {
        assert_eq!(oom_kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(oom_kills_in("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 5\n"), Some(1));
        assert_eq!(oom_kills_in("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn the_host_says_how_much_memory_there_is() {
        assert!(memory_available().unwrap() > 1 << 20);
    }
}
