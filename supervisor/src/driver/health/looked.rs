//! What came of one health check, however it was made.

use std::time::Duration;

use agt_rings::launch::{Checked, End};

use crate::config::units::Span;
use crate::driver::records::wall_ms;
use crate::driver::status::CheckSeen;
use crate::machine::health::Passed;

/// One health check, over.
#[derive(Debug)]
pub struct Looked {
    /// Whether the agent is well.
    pub passed: Passed,
    /// How it ended, in words that follow its name.
    pub result: String,
    /// The last of what it printed, or the first of what was answered.
    pub output: Vec<u8>,
    /// Bytes that were not kept.
    pub dropped: u64,
    /// How long it took.
    pub took: Duration,
}

impl Looked {
    /// Of a command.
    pub(super) fn of(checked: Checked, timeout: Span) -> Looked {
        let result = match &checked.end {
            End::Exited(0) => "passed".to_owned(),
            End::Exited(code) => format!("exited {code}"),
            End::Signaled(signal) => format!("was ended by signal {signal}"),
            End::TimedOut => format!("took longer than {timeout} and was ended"),
            End::NotStarted(why) => format!("could not be started ({why})"),
            End::Unanswered => format!("gave no answer within {timeout}: the agent is frozen or starved"),
            End::Gone => "could not be asked for: the agent has ended the process that runs its checks".to_owned(),
        };
        let passed = if checked.end == End::Exited(0) { Passed::Yes } else { Passed::No };
        Looked { passed, result, output: checked.output, dropped: checked.dropped, took: checked.took }
    }

    pub(super) fn seen(&self) -> CheckSeen {
        CheckSeen {
            at_ms: wall_ms(),
            result: self.result.clone(),
            took_ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            output: String::from_utf8_lossy(&self.output).into_owned(),
            output_dropped: self.dropped,
        }
    }
}
