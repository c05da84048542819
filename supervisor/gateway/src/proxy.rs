//! The forward proxy: HTTP/1.1 CONNECT and absolute-form, and the door to the model routes.
//!
//! **What the client of a tunnel sees.** The decision, the resolving and the connecting come before the answer to CONNECT, so that
//! each has a status of its own (403, 502, 504) and a tunnel that says 200 has a destination. Only then the ClientHello is read;
//! what it asks for wrongly is answered with a TLS alert. A denied name thus never causes a packet outside, a wrong ClientHello
//! at most a connection to an address that was permitted anyway.
//!
//! **Opened tunnels.** Where an entry says `intercept: on`, what comes out of the tunnel's TLS goes the way of plain requests, each
//! decided by itself (`opened`).
//!
//! **What is not carried.** Upgrades of plain HTTP (websockets) are refused with 501: inside CONNECT they pass, unless it is opened.
//! Trailers and 1xx answers stop here. A client that closes its sending side while it waits has hung up: its request is cancelled.

mod body;
mod clock;
mod environment;
mod head;
mod model;
mod opened;
mod opening;
mod plain;
mod refusal;
mod rewrite;
pub(crate) mod secure;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod trial;
mod tunnel;
mod upstream;
mod wire;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpStream;

use crate::flow::{Kind, Outcome, Wait};
use crate::hook::Failure;
use crate::host::Authority;
use crate::limit::rate::TooMany;
use crate::live::{Decided, FIELDS_MAX, HEAD_MAX, NoWay, Reached, Seat, reach};
use crate::policy::{Ask, Via};
use crate::route::Client;
use body::Body;
use clock::Clock;
use head::{BadHead, Target};
use upstream::Upstream;
use wire::{Near, Wire};

pub use environment::{environment, trust_environment};
pub(crate) use opened::carry_any as carry_tunnel;
pub(crate) use tunnel::{carry as carry_bytes, linger, reset};

/// hyper's buffers of one connection: a head, or what is on its way of a body.
const BUFFER_MAX: usize = 64 * 1024;

/// One connection of an agent's HTTP client.
#[derive(Debug)]
struct Session {
    seat: Arc<Seat>,
    clock: Arc<Clock>,
    door: Door,
    /// The connection of the last plain request.
    upstream: Mutex<Option<Upstream>>,
}

/// Where a session's requests come in.
#[derive(Debug)]
enum Door {
    Front(Front),
    /// Out of a tunnel whose TLS is opened here.
    Tunnel(opened::Tunnel),
}

/// The proxy's own listener.
#[derive(Debug)]
struct Front {
    /// The way to model routes' upstreams, of this thread.
    client: Client,
    /// A tunnel that CONNECT was answered 200 for.
    connected: Mutex<Option<(Decided, Reached)>>,
}

/// How the requests of a connection came to their end.
#[derive(Debug)]
enum Over<S> {
    /// In order, or by CONNECT: the connection, with what was read beyond the last request.
    Handed(S, Bytes),
    /// What hyper couldn't read it has answered; what broke off needs no answer.
    Broken(hyper::Error),
    /// A wait of ours ran out, which the seat knows.
    TimedOut,
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
        door: Door::Front(Front { client, connected: Mutex::new(None) }),
        upstream: Mutex::new(None),
    });
    let Over::Handed(stream, early) = requests(stream, &session).await else { return };
    let connected = match &session.door {
        Door::Front(front) => front.connected.lock().unwrap_or_else(PoisonError::into_inner).take(),
        Door::Tunnel(_) => None,
    };
    // A tunnel needs nothing of all that any more.
    drop((session, clock));
    match connected {
        Some((decided, far)) => opened::carry_any(stream, far, early, decided, waits).await,
        None => tunnel::linger(stream).await,
    }
}

