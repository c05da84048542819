//! The sagas of a running supervisor: begun, taken up, stopped in order, given an operator's word.
//!
//! Each is driven by a task of its own beside the loop. Whoever asked for it hears its lines and may stop it: then what runs
//! is ended, its outcome unrecorded, and the saga can be taken up again, exactly as after a crash. A supervisor that ends
//! lets go of all of them the same way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use agt_saga::driver::{Driver, Observer, Progress, SagaError, Settings};
use agt_saga::id::SagaId;
use agt_saga::journal::{JournalError, Scope};
use agt_saga::machine::{Command, Rest};
use agt_saga::plan::Plan;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::audience::Audience;
pub use super::audience::Listener;
use super::crash::CrashAt;
use super::file::{self, Commands, Context};
use super::host::{self, HostError, digest, saga_code};
use super::journal::AuditedJournal;
use super::noticing::Told;
use super::steps::ProcessSteps;
use crate::config::{Color, Surroundings};
use crate::dirs::Dirs;
use crate::driver::Handle;
use crate::driver::event::Refusal;
use crate::driver::ground::Ground;
use crate::driver::sagas::{Begins, Guests, Newcomer, Seat};
use crate::store::Store;

/// The driver as the program has it.
pub type SagaDriver = Driver<AuditedJournal, ProcessSteps>;

/// Sagas that are driven at once; one more is refused and may try again.
pub const DRIVEN_MAX: usize = 1024;
/// Unfinished sagas that are taken up at once at a start; the others follow as these come to rest.
const RESUMED_AT_ONCE: usize = 64;
/// Lines that wait for a listener; what it is too slow for is in the journal and the log.
pub const LINES_MAX: usize = 1024;

/// Clones share one.
#[derive(Debug, Clone)]
pub struct Sagas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    driver: SagaDriver,
    steps: Arc<ProcessSteps>,
    handle: Handle,
    guests: Guests,
    audience: Arc<Audience>,
    /// Told to each saga: let go.
    ending: watch::Sender<Ending>,
    resumes: Arc<Semaphore>,
    closed: AtomicBool,
    /// With what sagas are taken up that nobody drives; unset where this supervisor takes up none.
    takes_up: OnceLock<(Dirs, Surroundings)>,
}

/// Which sagas are to be let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ending {
    /// How often all that were driven at the time were.
    rounds: u64,
}

/// A saga that is to be driven.
#[derive(Debug)]
pub struct Submission {
    /// Its id.
    pub id: SagaId,
    /// Its commands, resolved with the rights of whoever submits it.
    pub commands: Commands,
    /// From where.
    pub from: From,
}

/// Where a saga starts from.
#[derive(Debug)]
pub enum From {
    /// From its beginning, with what is journaled with it.
    TheBeginning(Box<Plan>, Context),
    /// From where its journal ends.
    ItsJournal,
}

/// How driving ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driven {
    /// Where nothing more happens by itself: the exit code for that.
    Rests {
        /// 0 completed, 1 compensated, ...
        code: u8,
    },
    /// It was stopped and can be taken up again.
    Stopped,
}

/// Why a saga is not driven to where it rests.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The governor or the supervisor says no.
    #[error("{0}")]
    Refused(Refusal),
    /// Too many.
    #[error("{DRIVEN_MAX} sagas are driven already: try again when one has ended")]
    TooMany,
    /// The engine gave up.
    #[error(transparent)]
    Saga(#[from] SagaError),
}

impl DriveError {
    /// The exit code for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            DriveError::Refused(refusal) => crate::control::handoff::refusal_code(refusal),
            DriveError::TooMany => crate::exit::TRY_AGAIN,
            DriveError::Saga(error) => saga_code(error),
        }
    }
}

/// What is known of a saga while it is driven; forgotten when dropped.
struct Stay<'a> {
    inner: &'a Inner,
    id: SagaId,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.inner.audience.leave(&self.id);
        self.inner.steps.forget(&self.id);
    }
}

