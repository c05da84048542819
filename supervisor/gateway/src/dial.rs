//! Connections to what was decided: the address that was checked is the address that is connected.
//!
//! A name is resolved once per connection, each address is admitted or not, and the kernel is given an admitted address, never
//! a name: an answer that changes between check and use (DNS rebinding) changes nothing. Addresses are tried in the resolver's
//! order, the two families in turn, the next one when the last failed or let itself wait (RFC 8305, without its measurements).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::host::Host;
use crate::policy::{Ask, Denial, OwnAddresses, Policy, Reason, RuleId};
use crate::resolve::{ResolveError, Resolver};

/// Bounds of one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Addresses that are tried.
    pub addresses: usize,
    /// How long an address may let itself wait before the next is tried beside it.
    pub head_start: Duration,
    /// How long connecting may take in all, without resolving.
    pub connect: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { addresses: 6, head_start: Duration::from_millis(250), connect: Duration::from_secs(10) }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Dialled {
    /// The connection, with Nagle's algorithm off.
    pub stream: TcpStream,
    /// The address that was checked and connected.
    pub address: SocketAddr,
    /// How long resolving took.
    pub resolved: Duration,
    /// How long connecting took.
    pub connected: Duration,
    /// Addresses of the name that were not admitted: worth a record, for a name that points inside is none by chance.
    pub refused: Vec<Denial>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address may be reached; the first one's denial.
    #[error("{0}")]
    Denied(Denial),
    /// The name has no address.
    #[error("no address for the destination")]
    Unresolved(#[from] ResolveError),
    /// Every admitted address refused; the last one's error.
    #[error("connect to {address} failed")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No address answered in time.
    #[error("no answer within {} s", wait.as_secs_f32())]
    TimedOut {
        /// How long was waited.
        wait: Duration,
    },
}

impl DialError {
    /// The denial that it stands for, if it is one: of the policy, or because the name has no address.
    pub fn denial(&self) -> Option<Denial> {
        match self {
            DialError::Denied(denial) => Some(denial.clone()),
            DialError::Unresolved(_) => Some(Denial::new(RuleId::Resolve, Reason::Unresolvable)),
            DialError::Unreachable { .. } | DialError::TimedOut { .. } => None,
        }
    }
}

/// Connects to an allowed ask's destination.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    policy: &Policy,
    ask: &Ask,
    resolver: &Resolver,
    own: &OwnAddresses,
    bounds: &Bounds,
) -> Result<Dialled, DialError> {
    let begun = Instant::now();
    let found: Vec<IpAddr> = match &ask.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => resolver.resolve(name).await?.to_vec(),
    };
    let resolved = begun.elapsed();
    let (mut admitted, mut refused) = (Vec::new(), Vec::new());
    for address in found {
        match policy.admit(ask, address, own) {
            Ok(()) => admitted.push(address),
            Err(denial) => refused.push(denial),
        }
    }
    let mut admitted = in_turn(admitted);
    admitted.truncate(bounds.addresses);
    if admitted.is_empty() {
        let none = Denial::new(RuleId::Resolve, Reason::Unresolvable);
        return Err(DialError::Denied(refused.into_iter().next().unwrap_or(none)));
    }
    let (stream, address) = race(policy, ask, &admitted, bounds).await?;
    let connected = begun.elapsed() - resolved;
    Ok(Dialled { stream, address, resolved, connected, refused })
}

/// The two families in turn, each in its order, beginning with that of the first address.
fn in_turn(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else { return addresses };
    let first_is_v4 = first.is_ipv4();
    let (mut one, mut other): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|a| a.is_ipv4() == first_is_v4);
    one.reverse();
    other.reverse();
    let mut turned = Vec::with_capacity(addresses.len());
    while turned.len() < addresses.len() {
        turned.extend(one.pop());
        turned.extend(other.pop());
    }
    turned
}

type Tried = (SocketAddr, io::Result<TcpStream>);

async fn race(
    policy: &Policy,
    ask: &Ask,
    addresses: &[IpAddr],
    bounds: &Bounds,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let until = Instant::now() + bounds.connect;
    let mut waiting = addresses.iter().map(|address| SocketAddr::new(*address, ask.port));
    // Dropped with this function, and the attempts that lost with it.
    let mut attempts: JoinSet<Tried> = JoinSet::new();
    let mut next = Instant::now();
    let mut failed = DialError::TimedOut { wait: bounds.connect };
    let mut more = true;
    loop {
        if !more && attempts.is_empty() {
            return Err(failed);
        }
        tokio::select! {
            biased;
            Some(tried) = attempts.join_next(), if !attempts.is_empty() => {
                let Ok((address, tried)) = tried else { continue };
                match tried.and_then(|stream| checked(policy, ask, stream, address)) {
                    Ok(Ok(stream)) => return Ok((stream, address)),
                    Ok(Err(denial)) => failed = DialError::Denied(denial),
                    Err(source) => failed = DialError::Unreachable { address, source },
                }
                next = Instant::now();
            }
            () = sleep_until(next), if more => match waiting.next() {
                Some(address) => {
                    attempts.spawn(async move { (address, TcpStream::connect(address).await) });
                    next = Instant::now() + bounds.head_start;
                }
                None => more = false,
            },
            () = sleep_until(until) => return Err(DialError::TimedOut { wait: bounds.connect }),
        }
    }
}

/// Looks once more at what was connected, before a byte has passed.
///
/// Who connects to an address of its own comes from that address. This finds addresses that the host got since the supervisor last
/// looked, and those that are translated back to it.
fn checked(
    policy: &Policy,
    ask: &Ask,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<Result<TcpStream, Denial>> {
    let (here, there) = (stream.local_addr()?, stream.peer_addr()?);
    if there != address {
        return Err(io::Error::other(format!("connected to {there}")));
    }
    let own = here.ip() == there.ip() && !there.ip().is_loopback();
    if own && !policy.names(ask, there.ip()) {
        return Ok(Err(Denial::new(RuleId::OwnAddresses, Reason::OwnAddress).at(there.ip())));
    }
    stream.set_nodelay(true)?;
    Ok(Ok(stream))
}

#[cfg(test)]
mod tests;
