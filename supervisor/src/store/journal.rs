//! The saga journal on the state store.

use agt_saga::journal::{Entry, Journal, JournalError, Scope, Summary};

use super::request::Commit;
use super::{Store, StoreError};

/// [`Journal`] on a [`Store`]: an append is one commit, and shares its sync with whatever else is waiting.
#[derive(Debug, Clone)]
pub struct SqliteJournal {
    store: Store,
}

impl SqliteJournal {
    /// A journal in this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store that it is in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { saga, expected, found } => Self::Conflict { saga, expected, found },
            other => Self::Store(Box::new(other)),
        }
    }
}

impl Journal for SqliteJournal {
    async fn append(&self, summary: Summary, after: u64, events: Vec<String>) -> Result<(), JournalError> {
        self.store.commit(Commit::new().saga(summary, after, events)).await?;
        Ok(())
    }

    async fn load(&self, saga: &str) -> Result<Vec<Entry>, JournalError> {
        let saga = saga.to_owned();
        Ok(self.store.read(move |reader| reader.saga_events(&saga)).await?)
    }

    async fn list(&self, scope: Scope) -> Result<Vec<Summary>, JournalError> {
        Ok(self.store.read(move |reader| reader.sagas(scope)).await?)
    }
}
