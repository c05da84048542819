//! SOCKS5 with remote names, for what speaks no HTTP (RFC 1928).
//!
//! Only CONNECT, without authentication: who asks is known by the listener. Names are resolved here; addresses are asked of the
//! policy like any host. The conditions of the permit hold as for HTTP's CONNECT: an entry without `sni: any` carries TLS for its
//! name and nothing else, whichever way it came, and one with `intercept: on` opens it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::flow::{Kind, Outcome};
use crate::hook::Failure;
use crate::host::{Authority, Host};
use crate::live::{NoWay, Seat, reach};
use crate::policy::{Ask, Denial, Reason, RuleId, Via};
use crate::proxy;

/// The version in the first byte of every message but the sub-negotiations.
const VERSION: u8 = 5;
/// "No authentication required".
const OPEN: u8 = 0;
/// "No acceptable methods".
const NONE_OF_THESE: u8 = 0xff;
/// The one command that is served.
const CONNECT: u8 = 1;

/// Reply codes (RFC 1928, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reply {
    Done = 0,
    Failure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    Refused = 5,
    Expired = 6,
    NoSuchCommand = 7,
    NoSuchAddress = 8,
}

/// What a greeting and a request came to.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// A destination.
    To(Authority),
    /// Something that is answered with a refusal.
    Refused(Reply),
    /// A host or port with no one reading.
    BadHost,
    /// No SOCKS5, or no method that we have: answered as far as it can be.
    Over,
}

/// Serves one connection to its end.
pub(crate) async fn serve(mut stream: TcpStream, seat: &Arc<Seat>) {
    let waits = seat.agent.gateway.settings.waits;
    let within = seat.agent.request();
    let asked = match timeout(waits.head, ask(&mut stream)).await {
        Ok(Ok(asked)) => asked,
        // Too slow, or gone.
        Ok(Err(_)) | Err(_) => return seat.agent.malformed(),
    };
    if within.is_err() {
        // SOCKS5 has no word for "later".
        return end(stream, Reply::Failure).await;
    }
    let to = match asked {
        Asked::To(to) => to,
        Asked::Refused(reply) => {
            seat.agent.malformed();
            return end(stream, reply).await;
        }
        Asked::BadHost => {
            seat.agent.denied(None, Denial::new(RuleId::Names, Reason::BadHost), seat.agent.generation(), None);
            return end(stream, Reply::NotAllowed).await;
        }
        Asked::Over => return seat.agent.malformed(),
    };
    let Ok(decided) = seat.decide(Kind::Socks, Ask::new(to, Via::Socks)) else {
        return end(stream, Reply::NotAllowed).await;
    };
    let far = match reach(&decided).await {
        Ok(reached) => reached,
        Err(NoWay::Failed(Failure::Reset)) => return proxy::reset(&stream),
        Err(way) => return end(stream, reply(&way)).await,
    };
    if say(&mut stream, Reply::Done).await.is_err() {
        return decided.passage.end(Outcome::HungUp);
    }
    proxy::carry_tunnel(stream, far, Bytes::new(), decided, waits).await;
}

fn reply(way: &NoWay) -> Reply {
    match way {
        NoWay::Denied(..) | NoWay::Untrusted(..) => Reply::NotAllowed,
        NoWay::Unreachable(_) => Reply::HostUnreachable,
        NoWay::TimedOut => Reply::Expired,
        NoWay::Failed(Failure::Refused) => Reply::Refused,
        NoWay::Failed(Failure::TimedOut) => Reply::Expired,
        NoWay::Failed(Failure::Status(_) | Failure::Reset | Failure::Closed) => Reply::Failure,
    }
}

/// Reads the greeting and the request, answering the greeting. Every message is bounded by its own one-byte lengths.
async fn ask(stream: &mut TcpStream) -> io::Result<Asked> {
    let [version, count] = exactly(stream).await?;
    if version != VERSION {
        return Ok(Asked::Over);
    }
    let mut methods = vec![0; count.into()];
    stream.read_exact(&mut methods).await?;
    if !methods.contains(&OPEN) {
        stream.write_all(&[VERSION, NONE_OF_THESE]).await?;
        return Ok(Asked::Over);
    }
    stream.write_all(&[VERSION, OPEN]).await?;
    let [version, command, _reserved, kind] = exactly(stream).await?;
    if version != VERSION {
        return Ok(Asked::Over);
    }
    let host = match kind {
        1 => Ok(Host::from(IpAddr::from(Ipv4Addr::from(exactly::<4>(stream).await?)))),
        4 => Ok(Host::from(IpAddr::from(Ipv6Addr::from(exactly::<16>(stream).await?)))),
        3 => {
            let [length] = exactly(stream).await?;
            let mut name = vec![0; length.into()];
            stream.read_exact(&mut name).await?;
            std::str::from_utf8(&name).map_err(|_| ()).and_then(|name| Host::parse(name).map_err(|_| ()))
        }
        _ => return Ok(Asked::Refused(Reply::NoSuchAddress)),
    };
    let port = u16::from_be_bytes(exactly(stream).await?);
    if command != CONNECT {
        return Ok(Asked::Refused(Reply::NoSuchCommand));
    }
    Ok(match host {
        Ok(host) if port != 0 => Asked::To(Authority { host, port }),
        Ok(_) | Err(()) => Asked::BadHost,
    })
}

async fn exactly<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A reply; the address in it is nobody's business (RFC 1928 wants one, clients ignore it).
async fn say(stream: &mut TcpStream, reply: Reply) -> io::Result<()> {
    stream.write_all(&[VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

async fn end(mut stream: TcpStream, reply: Reply) {
    if say(&mut stream, reply).await.is_ok() {
        proxy::linger(stream).await;
    }
}
