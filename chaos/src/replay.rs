//! Performs undos: by the supervisor, by the guardian, and at the next start for those that the journal holds open.
//!
//! One function for all three, so that what a guardian does is what every test of the ordinary way has tried.

#![expect(clippy::disallowed_methods, reason = "a cgroup may be busy for a moment: it waits between its rounds")]

use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{KernelError, chain};
use crate::kernel::{self, CgroupFile};
use crate::undo::{BootId, Outcome, Undo, UndoEntry};

/// How often a failing entry is tried.
pub const ROUNDS: u32 = 5;
/// Before the second round; doubled before each further one.
pub const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How often a process group is gone through before it must be quiet: forks inherit the lowered limit meanwhile.
pub const GROUP_PASSES: u32 = 8;

/// What replaying one undo came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Replayed {
    /// The undo. Where [`Outcome::LeftToSupervisor`] stands, the caller does that entry itself.
    pub undo: Undo,
    /// What happened to each entry, in order.
    pub outcomes: Vec<Outcome>,
}

impl Replayed {
    /// Whether nothing of the fault is left.
    pub fn is_settled(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_settled)
    }

    /// The entries that are left, with their outcome.
    pub fn left(&self) -> impl Iterator<Item = (&UndoEntry, &Outcome)> {
        self.undo.entries.iter().zip(&self.outcomes).filter(|(_, outcome)| !outcome.is_settled())
    }
}

/// Replays the open undos of a journal, newest first as [`crate::undo::open_undos`] gives them. Blocks: at most 150 ms for
/// each undo that can't be done.
pub fn replay(undos: Vec<Undo>) -> Result<Vec<Replayed>, KernelError> {
    let boot = kernel::boot_id()?;
    Ok(undos.into_iter().map(|undo| Replayed { outcomes: apply(&undo, &boot), undo }).collect())
}

/// Performs one undo: every entry in order, those that failed again, [`ROUNDS`] times at most.
///
/// Entries that aren't kernel-level come back as [`Outcome::LeftToSupervisor`].
pub fn apply(undo: &Undo, present_boot: &BootId) -> Vec<Outcome> {
    let once = |entry: &UndoEntry| {
        if !entry.is_kernel_level() {
            Outcome::LeftToSupervisor
        } else if undo.boot == *present_boot {
            perform(entry).unwrap_or_else(|error| Outcome::Failed { reason: chain(&error) })
        } else {
            Outcome::Gone
        }
    };
    let mut outcomes: Vec<Outcome> = undo.entries.iter().map(once).collect();
    let mut pause = FIRST_PAUSE;
    for _ in 1..ROUNDS {
        if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed { .. })) {
            break;
        }
        thread::sleep(pause);
        pause *= 2;
        for (entry, outcome) in undo.entries.iter().zip(&mut outcomes) {
            if matches!(outcome, Outcome::Failed { .. }) {
                *outcome = once(entry);
            }
        }
    }
    outcomes
}

fn perform(entry: &UndoEntry) -> Result<Outcome, KernelError> {
    match entry {
        UndoEntry::WriteFile { path, content, file } => {
            let Some(file) = CgroupFile::reopen(path, *file)? else { return Ok(Outcome::Gone) };
            write_checked(&file, content)
        }
        UndoEntry::Signal { process, signal } => {
            Ok(kernel::signal(*process, *signal)?.map_or(Outcome::Gone, |()| Outcome::Done))
        }
        UndoEntry::Prlimit { process, soft } => raise(*process, *soft),
        UndoEntry::PrlimitGroup { procs, file, soft } => {
            let Some(procs) = CgroupFile::reopen(procs, *file)? else { return Ok(Outcome::Gone) };
            raise_all(&procs, *soft)
        }
        UndoEntry::OomScores { procs, file, before } => {
            let Some(procs) = CgroupFile::reopen(procs, *file)? else { return Ok(Outcome::Gone) };
            Ok(match kernel::give_oom_scores_back(&procs, before)? {
                None => Outcome::Gone,
                Some(true) => Outcome::Done,
                Some(false) => Outcome::AlreadySo,
            })
        }
        UndoEntry::RestoreTrust { .. } | UndoEntry::DisarmCrash { .. } => Ok(Outcome::LeftToSupervisor),
    }
}

