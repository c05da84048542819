//! What stands around a saga's driver: lock, ground, store, signals.
//!
//! In this order: the lock (nobody else drives this journal), the sweep (nothing of an earlier supervisor runs), then the
//! store and the driver. At the end the same backwards.

use std::path::PathBuf;
use std::sync::Arc;

use agt_saga::driver::{Driver, Progress, SagaError, Settings};
use agt_saga::id::SagaId;
use agt_saga::journal::{Entry, Scope, Summary};
use agt_saga::machine::{Rest, State};
use agt_saga::record::Record;
use agt_saga::replay::{records, replay};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use super::crash::CrashAt;
use super::file::Commands;
use super::journal::AuditedJournal;
use super::progress;
use super::steps::ProcessSteps;
use crate::config::Color;
use crate::dirs::Dirs;
use crate::driver::ground::{Ground, GroundError};
use crate::store::{DATABASE_FILE, Options, Reader, StateLock, Store, StoreError};

/// The driver as the program has it.
pub type SagaDriver = Driver<AuditedJournal, ProcessSteps>;

/// Why a saga could not be driven to where it rests.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No lock, no store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No ground.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The engine gave up.
    #[error(transparent)]
    Saga(#[from] SagaError),
    /// A folder can't be made.
    #[error("{path} can't be made")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Signals can't be heard.
    #[error("signals can't be heard")]
    Signals(#[source] std::io::Error),
}

/// How the lines of progress are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// On standard error.
    Lines(Color),
    /// Not at all.
    Nothing,
}

/// What drives sagas in this process.
#[derive(Debug)]
pub struct Host {
    /// The engine.
    pub driver: SagaDriver,
    steps: Arc<ProcessSteps>,
    store: Store,
    ground: Arc<Ground>,
    dirs: Dirs,
}

/// How driving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// Where nothing more happens by itself.
    Rests(Rest),
    /// Where a signal stopped us; the saga can be taken up again.
    Stopped,
}

/// The hash of a plan's text: SHA-256 in hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Host {
    /// Takes the lock, sweeps, opens the store. Must be called within a runtime's context.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn open(
        dirs: &Dirs,
        commands: Commands,
        uid: u32,
        show: Show,
        crash_at: Option<u64>,
    ) -> Result<Host, HostError> {
        let lock = StateLock::acquire(&dirs.state)?;
        let logs = dirs.logs();
        std::fs::create_dir_all(&logs).map_err(|source| HostError::Folder { path: logs.clone(), source })?;
        let ground = Arc::new(Ground::lay(&dirs.state, &dirs.cgroup_record())?);
        let store = Store::open_locked(lock, Options::default())?;
        let steps = Arc::new(ProcessSteps::new(Arc::clone(&ground), commands, logs));
        let mut settings = Settings::new(digest);
        settings.observer = match show {
            Show::Nothing => None,
            Show::Lines(color) => Some(Arc::new(move |seen: &Progress<'_>| {
                let saga = seen.state.plan().name();
                seen.records
                    .iter()
                    .filter_map(|record| progress::line(saga, record, color))
                    .for_each(|line| eprintln!("{line}"));
            })),
        };
        settings.hook = crash_at.map(|number| Arc::new(CrashAt::new(number)) as Arc<_>);
        let driver = Driver::new(AuditedJournal::new(store.clone(), uid), Arc::clone(&steps), settings);
        Ok(Host { driver, steps, store, ground, dirs: dirs.clone() })
    }

    /// Drives one saga until it rests or a signal stops us: then what runs is ended, its outcome unrecorded.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn drive(&self, driving: impl Future<Output = Result<Rest, SagaError>>) -> Result<Driven, HostError> {
        let listen = |kind| signal(kind).map_err(HostError::Signals);
        let (mut term, mut int, mut hup) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
        let mut driving = std::pin::pin!(driving);
        tokio::select! {
            rest = &mut driving => return Ok(Driven::Rests(rest?)),
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
        tokio::select! {
            rest = &mut driving => Ok(Driven::Rests(rest?)),
            gone = self.steps.let_go() => {
                if let Err(e) = gone {
                    eprintln!("error: what ran could not be ended; the next start will: {e}");
                }
                Ok(Driven::Stopped)
            }
        }
    }

    /// Gives everything back.
    pub async fn close(self) {
        let Host { driver, steps, store, ground, dirs } = self;
        drop(driver);
        drop(steps);
        if let Ok(ground) = Arc::try_unwrap(ground)
            && let Err(e) = ground.clear(&dirs.cgroup_record())
        {
            eprintln!("warning: our cgroups could not be removed: {e}");
        }
        if let Err(e) = store.close().await {
            eprintln!("error: the state store could not be closed in order: {e}");
        }
    }
}

/// A saga as its journal has it, read beside a running supervisor or without one. `None`: there is no such saga.
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

/// Says which sagas of this store wait to be taken up: at a start, before anything else is.
pub fn name_unfinished(dirs: &Dirs) {
    // A list that can't be read is the store's trouble, which opening it reports.
    for waiting in list(dirs, Scope::Unfinished).unwrap_or_default() {
        eprintln!("note: saga {} is {}: `agt-supervise saga resume {0}` takes it up", waiting.id, waiting.state);
    }
}