impl Sagas {
    /// The sagas of the supervisor behind `handle`.
    #[must_use]
    pub fn new(handle: Handle, store: Store, ground: &Arc<Ground>, dirs: &Dirs, crash_at: Option<u64>) -> Sagas {
        let audience = Arc::<Audience>::default();
        let told = Told::new(store.clone(), handle.clone(), Arc::clone(&audience));
        let steps = Arc::new(ProcessSteps::new(ground, handle.clone(), told, dirs.logs()));
        let mut settings = Settings::new(digest);
        let (hears, to) = (Arc::clone(&audience), handle.clone());
        let observer: Observer = Arc::new(move |seen: &Progress<'_>| hears.hear(seen, &to));
        settings.observer = Some(observer);
        settings.hook = crash_at.map(|number| Arc::new(CrashAt::new(number)) as Arc<_>);
        let uid = nix::unistd::getuid().as_raw();
        let driver = Driver::new(AuditedJournal::new(store, uid), Arc::clone(&steps), settings);
        let (ending, resumes) = (watch::Sender::default(), Arc::new(Semaphore::new(RESUMED_AT_ONCE)));
        let (guests, closed) = (Guests::default(), AtomicBool::new(false));
        let takes_up = OnceLock::new();
        Sagas(Arc::new(Inner { driver, steps, handle, guests, audience, ending, resumes, closed, takes_up }))
    }

    /// For the loop: while these are seated, it stays.
    #[must_use]
    pub fn guests(&self) -> Guests {
        self.0.guests.clone()
    }

    /// Their processes.
    #[must_use]
    pub fn steps(&self) -> &Arc<ProcessSteps> {
        &self.0.steps
    }

    /// A seat for a saga that is about to be driven: from here on the supervisor stays for it.
    #[must_use]
    pub fn seat(&self, name: &str) -> Seat {
        self.0.guests.seat(name, &self.0.handle)
    }

    /// Drives a saga until it rests or `stop` becomes true (or its sender goes away).
    ///
    /// # Errors
    /// [`DriveError`]; nothing was begun when it is a refusal.
    pub async fn drive(
        &self,
        submission: Submission,
        listener: Listener,
        mut stop: watch::Receiver<bool>,
        seat: Seat,
    ) -> Result<Driven, DriveError> {
        let inner = &*self.0;
        let Submission { id, commands, from } = submission;
        let mut ending = inner.ending.subscribe();
        if inner.closed.load(Ordering::SeqCst) {
            return Err(DriveError::Refused(Refusal::Ending));
        }
        if inner.guests.count() > DRIVEN_MAX {
            return Err(DriveError::TooMany);
        }
        self.take_up(&id, &commands, &from).await?;
        let _stay = self.stay(&id, commands, listener)?;
        let driving = async {
            match from {
                From::TheBeginning(plan, context) => {
                    let context = serde_json::to_value(&context).unwrap_or(Value::Null);
                    inner.driver.run(*plan, id.clone(), context).await
                }
                From::ItsJournal => inner.driver.resume(&id).await,
            }
        };
        let mut driving = std::pin::pin!(driving);
        let rests = |rest: Rest| Driven::Rests { code: rest.exit_code() };
        tokio::select! {
            rest = &mut driving => return Ok(rests(rest?)),
            _ = stop.wait_for(|stop| *stop) => {}
            _ = ending.changed() => {}
        }
        let driven = tokio::select! {
            rest = &mut driving => Ok(rests(rest?)),
            gone = inner.steps.let_go(&id) => {
                if let Err(e) = gone {
                    eprintln!("error: {id}: what ran could not be ended; the next start will: {e}");
                }
                Ok(Driven::Stopped)
            }
        };
        drop(seat);
        driven
    }

    /// Its place here, which another that drives the same saga would have.
    fn stay(&self, id: &SagaId, commands: Commands, listener: Listener) -> Result<Stay<'_>, SagaError> {
        if !self.0.audience.enter(id, listener) {
            return Err(SagaError::AlreadyDriven { saga: id.clone() });
        }
        self.0.steps.adopt(id.clone(), commands);
        Ok(Stay { inner: &self.0, id: id.clone() })
    }

    async fn take_up(&self, id: &SagaId, commands: &Commands, from: &From) -> Result<(), DriveError> {
        // A saga that is over has no commands left, and needs nobody's leave to say how it ended.
        let Some(plan) = commands.values().next().cloned() else { return Ok(()) };
        let (begins, plan_hash) = match from {
            From::TheBeginning(saga, _) => (Begins::Anew, digest(saga.text().as_bytes())),
            From::ItsJournal => (Begins::Again, id.to_string()),
        };
        let newcomer = Newcomer { plan, plan_hash, begins };
        self.0.handle.take_up_saga(newcomer).await.map_err(DriveError::Refused)
    }

