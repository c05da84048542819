//! The transition table: (saga, record) -> saga, or the record is illegal.
//!
//! It is the only place where a saga changes, in live runs and in replays. What must never happen is refused here and
//! not only avoided by the policy in `advance`: a forward start while unwinding, an undo under something still standing,
//! a second undo of what is undone. A journal that says so is damaged, and a program that tries has a bug.

use std::sync::Arc;

use serde_json::Value;

use super::slot::{Slot, Stage, Tally};
use super::state::{Pause, Phase, State, Trees};
use crate::id::RunKind;
use crate::outcome::{Again, Verdict};
use crate::plan::Plan;
use crate::record::{
    Attempt, Because, Becomes, Created, Effect, EndState, Event, Finished, GaveUp, Record, Resolution, Resolved,
};

mod flow;

/// A record that can't follow what is known of the saga.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} can't follow: {fault}")]
pub struct IllegalEvent {
    /// The record's number.
    pub seq: u64,
    /// What it says and why that is impossible.
    pub fault: String,
}

impl State {
    /// The saga that `created` begins, with the plan read from it.
    pub(crate) fn created(at_ms: i64, created: &Created, plan: Arc<Plan>) -> Self {
        let slots = (0..plan.steps().len()).map(Slot::new).collect();
        Self {
            id: created.saga.clone(),
            plan,
            plan_hash: created.plan_hash.clone(),
            context: Arc::new(created.context.clone()),
            params: created.params.clone(),
            phase: Phase::Forward,
            halt: None,
            cancels: 0,
            pause: Pause::Off,
            slots,
            seq: 1,
            created_at_ms: at_ms,
            changed_at_ms: at_ms,
            trees: Trees::Ours,
        }
    }

