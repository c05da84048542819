//! Hosts as clients spell them, in one spelling: a name or an address, never text.
//!
//! A rule that compares text is gone around with another spelling of the same place (`0x7f.1`, `EXAMPLE.com.`, `１２７.0.0.1`,
//! `::ffff:7f00:1`). So text is read once, here, by the rules of those who will connect: UTS 46 for names (WHATWG URL, RFC 5891),
//! inet_aton(3) for numbers, RFC 4291 for IPv6. What has no one reading is refused, not guessed.

mod authority;
mod numeric;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

pub use authority::Authority;

/// The longest text that is looked at, in bytes: four for each of the 253 characters that a name may have, and a dot.
pub const TEXT_MAX: usize = 1024;
/// The longest name, in bytes (RFC 1035, 2.3.4).
pub const NAME_MAX: usize = 253;
/// The longest label of a name, in bytes (RFC 1035, 2.3.4).
pub const LABEL_MAX: usize = 63;
/// Characters of a bad text that are shown in an error.
const SHOWN_MAX: usize = 80;

/// Why a text is no host, or no host and port.
///
/// The text is shown escaped and cut, so that it can go to a log or a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Nothing stands there.
    #[error("no host is given")]
    Empty,
    /// Longer than any host.
    #[error("a host of {length} bytes: at most {TEXT_MAX} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A name that no resolver would be asked for.
    #[error("`{0}` is not a host name: letters, digits, `-` (not in front) and `_` in labels of 1 to 63, 253 in all")]
    Name(Shown),
    /// Its last label is a number, and the whole is no IPv4 address.
    #[error("`{0}` ends in a number and is no IPv4 address")]
    Ipv4(Shown),
    /// Colons or brackets, and no IPv6 address.
    #[error("`{0}` is no IPv6 address")]
    Ipv6(Shown),
    /// `fe80::1%eth0`: which interface is the supervisor's affair.
    #[error("`{0}` has a zone id: no interface can be chosen")]
    ZoneId(Shown),
    /// `user@host`: what stands before the `@` looks like the host and is not.
    #[error("`{0}` has user information before an `@`")]
    Userinfo(Shown),
    /// Port missing, 0, above 65535, or not plain digits.
    #[error("`{0}` has no port from 1 to 65535")]
    Port(Shown),
}

/// A bad text, cut and escaped when it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(Box<str>);

impl Shown {
    /// Keeps the beginning of a text.
    #[must_use]
    pub fn of(text: &str) -> Shown {
        let mut kept: String = text.chars().take(SHOWN_MAX).collect();
        if kept.len() < text.len() {
            kept.push_str("...");
        }
        Shown(kept.into())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

/// A DNS name in its one spelling: ASCII in small letters (punycode), no dot at the end, never a number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Reads a name; an address is none.
    ///
    /// # Errors
    /// What [`Host::parse`] refuses, and addresses.
    pub fn parse(text: &str) -> Result<Name, BadHost> {
        match Host::parse(text)? {
            Host::Name(name) => Ok(name),
            Host::Address(_) => Err(BadHost::Name(Shown::of(text))),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first label and the rest; nothing for a name of one label.
    #[must_use]
    pub fn split_first(&self) -> Option<(&str, &str)> {
        self.0.split_once('.')
    }

    /// Maps, checks and keeps a text that is no number.
    fn from_mapped(mapped: &str, text: &str) -> Result<Name, BadHost> {
        let label = |part: &str| {
            // A dash in front is an option to some programs, and to no resolver a host (RFC 952).
            (1..=LABEL_MAX).contains(&part.len())
                && !part.starts_with('-')
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        if mapped.len() > NAME_MAX || !mapped.split('.').all(label) {
            return Err(BadHost::Name(Shown::of(text)));
        }
        Ok(Name(mapped.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Name {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Name, BadHost> {
        Name::parse(text)
    }
}

/// Where a client wants to go: a name that we resolve, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name.
    Name(Name),
    /// An address; an IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) is the IPv4 address, because that is where the kernel
    /// connects.
    Address(IpAddr),
}

impl Host {
    /// Reads any spelling of a host. IPv6 may stand in brackets.
    ///
    /// # Errors
    /// Why it is none: see [`BadHost`]. Percent-encoding is refused, for nobody agrees on who decodes it.
    pub fn parse(text: &str) -> Result<Host, BadHost> {
        if text.is_empty() {
            return Err(BadHost::Empty);
        }
        if text.len() > TEXT_MAX {
            return Err(BadHost::TooLong { length: text.len() });
        }
        if text.contains('@') {
            return Err(BadHost::Userinfo(Shown::of(text)));
        }
        if text.starts_with('[') || text.contains(':') {
            return ipv6(text).map(|address| Host::Address(plain(address.into())));
        }
        let mapped = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::URL, Hyphens::Allow, DnsLength::Ignore)
            .map_err(|_| BadHost::Name(Shown::of(text)))?;
        let mapped = mapped.strip_suffix('.').unwrap_or(&mapped);
        if mapped.is_empty() {
            return Err(BadHost::Empty);
        }
        match numeric::ipv4(mapped) {
            numeric::Reading::Address(address) => Ok(Host::Address(address.into())),
            numeric::Reading::Broken => Err(BadHost::Ipv4(Shown::of(text))),
            numeric::Reading::Name => Name::from_mapped(mapped, text).map(Host::Name),
        }
    }
}

/// An address as the kernel connects to it: IPv4-mapped IPv6 is IPv4 (RFC 4291, 2.5.5.2).
#[must_use]
pub fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn ipv6(text: &str) -> Result<Ipv6Addr, BadHost> {
    let inside = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| BadHost::Ipv6(Shown::of(text)))?,
        None => text,
    };
    if inside.contains('%') {
        return Err(BadHost::ZoneId(Shown::of(text)));
    }
    inside.parse().map_err(|_| BadHost::Ipv6(Shown::of(text)))
}

impl fmt::Display for Host {
    /// An IPv6 address stands without brackets; [`Authority`] puts them on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Host, BadHost> {
        Host::parse(text)
    }
}

impl From<Name> for Host {
    fn from(name: Name) -> Host {
        Host::Name(name)
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Host {
        Host::Address(plain(address))
    }
}

#[cfg(test)]
mod tests;
