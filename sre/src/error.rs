//! What can go wrong: one variant for each thing that a caller can do something about.
//!
//! A bad spec is not one error but a list: whoever wrote it wants to mend all of it at once, so each [`SpecError`]
//! names its field by a path that leads back to the line in the file.

use std::time::Duration;

use thiserror::Error;

use crate::sli::Sli;
use crate::time::compact;

/// One thing that is wrong with an SLO as written.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{path}: {problem}")]
pub struct SpecError {
    /// The field, from the list of SLOs on: `0.objective`, `2.remedies.1.below`.
    pub path: String,
    /// The SLO's name as written, for a message without the file at hand.
    pub slo: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Problem {
    /// Not a name.
    #[error("{0:?} is not a name: 1 to 63 lowercase letters, digits, `-` or `_`, starting with a letter")]
    Name(String),
    /// Two of the same name.
    #[error("another SLO is named {0:?} already")]
    Duplicate(String),
    /// Too many.
    #[error("{count} SLOs; one agent may have {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// An objective that leaves no budget.
    #[error("{0} leaves no error budget: an objective is at least 0 and below 1, such as 0.995 or 99.5%")]
    Objective(f64),
    /// A share outside 0..=1.
    #[error("{0} is no share: above 0 and at most 1, such as 0.2 or 20%")]
    Share(f64),
    /// A duration out of range.
    #[error("{} is out of range: {} to {}", compact(*.value), compact(*.least), compact(*.most))]
    Duration {
        /// As written.
        value: Duration,
        /// The least there may be.
        least: Duration,
        /// The most there may be.
        most: Duration,
    },
    /// A count out of range.
    #[error("{value} is out of range: {least} to {most}")]
    Count {
        /// As written.
        value: u64,
        /// The least there may be.
        least: u64,
        /// The most there may be.
        most: u64,
    },
    /// No threshold where one is needed.
    #[error("{sli} needs a threshold, such as {example}")]
    ThresholdMissing {
        /// The indicator.
        sli: Sli,
        /// One that would do.
        example: &'static str,
    },
    /// A threshold of the wrong kind.
    #[error("{sli} has a threshold of another kind, such as {example}")]
    ThresholdKind {
        /// The indicator.
        sli: Sli,
        /// One that would do.
        example: &'static str,
    },
    /// A threshold that nothing can meet or miss.
    #[error("{0} is no threshold: a finite number above 0")]
    ThresholdValue(f64),
    /// A threshold where there is nothing to compare.
    #[error("{0} counts good and bad events and has no threshold")]
    ThresholdUnused(Sli),
    /// `below` without `on: budget`.
    #[error("`below` belongs to `on: budget` only")]
    BelowUnused,
    /// `on: budget` without `below`.
    #[error("`on: budget` needs `below`, such as `below: 20%`")]
    BelowMissing,
    /// The same remedy twice.
    #[error("the same trigger and action stand in the list already")]
    RemedyTwice,
    /// Trips for another indicator than safety.
    #[error("{0} has no trips: only safety has")]
    TripsUnused(Sli),
}

/// What a caller did or gave that can't work.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Error {
    /// Two SLOs of one engine have the same name.
    #[error("two SLOs are named {0:?}")]
    DuplicateSlo(String),
    /// More SLOs than an engine takes.
    #[error("{count} SLOs for one agent; the limit is {limit}")]
    TooManySlos {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// No SLO of this name.
    #[error("no SLO is named {0:?}")]
    UnknownSlo(String),
    /// A snapshot of a version that this build does not read.
    #[error("the {what} snapshot has version {found}; this build reads version {supported}")]
    SnapshotVersion {
        /// Of what the snapshot is.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// A snapshot that no run can have written.
    #[error("the {what} snapshot is damaged: {problem}")]
    SnapshotDamaged {
        /// Of what the snapshot is.
        what: &'static str,
        /// Which rule it breaks.
        problem: &'static str,
    },
    /// Settings that contradict themselves.
    #[error("{what}: {field} {problem}")]
    Settings {
        /// Of what the settings are.
        what: &'static str,
        /// Which of them.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}
