//! One run: the caller's future, a time limit, and an end that is verified.

#![expect(clippy::disallowed_methods, reason = "the time limit of a run is kept here")]

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Steps, StepsError};
use crate::id::RunId;
use crate::machine::StepRun;
use crate::outcome::{Ending, StepOutcome};

/// How often a run is ended before its tree is reported as not empty.
const END_TRIES_MAX: u32 = 5;
/// The wait between two such tries.
const END_RETRY: Duration = Duration::from_millis(500);

/// The end of a run.
pub(super) struct Ended {
    pub(super) run: RunId,
    /// How it ended, or why its tree is not known to be empty.
    pub(super) outcome: Result<StepOutcome, StepsError>,
}

/// Runs a command until it ends, its time is up, or `end` says so (or is dropped).
///
/// Once it was told to end, whatever the process says is no answer any more: one that exits with 0 on SIGTERM has not
/// done its work. Its effect is unknown.
pub(super) async fn run_one<S: Steps>(steps: Arc<S>, run: StepRun, end: oneshot::Receiver<()>) -> Ended {
    let (id, limit) = (run.id.clone(), Duration::from_millis(run.work().timeout_ms));
    let mut running = pin!(steps.run(run));
    let ending = tokio::select! {
        biased;
        outcome = &mut running => return Ended { run: id, outcome: Ok(outcome) },
        _told = end => Ending::Cancelled,
        // Not even a timer is made for a run that has ended by then.
        () = async { sleep(limit).await } => Ending::TimedOut,
    };
    let mut over = false;
    let mut tries = 0;
    let outcome = loop {
        tries += 1;
        let mut cancel = pin!(steps.cancel(&id));
        // The runner may be what reaps the tree, so it goes on meanwhile.
        let cancelled = loop {
            tokio::select! {
                cancelled = &mut cancel => break cancelled,
                _late = &mut running, if !over => over = true,
            }
        };
        match cancelled {
            Ok(()) => break Ok(StepOutcome::ended(ending)),
            Err(error) if tries == END_TRIES_MAX => break Err(error),
            Err(_again) => sleep(END_RETRY).await,
        }
    };
    Ended { run: id, outcome }
}
