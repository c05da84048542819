//! The first bytes of a tunnel: who it really asks for.
//!
//! A tunnel is permitted by the name that CONNECT gave. What TLS then asks for is read from the ClientHello before a byte of it
//! goes on: another name, none, or a hidden one (ECH) is refused, unless the entry says that anything may pass. The agent reads a
//! TLS alert, `access_denied`, because "connection closed" would be tried again.
//!
//! What this can't see: a front that serves many sites may be asked inside TLS for another of them than the ClientHello names (by
//! `Host`), and a permitted server may pass on what it is sent. Only interception (`opened`) sees the one, and nothing the other.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tunnel;
use crate::flow::{Outcome, Wait};
use crate::hello::{Hello, Progress};
use crate::live::{Decided, Waits};
use crate::policy::{Denial, Reason, SniRule};

/// A fatal alert, access_denied, in a plaintext record (RFC 8446, 6.2 and 5.1).
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
/// Read at once while waiting for a ClientHello.
const PIECE: usize = 4096;

/// Carries a decided and connected tunnel to its end. `early` is what the agent sent already.
pub(super) async fn carry(mut near: TcpStream, far: TcpStream, early: Bytes, decided: Decided, waits: Waits) {
    let passage = &decided.passage;
    let first = match read(&mut near, early, &decided, waits).await {
        Ok(first) => first,
        Err(unopened) => {
            drop(far);
            return unopened.end(near, &decided).await;
        }
    };
    let outcome = tunnel::carry(near, far, first, passage, waits).await;
    passage.end(outcome);
}

/// Why a tunnel does not open.
pub(super) enum Unopened {
    Denied(Reason),
    HungUp,
    TimedOut,
}

/// Reads from a decided tunnel what has to be judged before a byte of it goes on; gives all that was read.
pub(super) async fn read(
    near: &mut TcpStream,
    early: Bytes,
    decided: &Decided,
    waits: Waits,
) -> Result<Bytes, Unopened> {
    if decided.permit.sni == SniRule::Any {
        return Ok(early);
    }
    timeout(waits.hello, hello(near, &early, &decided.permit.sni)).await.unwrap_or(Err(Unopened::TimedOut))
}

impl Unopened {
    /// Ends it, as its agent shall see it.
    pub(super) async fn end(self, near: TcpStream, decided: &Decided) {
        match self {
            Self::HungUp => decided.passage.end(Outcome::HungUp),
            Self::TimedOut => decided.passage.end(Outcome::TimedOut(Wait::Hello)),
            Self::Denied(reason) => refuse(near, decided, reason).await,
        }
    }
}

/// Reads the whole ClientHello and judges it; gives all that was read.
async fn hello(near: &mut TcpStream, early: &[u8], rule: &SniRule) -> Result<Bytes, Unopened> {
    let mut hello = Hello::new();
    let mut progress = hello.read(early);
    while progress == Progress::NeedMore {
        // On the heap while it is needed: a tunnel's task lives long, its hello doesn't.
        let mut piece = Vec::with_capacity(PIECE);
        match near.read_buf(&mut piece).await {
            Ok(0) if hello.bytes().is_empty() => return Err(Unopened::HungUp),
            Ok(0) => break,
            Ok(_) => progress = hello.read(&piece),
            Err(_) => return Err(Unopened::HungUp),
        }
    }
    rule.check(&progress).map_err(Unopened::Denied)?;
    Ok(Bytes::from(hello.into_bytes()))
}

async fn refuse(mut near: TcpStream, decided: &Decided, reason: Reason) {
    deny(decided, reason);
    if reason != Reason::NotTls {
        // Whoever is gone already needs no alert.
        let _ = near.write_all(&ACCESS_DENIED).await;
    }
    tunnel::linger(near).await;
}

/// Tells that a decided tunnel is refused after all, and ends it.
pub(super) fn deny(decided: &Decided, reason: Reason) -> Arc<Denial> {
    let agent = &decided.passage.seat().agent;
    let denial = Denial::new(decided.permit.rule, reason);
    let flow = Some(decided.passage.flow().id);
    let denial = agent.denied(Some(decided.ask.clone()), denial, decided.policy.generation, flow);
    decided.passage.end(Outcome::Denied(reason));
    denial
}