fn write_checked(file: &CgroupFile, content: &str) -> Result<Outcome, KernelError> {
    let content = content.trim_end();
    match file.read()? {
        None => return Ok(Outcome::Gone),
        Some(present) if present == content => return Ok(Outcome::AlreadySo),
        Some(_) => {}
    }
    if file.write(content)?.is_none() {
        return Ok(Outcome::Gone);
    }
    Ok(match file.read()? {
        None => Outcome::Gone,
        Some(present) if present == content => Outcome::Done,
        Some(present) => Outcome::Failed { reason: format!("`{content}` was written and `{present}` is read") },
    })
}

fn raise(process: crate::undo::ProcessId, soft: u64) -> Result<Outcome, KernelError> {
    let Some(present) = kernel::file_limits(process)? else { return Ok(Outcome::Gone) };
    // More than it had is the process's own doing; up to the hard limit is all that it could have.
    if present.soft >= soft.min(present.hard) {
        return Ok(Outcome::AlreadySo);
    }
    Ok(kernel::set_file_limit(process, soft)?.map_or(Outcome::Gone, |()| Outcome::Done))
}

fn raise_all(procs: &CgroupFile, soft: u64) -> Result<Outcome, KernelError> {
    let mut outcome = Outcome::AlreadySo;
    for _ in 0..GROUP_PASSES {
        let Some(content) = procs.read()? else { return Ok(Outcome::Gone) };
        let mut is_quiet = true;
        for process in kernel::members(&content)? {
            if raise(process, soft)? == Outcome::Done {
                is_quiet = false;
                outcome = Outcome::Done;
            }
        }
        if is_quiet {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Failed {
        reason: format!("after {GROUP_PASSES} passes there still are processes with a lowered limit"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::undo::{FileId, ProcessId, RunId, UndoId, UndoSignal};

    fn undo(boot: BootId, entries: Vec<UndoEntry>) -> Undo {
        Undo { id: UndoId("r/0".into()), run: RunId("r".into()), agent: "a".into(), boot, entries }
    }

    #[test]
    fn what_belongs_to_another_boot_is_gone() {
        let me = kernel::identify(std::process::id() as i32).unwrap().unwrap();
        let kill = UndoEntry::Signal { process: me, signal: UndoSignal::Kill };
        let done = replay(vec![undo(BootId("another".into()), vec![kill])]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::Gone]);
        assert!(done[0].is_settled());
    }

    #[test]
    fn a_recycled_pid_is_left_alone() {
        let me = kernel::identify(std::process::id() as i32).unwrap().unwrap();
        let before = ProcessId { start_time: me.start_time - 1, ..me };
        let entries = vec![
            UndoEntry::Signal { process: before, signal: UndoSignal::Kill },
            UndoEntry::Prlimit { process: before, soft: 1 },
        ];
        let done = replay(vec![undo(kernel::boot_id().unwrap(), entries)]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::Gone, Outcome::Gone]);
    }

    #[test]
    fn a_forged_entry_writes_nowhere_but_into_cgroups() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "mine").unwrap();
        let entry =
            UndoEntry::WriteFile { path: path.clone(), content: "forged".into(), file: FileId { device: 0, inode: 0 } };
        let done = replay(vec![undo(kernel::boot_id().unwrap(), vec![entry])]).unwrap();
        assert!(matches!(done[0].outcomes[..], [Outcome::Failed { .. }]));
        assert_eq!(done[0].left().count(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_limit_that_is_higher_already_is_not_lowered() {
        let me = kernel::identify(std::process::id() as i32).unwrap().unwrap();
        let before = kernel::file_limits(me).unwrap();
        let entry = UndoEntry::Prlimit { process: me, soft: 3 };
        let done = replay(vec![undo(kernel::boot_id().unwrap(), vec![entry])]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::AlreadySo]);
        assert_eq!(kernel::file_limits(me).unwrap(), before);
    }

    #[test]
    fn what_the_kernel_does_not_keep_is_left_to_the_supervisor() {
        let entries =
            vec![UndoEntry::RestoreTrust { replaced: 1, original: 2 }, UndoEntry::DisarmCrash { step: "pay".into() }];
        let done = replay(vec![undo(BootId("another".into()), entries)]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::LeftToSupervisor, Outcome::LeftToSupervisor]);
        assert!(!done[0].is_settled());
    }
}
