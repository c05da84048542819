//! The phases in which readings are taken, and what each reading may lead to.

use std::time::Duration;

use super::evidence::Phase;
use super::{Action, Event, Experiment, State, Step};
use crate::fault::Seen;
use crate::interlock::{self, Refusal};
use crate::plan::Check;
use crate::report::AbortReason;
use crate::target::{Observation, Process, Source};

/// When a phase takes its readings: every so often, and once more exactly at its end.
#[derive(Debug)]
pub(super) struct Sampler {
    /// When the phase is over.
    end: Duration,
    /// When the next reading is due.
    pub(super) next: Duration,
    /// Between two readings.
    every: Duration,
    /// Whether a reading has been asked for and hasn't come.
    pub(super) asking: bool,
}

impl Sampler {
    pub(super) fn new(now: Duration, length: Duration, every: Duration) -> Self {
        let end = now + length;
        Self { end, next: (now + every).min(end), every, asking: false }
    }

    pub(super) fn wake(&self) -> Option<Duration> {
        (!self.asking).then_some(self.next)
    }
}

impl Experiment {
    /// Takes a tick or a reading in one of the phases that take readings.
    pub(super) fn sample(&mut self, mut state: State, event: Event) -> Step {
        let now = self.now;
        let (State::Baseline(sampler) | State::Gap(sampler) | State::Acting(sampler, _) | State::Recovering(sampler)) =
            &mut state
        else {
            return (state, None);
        };
        let observation = match event {
            Event::Tick if !sampler.asking && now >= sampler.next => {
                sampler.asking = true;
                let action = Action::Observe { look_back: self.plan.windows.look_back };
                return (state, Some(action));
            }
            Event::Observed(observation) if sampler.asking => Some(*observation),
            Event::ObserveFailed(_) if sampler.asking => None,
            _ => return (state, None),
        };
        sampler.asking = false;
        let is_over = now >= sampler.end;
        sampler.next = (now + sampler.every).min(sampler.end);
        if let Some(reason) = self.absorb(&state, observation) {
            self.mark(reason);
        }
        match state {
            // Once broken off, one look after the undo is all that is wanted.
            State::Recovering(_) if is_over || self.abort.is_some() => self.end(),
            state if self.abort.is_some() => self.leave(state),
            state if is_over => self.phase_over(state),
            state => (state, None),
        }
    }

    fn phase_over(&mut self, state: State) -> Step {
        match state {
            State::Baseline(_) => self.baseline_over(),
            State::Gap(_) => self.begin_burst(),
            State::Acting(_, undo) => self.begin_undo(undo),
            state => (state, None),
        }
    }

    /// Goes on only if there is a baseline, it is steady, and everything that allowed the beginning still does.
    fn baseline_over(&mut self) -> Step {
        let values: Vec<_> = (0..self.plan.steady_state.len()).map(|i| self.seen.before.mean(i)).collect();
        if values.iter().any(Option::is_none) {
            return self.end();
        }
        let unsteady = self.plan.steady_state.iter().zip(values).filter_map(|(check, value)| {
            let value = value.filter(|value| !check.holds(*value))?;
            Some(Refusal::NotSteady { check: check.to_string(), value })
        });
        let mut refusals: Vec<_> = unsteady.collect();
        match &self.seen.last {
            Some(now) => refusals.extend(interlock::check(&self.plan, now)),
            None => refusals.push(Refusal::Target { reason: "nothing was observed".to_owned() }),
        }
        if !refusals.is_empty() {
            return self.refuse(refusals);
        }
        self.note("baseline is steady; faulty phase begins");
        self.during_since = self.now;
        self.begin_burst()
    }

    /// Files a reading, and says whether it ends the experiment.
    fn absorb(&mut self, state: &State, observation: Option<Observation>) -> Option<AbortReason> {
        let now = observation.as_ref();
        let is_recovering = matches!(state, State::Recovering(_));
        let (phase, since) = match state {
            State::Baseline(_) => (Phase::Before, self.baseline_since),
            State::Recovering(_) => (Phase::After, self.seen.undone_at.unwrap_or(self.now)),
            _ => (Phase::During, self.during_since),
        };
        if self.now.saturating_sub(since) >= self.plan.windows.look_back {
            self.seen.add(&self.plan, phase, now);
        }
        if let Some(now) = now {
            for what in &now.happened {
                self.note(what.as_str());
            }
            if self.seen.look_for_incident(self.now, now) == Seen::Yes {
                self.note("detected: an incident is open");
            }
            if matches!(state, State::Acting(..)) && self.seen.look_for_fault(&self.plan.fault, now) == Seen::Yes {
                self.note("the fault is seen to act");
            }
        }
        // The last undo may lie before the end of the faulty phase.
        let is_after = is_recovering || self.burst == self.plan.bursts.len();
        if is_after && self.seen.look_for_recovery(&self.plan, self.now, now) == Seen::Yes {
            self.note("the steady state holds again");
        }
        let Some(now) = observation else {
            // Nothing seen at all: whatever an abort stands on is missing.
            return self.plan.abort.first().map(missing).or_else(|| self.plan.max_budget_burn.map(|_| blind()));
        };
        let reason = self.reason_to_abort(&now, is_recovering);
        self.seen.last = Some(now);
        reason
    }

    fn reason_to_abort(&self, now: &Observation, is_recovering: bool) -> Option<AbortReason> {
        if now.process == Some(Process::Killed) {
            return Some(AbortReason::KillSwitch);
        }
        if let Some(refusal) = interlock::standing(&self.plan, now).into_iter().next() {
            return Some(AbortReason::Leave { refusal });
        }
        for check in &self.plan.abort {
            match now.read(&check.source).value() {
                None => return Some(missing(check)),
                Some(value) if check.holds(value) => {
                    return Some(AbortReason::Condition { check: check.to_string(), value });
                }
                Some(_) => {}
            }
        }
        // With the fault gone, breaking off would save no budget.
        if is_recovering { None } else { self.burned_too_much(now) }
    }

    /// A budget that is spent, or of which more was burned than the file allows. One that can't be read any more counts
    /// as burned only if the file sets a bound.
    fn burned_too_much(&self, now: &Observation) -> Option<AbortReason> {
        let first = self.seen.first.as_ref()?;
        first.budgets.iter().find_map(|(slo, before)| {
            let left = now.read(&Source::Budget(slo.clone())).value();
            match (*before, left, self.plan.max_budget_burn) {
                (_, None, Some(_)) => Some(AbortReason::MissingReading { check: format!("budget {slo}") }),
                (Some(before), Some(left), bound) => {
                    let burned = (before - left).max(0.0);
                    let is_over = left <= 0.0 || bound.is_some_and(|bound| burned > bound);
                    is_over.then(|| AbortReason::Budget { slo: slo.clone(), burned })
                }
                _ => None,
            }
        })
    }
}

fn missing(check: &Check) -> AbortReason {
    AbortReason::MissingReading { check: check.to_string() }
}

fn blind() -> AbortReason {
    AbortReason::MissingReading { check: "budgets".to_owned() }
}
