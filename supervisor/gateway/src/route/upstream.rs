//! Connections to upstreams: made, kept, taken again.
//!
//! One [`Client`] for each runtime: a connection lives where its task lives, and nobody else waits for its lock. HTTP/1.1 alone:
//! one call is one connection, so a call that is given up is cancelled by closing it, which is what stops the bill.

use super::dial::Dial;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// To make a connection, names and TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// How long a connection is kept for nobody: below what providers' servers do.
const KEPT_FOR: Duration = Duration::from_secs(50);
/// Connections kept for one upstream.
const KEPT_MAX: usize = 64;
/// Connections of one client at the same time.
const OPEN_MAX: usize = 4096;
/// Most that is buffered of a connection, heads included.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// By TLS or in the clear.
    pub(super) tls: Tls,
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands before every path, without a slash at its end.
    pub(super) prefix: String,
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tls {
    Yes,
    No,
}

impl Base {
    /// From `https://host[:port][/prefix]`.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: hyper::Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => Tls::Yes,
            "http" => Tls::No,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return None;
        }
        let port = authority.port_u16().unwrap_or(if tls == Tls::Yes { 443 } else { 80 });
        let prefix = match uri.path().trim_end_matches('/') {
            "" => String::new(),
            path => super::path::normal(path).ok()?,
        };
        let host = authority.host();
        (!host.is_empty() && port > 0).then(|| Self { tls, host: host.to_owned(), port, prefix })
    }

    /// As the Host header says it.
    pub(super) fn authority(&self) -> String {
        match (self.tls, self.port) {
            (Tls::Yes, 443) | (Tls::No, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A call that did not bring an answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Too many connections.
    #[error("{OPEN_MAX} upstream connections are open")]
    Busy,
    /// The upstream can't be reached.
    #[error("can't connect to {host}")]
    Connect {
        /// Where to.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long to connect.
    #[error("no connection to {host} within {CONNECT_MAX:?}")]
    ConnectTimeout {
        /// Where to.
        host: String,
    },
    /// The connection was lost before the request had left.
    #[error("the connection was lost before the request had left")]
    Unsent(#[source] hyper::Error),
    /// The connection was lost, or made no sense, after the request had left.
    #[error("the connection was lost before an answer came")]
    Lost(#[source] hyper::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

impl SendError {
    /// Whether the request may have arrived.
    pub fn left(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Silent(_))
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// A connection with its place among the open ones.
#[derive(Debug)]
pub(super) struct Open {
    sender: Sender,
    /// Given back when the connection is dropped.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct KeptOpen {
    open: Open,
    since: Instant,
}

#[derive(Debug)]
struct Inner {
    dial: Arc<dyn Dial>,
    tls: Arc<rustls::ClientConfig>,
    places: Arc<Semaphore>,
    /// By upstream, the most recently used last.
    kept: Mutex<HashMap<Arc<Base>, Vec<KeptOpen>>>,
}

/// Calls upstreams; cheap to clone, the clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

/// An answer, and the connection that goes back when it has been read.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) returning: Returning,
}

/// Puts a connection back once its answer was read to the end; dropped before that, the connection is closed.
#[derive(Debug)]
pub(super) struct Returning {
    client: Client,
    base: Arc<Base>,
    open: Open,
}

impl Returning {
    pub(super) fn give_back(self) {
        let Self { client, base, open } = self;
        client.keep(base, open);
    }
}

impl Client {
    /// A client for the runtime that uses it.
    pub fn new(dial: Arc<dyn Dial>, tls: Arc<rustls::ClientConfig>) -> Self {
        let places = Arc::new(Semaphore::new(OPEN_MAX));
        Self { inner: Arc::new(Inner { dial, tls, places, kept: Mutex::new(HashMap::new()) }) }
    }

    fn keep(&self, base: Arc<Base>, open: Open) {
        if open.sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let list = kept.entry(base).or_default();
        list.retain(|kept| now.duration_since(kept.since) < KEPT_FOR && !kept.open.sender.is_closed());
        if list.len() < KEPT_MAX {
            list.push(KeptOpen { open, since: now });
        }
    }

    fn take_kept(&self, base: &Base) -> Option<Open> {
        let mut kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let list = kept.get_mut(base)?;
        while let Some(KeptOpen { open, since }) = list.pop() {
            if since.elapsed() < KEPT_FOR && !open.sender.is_closed() {
                return Some(open);
            }
        }
        None
    }

    /// Sends `request` to `base` and waits `patience` for the head of the answer. `leaving` is called when the request is about to
    /// leave; before that, nothing can have been billed.
    pub(super) async fn send(
        &self,
        base: &Arc<Base>,
        request: Request<Full<Bytes>>,
        patience: Duration,
        mut leaving: impl FnMut(),
    ) -> Result<Answer, SendError> {
        let mut request = request;
        // Every kept connection can turn out to be closed by the other side; a new one ends the search.
        for _ in 0..=KEPT_MAX {
            let (mut open, fresh) = match self.take_kept(base) {
                Some(open) => (open, false),
                // On the heap: with a handshake in it, it would be most of what every call carries along.
                None => (Box::pin(self.open(base)).await?, true),
            };
            match timeout(CONNECT_MAX, open.sender.ready()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if fresh => return Err(SendError::Unsent(error)),
                Err(_) if fresh => return Err(SendError::ConnectTimeout { host: base.authority() }),
                Ok(Err(_)) | Err(_) => continue,
            }
            leaving();
            match timeout(patience, open.sender.try_send_request(request)).await {
                Ok(Ok(response)) => {
                    let returning = Returning { client: self.clone(), base: Arc::clone(base), open };
                    return Ok(Answer { response, returning });
                }
                Ok(Err(mut failed)) => match failed.take_message() {
                    // It comes back only if nothing of it has left.
                    Some(unsent) if !fresh => request = unsent,
                    Some(_) => return Err(SendError::Unsent(failed.into_error())),
                    None => return Err(SendError::Lost(failed.into_error())),
                },
                Err(_) => return Err(SendError::Silent(patience)),
            }
        }
        Err(SendError::Busy)
    }

    async fn open(&self, base: &Base) -> Result<Open, SendError> {
        let place = Arc::clone(&self.inner.places).try_acquire_owned().map_err(|_| SendError::Busy)?;
        let host = || base.authority();
        match timeout(CONNECT_MAX, self.connect(base)).await {
            Ok(Ok(sender)) => Ok(Open { sender, _place: place }),
            Ok(Err(source)) => Err(SendError::Connect { host: host(), source }),
            Err(_) => Err(SendError::ConnectTimeout { host: host() }),
        }
    }

    async fn connect(&self, base: &Base) -> io::Result<Sender> {
        let tcp = self.inner.dial.dial(base.host(), base.port).await?;
        tcp.set_nodelay(true)?;
        match base.tls {
            Tls::No => handshake(TokioIo::new(tcp)).await,
            Tls::Yes => {
                let name = ServerName::try_from(base.host().to_owned()).map_err(io::Error::other)?;
                let stream = TlsConnector::from(Arc::clone(&self.inner.tls)).connect(name, tcp).await?;
                handshake(TokioIo::new(stream)).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<Sender>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    // Ends with the connection, which ends when its sender and its answer are gone. Its error is seen by whoever waits for the
    // answer; with nobody waiting it is an upstream that closed.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
