//! The handle that the rest of the program holds: cheap to clone, asynchronous, the same store behind all clones.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use ed25519_dalek::VerifyingKey;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::audit::chain::StoreId;
use crate::audit::heads_file::HEADS_FILE;
use crate::audit::record::Record;

use super::audit_log::AuditLog;
use super::lock::StateLock;
use super::reader::{AgentState, AuditRow, Reader, Readers, Undo};
use super::request::{Commit, NOTE_BYTES_MAX, QUEUE_BYTES_MAX, REQUEST_BYTES_MAX, Receipt, Request, UNIT_BYTES, Work};
use super::reserve::Reserve;
use super::stats::{Counts, add};
use super::wal::Wal;
use super::writer::{Shared, Writer, now_ms};
use super::{DATABASE_FILE, StoreError, connection, directory};

/// What may be chosen when opening.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where heads are appended beside the database; by default `audit-heads.log` in the state directory. Outside of it they
    /// outlive who can change the directory.
    pub heads_file: Option<PathBuf>,
}

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It waits for the writer and will be on the disk soon.
    Queued,
    /// There was no room: it is lost and counted, and a record will say how many were.
    Lost,
}

/// The open store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requests: Sender<Request>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    thread: Mutex<Option<JoinHandle<()>>>,
    database: PathBuf,
    heads: PathBuf,
    public_key: VerifyingKey,
    store_id: StoreId,
}

