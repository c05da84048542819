//! The host's own addresses and the supervisor's ports: what agents must not come back in by.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::host::plain;
use crate::zone::judged;

/// Addresses of this host and ports of the supervisor.
///
/// The supervisor reads them (getifaddrs(3)) and reads them again when they may have changed; here they are an argument.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl OwnAddresses {
    /// Addresses of all interfaces (and those that translate to this host, where known), and TCP ports that the supervisor
    /// listens on, at whatever address.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>, ports: impl IntoIterator<Item = u16>) -> OwnAddresses {
        OwnAddresses { addresses: addresses.into_iter().map(plain).collect(), ports: ports.into_iter().collect() }
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
