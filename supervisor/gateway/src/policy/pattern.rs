//! Which hosts an entry means: one name, the names one label below it, one address, a range.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::host::{BadHost, Host, Name, Shown, plain};
use crate::zone::judged;

/// Hosts as an entry writes them: `api.example.com`, `*.example.com`, `192.0.2.7`, `192.0.2.0/24`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This name.
    Name(Name),
    /// `*.example.com`: exactly one label in front of this name.
    Below(Name),
    /// This address, in all its forms.
    Address(IpAddr),
    /// Addresses of this range, in all their forms.
    Range(IpNet),
    /// Every host.
    Any,
}

/// Why a text is no pattern of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// The host in it.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// A star that isn't a whole first label.
    #[error("`{0}`: a `*` stands for one whole label, and only the first: `*.example.com`")]
    Star(Shown),
    /// It has a port, a path or a scheme.
    #[error("`{0}`: a host alone stands here; ports stand under `ports`, paths under `paths`")]
    NotAlone(Shown),
    /// A range that can't be read.
    #[error("`{0}` is no range of addresses: write it as `192.0.2.0/24`")]
    Range(Shown),
    /// A range whose address has bits behind the prefix.
    #[error("`{given}` has bits behind its prefix: did you mean `{meant}`?")]
    RangeBits {
        /// What was written.
        given: Shown,
        /// The range that it is in.
        meant: IpNet,
    },
    /// IPv4 in IPv6 clothes as a range.
    #[error("addresses of `{0}` are judged as the IPv4 addresses in them: write it as a range of those")]
    RangeOfMapped(Shown),
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// See [`BadPattern`].
    pub fn parse(text: &str) -> Result<HostPattern, BadPattern> {
        if text == "*" {
            return Ok(HostPattern::Any);
        }
        if text.contains("://") || text.ends_with('/') {
            return Err(BadPattern::NotAlone(Shown::of(text)));
        }
        if text.contains('/') {
            return range(text).map(HostPattern::Range);
        }
        if let Some(rest) = text.strip_prefix("*.") {
            return match Host::parse(rest) {
                Ok(Host::Name(name)) => Ok(HostPattern::Below(name)),
                Ok(Host::Address(_)) => Err(BadPattern::Star(Shown::of(text))),
                Err(_) if rest.contains('*') => Err(BadPattern::Star(Shown::of(text))),
                Err(error) => Err(error.into()),
            };
        }
        if text.contains('*') {
            return Err(BadPattern::Star(Shown::of(text)));
        }
        match Host::parse(text) {
            Ok(Host::Name(name)) => Ok(HostPattern::Name(name)),
            Ok(Host::Address(address)) => Ok(HostPattern::Address(address)),
            Err(BadHost::Ipv6(_)) if !text.starts_with('[') && text.matches(':').count() == 1 => {
                Err(BadPattern::NotAlone(Shown::of(text)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it means this host. Addresses are compared by what they are judged as, so no form of an address gets past.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (HostPattern::Any, _) => true,
            (HostPattern::Name(name), Host::Name(asked)) => name == asked,
            (HostPattern::Below(name), Host::Name(asked)) => {
                asked.split_first().is_some_and(|(_, rest)| rest == name.as_str())
            }
            (HostPattern::Address(address), Host::Address(asked)) => judged(*address) == judged(*asked),
            (HostPattern::Range(range), Host::Address(asked)) => {
                range.contains(&judged(*asked)) || range.contains(&plain(*asked))
            }
            (HostPattern::Name(_) | HostPattern::Below(_), Host::Address(_))
            | (HostPattern::Address(_) | HostPattern::Range(_), Host::Name(_)) => false,
        }
    }

    /// Whether it means every host that `other` means.
    #[must_use]
    pub fn covers(&self, other: &HostPattern) -> bool {
        match (self, other) {
            (HostPattern::Any, _) => true,
            (_, HostPattern::Name(name)) => self.matches(&Host::Name(name.clone())),
            (_, HostPattern::Address(address)) => self.matches(&Host::Address(*address)),
            (HostPattern::Below(mine), HostPattern::Below(theirs)) => mine == theirs,
            (HostPattern::Range(mine), HostPattern::Range(theirs)) => mine.contains(theirs),
            _ => false,
        }
    }
}

/// Reads a range in its one spelling.
fn range(text: &str) -> Result<IpNet, BadPattern> {
    let net: IpNet = text.parse().map_err(|_| BadPattern::Range(Shown::of(text)))?;
    if net.trunc() != net {
        return Err(BadPattern::RangeBits { given: Shown::of(text), meant: net.trunc() });
    }
    Ok(net)
}

/// Reads a range that is to be opened: addresses that are judged as IPv4 addresses can only be opened as these.
pub(super) fn opening_range(text: &str) -> Result<IpNet, BadPattern> {
    let net = range(text)?;
    if judged(net.addr()) == net.addr() { Ok(net) } else { Err(BadPattern::RangeOfMapped(Shown::of(text))) }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Name(name) => name.fmt(f),
            HostPattern::Below(name) => write!(f, "*.{name}"),
            HostPattern::Address(address) => address.fmt(f),
            HostPattern::Range(range) => range.fmt(f),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<HostPattern, BadPattern> {
        HostPattern::parse(text)
    }
}

impl TryFrom<String> for HostPattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<HostPattern, BadPattern> {
        HostPattern::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.to_string()
    }
}

impl JsonSchema for HostPattern {
    fn schema_name() -> Cow<'static, str> {
        "HostPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-check": "host-pattern",
            "title": "host",
            "examples": ["api.example.com", "*.example.com"]
        })
    }
}