/// Answers requests until the connection ends or becomes a tunnel.
async fn requests<S: Near>(stream: S, session: &Arc<Session>) -> Over<S> {
    let clock = &session.clock;
    let answering = Arc::clone(session);
    // On the heap while there is a request: it is large, and most connections rest most of the time.
    let service = service_fn(move |request| Box::pin(Arc::clone(&answering).answer(request)));
    let connection = parser().serve_connection(Wire::new(stream, Arc::clone(clock)), service).without_shutdown();
    let mut connection = pin!(connection);
    let mut timer = pin!(clock.timer());
    poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Ready(Ok(parts)) => Poll::Ready(Over::Handed(parts.io.into_stream(), parts.read_buf)),
        Poll::Ready(Err(error)) => Poll::Ready(Over::Broken(error)),
        Poll::Pending => clock.poll(timer.as_mut(), cx).map(|wait: Wait| {
            session.seat.ends(Outcome::TimedOut(wait));
            Over::TimedOut
        }),
    })
    .await
}

/// hyper's side of a connection, within our bounds.
fn parser() -> http1::Builder {
    let mut parser = http1::Builder::new();
    parser
        .max_headers(FIELDS_MAX)
        .max_header_size(HEAD_MAX)
        .max_buf_size(BUFFER_MAX)
        // A small answer is copied to its head more quickly than the kernel takes two pieces.
        .writev(false)
        // Our clock does it, with one timer for all waits of a connection.
        .header_read_timeout(None)
        .auto_date_header(false);
    parser
}

impl Session {
    /// One request.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        self.clock.request();
        let clock = Arc::clone(&self.clock);
        let (parts, incoming) = request.into_parts();
        // Whatever it asks for, and before anything is looked at: to be told no costs a request too.
        if let Err(too_many) = self.seat.agent.request() {
            return Ok(self.too_many(&parts, &too_many).map(|body| body.on(clock)));
        }
        let answer = match &self.door {
            Door::Front(front) => match head::read(&parts) {
                Err(bad) => Some(self.malformed(bad)),
                Ok(Target::Tunnel(to)) => self.connect(front, to).await,
                Ok(Target::Outside(to)) => self.fetch(to, parts, incoming).await,
                Ok(Target::Here) if self.is_route(parts.uri.path()) => self.model(front, parts, incoming).await,
                Ok(Target::Here) => Some(refusal::no_route(parts.uri.path())),
            },
            Door::Tunnel(tunnel) => match tunnel.read(&parts) {
                Ok(to) => self.fetch(to, parts, incoming).await,
                Err(BadHead::HostDiffers) => Some(tunnel.differs(&self.seat)),
                Err(bad) => Some(self.malformed(bad)),
            },
        };
        match answer {
            Some(answer) => Ok(answer.map(|body| body.on(clock))),
            None => Err(Closed),
        }
    }

    fn malformed(&self, bad: BadHead) -> Response<Body> {
        self.seat.agent.malformed();
        refusal::malformed(bad)
    }

    /// The answer to a request beyond the agent's rate: in the words of the model's provider where it was a call.
    fn too_many(&self, head: &Parts, too_many: &TooMany) -> Response<Body> {
        let is_call = matches!(self.door, Door::Front(_)) && matches!(head::read(head), Ok(Target::Here));
        let models = self.seat.agent.models().filter(|_| is_call);
        match models.and_then(|models| models.routes.too_many(head.uri.path(), too_many)) {
            Some(answer) => answer.map(|text| Body::whole(text.into())),
            None => refusal::too_many(too_many),
        }
    }

    fn is_route(&self, path: &str) -> bool {
        self.seat.agent.models().is_some_and(|models| models.routes.claims(path))
    }

    /// CONNECT: decided and connected before it is answered.
    async fn connect(&self, front: &Front, to: Authority) -> Option<Response<Body>> {
        let ask = Ask::new(to, Via::Connect);
        let decided = match self.seat.decide(Kind::Connect, ask) {
            Ok(decided) => decided,
            Err((denial, ask)) => return Some(refusal::denied(&denial, Some(&ask))),
        };
        let far = match reach(&decided).await {
            Ok(reached) => reached,
            Err(way) => return self.no_way(&way),
        };
        *front.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some((decided, far));
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
