//! What injector and guardian say to each other: one JSON object a line, over the guardian's stdin and stdout.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::undo::{Outcome, ProcessId, Undo};

/// `argv[0]` of a guardian.
pub(super) const ARGV0: &str = "agt-chaos-guardian";
/// The longest message that a guardian reads: an undo names some hundred processes at most.
pub(super) const MESSAGE_MAX: usize = 1 << 20;

/// What a guardian is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ToGuardian {
    /// The first word: hold this undo.
    Hold(Box<Orders>),
    /// Undo now and end.
    Undo,
    /// Nothing is left to do: end.
    Disarm,
}

/// What a guardian holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Whose death makes it undo.
    pub(super) injector: ProcessId,
    /// After how many milliseconds it undoes in any case.
    pub(super) within_ms: u64,
    /// The undo.
    pub(super) undo: Undo,
}

/// What a guardian says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromGuardian {
    /// It holds the undo.
    Armed,
    /// It can't hold it.
    Refused {
        /// Why.
        reason: String,
    },
    /// It ends without having done anything.
    Disarmed,
    /// It has undone.
    Undone {
        /// What made it.
        cause: Cause,
        /// What happened to each entry.
        outcomes: Vec<Outcome>,
    },
}

/// What made a guardian undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The injector is dead or has closed the pipe.
    InjectorGone,
    /// The injector asked for it.
    Asked,
    /// Its time was over.
    Deadline,
    /// A signal asked it to end.
    Signal,
    /// The injector said something that makes no sense.
    Confused,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::InjectorGone => "the injector was gone",
            Cause::Asked => "it was asked to",
            Cause::Deadline => "its time was over",
            Cause::Signal => "a signal asked it to end",
            Cause::Confused => "the injector made no sense",
        })
    }
}
