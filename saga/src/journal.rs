//! Where a saga's events are kept. The engine knows this trait and nothing of SQL.
//!
//! Events are the truth; the summary row is written in the same transaction, so that lists need no replay.

use std::future::Future;

use serde::{Deserialize, Serialize};

pub use memory::MemoryJournal;

mod memory;

/// What a list of sagas shows; written together with the events that changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The saga's id, unique for ever (a UUID or the like in text).
    pub id: String,
    /// The name in its file.
    pub name: String,
    /// The state's name: `running`, `compensating`, `completed`, `stuck`, ...
    pub state: String,
    /// Whether nothing more will happen by itself: end states and `stuck` are `true` only for end states.
    pub finished: bool,
    /// Milliseconds since the epoch of the last change.
    pub updated_ms: i64,
}

/// One stored event: `seq` counts from 1 without gaps in each saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the saga's history, from 1.
    pub seq: u64,
    /// The event as JSON text, as `record` wrote it.
    pub event: String,
}

/// Why a journal call failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another writer appended first: this engine's picture is stale.
    #[error("saga {saga}: expected to append after event {expected}, the journal is at {found}")]
    Conflict {
        /// The saga's id.
        saga: String,
        /// The last sequence number the caller knew.
        expected: u64,
        /// The last one stored.
        found: u64,
    },
    /// The store could not make it durable (disk full, read-only, corrupt): nothing may be assumed written.
    #[error("the journal could not be written or read")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An append-only, durable journal.
pub trait Journal: Send + Sync + 'static {
    /// Appends `events` after event `after` (0 for a new saga) in one transaction with `summary`. Returns when all of it
    /// is on disk (synced), never before.
    fn append(
        &self,
        summary: Summary,
        after: u64,
        events: Vec<String>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// All events of a saga, in order; empty when unknown.
    fn load(&self, saga: &str) -> impl Future<Output = Result<Vec<Entry>, JournalError>> + Send;

    /// Summaries, newest change first; only unfinished ones on request.
    fn list(&self, scope: Scope) -> impl Future<Output = Result<Vec<Summary>, JournalError>> + Send;
}

/// Which sagas a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every saga ever journaled.
    All,
    /// Those that recovery must look at.
    Unfinished,
}
