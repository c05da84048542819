//! One step of a saga at one moment.

use std::ops::Range;

use serde_json::Value;

use crate::id::RunKind;
use crate::outcome::Again;
use crate::record::Voted;

/// One step as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    pub(super) stage: Stage,
    /// What the step gave; kept while it is undone.
    pub(super) output: Value,
    /// Some attempt ended without an answer, and nothing has settled it since.
    pub(super) tainted: bool,
    pub(super) tallies: [Tally; 3],
    /// The position of its step in the plan.
    pub(super) of: usize,
    /// Which branch of that step it is, if the step fans out.
    pub(super) branch: Option<Branch>,
    /// The slots of its branches, once it has fanned out.
    pub(super) branches: Option<Range<usize>>,
    /// The answers to an approval, in the order in which they came.
    pub(super) votes: Vec<Voted>,
}

/// One branch of a fan-out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    /// Its position in the list.
    pub(super) number: u32,
    /// What stands there.
    pub(super) item: Value,
    /// Whether its step counts on it.
    pub(super) race: Race,
}

/// What a branch is to its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Race {
    /// It counts, or may.
    On,
    /// It doesn't: it is settled and undone by itself, whichever way the saga goes.
    Lost,
}

/// Where a step stands. The arrows between these are drawn in the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Not begun.
    Waiting,
    /// A command of it runs, or did when the supervisor died.
    InFlight {
        /// Which.
        kind: RunKind,
        /// Which time.
        attempt: u32,
    },
    /// A command failed, and nothing is decided yet. Gone within the same append.
    Faulted {
        /// Which.
        kind: RunKind,
        /// Whether a retry can help.
        again: Again,
    },
    /// A command will be repeated.
    Backoff {
        /// Which.
        kind: RunKind,
        /// When, in milliseconds since the epoch.
        due_ms: i64,
    },
    /// Nobody knows whether its effect is there.
    Unknown,
    /// Its effect is there.
    Done,
    /// Its effect is there, its output can't be used.
    Spoiled,
    /// Given up; there is no effect.
    Failed,
    /// Its effect is gone.
    Undone,
    /// Its effect stays and is not undone.
    Left,
    /// Later steps go on without it, by an operator's decision.
    Skipped,
    /// Later steps go on without it, because its condition doesn't hold.
    Bypassed,
    /// Its timer runs.
    Sleeping {
        /// When it rings, in milliseconds since the epoch.
        due_ms: i64,
    },
    /// Operators are asked.
    Asking {
        /// When that counts as refused, in milliseconds since the epoch.
        due_ms: Option<i64>,
    },
    /// It has fanned out, and its branches are under way.
    Spread,
    /// It waits for an operator.
    Parked {
        /// Which command can't go on.
        kind: RunKind,
        /// Why, for the reader.
        why: String,
    },
}

/// How often a command was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// The last attempt's number. Never reset.
    pub(super) attempt: u32,
    /// Attempts of the present retry budget that failed.
    pub(super) failures: u32,
    /// Attempts that a crash of the supervisor cut off since the budget began. They don't use it up.
    pub(super) lost: u32,
    /// The kill switch ended an attempt of the present budget: none is left then, whatever the count says.
    pub(super) struck: bool,
}

impl Slot {
    pub(super) fn new(of: usize) -> Self {
        Self {
            stage: Stage::Waiting,
            output: Value::Null,
            tainted: false,
            tallies: [Tally::default(); 3],
            of,
            branch: None,
            branches: None,
            votes: Vec::new(),
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.branch.as_ref().is_some_and(|branch| branch.race == Race::Lost)
    }

    pub(super) fn tally(&self, kind: RunKind) -> &Tally {
        &self.tallies[kind as usize]
    }

    pub(super) fn tally_mut(&mut self, kind: RunKind) -> &mut Tally {
        &mut self.tallies[kind as usize]
    }

    /// Where the step stands.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// What it gave; `Null` before it is done.
    #[must_use]
    pub fn output(&self) -> &Value {
        &self.output
    }

    /// The answers to an approval.
    #[must_use]
    pub fn votes(&self) -> &[Voted] {
        &self.votes
    }

    /// How often a command of it was started.
    #[must_use]
    pub fn attempts(&self, kind: RunKind) -> u32 {
        self.tally(kind).attempt
    }
}

impl Stage {
    /// The word for it in lists and messages.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::InFlight { kind: RunKind::Forward, .. } => "running",
            Self::InFlight { kind: RunKind::Check, .. } => "checking",
            Self::InFlight { kind: RunKind::Compensate, .. } => "undoing",
            Self::Faulted { .. } => "faulted",
            Self::Backoff { .. } => "retrying",
            Self::Unknown => "unknown",
            Self::Done => "done",
            Self::Spoiled => "spoiled",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::Left => "left",
            Self::Skipped => "skipped",
            Self::Bypassed => "bypassed",
            Self::Sleeping { .. } => "sleeping",
            Self::Asking { .. } => "asking",
            Self::Spread => "spread",
            Self::Parked { .. } => "parked",
        }
    }
}
