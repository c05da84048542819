//! Records of what came with version 2: conditions, timers, approvals, fan-outs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Authority;

/// A step whose condition doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypassed {
    /// The step.
    pub step: String,
}

/// A timer that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slept {
    /// The step.
    pub step: String,
    /// When it rings, in milliseconds since the epoch.
    pub due: i64,
}

/// A timer that rang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rang {
    /// The step.
    pub step: String,
}

/// A question to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The step.
    pub step: String,
    /// When it counts as refused, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
}

/// One answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voted {
    /// The step.
    pub step: String,
    /// The answer.
    pub vote: Vote,
    /// Whose, and why.
    pub authority: Authority,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    /// Go on.
    Approve,
    /// Don't.
    Deny,
}

/// What the answers come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The step.
    pub step: String,
    /// The decision.
    pub vote: Vote,
    /// Who or what decided it, for the reader.
    pub why: String,
}

/// A step that fans out: from here on each item has a branch, named `STEP.NUMBER`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The step.
    pub step: String,
    /// The list, as it was then.
    pub items: Vec<Value>,
}

/// Enough branches are done: so is their step. The others are to be ended, settled and undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathered {
    /// The step.
    pub step: String,
    /// The branches that count, by number.
    pub winners: Vec<u32>,
}

/// A branch that doesn't count any more: it is settled and undone by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The branch.
    pub step: String,
    /// Why, for the reader.
    pub why: String,
}
