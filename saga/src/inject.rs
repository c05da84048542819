//! Places where a test can stop the driver as a crash would.
//!
//! The hook is a value that the caller passes in, not a variable of the environment: nothing outside the program can
//! reach it. In one process a hook says [`Onward::Stop`] and the driver drops everything where it stands; a supervisor's
//! test kills its own process there instead and never returns.

use std::fmt;

use crate::id::{RunId, SagaId};
use crate::record::Record;

/// A place that the driver passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Point<'a> {
    /// The records are decided and not yet handed to the journal.
    BeforeAppend {
        /// The saga.
        saga: &'a SagaId,
        /// The last durable record.
        after: u64,
        /// What will be written.
        records: &'a [Record],
    },
    /// The journal acknowledged them; nothing that follows from them has been done.
    AfterAppend {
        /// The saga.
        saga: &'a SagaId,
        /// The last durable record before them.
        after: u64,
        /// What was written.
        records: &'a [Record],
    },
    /// The intent is durable; the run begins next.
    BeforeRun(&'a RunId),
    /// The run has ended; nobody has recorded that yet.
    AfterRun(&'a RunId),
}

impl fmt::Display for Point<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeAppend { after, .. } => write!(f, "before the append after record {after}"),
            Self::AfterAppend { after, .. } => write!(f, "after the append after record {after}"),
            Self::BeforeRun(run) => write!(f, "before run {run}"),
            Self::AfterRun(run) => write!(f, "after run {run}"),
        }
    }
}

/// Whether the driver goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Onward {
    /// As if nothing were there.
    GoOn,
    /// Drop everything, as a crash would.
    Stop,
}

/// Called at each place. Any `Fn(&Point) -> Onward` is one.
pub trait Hook: Send + Sync {
    /// The driver is at `point`.
    fn reached(&self, point: &Point<'_>) -> Onward;
}

impl<F: Fn(&Point<'_>) -> Onward + Send + Sync> Hook for F {
    fn reached(&self, point: &Point<'_>) -> Onward {
        self(point)
    }
}
