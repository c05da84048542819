//! How a run ended, and what that says about its effect.
//!
//! The line that matters runs between an answer and no answer. A process that exits has answered: 0 means that the
//! effect is there, anything else that it is not. One that was ended by a signal, a limit, a timeout or a crash has not
//! answered: its effect is *unknown*, and stays so until the step's declared rule settles it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::RunKind;
use crate::plan::Retry;

/// The largest output that is kept with a saga, in bytes of JSON. A larger one makes the run's output unusable.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// The longest note that is kept with an outcome, in bytes; the rest is cut.
pub const NOTE_BYTES_MAX: usize = 4 * 1024;

/// How a run ended, as its runner saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The process exited by itself with this code.
    Exited(i32),
    /// A signal ended it (number as in signal(7)).
    Signalled(i32),
    /// The time limit passed; the tree was ended and is empty.
    TimedOut,
    /// The saga was cancelled; the tree was ended and is empty.
    Cancelled,
    /// Somebody else ended it: kill switch, memory limit, quarantine.
    Killed {
        /// Why, in one of the kill switch's words where there is one.
        reason: String,
        /// Whether another try is allowed: not after the kill switch, which a retry must not defeat. Older journals don't say.
        #[serde(default, skip_serializing_if = "Again::is_yes")]
        again: Again,
    },
    /// Nothing ran at all, so no effect is possible: refused, not found, breaker open.
    NotStarted {
        /// What stood in the way.
        reason: String,
        /// Whether another try can help.
        again: Again,
    },
    /// An HTTP server answered with this status. 2xx: the effect is there; 4xx: it is not; any other says neither.
    Status(u16),
    /// It answered that it failed, with this error: a tool, an agent, a saga inside the saga.
    Errored {
        /// The error's name, which retries can be told by.
        error: String,
        /// Whether nothing can have happened; else the effect is unknown.
        clean: Clean,
    },
    /// No answer came, though it may have been done: a connection broke, a server went away.
    NoAnswer {
        /// What happened.
        reason: String,
    },
    /// It exited with 0, but its output could not be read as JSON or is too large: the effect is there, the data isn't.
    BadOutput {
        /// What is wrong with it.
        reason: String,
    },
}

/// Whether an error left nothing behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clean {
    /// There is no effect.
    Yes,
    /// Nobody can tell.
    Unknown,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// Perhaps, within the retry budget.
    #[default]
    Yes,
    /// No: the same would happen.
    No,
}

impl Again {
    fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOutcome {
    /// How it ended.
    pub ending: Ending,
    /// Its output as JSON; `Null` when it has none. A check answers `{"applied": true|false, "outputs": ...}`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// A line for the reader (the tail of its stderr, say), cut at [`NOTE_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl StepOutcome {
    /// Whether the kill switch ended it: no retry, whatever the budget says.
    #[must_use]
    pub fn is_struck(&self) -> bool {
        matches!(self.ending, Ending::Killed { again: Again::No, .. })
    }

    /// A clean end with exit code 0 and `output`.
    #[must_use]
    pub fn ok(output: Value) -> Self {
        Self { ending: Ending::Exited(0), output, note: None }
    }

    /// Any other end, without output.
    #[must_use]
    pub fn ended(ending: Ending) -> Self {
        Self { ending, output: Value::Null, note: None }
    }

    /// The version of the record that can say this.
    pub(crate) fn version(&self) -> u32 {
        match self.ending {
            Ending::Status(_) | Ending::Errored { .. } | Ending::NoAnswer { .. } => 2,
            _ => 1,
        }
    }

    /// Whether it says by itself that the effect is there and its output good.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self.ending, Ending::Exited(0) | Ending::Status(200..=299))
    }

    /// The outcome within the limits on what is kept: a larger output is dropped and named as unusable.
    #[must_use]
    pub(crate) fn within_limits(mut self) -> Self {
        // Walking the value to count its bytes is only worth it for one that isn't trivially small.
        if !matches!(self.output, Value::Null | Value::Bool(_) | Value::Number(_)) {
            let bytes = self.output.to_string().len();
            if bytes > OUTPUT_BYTES_MAX {
                self.output = Value::Null;
                if self.is_ok() {
                    let reason = format!("the output has {bytes} bytes of JSON, the limit is {OUTPUT_BYTES_MAX}");
                    self.ending = Ending::BadOutput { reason };
                }
            }
        }
        if let Some(note) = &mut self.note
            && note.len() > NOTE_BYTES_MAX
        {
            let cut = (0..=NOTE_BYTES_MAX).rev().find(|at| note.is_char_boundary(*at)).expect("0 is a boundary");
            note.truncate(cut);
        }
        self
    }
}

/// What a run's end says about the effect. Journaled beside the ending, so that a later version's opinion never changes
/// an old saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[must_use]
pub enum Verdict {
    /// A step or compensation succeeded.
    Ok,
    /// It answered that it failed: nothing is in place (step) or everything still is (compensation).
    Failed,
    /// As `Failed`, and declared to be of a kind that no retry mends.
    FailedForGood,
    /// It gave no answer.
    Unknown,
    /// The effect is there, its output can't be used.
    Unusable,
    /// A check: the effect is there.
    Applied,
    /// A check: the effect is not there.
    NotApplied,
    /// A check that did not say.
    Inconclusive,
}

