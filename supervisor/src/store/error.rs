//! Why the store could not do it: one variant per thing that a caller, or the person in front of it, can act on.
//!
//! Cloneable, because one failed transaction answers every request that was in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::audit::AuditError;

/// Why a store operation failed. Nothing of a failed request is stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another supervisor works with this state directory.
    #[error("the state directory {} is in use by another supervisor{}", path.display(), pid_text(*pid))]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// The process that holds it, if it could be read.
        pid: Option<u32>,
    },
    /// A folder of state or sockets can be changed by others.
    #[error("{} can be changed by others (mode {mode:04o}, owner {owner})", path.display())]
    UnsafeDirectory {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's uid.
        owner: u32,
    },
    /// A file operation failed.
    #[error("can't {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk is full.
    #[error("no space left to write {}", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The file or its folder can't be written.
    #[error("{} can't be written: it or its file system is read-only", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The database can't be opened.
    #[error("can't open {}", path.display())]
    CannotOpen {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The file is something else than a database.
    #[error("{} is not a state store", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error("the state store {} is damaged", path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A newer version of this program wrote the database.
    #[error("{} was written by a newer version (format {found}, this version knows up to {known})", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// SQLite doesn't offer the durability that the store promises.
    #[error("{} can't be kept durable here: {pragma} is {found} instead of {wanted}", path.display())]
    NotDurable {
        /// The database.
        path: PathBuf,
        /// The setting.
        pragma: &'static str,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// Another process holds the database's own lock.
    #[error("{} is locked by another process", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The disk reported an error.
    #[error("the disk failed under {}", path.display())]
    DiskFailed {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Any other answer of SQLite: a fault of this program.
    #[error("{} refused a statement", path.display())]
    Sql {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// What is stored isn't what this program writes.
    #[error("{} holds a damaged {what}", path.display())]
    BadValue {
        /// The database.
        path: PathBuf,
        /// Which value.
        what: String,
    },
    /// A request beyond [`crate::store::request::REQUEST_BYTES_MAX`].
    #[error("a request of {bytes} bytes is over the store's limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another writer appended to this saga first.
    #[error("saga {saga}: expected to append after event {expected}, the store is at {found}")]
    Conflict {
        /// The saga's id.
        saga: String,
        /// The last event the caller knew.
        expected: u64,
        /// The last one stored.
        found: u64,
    },
    /// The audit log's key, heads or chain.
    #[error("the audit log can't be continued")]
    Audit(#[source] Arc<AuditError>),
    /// The store was closed.
    #[error("the state store is closed")]
    Closed,
    /// The writer thread ended by a fault of this program; nothing more can be stored.
    #[error("the state store's writer has died")]
    WriterDied,
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

impl StoreError {
    /// The exit code of this error (USERS: 65 bad data, 70 our bug, 73 can't create or write, 75 try again).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Corrupt { .. } | Self::NotADatabase { .. } | Self::Newer { .. } | Self::BadValue { .. } => 65,
            Self::UnsafeDirectory { .. }
            | Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::ReadOnly { .. }
            | Self::CannotOpen { .. }
            | Self::NotDurable { .. }
            | Self::DiskFailed { .. } => 73,
            Self::Locked { .. } | Self::Busy { .. } | Self::Conflict { .. } => 75,
            Self::Sql { .. } | Self::TooLarge { .. } | Self::Closed | Self::WriterDied => 70,
            Self::Audit(error) => error.exit_code(),
        }
    }

    /// One line that helps, where there is one.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Locked { .. } => {
                "one supervisor serves a state directory; give this one its own with --state-dir, or stop the other."
                    .to_owned()
            }
            Self::UnsafeDirectory { path, .. } => {
                format!(
                    "`chown {} {1}` and `chmod go-w {1}`, once nothing in it is somebody else's.",
                    nix::unistd::geteuid(),
                    path.display()
                )
            }
            Self::DiskFull { path } => {
                let folder = path.parent().unwrap_or(path);
                format!("free space on the file system of {} (`df -h {0}`).", folder.display())
            }
            Self::ReadOnly { .. } | Self::CannotOpen { .. } | Self::Io { .. } => {
                "make the folder writable for this user, or choose another with --state-dir.".to_owned()
            }
            Self::NotADatabase { path } | Self::Corrupt { path, .. } | Self::BadValue { path, .. } => {
                let folder = path.parent().unwrap_or(path);
                format!(
                    "move {} aside and keep it: `agt-supervise audit verify` reads what is left of it.",
                    folder.display()
                )
            }
            Self::Newer { .. } => {
                "run the newer version, or choose another state directory with --state-dir.".to_owned()
            }
            Self::NotDurable { .. } => {
                "put the state directory on a local file system (not NFS or FUSE) with --state-dir.".to_owned()
            }
            Self::Busy { path } => format!("`fuser {}` names the process; end it or wait.", path.display()),
            Self::DiskFailed { .. } => "look at `dmesg` for the disk's errors.".to_owned(),
            Self::Audit(error) => return error.help(),
            Self::Sql { .. } | Self::TooLarge { .. } | Self::Conflict { .. } | Self::Closed | Self::WriterDied => {
                return None;
            }
        })
    }

    /// Sorts an answer of SQLite about the database at `path`.
    pub(crate) fn of_sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let code = error.sqlite_error_code();
        let source = Arc::new(error);
        match code {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path, source },
            Some(ErrorCode::CannotOpen) => Self::CannotOpen { path, source },
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt { path, source },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                Self::Busy { path }
            }
            Some(ErrorCode::SystemIoFailure) => Self::DiskFailed { path, source },
            _ => Self::Sql { path, source },
        }
    }

    pub(crate) fn of_io(doing: &'static str, path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { doing, path: path.to_owned(), source: Arc::new(error) },
        }
    }

    /// Whether it concerns one request alone, so that the others of its batch may still be stored.
    pub(crate) fn is_of_one_request(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::TooLarge { .. } | Self::BadValue { .. } | Self::Sql { .. })
    }
}

impl From<AuditError> for StoreError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Io { doing, path, source } => Self::of_io(doing, &path, source),
            other => Self::Audit(Arc::new(other)),
        }
    }
}
