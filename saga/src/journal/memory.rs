//! A journal in memory: for tests, benches and dry runs.
//!
//! It keeps exactly what it acknowledged and survives its driver, as a disk would: clones share one store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Entry, Journal, JournalError, Scope, Summary};

/// Each saga's summary and history, by id.
type Sagas = HashMap<String, (Summary, Vec<Entry>)>;

/// Sagas in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal {
    sagas: Arc<Mutex<Sagas>>,
}

impl MemoryJournal {
    fn sagas(&self) -> MutexGuard<'_, Sagas> {
        self.sagas.lock().expect("nobody panics while holding this lock")
    }
}

impl Journal for MemoryJournal {
    async fn append(&self, summary: Summary, after: u64, events: Vec<String>) -> Result<(), JournalError> {
        let mut sagas = self.sagas();
        let found = sagas.get(&summary.id).map_or(0, |(_, entries)| entries.len() as u64);
        if found != after {
            return Err(JournalError::Conflict { saga: summary.id, expected: after, found });
        }
        let (kept, entries) = sagas.entry(summary.id.clone()).or_insert_with(|| (summary.clone(), Vec::new()));
        *kept = summary;
        entries.extend(events.into_iter().zip(after + 1..).map(|(event, seq)| Entry { seq, event }));
        Ok(())
    }

    async fn load(&self, saga: &str) -> Result<Vec<Entry>, JournalError> {
        Ok(self.sagas().get(saga).map(|(_, entries)| entries.clone()).unwrap_or_default())
    }

    async fn list(&self, scope: Scope) -> Result<Vec<Summary>, JournalError> {
        let sagas = self.sagas();
        let wanted = sagas.values().filter(|(summary, _)| scope == Scope::All || !summary.finished);
        let mut list: Vec<Summary> = wanted.map(|(summary, _)| summary.clone()).collect();
        list.sort_by(|a, b| b.updated_ms.cmp(&a.updated_ms).then_with(|| a.id.cmp(&b.id)));
        Ok(list)
    }
}
