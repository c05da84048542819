//! One experiment as a pure machine: event in, at most one action out.
//!
//! ```text
//! Planned -> CheckingHost -> Interlocks -> Baseline -> Gap? -> Preparing -> Journaling -> Arming -> Injecting -> Acting
//!                |               |            |                    |            |           |          |           |
//!             refused         refused   refused or             refused       refused        +----------+-----------+
//!                                       inconclusive                                                   |
//!  Ended <- Recovering <- Gap? <- Disarming <- Recording <- (UndoingByGuardian) <- Undoing  <----------+
//!                          |
//!                          +-> Preparing (next burst)
//! ```
//!
//! An abort (operator, condition, missing reading, deadline) may come at any time. Before Journaling nothing is in force
//! and the experiment ends; from Journaling on the one way out leads through Undoing. The order journal, guardian,
//! injection is the order of the states: there is no other path to `Inject`.
//!
//! At most one action is under way at a time. Looking ([`Action::CheckHost`], [`Action::Observe`], [`Action::Prepare`])
//! changes nothing and may be given up for the next action; everything else is waited for, within the driver's limits.

mod burst;
mod evidence;
mod sampling;
mod words;

use std::mem;
use std::time::Duration;

pub(crate) use evidence::Evidence;
use sampling::Sampler;
pub use words::{Action, Event};

use crate::interlock::{self, Refusal};
use crate::plan::Plan;
use crate::report::{AbortReason, Moment, Report, UndoState, Verdict};
use crate::score;
use crate::target::Observation;
use crate::undo::{BootId, RunId, Undo, UndoId};

/// How often the target is asked to undo before the guardian is told to.
pub const UNDO_ATTEMPTS: u32 = 3;
/// Between two attempts.
pub const UNDO_PAUSE: Duration = Duration::from_millis(200);
/// How much longer than planned an experiment may take.
pub const OVERRUN: Duration = Duration::from_secs(60);
/// How long after a burst's planned end the guardian undoes it by itself, should the supervisor hang.
pub const GUARDIAN_GRACE: Duration = Duration::from_secs(15);
/// The most lines in the timeline.
pub const MOMENTS_MAX: usize = 512;

#[derive(Debug)]
enum State {
    Planned,
    CheckingHost,
    Interlocks,
    Baseline(Sampler),
    Gap(Sampler),
    Preparing,
    Journaling(Box<Undo>),
    Arming(Box<Undo>),
    Injecting(Box<Undo>),
    Acting(Sampler, Box<Undo>),
    Undoing(Box<Undo>, u32),
    UndoPause(Box<Undo>, u32, Duration),
    UndoingByGuardian(Box<Undo>),
    Recording(UndoId),
    Disarming,
    Recovering(Sampler),
    Ended(Verdict, Vec<String>),
}

type Step = (State, Option<Action>);

/// One run of an experiment.
#[derive(Debug)]
pub struct Experiment {
    plan: Plan,
    run: RunId,
    boot: BootId,
    state: State,
    now: Duration,
    deadline: Option<Duration>,
    /// The burst that is next or under way.
    burst: usize,
    baseline_since: Duration,
    during_since: Duration,
    seen: Evidence,
    abort: Option<AbortReason>,
    refusals: Vec<Refusal>,
    undo: UndoState,
    timeline: Vec<Moment>,
    timeline_dropped: u64,
}

impl Experiment {
    /// An experiment that waits for [`Event::Start`]. `boot` is the present boot.
    pub fn new(plan: Plan, run: RunId, boot: BootId) -> Self {
        Self {
            plan,
            run,
            boot,
            state: State::Planned,
            now: Duration::ZERO,
            deadline: None,
            burst: 0,
            baseline_since: Duration::ZERO,
            during_since: Duration::ZERO,
            seen: Evidence::new(),
            abort: None,
            refusals: Vec::new(),
            undo: UndoState::NothingDone,
            timeline: Vec::new(),
            timeline_dropped: 0,
        }
    }

    /// Takes one event at time `now` (since any fixed origin; a clock that goes backwards stands still here) and says what
    /// to do. Events that don't fit the state change nothing.
    pub fn step(&mut self, event: Event, now: Duration) -> Option<Action> {
        self.now = self.now.max(now);
        if let Event::Abort(reason) = event {
            return self.break_off(AbortReason::Operator { reason });
        }
        if self.deadline.is_some_and(|deadline| self.now >= deadline) {
            self.deadline = None;
            // Where something is under way that must be waited for, this only marks the abort, and the event is taken.
            if let Some(action) = self.break_off(AbortReason::Deadline) {
                return Some(action);
            }
        }
        self.transition(|machine, state| machine.next(state, event))
    }

