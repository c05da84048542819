//! What can go wrong with control groups, one variant per thing that a caller can act on.
//! Paths and values are in the message; the kernel's own answer is the source and is not repeated.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::layout::{Gap, Unusable};

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with control groups.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no control group here that we could use: the host can't hold agents.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// A file could not be read.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file refused a value.
    #[error("can't write `{value}` to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A group could not be made.
    #[error("can't create the control group {path}")]
    Create {
        /// The group's directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A group could not be removed within its time.
    #[error("can't remove the control group {path}")]
    Remove {
        /// The group's directory.
        path: PathBuf,
        /// The kernel's last answer.
        #[source]
        source: io::Error,
    },
    /// A file holds something that we don't understand.
    #[error("{path} holds `{found}`: expected {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The kernel took a limit and shows another: the agent must not start.
    #[error("limit did not stick: {file} holds `{found}` after `{wanted}` was asked for")]
    LimitDidNotStick {
        /// The file.
        file: PathBuf,
        /// The value asked for.
        wanted: String,
        /// The value read back.
        found: String,
    },
    /// A limit was asked for whose controller is not to be had here.
    #[error("no limit can be kept: {0}")]
    NoController(Gap),
    /// Swap is in use and can't be counted towards the memory limit.
    #[error("swap can't be limited: {file} is missing while swap is in use (boot with swapaccount=1, or swapoff)")]
    SwapNotLimited {
        /// The file that would carry the limit.
        file: PathBuf,
    },
    /// A limit that no kernel takes.
    #[error("{what} = {value} is no limit: {why}")]
    ImpossibleLimit {
        /// Which limit.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What the kernel needs.
        why: &'static str,
    },
    /// A name that can't be a group's.
    #[error("`{name}` can't name a control group: 1 to {max} bytes without `/`, newline or NUL")]
    Name {
        /// The name.
        name: String,
        /// The most bytes a name may have.
        max: usize,
    },
    /// Processes are left after the time for a kill.
    #[error("{path} still holds {} process(es) {after:?} after the kill began: {pids:?}", pids.len())]
    Survivors {
        /// The group.
        path: PathBuf,
        /// Who is left.
        pids: Vec<i32>,
        /// How long was tried.
        after: Duration,
    },
    /// A freeze or thaw did not settle in its time; the request stands.
    #[error("{path} is not {wanted} {after:?} after it was asked for")]
    NotSettled {
        /// The group.
        path: PathBuf,
        /// `frozen` or `thawed`.
        wanted: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// A recorded place that is not one of our subtrees, or that we run in ourselves: it must not be swept.
    #[error("{path} is not a control group that an earlier supervisor left behind")]
    NotOurs {
        /// The recorded directory.
        path: PathBuf,
    },
    /// A group that is to be removed holds processes: kill it first.
    #[error("{path} holds processes: {pids:?}")]
    NotEmpty {
        /// The group.
        path: PathBuf,
        /// Who is in it.
        pids: Vec<i32>,
    },
}
