//! Which zone an address is in: public, or one that needs the operator's word.
//!
//! Ours is an allow-list: what the IANA special-purpose registries (RFC 6890 and its successors) don't show as globally reachable
//! is not public, and of IPv6 only 2000::/3 is. An IPv6 address that carries an IPv4 address to a translator or a tunnel is judged
//! as that IPv4 address, for there the bytes arrive.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// Globally reachable.
    Public,
    /// `0.0.0.0/8` and `::`: Linux connects them to this host.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Addresses at which clouds hand out credentials and settings of the machine.
    Metadata,
    /// RFC 1918, unique local and site-local IPv6, NAT64 for local use.
    Private,
    /// `100.64.0.0/10`: carrier-grade NAT, also used inside clouds and by overlay networks.
    Shared,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// Addresses of examples.
    Documentation,
    /// Everything else that isn't globally reachable: benchmarks, protocol assignments, broadcast, what nobody has assigned.
    Reserved,
}

impl Zone {
    /// All zones.
    pub const ALL: [Zone; 10] = [
        Zone::Public,
        Zone::Unspecified,
        Zone::Loopback,
        Zone::LinkLocal,
        Zone::Metadata,
        Zone::Private,
        Zone::Shared,
        Zone::Multicast,
        Zone::Documentation,
        Zone::Reserved,
    ];

    /// Its name in rules, metrics and audit: stable.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Zone::Public => "public",
            Zone::Unspecified => "unspecified",
            Zone::Loopback => "loopback",
            Zone::LinkLocal => "link-local",
            Zone::Metadata => "metadata",
            Zone::Private => "private",
            Zone::Shared => "shared",
            Zone::Multicast => "multicast",
            Zone::Documentation => "documentation",
            Zone::Reserved => "reserved",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Addresses of metadata and credential services of clouds, by their documentation; those of AWS over IPv6 are a block.
const METADATA: [IpAddr; 16] = [
    // AWS, GCP, Azure, OpenStack, Oracle, DigitalOcean, Hetzner and others; tasks of ECS; pods of EKS; DNS of a VPC.
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253)),
    // GCP over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Azure's WireServer: an address of the public range, routed inside.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Alibaba.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200)),
    // Oracle.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    // OpenStack and Akamai over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1)),
    // Scaleway.
    IpAddr::V4(Ipv4Addr::new(169, 254, 42, 42)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    // Tencent.
    IpAddr::V4(Ipv4Addr::new(169, 254, 0, 23)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 10, 10)),
];

/// The zone of an address, in any of its forms.
#[must_use]
pub fn of(address: IpAddr) -> Zone {
    if METADATA.contains(&judged(address)) {
        return Zone::Metadata;
    }
    match judged(address) {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

/// The address that an address is judged as: the IPv4 address inside IPv4-mapped (RFC 4291), IPv4-translated (RFC 2765), NAT64
/// (RFC 6052, the well-known prefix) and 6to4 (RFC 3056) addresses; any other address is itself.
#[must_use]
pub fn judged(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let low = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => low(a, b),
        [0x2002, a, b, ..] => low(a, b),
        _ => address,
    }
}

fn v4(address: Ipv4Addr) -> Zone {
    match address.octets() {
        [0, ..] => Zone::Unspecified,
        [127, ..] => Zone::Loopback,
        [169, 254, ..] => Zone::LinkLocal,
        [10, ..] | [192, 168, ..] => Zone::Private,
        [172, b, ..] if b & 0xf0 == 16 => Zone::Private,
        [100, b, ..] if b & 0xc0 == 64 => Zone::Shared,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Zone::Documentation,
        // Protocol assignments (RFC 6890), the 6to4 relay (RFC 7526), benchmarks (RFC 2544).
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => Zone::Reserved,
        [a, ..] if a & 0xf0 == 224 => Zone::Multicast,
        // Class E, and 255.255.255.255.
        [a, ..] if a >= 240 => Zone::Reserved,
        _ => Zone::Public,
    }
}

fn v6(address: Ipv6Addr) -> Zone {
    // The dead forms that end in an IPv4 address: never public, and as bad as the address in them.
    let dead = |a: u16, b: u16| match of(IpAddr::V4(Ipv4Addr::from(u32::from(a) << 16 | u32::from(b)))) {
        Zone::Public => Zone::Reserved,
        zone => zone,
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Zone::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Zone::Loopback,
        // IPv4-compatible (RFC 4291, deprecated).
        [0, 0, 0, 0, 0, 0, a, b] => dead(a, b),
        [a, ..] if a & 0xff00 == 0xff00 => Zone::Multicast,
        [a, ..] if a & 0xffc0 == 0xfe80 => Zone::LinkLocal,
        // AWS: metadata, pod identity, DNS, time.
        [0xfd00, 0xec2, ..] => Zone::Metadata,
        [a, ..] if a & 0xfe00 == 0xfc00 || a & 0xffc0 == 0xfec0 => Zone::Private,
        // NAT64 for local use (RFC 8215): where the IPv4 address stands in it is each network's own choice.
        [0x64, 0xff9b, 1, ..] => Zone::Private,
        [0x2001, 0xdb8, ..] => Zone::Documentation,
        [0x3fff, b, ..] if b & 0xf000 == 0 => Zone::Documentation,
        // Protocol assignments (RFC 2928): Teredo, ORCHID, benchmarks.
        [0x2001, b, ..] if b < 0x200 => Zone::Reserved,
        // ISATAP (RFC 5214): the router of the site unpacks it.
        [a, _, _, _, 0 | 0x200, 0x5efe, high, low] if a & 0xe000 == 0x2000 => dead(high, low),
        [a, ..] if a & 0xe000 == 0x2000 => Zone::Public,
        _ => Zone::Reserved,
    }
}

#[cfg(test)]
mod tests;
