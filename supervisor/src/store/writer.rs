//! The writer thread: it owns the connection, gathers what waits, commits once, answers after.
//!
//! A failed transaction acknowledges nothing: each of its requests gets the error, and the next batch starts from what the
//! database says. Notes (requests without an answer, for what already took power) stay and are tried again; when the disk is full
//! they get the reserve's space, and requests that give power are refused until the reserve is whole again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::audit::chain::Tip;
use crate::audit::record::{Action, Actor, Outcome, Record};

use super::audit_log::AuditLog;
use super::lock::StateLock;
use super::request::{Answer, BATCH_MAX, Commit, Request, Work};
use super::reserve::Reserve;
use super::stats::{Stats, add};
use super::wal::Wal;
use super::{StoreError, apply, connection};

/// Notes that found no room in memory are lost; this record says how many.
const NOTES_LOST: Action = Action::new("audit.notes_lost");
/// How long until notes and heads that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Whether the writer still serves, for those who find its queue closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Running,
    Closed,
    Died,
}

/// What the handles and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) room: Arc<Semaphore>,
    pub(super) note_room: Arc<Semaphore>,
    pub(super) stats: Stats,
    phase: AtomicU8,
}

impl Shared {
    pub(super) fn new(room: usize, note_room: usize) -> Self {
        let (room, note_room) = (Arc::new(Semaphore::new(room)), Arc::new(Semaphore::new(note_room)));
        Self { room, note_room, stats: Stats::default(), phase: AtomicU8::new(Phase::Running as u8) }
    }

    /// The error for those who come too late.
    pub(super) fn gone(&self) -> StoreError {
        match self.phase.load(Ordering::SeqCst) == Phase::Closed as u8 {
            true => StoreError::Closed,
            false => StoreError::WriterDied,
        }
    }
}

/// Ends the service however the thread ends: nobody may wait for room that no one will give.
struct EndOfService(Arc<Shared>);

impl Drop for EndOfService {
    fn drop(&mut self) {
        let (running, died) = (Phase::Running as u8, Phase::Died as u8);
        // A panic leaves the phase at running; a clean end has set it.
        let _ = self.0.phase.compare_exchange(running, died, Ordering::SeqCst, Ordering::SeqCst);
        self.0.room.close();
        self.0.note_room.close();
    }
}

/// The writer's possessions.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) database: PathBuf,
    pub(super) log: AuditLog,
    pub(super) reserve: Reserve,
    pub(super) wal: Wal,
    pub(super) shared: Arc<Shared>,
    /// Notes that could not be written yet; bounded by their share of the note queue.
    pub(super) notes: VecDeque<Work>,
    pub(super) retry: Option<Instant>,
    /// Held until the last byte is written.
    pub(super) lock: StateLock,
}

enum Next {
    Go,
    Close(oneshot::Sender<Result<(), StoreError>>),
    Dropped,
}

