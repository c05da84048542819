//! The policy: what a saga does next by itself.
//!
//! One question, asked until there is no answer: given the saga as it stands, which record comes next? Decisions about
//! what already happened come first (retry, give up, park, turn round), then what may start, then whether it is over.
//! Nothing is remembered between questions, so a saga that was cut off anywhere goes on from its records alone.

use super::slot::Stage;
use super::state::{Pause, Phase, State};
use super::{LOST_MAX, Policy};
use crate::id::RunKind;
use crate::outcome::Again;
use crate::plan::{Call, Class, OnUnknown};
use crate::record::{self, Attempt, Because, Effect, EndState, Ended, Event, GaveUp, Left, Parked};
use crate::time::Moment;

mod flow;

/// How an unknown effect is settled, the saga's direction considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settlement {
    /// Run the step again.
    Rerun,
    /// Ask the check.
    Check,
    /// Turn round, then undo it.
    TurnRound,
    /// Undo it: the saga goes back already.
    Undo,
    /// It reads only: there is nothing to find out.
    Nothing,
    /// Ask an operator.
    Ask,
}

impl State {
    /// The next record, if anything is to be done now.
    pub(super) fn next_event(&self, moment: Moment, policy: &Policy) -> Option<Event> {
        if matches!(self.phase, Phase::Ended(_)) {
            return None;
        }
        if self.deadline_ms().is_some_and(|deadline| deadline <= moment.now_ms) {
            return Some(Event::Halted(Because::Deadline));
        }
        let steps = 0..self.slots.len();
        steps
            .clone()
            .find_map(|at| self.decide(at, moment))
            .or_else(|| self.turn_round())
            .or_else(|| steps.clone().filter(|_| self.pause == Pause::Off).find_map(|at| self.open(at, moment)))
            .or_else(|| self.may_start(policy).then(|| steps.clone().find_map(|at| self.start(at, moment))).flatten())
            .or_else(|| self.end())
    }

    /// What follows from where the step stands, without starting anything.
    fn decide(&self, at: usize, moment: Moment) -> Option<Event> {
        let (slot, step) = (&self.slots[at], self.step(at));
        match slot.stage {
            Stage::Spread => self.gather(at),
            Stage::Sleeping { .. } | Stage::Asking { .. } if !self.goes_forward() => {
                Some(self.give_up(at, "the saga is being undone"))
            }
            Stage::Sleeping { due_ms } => self.ring(at, due_ms, moment),
            Stage::Asking { due_ms } => self.answer(at, due_ms, moment),
            Stage::Faulted { kind: RunKind::Forward, again } => {
                if !self.slot_goes_forward(at) {
                    return Some(self.give_up(at, self.back_word(at)));
                }
                if again == Again::Yes && self.budget_left(at, RunKind::Forward) {
                    return Some(self.retry(at, RunKind::Forward, moment));
                }
                let why = self.exhausted(at, RunKind::Forward);
                Some(if self.past_pivot() { self.park(at, RunKind::Forward, why) } else { self.give_up(at, &why) })
            }
            Stage::Faulted { kind, again } => {
                if again == Again::Yes && self.budget_left(at, kind) {
                    return Some(self.retry(at, kind, moment));
                }
                Some(self.park(at, kind, self.exhausted(at, kind)))
            }
            Stage::Backoff { kind: RunKind::Forward, .. } if !self.slot_goes_forward(at) => {
                Some(self.give_up(at, self.back_word(at)))
            }
            // Before anything starts: a step that can't have its inputs may turn the saga round.
            Stage::Waiting | Stage::Backoff { kind: RunKind::Forward, .. }
                if self.slot_goes_forward(at) && self.ready(at) =>
            {
                self.before_start(at)
            }
            Stage::Failed if slot.branch.is_none() && self.turns_for_failure() => Some(self.unwinding_because_of(at)),
            Stage::Spoiled if self.phase == Phase::Forward && !slot.is_lost() => {
                if self.past_pivot() || self.plan.pivot() == Some(at) {
                    return Some(self.park(
                        at,
                        RunKind::Forward,
                        "it took effect, but its output can't be used".into(),
                    ));
                }
                if slot.branch.is_some() {
                    return Some(self.drop_branch(at, "its output can't be used"));
                }
                Some(self.unwinding_because_of(at))
            }
            Stage::Done | Stage::Spoiled
                if self.slot_goes_back(at)
                    && slot.branches.is_none()
                    && step.compensate.is_none()
                    && step.class != Class::ReadOnly
                    && (slot.is_lost() || self.nothing_built_on(at)) =>
            {
                Some(Event::Left(Left { step: self.name(at), why: "nothing is declared that undoes it".into() }))
            }
            Stage::Unknown => match self.settlement(at) {
                Settlement::Rerun => Some(self.retry(at, RunKind::Forward, moment)),
                Settlement::Nothing => Some(self.give_up(at, "it reads only")),
                Settlement::TurnRound if slot.branch.is_some() && self.goes_forward() => {
                    Some(self.drop_branch(at, "nobody knows whether it took effect"))
                }
                Settlement::TurnRound => Some(self.unwinding_because_of(at)),
                Settlement::Ask => {
                    Some(self.park(at, RunKind::Forward, "nobody knows whether it took effect".to_owned()))
                }
                Settlement::Check | Settlement::Undo => None,
            },
            _ => None,
        }
    }

