//! Work that blocks, on a thread of its own.
//!
//! Why not the runtime's pool of blocking threads: it has a limit that everybody shares, so whatever waits in it for a reader, a
//! disk or a name server can keep a kill waiting. Here nothing waits for anything else. The number of threads is bounded by
//! who asks: a launch, a kill or a clearing away for each agent or step, an ear for each agent that was handed over.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Runs `work` beside the runtime; its result can be waited for, or not. An error is a panic of the work.
///
/// The work is done in any case. Where no thread can be had (the host is out of processes), it is done here and now: better a
/// runtime that stands still for a moment than a kill that does not happen.
pub(crate) fn beside<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    start(name, work, |thread, body| thread.spawn(body).map(drop))
}

fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
    spawn: impl FnOnce(std::thread::Builder, Box<dyn FnOnce() + Send>) -> std::io::Result<()>,
) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    let whole = move || {
        // Nobody may wait for it.
        let _ = done.send(work());
    };
    // A thread that can't be had would take the work with it.
    let ours = Arc::new(Mutex::new(Some(whole)));
    let theirs = Arc::clone(&ours);
    let take = |from: &Mutex<Option<_>>| from.lock().unwrap_or_else(PoisonError::into_inner).take();
    let body = move || {
        if let Some(whole) = take(&theirs) {
            whole();
        }
    };
    if spawn(std::thread::Builder::new().name(name.to_owned()), Box::new(body)).is_err()
        && let Some(whole) = take(&ours)
    {
        whole();
    }
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn work_is_done_where_no_thread_can_be_had() {
        let refused = |_: std::thread::Builder, _: Box<dyn FnOnce() + Send>| Err(std::io::ErrorKind::WouldBlock.into());
        assert_eq!(start("none", || 7, refused).blocking_recv(), Ok(7));
        assert_eq!(beside("one", || 8).blocking_recv(), Ok(8));
    }

    #[test]
    fn much_work_that_blocks_keeps_no_other_work_waiting() {
        // More than the runtime's pool has threads.
        let gate = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
        let waits: Vec<_> = (0..600)
            .map(|_| {
                let gate = Arc::clone(&gate);
                beside("waits", move || drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open).unwrap()))
            })
            .collect();
        assert_eq!(beside("kill", || "done").blocking_recv(), Ok("done"));
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        waits.into_iter().for_each(|wait| wait.blocking_recv().unwrap());
    }
}
