//! What the journal says: one record per line, versioned JSON.
//!
//! Records are facts and intents, never requests: a replay repeats what *was* decided, not what today's program would
//! decide. Every judgement that could change between versions (a verdict, a due time with its jitter, what a given-up
//! step left behind) is therefore written out. Records of version 1 must load for ever: fields are only ever added,
//! with a default, and unknown ones are ignored. `tests/fixtures.rs` holds a journal of each format to that.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use flow::{Asked, Bypassed, Decided, Dropped, Gathered, Rang, Slept, Spread, Vote, Voted};

use crate::id::{RunKind, SagaId};
use crate::outcome::{StepOutcome, Verdict};

mod flow;

/// The newest version that this program writes and reads. Each record bears the oldest version that has all it says, so
/// that a saga without anything new stays readable to older programs.
pub const VERSION: u32 = 2;

/// Room that nearly every line fits in, but for the plan of the first.
const LINE_BYTES_USUAL: usize = 192;

/// One line of a saga's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version.
    pub v: u32,
    /// When it was decided, in milliseconds since the epoch; never less than the record's before.
    pub at: i64,
    /// What happened or is about to.
    pub event: Event,
}

/// What happened or is about to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The saga begins. Always the first record, only there.
    Created(Created),
    /// Intent: this command runs once the record is durable.
    Started(Attempt),
    /// The run ended; its tree is empty.
    Finished(Finished),
    /// Another attempt will start.
    Retry(Retry),
    /// A step's forward work is over without success.
    GaveUp(GaveUp),
    /// The saga turns round: from here on nothing goes forward.
    Unwinding(Because),
    /// No new forward work starts; running work is being ended.
    Halted(Because),
    /// The step waits for an operator.
    Parked(Parked),
    /// The step's effect stays in place: nothing can undo it.
    Left(Left),
    /// An operator settled a parked step.
    Resolved(Resolved),
    /// A cancel that changed nothing, for undoing had begun already.
    CancelNoted(Authority),
    /// Nothing new starts until `resumed`.
    Paused(Authority),
    /// The pause is over.
    Resumed(Authority),
    /// A new supervisor found all process trees of the old one empty.
    Recovered,
    /// This run was in flight when its supervisor died; nobody knows how it ended.
    Lost(Attempt),
    /// This run was intended when its supervisor died, and never began.
    NeverStarted(Attempt),
    /// The saga is over.
    Ended(Ended),
    /// The step's condition doesn't hold: the steps that need it go on without.
    Bypassed(Bypassed),
    /// A timer runs.
    Slept(Slept),
    /// It rang.
    Rang(Rang),
    /// Operators are asked.
    Asked(Asked),
    /// One of them answered.
    Voted(Voted),
    /// The question is settled.
    Decided(Decided),
    /// The step fans out.
    Spread(Spread),
    /// Enough of its branches are done.
    Gathered(Gathered),
    /// A branch doesn't count any more.
    Dropped(Dropped),
}

/// The first record of a saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub saga: SagaId,
    /// The hash of `plan`'s bytes, by the caller's digest.
    pub plan_hash: String,
    /// The plan, as `Plan::text` gave it.
    pub plan: String,
    /// What the caller needs to know of the saga after a crash (where its file stood, who submitted it); opaque here.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
    /// Its parameters, complete.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
}

/// One attempt at one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The step.
    pub step: String,
    /// What the command is for.
    pub kind: RunKind,
    /// Counts from 1 for each kind.
    pub attempt: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Which one.
    #[serde(flatten)]
    pub run: Attempt,
    /// What that says about the effect.
    pub verdict: Verdict,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: StepOutcome,
}

/// A wait before the next attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The step.
    pub step: String,
    /// Which of its commands.
    pub kind: RunKind,
    /// When it is due, jitter included, in milliseconds since the epoch.
    pub due: i64,
}

/// The end of a step's forward work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaveUp {
    /// The step.
    pub step: String,
    /// What it left behind.
    pub effect: Effect,
    /// Why, for the reader.
    pub why: String,
}

/// What is known of a step's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is not there.
    Absent,
    /// An earlier attempt ended without an answer.
    Unknown,
}

