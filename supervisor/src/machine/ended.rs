//! How a life ended: what the driver saw, what it is taken for, and what is told of the last one.

use serde::{Deserialize, Serialize};

use super::lifecycle::Death;

/// What ended the tree, as far as the driver could see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The main process exited.
    Exit(i32),
    /// The main process died of a signal.
    Signal(i32),
    /// The main process died of a signal and the kernel counted an OOM kill in its group.
    OutOfMemory,
    /// No status: the whole tree was taken.
    Taken,
}

pub(super) fn cause(ended: &Ended) -> Death {
    match ended {
        Ended::Exit(code) => Death::Exit { code: *code },
        Ended::Signal(signal) => Death::Signal { signal: *signal },
        Ended::OutOfMemory => Death::MemoryLimit,
        Ended::Taken => Death::Taken,
    }
}

/// The end of an agent that does not come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// What it died of last.
    pub death: Death,
    /// After how many restarts its rule allowed no more; `None`: it was not to come back.
    pub gave_up_after: Option<u32>,
}

impl Conclusion {
    /// The exit code of `run` for it. An agent that was to run always and does not is a failure, whatever its last code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.death.exit_code(), self.gave_up_after) {
            (0, Some(_)) => 1,
            (code, _) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_is_no_success() {
        let code = |code, gave_up_after| Conclusion { death: Death::Exit { code }, gave_up_after }.exit_code();
        assert_eq!((code(0, None), code(0, Some(5)), code(3, Some(5))), (0, 1, 3));
    }
}