impl Writer {
    /// Serves until closed, or until every handle is gone.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        let _end = EndOfService(Arc::clone(&self.shared));
        loop {
            let mut batch = Vec::new();
            let next = self.gather(requests, &mut batch);
            self.store(batch);
            self.keep_up(Instant::now());
            match next {
                Next::Go => {}
                Next::Close(ack) => {
                    let result = self.finish();
                    self.shared.phase.store(Phase::Closed as u8, Ordering::SeqCst);
                    self.release();
                    // Whoever closed may have stopped waiting.
                    let _ = ack.send(result);
                    return;
                }
                Next::Dropped => {
                    // Nobody is left to tell; what failed shows in the next start's record of unprotected ones.
                    let _ = self.finish();
                    self.shared.phase.store(Phase::Closed as u8, Ordering::SeqCst);
                    self.release();
                    return;
                }
            }
        }
    }

    /// Closes the database (which copies the log back) before the directory is given to others.
    fn release(self) {
        let Self { connection, lock, .. } = self;
        drop(connection);
        drop(lock);
    }

    /// Waits for work or for the next deadline, then takes everything that waits.
    fn gather(&mut self, requests: &Receiver<Request>, batch: &mut Vec<Work>) -> Next {
        let deadline = [self.log.due(), self.retry].into_iter().flatten().min();
        let mut received = match deadline {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        loop {
            match received {
                Ok(Request::Work(work)) => batch.push(work),
                Ok(Request::Close(ack)) => return Next::Close(ack),
                #[cfg(test)]
                Ok(Request::Test(probe)) => probe(&self.connection),
                Err(RecvTimeoutError::Timeout) => return Next::Go,
                Err(RecvTimeoutError::Disconnected) if batch.is_empty() => return Next::Dropped,
                Err(RecvTimeoutError::Disconnected) => return Next::Go,
            }
            if batch.len() >= BATCH_MAX {
                return Next::Go;
            }
            received = match requests.try_recv() {
                Ok(request) => Ok(request),
                Err(_) => return Next::Go,
            };
        }
    }

    /// Makes a batch durable and answers it.
    fn store(&mut self, mut batch: Vec<Work>) {
        let due = self.retry.is_some_and(|at| at <= Instant::now());
        if batch.is_empty() && !due {
            return;
        }
        if let Err(error) = self.reserve.retake() {
            batch = self.refuse(batch, &error);
        }
        // Older notes first: the log tells things in the order in which they happened.
        let mut works: Vec<Work> = self.notes.drain(..).chain(batch).collect();
        if works.is_empty() {
            self.retry = None;
            return;
        }
        let mut result = self.attempt(&works);
        if let Err(error) = &result {
            works = self.answer_failure(works, error);
            // Only a full disk is worth a second try at once: the reserve makes room.
            if !works.is_empty() && matches!(error, StoreError::DiskFull { .. }) && self.release_reserve() {
                result = self.attempt(&works);
            }
        }
        match result {
            Ok(answers) => {
                self.retry = None;
                for (work, answer) in works.into_iter().zip(answers) {
                    if let Some(ack) = work.ack {
                        // The caller may have been cancelled; what it asked for is stored all the same.
                        let _ = ack.send(answer);
                    }
                }
            }
            Err(_) => {
                self.retry = (!works.is_empty()).then(|| Instant::now() + RETRY);
                self.notes.extend(works);
            }
        }
    }

    /// Refuses what gives power while the reserve is spent; returns the notes.
    fn refuse(&mut self, batch: Vec<Work>, error: &StoreError) -> Vec<Work> {
        let before = batch.len();
        let notes = answer_all(batch, error);
        add(&self.shared.stats.refused_for_reserve, (before - notes.len()) as u64);
        notes
    }

    /// Tells every caller of a failed batch; returns the notes, which are kept.
    fn answer_failure(&mut self, works: Vec<Work>, error: &StoreError) -> Vec<Work> {
        add(&self.shared.stats.failed_commits, 1);
        self.recover(error);
        answer_all(works, error)
    }

    fn release_reserve(&mut self) -> bool {
        self.reserve.release().is_ok_and(|released| released)
    }

    /// One transaction over all of `works`. An error of one request undoes that request alone.
    fn attempt(&mut self, works: &[Work]) -> Result<Vec<Answer>, StoreError> {
        let lost = self.shared.stats.untold_notes.swap(0, Ordering::Relaxed);
        let result = self.transact(works, lost);
        if result.is_err() {
            add(&self.shared.stats.untold_notes, lost);
        }
        let (answers, tip) = result?;
        add(&self.shared.stats.commits, 1);
        add(&self.shared.stats.requests, works.len() as u64);
        self.log.moved_to(tip, Instant::now());
        self.wal.wrote(1 + works.iter().map(|work| work.commit.pages()).sum::<u64>());
        Ok(answers)
    }

    fn transact(&mut self, works: &[Work], lost: u64) -> Result<(Vec<Answer>, Tip), StoreError> {
        let (connection, path) = (&self.connection, self.database.as_path());
        let mut tip = self.log.tip;
        run(connection, path, "BEGIN IMMEDIATE")?;
        if lost > 0 {
            apply::apply(connection, path, &mut tip, &notes_lost(lost))?;
        }
        let mut answers = Vec::with_capacity(works.len());
        if let ([work], 0) = (works, lost) {
            // Alone, it needs no savepoint to be undone by itself.
            let answer = apply::apply(connection, path, &mut tip, &work.commit);
            match answer {
                Err(error) if error.is_of_one_request() => {
                    run(connection, path, "ROLLBACK")?;
                    return Ok((vec![Err(error)], self.log.tip));
                }
                answer => answers.push(Ok(answer?)),
            }
        } else {
            for work in works {
                answers.push(apply_one(connection, path, &mut tip, &work.commit)?);
            }
        }
        run(connection, path, "COMMIT")?;
        Ok((answers, tip))
    }

    /// After a failed transaction: a connection without one open, and the chain's end as the database has it.
    fn recover(&mut self, error: &StoreError) {
        let stuck = !self.connection.is_autocommit() && self.connection.execute_batch("ROLLBACK").is_err();
        if stuck || matches!(error, StoreError::DiskFailed { .. } | StoreError::Corrupt { .. }) {
            // If the file can't be opened either, the old connection goes on giving errors, which is the truth.
            if let Ok(fresh) = connection::open_writing(&self.database) {
                self.connection = fresh;
            }
        }
        if self.log.reload(&self.connection, &self.database).is_err() {
            add(&self.shared.stats.failed_upkeep, 1);
        }
    }

    /// What can wait until the callers have their answers: heads, room in the log, checkpoints.
    fn keep_up(&mut self, now: Instant) {
        if self.log.due().is_some_and(|due| due <= now) && self.sign().is_err() {
            add(&self.shared.stats.failed_heads, 1);
            self.log.retry_at(now + RETRY);
        }
        let checkpoint = self.wal.checkpoint_if_due(&self.connection, &self.database);
        let room = self.wal.make_room();
        add(&self.shared.stats.failed_upkeep, u64::from(checkpoint.is_err()) + u64::from(room.is_err()));
    }

    fn sign(&mut self) -> Result<(), StoreError> {
        if self.log.sign(&self.connection, &self.database, now_ms())? {
            add(&self.shared.stats.heads, 1);
            self.wal.wrote(2);
        }
        Ok(())
    }

    /// The clean end: the last notes and the last head, with the reserve's space if it takes that.
    fn finish(&mut self) -> Result<(), StoreError> {
        let notes = std::mem::take(&mut self.notes).into();
        self.retry = None;
        let untold = self.shared.stats.untold_notes.load(Ordering::Relaxed) > 0;
        self.store_last(notes, untold)?;
        match self.sign() {
            Err(StoreError::DiskFull { .. }) if self.release_reserve() => self.sign(),
            other => other,
        }
    }

    fn store_last(&mut self, notes: Vec<Work>, untold: bool) -> Result<(), StoreError> {
        if notes.is_empty() && !untold {
            return Ok(());
        }
        let result = match self.attempt(&notes) {
            Err(StoreError::DiskFull { .. }) if self.release_reserve() => self.attempt(&notes),
            other => other,
        };
        result.map(drop)
    }
}

