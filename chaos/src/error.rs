//! What can go wrong besides the experiment's own verdicts.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A journal could not make an entry durable: nothing may be assumed written.
#[derive(Debug, thiserror::Error)]
#[error("the chaos journal could not be written")]
pub struct JournalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A guardian could not be started, armed or ended.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// The executable could not be started again.
    #[error("{} could not be started as the guardian", program.display())]
    Spawn {
        /// Which executable.
        program: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// Its pipe broke: it is gone.
    #[error("the guardian (pid {pid}) is gone")]
    Gone {
        /// Its pid.
        pid: u32,
        /// What reading or writing said.
        #[source]
        source: io::Error,
    },
    /// It said something else than expected.
    #[error("the guardian (pid {pid}) answered `{answer}`")]
    Answer {
        /// Its pid.
        pid: u32,
        /// Its words.
        answer: String,
    },
    /// It did not answer or end in time.
    #[error("the guardian (pid {pid}) gave no sign for {limit:?}")]
    Silent {
        /// Its pid.
        pid: u32,
        /// How long was waited.
        limit: Duration,
    },
    /// It could not put everything back.
    #[error("the guardian left something undone: {0}")]
    NotUndone(String),
}

/// The process that was to take memory can't.
#[derive(Debug, thiserror::Error)]
pub enum HogError {
    /// It could not be started.
    #[error("starting the process that takes the memory")]
    Spawn(#[source] io::Error),
    /// It ended, or can't be reached.
    #[error("the process that takes the memory (pid {pid}) is gone")]
    Gone {
        /// Its pid.
        pid: i32,
        /// How that showed.
        #[source]
        source: io::Error,
    },
}

/// The kernel refused to tell or to do something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done: `reading`, `writing 0 to`.
        doing: String,
        /// Which file.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// A process.
    #[error("{doing} (pid {pid})")]
    Process {
        /// What was being done.
        doing: String,
        /// Which process.
        pid: i32,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// A file outside the cgroup file systems: undos may write nowhere else.
    #[error("{} is on no cgroup file system", .0.display())]
    NotCgroup(PathBuf),
    /// Something in /proc doesn't read as documented.
    #[error("{} reads `{content}`", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What it says, shortened.
        content: String,
    },
}

/// An error and all its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