impl Store {
    /// Takes the directory's lock and opens its store, making both if they are missing. Blocks: meant for the start.
    ///
    /// # Errors
    /// Any of [`StoreError`] that concerns opening; [`StoreError::Audit`] when the audit log was changed since it was signed.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_locked(StateLock::acquire(dir)?, Options::default())
    }

    /// Opens the store of a directory whose lock is held already; the store keeps it until it is closed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_locked(lock: StateLock, options: Options) -> Result<Self, StoreError> {
        let dir = lock.dir().to_owned();
        let database = dir.join(DATABASE_FILE);
        let heads = options.heads_file.unwrap_or_else(|| dir.join(HEADS_FILE));
        let reserve = Reserve::take(&dir)?;
        let connection = connection::open_writing(&database)?;
        let (log, resumed) = AuditLog::resume(&connection, &database, &heads, now_ms())?;
        let public_key = log.public_key();
        directory::sync(&dir)?;
        let store_id = log.store_id();
        let shared = Arc::new(Shared::new(QUEUE_BYTES_MAX / UNIT_BYTES, NOTE_BYTES_MAX / UNIT_BYTES));
        let mut wal = Wal::new(&database);
        wal.make_room()?;
        let (requests, receiver) = mpsc::channel();
        let notes: VecDeque<Work> =
            resumed.and_then(|record| note(&shared, Commit::new().audit(record))).into_iter().collect();
        let writer = Writer {
            connection,
            database: database.clone(),
            log,
            reserve,
            wal,
            shared: Arc::clone(&shared),
            retry: (!notes.is_empty()).then(Instant::now),
            notes,
            lock,
        };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| StoreError::of_io("start the writer of", &database, error))?;
        let (readers, thread) = (Readers::new(&dir), Mutex::new(Some(thread)));
        let inner = Inner { requests, shared, readers, thread, database, heads, public_key, store_id };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes everything in `commit` durable, together; answers with the receipts of its audit records, in their order.
    ///
    /// Dropping the future once it has been polled may leave the commit to be stored all the same.
    ///
    /// # Errors
    /// Any of [`StoreError`]; nothing of the commit is stored then.
    pub async fn commit(&self, commit: Commit) -> Result<Vec<Receipt>, StoreError> {
        let bytes = commit.bytes();
        if bytes > REQUEST_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes, limit: REQUEST_BYTES_MAX });
        }
        let shared = &self.inner.shared;
        let room = Arc::clone(&shared.room).acquire_many_owned(units(bytes)).await.map_err(|_| shared.gone())?;
        let (ack, answer) = oneshot::channel();
        let work = Work { commit, ack: Some(ack), _room: room };
        self.inner.requests.send(Request::Work(work)).map_err(|_| shared.gone())?;
        answer.await.map_err(|_| shared.gone())?
    }

    /// Records what already took power: never waits, not for the disk and not for room. Order among notes is kept.
    ///
    /// Meant for audit records and the states that go with them; a note whose saga events conflict is dropped.
    pub fn note(&self, commit: Commit) -> Admission {
        let shared = &self.inner.shared;
        let sent = note(shared, commit).is_some_and(|work| self.inner.requests.send(Request::Work(work)).is_ok());
        if sent {
            return Admission::Queued;
        }
        add(&shared.stats.lost_notes, 1);
        add(&shared.stats.untold_notes, 1);
        Admission::Lost
    }

    /// Appends an audit record and waits until it is on the disk: for what gives power.
    ///
    /// # Errors
    /// As [`Self::commit`]; what was to be recorded must not be done then.
    pub async fn append_audit(&self, record: Record) -> Result<Receipt, StoreError> {
        let receipts = self.commit(Commit::new().audit(record)).await?;
        Ok(receipts[0])
    }

    /// Appends an audit record without waiting: for what took power, and for denials.
    pub fn append_audit_nowait(&self, record: Record) -> Admission {
        self.note(Commit::new().audit(record))
    }

    /// Sets an agent's state of one kind, durably. `agent` is its identity key.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn put_state(&self, agent: &str, kind: &str, value: Value, updated_ms: i64) -> Result<(), StoreError> {
        self.commit(Commit::new().put_state(agent, kind, value, updated_ms)).await.map(drop)
    }

    /// Reads with a connection of its own, on a thread that may block.
    ///
    /// # Errors
    /// What `read` returns; [`StoreError::Closed`] after [`Self::close`].
    pub async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    {
        self.inner.readers.read(read).await
    }

    /// One agent's state of one kind.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn get_state(&self, agent: &str, kind: &str) -> Result<Option<AgentState>, StoreError> {
        let (agent, kind) = (agent.to_owned(), kind.to_owned());
        self.read(move |reader| reader.state(&agent, &kind)).await
    }

    /// All agents' state of one kind: for the start.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn list_states(&self, kind: &str) -> Result<Vec<AgentState>, StoreError> {
        let kind = kind.to_owned();
        self.read(move |reader| reader.states(&kind)).await
    }

    /// Audit records behind `after`, oldest first.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn audit_page(&self, after: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.read(move |reader| reader.audit_page(after, limit)).await
    }

    /// Undos that a start must replay.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn pending_undos(&self) -> Result<Vec<Undo>, StoreError> {
        self.read(Reader::undos).await
    }

    /// Counters since opening.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.shared.stats.counts()
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.inner.database
    }

    /// The second file of heads.
    #[must_use]
    pub fn heads_file(&self) -> &Path {
        &self.inner.heads
    }

    /// The key that verifies this store's heads: worth keeping elsewhere.
    #[must_use]
    pub fn public_key(&self) -> VerifyingKey {
        self.inner.public_key
    }

    /// The store's identity.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.inner.store_id
    }

    /// Stores what waits, signs a last head, closes the files and gives the directory's lock back. Later calls, also of clones,
    /// get [`StoreError::Closed`]. Without it (all handles dropped) the writer does the same, but nobody waits for it.
    ///
    /// # Errors
    /// What kept the last records or the last head from the disk.
    pub async fn close(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner.readers.close();
        let (ack, answer) = oneshot::channel();
        inner.requests.send(Request::Close(ack)).map_err(|_| inner.shared.gone())?;
        let result = answer.await.map_err(|_| inner.shared.gone())?;
        let thread = inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its last act was the answer: this waits for nothing but its stack's end.
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            return Err(StoreError::WriterDied);
        }
        result
    }

    /// Requests (of at most a kilobyte each) that have room and no answer yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        QUEUE_BYTES_MAX / UNIT_BYTES - self.inner.shared.room.available_permits()
    }

    #[cfg(test)]
    pub(super) fn in_writer(&self, probe: impl FnOnce(&rusqlite::Connection) + Send + 'static) {
        self.inner.requests.send(Request::Test(Box::new(probe))).expect("the writer is alive in this test");
    }
}

/// A note with its share of room; none when there is none.
fn note(shared: &Shared, commit: Commit) -> Option<Work> {
    let room = Arc::clone(&shared.note_room).try_acquire_many_owned(units(commit.bytes())).ok()?;
    Some(Work { commit, ack: None, _room: room })
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(u32::MAX)
}