fn answer_all(works: Vec<Work>, error: &StoreError) -> Vec<Work> {
    let answer = |mut work: Work| match work.ack.take() {
        Some(ack) => {
            // As above: a caller that is gone needs no answer.
            let _ = ack.send(Err(error.clone()));
            None
        }
        None => Some(work),
    };
    works.into_iter().filter_map(answer).collect()
}

/// Applies one request under a savepoint of its own.
fn apply_one(connection: &Connection, path: &Path, tip: &mut Tip, commit: &Commit) -> Result<Answer, StoreError> {
    let before = *tip;
    run(connection, path, "SAVEPOINT request")?;
    match apply::apply(connection, path, tip, commit) {
        Ok(receipts) => {
            run(connection, path, "RELEASE request")?;
            Ok(Ok(receipts))
        }
        Err(error) if error.is_of_one_request() => {
            *tip = before;
            run(connection, path, "ROLLBACK TO request")?;
            run(connection, path, "RELEASE request")?;
            Ok(Err(error))
        }
        Err(error) => Err(error),
    }
}

/// Runs a statement without parameters, prepared once. [`rusqlite::Transaction`] would parse its BEGIN and COMMIT each time.
fn run(connection: &Connection, path: &Path, sql: &str) -> Result<(), StoreError> {
    let result = connection.prepare_cached(sql).and_then(|mut statement| statement.execute(()));
    result.map(drop).map_err(|error| StoreError::of_sqlite(path, error))
}

fn notes_lost(count: u64) -> Commit {
    let record = Record::new(now_ms(), Actor::Supervisor, NOTES_LOST, Outcome::Failed)
        .reason("more was recorded without waiting than there was room for")
        .detail("count", count);
    Commit::new().audit(record)
}

/// The time of day, in milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
