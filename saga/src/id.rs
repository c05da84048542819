//! Names of things: sagas, runs, idempotency keys.
//!
//! A newtype each, because all of them are text and a saga's id passed where a run's belongs would compile. The
//! idempotency key is made here and nowhere else: it must be the same over retries, restarts and supervisors.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A saga's id, unique for ever; chosen by the caller (a UUID, say).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SagaId(Arc<str>);

impl SagaId {
    /// Takes any text; uniqueness is the caller's promise.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for SagaId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SagaId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run of a step's command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// The step itself: makes the effect.
    Forward,
    /// Its compensation: takes the effect back.
    Compensate,
    /// Its check: says whether the effect is there, and changes nothing.
    Check,
}

impl RunKind {
    /// The word used in run ids and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Compensate => "compensate",
            Self::Check => "check",
        }
    }
}

/// One run of one command: a retry is another run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId {
    /// The saga.
    pub saga: SagaId,
    /// The step's name.
    pub step: String,
    /// What the run is for.
    pub kind: RunKind,
    /// Counts from 1 for each kind, never reused, not even after a crash.
    pub attempt: u32,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.saga, self.step, self.kind.as_str(), self.attempt)
    }
}

/// What a step hands to the outside world so that a repeated request is recognised (the Idempotency-Key header of
/// draft-ietf-httpapi-idempotency-key-header): the same over all attempts of one step of one saga.
///
/// A compensation has a key of its own (a refund isn't a repeated charge); a check asks about the forward key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of `step` in `saga` for runs of `kind`.
    #[must_use]
    pub fn of(saga: &SagaId, step: &str, kind: RunKind) -> Self {
        match kind {
            RunKind::Forward | RunKind::Check => Self(format!("{saga}/{step}")),
            RunKind::Compensate => Self(format!("{saga}/{step}/undo")),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
