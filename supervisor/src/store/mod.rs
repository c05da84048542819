//! The state store: everything that must survive the supervisor, in one SQLite file with one writer.
//!
//! One thread owns the only writing connection. Requests reach it through a bounded queue; all that is waiting goes into one
//! transaction, and each caller hears of it when that transaction is on the disk and never before. So one caller pays one sync,
//! and sixty-four callers share one. Readers have read-only connections of their own and never wait for the writer (WAL).
//!
//! What gives power awaits [`Store::commit`] before it acts. What takes power acts first and hands its record to
//! [`Store::note`], which never waits; such records are kept in memory through a full or hanging disk, within a limit, and go in
//! first when there is space again. A reserve file keeps that space.
//!
//! The modules: [`lock`] one supervisor per directory, [`schema`] tables and migrations, [`request`] what a commit holds,
//! [`journal`] the saga journal, [`stats`] counters; privately the connection, the writer, its SQL, the readers, the reserve and
//! the write-ahead log's room.

mod apply;
mod audit_log;
mod connection;
pub mod directory;
mod error;
mod handle;
pub mod journal;
pub mod lock;
mod reader;
pub mod request;
mod reserve;
pub mod schema;
pub mod stats;
mod wal;
mod writer;

#[cfg(test)]
mod tests;

pub use connection::DATABASE_FILE;
pub(crate) use connection::open_reading;
pub use error::StoreError;
pub use handle::{Admission, Options, Store};
pub use journal::SqliteJournal;
pub use lock::StateLock;
pub use reader::{AgentState, AuditRow, Reader, Undo};
pub use request::{Commit, Receipt};
