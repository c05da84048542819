//! Requests that can be read, plain or out of an opened tunnel: decided one by one, also on one connection, and written anew.

use std::sync::PoisonError;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Version};
use tokio::time::timeout;

use super::body::{Body, Outward};
use super::head::BadHead;
use super::rewrite::{self, Length};
use super::upstream::Upstream;
use super::{Door, Session, refusal, secure};
use crate::flow::{Kind, Outcome, Wait};
use crate::host::{Authority, Host};
use crate::live::{Decided, NoWay, reach};
use crate::policy::{Ask, Via};

/// How long a kept connection may take to be ready: it is, or something is left over on it.
const READY: Duration = Duration::from_millis(100);

impl Session {
    /// A request in absolute form, or one out of a tunnel that was opened for `to`.
    pub(super) async fn fetch(&self, to: Authority, head: Parts, incoming: Incoming) -> Option<Response<Body>> {
        let path = head.uri.path().to_owned();
        let ask = Ask::new(to.clone(), Via::Http { method: head.method.clone(), path });
        let decided = match self.seat.decide(self.door.kind(), ask) {
            Ok(decided) => decided,
            Err((denial, ask)) => return Some(refusal::denied(&denial, Some(&ask))),
        };
        match self.upstream(&to, &decided).await {
            Ok(upstream) => self.exchange(&decided, upstream, head, incoming).await,
            Err(way) => self.no_way(&way),
        }
    }

    /// The connection of the last request, if it goes to the same place, still stands and is still admitted; else a new one.
    async fn upstream(&self, to: &Authority, decided: &Decided) -> Result<Upstream, NoWay> {
        let kept = self.upstream.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut kept) = kept
            && kept.to == *to
            && decided.policy.admit(&decided.ask, kept.address, &self.seat.agent.own()).is_ok()
            && matches!(timeout(READY, kept.sender.ready()).await, Ok(Ok(())))
        {
            before(decided).await?;
            self.seat.connected(decided, kept.address).map_err(|denial| NoWay::denied(denial, decided))?;
            return Ok(kept);
        }
        if let Door::Tunnel(tunnel) = &self.door
            && let Some(trouble) = tunnel.trouble()
        {
            return Err(trouble.tell(decided));
        }
        self.fresh(to, decided).await
    }

    async fn fresh(&self, to: &Authority, decided: &Decided) -> Result<Upstream, NoWay> {
        let reached = reach(decided).await?;
        if let Door::Tunnel(_) = &self.door {
            let gateway = &self.seat.agent.gateway;
            // On the heap: most requests make no TLS connection.
            let secured = Box::pin(secure::connect(&gateway.tls, reached, to, gateway.settings.waits.connect)).await;
            return secured.map_err(|trouble| trouble.tell(decided));
        }
        let fresh = Upstream::new(reached.stream, to.clone(), reached.address).await;
        fresh.map_err(|error| {
            decided.passage.end(Outcome::Broken);
            NoWay::Unreachable(format!("{to}: {error}"))
        })
    }

    async fn exchange(
        &self,
        decided: &Decided,
        mut upstream: Upstream,
        mut head: Parts,
        incoming: Incoming,
    ) -> Option<Response<Body>> {
        let passage = &decided.passage;
        let is_head = head.method == Method::HEAD;
        let sized = incoming.is_end_stream() || incoming.size_hint().exact().is_some();
        rewrite::request(
            &mut head,
            host_field(&upstream.to, self.door.port()),
            if sized { Length::Known } else { Length::Chunked },
        );
        // A destination may close a connection that it kept just when it is used again. What is safe to ask twice (RFC 9110,
        // 9.2.2) and has no body is then asked once more, on a new one.
        let again = (upstream.answers > 0 && head.method.is_safe() && incoming.is_end_stream()).then(|| head.clone());
        let mut answer =
            self.send(&mut upstream, Request::from_parts(head, Outward::new(incoming, passage.clone()))).await;
        if let (Err(Unanswered::Broken), Some(head)) = (&answer, again) {
            upstream = match self.fresh(&upstream.to, decided).await {
                Ok(fresh) => fresh,
                Err(way) => return self.no_way(&way),
            };
            answer = self.send(&mut upstream, Request::from_parts(head, Outward::empty(passage.clone()))).await;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if passage.is_garbled() => {
                self.seat.agent.malformed();
                passage.end(Outcome::HungUp);
                return Some(refusal::malformed(BadHead::Body));
            }
            Err(Unanswered::Broken) => {
                passage.end(Outcome::Broken);
                return Some(refusal::broken());
            }
            Err(Unanswered::TimedOut) => {
                passage.end(Outcome::TimedOut(Wait::Answer));
                return Some(refusal::timed_out(Wait::Answer));
            }
        };
        let (mut head, incoming) = answer.into_parts();
        if let Err(failure) = passage.on_head(&head).await {
            passage.end(Outcome::Failed(failure));
            return self.failed(failure);
        }
        if head.status.is_informational() {
            // 101 to a request that asked for no upgrade.
            passage.end(Outcome::Broken);
            return Some(refusal::broken());
        }
        rewrite::response(&mut head);
        if passage.is_watched() && !is_head {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        head.version = Version::HTTP_11;
        let answer = Response::from_parts(head, Body::carried(incoming, passage.clone(), upstream.driver.clone()));
        // Only what answered is kept.
        upstream.answers += 1;
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
        Some(answer)
    }

    async fn send(&self, upstream: &mut Upstream, request: Request<Outward>) -> Result<Response<Incoming>, Unanswered> {
        let wait = self.seat.agent.gateway.settings.waits.answer;
        match timeout(wait, upstream.sender.send_request(request)).await {
            Ok(answered) => answered.map_err(|_| Unanswered::Broken),
            Err(_) => Err(Unanswered::TimedOut),
        }
    }
}

/// Why a request has no answer.
enum Unanswered {
    Broken,
    TimedOut,
}

/// Asks the hooks for a flow that needs no new connection.
async fn before(decided: &Decided) -> Result<(), NoWay> {
    decided.passage.before_connect().await.map_err(|failure| {
        decided.passage.end(Outcome::Failed(failure));
        NoWay::Failed(failure)
    })
}

impl Door {
    fn kind(&self) -> Kind {
        match self {
            Self::Front(_) => Kind::Http,
            Self::Tunnel(_) => Kind::Https,
        }
    }

    /// The port that goes without saying.
    fn port(&self) -> u16 {
        match self {
            Self::Front(_) => 80,
            Self::Tunnel(_) => 443,
        }
    }
}

/// `Host` for a destination: without the port that goes without saying, as clients write it.
pub(super) fn host_field(to: &Authority, usual: u16) -> HeaderValue {
    let text = match &to.host {
        Host::Address(address) if to.port == usual && address.is_ipv6() => format!("[{address}]"),
        host if to.port == usual => host.to_string(),
        _ => to.to_string(),
    };
    HeaderValue::try_from(text).expect("a host in its one spelling is ASCII")
}
