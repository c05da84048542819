//! Performs what the machine decides: the journal first, then the world.
//!
//! One loop per saga. It waits for the end of a run, an operator's word or a due time, asks the machine, appends the
//! records and only then performs the actions and lets anybody see what happened. Several inputs that are ready at once
//! share one append. Runs are tasks of a `JoinSet`, so that dropping the loop drops them; the processes behind them are
//! the business of the caller's [`Steps`].
//!
//! When the journal fails, running steps are ended and the driver gives up: what can't be recorded must not be done. The
//! journal still holds all that was acknowledged, and [`Driver::resume`] goes on from there.

#![expect(
    clippy::disallowed_methods,
    reason = "the driver is where time and chance enter; the machine gets them as arguments"
)]

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use crate::error::{SagaError, StepsError};

use crate::id::{RunId, SagaId};
use crate::inject::{Hook, Onward, Point};
use crate::journal::{Journal, JournalError};
use crate::machine::{self, Command, Fate, Input, Policy, Rest, State, StepError, StepRun, Submission};
use crate::outcome::StepOutcome;
use crate::plan::Plan;
use crate::record::Record;
use crate::replay::replay;
use crate::time::{Draw, Moment};

mod drive;
mod run;

/// Commands of operators that wait for one saga's loop.
const COMMANDS_WAITING_MAX: usize = 16;
/// How often a command is tried again because the saga changed hands under it.
const COMMAND_TRIES_MAX: u32 = 8;

/// The world as the driver needs it. The supervisor implements it with sandboxed processes.
pub trait Steps: Send + Sync + 'static {
    /// Does a piece of work, and returns when nothing of it goes on: of a command, when its whole process tree is empty.
    /// What it is, `run.work().call` says; waits and approvals are the machine's own and never come here. An HTTP answer
    /// is [`Ending::Status`](crate::outcome::Ending), a tool's or agent's error `Errored`, a broken connection `NoAnswer`.
    ///
    /// Dropping the future must not be relied on to end the tree: that is what [`Steps::cancel`] and, after a crash,
    /// [`Steps::verify_empty`] are for. The time limit is the driver's; `run.work().timeout_ms` is for showing.
    fn run(&self, run: StepRun) -> impl Future<Output = StepOutcome> + Send;

    /// Ends a run and returns when its tree is verified empty; at once when it is so already, or never began. The future
    /// of [`Steps::run`] is polled meanwhile, and what it returns after this was called is ignored.
    ///
    /// # Errors
    /// When the tree is not known to be empty. It is tried again a few times.
    fn cancel(&self, run: &RunId) -> impl Future<Output = Result<(), StepsError>> + Send;

    /// After a crash: makes sure that no process of this saga is left, then says what is known of the runs that were in
    /// flight. Those left out are lost.
    ///
    /// # Errors
    /// When that is not known. Nothing is decided then.
    fn verify_empty(
        &self,
        saga: &SagaId,
        in_flight: &[RunId],
    ) -> impl Future<Output = Result<Vec<Fate>, StepsError>> + Send;
}

/// What an observer sees: records that are durable, and where the saga stands after them.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The records just made durable.
    pub records: &'a [Record],
    /// The saga after them.
    pub state: &'a State,
}