    fn settlement(&self, at: usize) -> Settlement {
        let step = self.step(at);
        let forward = self.slot_goes_forward(at);
        let struck = self.slots[at].tally(RunKind::Forward).struck;
        if forward && struck && self.past_pivot() {
            return Settlement::Ask;
        }
        if forward && struck && self.plan.pivot() != Some(at) {
            return Settlement::TurnRound;
        }
        if forward {
            match step.on_unknown {
                OnUnknown::Check => return Settlement::Check,
                OnUnknown::Operator => return Settlement::Ask,
                OnUnknown::Compensate => return Settlement::TurnRound,
                OnUnknown::Rerun if self.budget_left(at, RunKind::Forward) => return Settlement::Rerun,
                OnUnknown::Rerun if self.past_pivot() => return Settlement::Ask,
                // The budget is spent. An ordinary step's saga turns round; a pivot first has to say where it stands.
                OnUnknown::Rerun if self.plan.pivot() != Some(at) => return Settlement::TurnRound,
                OnUnknown::Rerun => {}
            }
        }
        // From here on nothing may run forward. A compensation succeeds when there is nothing to undo (it has to: it may
        // be cut off and repeated itself), so it is safe where no check can tell.
        let undo = if self.slot_goes_back(at) { Settlement::Undo } else { Settlement::TurnRound };
        match step.on_unknown {
            _ if step.class == Class::ReadOnly => Settlement::Nothing,
            OnUnknown::Operator => Settlement::Ask,
            OnUnknown::Compensate => undo,
            _ if step.check.is_some() => Settlement::Check,
            _ if step.compensate.is_some() => undo,
            _ => Settlement::Ask,
        }
    }

    /// A halted saga goes back as soon as it is certain that the pivot isn't there.
    fn turn_round(&self) -> Option<Event> {
        let halt = self.halt.as_ref().filter(|_| self.phase == Phase::Forward && !self.past_pivot())?;
        let pivot_open = self.plan.pivot().is_some_and(|at| {
            let stage = &self.slots[at].stage;
            !matches!(stage, Stage::Waiting | Stage::Failed | Stage::Left)
        });
        (!pivot_open).then(|| Event::Unwinding(halt.clone()))
    }

    fn turns_for_failure(&self) -> bool {
        self.phase == Phase::Forward && self.halt.is_none() && !self.past_pivot()
    }

    fn unwinding_because_of(&self, at: usize) -> Event {
        let failed = || Because::Failed { step: self.name(at) };
        Event::Unwinding(self.halt.clone().unwrap_or_else(failed))
    }

    fn may_start(&self, policy: &Policy) -> bool {
        let in_flight = self.slots.iter().filter(|slot| matches!(slot.stage, Stage::InFlight { .. })).count();
        self.pause == Pause::Off && in_flight < policy.parallel.get()
    }

