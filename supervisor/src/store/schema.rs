//! Tables and their migrations, by SQLite's `user_version`.
//!
//! Each step brings the format up by one, in a transaction of its own together with the new number, so that a crash leaves a whole
//! old or a whole new format. Steps are never changed once released; a newer format than is known here is refused.
//!
//! All tables are STRICT: what was written as text can't come back as a number. Only canonical text and its hash are stored of an
//! audit record; the columns to search by are a view, computed from the text, so that there is nothing beside the chain to change.
//! Saga events lie in the order of their writing and each knows the one before it, the summary the last: appends of any number of
//! sagas fill the same few pages at the table's end, where an index by saga would touch a page for each (measured: 1.9 times the
//! steps per second with 64 sagas). Reading a saga follows the links, newest to oldest.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// SQLite's `application_id` of our files: "AGTs".
pub const APPLICATION_ID: i64 = 0x4147_5473;

const STEPS: &[&str] = &["
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        record TEXT NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE VIEW audit_columns AS SELECT
        seq,
        record ->> '$.time_ms' AS time_ms,
        record ->> '$.actor' AS actor,
        record ->> '$.agent' AS agent,
        record ->> '$.action' AS action,
        record ->> '$.outcome' AS outcome,
        record ->> '$.reason' AS reason,
        record -> '$.details' AS details
    FROM audit;
    CREATE TABLE audit_heads (seq INTEGER PRIMARY KEY, head TEXT NOT NULL) STRICT;
    CREATE TABLE saga_summary (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        finished INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        last_event INTEGER
    ) STRICT;
    CREATE INDEX saga_unfinished ON saga_summary (key) WHERE finished = 0;
    CREATE TABLE saga_events (
        id INTEGER PRIMARY KEY,
        saga INTEGER NOT NULL REFERENCES saga_summary (key),
        seq INTEGER NOT NULL,
        event TEXT NOT NULL,
        previous INTEGER REFERENCES saga_events (id)
    ) STRICT;
    CREATE TABLE agent_state (
        agent TEXT NOT NULL,
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        updated_ms INTEGER NOT NULL,
        PRIMARY KEY (agent, kind)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE chaos_undo (id TEXT PRIMARY KEY, undo TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"];

/// The newest format.
pub const VERSION: i64 = STEPS.len() as i64;

/// Refuses what isn't ours or is newer than we are. Empty databases are format 0.
pub(crate) fn check_version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let sqlite = |error| StoreError::of_sqlite(path, error);
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (version, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)).map_err(sqlite)?;
    if application != APPLICATION_ID && (version != 0 || tables != 0) {
        return Err(StoreError::NotADatabase { path: path.to_owned() });
    }
    if version > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found: version, known: VERSION });
    }
    Ok(version)
}

/// Brings the database to [`VERSION`].
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::of_sqlite(path, error);
    let version = check_version(connection, path)?;
    for (number, step) in (1_i64..).zip(STEPS).filter(|(number, _)| *number > version) {
        let step_up = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        step_up.execute_batch(step).map_err(sqlite)?;
        step_up.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
        step_up.pragma_update(None, "user_version", number).map_err(sqlite)?;
        step_up.commit().map_err(sqlite)?;
    }
    Ok(())
}
