//! Who gets to the operator socket at all.
//!
//! For operators of other users the socket's file is open to everybody (a mode can't name several users), so anybody on the host can
//! connect. What such a stranger may cost is bounded here, before a byte of theirs is read: few connections, and none of those
//! that operators need.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of operators at once; more wait.
const OPERATORS_MAX: usize = 256;
/// Connections of strangers at once; more are closed.
const STRANGERS_MAX: usize = 16;

/// Who may use the socket besides uid 0 and the supervisor's own uid.
#[derive(Debug, Clone, Default)]
pub struct Operators {
    /// Users.
    pub uids: BTreeSet<u32>,
    /// Groups, primary or supplementary.
    pub gids: BTreeSet<u32>,
}

impl Operators {
    /// Whether nobody but root and the supervisor's own user may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    fn who(&self, stream: &UnixStream) -> Peer {
        // No credentials, no rights.
        let Ok(credentials) = stream.peer_cred() else { return Peer(None) };
        let (uid, gid) = (credentials.uid(), credentials.gid());
        let in_a_group = || {
            let others = agt_rings::peer::groups(stream.as_fd()).unwrap_or_default();
            self.gids.contains(&gid) || others.iter().any(|gid| self.gids.contains(gid))
        };
        let ours = nix::unistd::geteuid().as_raw();
        let may = uid == 0 || uid == ours || self.uids.contains(&uid) || (!self.gids.is_empty() && in_a_group());
        Peer(may.then_some(uid))
    }
}

/// The uid at the other end, if it is an operator's: by the kernel's word (SO_PEERCRED, SO_PEERGROUPS) of when it connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) Option<u32>);

impl Connected<IncomingStream<'_, Gate>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Self {
        stream.io().peer
    }
}

/// A listener that knows who comes.
#[derive(Debug)]
pub(super) struct Gate {
    listener: UnixListener,
    operators: Operators,
    for_operators: Arc<Semaphore>,
    for_strangers: Arc<Semaphore>,
}

impl Gate {
    pub(super) fn new(listener: UnixListener, operators: Operators) -> Gate {
        let room = |places| Arc::new(Semaphore::new(places));
        Gate { listener, operators, for_operators: room(OPERATORS_MAX), for_strangers: room(STRANGERS_MAX) }
    }
}

impl Listener for Gate {
    type Io = Admitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Admitted, SocketAddr) {
        loop {
            // Waits out a lack of descriptors.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            let peer = self.operators.who(&stream);
            let place = match peer.0 {
                Some(_) => Arc::clone(&self.for_operators).acquire_owned().await.ok(),
                None => Arc::clone(&self.for_strangers).try_acquire_owned().ok(),
            };
            if let Some(place) = place {
                return (Admitted { stream, peer, _place: place }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, and its place among those that may be open at once.
#[derive(Debug)]
pub(super) struct Admitted {
    stream: UnixStream,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Admitted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
