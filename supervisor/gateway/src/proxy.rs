//! The forward proxy: HTTP/1.1 CONNECT and absolute-form, and the door to the model routes.
//!
//! **What the client of a tunnel sees.** The decision, the resolving and the connecting come before the answer to CONNECT, so that
//! each has a status of its own (403, 502, 504) and a tunnel that says 200 has a destination. Only then the ClientHello is read;
//! what it asks for wrongly is answered with a TLS alert. A denied name thus never causes a packet outside, a wrong ClientHello
//! at most a connection to an address that was permitted anyway.
//!
//! **What is not carried.** Upgrades of plain HTTP (websockets) are refused with 501: inside CONNECT they pass. Trailers and 1xx
//! answers stop here. A client that closes its sending side while it waits has hung up: its request is cancelled.

mod body;
mod clock;
mod environment;
mod head;
mod model;
mod opening;
mod plain;
mod refusal;
mod rewrite;
mod tunnel;
mod upstream;
mod wire;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpStream;

use crate::flow::{Kind, Outcome};
use crate::hook::Failure;
use crate::host::Authority;
use crate::live::{Decided, FIELDS_MAX, HEAD_MAX, NoWay, Seat, reach};
use crate::policy::{Ask, Denial, Intercept, Reason, Via};
use crate::route::Client;
use body::Body;
use clock::Clock;
use head::Target;
use upstream::Upstream;
use wire::Wire;

pub use environment::environment;
pub(crate) use opening::carry as carry_tunnel;
pub(crate) use tunnel::{carry as carry_bytes, linger, reset};

/// hyper's buffers of one connection: a head, or what is on its way of a body.
const BUFFER_MAX: usize = 64 * 1024;

/// One connection of an agent's HTTP client.
#[derive(Debug)]
struct Session {
    seat: Arc<Seat>,
    clock: Arc<Clock>,
    /// The way to model routes' upstreams, of this thread.
    client: Client,
    /// The connection of the last plain request.
    upstream: Mutex<Option<Upstream>>,
    /// A tunnel that CONNECT was answered 200 for.
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    decided: Decided,
    far: TcpStream,
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
struct Closed;

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, seat: &Arc<Seat>, client: Client) {
    let waits = seat.agent.gateway.settings.waits;
    let clock = Arc::new(Clock::new(waits));
    let session = Arc::new(Session {
        seat: Arc::clone(seat),
        clock: Arc::clone(&clock),
        client,
        upstream: Mutex::new(None),
        opened: Mutex::new(None),
    });
    let Some((stream, early)) = requests(stream, &session).await else { return };
    let opened = session.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    // A tunnel needs nothing of all that any more.
    drop((session, clock));
    match opened {
        Some(Opened { decided, far }) => opening::carry(stream, far, early, decided, waits).await,
        None => tunnel::linger(stream).await,
    }
}

/// Answers requests until the connection ends or becomes a tunnel; gives it back with what was read beyond the last request.
async fn requests(stream: TcpStream, session: &Arc<Session>) -> Option<(TcpStream, Bytes)> {
    let clock = &session.clock;
    let answering = Arc::clone(session);
    // On the heap while there is a request: it is large, and most connections rest most of the time.
    let service = service_fn(move |request| Box::pin(Arc::clone(&answering).answer(request)));
    let connection = http1::Builder::new()
        .max_headers(FIELDS_MAX)
        .max_header_size(HEAD_MAX)
        .max_buf_size(BUFFER_MAX)
        // Our clock does it, with one timer for all waits of a connection.
        .header_read_timeout(None)
        .auto_date_header(false)
        .serve_connection(Wire::new(stream, Arc::clone(clock)), service)
        .without_shutdown();
    let mut connection = pin!(connection);
    let mut timer = pin!(clock.timer());
    poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Ready(Ok(parts)) => Poll::Ready(Some((parts.io.into_stream(), parts.read_buf))),
        // What hyper couldn't read it has answered; what broke off needs no answer.
        Poll::Ready(Err(_)) => Poll::Ready(None),
        Poll::Pending => clock.poll(timer.as_mut(), cx).map(|wait| {
            session.seat.ends(Outcome::TimedOut(wait));
            None
        }),
    })
    .await
}

impl Session {
    /// One request.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        self.clock.request();
        let clock = Arc::clone(&self.clock);
        let (parts, incoming) = request.into_parts();
        let answer = match head::read(&parts) {
            Err(bad) => {
                self.seat.agent.malformed();
                Some(refusal::malformed(bad))
            }
            Ok(Target::Tunnel(to)) => self.connect(to).await,
            Ok(Target::Outside(to)) => self.fetch(to, parts, incoming).await,
            Ok(Target::Here) if self.is_route(parts.uri.path()) => self.model(parts, incoming).await,
            Ok(Target::Here) => Some(refusal::no_route(parts.uri.path())),
        };
        match answer {
            Some(answer) => Ok(answer.map(|body| body.on(clock))),
            None => Err(Closed),
        }
    }

    fn is_route(&self, path: &str) -> bool {
        self.seat.agent.models().is_some_and(|models| models.routes.claims(path))
    }

    /// CONNECT: decided and connected before it is answered.
    async fn connect(&self, to: Authority) -> Option<Response<Body>> {
        let ask = Ask::new(to, Via::Connect);
        let decided = match self.seat.decide(Kind::Connect, ask) {
            Ok(decided) => decided,
            Err((denial, ask)) => return Some(refusal::denied(&denial, Some(&ask))),
        };
        if decided.permit.intercept == Intercept::On {
            return Some(refusal::denied(&refuse_intercepted(&self.seat, &decided), Some(&decided.ask)));
        }
        let far = match reach(&decided).await {
            Ok(reached) => reached.stream,
            Err(way) => return self.no_way(&way),
        };
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(Opened { decided, far });
        Some(Response::new(Body::empty()))
    }

    /// The answer when no connection came about; none when a hook wants none.
    fn no_way(&self, way: &NoWay) -> Option<Response<Body>> {
        if matches!(way, NoWay::Failed(Failure::Reset)) {
            self.clock.reset();
        }
        refusal::no_way(way)
    }
}

/// An entry with rules for what is inside TLS, which nobody here opens: passing it unread would be more than was permitted.
pub(crate) fn refuse_intercepted(seat: &Seat, decided: &Decided) -> Arc<Denial> {
    let denial = Denial::new(decided.permit.rule, Reason::Opaque);
    let flow = Some(decided.passage.flow().id);
    decided.passage.end(Outcome::Denied(Reason::Opaque));
    seat.agent.denied(Some(decided.ask.clone()), denial, decided.policy.generation, flow)
}
