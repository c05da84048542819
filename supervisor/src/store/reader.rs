//! Reading: read-only connections beside the writer, and alone over a store that nobody runs.
//!
//! A reader sees every commit that was answered before it began, and is never in the writer's way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agt_saga::journal::{Entry, Scope, Summary};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::audit::chain::{Hash, StoreId};
use crate::audit::record::Record;

use super::audit_log::read_store_id;
use super::{DATABASE_FILE, StoreError, connection};

/// Reading connections at the same time; further readers wait.
const READERS_MAX: usize = 4;
/// Most audit rows of one page.
pub(super) const PAGE_MAX: u32 = 1000;

/// One agent's state of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentState {
    /// The agent's identity key.
    pub agent: String,
    /// What it is: the part of the program that wrote it.
    pub kind: String,
    /// The state.
    pub value: Value,
    /// When it was written, in milliseconds since the epoch.
    pub updated_ms: i64,
}

/// One audit record as stored. Its place in the chain is for verification to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number.
    pub seq: u64,
    /// The record.
    pub record: Record,
    /// Its hash.
    pub hash: Hash,
}

/// A fault's journaled undo.
#[derive(Debug, Clone, PartialEq)]
pub struct Undo {
    /// Its id.
    pub id: String,
    /// How to undo it.
    pub undo: Value,
    /// When it was journaled, in milliseconds since the epoch.
    pub created_ms: i64,
}

