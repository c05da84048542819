//! Addresses and their zones, by the registries.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn zone(text: &str) -> Zone {
    of(text.parse().unwrap())
}

#[test]
fn addresses_are_in_the_zones_of_the_registries() {
    let table: [(Zone, &[&str]); 10] = [
        (
            Zone::Public,
            &[
                "1.1.1.1",
                "8.8.8.8",
                "100.63.255.255",
                "100.128.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.167.1.1",
                "198.17.0.1",
                "198.20.0.1",
                "223.255.255.255",
                "126.255.255.255",
                "128.0.0.1",
                "169.253.1.1",
                "168.63.129.15",
                "2606:4700:4700::1111",
                "2a00:1450:4001::1",
                "2001:4860:4860::8888",
                "3ffe::1",
                "2620:fe::fe",
                "64:ff9b::8.8.8.8",
                "2002:808:808::1",
                "::ffff:8.8.8.8",
                "::ffff:0:8.8.8.8",
            ],
        ),
        (
            Zone::Unspecified,
            &["0.0.0.0", "0.0.0.1", "0.255.255.255", "::", "::ffff:0.0.0.0", "64:ff9b::", "2002::", "2002::1"],
        ),
        (
            Zone::Loopback,
            &[
                "127.0.0.1",
                "127.0.0.0",
                "127.255.255.255",
                "127.9.8.7",
                "::1",
                "::ffff:127.0.0.1",
                "64:ff9b::7f00:1",
                "2002:7f00:1::",
                "::127.0.0.1",
                "::ffff:0:127.0.0.1",
                "2001:4860::5efe:127.0.0.1",
            ],
        ),
        (Zone::LinkLocal, &["169.254.0.0", "169.254.255.255", "fe80::1", "febf::1", "64:ff9b::a9fe:1"]),
        (
            Zone::Metadata,
            &[
                "169.254.169.254",
                "169.254.170.2",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd20:ce::254",
                "fd00:ec2::23",
                "fd00:ec2:ffff::1",
                "fd00:c1::a9fe:a9fe",
                "fd00:100::100:200",
                "fd00:a9fe:a9fe::1",
                "fd00:42::42",
                "::ffff:169.254.169.254",
                "64:ff9b::169.254.169.254",
                "2002:a9fe:a9fe::1",
                "::ffff:0:a9fe:a9fe",
                "::169.254.169.254",
                "fe80::a9fe:a9fe",
                "2600::200:5efe:a9fe:a9fe",
            ],
        ),
        (
            Zone::Private,
            &[
                "10.0.0.0",
                "10.255.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.168.0.0",
                "192.168.255.255",
                "fc00::",
                "fdff::1",
                "fec0::1",
                "64:ff9b:1::8.8.8.8",
                "64:ff9b::10.0.0.1",
                "2002:a00:1::",
                "::ffff:10.0.0.1",
                "2002:c0a8:101::1",
            ],
        ),
        (Zone::Shared, &["100.64.0.0", "100.127.255.255", "64:ff9b::100.64.0.1"]),
        (Zone::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1", "ffff::", "2002:e000:1::"]),
        (Zone::Documentation, &["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "3fff:fff::1"]),
        (
            Zone::Reserved,
            &[
                "192.0.0.1",
                "192.88.99.1",
                "198.18.0.1",
                "198.19.255.255",
                "240.0.0.0",
                "255.255.255.255",
                "100::1",
                "2001::1",
                "2001:1ff::",
                "2001:2::1",
                "2001:10::",
                "2001:20::1",
                "4000::1",
                "5f00::1",
                "a000::1",
                "::8.8.8.8",
                "1::1",
                "200::1",
                "64:ff9b::255.255.255.255",
                "64:ff9b:0:1::1",
                "2001:4860::5efe:8.8.8.8",
            ],
        ),
    ];
    for (expected, addresses) in table {
        for address in addresses {
            assert_eq!(zone(address), expected, "{address}");
        }
    }
}

#[test]
fn every_metadata_address_is_in_its_zone() {
    for address in METADATA {
        assert_eq!(of(address), Zone::Metadata, "{address}");
    }
}

#[test]
fn zones_have_words_of_their_own() {
    let words: std::collections::BTreeSet<_> = Zone::ALL.iter().map(|zone| zone.word()).collect();
    assert_eq!(words.len(), Zone::ALL.len());
}

proptest! {
    #[test]
    fn an_ipv4_address_in_ipv6_is_judged_as_itself(number: u32, low: u64, subnet: u16) {
        let address = Ipv4Addr::from(number);
        let (high, second) = ((number >> 16) as u16, number as u16);
        let tail = [(low >> 48) as u16, (low >> 32) as u16, (low >> 16) as u16, low as u16];
        let forms = [
            address.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, second),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, second),
            Ipv6Addr::new(0x2002, high, second, subnet, tail[0], tail[1], tail[2], tail[3]),
        ];
        for form in forms {
            prop_assert_eq!(of(form.into()), of(address.into()), "{}", form);
            prop_assert_eq!(judged(form.into()), IpAddr::V4(address));
        }
    }

    #[test]
    fn no_dead_form_is_public(number: u32, prefix in 0x2000_u16..0x4000, rest: [u16; 3]) {
        let (high, low) = ((number >> 16) as u16, number as u16);
        let dead = Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low);
        prop_assert_ne!(of(dead.into()), Zone::Public);
        let isatap = Ipv6Addr::new(prefix, rest[0], rest[1], rest[2], 0, 0x5efe, high, low);
        prop_assume!(prefix != 0x2002);
        prop_assert_ne!(of(isatap.into()), Zone::Public);
    }

    #[test]
    fn only_2000_3_and_what_is_judged_as_ipv4_is_public(number: u128) {
        let address = IpAddr::V6(Ipv6Addr::from(number));
        if of(address) == Zone::Public && judged(address) == address {
            prop_assert_eq!(number >> 125, 1);
        }
    }
}
