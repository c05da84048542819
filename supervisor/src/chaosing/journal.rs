//! Undos and reports in the state store, and what a start does with undos that a crash left.
//!
//! The undo and the audit record of the injection are one commit: there is no fault without a record, and none without a way
//! back.

use std::sync::{Mutex, PoisonError};

use agt_chaos::error::JournalError;
use agt_chaos::fault::FaultKind;
use agt_chaos::journal::Journal;
use agt_chaos::replay;
use agt_chaos::report::{Report, Verdict};
use agt_chaos::undo::{JournalEntry, Outcome as Undone, RunId, UndoEntry, UndoId, open_undos};

use super::cut_off::{self, Left, Open};
use super::{END, REPORT, REPORTS_MAX};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::driver::records::wall_ms;
use crate::store::{Commit, Store, StoreError};

const INJECT: Action = Action::new("chaos.inject");
const UNDO: Action = Action::new("chaos.undo");

/// The journal of one run.
#[derive(Debug)]
pub(super) struct StoreJournal {
    store: Store,
    fault: FaultKind,
    open: Mutex<Open>,
}

impl StoreJournal {
    pub(super) fn new(store: Store, fault: FaultKind, open: Open) -> StoreJournal {
        StoreJournal { store, fault, open: Mutex::new(open) }
    }

    /// The note of the run, with one injection more.
    fn injected(&self) -> Open {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = open.clone().injected();
        open.clone()
    }
}

impl Journal for StoreJournal {
    async fn record(&self, entry: &JournalEntry) -> Result<(), JournalError> {
        let now = wall_ms();
        let commit = match entry {
            JournalEntry::Undo(undo) => {
                let record = Record::new(now, Actor::Supervisor, INJECT, Outcome::Allowed)
                    .agent(undo.agent.as_str())
                    .detail("run", undo.run.0.as_str())
                    .detail("undo", undo.id.0.as_str())
                    .detail("fault", self.fault.name());
                let value = serde_json::to_value(entry).map_err(|e| JournalError(Box::new(e)))?;
                self.injected().noted(Commit::new().audit(record).add_undo(&undo.id.0, value, now))
            }
            JournalEntry::Undone { id } => {
                let record = Record::new(now, Actor::Supervisor, UNDO, Outcome::Done).detail("undo", id.0.as_str());
                Commit::new().audit(record).undo_done(&id.0)
            }
        };
        self.store.commit(commit).await.map(drop).map_err(|e| JournalError(Box::new(e)))
    }
}

/// Puts right what an earlier supervisor's experiments left, and ends them. Comes before any agent starts.
///
/// # Errors
/// Those of the store. An undo that can't be performed stays for the next start and is said.
pub async fn recover(store: &Store) -> Result<(), StoreError> {
    let left = replay_open(store).await?;
    cut_off::end_all(store, &left).await
}

/// Replays the undos that are open; which runs have something left.
async fn replay_open(store: &Store) -> Result<Left, StoreError> {
    let mut entries = Vec::new();
    for pending in store.pending_undos().await? {
        match serde_json::from_value::<JournalEntry>(pending.undo) {
            Ok(entry) => entries.push(entry),
            Err(e) => eprintln!("error: the journaled undo {} can't be read and is left as it is: {e}", pending.id),
        }
    }
    let open = open_undos(entries);
    let mut left = Left::new();
    if open.is_empty() {
        return Ok(left);
    }
    let runs: Vec<_> = open.iter().map(|undo| (undo.run.clone(), undo.id.clone())).collect();
    let replayed = match tokio::task::spawn_blocking(move || replay::replay(open)).await {
        Ok(Ok(replayed)) => replayed,
        Ok(Err(e)) => return Ok(none_undone(runs, &e)),
        Err(e) => return Ok(none_undone(runs, &e)),
    };
    for one in replayed {
        let kept: Vec<String> = one.left().filter(|(entry, outcome)| !gone_with_us(entry, outcome)).map(said).collect();
        if !kept.is_empty() {
            let why = kept.join("; ");
            eprintln!("error: the fault {} is not undone: {why}", one.undo.id);
            left.entry(one.undo.run).or_insert((one.undo.id, why));
            continue;
        }
        let record = Record::new(wall_ms(), Actor::Supervisor, UNDO, Outcome::Done)
            .agent(one.undo.agent.as_str())
            .reason("replayed at the start")
            .detail("undo", one.undo.id.0.as_str());
        store.commit(Commit::new().audit(record).undo_done(&one.undo.id.0)).await?;
    }
    Ok(left)
}

fn none_undone(runs: Vec<(RunId, UndoId)>, error: &dyn std::error::Error) -> Left {
    eprintln!("error: the faults of earlier experiments can't be undone: {error}");
    runs.into_iter().map(|(run, undo)| (run, (undo, error.to_string()))).collect()
}

/// What isn't kept by the kernel lives in a supervisor's memory, and died with it.
fn gone_with_us(entry: &UndoEntry, outcome: &Undone) -> bool {
    !entry.is_kernel_level() && *outcome == Undone::LeftToSupervisor
}

fn said((entry, outcome): (&UndoEntry, &Undone)) -> String {
    format!("{entry:?}: {outcome:?}")
}

/// Records the end of a run and keeps its report, and of all reports the newest. All of it or nothing: a run whose end was not
/// stored is ended by the next start.
pub(super) async fn keep(store: &Store, report: &Report) -> Result<(), StoreError> {
    let outcome = if report.verdict == Verdict::Refused { Outcome::Denied } else { Outcome::Noted };
    let record = Record::new(wall_ms(), Actor::Supervisor, END, outcome)
        .agent(report.agent.as_str())
        .reason(report.verdict.to_string())
        .detail("run", report.run.0.as_str());
    let value = serde_json::to_value(report).unwrap_or_default();
    let mut kept = store.list_states(REPORT).await?;
    kept.sort_by_key(|state| std::cmp::Reverse(state.updated_ms));
    let mut commit = Commit::new().audit(record).put_state(&key(&report.run), REPORT, value, wall_ms());
    for old in kept.iter().skip(REPORTS_MAX - 1) {
        commit = commit.delete_state(&old.agent, REPORT);
    }
    store.commit(cut_off::closed(commit, &report.run)).await.map(drop)
}

/// No agent's name has a colon, so that no report meets an agent's state.
pub(super) fn key(run: &RunId) -> String {
    format!("chaos:{run}")
}
