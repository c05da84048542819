//! Connections: the settings that durability and safety rest on, set and read back.
//!
//! `journal_mode=WAL` and `synchronous=FULL` together mean that a commit has returned from a sync of the log. SQLite answers a
//! setting that it can't have with the one it keeps, not with an error; so both are read back. Never open and close the database
//! file beside SQLite in this process: closing any descriptor of it drops SQLite's own POSIX locks.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, directory, schema};

/// The database's file name in the state directory.
pub const DATABASE_FILE: &str = "state.db";
/// A commit writes whole pages. Ours touch few and change little in each, and each 4 KiB more costs a sync a tenth of its time;
/// smaller ones than this would push an ordinary record out of its page.
pub(super) const PAGE_BYTES: u64 = 2048;
/// How long a statement waits for a foreign process that holds SQLite's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Statements kept prepared.
const STATEMENTS: usize = 64;

/// Opens or creates the database for the one writer.
pub(super) fn open_writing(path: &Path) -> Result<Connection, StoreError> {
    directory::create_private(path)?;
    let sqlite = |error| StoreError::of_sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = open(path, flags)?;
    // Takes effect in a new database only.
    connection.pragma_update(None, "page_size", PAGE_BYTES as i64).map_err(sqlite)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        return Err(not_durable(path, "journal_mode", "wal", mode));
    }
    connection.pragma_update(None, "synchronous", "full").map_err(sqlite)?;
    let level: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(sqlite)?;
    if level != 2 {
        return Err(not_durable(path, "synchronous", "2", level.to_string()));
    }
    // The writer does it itself, after its callers have their answer.
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(sqlite)?;
    schema::migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens an existing database for reading; it is never changed through this connection.
pub(crate) fn open_reading(path: &Path) -> Result<Connection, StoreError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "query_only", true).map_err(|error| StoreError::of_sqlite(path, error))?;
    if schema::check_version(&connection, path)? == 0 {
        return Err(StoreError::NotADatabase { path: path.to_owned() });
    }
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let sqlite = |error| StoreError::of_sqlite(path, error);
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // A database is data: nothing in its schema may call functions with effects, and damaged pages are noticed early.
    connection.pragma_update(None, "trusted_schema", false).map_err(sqlite)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(sqlite)?;
    Ok(connection)
}

fn not_durable(path: &Path, pragma: &'static str, wanted: &'static str, found: String) -> StoreError {
    StoreError::NotDurable { path: path.to_owned(), pragma, wanted, found }
}
