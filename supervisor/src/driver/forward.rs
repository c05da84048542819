//! The one way out of a ring: a listener inside the agent's network namespace, served here, connected to one target.
//!
//! The agent can't choose the target: the listener's address decides it. When the agent is gone its forwards are aborted, and
//! their connections with them.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections open at once through all listeners of one agent; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 256;
/// Between two tries to accept when the supervisor itself is out of descriptors or memory.
const SHORT_OF_ROOM: Duration = Duration::from_millis(50);

/// The room that all listeners of one agent share.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS_MAX))
}

/// Serves a listener until the returned set is dropped.
///
/// # Errors
/// When the listener can't be made asynchronous.
pub(super) fn serve(
    listener: TcpListener,
    target: String,
    room: &Arc<Semaphore>,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tasks.spawn(accept(listener, target, Arc::clone(room)));
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, target: String, room: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inside, _)) => {
                    let target = target.clone();
                    connections.spawn(async move {
                        carry(inside, &target).await;
                        drop(permit);
                    });
                }
                // ECONNABORTED and the like concern one connection; EMFILE passes when others close, and until then the
                // listener stays readable: trying at once would only burn the CPU that the closing needs.
                Err(_) => tokio::time::sleep(SHORT_OF_ROOM).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut inside: TcpStream, target: &str) {
    // A target that refuses is seen by the agent as a closed connection: dropping `inside` does that.
    let Ok(mut outside) = TcpStream::connect(target).await else { return };
    // How a connection ends is between its two ends.
    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
}
