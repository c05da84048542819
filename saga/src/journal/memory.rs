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
        let numbered =
            |events: Vec<String>| events.into_iter().zip(after + 1..).map(|(event, seq)| Entry { seq, event });
        let mut sagas = self.sagas();
        match sagas.get_mut(&summary.id) {
            Some((_, entries)) if entries.len() as u64 != after => {
                let found = entries.len() as u64;
                return Err(JournalError::Conflict { saga: summary.id, expected: after, found });
            }
            Some((kept, entries)) => {
                *kept = summary;
                entries.extend(numbered(events));
            }
            None if after != 0 => {
                return Err(JournalError::Conflict { saga: summary.id, expected: after, found: 0 });
            }
            None => {
                let entries = numbered(events).collect();
                sagas.insert(summary.id.clone(), (summary, entries));
            }
        }
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