/// Called after each append. It must return at once: the saga waits for it.
pub type Observer = Arc<dyn Fn(&Progress<'_>) + Send + Sync>;

/// What a driver needs beside journal and steps.
#[derive(Clone)]
pub struct Settings {
    /// Limits of each saga.
    pub policy: Policy,
    /// Hashes a plan's text: SHA-256 in hex, say. It must stay the same for as long as the journal lives.
    pub digest: fn(&[u8]) -> String,
    /// The jitter of waits.
    pub draw: fn() -> Draw,
    /// Who sees progress: audit, metrics, a progress bar.
    pub observer: Option<Observer>,
    /// Where tests stop it.
    pub hook: Option<Arc<dyn Hook>>,
}

impl Settings {
    /// Defaults with this digest.
    #[must_use]
    pub fn new(digest: fn(&[u8]) -> String) -> Self {
        Self { policy: Policy::default(), digest, draw: || Draw(rand::random()), observer: None, hook: None }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Drives sagas. One per journal and process; share it in an `Arc`.
#[derive(Debug)]
pub struct Driver<J, S> {
    journal: J,
    steps: Arc<S>,
    settings: Settings,
    clock: Clock,
    live: Mutex<HashMap<SagaId, mpsc::Sender<Ask>>>,
}

/// A command on its way to a saga's loop.
#[derive(Debug)]
struct Ask {
    /// Boxed, because a channel makes room for many of them at once.
    command: Box<Command>,
    /// Told once the command is durable or refused.
    reply: oneshot::Sender<Result<(), SagaError>>,
}

impl<J: Journal, S: Steps> Driver<J, S> {
    /// A driver on `journal` that runs steps by `steps`.
    pub fn new(journal: J, steps: Arc<S>, settings: Settings) -> Self {
        Self { journal, steps, settings, clock: Clock::start(), live: Mutex::default() }
    }

    /// The journal.
    pub fn journal(&self) -> &J {
        &self.journal
    }

    /// Begins a saga and drives it until nothing more happens by itself. `context` is whatever the caller needs to know
    /// of it after a crash; it is journaled and given back with every run.
    ///
    /// Dropping the future stops driving, as a crash would.
    ///
    /// # Errors
    /// [`SagaError`]; among them [`JournalError::Conflict`] for an id that was used before.
    pub async fn run(&self, plan: impl Into<Arc<Plan>>, id: SagaId, context: Value) -> Result<Rest, SagaError> {
        self.run_with(plan, id, context, Map::new()).await
    }

    /// The same with parameters.
    ///
    /// # Errors
    /// As [`Driver::run`]; [`SagaError::Params`] when they aren't those that the plan needs.
    pub async fn run_with(
        &self,
        plan: impl Into<Arc<Plan>>,
        id: SagaId,
        context: Value,
        params: Map<String, Value>,
    ) -> Result<Rest, SagaError> {
        let plan = plan.into();
        let params = plan.params(params).map_err(|source| SagaError::Params { saga: id.clone(), source })?;
        let live = self.enter(&id)?;
        let hash = (self.settings.digest)(plan.text().as_bytes());
        let moment = self.moment();
        let submission = Submission { id: id.clone(), plan, plan_hash: hash, context, params };
        let begun = machine::begin(submission, moment, &self.settings.policy);
        let (state, turn) = begun.map_err(|source| SagaError::Illegal { saga: id, source })?;
        drive::Drive::new(self, state, live, moment).drive(turn).await
    }

    /// Takes up a saga where its journal ends: after a crash, a failed journal, or an operator's decision.
    ///
    /// First makes sure that nothing of it runs any more.
    ///
    /// # Errors
    /// [`SagaError`].
    pub async fn resume(&self, id: &SagaId) -> Result<Rest, SagaError> {
        let live = self.enter(id)?;
        let mut state = self.load(id).await?;
        if let Some(rest @ Rest::Ended(_)) = state.rest() {
            return Ok(rest);
        }
        let in_flight = state.in_flight();
        let fates = self.steps.verify_empty(id, &in_flight).await;
        let fates = fates.map_err(|source| SagaError::TreesNotEmpty { saga: id.clone(), source })?;
        let input = if in_flight.is_empty() { Input::Wake } else { Input::Recovered { fates } };
        let moment = self.moment();
        let turn = machine::step(&mut state, input, moment, &self.settings.policy).map_err(|e| error(id, e))?;
        drive::Drive::new(self, state, live, moment).drive(turn).await
    }

    /// Gives an operator's word to a saga, and returns once it is durable.
    ///
    /// A saga that this driver drives acts on it at once. Any other has it in its journal and acts on it when it is
    /// resumed.
    ///
    /// # Errors
    /// [`SagaError::Refused`] when it makes no sense where the saga stands; nothing changed then.
    pub async fn command(&self, id: &SagaId, command: Command) -> Result<(), SagaError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let live = self.live().get(id).cloned();
            if let Some(live) = live {
                let (reply, answer) = oneshot::channel();
                if live.send(Ask { command: Box::new(command.clone()), reply }).await.is_ok()
                    && let Ok(answer) = answer.await
                {
                    return answer;
                }
                // The loop came to rest under us. Its place is free as soon as it has returned.
                if tries < COMMAND_TRIES_MAX {
                    tokio::task::yield_now().await;
                    continue;
                }
                return Err(SagaError::AlreadyDriven { saga: id.clone() });
            }
            match self.command_at_rest(id, command.clone()).await {
                Err(SagaError::Journal { source: JournalError::Conflict { .. }, .. }) if tries < COMMAND_TRIES_MAX => {}
                answer => return answer,
            }
        }
    }

    /// The saga as its journal has it.
    ///
    /// # Errors
    /// [`SagaError::Journal`] or [`SagaError::Replay`].
    pub async fn load(&self, id: &SagaId) -> Result<State, SagaError> {
        let entries = self.journal.load(id.as_str()).await;
        let entries = entries.map_err(|source| SagaError::Journal { saga: id.clone(), source })?;
        replay(&entries, self.settings.digest).map_err(|source| SagaError::Replay { saga: id.clone(), source })
    }

    async fn command_at_rest(&self, id: &SagaId, command: Command) -> Result<(), SagaError> {
        let mut state = self.load(id).await?;
        let after = state.seq();
        let turn = machine::accept(&mut state, Input::Command(command), self.moment()).map_err(|e| error(id, e))?;
        self.append(&state, after, &turn.records).await
    }

    async fn append(&self, state: &State, after: u64, records: &[Record]) -> Result<(), SagaError> {
        self.pass(Point::BeforeAppend { saga: state.id(), after, records })?;
        let lines = records.iter().map(Record::to_text).collect();
        let appended = self.journal.append(state.summary(), after, lines).await;
        appended.map_err(|source| SagaError::Journal { saga: state.id().clone(), source })?;
        if let Some(observer) = &self.settings.observer {
            observer(&Progress { records, state });
        }
        self.pass(Point::AfterAppend { saga: state.id(), after, records })
    }

    fn pass(&self, point: Point<'_>) -> Result<(), SagaError> {
        let onward = self.settings.hook.as_ref().map_or(Onward::GoOn, |hook| hook.reached(&point));
        match onward {
            Onward::GoOn => Ok(()),
            Onward::Stop => Err(SagaError::Stopped { point: point.to_string() }),
        }
    }

    fn moment(&self) -> Moment {
        Moment { now_ms: self.clock.now_ms(), draw: (self.settings.draw)() }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<SagaId, mpsc::Sender<Ask>>> {
        self.live.lock().expect("nobody panics while holding this lock")
    }

    /// Takes the one place that drives a saga.
    fn enter(&self, id: &SagaId) -> Result<Live<'_, J, S>, SagaError> {
        match self.live().entry(id.clone()) {
            Place::Occupied(_) => Err(SagaError::AlreadyDriven { saga: id.clone() }),
            Place::Vacant(place) => {
                let (sender, asks) = mpsc::channel(COMMANDS_WAITING_MAX);
                place.insert(sender);
                Ok(Live { driver: self, id: id.clone(), asks })
            }
        }
    }
}

fn error(saga: &SagaId, error: StepError) -> SagaError {
    let saga = saga.clone();
    match error {
        StepError::Refused(source) => SagaError::Refused { saga, source },
        StepError::Illegal(source) => SagaError::Illegal { saga, source },
    }
}

/// The one place that drives a saga; free again when dropped.
struct Live<'a, J: Journal, S: Steps> {
    driver: &'a Driver<J, S>,
    id: SagaId,
    asks: mpsc::Receiver<Ask>,
}

impl<J: Journal, S: Steps> Drop for Live<'_, J, S> {
    fn drop(&mut self) {
        self.driver.live().remove(&self.id);
    }
}

/// Wall time that doesn't jump while this process lives: read once, then carried on by the monotonic clock. A clock set
/// back or forward moves no deadline of a running saga; a new process reads it anew.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started_ms: i64,
    started: Instant,
}

impl Clock {
    fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX), started: Instant::now() }
    }

    fn now_ms(&self) -> i64 {
        let elapsed_ms = self.started.elapsed().as_millis();
        self.started_ms.saturating_add(i64::try_from(elapsed_ms).unwrap_or(i64::MAX))
    }

    /// When `at_ms` comes, on the clock that waits.
    fn instant(&self, at_ms: i64) -> Instant {
        let wait_ms = at_ms.saturating_sub(self.now_ms()).clamp(0, WAIT_MS_MAX);
        Instant::now() + Duration::from_millis(wait_ms.unsigned_abs())
    }
}

/// No single wait is longer (a day); the loop looks again then.
const WAIT_MS_MAX: i64 = 86_400_000;
