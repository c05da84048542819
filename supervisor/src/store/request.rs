//! What callers hand to the writer: everything in one [`Commit`] becomes durable together or not at all.

use agt_saga::journal::Summary;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::audit::{Hash, Record};

use super::StoreError;
use super::connection::PAGE_BYTES;

/// Largest request, in bytes of its texts.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of requests that may wait for the writer; callers beyond it wait for room.
pub const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of notes that may wait for the writer or for a disk that is full; notes beyond it are counted and lost.
pub const NOTE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests that share one transaction.
pub const BATCH_MAX: usize = 1024;

/// The queue is measured in units of this many bytes; a request has at least one.
pub(super) const UNIT_BYTES: usize = 1024;

/// Changes that belong together.
///
/// ```
/// use agt_supervise::store::Commit;
/// let commit = Commit::new().put_state("researcher", "trust", serde_json::json!({"score": 700}), 1_700_000_000_000);
/// assert!(!commit.is_empty());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub(super) records: Vec<Record>,
    pub(super) states: Vec<StateChange>,
    pub(super) sagas: Vec<SagaAppend>,
    pub(super) undos: Vec<UndoChange>,
}

#[derive(Debug, Clone)]
pub(super) enum StateChange {
    Put { agent: String, kind: String, value: String, updated_ms: i64 },
    Delete { agent: String, kind: String },
    Forget { agent: String },
}

#[derive(Debug, Clone)]
pub(super) struct SagaAppend {
    pub(super) summary: Summary,
    pub(super) after: u64,
    pub(super) events: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum UndoChange {
    Insert { id: String, undo: String, created_ms: i64 },
    Delete { id: String },
}

impl Commit {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an audit record; its [`Receipt`] comes at the same index of the answer.
    #[must_use]
    pub fn audit(mut self, record: Record) -> Self {
        self.records.push(record);
        self
    }

    /// Sets an agent's state of one kind. `agent` is its identity key.
    #[must_use]
    pub fn put_state(mut self, agent: &str, kind: &str, value: Value, updated_ms: i64) -> Self {
        let (agent, kind, value) = (agent.to_owned(), kind.to_owned(), value.to_string());
        self.states.push(StateChange::Put { agent, kind, value, updated_ms });
        self
    }

    /// Removes an agent's state of one kind; no error if there is none.
    #[must_use]
    pub fn delete_state(mut self, agent: &str, kind: &str) -> Self {
        self.states.push(StateChange::Delete { agent: agent.to_owned(), kind: kind.to_owned() });
        self
    }

    /// Removes all state of an agent. Its audit records stay, as all do.
    #[must_use]
    pub fn forget_agent(mut self, agent: &str) -> Self {
        self.states.push(StateChange::Forget { agent: agent.to_owned() });
        self
    }

    /// Appends saga events after event `after` (0 for a new saga) together with the summary.
    #[must_use]
    pub fn saga(mut self, summary: Summary, after: u64, events: Vec<String>) -> Self {
        self.sagas.push(SagaAppend { summary, after, events });
        self
    }

    /// Journals how a fault is undone, before it is injected.
    #[must_use]
    pub fn add_undo(mut self, id: &str, undo: Value, created_ms: i64) -> Self {
        self.undos.push(UndoChange::Insert { id: id.to_owned(), undo: undo.to_string(), created_ms });
        self
    }

    /// The fault is undone: its journaled undo is not needed any more.
    #[must_use]
    pub fn undo_done(mut self, id: &str) -> Self {
        self.undos.push(UndoChange::Delete { id: id.to_owned() });
        self
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.states.is_empty() && self.sagas.is_empty() && self.undos.is_empty()
    }

    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        let records = self.records.iter().map(|record| record.encode(0).len());
        let states = self.states.iter().map(|state| match state {
            StateChange::Put { agent, kind, value, .. } => agent.len() + kind.len() + value.len(),
            StateChange::Delete { agent, kind } => agent.len() + kind.len(),
            StateChange::Forget { agent } => agent.len(),
        });
        let sagas = self.sagas.iter().map(|saga| {
            let summary = &saga.summary;
            let texts = summary.id.len() + summary.name.len() + summary.state.len();
            texts + saga.events.iter().map(String::len).sum::<usize>()
        });
        let undos = self.undos.iter().map(|undo| match undo {
            UndoChange::Insert { id, undo, .. } => id.len() + undo.len(),
            UndoChange::Delete { id } => id.len(),
        });
        records.chain(states).chain(sagas).chain(undos).sum()
    }

    /// Pages that storing it may touch, roughly: for the writer's estimate of the log.
    pub(super) fn pages(&self) -> u64 {
        let rows = 2 * (self.records.len() + self.states.len() + self.undos.len())
            + self.sagas.iter().map(|saga| 3 + saga.events.len()).sum::<usize>();
        rows as u64 + self.bytes() as u64 / PAGE_BYTES
    }
}

/// Proof that an audit record is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its number.
    pub seq: u64,
    /// Its hash in the chain.
    pub hash: Hash,
}

pub(super) type Answer = Result<Vec<Receipt>, StoreError>;

/// One request on its way through the writer. Without `ack` it is a note: it took power, and must not be lost.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) commit: Commit,
    pub(super) ack: Option<oneshot::Sender<Answer>>,
    /// Its share of the queue, given back when the work is done or dropped.
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) enum Request {
    Work(Work),
    Close(oneshot::Sender<Result<(), StoreError>>),
    #[cfg(test)]
    Test(Box<dyn FnOnce(&rusqlite::Connection) + Send>),
}
