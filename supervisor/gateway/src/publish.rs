//! An agent's own port, shown to the host: the listener outside, the connection made inside.
//!
//! How to get inside a ring is not known here: the supervisor brings it ([`Inside`]). Health checks use the same way.

use std::fmt;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::flow::{Kind, Outcome, To, Wait};
use crate::live::Seat;
use crate::proxy;

/// A connection being made inside.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Makes connections to an agent's ports, inside its network.
pub trait Inside: fmt::Debug + Send + Sync + 'static {
    /// A connection to a port of the agent's loopback, watched by the runtime that this is called in.
    fn connect(&self, port: u16) -> Connecting<'_>;
}

/// Who may see a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// This host only.
    Loopback,
    /// Whoever reaches the listener's address; only with the operator's leave.
    Everywhere,
}

impl Exposure {
    /// Whether a listener stays within it.
    ///
    /// # Errors
    /// A listener that more can see than may.
    pub(crate) fn check(self, listener: &TcpListener) -> io::Result<()> {
        let at: IpAddr = listener.local_addr()?.ip();
        if self == Self::Everywhere || at.is_loopback() {
            return Ok(());
        }
        let message =
            format!("a published port at {at} would be seen beyond this host: the operator's file must allow it");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }
}

/// Serves one connection from the host to its end.
pub(crate) async fn serve(stream: TcpStream, seat: &Arc<Seat>, port: u16, inside: &dyn Inside) {
    let waits = seat.agent.gateway.settings.waits;
    let passage = seat.begin(Kind::Published, To::Inside(port));
    if let Err(failure) = passage.before_connect().await {
        return passage.end(Outcome::Failed(failure));
    }
    let connected = match timeout(waits.connect, inside.connect(port)).await {
        Ok(connected) => connected,
        Err(_) => return passage.end(Outcome::TimedOut(Wait::Connect)),
    };
    match connected {
        Ok(far) => {
            // A socket that can't be set so is one that has ended; carrying finds that out.
            let _ = far.set_nodelay(true);
            passage.end(proxy::carry_bytes(stream, far, Bytes::new(), &passage, waits).await);
        }
        Err(_) => passage.end(Outcome::Unreachable),
    }
}
