//! What an operator may say, and what each word means where a saga stands.

use super::slot::Stage;
use super::state::{Pause, Phase, State};
use crate::id::RunKind;
use crate::outcome::OUTPUT_BYTES_MAX;
use crate::plan::Call;
use crate::record::{Authority, Because, Becomes, EndState, Ended, Event, Resolution, Resolved, Vote, Voted};

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
    /// Try all parked steps again, each with a new retry budget.
    Retry,
    /// Answer an approval with yes.
    Approve {
        /// The step.
        step: String,
    },
    /// Answer an approval with no.
    Deny {
        /// The step.
        step: String,
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
    /// Nobody asks about this step, or not any more.
    #[error("step `{step}` does not wait for an approval (it is {stage})")]
    NotAsking {
        /// The step.
        step: String,
        /// Where it stands.
        stage: &'static str,
        /// The steps that do.
        asking: Vec<String>,
    },
    /// It is others who have to agree.
    #[error("{by} is not asked about step `{step}`: {} are", .who.join(", "))]
    NotAsked {
        /// The step.
        step: String,
        /// Who answered.
        by: String,
        /// Who may.
        who: Vec<String>,
    },
    /// One answer each.
    #[error("{by} has answered already")]
    AnsweredAlready {
        /// Who.
        by: String,
    },
    /// The operator's output doesn't fit what the step declares.
    #[error("this output of step `{step}` can't be used: {fault}")]
    BadOutput {
        /// The step.
        step: String,
        /// What is wrong with it.
        fault: String,
    },
    /// There is nothing to try again.
    #[error("no step waits for an operator")]
    NothingParked,
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
    /// The records that a command amounts to.
    pub(super) fn command_events(&self, command: Command) -> Result<Vec<Event>, Refused> {
        let Command { order: Order::Retry, authority } = command else { return Ok(vec![self.command_event(command)?]) };
        if let Phase::Ended(end) = self.phase {
            return Err(Refused::Ended(end));
        }
        let parked = self.parked();
        if parked.is_empty() {
            return Err(Refused::NothingParked);
        }
        let retry = |step| self.resolve_event(step, Resolution::Retry, authority.clone());
        // One of them that can't be tried again is no reason to leave the others.
        let mut first_refusal = None;
        let events: Vec<Event> = (parked.into_iter())
            .filter_map(|step| retry(step).map_err(|refused| first_refusal.get_or_insert(refused).clone()).ok())
            .collect();
        match first_refusal {
            Some(refused) if events.is_empty() => Err(refused),
            _ => Ok(events),
        }
    }

    fn command_event(&self, command: Command) -> Result<Event, Refused> {
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
            Order::Retry => Err(Refused::NothingParked),
            Order::Approve { step } => self.vote_event(step, Vote::Approve, authority),
            Order::Deny { step } => self.vote_event(step, Vote::Deny, authority),
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
        let Some(at) = self.position(&step) else { return Err(Refused::UnknownStep { step }) };
        let Stage::Parked { kind, .. } = &self.slots[at].stage else {
            return Err(Refused::NotParked { stage: self.slots[at].stage.as_str(), parked: self.parked(), step });
        };
        if let (RunKind::Forward | RunKind::Check, Resolution::Applied { output }) = (kind, &resolution) {
            let schema = self.step(at).output_schema.as_ref().filter(|_| self.step(at).each.is_none());
            let bytes = output.to_string().len();
            let fault = match schema.map(|schema| schema.check(output)) {
                _ if bytes > OUTPUT_BYTES_MAX => Some(format!("it has {bytes} bytes, the limit is {OUTPUT_BYTES_MAX}")),
                Some(Err(fault)) => Some(fault),
                _ => None,
            };
            if let Some(fault) = fault {
                return Err(Refused::BadOutput { step, fault });
            }
        }
        let has_check = self.step(at).check.is_some();
        let forward = self.slot_goes_forward(at);
        let becomes = match (kind, &resolution) {
            (RunKind::Compensate, Resolution::Applied { .. }) => Becomes::Undone,
            (RunKind::Compensate, Resolution::NotApplied | Resolution::Retry) => Becomes::UndoAgain,
            (RunKind::Compensate, Resolution::Skip) => Becomes::Left,
            (_, Resolution::Applied { .. }) => Becomes::Done,
            (_, Resolution::NotApplied) if forward => Becomes::RunAgain,
            (_, Resolution::NotApplied) => Becomes::Failed,
            (_, Resolution::Retry) if has_check && self.slots[at].tainted => Becomes::CheckAgain,
            (_, Resolution::Retry) if forward => Becomes::RunAgain,
            (_, Resolution::Retry) => return Err(Refused::NothingToRetry { step }),
            (_, Resolution::Skip) if forward => Becomes::Skipped,
            (_, Resolution::Skip) => Becomes::Left,
        };
        Ok(Event::Resolved(Resolved { step, resolution, authority, becomes }))
    }

    fn vote_event(&self, step: String, vote: Vote, authority: Authority) -> Result<Event, Refused> {
        let Some(at) = self.position(&step) else { return Err(Refused::UnknownStep { step }) };
        let (slot, call) = (&self.slots[at], &self.step(at).forward.call);
        let (Stage::Asking { .. }, Call::Approval(approval)) = (&slot.stage, call) else {
            let asking = self.asking().map(|(step, _)| step.name.clone()).collect();
            return Err(Refused::NotAsking { stage: slot.stage.as_str(), asking, step });
        };
        if !approval.who.is_empty() && !approval.who.contains(&authority.by) {
            return Err(Refused::NotAsked { step, by: authority.by, who: approval.who.clone() });
        }
        if slot.votes.iter().any(|vote| vote.authority.by == authority.by) {
            return Err(Refused::AnsweredAlready { by: authority.by });
        }
        Ok(Event::Voted(Voted { step, vote, authority }))
    }
}
