//! The way back from a fault, as data that survives every process: what was there before, and on what exactly.
//!
//! Each entry names its object so that it can't be mistaken for a later one: a process by pid *and* start time, a cgroup
//! file by path *and* inode, all of it by the boot it belongs to. So an undo may be performed by the supervisor, by the
//! guardian and by the replay at the next start, in any order and any number of times.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Names one run of one experiment, unique for ever (the supervisor chooses it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

/// Names one undo: the run and the burst.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UndoId(pub String);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UndoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kernel's random name of one boot (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

/// Everything that puts one burst of a fault right again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// Which one.
    pub id: UndoId,
    /// The run it belongs to.
    pub run: RunId,
    /// The agent that was touched.
    pub agent: String,
    /// The boot in which pids and inodes mean what they say.
    pub boot: BootId,
    /// What to do, in this order.
    pub entries: Vec<UndoEntry>,
}

/// A process that can't be mistaken for a later one with its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, as this process's PID namespace shows it.
    pub pid: i32,
    /// Clock ticks from boot to its start (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

/// A file that can't be mistaken for a later one with its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number; cgroup file systems don't reuse one within a boot.
    pub inode: u64,
}

/// The signals that an undo may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UndoSignal {
    /// SIGCONT: go on after a stop.
    Continue,
    /// SIGTERM.
    Terminate,
    /// SIGKILL: for a process that the fault itself started.
    Kill,
}

/// One thing to put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum UndoEntry {
    /// Write this into a file of a cgroup file system; anything else is refused, so that a forged journal can't be made
    /// to write elsewhere. Read back afterwards.
    WriteFile {
        /// The file.
        path: PathBuf,
        /// What stood there before (`THAWED`, `100000`, `max 100000`).
        content: String,
        /// Which file that was.
        file: FileId,
    },
    /// Send a signal.
    Signal {
        /// To whom.
        process: ProcessId,
        /// Which.
        signal: UndoSignal,
    },
    /// Give a process its soft file limit back. Only ever raises it, at most to the hard limit it has now.
    Prlimit {
        /// Whose.
        process: ProcessId,
        /// What it was.
        soft: u64,
    },
    /// Give every process of a cgroup at least this soft file limit back: those that were forked while the fault lasted
    /// have inherited the lowered one.
    PrlimitGroup {
        /// The cgroup's `cgroup.procs`.
        procs: PathBuf,
        /// Which file that was.
        file: FileId,
        /// What the processes had.
        soft: u64,
    },
    /// Give every process of a cgroup that the OOM killer was told to prefer its own `oom_score_adj` back; those that were
    /// forked meanwhile get the lowest of `before`.
    OomScores {
        /// The cgroup's `cgroup.procs`.
        procs: PathBuf,
        /// Which file that was.
        file: FileId,
        /// What each process had.
        before: Vec<(ProcessId, i32)>,
    },
    /// Let the agent's own trust score count again. The experiment's stands beside it in the supervisor's memory only, so
    /// that what is earned and lost meanwhile goes to the agent's own, and a dead supervisor has done it.
    RestoreTrust {
        /// The score that the experiment set.
        replaced: u16,
        /// The score that it replaced.
        original: u16,
    },
    /// Disarm a crash that hasn't happened. It lives in the supervisor's memory only, so a dead supervisor has done it.
    DisarmCrash {
        /// The saga step.
        step: String,
    },
}

impl UndoEntry {
    /// Whether the kernel keeps it, so that a guardian can put it right without the supervisor. What isn't lives in the
    /// supervisor's memory, and dies with it.
    pub fn is_kernel_level(&self) -> bool {
        match self {
            UndoEntry::WriteFile { .. }
            | UndoEntry::Signal { .. }
            | UndoEntry::Prlimit { .. }
            | UndoEntry::PrlimitGroup { .. }
            | UndoEntry::OomScores { .. } => true,
            UndoEntry::RestoreTrust { .. } | UndoEntry::DisarmCrash { .. } => false,
        }
    }
}

/// What happened to one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
#[must_use]
pub enum Outcome {
    /// It was put back, and reads so.
    Done,
    /// It was so already.
    AlreadySo,
    /// The process, the cgroup or the boot is gone, and the fault with it.
    Gone,
    /// Only the supervisor can do it.
    LeftToSupervisor,
    /// It could not be done.
    Failed {
        /// What was tried and the kernel's word.
        reason: String,
    },
}

impl Outcome {
    /// Whether nothing of the fault is left there.
    pub fn is_settled(&self) -> bool {
        matches!(self, Outcome::Done | Outcome::AlreadySo | Outcome::Gone)
    }
}

/// What the journal keeps of chaos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum JournalEntry {
    /// A fault is about to act, and this puts it right.
    Undo(Undo),
    /// It was put right.
    Undone {
        /// Which undo.
        id: UndoId,
    },
}

/// The undos that no later record settles, newest first: what a start after a crash has to replay.
pub fn open_undos(entries: impl IntoIterator<Item = JournalEntry>) -> Vec<Undo> {
    let mut open: BTreeMap<UndoId, (usize, Undo)> = BTreeMap::new();
    for (position, entry) in entries.into_iter().enumerate() {
        match entry {
            JournalEntry::Undo(undo) => {
                open.insert(undo.id.clone(), (position, undo));
            }
            JournalEntry::Undone { id } => {
                open.remove(&id);
            }
        }
    }
    let mut left: Vec<_> = open.into_values().collect();
    left.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    left.into_iter().map(|(_, undo)| undo).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(id: &str) -> Undo {
        Undo {
            id: UndoId(id.into()),
            run: RunId("r".into()),
            agent: "a".into(),
            boot: BootId("b".into()),
            entries: vec![UndoEntry::DisarmCrash { step: "pay".into() }],
        }
    }

    #[test]
    fn only_unsettled_undos_are_open_newest_first() {
        let journal = [
            JournalEntry::Undo(undo("1")),
            JournalEntry::Undo(undo("2")),
            JournalEntry::Undone { id: UndoId("1".into()) },
            JournalEntry::Undo(undo("0")),
        ];
        let open: Vec<_> = open_undos(journal).into_iter().map(|u| u.id.0).collect();
        assert_eq!(open, ["0", "2"]);
    }

    #[test]
    fn journal_entries_read_back_as_written() {
        for entry in [JournalEntry::Undo(undo("1")), JournalEntry::Undone { id: UndoId("1".into()) }] {
            let text = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<JournalEntry>(&text).unwrap(), entry);
        }
    }
}
