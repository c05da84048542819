//! What an operator may say, and what each word means where a saga stands.

use super::slot::Stage;
use super::state::{Pause, Phase, State};
use crate::id::RunKind;
use crate::record::{Authority, Because, Becomes, EndState, Ended, Event, Resolution, Resolved};

/// An operator's word.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What to do.
    pub order: Order,
    /// Who says so, and why.
    pub authority: Authority,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Undo the saga. Running steps are ended first; a pivot that runs is waited for instead, and if it succeeds the
    /// cancel came too late. While the saga is being undone already, a first cancel changes nothing (undoing ignores
    /// it) and a second one pauses.
    Cancel,
    /// Start nothing new; what runs may end.
    Pause,
    /// End a pause.
    Resume,
    /// Settle a parked step.
    Resolve {
        /// The step.
        step: String,
        /// How.
        resolution: Resolution,
    },
    /// Give the saga up as it stands. Only with nothing in flight: what runs is cancelled first.
    Abandon,
}

/// Why an input was not taken. The saga is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is over.
    #[error("the saga has ended: {}", .0.as_str())]
    Ended(EndState),
    /// The point of no return lies behind.
    #[error("the saga is past its pivot: it can only go forward")]
    PastPivot,
    /// A pause on a paused saga.
    #[error("the saga is paused already")]
    AlreadyPaused,
    /// A resume without a pause.
    #[error("the saga is not paused")]
    NotPaused,
    /// Nothing of that name.
    #[error("the saga has no step `{step}`")]
    UnknownStep {
        /// What was asked for.
        step: String,
    },
    /// Only a parked step can be resolved.
    #[error("step `{step}` does not wait for an operator (it is {stage})")]
    NotParked {
        /// The step.
        step: String,
        /// Where it stands.
        stage: &'static str,
        /// The steps that do wait.
        parked: Vec<String>,
    },
    /// Going back, a step without a check has nothing that could be tried again.
    #[error(
        "nothing of step `{step}` can be tried again while the saga is being undone: say applied, not-applied or skip"
    )]
    NothingToRetry {
        /// The step.
        step: String,
    },
    /// Commands still run.
    #[error("{count} steps are still running: cancel the saga first")]
    InFlight {
        /// How many.
        count: usize,
    },
    /// A result of a run that isn't awaited.
    #[error("no such run is in flight: {run}")]
    NoSuchRun {
        /// Which.
        run: String,
    },
    /// After a crash nothing may happen before the old process trees are known to be empty.
    #[error("the process trees of the old supervisor were not verified empty yet")]
    TreesNotVerified,
}

impl State {
    /// The record that a command amounts to.
    pub(super) fn command_event(&self, command: Command) -> Result<Event, Refused> {
        let Command { order, authority } = command;
        if let Phase::Ended(end) = self.phase {
            return Err(Refused::Ended(end));
        }
        match order {
            Order::Cancel => self.cancel_event(authority),
            Order::Pause if self.pause == Pause::On => Err(Refused::AlreadyPaused),
            Order::Pause => Ok(Event::Paused(authority)),
            Order::Resume if self.pause == Pause::Off => Err(Refused::NotPaused),
            Order::Resume => Ok(Event::Resumed(authority)),
            Order::Resolve { step, resolution } => self.resolve_event(step, resolution, authority),
            Order::Abandon => match self.in_flight().len() {
                0 => Ok(Event::Ended(Ended { state: EndState::Abandoned, authority: Some(authority) })),
                count => Err(Refused::InFlight { count }),
            },
        }
    }

    fn cancel_event(&self, authority: Authority) -> Result<Event, Refused> {
        let goes_back = matches!(self.phase, Phase::Unwinding(_)) || self.halt.is_some();
        match (self.past_pivot() && self.phase == Phase::Forward, goes_back) {
            (true, _) => Err(Refused::PastPivot),
            (false, false) => Ok(Event::Halted(Because::Cancelled(authority))),
            (false, true) if self.cancels == 0 => Ok(Event::CancelNoted(authority)),
            (false, true) if self.pause == Pause::On => Err(Refused::AlreadyPaused),
            (false, true) => Ok(Event::Paused(authority)),
        }
    }

    fn resolve_event(&self, step: String, resolution: Resolution, authority: Authority) -> Result<Event, Refused> {
        let Some(at) = self.plan.position(&step) else { return Err(Refused::UnknownStep { step }) };
        let Stage::Parked { kind, .. } = &self.slots[at].stage else {
            return Err(Refused::NotParked { stage: self.slots[at].stage.as_str(), parked: self.parked(), step });
        };
        let has_check = self.plan.steps()[at].check.is_some();
        let becomes = match (kind, &resolution) {
            (RunKind::Compensate, Resolution::Applied { .. }) => Becomes::Undone,
            (RunKind::Compensate, Resolution::NotApplied | Resolution::Retry) => Becomes::UndoAgain,
            (RunKind::Compensate, Resolution::Skip) => Becomes::Left,
            (_, Resolution::Applied { .. }) => Becomes::Done,
            (_, Resolution::NotApplied) if self.goes_forward() => Becomes::RunAgain,
            (_, Resolution::NotApplied) => Becomes::Failed,
            (_, Resolution::Retry) if has_check && self.slots[at].tainted => Becomes::CheckAgain,
            (_, Resolution::Retry) if self.goes_forward() => Becomes::RunAgain,
            (_, Resolution::Retry) => return Err(Refused::NothingToRetry { step }),
            (_, Resolution::Skip) if self.goes_forward() => Becomes::Skipped,
            (_, Resolution::Skip) => Becomes::Left,
        };
        Ok(Event::Resolved(Resolved { step, resolution, authority, becomes }))
    }
}
