//! The saga as a pure machine: `step(state, input, moment) -> records and actions`.
//!
//! Four parts, each one subject: `state` (what is known), `apply` (the transition table, the only place that changes a
//! saga), `advance` (the policy: what comes next), `command` (what an operator may say). A live step turns an input into
//! records, applies each, and asks the policy for more until it has none; a replay applies the records alone. Both
//! therefore go through one table, and a journal can't say what the program could not do (the shape of steno's saga log).
//!
//! The caller must make the records durable before it performs the actions: then intent stands on disk before its
//! effect, and an outcome and the intents that follow from it share one append.
//!
//! ```text
//! one step, forward                                      retry budget left
//!                                        +----------- Retry <---------------+
//!                                        v                                  |
//!   Waiting --Started--> InFlight(forward) --Finished failed--> Faulted ----+--GaveUp--> Failed
//!                          |    |      \                                    |               \
//!            Finished ok   |    |       --Finished unusable--> Spoiled      +--Parked*       Unwinding
//!                v         |    |
//!               Done       |  no answer (signal, timeout, crash: Lost)
//!                          |    v
//!                          |  Unknown --rerun: Retry--> Backoff --Started--> InFlight(forward)
//!                          |    |  \--check: Started--> InFlight(check) --applied--> Done
//!                          |    |                            \--not applied--> Faulted
//!                          |    |  \--operator: Parked      \--inconclusive--> Faulted(check): Retry or Parked
//!                          |    v
//!                          |  compensate, or ended by the kill switch: Unwinding, then as below
//!                          |                                        * past the pivot, where there is no way back
//! one step, backward (phase Unwinding; everything built on it settled, nothing runs forward)
//!   Done, Spoiled, Unknown --Started--> InFlight(compensate) --ok--> Undone
//!                                         |        ^
//!                                       failed     +--- Backoff <-- Retry --+
//!                                         +---> Faulted --------------------+---> Parked (stuck)
//!   Done --Left--> Left (nothing undoes it)
//!
//! a wait:      Waiting --Slept--> Sleeping --Rang--> Done
//! an approval: Waiting --Asked--> Asking --Voted, Voted, ...; Decided--> Done, or Faulted and given up
//! a condition that doesn't hold: Waiting --Bypassed--> Bypassed (what needs it goes on)
//! a fan-out:   Waiting --Spread--> Spread, and a slot for each branch, which goes as a step does
//!              Spread --Gathered (enough are done)--> Done; --GaveUp (too few can be)--> Failed
//!              branches that don't count, or are Dropped, go backward as above, whichever way the saga goes
//!
//! the saga
//!   Forward --all done--> completed
//!      |  \--Halted (cancel, deadline): running steps are ended; a pivot in flight is waited for
//!      v
//!   Unwinding (a step failed, or halted) --all settled--> compensated | partially_compensated
//!   either of them, every way on parked: stuck; `Resolved` goes on; `Ended` by an operator: abandoned
//! ```

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use apply::IllegalEvent;
pub use command::{Command, Order, Refused};
pub use slot::{Slot, Stage};
pub use state::{Pause, Phase, Rest, State};

use crate::id::{IdempotencyKey, RunId, RunKind, SagaId};
use crate::outcome::{Ending, StepOutcome, Verdict};
use crate::plan::{Plan, Step, Work};
use crate::record::{Attempt, Because, Created, Event, Finished, Gathered, GaveUp, Record};
use crate::time::Moment;
use state::Trees;

mod advance;
mod apply;
mod command;
mod slot;
mod state;
mod values;

/// How many runs of one retry budget a crash may cut off before an operator has to look: a step that takes its
/// supervisor down with it must not do so for ever.
pub const LOST_MAX: u32 = 16;

/// The most records that may follow from one moment, for each step: no step goes through more stages without waiting.
const RECORDS_PER_STEP_MAX: usize = 16;

/// How many steps of one saga run at once when nothing is said.
pub const PARALLEL_DEFAULT: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not 0");

/// What may change between runs of one saga; none of it is journaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The most commands of one saga in flight.
    pub parallel: NonZeroUsize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { parallel: PARALLEL_DEFAULT }
    }
}

/// Everything that can wake a saga.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Time has passed.
    Wake,
    /// A run ended, and its tree is empty.
    Finished {
        /// Which.
        run: RunId,
        /// How.
        outcome: StepOutcome,
    },
    /// After a crash: the trees of all runs in flight are verified empty. Those without a fate are lost.
    Recovered {
        /// What is known of them.
        fates: Vec<Fate>,
    },
    /// An operator's word.
    Command(Command),
}

/// What became of a run whose supervisor died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// The run.
    pub run: RunId,
    /// Its end.
    pub end: FateEnd,
}

/// The end of a run whose supervisor died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FateEnd {
    /// It never began: certain, not merely likely.
    NeverStarted,
    /// Its outcome was kept somewhere.
    Finished(StepOutcome),
    /// Nobody knows.
    Lost,
}

