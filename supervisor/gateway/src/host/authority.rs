//! `host:port` as it stands in CONNECT, in an absolute-form target, in `Host` and in agent.yaml.

use std::fmt;

use super::{BadHost, Host, Shown, TEXT_MAX};

/// A host and a port, both in one spelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

impl Authority {
    /// Reads `host:port`; IPv6 stands in brackets (RFC 3986, 3.2).
    ///
    /// # Errors
    /// User information, a missing or impossible port, IPv6 without brackets or anything but IPv6 in them, and whatever is
    /// no host.
    pub fn parse(text: &str) -> Result<Authority, BadHost> {
        match split(text)? {
            (host, Some(port)) => Authority::of(text, host, port),
            (_, None) => Err(BadHost::Port(Shown::of(text))),
        }
    }

    /// Reads `host` or `host:port`, as a `Host` header or an absolute URL has it. `host:` with nothing behind it is refused.
    ///
    /// # Errors
    /// As [`Authority::parse`], but for the missing port.
    pub fn with_default(text: &str, port: u16) -> Result<Authority, BadHost> {
        match split(text)? {
            (host, Some(port)) => Authority::of(text, host, port),
            (host, None) if port != 0 => Ok(Authority { host: Host::parse(host)?, port }),
            (_, None) => Err(BadHost::Port(Shown::of(text))),
        }
    }

    fn of(text: &str, host: &str, port: &str) -> Result<Authority, BadHost> {
        let host = Host::parse(host)?;
        // Signs, spaces and zeros in front are read by some and not by others.
        let plain = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
        match port.parse() {
            Ok(port) if plain => Ok(Authority { host, port }),
            _ => Err(BadHost::Port(Shown::of(text))),
        }
    }
}

/// Host and port as text; brackets stay on the host.
fn split(text: &str) -> Result<(&str, Option<&str>), BadHost> {
    if text.is_empty() {
        return Err(BadHost::Empty);
    }
    if text.len() > TEXT_MAX {
        return Err(BadHost::TooLong { length: text.len() });
    }
    if text.contains('@') {
        return Err(BadHost::Userinfo(Shown::of(text)));
    }
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(|| BadHost::Ipv6(Shown::of(text)))?;
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(BadHost::Ipv6(Shown::of(text))),
        };
    }
    match text.split_once(':') {
        // Two colons and no brackets: where the port begins is anybody's guess.
        Some((_, port)) if port.contains(':') => Err(BadHost::Ipv6(Shown::of(text))),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) if address.is_ipv6() => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}