    /// What may start now.
    fn start(&self, at: usize, moment: Moment) -> Option<Event> {
        let slot = &self.slots[at];
        // A due time further away than the longest wait means that the clock was set back: nobody waits for it to return.
        let longest_ms = |kind| i64::try_from(self.work(at, kind).retry.max_ms).unwrap_or(i64::MAX);
        let due =
            |kind, due_ms: i64| due_ms <= moment.now_ms || due_ms.saturating_sub(moment.now_ms) > longest_ms(kind);
        match slot.stage {
            // A wait, a question and a fan-out begin without a run.
            Stage::Waiting | Stage::Backoff { kind: RunKind::Forward, .. } if !self.is_an_effect(at) => None,
            Stage::Waiting if self.slot_goes_forward(at) && self.ready(at) => Some(self.intend(at, RunKind::Forward)),
            Stage::Backoff { kind, due_ms } if due(kind, due_ms) => {
                let waits_for_others = kind == RunKind::Compensate && !self.free_to_undo(at);
                (!waits_for_others).then(|| self.intend(at, kind))
            }
            Stage::Unknown if self.settlement(at) == Settlement::Check => Some(self.intend(at, RunKind::Check)),
            Stage::Unknown | Stage::Done | Stage::Spoiled => {
                let undoes = self.step(at).compensate.is_some() && slot.branches.is_none();
                (undoes && self.free_to_undo(at)).then(|| self.intend(at, RunKind::Compensate))
            }
            _ => None,
        }
    }

    fn end(&self) -> Option<Event> {
        let state = match self.phase {
            Phase::Forward if self.all_done() => EndState::Completed,
            Phase::Unwinding(_) if self.all_settled() => {
                let stays = self.slots.iter().any(|slot| matches!(slot.stage, Stage::Left | Stage::Skipped));
                if stays { EndState::PartiallyCompensated } else { EndState::Compensated }
            }
            _ => return None,
        };
        Some(Event::Ended(Ended { state, authority: None }))
    }

    fn budget_left(&self, at: usize, kind: RunKind) -> bool {
        let tally = self.slots[at].tally(kind);
        tally.failures < self.work(at, kind).retry.attempts && tally.lost < LOST_MAX && !tally.struck
    }

    fn exhausted(&self, at: usize, kind: RunKind) -> String {
        if matches!(self.step(at).forward.call, Call::Approval(_)) {
            return self.refusal(at);
        }
        let tally = self.slots[at].tally(kind);
        let what = match kind {
            RunKind::Forward => "the step",
            RunKind::Check => "its check",
            RunKind::Compensate => "its compensation",
        };
        match tally.lost {
            _ if tally.struck => format!("{what} was killed, and what is killed is not tried again"),
            0 => format!("{what} failed {} of {} times", tally.failures, self.work(at, kind).retry.attempts),
            lost => format!("{what} failed {} times and was cut off by a crash {lost} times", tally.failures),
        }
    }

    fn retry(&self, at: usize, kind: RunKind, moment: Moment) -> Event {
        let failures = self.slots[at].tally(kind).failures;
        let due = self.work(at, kind).retry.due_ms(failures, moment.now_ms, moment.draw.nth(at));
        Event::Retry(record::Retry { step: self.name(at), kind, due })
    }

    fn back_word(&self, at: usize) -> &'static str {
        if self.slots[at].is_lost() {
            "enough other branches are done, or too few can be"
        } else {
            "the saga is being undone"
        }
    }

    fn give_up(&self, at: usize, why: &str) -> Event {
        let unknown = self.slots[at].tainted && self.step(at).class != Class::ReadOnly;
        let effect = if unknown { Effect::Unknown } else { Effect::Absent };
        Event::GaveUp(GaveUp { step: self.name(at), effect, why: why.to_owned() })
    }

    fn park(&self, at: usize, kind: RunKind, why: String) -> Event {
        Event::Parked(Parked { step: self.name(at), kind, why })
    }

    fn intend(&self, at: usize, kind: RunKind) -> Event {
        let attempt = self.slots[at].tally(kind).attempt + 1;
        Event::Started(Attempt { step: self.name(at), kind, attempt })
    }
}
