//! From a journal back to a saga.
//!
//! The same table as in live runs, and nothing else: no decision is made here. A saga with runs in flight comes back
//! marked as unverified, and takes no step before somebody has looked at the old process trees.

use std::sync::Arc;

use crate::journal::Entry;
use crate::machine::{IllegalEvent, State};
use crate::plan::{Plan, PlanError};
use crate::record::{Event, Record, RecordError};

/// Why a journal doesn't give a saga. Every variant means that it is damaged or newer than this program.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is nothing.
    #[error("the journal knows no such saga")]
    Empty,
    /// A number is missing or stands twice.
    #[error("record {expected} is missing: the journal goes on with {found}")]
    Gap {
        /// What should stand there.
        expected: u64,
        /// What does.
        found: u64,
    },
    /// A line that is none.
    #[error("record {seq} can't be used")]
    Record {
        /// Its number.
        seq: u64,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// The history begins in the middle.
    #[error("record 1 is not the saga's beginning")]
    NoBeginning,
    /// The plan is not the one that was hashed.
    #[error("the stored plan has the hash {found}, but the saga began with {expected}")]
    PlanHash {
        /// What the first record says.
        expected: String,
        /// What the plan's text gives.
        found: String,
    },
    /// The plan makes no sense.
    #[error("the saga's plan can't be used")]
    Plan(#[source] PlanError),
    /// The table has no such arrow.
    #[error(transparent)]
    Illegal(IllegalEvent),
}

/// Makes a saga of its records. `digest` must be the function that hashed its plan.
///
/// # Errors
/// [`ReplayError`] when the records don't make a saga.
pub fn replay(entries: &[Entry], digest: impl Fn(&[u8]) -> String) -> Result<State, ReplayError> {
    let (first, rest) = entries.split_first().ok_or(ReplayError::Empty)?;
    let first = record(first, 1)?;
    let Event::Created(created) = &first.event else { return Err(ReplayError::NoBeginning) };
    let found = digest(created.plan.as_bytes());
    if found != created.plan_hash {
        return Err(ReplayError::PlanHash { expected: created.plan_hash.clone(), found });
    }
    let plan = Plan::from_text(&created.plan).map_err(ReplayError::Plan)?;
    let mut state = State::created(first.at, created, Arc::new(plan));
    for (entry, seq) in rest.iter().zip(2..) {
        state.apply(&record(entry, seq)?).map_err(ReplayError::Illegal)?;
    }
    state.doubt_trees();
    Ok(state)
}

/// The records of a saga, for showing its history.
///
/// # Errors
/// [`ReplayError::Gap`] or [`ReplayError::Record`] when one is missing or damaged.
pub fn records(entries: &[Entry]) -> Result<Vec<Record>, ReplayError> {
    entries.iter().zip(1..).map(|(entry, seq)| record(entry, seq)).collect()
}

fn record(entry: &Entry, seq: u64) -> Result<Record, ReplayError> {
    if entry.seq != seq {
        return Err(ReplayError::Gap { expected: seq, found: entry.seq });
    }
    Record::from_text(&entry.event).map_err(|source| ReplayError::Record { seq, source })
}
