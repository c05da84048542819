//! A commit as SQL, inside the writer's transaction.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::audit::Record;
use crate::audit::chain::Tip;

use super::StoreError;
use super::request::{Commit, Receipt, SagaAppend, StateChange, UndoChange};

/// Applies everything in `commit`, moving the chain's end on; the receipts are those of its audit records.
pub(super) fn apply(
    connection: &Connection,
    path: &Path,
    tip: &mut Tip,
    commit: &Commit,
) -> Result<Vec<Receipt>, StoreError> {
    for saga in &commit.sagas {
        append_saga(connection, path, saga)?;
    }
    let sqlite = |error| StoreError::of_sqlite(path, error);
    for state in &commit.states {
        apply_state(connection, state).map_err(sqlite)?;
    }
    for undo in &commit.undos {
        apply_undo(connection, undo).map_err(sqlite)?;
    }
    commit.records.iter().map(|record| append_record(connection, tip, record).map_err(sqlite)).collect()
}

fn append_record(connection: &Connection, tip: &mut Tip, record: &Record) -> rusqlite::Result<Receipt> {
    let text = record.encode(tip.seq + 1);
    *tip = tip.next(text.as_bytes());
    connection.prepare_cached("INSERT INTO audit (seq, record, hash) VALUES (?1, ?2, ?3)")?.execute(params![
        tip.seq as i64,
        text,
        tip.hash.0
    ])?;
    Ok(Receipt { seq: tip.seq, hash: tip.hash })
}

/// A saga's row as far as appending needs it.
struct Known {
    key: i64,
    last_seq: i64,
    last_event: Option<i64>,
}

fn append_saga(connection: &Connection, path: &Path, append: &SagaAppend) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::of_sqlite(path, error);
    let known = find_saga(connection, &append.summary.id).map_err(sqlite)?;
    let found = known.as_ref().map_or(0, |known| known.last_seq as u64);
    if found != append.after {
        let (saga, expected) = (append.summary.id.clone(), append.after);
        return Err(StoreError::Conflict { saga, expected, found });
    }
    write_saga(connection, append, known).map_err(sqlite)
}

fn find_saga(connection: &Connection, id: &str) -> rusqlite::Result<Option<Known>> {
    connection
        .prepare_cached("SELECT key, last_seq, last_event FROM saga_summary WHERE id = ?1")?
        .query_row([id], |row| Ok(Known { key: row.get(0)?, last_seq: row.get(1)?, last_event: row.get(2)? }))
        .optional()
}

fn write_saga(connection: &Connection, append: &SagaAppend, known: Option<Known>) -> rusqlite::Result<()> {
    let SagaAppend { summary, after, events } = append;
    let (key, mut previous) = match known {
        Some(known) => (known.key, known.last_event),
        None => {
            connection
                .prepare_cached(
                    "INSERT INTO saga_summary (id, name, state, finished, updated_ms, last_seq)
                     VALUES (?1, ?2, ?3, ?4, ?5, 0)",
                )?
                .execute(params![summary.id, summary.name, summary.state, summary.finished, summary.updated_ms])?;
            (connection.last_insert_rowid(), None)
        }
    };
    let mut insert =
        connection.prepare_cached("INSERT INTO saga_events (saga, seq, event, previous) VALUES (?1, ?2, ?3, ?4)")?;
    for (seq, event) in (*after as i64 + 1..).zip(events) {
        insert.execute(params![key, seq, event, previous])?;
        previous = Some(connection.last_insert_rowid());
    }
    connection
        .prepare_cached(
            "UPDATE saga_summary SET name = ?2, state = ?3, finished = ?4, updated_ms = ?5, last_seq = ?6, last_event = ?7
             WHERE key = ?1",
        )?
        .execute(params![
            key,
            summary.name,
            summary.state,
            summary.finished,
            summary.updated_ms,
            (after + events.len() as u64) as i64,
            previous
        ])?;
    Ok(())
}

fn apply_state(connection: &Connection, change: &StateChange) -> rusqlite::Result<()> {
    match change {
        StateChange::Put { agent, kind, value, updated_ms } => connection
            .prepare_cached(
                "INSERT INTO agent_state (agent, kind, value, updated_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (agent, kind) DO UPDATE SET value = excluded.value, updated_ms = excluded.updated_ms",
            )?
            .execute(params![agent, kind, value, updated_ms])?,
        StateChange::Delete { agent, kind } => connection
            .prepare_cached("DELETE FROM agent_state WHERE agent = ?1 AND kind = ?2")?
            .execute(params![agent, kind])?,
        StateChange::Forget { agent } => {
            connection.prepare_cached("DELETE FROM agent_state WHERE agent = ?1")?.execute([agent])?
        }
    };
    Ok(())
}

fn apply_undo(connection: &Connection, change: &UndoChange) -> rusqlite::Result<()> {
    match change {
        UndoChange::Insert { id, undo, created_ms } => connection
            .prepare_cached("INSERT INTO chaos_undo (id, undo, created_ms) VALUES (?1, ?2, ?3)")?
            .execute(params![id, undo, created_ms])?,
        UndoChange::Delete { id } => {
            connection.prepare_cached("DELETE FROM chaos_undo WHERE id = ?1")?.execute([id])?
        }
    };
    Ok(())
}
