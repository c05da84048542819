//! What can be known of sagas, and said to them, without a supervisor.
//!
//! Reading goes beside a running supervisor or without one. An operator's word needs the lock: it becomes durable in the
//! journal, and whoever takes the saga up acts on it.

use agt_saga::driver::{Driver, SagaError, Settings, Steps, StepsError};
use agt_saga::id::{RunId, SagaId};
use agt_saga::journal::{Entry, JournalError, Scope, Summary};
use agt_saga::machine::{Command, Fate, State, StepRun};
use agt_saga::outcome::{Again, Ending, StepOutcome};
use agt_saga::record::Record;
use agt_saga::replay::{records, replay};
use sha2::{Digest, Sha256};
use std::sync::Arc;

use super::journal::AuditedJournal;
use crate::dirs::Dirs;
use crate::exit;
use crate::store::{DATABASE_FILE, Options, Reader, StateLock, Store, StoreError};

/// Why a saga could not be read or told something.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No lock, no store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine gave up.
    #[error(transparent)]
    Saga(#[from] SagaError),
}

/// The hash of a plan's text: SHA-256 in hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Steps where there is no supervisor: none runs, and none can be begun.
#[derive(Debug)]
struct NoSteps;

impl Steps for NoSteps {
    async fn run(&self, _: StepRun) -> StepOutcome {
        let reason = "no supervisor is running".to_owned();
        StepOutcome::ended(Ending::NotStarted { reason, again: Again::No })
    }

    async fn cancel(&self, _: &RunId) -> Result<(), StepsError> {
        Ok(())
    }

    async fn verify_empty(&self, _: &SagaId, _: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        Err("no supervisor is running".into())
    }
}

/// Gives an operator's word to a saga that nobody drives; durable when this returns.
///
/// # Errors
/// [`StoreError::Locked`] when a supervisor is there; a word that makes no sense.
pub async fn command(dirs: &Dirs, id: &SagaId, command: Command) -> Result<(), HostError> {
    let lock = StateLock::acquire(&dirs.state)?;
    let store = Store::open_locked(lock, Options::default())?;
    let journal = AuditedJournal::new(store.clone(), nix::unistd::getuid().as_raw());
    let driver = Driver::new(journal, Arc::new(NoSteps), Settings::new(digest));
    let given = driver.command(id, command).await;
    drop(driver);
    store.close().await?;
    Ok(given?)
}

/// A saga as its journal has it. `None`: there is no such saga.
///
/// # Errors
/// A store that can't be read, a history that makes no saga.
pub fn read(dirs: &Dirs, id: &str) -> Result<Option<(State, Vec<Record>)>, HostError> {
    if !dirs.state.join(DATABASE_FILE).exists() {
        return Ok(None);
    }
    let entries: Vec<Entry> = Reader::open(&dirs.state)?.saga_events(id)?;
    if entries.is_empty() {
        return Ok(None);
    }
    let bad = |source| HostError::Saga(SagaError::Replay { saga: SagaId::new(id), source });
    Ok(Some((replay(&entries, digest).map_err(bad)?, records(&entries).map_err(bad)?)))
}

/// All sagas, or those that are not over, newest change first.
///
/// # Errors
/// A store that can't be read.
pub fn list(dirs: &Dirs, scope: Scope) -> Result<Vec<Summary>, HostError> {
    if !dirs.state.join(DATABASE_FILE).exists() {
        return Ok(Vec::new());
    }
    Ok(Reader::open(&dirs.state)?.sagas(scope)?)
}

/// Says which sagas of this store wait to be taken up: where somebody asked for one saga, and the others are not their
/// business.
pub fn name_unfinished(dirs: &Dirs, but: &str) {
    // A list that can't be read is the store's trouble, which opening it reports.
    for waiting in list(dirs, Scope::Unfinished).unwrap_or_default().iter().filter(|waiting| waiting.id != but) {
        eprintln!("note: saga {} is {}: `agt-supervise saga resume {0}` takes it up", waiting.id, waiting.state);
    }
}

/// The exit code for what the engine says.
#[must_use]
pub fn saga_code(error: &SagaError) -> u8 {
    match error {
        SagaError::Journal { source: JournalError::Store(source), .. } => {
            source.downcast_ref::<StoreError>().map_or(exit::CANT_CREATE, StoreError::exit_code)
        }
        SagaError::Replay { .. } => exit::DATA,
        SagaError::Refused { .. } | SagaError::Params { .. } => exit::USAGE,
        SagaError::TreesNotEmpty { .. } | SagaError::NotEnded { .. } => exit::UNAVAILABLE,
        SagaError::Journal { .. } | SagaError::AlreadyDriven { .. } => exit::TRY_AGAIN,
        SagaError::Illegal { .. } | SagaError::Stopped { .. } => exit::BUG,
    }
}
