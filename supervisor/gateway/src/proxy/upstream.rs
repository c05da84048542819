//! The connection of plain requests to a destination: one for each connection of the agent, kept for its next request to the
//! same place.
//!
//! No pool is shared: two clients, let alone two agents, never speak over the same connection, so nothing that one leaves
//! behind in it (credentials bound to a connection, the rest of an answer) reaches another; and it ends when its client does.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::body::Outward;
use crate::host::Authority;
use crate::live::{FIELDS_MAX, HEAD_MAX};

/// A connection to a destination.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) to: Authority,
    /// What it is connected to, to be admitted anew by each request's policy.
    pub(super) address: IpAddr,
    pub(super) sender: SendRequest<Outward>,
    pub(super) driver: Arc<Driver>,
    /// How often it has answered.
    pub(super) answers: u64,
}

/// The task that moves a connection's bytes; it ends with this.
#[derive(Debug)]
pub(super) struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upstream {
    /// Takes a fresh connection into use.
    ///
    /// # Errors
    /// When the connection is broken already.
    pub(super) async fn new<S>(stream: S, to: Authority, address: IpAddr) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_headers(FIELDS_MAX)
            .max_header_size(HEAD_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        // How it ends is seen by whoever waits for an answer on it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { to, address, sender, driver: Arc::new(Driver(task.abort_handle())), answers: 0 })
    }
}