    /// An operator's word; durable when this returns.
    ///
    /// # Errors
    /// [`SagaError`].
    pub async fn command(&self, id: &SagaId, command: Command) -> Result<(), SagaError> {
        self.0.driver.command(id, command).await
    }

    /// Lets go of all that are driven now; they can be taken up again.
    pub fn let_go(&self) {
        self.0.ending.send_modify(|ending| ending.rounds += 1);
    }

    /// The same, and drives no more.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.let_go();
    }

    /// The ids of all that are driven now.
    #[must_use]
    pub fn driven(&self) -> Vec<SagaId> {
        self.0.audience.sagas()
    }

    /// Takes up every unfinished saga of the store, without asking; says so of each, and names those that an operator has to
    /// settle first. The ground was swept: nothing of them runs. From here on, one that an operator settles goes on too.
    pub fn resume_unfinished(&self, dirs: &Dirs, around: &Surroundings) {
        // Set once: a supervisor starts once.
        let _ = self.0.takes_up.set((dirs.clone(), around.clone()));
        // A list that can't be read is the store's trouble, which opening it has reported.
        for waiting in host::list(dirs, Scope::Unfinished).unwrap_or_default() {
            if let Err(why) = self.resume_one(dirs, around, &waiting.id) {
                eprintln!("warning: saga {} is {} and can't be taken up: {why}", waiting.id, waiting.state);
            }
        }
    }

    /// Takes up a saga that nobody drives, if this supervisor takes up any. Whether it is driven now. Blocks: it reads the journal.
    #[must_use]
    pub fn go_on(&self, id: &SagaId) -> bool {
        let is_driven = || self.driven().contains(id);
        let Some((dirs, around)) = self.0.takes_up.get().filter(|_| !is_driven()) else { return is_driven() };
        match self.resume_one(dirs, around, id.as_str()) {
            Ok(taken) => taken,
            Err(why) => {
                eprintln!("warning: saga {id} can't be taken up: {why}");
                false
            }
        }
    }

    /// Whether it is taken up.
    fn resume_one(&self, dirs: &Dirs, around: &Surroundings, id: &str) -> Result<bool, ResumeError> {
        let Some((state, _)) = host::read(dirs, id).map_err(Box::new)? else { return Ok(false) };
        match state.rest() {
            Some(Rest::Ended(_)) => return Ok(false),
            Some(Rest::Stuck) => {
                eprintln!(
                    "note: saga {id} is stuck and waits for an operator: `agt-supervise saga show {id}` says why"
                );
                return Ok(false);
            }
            Some(Rest::Paused) | None => {}
        }
        let context: Context = serde_json::from_value(state.context().clone())?;
        let commands = file::commands(state.plan(), &context, around, None)
            .map_err(|e| ResumeError::Commands(e.render(Color::Never)))?;
        eprintln!("note: saga {id} is taken up where it stood ({})", state.word());
        let (sagas, seat) = (self.clone(), self.seat(state.plan().name()));
        let submission = Submission { id: SagaId::new(id), commands, from: From::ItsJournal };
        tokio::spawn(async move {
            // Nobody closes it.
            let Ok(_turn) = Arc::clone(&sagas.0.resumes).acquire_owned().await else { return };
            // Held to the end: nobody but the supervisor's own end stops it.
            let (_hold, stop) = watch::channel(false);
            let id = submission.id.clone();
            match sagas.drive(submission, Listener::Stderr(Color::Never), stop, seat).await {
                Ok(Driven::Rests { code }) => eprintln!("note: saga {id} has come to rest (exit code {code})"),
                Ok(Driven::Stopped) => {}
                // An operator's `saga resume` came first.
                Err(DriveError::Saga(e)) if is_busy(&e) => {}
                Err(e) => eprintln!("error: saga {id}: {e}"),
            }
        });
        Ok(true)
    }
}

/// Why an unfinished saga is not taken up at a start.
#[derive(Debug, thiserror::Error)]
enum ResumeError {
    #[error("its journal can't be read: {0}")]
    Journal(#[from] Box<HostError>),
    #[error("what was stored with it can't be read: {0}")]
    Context(#[from] serde_json::Error),
    #[error("{0}")]
    Commands(String),
}

/// Whether an error means that somebody else drives it.
#[must_use]
pub fn is_busy(error: &SagaError) -> bool {
    matches!(error, SagaError::AlreadyDriven { .. } | SagaError::Journal { source: JournalError::Conflict { .. }, .. })
}