    /// Makes the record part of the saga.
    ///
    /// # Errors
    /// [`IllegalEvent`] when the table has no such arrow; the saga is then unchanged.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<(), IllegalEvent> {
        let seq = self.seq + 1;
        self.transition(record).map_err(|fault| IllegalEvent { seq, fault })?;
        self.seq = seq;
        self.changed_at_ms = self.changed_at_ms.max(record.at);
        Ok(())
    }

    fn transition(&mut self, record: &Record) -> Result<(), String> {
        if let Phase::Ended(end) = self.phase {
            return Err(format!("the saga ended as {}", end.as_str()));
        }
        match &record.event {
            Event::Created(_) => Err("a saga begins only once".to_owned()),
            Event::Started(run) => self.started(run),
            Event::Finished(finished) => self.finished(finished),
            Event::Lost(run) => self.lost(run),
            Event::NeverStarted(run) => self.never_started(run, record.at),
            Event::Retry(retry) => {
                let stage = Stage::Backoff { kind: retry.kind, due_ms: retry.due };
                self.leave(&retry.step, "be retried", stage, |from| match from {
                    Stage::Faulted { kind, .. } => *kind == retry.kind,
                    Stage::Unknown => retry.kind == RunKind::Forward,
                    _ => false,
                })
            }
            Event::GaveUp(gave_up) => self.gave_up(gave_up),
            Event::Parked(parked) => {
                let stage = Stage::Parked { kind: parked.kind, why: parked.why.clone() };
                self.leave(&parked.step, "be parked", stage, |from| match from {
                    Stage::Faulted { kind, .. } | Stage::Backoff { kind, .. } => *kind == parked.kind,
                    Stage::Waiting | Stage::Unknown | Stage::Spoiled => parked.kind != RunKind::Compensate,
                    _ => false,
                })
            }
            Event::Left(left) => {
                self.must_go_back(&left.step, "leave an effect")?;
                self.leave(&left.step, "be left", Stage::Left, |from| matches!(from, Stage::Done | Stage::Spoiled))
            }
            Event::Resolved(resolved) => self.resolved(resolved, record.at),
            Event::Unwinding(because) => self.unwinding(because),
            Event::Halted(because) => self.halted(because),
            Event::CancelNoted(_) => {
                self.cancels += 1;
                Ok(())
            }
            Event::Paused(_) => self.set_pause(Pause::Off, Pause::On),
            Event::Resumed(_) => self.set_pause(Pause::On, Pause::Off),
            Event::Recovered => {
                self.trees = Trees::Ours;
                Ok(())
            }
            Event::Ended(ended) => self.ended(ended.state),
            Event::Bypassed(bypassed) => self.bypassed(bypassed),
            Event::Slept(slept) => self.slept(slept),
            Event::Rang(rang) => self.rang(rang),
            Event::Asked(asked) => self.asked(asked),
            Event::Voted(voted) => self.voted(voted),
            Event::Decided(decided) => self.decided(decided),
            Event::Spread(spread) => self.spread(spread),
            Event::Gathered(gathered) => self.gathered(gathered),
            Event::Dropped(dropped) => self.dropped(dropped),
        }?;
        self.regroup();
        Ok(())
    }

    fn at(&self, step: &str) -> Result<usize, String> {
        self.position(step).ok_or_else(|| format!("there is no step `{step}`"))
    }

    /// Moves `step` to `to` if `legal` says so of where it stands.
    fn leave(&mut self, step: &str, verb: &str, to: Stage, legal: impl Fn(&Stage) -> bool) -> Result<(), String> {
        let at = self.at(step)?;
        let slot = &mut self.slots[at];
        if !legal(&slot.stage) {
            return Err(format!("step `{step}` can't {verb}: it is {}", slot.stage.as_str()));
        }
        slot.stage = to;
        Ok(())
    }

    fn must_go_back(&self, step: &str, verb: &str) -> Result<(), String> {
        let at = self.at(step)?;
        if self.slot_goes_back(at) {
            return Ok(());
        }
        Err(format!("only a saga that is being undone can {verb}"))
    }

    fn gave_up(&mut self, gave_up: &GaveUp) -> Result<(), String> {
        let stage = match gave_up.effect {
            Effect::Absent => Stage::Failed,
            Effect::Unknown => Stage::Unknown,
        };
        self.leave(&gave_up.step, "be given up", stage, |from| {
            let forward = RunKind::Forward;
            matches!(from, Stage::Waiting | Stage::Unknown | Stage::Spread)
                || matches!(from, Stage::Sleeping { .. } | Stage::Asking { .. })
                || matches!(from, Stage::Faulted { kind, .. } | Stage::Backoff { kind, .. } if *kind == forward)
        })?;
        // With its step, every branch stops to count.
        let at = self.at(&gave_up.step)?;
        self.lose(at, |_| true);
        Ok(())
    }

    fn started(&mut self, run: &Attempt) -> Result<(), String> {
        let at = self.at(&run.step)?;
        let slot = &self.slots[at];
        let legal = match run.kind {
            RunKind::Forward => {
                if !self.slot_goes_forward(at) {
                    return Err(format!("step `{}` would go forward while the saga goes back", run.step));
                }
                let rested = matches!(slot.stage, Stage::Waiting | Stage::Backoff { kind: RunKind::Forward, .. });
                rested && self.ready(at) && self.is_an_effect(at)
            }
            RunKind::Check => matches!(slot.stage, Stage::Unknown | Stage::Backoff { kind: RunKind::Check, .. }),
            RunKind::Compensate => {
                self.must_go_back(&run.step, "undo a step")?;
                let standing = matches!(
                    slot.stage,
                    Stage::Done | Stage::Spoiled | Stage::Unknown | Stage::Backoff { kind: RunKind::Compensate, .. }
                );
                standing && self.free_to_undo(at) && slot.branches.is_none()
            }
        };
        let next = slot.tally(run.kind).attempt + 1;
        if !legal || run.attempt != next {
            let (kind, stage) = (run.kind.as_str(), slot.stage.as_str());
            return Err(format!("{kind} attempt {} of step `{}`, which is {stage}", run.attempt, run.step));
        }
        let slot = &mut self.slots[at];
        slot.tally_mut(run.kind).attempt = run.attempt;
        slot.stage = Stage::InFlight { kind: run.kind, attempt: run.attempt };
        Ok(())
    }

    /// The slot of a run that must be in flight.
    fn flying(&mut self, run: &Attempt) -> Result<&mut Slot, String> {
        let at = self.at(&run.step)?;
        let slot = &mut self.slots[at];
        if slot.stage != (Stage::InFlight { kind: run.kind, attempt: run.attempt }) {
            let (kind, stage) = (run.kind.as_str(), slot.stage.as_str());
            return Err(format!(
                "no {kind} attempt {} of step `{}` is in flight: it is {stage}",
                run.attempt, run.step
            ));
        }
        Ok(slot)
    }

    fn finished(&mut self, finished: &Finished) -> Result<(), String> {
        let kind = finished.run.kind;
        let slot = self.flying(&finished.run)?;
        slot.tally_mut(kind).struck |= finished.outcome.is_struck();
        let faulted = |again| Stage::Faulted { kind, again };
        slot.stage = match (kind, finished.verdict) {
            (RunKind::Forward, Verdict::Ok) => {
                slot.done(finished.outcome.output.clone());
                Stage::Done
            }
            (RunKind::Forward | RunKind::Check, Verdict::Unusable) => {
                slot.done(Value::Null);
                Stage::Spoiled
            }
            (RunKind::Forward, Verdict::Unknown) => {
                slot.tally_mut(kind).failures += 1;
                slot.tainted = true;
                Stage::Unknown
            }
            (RunKind::Check, Verdict::Applied) => {
                slot.done(finished.outcome.output.get("outputs").cloned().unwrap_or_default());
                Stage::Done
            }
            (RunKind::Check, Verdict::NotApplied) => {
                // The question is answered; whether the step is tried again is up to its own budget.
                slot.tainted = false;
                *slot.tally_mut(kind) = Tally { attempt: finished.run.attempt, ..Tally::default() };
                Stage::Faulted { kind: RunKind::Forward, again: Again::Yes }
            }
            (RunKind::Compensate, Verdict::Ok) => Stage::Undone,
            (RunKind::Forward | RunKind::Compensate, Verdict::FailedForGood) => {
                slot.tally_mut(kind).failures += 1;
                faulted(Again::No)
            }
            (RunKind::Forward | RunKind::Compensate, Verdict::Failed)
            | (RunKind::Compensate, Verdict::Unknown)
            | (RunKind::Check, Verdict::Inconclusive) => {
                slot.tally_mut(kind).failures += 1;
                faulted(Again::Yes)
            }
            (_, verdict) => return Err(format!("a {} run can't end as {verdict:?}", kind.as_str())),
        };
        Ok(())
    }

    fn lost(&mut self, run: &Attempt) -> Result<(), String> {
        let slot = self.flying(run)?;
        slot.tally_mut(run.kind).lost += 1;
        slot.stage = match run.kind {
            RunKind::Forward => {
                slot.tainted = true;
                Stage::Unknown
            }
            RunKind::Check | RunKind::Compensate => Stage::Faulted { kind: run.kind, again: Again::Yes },
        };
        Ok(())
    }

    fn never_started(&mut self, run: &Attempt, at_ms: i64) -> Result<(), String> {
        let slot = self.flying(run)?;
        slot.tally_mut(run.kind).lost += 1;
        slot.stage = Stage::Backoff { kind: run.kind, due_ms: at_ms };
        Ok(())
    }

    fn unwinding(&mut self, because: &Because) -> Result<(), String> {
        if self.phase != Phase::Forward {
            return Err("the saga is being undone already".to_owned());
        }
        if self.past_pivot() {
            return Err("the saga is past its pivot and goes forward only".to_owned());
        }
        self.phase = Phase::Unwinding(because.clone());
        Ok(())
    }

    fn halted(&mut self, because: &Because) -> Result<(), String> {
        if self.phase != Phase::Forward || self.halt.is_some() || self.past_pivot() {
            return Err("the saga can't be halted: it goes back, is halted already, or is past its pivot".to_owned());
        }
        if matches!(because, Because::Cancelled(_)) {
            self.cancels += 1;
        }
        self.halt = Some(because.clone());
        Ok(())
    }

    fn ended(&mut self, end: EndState) -> Result<(), String> {
        let in_flight = self.slots.iter().any(|slot| matches!(slot.stage, Stage::InFlight { .. }));
        let legal = !in_flight
            && match end {
                EndState::Completed => self.phase == Phase::Forward && self.all_done(),
                EndState::Compensated | EndState::PartiallyCompensated => {
                    matches!(self.phase, Phase::Unwinding(_)) && self.all_settled()
                }
                EndState::Abandoned => true,
            };
        if !legal {
            return Err(format!("the saga can't be {}: some step isn't", end.as_str()));
        }
        self.phase = Phase::Ended(end);
        Ok(())
    }

    fn set_pause(&mut self, from: Pause, to: Pause) -> Result<(), String> {
        if self.pause != from {
            return Err("pausing and resuming take turns".to_owned());
        }
        self.pause = to;
        Ok(())
    }

    fn resolved(&mut self, resolved: &Resolved, at_ms: i64) -> Result<(), String> {
        let at = self.at(&resolved.step)?;
        let slot = &mut self.slots[at];
        if !matches!(slot.stage, Stage::Parked { .. }) {
            return Err(format!("step `{}` is not parked: it is {}", resolved.step, slot.stage.as_str()));
        }
        if resolved.resolution == Resolution::NotApplied {
            slot.tainted = false;
        }
        slot.stage = match resolved.becomes {
            Becomes::Done => {
                let given = match &resolved.resolution {
                    Resolution::Applied { output } => output.clone(),
                    _ => Value::Null,
                };
                slot.done(given);
                Stage::Done
            }
            Becomes::Failed => {
                slot.tainted = false;
                Stage::Failed
            }
            Becomes::Undone => Stage::Undone,
            Becomes::Left => Stage::Left,
            Becomes::Skipped => Stage::Skipped,
            Becomes::RunAgain => slot.afresh(RunKind::Forward, at_ms),
            Becomes::UndoAgain => slot.afresh(RunKind::Compensate, at_ms),
            Becomes::CheckAgain => slot.afresh(RunKind::Check, at_ms),
        };
        Ok(())
    }
}

impl Slot {
    fn done(&mut self, output: Value) {
        self.output = output;
        self.tainted = false;
    }

    /// A new retry budget, beginning now. Attempt numbers go on.
    fn afresh(&mut self, kind: RunKind, at_ms: i64) -> Stage {
        let tally = self.tally_mut(kind);
        *tally = Tally { attempt: tally.attempt, ..Tally::default() };
        Stage::Backoff { kind, due_ms: at_ms }
    }
}
