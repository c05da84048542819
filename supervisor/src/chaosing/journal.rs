//! Undos and reports in the state store, and what a start does with undos that a crash left.
//!
//! The undo and the audit record of the injection are one commit: there is no fault without a record, and none without a way
//! back.

use agt_chaos::error::JournalError;
use agt_chaos::fault::FaultKind;
use agt_chaos::journal::Journal;
use agt_chaos::replay;
use agt_chaos::report::Report;
use agt_chaos::undo::{JournalEntry, Outcome as Undone, UndoEntry, open_undos};

use super::{REPORT, REPORTS_MAX};
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
}

impl StoreJournal {
    pub(super) fn new(store: Store, fault: FaultKind) -> StoreJournal {
        StoreJournal { store, fault }
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
                Commit::new().audit(record).add_undo(&undo.id.0, value, now)
            }
            JournalEntry::Undone { id } => {
                let record = Record::new(now, Actor::Supervisor, UNDO, Outcome::Done).detail("undo", id.0.as_str());
                Commit::new().audit(record).undo_done(&id.0)
            }
        };
        self.store.commit(commit).await.map(drop).map_err(|e| JournalError(Box::new(e)))
    }
}

/// Puts right what an earlier supervisor's experiments left. Comes before any agent starts.
///
/// # Errors
/// Those of the store. An undo that can't be performed stays for the next start and is said.
pub async fn recover(store: &Store) -> Result<(), StoreError> {
    let mut entries = Vec::new();
    for pending in store.pending_undos().await? {
        match serde_json::from_value::<JournalEntry>(pending.undo) {
            Ok(entry) => entries.push(entry),
            Err(e) => eprintln!("error: the journaled undo {} can't be read and is left as it is: {e}", pending.id),
        }
    }
    let open = open_undos(entries);
    if open.is_empty() {
        return Ok(());
    }
    let replayed = match tokio::task::spawn_blocking(move || replay::replay(open)).await {
        Ok(Ok(replayed)) => replayed,
        Ok(Err(e)) => {
            eprintln!("error: the faults of earlier experiments can't be undone: {e}");
            return Ok(());
        }
        Err(e) => {
            eprintln!("error: the faults of earlier experiments can't be undone: {e}");
            return Ok(());
        }
    };
    for one in replayed {
        let left: Vec<String> = one.left().filter(|(entry, outcome)| !gone_with_us(entry, outcome)).map(said).collect();
        if !left.is_empty() {
            eprintln!("error: the fault {} is not undone: {}", one.undo.id, left.join("; "));
            continue;
        }
        let record = Record::new(wall_ms(), Actor::Supervisor, UNDO, Outcome::Done)
            .agent(one.undo.agent.as_str())
            .reason("replayed at the start")
            .detail("undo", one.undo.id.0.as_str());
        store.commit(Commit::new().audit(record).undo_done(&one.undo.id.0)).await?;
    }
    Ok(())
}

/// What isn't kept by the kernel lives in a supervisor's memory, and died with it.
fn gone_with_us(entry: &UndoEntry, outcome: &Undone) -> bool {
    !entry.is_kernel_level() && *outcome == Undone::LeftToSupervisor
}

fn said((entry, outcome): (&UndoEntry, &Undone)) -> String {
    format!("{entry:?}: {outcome:?}")
}

/// Keeps a report, and of all reports the newest.
pub(super) async fn keep(store: &Store, report: &Report) -> Result<(), StoreError> {
    let value = serde_json::to_value(report).unwrap_or_default();
    let mut kept = store.list_states(REPORT).await?;
    kept.sort_by_key(|state| std::cmp::Reverse(state.updated_ms));
    let mut commit = Commit::new().put_state(&key(report), REPORT, value, wall_ms());
    for old in kept.iter().skip(REPORTS_MAX - 1) {
        commit = commit.delete_state(&old.agent, REPORT);
    }
    store.commit(commit).await.map(drop)
}

/// No agent's name has a colon, so that no report meets an agent's state.
fn key(report: &Report) -> String {
    format!("chaos:{}", report.run)
}