/// A reading connection.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens a state directory's store for reading, running or not.
    ///
    /// # Errors
    /// Those of [`StoreError`] that concern opening.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(DATABASE_FILE);
        Ok(Self { connection: connection::open_reading(&path)?, path })
    }

    fn sqlite(&self) -> impl Fn(rusqlite::Error) -> StoreError {
        |error| StoreError::of_sqlite(&self.path, error)
    }

    fn bad(&self, what: String) -> StoreError {
        StoreError::BadValue { path: self.path.clone(), what }
    }

    fn json(&self, text: &str, what: impl Fn() -> String) -> Result<Value, StoreError> {
        serde_json::from_str(text).map_err(|_| self.bad(what()))
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut select = self.connection.prepare_cached(sql).map_err(self.sqlite())?;
        let rows = select.query_map(params, map).map_err(self.sqlite())?;
        rows.collect::<rusqlite::Result<_>>().map_err(self.sqlite())
    }

    /// The store's identity.
    ///
    /// # Errors
    /// [`StoreError::BadValue`] when it is missing, and those of reading.
    pub fn store_id(&self) -> Result<StoreId, StoreError> {
        read_store_id(&self.connection, &self.path)?.ok_or_else(|| self.bad("store id".to_owned()))
    }

    /// One agent's state of one kind.
    ///
    /// # Errors
    /// Those of reading.
    pub fn state(&self, agent: &str, kind: &str) -> Result<Option<AgentState>, StoreError> {
        let sql = "SELECT value, updated_ms FROM agent_state WHERE agent = ?1 AND kind = ?2";
        let found: Option<(String, i64)> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut select| select.query_row([agent, kind], |row| Ok((row.get(0)?, row.get(1)?))).optional())
            .map_err(self.sqlite())?;
        let Some((text, updated_ms)) = found else {
            return Ok(None);
        };
        let value = self.json(&text, || format!("state `{kind}` of agent {agent}"))?;
        Ok(Some(AgentState { agent: agent.to_owned(), kind: kind.to_owned(), value, updated_ms }))
    }

    /// All agents' state of one kind, by agent.
    ///
    /// # Errors
    /// Those of reading.
    pub fn states(&self, kind: &str) -> Result<Vec<AgentState>, StoreError> {
        let sql = "SELECT agent, value, updated_ms FROM agent_state WHERE kind = ?1 ORDER BY agent";
        let rows = self.all(sql, [kind], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
        let state = |(agent, text, updated_ms): (String, String, i64)| {
            let value = self.json(&text, || format!("state `{kind}` of agent {agent}"))?;
            Ok(AgentState { agent, kind: kind.to_owned(), value, updated_ms })
        };
        rows.into_iter().map(state).collect()
    }

    /// Audit records behind number `after`, oldest first, at most `limit` and 1000.
    ///
    /// # Errors
    /// Those of reading; [`StoreError::BadValue`] for a record that isn't one.
    pub fn audit_page(&self, after: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let sql = "SELECT seq, record, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?));
        let rows = self.all(sql, params![after, limit.min(PAGE_MAX)], row)?;
        let decode = |(seq, text, hash): (i64, String, Vec<u8>)| {
            let bad = || self.bad(format!("audit record {seq}"));
            let (_, record) = Record::decode(&text).map_err(|_| bad())?;
            Ok(AuditRow { seq: seq.unsigned_abs(), record, hash: Hash::from_bytes(&hash).ok_or_else(bad)? })
        };
        rows.into_iter().map(decode).collect()
    }

    /// The number of the last audit record, 0 before the first.
    ///
    /// # Errors
    /// Those of reading.
    pub fn audit_last(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(seq), 0) FROM audit";
        let last: i64 = self.connection.query_row(sql, (), |row| row.get(0)).map_err(self.sqlite())?;
        Ok(last.unsigned_abs())
    }

    /// Undos of faults that were injected and, as far as the store knows, are still there; oldest first.
    ///
    /// # Errors
    /// Those of reading.
    pub fn undos(&self) -> Result<Vec<Undo>, StoreError> {
        let sql = "SELECT id, undo, created_ms FROM chaos_undo ORDER BY created_ms, id";
        let rows = self.all(sql, (), |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
        let undo = |(id, text, created_ms): (String, String, i64)| {
            let undo = self.json(&text, || format!("undo {id}"))?;
            Ok(Undo { id, undo, created_ms })
        };
        rows.into_iter().map(undo).collect()
    }

    /// A saga's events in order; empty when unknown.
    ///
    /// # Errors
    /// Those of reading; [`StoreError::BadValue`] for a history with a hole.
    pub fn saga_events(&self, saga: &str) -> Result<Vec<Entry>, StoreError> {
        let sql = "
            WITH RECURSIVE back (id, saga, seq, event, previous) AS (
                SELECT e.id, e.saga, e.seq, e.event, e.previous
                FROM saga_summary s JOIN saga_events e ON e.id = s.last_event
                WHERE s.id = ?1 AND e.seq = s.last_seq AND e.saga = s.key
                UNION ALL
                SELECT e.id, e.saga, e.seq, e.event, e.previous
                FROM back b JOIN saga_events e ON e.id = b.previous
                WHERE e.seq = b.seq - 1 AND e.saga = b.saga
            )
            SELECT s.last_seq, b.seq, b.event FROM saga_summary s LEFT JOIN back b WHERE s.id = ?1 ORDER BY b.seq";
        let rows = self.all(sql, [saga], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let last = rows.first().map_or(0, |(last, ..): &(i64, Option<i64>, Option<String>)| *last);
        let entries = rows.into_iter().filter_map(|(_, seq, event)| {
            let (seq, event) = (seq?.unsigned_abs(), event?);
            Some(Entry { seq, event })
        });
        let entries: Vec<Entry> = entries.collect();
        // A link that leads nowhere must not pass for a shorter history.
        if entries.len() as u64 != last.unsigned_abs() {
            return Err(self.bad(format!("history of saga {saga}")));
        }
        Ok(entries)
    }

    /// Summaries, newest change first.
    ///
    /// # Errors
    /// Those of reading.
    pub fn sagas(&self, scope: Scope) -> Result<Vec<Summary>, StoreError> {
        let sql = match scope {
            Scope::All => {
                "SELECT id, name, state, finished, updated_ms FROM saga_summary ORDER BY updated_ms DESC, key DESC"
            }
            Scope::Unfinished => {
                "SELECT id, name, state, finished, updated_ms FROM saga_summary INDEXED BY saga_unfinished
                 WHERE finished = 0 ORDER BY updated_ms DESC, key DESC"
            }
        };
        self.all(sql, (), |row| {
            Ok(Summary {
                id: row.get(0)?,
                name: row.get(1)?,
                state: row.get(2)?,
                finished: row.get(3)?,
                updated_ms: row.get(4)?,
            })
        })
    }
}

/// Readers that are kept open between uses.
#[derive(Debug)]
pub(super) struct Readers {
    dir: PathBuf,
    idle: Mutex<Vec<Reader>>,
    slots: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(dir: &Path) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(READERS_MAX));
        Arc::new(Self { dir: dir.to_owned(), idle: Mutex::default(), slots })
    }

    /// Runs `read` on a thread that may block. After [`Self::close`]: [`StoreError::Closed`].
    pub(super) async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let kept = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = kept.map_or_else(|| Reader::open(&readers.dir), Ok)?;
            let result = read(&reader);
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if !readers.slots.is_closed() {
                idle.push(reader);
            }
            drop(slot);
            result
        });
        // A read can only be cut off by the end of the runtime, which closes the store as well.
        task.await.map_err(|_| StoreError::Closed)?
    }

    /// No new reads; connections are closed as they become idle.
    pub(super) fn close(&self) {
        self.slots.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
