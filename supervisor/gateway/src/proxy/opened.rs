//! Tunnels whose TLS is opened here: what comes out of them goes the way of plain requests.
//!
//! **The order.** The ClientHello is read and judged as for any tunnel. Then TLS is made with the destination, verified by the
//! host's roots, and only then with the agent. A destination that is not to be trusted is told *inside* the agent's TLS, as a 502
//! with the reason as data: of a refused CONNECT most clients show three digits, and of a failed handshake even less.
//!
//! **Two flows.** The tunnel is one flow for its whole life and carries no bytes of its own; each request out of it is another, decided
//! by itself. Both stand in the seat, so a new policy that no longer allows the tunnel ends it between two requests too.
//!
//! **What is not carried.** What isn't HTTP/1.1 (HTTP/2 is not offered), websockets, and requests to another host than the tunnel was
//! opened for: none of it goes on unread.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use hyper::Response;
use hyper::http::request::Parts;
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::body::Body;
use super::clock::Clock;
use super::head::{self, BadHead};
use super::opening::{self, deny};
use super::secure::{self, Unsecured};
use super::wire::Near;
use super::{Door, Over, Session, refusal, requests, tunnel};
use crate::flow::{Outcome, Wait};
use crate::host::Authority;
use crate::live::{Decided, Reached, Seat, Waits};
use crate::policy::{Ask, Denial, Intercept, Reason, RuleId, Via};

/// A fatal alert, internal_error, in a plaintext record (RFC 8446, 6.2 and 5.1).
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
/// How long our last word of TLS may take to leave.
const CLOSING: Duration = Duration::from_secs(1);

/// What a session of an opened tunnel knows of it.
#[derive(Debug)]
pub(super) struct Tunnel {
    to: Authority,
    rule: RuleId,
    /// What stood against TLS with the destination; told by the first request, tried anew by the next.
    trouble: Mutex<Option<Unsecured>>,
    /// Whether anything that came out of it was HTTP.
    spoke: AtomicBool,
}

impl Tunnel {
    /// Reads the head of a request; gives where it goes.
    pub(super) fn read(&self, head: &Parts) -> Result<Authority, BadHead> {
        self.spoke.store(true, Ordering::Relaxed);
        head::read_opened(head, &self.to).map(|()| self.to.clone())
    }

    /// The answer to a request for another host.
    pub(super) fn differs(&self, seat: &Seat) -> Response<Body> {
        let ask = Arc::new(Ask::new(self.to.clone(), Via::Connect));
        let denial = Denial::new(self.rule, Reason::HostMismatch);
        let denial = seat.agent.denied(Some(Arc::clone(&ask)), denial, seat.agent.generation(), None);
        refusal::denied(&denial, Some(&ask))
    }

    pub(super) fn trouble(&self) -> Option<Unsecured> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Carries a decided and connected tunnel to its end, opened or not. `early` is what the agent sent already.
pub(crate) async fn carry_any(near: TcpStream, far: Reached, early: Bytes, decided: Decided, waits: Waits) {
    match decided.permit.intercept {
        Intercept::Off => opening::carry(near, far.stream, early, decided, waits).await,
        // On the heap: a tunnel's task that opens nothing shall not have room for it.
        Intercept::On => Box::pin(carry(near, far, early, decided, waits)).await,
    }
}

async fn carry(mut near: TcpStream, far: Reached, early: Bytes, decided: Decided, waits: Waits) {
    let seat = Arc::clone(decided.passage.seat());
    seat.opens(&decided);
    let first = match opening::read(&mut near, early, &decided, waits).await {
        Ok(first) => first,
        Err(unopened) => {
            drop(far);
            return unopened.end(near, &decided).await;
        }
    };
    let gateway = &seat.agent.gateway;
    let to = decided.ask.authority();
    let Ok(config) = gateway.authority().and_then(|authority| authority.serve(&to.host, SystemTime::now())) else {
        // Without randomness there is no certificate; the agent sees whose fault it is.
        let _ = near.write_all(&INTERNAL_ERROR).await;
        return decided.passage.end(Outcome::Broken);
    };
    let (upstream, trouble) = match secure::connect(&gateway.tls, far, &to, waits.connect).await {
        Ok(upstream) => (Some(upstream), None),
        Err(trouble) => (None, Some(trouble)),
    };
    let accepting = TlsAcceptor::from(config).accept(Rewound { first, stream: near }).into_fallible();
    let near = match timeout(waits.hello, accepting).await {
        Ok(Ok(near)) => near,
        Ok(Err((error, near))) => {
            drop(upstream);
            unaccepted(&error, &decided);
            return tunnel::linger(near.stream).await;
        }
        Err(_) => return decided.passage.end(Outcome::TimedOut(Wait::Hello)),
    };
    let (trouble, spoke) = (Mutex::new(trouble), AtomicBool::new(false));
    let session = Arc::new(Session {
        seat: Arc::clone(&seat),
        clock: Arc::new(Clock::new(waits)),
        door: Door::Tunnel(Tunnel { to, rule: decided.permit.rule, trouble, spoke }),
        upstream: Mutex::new(upstream),
    });
    let over = requests(near, &session).await;
    let spoke = matches!(&session.door, Door::Tunnel(tunnel) if tunnel.spoke.load(Ordering::Relaxed));
    drop(session);
    match over {
        Over::Handed(near, _) => {
            decided.passage.end(Outcome::Complete);
            close(near).await;
        }
        Over::Broken(error) if error.is_parse() && !error.is_parse_too_large() && !spoke => {
            deny(&decided, Reason::NotHttp);
        }
        Over::Broken(error) => {
            if error.is_parse() {
                seat.agent.malformed();
            }
            // An answer that broke off takes the tunnel with it; else it is the agent who went.
            decided.passage.end(if error.is_user() { Outcome::Broken } else { Outcome::HungUp });
        }
        // The passage knows it from its seat.
        Over::TimedOut => {}
    }
}

/// Tells why the agent's side of TLS did not come about.
fn unaccepted(error: &io::Error, decided: &Decided) {
    use rustls::Error::{AlertReceived, NoApplicationProtocol};

    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(NoApplicationProtocol) => drop(deny(decided, Reason::NotHttp)),
        Some(AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        )) => decided.passage.end(Outcome::Distrusted),
        Some(AlertReceived(_)) | None => decided.passage.end(Outcome::HungUp),
        Some(_) => drop(deny(decided, Reason::BadTls)),
    }
}

/// Says the last word in TLS too: without it an answer that ends with its connection looks cut off.
async fn close(mut near: TlsStream<Rewound>) {
    if matches!(timeout(CLOSING, near.shutdown()).await, Ok(Ok(()))) {
        tunnel::linger(near.into_inner().0.stream).await;
    }
}

/// A connection of which some was read already.
#[derive(Debug)]
struct Rewound {
    first: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

impl Near for TlsStream<Rewound> {
    fn socket(&self) -> &TcpStream {
        &self.get_ref().0.stream
    }
}
