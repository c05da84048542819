//! The first bytes of a tunnel: who it really asks for.
//!
//! A tunnel is permitted by the name that CONNECT gave. What TLS then asks for is read from the ClientHello before a byte of it
//! goes on: another name, none, or a hidden one (ECH) is refused, unless the entry says that anything may pass. The agent reads a
//! TLS alert, `access_denied`, because "connection closed" would be tried again.
//!
//! What this can't see: a front that serves many sites may be asked inside TLS for another of them than the ClientHello names (by
//! `Host`), and a permitted server may pass on what it is sent. Only interception sees the one, and nothing the other.

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
pub(crate) async fn carry(mut near: TcpStream, far: TcpStream, early: Bytes, decided: Decided, waits: Waits) {
    let passage = &decided.passage;
    let first = if decided.permit.sni == SniRule::Any {
        early
    } else {
        match timeout(waits.hello, hello(&mut near, &early, &decided.permit.sni)).await {
            Ok(Ok(first)) => first,
            Ok(Err(Opening::HungUp)) => return passage.end(Outcome::HungUp),
            Ok(Err(Opening::Denied(reason))) => {
                drop(far);
                return refuse(near, &decided, reason).await;
            }
            Err(_) => return passage.end(Outcome::TimedOut(Wait::Hello)),
        }
    };
    let outcome = tunnel::carry(near, far, first, passage, waits).await;
    passage.end(outcome);
}

/// Why a tunnel does not open.
enum Opening {
    Denied(Reason),
    HungUp,
}

/// Reads the whole ClientHello and judges it; gives all that was read.
async fn hello(near: &mut TcpStream, early: &[u8], rule: &SniRule) -> Result<Bytes, Opening> {
    let mut hello = Hello::new();
    let mut progress = hello.read(early);
    while progress == Progress::NeedMore {
        // On the heap while it is needed: a tunnel's task lives long, its hello doesn't.
        let mut piece = Vec::with_capacity(PIECE);
        match near.read_buf(&mut piece).await {
            Ok(0) if hello.bytes().is_empty() => return Err(Opening::HungUp),
            Ok(0) => break,
            Ok(_) => progress = hello.read(&piece),
            Err(_) => return Err(Opening::HungUp),
        }
    }
    rule.check(&progress).map_err(Opening::Denied)?;
    Ok(Bytes::from(hello.into_bytes()))
}

async fn refuse(mut near: TcpStream, decided: &Decided, reason: Reason) {
    let agent = &decided.passage.seat().agent;
    let denial = Denial::new(decided.permit.rule, reason);
    agent.denied(Some(decided.ask.clone()), denial, decided.policy.generation, Some(decided.passage.flow().id));
    decided.passage.end(Outcome::Denied(reason));
    if reason != Reason::NotTls {
        // Whoever is gone already needs no alert.
        let _ = near.write_all(&ACCESS_DENIED).await;
    }
    tunnel::linger(near).await;
}
