//! The way out for what agents print: to our standard output, our standard error and log files.
//!
//! Why a thread for each: a reader may sleep for ever and a disk may hang, and whoever writes then hangs with them. So for each
//! of these there is one thread that alone may wait, and a short queue before it that keeps the order. Who prints waits for
//! room there, without a thread and until it is cancelled: an agent that nobody reads is slowed down like by any pipe, our
//! memory is bounded by the queue, and the runtime and its pools never wait with it.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::{mpsc, oneshot};

use super::logfile::{LogFile, LogLimits};

/// Pieces that wait to be written. A piece is what was made of one read from an agent.
const QUEUE_PIECES_MAX: usize = 16;

/// One of the ways out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlet {
    /// Our standard output.
    Stdout,
    /// Our standard error, which messages of ours go to as well.
    Stderr,
}

#[derive(Debug)]
enum Piece {
    Print(Vec<u8>),
    Append(Arc<Mutex<LogFile>>, Vec<u8>),
    /// Everything before it is written: say so.
    Flush(oneshot::Sender<()>),
}

type Queue = OnceLock<mpsc::Sender<Piece>>;

static STDOUT: Queue = Queue::new();
static STDERR: Queue = Queue::new();
static LOGS: Queue = Queue::new();

/// The queue of a thread that performs pieces in order; it is started by the first one.
fn queue(of: &'static Queue, name: &'static str, print: fn(&[u8])) -> &'static mpsc::Sender<Piece> {
    of.get_or_init(|| {
        let (queue, mut pieces) = mpsc::channel(QUEUE_PIECES_MAX);
        let work = move || {
            while let Some(piece) = pieces.blocking_recv() {
                match piece {
                    Piece::Print(bytes) => print(&bytes),
                    Piece::Append(log, bytes) => log.lock().unwrap_or_else(PoisonError::into_inner).append(&bytes),
                    // Nobody may wait any more.
                    Piece::Flush(done) => drop(done.send(())),
                }
            }
        };
        if let Err(e) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
            eprintln!("error: nothing that agents print is passed on ({name}): {e}");
        }
        queue
    })
}

impl Outlet {
    fn queue(self) -> &'static mpsc::Sender<Piece> {
        match self {
            // Closed at the other end: the agent's log still has its words, and the agent must not be held up.
            Outlet::Stdout => queue(&STDOUT, "agt-stdout", |bytes| crate::say::write(std::io::stdout().as_fd(), bytes)),
            Outlet::Stderr => queue(&STDERR, "agt-stderr", crate::say::write_stderr),
        }
    }

    /// Prints, after all that came before. Waits for room; cancelled while it waits, it prints nothing.
    pub(crate) async fn print(self, bytes: Vec<u8>) {
        // Without the thread there is nobody to print, which was said.
        let _ = self.queue().send(Piece::Print(bytes)).await;
    }

    /// Waits until all that came before is written.
    pub(crate) async fn flushed(self) {
        flushed(self.queue()).await;
    }
}

async fn flushed(queue: &mpsc::Sender<Piece>) {
    let (done, wait) = oneshot::channel();
    if queue.send(Piece::Flush(done)).await.is_ok() {
        let _ = wait.await;
    }
}

/// An agent's log file, written by the thread for all logs.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Mutex<LogFile>>);

impl Log {
    /// Opens a log; whoever opens the same path meanwhile gets the same file. Two that count for themselves would not keep
    /// its bounds: the steps of one name in several sagas have one log, and so have an ending life and the next one.
    pub(crate) fn open(path: PathBuf, limits: LogLimits) -> Log {
        static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Mutex<LogFile>>>>> = Mutex::new(None);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        // Those that nobody has open any more are let go of, or a long life would keep them all.
        open.retain(|_, log| log.strong_count() > 0);
        if let Some(log) = open.get(&path).and_then(Weak::upgrade) {
            return Log(log);
        }
        let log = Arc::new(Mutex::new(LogFile::open(path.clone(), limits)));
        open.insert(path, Arc::downgrade(&log));
        Log(log)
    }

    fn queue() -> &'static mpsc::Sender<Piece> {
        queue(&LOGS, "agt-logs", |_| ())
    }

    /// Appends, after all that came before. Waits for room.
    pub(crate) async fn append(&self, bytes: &[u8]) {
        // As for printing: a missing thread was said.
        let _ = Log::queue().send(Piece::Append(Arc::clone(&self.0), bytes.to_vec())).await;
    }

    /// Waits until all that came before is written.
    pub(crate) async fn flushed(&self) {
        flushed(Log::queue()).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_path_has_one_log_and_keeps_its_bounds_whoever_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let limits = LogLimits { max_bytes: 1000, keep: 1 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let logs = [Log::open(path.clone(), limits), Log::open(path.clone(), limits)];
            for _ in 0..100 {
                for log in &logs {
                    log.append(&[b'x'; 90]).await;
                }
            }
            logs[0].flushed().await;
        });
        let sizes: Vec<u64> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2, "the file and an older one");
        assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
    }

    #[tokio::test]
    async fn whoever_prints_waits_for_a_writer_that_waits_and_order_is_kept() {
        static SLOW: Queue = Queue::new();
        static GATE: Mutex<()> = Mutex::new(());
        static SEEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        let slow = queue(&SLOW, "slow", |bytes| {
            drop(GATE.lock().unwrap());
            SEEN.lock().unwrap().extend_from_slice(bytes);
        });
        let closed = GATE.lock().unwrap();
        let mut accepted = 0;
        while accepted <= QUEUE_PIECES_MAX + 1 {
            match slow.try_send(Piece::Print(vec![accepted as u8])) {
                Ok(()) => accepted += 1,
                // Full: one piece more may be in the thread's hand, which may not have taken it yet.
                Err(_) if accepted > QUEUE_PIECES_MAX => break,
                Err(_) => std::thread::yield_now(),
            }
        }
        assert_eq!(accepted, QUEUE_PIECES_MAX + 1, "no more than the queue and the one being written");
        drop(closed);
        flushed(slow).await;
        assert_eq!(*SEEN.lock().unwrap(), (0..=QUEUE_PIECES_MAX as u8).collect::<Vec<_>>());
    }
}