    /// When the next [`Event::Tick`] is due.
    pub fn wake(&self) -> Option<Duration> {
        let own = match &self.state {
            State::Baseline(sampler) | State::Gap(sampler) | State::Acting(sampler, _) | State::Recovering(sampler) => {
                sampler.wake()
            }
            State::UndoPause(_, _, until) => Some(*until),
            _ => None,
        };
        own.into_iter().chain(self.deadline).min()
    }

    /// What happened so far.
    pub fn timeline(&self) -> &[Moment] {
        &self.timeline
    }

    /// The report, once it has ended.
    pub fn report(&self) -> Option<Report> {
        let State::Ended(verdict, reasons) = &self.state else { return None };
        let steady_state = score::steady_lines(&self.plan, &self.seen);
        Some(Report {
            run: self.run.clone(),
            experiment: self.plan.name.clone(),
            agent: self.plan.agent.clone(),
            fault: self.plan.fault.clone(),
            seed: self.plan.seed,
            bursts: self.plan.bursts.clone(),
            verdict: *verdict,
            reasons: reasons.clone(),
            abort: self.abort.clone(),
            refusals: self.refusals.clone(),
            score: score::least_score(&self.plan, &steady_state),
            steady_state,
            acted: self.seen.acted_everywhere(self.plan.bursts.len()),
            restored: self.seen.restored,
            undo: self.undo.clone(),
            detection: self.seen.detection(),
            recovery: self.seen.recovery(),
            budget_burned: self.seen.budgets_burned(),
            safety_violations: self.seen.safety_violations(),
            duration: self.now,
            timeline: self.timeline.clone(),
            timeline_dropped: self.timeline_dropped,
        })
    }

    fn transition(&mut self, step: impl FnOnce(&mut Self, State) -> Step) -> Option<Action> {
        let state = mem::replace(&mut self.state, State::Planned);
        let (state, action) = step(self, state);
        self.state = state;
        action
    }

    fn next(&mut self, state: State, event: Event) -> Step {
        use Event as E;
        use State as S;
        match (state, event) {
            (S::Planned, E::Start) => self.start(),
            (S::CheckingHost, E::HostChecked(missing)) if missing.is_empty() => (S::Interlocks, Some(self.observe())),
            (S::CheckingHost, E::HostChecked(missing)) => {
                self.refuse(missing.into_iter().map(Refusal::HostLacks).collect())
            }
            (S::Interlocks, E::Observed(now)) => self.interlocks(*now),
            (S::Interlocks, E::ObserveFailed(reason)) => self.refuse(vec![Refusal::Target { reason }]),
            (
                state @ (S::Baseline(_) | S::Gap(_) | S::Acting(..) | S::Recovering(_)),
                event @ (E::Tick | E::Observed(_) | E::ObserveFailed(_)),
            ) => self.sample(state, event),
            (S::Preparing, E::Prepared(entries)) => self.prepared(entries),
            (S::Preparing, E::PrepareRefused(refusal)) => self.give_up(refusal),
            (S::Journaling(undo), E::Journaled) if self.abort.is_some() => self.begin_undo(undo),
            (S::Journaling(undo), E::Journaled) => self.arm(undo),
            (S::Journaling(_), E::JournalFailed(reason)) => self.give_up(Refusal::NotJournaled { reason }),
            (S::Arming(undo), E::GuardianArmed) if self.abort.is_some() => self.begin_undo(undo),
            (S::Arming(undo), E::GuardianArmed) => self.inject(undo),
            (S::Arming(undo), E::GuardianFailed(reason) | E::GuardianEnded(reason)) => {
                self.decline(Refusal::NoGuardian { reason });
                self.begin_undo(undo)
            }
            (S::Injecting(undo), E::Injected) => self.injected(undo),
            (S::Injecting(undo), E::InjectFailed(reason)) => {
                self.seen.injected(self.now);
                self.mark(AbortReason::InjectFailed { reason });
                self.begin_undo(undo)
            }
            (S::Injecting(undo), E::GuardianEnded(reason)) => {
                self.mark(AbortReason::GuardianLost { reason });
                (S::Injecting(undo), None)
            }
            (S::Acting(_, undo), E::GuardianEnded(reason)) => {
                self.mark(AbortReason::GuardianLost { reason });
                self.begin_undo(undo)
            }
            (S::Undoing(undo, _) | S::UndoingByGuardian(undo), E::Undone) => self.undone(&undo),
            (S::Undoing(undo, attempt), E::UndoFailed(reason)) => self.undo_failed(undo, attempt, &reason),
            (S::UndoPause(undo, attempt, until), E::Tick) if self.now >= until => {
                let action = Action::Undo((*undo).clone());
                (S::Undoing(undo, attempt + 1), Some(action))
            }
            (S::UndoingByGuardian(undo), E::UndoFailed(reason)) => self.left_behind(&undo, reason),
            (S::Recording(_), E::Journaled) => (S::Disarming, Some(Action::DisarmGuardian)),
            (S::Recording(id), E::JournalFailed(reason)) => {
                self.note(format!("the undo could not be recorded: {reason}"));
                self.undo = UndoState::NotRecorded { id, reason };
                (S::Disarming, Some(Action::DisarmGuardian))
            }
            (S::Disarming, E::Disarmed) => self.burst_over(),
            (state, _) => (state, None),
        }
    }

