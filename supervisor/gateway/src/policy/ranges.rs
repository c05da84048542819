//! How far the operator opens addresses that aren't public, and ports of entries.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ENTRIES_MAX;
use super::rules::BadPolicy;
use super::spec::{Port, RangeSpec};
use crate::zone::{Zone, judged};

/// How far the operator's file opens an address that isn't open to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Opening {
    /// Not at all.
    Closed,
    /// As one of a range.
    InRange,
    /// By itself, at every port.
    Alone,
    /// By itself, and this port by number.
    AloneWithPort,
}

impl Opening {
    pub(super) fn is_alone(self) -> bool {
        self >= Opening::Alone
    }

    /// Whether it is enough for an address of this zone.
    pub(super) fn opens(self, zone: Zone) -> bool {
        match zone {
            Zone::Public => true,
            // A wide range is written for the machines in it: what is dangerous in any network has to be named.
            Zone::Metadata | Zone::Unspecified | Zone::Multicast => self.is_alone(),
            Zone::Loopback | Zone::LinkLocal | Zone::Private | Zone::Shared | Zone::Documentation | Zone::Reserved => {
                self != Opening::Closed
            }
        }
    }
}

/// Ports of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    All,
    These(Box<[u16]>),
}

impl Ports {
    pub(super) fn of(port: Option<Port>, ports: &[Port], default: Ports) -> Ports {
        let these: Vec<u16> = port.iter().chain(ports).map(|port| port.number()).collect();
        if these.is_empty() { default } else { Ports::These(these.into()) }
    }

    /// The ports by number; none where all are meant.
    pub(super) fn numbers(&self) -> &[u16] {
        match self {
            Ports::All => &[],
            Ports::These(these) => these,
        }
    }

    pub(super) fn contain(&self, port: u16) -> bool {
        match self {
            Ports::All => true,
            Ports::These(these) => these.contains(&port),
        }
    }
}

/// Ranges that the operator opens.
#[derive(Debug, Clone)]
pub(super) struct Ranges(Box<[(IpNet, Ports)]>);

impl Ranges {
    pub(super) fn new(ranges: &[RangeSpec]) -> Result<Ranges, BadPolicy> {
        if ranges.len() > ENTRIES_MAX {
            return Err(BadPolicy::TooMany { count: ranges.len() });
        }
        Ok(Ranges(ranges.iter().map(|range| (range.cidr.0, Ports::of(None, &range.ports, Ports::All))).collect()))
    }

    /// How far an address is opened, by the range that opens it farthest.
    pub(super) fn opening(&self, address: IpAddr, port: u16) -> Opening {
        let open = |(range, ports): &(IpNet, Ports)| {
            if !range.contains(&judged(address)) || !ports.contain(port) {
                return Opening::Closed;
            }
            match ports {
                _ if range.prefix_len() < range.max_prefix_len() => Opening::InRange,
                Ports::All => Opening::Alone,
                Ports::These(_) => Opening::AloneWithPort,
            }
        };
        self.0.iter().map(open).max().unwrap_or(Opening::Closed)
    }
}