impl Verdict {
    /// Judges an outcome.
    ///
    /// A check must say `{"applied": true}` or `{"applied": false}` and exit with 0. An exit code alone is no answer:
    /// an interpreter that can't even start exits with 1, and reading that as "not applied" would charge twice.
    pub fn of(kind: RunKind, outcome: &StepOutcome, retry: &Retry) -> Self {
        if kind == RunKind::Check {
            return match outcome.output.get("applied").filter(|_| outcome.is_ok()) {
                Some(Value::Bool(true)) => Self::Applied,
                Some(Value::Bool(false)) => Self::NotApplied,
                _ => Self::Inconclusive,
            };
        }
        match &outcome.ending {
            _ if outcome.is_ok() => Self::Ok,
            // What a compensation prints is of no use to anybody: the effect is gone, and that is all it was for.
            Ending::BadOutput { .. } if kind == RunKind::Compensate => Self::Ok,
            Ending::BadOutput { .. } => Self::Unusable,
            Ending::Exited(code) if retry.non_retryable.contains(code) => Self::FailedForGood,
            Ending::Status(status @ 400..=499) => {
                let for_good = retry.non_retryable.contains(&i32::from(*status));
                if for_good { Self::FailedForGood } else { Self::Failed }
            }
            // What no retry mends may still have left something behind: that question comes first.
            Ending::Errored { clean: Clean::Unknown, .. } => Self::Unknown,
            Ending::Errored { error, .. } if retry.non_retryable_errors.contains(error) => Self::FailedForGood,
            Ending::Exited(_) | Ending::Errored { .. } | Ending::NotStarted { again: Again::Yes, .. } => Self::Failed,
            // A gateway's 502 or 504 says nothing about the server behind it, nor does a redirect.
            Ending::Status(_) | Ending::NoAnswer { .. } => Self::Unknown,
            Ending::NotStarted { again: Again::No, .. } => Self::FailedForGood,
            Ending::Signalled(_) | Ending::TimedOut | Ending::Cancelled | Ending::Killed { .. } => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(kind: RunKind, outcome: StepOutcome) -> Verdict {
        Verdict::of(kind, &outcome, &Retry { non_retryable: vec![65], ..Retry::once() })
    }

    #[test]
    fn an_exit_is_an_answer_and_a_signal_is_not() {
        assert_eq!(judge(RunKind::Forward, StepOutcome::ok(Value::Null)), Verdict::Ok);
        assert_eq!(judge(RunKind::Forward, StepOutcome::ended(Ending::Exited(1))), Verdict::Failed);
        assert_eq!(judge(RunKind::Forward, StepOutcome::ended(Ending::Exited(65))), Verdict::FailedForGood);
        assert_eq!(judge(RunKind::Forward, StepOutcome::ended(Ending::Signalled(9))), Verdict::Unknown);
        assert_eq!(judge(RunKind::Forward, StepOutcome::ended(Ending::TimedOut)), Verdict::Unknown);
    }

    #[test]
    fn a_status_of_http_is_an_answer_only_where_it_says_which() {
        let judge = |status: u16| {
            let retry = Retry { non_retryable: vec![422], ..Retry::once() };
            Verdict::of(RunKind::Forward, &StepOutcome::ended(Ending::Status(status)), &retry)
        };
        assert_eq!(judge(201), Verdict::Ok);
        assert_eq!(judge(409), Verdict::Failed);
        assert_eq!(judge(422), Verdict::FailedForGood);
        for says_neither in [100, 302, 500, 502, 504] {
            assert_eq!(judge(says_neither), Verdict::Unknown, "{says_neither}");
        }
    }

    #[test]
    fn an_error_that_is_not_known_to_be_clean_is_no_answer_whatever_its_name() {
        let retry = Retry { non_retryable_errors: vec!["declined".into()], ..Retry::once() };
        let judge = |error: &str, clean| {
            let outcome = StepOutcome::ended(Ending::Errored { error: error.into(), clean });
            Verdict::of(RunKind::Forward, &outcome, &retry)
        };
        assert_eq!(judge("busy", Clean::Yes), Verdict::Failed);
        assert_eq!(judge("declined", Clean::Yes), Verdict::FailedForGood);
        assert_eq!(judge("declined", Clean::Unknown), Verdict::Unknown);
    }

    #[test]
    fn a_check_that_crashes_never_reads_as_not_applied() {
        assert_eq!(judge(RunKind::Check, StepOutcome::ended(Ending::Exited(1))), Verdict::Inconclusive);
        assert_eq!(judge(RunKind::Check, StepOutcome::ok(Value::Null)), Verdict::Inconclusive);
        assert_eq!(judge(RunKind::Check, StepOutcome::ok(json!({"applied": "no"}))), Verdict::Inconclusive);
        assert_eq!(judge(RunKind::Check, StepOutcome::ok(json!({"applied": false}))), Verdict::NotApplied);
        assert_eq!(judge(RunKind::Check, StepOutcome::ok(json!({"applied": true}))), Verdict::Applied);
    }

    #[test]
    fn an_output_over_the_limit_is_named_and_not_kept() {
        let large = StepOutcome::ok(json!("x".repeat(OUTPUT_BYTES_MAX))).within_limits();
        assert!(matches!(&large.ending, Ending::BadOutput { reason } if reason.contains("262146 bytes")), "{large:?}");
        assert_eq!(large.output, Value::Null);
        let small = StepOutcome::ok(json!({"id": 7}));
        assert_eq!(small.clone().within_limits(), small);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let mut outcome = StepOutcome::ended(Ending::Exited(1));
        outcome.note = Some("é".repeat(NOTE_BYTES_MAX));
        assert_eq!(outcome.within_limits().note.unwrap().len(), NOTE_BYTES_MAX);
    }
}