    fn start(&mut self) -> Step {
        self.deadline = Some(self.now + self.plan.total() + OVERRUN);
        self.note(format!("{} on {}", self.plan.fault_kind(), self.plan.agent));
        let needs = self.plan.fault_kind().about().needs.to_vec();
        (State::CheckingHost, Some(Action::CheckHost(needs)))
    }

    fn observe(&self) -> Action {
        Action::Observe { look_back: self.plan.windows.look_back }
    }

    fn interlocks(&mut self, now: Observation) -> Step {
        let refusals = interlock::check(&self.plan, &now);
        if !refusals.is_empty() {
            return self.refuse(refusals);
        }
        self.seen.first = Some(now.clone());
        self.seen.last = Some(now);
        self.baseline_since = self.now;
        self.note("interlocks passed; baseline begins");
        let every = self.plan.windows.every;
        (State::Baseline(Sampler::new(self.now, self.plan.windows.baseline, every)), None)
    }

    /// This burst can't begin; nothing of it is in force.
    fn give_up(&mut self, refusal: Refusal) -> Step {
        self.decline(refusal);
        self.settle()
    }

    fn decline(&mut self, refusal: Refusal) {
        if self.seen.injected_at.is_none() {
            self.note(format!("refused: {refusal}"));
            self.refusals.push(refusal);
        } else {
            self.mark(AbortReason::Refused { refusal });
        }
    }

    fn refuse(&mut self, refusals: Vec<Refusal>) -> Step {
        for refusal in refusals {
            self.decline(refusal);
        }
        self.settle()
    }

    /// Ends an experiment in which nothing is in force any more: with one last look if something was.
    fn settle(&mut self) -> Step {
        if self.seen.injected_at.is_none() {
            return self.end();
        }
        let mut sampler = Sampler::new(self.now, Duration::ZERO, self.plan.windows.every);
        sampler.asking = true;
        (State::Recovering(sampler), Some(self.observe()))
    }

    fn end(&mut self) -> Step {
        let lines = score::steady_lines(&self.plan, &self.seen);
        let (verdict, mut reasons) = if let Some(reason) = &self.abort {
            (Verdict::Aborted, vec![reason.to_string()])
        } else if !self.refusals.is_empty() {
            (Verdict::Refused, self.refusals.iter().map(ToString::to_string).collect())
        } else if matches!(self.undo, UndoState::NotUndone { .. }) {
            (Verdict::Fail, Vec::new())
        } else {
            score::judge(&self.plan, &self.seen, &lines)
        };
        if let UndoState::NotUndone { reason, .. } = &self.undo {
            reasons.push(format!("the fault could not be undone: {reason}"));
        }
        self.deadline = None;
        self.note(format!("ended: {verdict}"));
        (State::Ended(verdict, reasons), Some(Action::Finish))
    }

    /// Notes the first reason for breaking off; later ones change nothing.
    fn mark(&mut self, reason: AbortReason) {
        if self.abort.is_none() {
            self.note(format!("aborted: {reason}"));
            self.abort = Some(reason);
        }
    }

    fn break_off(&mut self, reason: AbortReason) -> Option<Action> {
        if matches!(self.state, State::Ended(..)) {
            return None;
        }
        self.mark(reason);
        self.transition(Self::leave)
    }

    /// Leaves a state because of an abort. What must be waited for stays, and its answer finds the abort marked.
    fn leave(&mut self, state: State) -> Step {
        match state {
            State::Planned
            | State::CheckingHost
            | State::Interlocks
            | State::Baseline(_)
            | State::Gap(_)
            | State::Preparing => self.settle(),
            State::Acting(_, undo) => self.begin_undo(undo),
            State::Recovering(sampler) if !sampler.asking => self.settle(),
            state => (state, None),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        if self.timeline.len() < MOMENTS_MAX {
            self.timeline.push(Moment { at: self.now, what: what.into() });
        } else {
            self.timeline_dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests;