/// What to do once the records are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Run a command.
    Run(Box<StepRun>),
    /// End a run, wait until its tree is empty, then report it.
    End(RunId),
}

/// A piece of work to do, with all that it needs.
#[derive(Clone, PartialEq)]
pub struct StepRun {
    /// Saga, step, kind and attempt. A branch of a fan-out is called `STEP.NUMBER`.
    pub id: RunId,
    /// The same over all attempts.
    pub key: IdempotencyKey,
    /// The step's inputs.
    pub inputs: Map<String, Value>,
    /// What the forward run gave, for a compensation.
    pub output: Value,
    /// What the caller stored with the saga.
    pub context: Arc<Value>,
    plan: Arc<Plan>,
    /// The step's position in the plan.
    at: usize,
}

impl StepRun {
    /// The step in the plan.
    #[must_use]
    pub fn step(&self) -> &Step {
        &self.plan.steps()[self.at]
    }

    /// What to do, its ring, workdir, environment, secrets and time limit.
    #[must_use]
    pub fn work(&self) -> &Work {
        self.step().work(self.id.kind)
    }

    /// The saga's own ring ceiling.
    #[must_use]
    pub fn ceiling(&self) -> Option<u8> {
        self.plan.ring()
    }
}

impl std::fmt::Debug for StepRun {
    /// Inputs and outputs are left out: they may be secret, and they may be large.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepRun").field("id", &self.id.to_string()).field("work", self.work()).finish_non_exhaustive()
    }
}

/// What came of an input.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Turn {
    /// To be appended after the last record, in this order, all or none.
    pub records: Vec<Record>,
    /// To be performed then, never before.
    pub actions: Vec<Action>,
}

/// Why an input led to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It was not acceptable. The saga is unchanged.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The policy proposed what the table forbids: a bug here. The state must be dropped and replayed.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
}

/// A saga to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// Its id, never used before.
    pub id: SagaId,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// The hash of the plan's text, by the caller's digest.
    pub plan_hash: String,
    /// What the caller needs to know of it after a crash; given back with every run.
    pub context: Value,
    /// Its parameters, as [`Plan::params`] completed them.
    pub params: Map<String, Value>,
}

/// Begins a saga.
///
/// # Errors
/// [`IllegalEvent`] never happens but for a bug.
pub fn begin(submission: Submission, moment: Moment, policy: &Policy) -> Result<(State, Turn), IllegalEvent> {
    let Submission { id, plan, plan_hash, context, params } = submission;
    let created = Created { saga: id, plan_hash, plan: plan.text().to_owned(), context, params };
    let version = plan.version();
    let mut state = State::created(moment.now_ms, &created, plan);
    let mut first = Record::new(moment.now_ms, Event::Created(created));
    first.v = first.v.max(version);
    let mut turn = Turn { records: vec![first], actions: Vec::new() };
    turn.advance(&mut state, moment, policy)?;
    Ok((state, turn))
}

/// Takes one input and everything that follows from it: [`accept`], then [`Turn::advance`].
///
/// # Errors
/// [`StepError::Refused`] when the input makes no sense now; the saga is unchanged.
pub fn step(state: &mut State, input: Input, moment: Moment, policy: &Policy) -> Result<Turn, StepError> {
    let mut turn = accept(state, input, moment)?;
    turn.advance(state, moment, policy)?;
    Ok(turn)
}

/// Takes an input and nothing that follows from it: for a command to a saga that nobody drives at the moment, and for
/// inputs that share one append. Of those, all must be accepted before anything follows from any: else one would start
/// a step forward and the next, in the same append, turn the saga round.
///
/// # Errors
/// As [`step`].
pub fn accept(state: &mut State, input: Input, moment: Moment) -> Result<Turn, StepError> {
    let mut turn = Turn::default();
    if state.trees == Trees::Unverified && !matches!(input, Input::Recovered { .. } | Input::Command(_)) {
        return Err(Refused::TreesNotVerified.into());
    }
    match input {
        Input::Wake => {}
        Input::Finished { run, outcome } => {
            let finished = state.finished_event(&run, outcome)?;
            turn.commit(state, moment, finished)?;
        }
        Input::Recovered { fates } => {
            if let Phase::Ended(end) = state.phase {
                return Err(Refused::Ended(end).into());
            }
            turn.commit(state, moment, Event::Recovered)?;
            for run in state.in_flight() {
                let end = fates.iter().find(|fate| fate.run == run).map(|fate| fate.end.clone());
                let attempt = || Attempt { step: run.step.clone(), kind: run.kind, attempt: run.attempt };
                let event = match end.unwrap_or(FateEnd::Lost) {
                    FateEnd::NeverStarted => Event::NeverStarted(attempt()),
                    FateEnd::Lost => Event::Lost(attempt()),
                    FateEnd::Finished(outcome) => state.finished_event(&run, outcome)?,
                };
                turn.commit(state, moment, event)?;
            }
        }
        Input::Command(command) => {
            for event in state.command_events(command)? {
                turn.commit(state, moment, event)?;
            }
        }
    }
    Ok(turn)
}