/// Why a saga is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// This step failed.
    Failed {
        /// Its name.
        step: String,
    },
    /// Somebody cancelled it.
    Cancelled(Authority),
    /// Its time limit passed.
    Deadline,
}

/// Who said so, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Who: a user's name or a part of the supervisor.
    pub by: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A step that waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The step.
    pub step: String,
    /// Which of its commands can't go on: `Forward` and `Check` ask "is the effect there?", `Compensate` asks "is it
    /// gone?".
    pub kind: RunKind,
    /// Why, for the reader.
    pub why: String,
}

/// An effect that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The step.
    pub step: String,
    /// Why, for the reader.
    pub why: String,
}

/// An operator's decision about a parked step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// The step.
    pub step: String,
    /// The decision.
    pub resolution: Resolution,
    /// Who and why.
    pub authority: Authority,
    /// What it made of the step.
    pub becomes: Becomes,
}

/// What an operator can say of a parked step. The question is the one the step is parked with: "is the effect there?"
/// for forward work, "is it gone?" for a compensation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Yes: it was found, or made by hand.
    Applied {
        /// What the step would have given to later ones.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        output: Value,
    },
    /// No.
    NotApplied,
    /// Try again with a new retry budget.
    Retry,
    /// Go on without it. The effect, if any, stays.
    Skip,
}

/// What a resolution makes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// The effect is in place.
    Done,
    /// There is no effect.
    Failed,
    /// The effect is gone.
    Undone,
    /// The effect stays and is not undone.
    Left,
    /// Later steps go on without it.
    Skipped,
    /// Its forward command runs again.
    RunAgain,
    /// Its check runs again.
    CheckAgain,
    /// Its compensation runs again.
    UndoAgain,
}

/// The end of a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub state: EndState,
    /// Who ended it by hand; absent when it came to its end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
}

/// How a saga ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    /// Every step is done.
    Completed,
    /// Everything that was done is undone.
    Compensated,
    /// Something was left in place, by an operator's decision or for want of an undo.
    PartiallyCompensated,
    /// An operator gave it up as it stood.
    Abandoned,
}

impl EndState {
    /// The word for it in lists, metrics and journals.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::PartiallyCompensated => "partially_compensated",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer program wrote it.
    #[error("the record has version {found}, this program reads up to {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Damaged.
    #[error("the record can't be read")]
    Format(#[source] serde_json::Error),
}

impl Record {
    /// A record of the oldest version that has all it says. What a plan needs, the caller knows.
    #[must_use]
    pub fn new(at_ms: i64, event: Event) -> Self {
        Self { v: event.version(), at: at_ms, event }
    }

    /// The line for the journal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let plan_bytes = match &self.event {
            // Each quote in it becomes two bytes.
            Event::Created(created) => created.plan.len() + created.plan.len() / 2,
            _ => 0,
        };
        let mut line = Vec::with_capacity(LINE_BYTES_USUAL + plan_bytes);
        serde_json::to_writer(&mut line, self).expect("text keys and finite numbers always serialize");
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`RecordError::Newer`] for a later version, whatever else it says; [`RecordError::Format`] for anything damaged.
    pub fn from_text(text: &str) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        match serde_json::from_str::<Self>(text) {
            Ok(record) if record.v <= VERSION => Ok(record),
            Ok(record) => Err(RecordError::Newer { found: record.v }),
            // Only now: the version is looked at by itself when the rest makes no sense, which costs the good ones nothing.
            Err(error) => match serde_json::from_str::<Version>(text) {
                Ok(Version { v }) if v > VERSION => Err(RecordError::Newer { found: v }),
                _ => Err(RecordError::Format(error)),
            },
        }
    }
}

impl Event {
    fn version(&self) -> u32 {
        match self {
            Self::Bypassed(_)
            | Self::Slept(_)
            | Self::Rang(_)
            | Self::Asked(_)
            | Self::Voted(_)
            | Self::Decided(_)
            | Self::Spread(_)
            | Self::Gathered(_)
            | Self::Dropped(_) => 2,
            Self::Finished(finished) => finished.outcome.version(),
            _ => 1,
        }
    }
}
