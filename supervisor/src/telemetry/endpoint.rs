//! Where Prometheus finds us: `/metrics`, and beside it `/livez` and `/readyz` for service managers.
//!
//! The listener is bound before anything is started: an address that was asked for and can't be had is an error while nothing is
//! lost yet. Plain HTTP without a password, as is usual for exporters, and so on the loopback interface unless the operator
//! names another address; what is shown are names, states and numbers, never an id, a path or anything that an agent wrote.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use super::scrape::Scraper;

/// The port that is taken unless another is named.
pub const PORT: u16 = 9464;
/// How many ports are tried from [`PORT`] on.
const PORTS_TRIED: u16 = 100;
/// Connections open at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 32;
/// The longest a connection lives. Scrapers make a new one when theirs is gone; who only holds one open loses it.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// How long the loop may be busy before we are reported dead: it waits for a slow disk, not for ever.
const DEAD_AFTER: Duration = Duration::from_secs(10);
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `--metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// 127.0.0.1:9464, or the next free port.
    #[default]
    Default,
    /// This address and no other; port 0 is any free one.
    At(SocketAddr),
    /// No endpoint.
    Off,
}

/// A text that is no choice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address with a port like 127.0.0.1:9464, or `off`")]
pub struct NoChoice;

impl FromStr for Choice {
    type Err = NoChoice;

    fn from_str(text: &str) -> Result<Choice, NoChoice> {
        match text {
            "off" => Ok(Choice::Off),
            _ => text.parse().map(Choice::At).map_err(|_| NoChoice),
        }
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address that was asked for can't be had.
    #[error("metrics can't be served at {address}")]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Why: taken, not ours, not allowed.
        #[source]
        source: io::Error,
    },
}

/// A bound listener.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

/// What came of binding.
#[derive(Debug)]
pub struct Bound {
    /// The endpoint, if there is one.
    pub endpoint: Option<Endpoint>,
    /// Something that the user should hear.
    pub warning: Option<String>,
}

impl Endpoint {
    /// Binds as chosen. The default gives way to others: to the next port, and in the end to no metrics, because an agent is not
    /// to stay down over them.
    ///
    /// # Errors
    /// [`EndpointError::Taken`] for an address that was asked for.
    pub fn bind(choice: Choice) -> Result<Bound, EndpointError> {
        let address = match choice {
            Choice::Off => return Ok(Bound { endpoint: None, warning: None }),
            Choice::Default => return Ok(bind_from(PORT)),
            Choice::At(address) => address,
        };
        let taken = |source| EndpointError::Taken { address, source };
        Ok(Bound { endpoint: Some(Endpoint::at(address).map_err(taken)?), warning: None })
    }

    fn at(address: SocketAddr) -> io::Result<Endpoint> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Endpoint { listener, address })
    }

    /// Where Prometheus finds it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until the task is aborted.
    ///
    /// # Errors
    /// What accept(2) says, when it can't go on.
    pub async fn serve(self, scraper: Scraper) -> io::Result<()> {
        let inner = tokio::net::TcpListener::from_std(self.listener)?;
        let listener = Bounded { inner, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(scraper);
        axum::serve(listener, router).await
    }
}

fn bind_from(first: u16) -> Bound {
    let mut last = None;
    for port in first..first.saturating_add(PORTS_TRIED) {
        match Endpoint::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            Ok(endpoint) => {
                let moved = format!("port {first} is taken: metrics are at {}", endpoint.url());
                return Bound { endpoint: Some(endpoint), warning: (port != first).then_some(moved) };
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = Some(e),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let why = last.map_or_else(String::new, |e| format!(" ({e})"));
    let text = format!("no port from {first} on could be had on 127.0.0.1{why}: there are no metrics");
    Bound { endpoint: None, warning: Some(text) }
}

async fn metrics(State(scraper): State<Scraper>) -> Response {
    let text = scraper.exposition().await;
    ([(header::CONTENT_TYPE, EXPOSITION)], text.to_string()).into_response()
}

async fn livez(State(scraper): State<Scraper>) -> Response {
    match scraper.check_loop(DEAD_AFTER).await.problem {
        None => "ok\n".into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("loop: {problem}\n")).into_response(),
    }
}

/// Kubernetes' form: `ok`, or with `?verbose` a line for each check.
async fn readyz(State(scraper): State<Scraper>, RawQuery(query): RawQuery) -> Response {
    let checks = scraper.checks().await;
    let ready = checks.iter().all(|check| check.problem.is_none());
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    let mut text = String::new();
    for check in checks.iter().filter(|check| verbose || check.problem.is_some()) {
        match &check.problem {
            None => text.push_str(&format!("[+]{} ok\n", check.name)),
            Some(problem) => text.push_str(&format!("[-]{} failed: {problem}\n", check.name)),
        }
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

/// A listener whose connections are limited in number and in life.
#[derive(Debug)]
struct Bounded {
    inner: tokio::net::TcpListener,
    room: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed");
        // axum's own accept waits out errors such as a full descriptor table.
        let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
        (Connection { stream, over: Box::pin(sleep(CONNECTION_LIFE)), _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    over: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.over.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_or_off_is_a_choice_and_a_bare_port_is_not() {
        assert_eq!("off".parse(), Ok(Choice::Off));
        assert_eq!("[::1]:9".parse(), Ok(Choice::At("[::1]:9".parse().unwrap())));
        for wrong in ["9464", "localhost:9464", "", "127.0.0.1"] {
            assert_eq!(wrong.parse::<Choice>(), Err(NoChoice), "{wrong}");
        }
    }

    #[test]
    fn a_taken_default_gives_way_to_the_next_free_port_and_says_so() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let bound = bind_from(port);
        // Where the port is the last one there is nowhere to go; the kernel doesn't give such ports away.
        let endpoint = bound.endpoint.unwrap();
        assert!(endpoint.address.port() > port);
        assert!(bound.warning.unwrap().contains(&endpoint.url()));
    }

    #[test]
    fn a_taken_address_that_was_asked_for_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Endpoint::bind(Choice::At(address)).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()));
    }
}