impl Turn {
    /// Adds what was accepted later: both share one append.
    pub fn join(&mut self, later: Self) {
        self.records.extend(later.records);
        self.actions.extend(later.actions);
    }

    /// Adds what follows: asks the policy until it has nothing more to say.
    ///
    /// # Errors
    /// [`IllegalEvent`] never happens but for a bug.
    pub fn advance(&mut self, state: &mut State, moment: Moment, policy: &Policy) -> Result<(), IllegalEvent> {
        let mut records = 0;
        // A step that fans out brings more along.
        while records < state.slots.len() * RECORDS_PER_STEP_MAX {
            match state.next_event(moment, policy) {
                Some(event) => self.commit(state, moment, event)?,
                None => return Ok(()),
            }
            records += 1;
        }
        Err(IllegalEvent { seq: state.seq + 1, fault: "the policy comes to no end".to_owned() })
    }

    fn commit(&mut self, state: &mut State, moment: Moment, event: Event) -> Result<(), IllegalEvent> {
        // A clock that went back must not make a history that goes back.
        let record = Record::new(moment.now_ms.max(state.changed_at_ms), event);
        state.apply(&record)?;
        match &record.event {
            Event::Started(attempt) => self.actions.push(Action::Run(Box::new(state.run(attempt)))),
            Event::Gathered(Gathered { step, .. }) | Event::GaveUp(GaveUp { step, .. }) => {
                self.actions.extend(state.losers_to_end(step).map(Action::End));
            }
            Event::Halted(Because::Cancelled(_) | Because::Deadline) => {
                self.actions.extend(state.runs_to_end().map(Action::End));
            }
            _ => {}
        }
        self.records.push(record);
        Ok(())
    }
}

impl State {
    /// The record of a run's end, judged by today's rules.
    fn finished_event(&self, run: &RunId, outcome: StepOutcome) -> Result<Event, Refused> {
        let no_such_run = || Refused::NoSuchRun { run: run.to_string() };
        let at = self.position(&run.step).filter(|_| run.saga == self.id).ok_or_else(no_such_run)?;
        if self.slots[at].stage != (Stage::InFlight { kind: run.kind, attempt: run.attempt }) {
            return Err(no_such_run());
        }
        let mut outcome = outcome.within_limits();
        let mut verdict = Verdict::of(run.kind, &outcome, &self.work(at, run.kind).retry);
        if let Some(fault) = self.misshapen(at, run.kind, verdict, &outcome) {
            verdict = Verdict::Unusable;
            outcome.ending = Ending::BadOutput { reason: format!("its output has not the declared shape: {fault}") };
        }
        let run = Attempt { step: run.step.clone(), kind: run.kind, attempt: run.attempt };
        Ok(Event::Finished(Finished { run, verdict, outcome }))
    }

    /// What is wrong with the shape of what a step gave.
    fn misshapen(&self, at: usize, kind: RunKind, verdict: Verdict, outcome: &StepOutcome) -> Option<String> {
        let schema = self.step(at).output_schema.as_ref()?;
        match (kind, verdict) {
            (RunKind::Forward, Verdict::Ok) => schema.check(&outcome.output).err(),
            (RunKind::Check, Verdict::Applied) => {
                schema.check(outcome.output.get("outputs").unwrap_or(&Value::Null)).err()
            }
            _ => None,
        }
    }

    fn work(&self, at: usize, kind: RunKind) -> &Work {
        self.step(at).work(kind)
    }

    fn run(&self, attempt: &Attempt) -> StepRun {
        let at = self.position(&attempt.step).expect("the table took the attempt, so its step exists");
        StepRun {
            id: self.run_id(&attempt.step, attempt.kind, attempt.attempt),
            key: IdempotencyKey::of(&self.id, &attempt.step, attempt.kind),
            // A compensation runs whatever became of its inputs: going back must not fail for want of data.
            inputs: self.inputs(at).unwrap_or_default(),
            output: self.slots[at].output.clone(),
            context: self.context.clone(),
            plan: self.plan.clone(),
            at: self.slots[at].of,
        }
    }

    /// What runs of the branches of `step` that don't count any more.
    fn losers_to_end(&self, step: &str) -> impl Iterator<Item = RunId> {
        let branches = self.position(step).and_then(|at| self.slots[at].branches.clone()).unwrap_or_default();
        let losers = branches.filter(|at| self.slots[*at].is_lost());
        losers.filter_map(|at| self.flying_run(at)).filter(|run| run.kind == RunKind::Forward)
    }

    /// What a halt ends: forward runs, but not the pivot's. Checks and compensations run on.
    fn runs_to_end(&self) -> impl Iterator<Item = RunId> {
        let pivot = self.plan.pivot().map(|at| self.plan.steps()[at].name.as_str());
        let ends = move |run: &RunId| run.kind == RunKind::Forward && Some(run.step.as_str()) != pivot;
        self.in_flight().into_iter().filter(ends)
    }
}
