//! Threads that carry traffic, each with a runtime of its own: a connection and what it reaches live on one thread, so that no
//! request crosses from one to another.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::route::Client;

/// One thread, as those who give it work see it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) handle: Handle,
    pub(super) load: Load,
    /// The connections of this thread to the upstreams of model routes.
    pub(super) client: Client,
}

/// One thread, as the one who ends it sees it: dropping it ends every task on it.
#[derive(Debug)]
pub(super) struct Thread {
    stop: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

/// How long an ending thread is waited for. It only takes longer when something on it blocks, a hook for example; waiting on for
/// that would hand the fault to whoever ends the gateway.
const ENDING: Duration = Duration::from_secs(5);

/// How many connections a thread carries.
#[derive(Clone, Debug, Default)]
pub(super) struct Load(Arc<AtomicUsize>);

impl Load {
    pub(super) fn enter(&self) -> Entered {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }

    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One connection on a thread.
#[derive(Debug)]
pub(super) struct Entered(Load);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts a thread.
///
/// # Errors
/// When the kernel gives no thread or no epoll descriptor.
pub(super) fn start(number: usize, client: Client) -> io::Result<(Worker, Thread)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let (at_end, ended) = mpsc::channel();
    std::thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
        // Dropped at the end, also at that of a panic.
        let _at_end: mpsc::Sender<()> = at_end;
        // The sender says nothing, it is dropped.
        let _ = runtime.block_on(stopped);
        // Tasks end here; a resolver that hangs in a blocking thread is not waited for.
        runtime.shutdown_background();
    })?;
    Ok((Worker { handle, load: Load::default(), client }, Thread { stop: Some(stop), ended }))
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Nothing is ever sent: it ends with the thread, or not in time.
        let _ = self.ended.recv_timeout(ENDING);
    }
}
