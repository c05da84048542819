//! Where undos are kept until they are settled. Whoever runs experiments brings the store; this crate knows no SQL.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use crate::error::JournalError;
use crate::undo::JournalEntry;

/// A durable, append-only record.
pub trait Journal: Send + Sync {
    /// Returns when the entry is on disk (synced), never before.
    fn record(&self, entry: &JournalEntry) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// A journal that forgets everything with the process: for tests and rehearsals.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    entries: Mutex<Vec<JournalEntry>>,
}

impl MemoryJournal {
    /// What was recorded, in order.
    pub fn entries(&self) -> Vec<JournalEntry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Journal for MemoryJournal {
    async fn record(&self, entry: &JournalEntry) -> Result<(), JournalError> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        Ok(())
    }
}
