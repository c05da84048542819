//! The host's own addresses and the supervisor's ports: what agents must not come back in by.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv6Net;

use crate::host::plain;
use crate::zone::judged;

/// Addresses of this host and ports of the supervisor.
///
/// The supervisor reads them (getifaddrs(3)) and reads them again when they may have changed; here they are an argument.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
    translators: Vec<Ipv6Net>,
}

/// A prefix that no translator can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}: a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits (RFC 6052, 2.2)")]
pub struct BadTranslator(pub Ipv6Net);

impl OwnAddresses {
    /// Addresses of all interfaces (and those that translate to this host, where known), and TCP ports that the supervisor
    /// listens on, at whatever address.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>, ports: impl IntoIterator<Item = u16>) -> OwnAddresses {
        let addresses = addresses.into_iter().map(plain).collect();
        OwnAddresses { addresses, ports: ports.into_iter().collect(), translators: Vec::new() }
    }

    /// The same, in a network that has NAT64 prefixes of its own: an address of theirs must be admitted as the IPv4 address in it
    /// as well. A host finds them by the name `ipv4only.arpa` (RFC 7050). The well-known prefix needn't be named.
    ///
    /// # Errors
    /// A length that RFC 6052 doesn't know.
    pub fn with_translators(
        mut self,
        prefixes: impl IntoIterator<Item = Ipv6Net>,
    ) -> Result<OwnAddresses, BadTranslator> {
        for prefix in prefixes {
            if !matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) {
                return Err(BadTranslator(prefix));
            }
            self.translators.push(prefix);
        }
        Ok(self)
    }

    /// The IPv4 addresses that translators of this network make of an address.
    pub(super) fn translated(&self, address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
        let v6 = match address {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        };
        self.translators.iter().filter_map(move |prefix| {
            let bytes = v6.filter(|v6| prefix.contains(v6))?.octets();
            // The four bytes behind the prefix; byte 8 belongs to no address.
            let mut inside = (usize::from(prefix.prefix_len()) / 8..16).filter(|at| *at != 8).map(|at| bytes[at]);
            Some(Ipv4Addr::new(inside.next()?, inside.next()?, inside.next()?, inside.next()?))
        })
    }

    /// Whether an address is this host's, in any form.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&plain(address)) || self.addresses.contains(&judged(address))
    }

    /// Whether the supervisor listens on this port.
    #[must_use]
    pub fn serves(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }
}
