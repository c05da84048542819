//! Ways in that were tried elsewhere: spellings, rebinding, the host itself, clouds.

use std::net::IpAddr;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn own() -> OwnAddresses {
    let addresses = ["127.0.0.1", "::1", "10.0.0.7", "198.51.99.7", "2a01:4f8::7", "fe80::7"];
    OwnAddresses::new(addresses.map(ip), [9464, 8443])
}

fn refusal(policy: &Policy, ask: &Ask, address: &str) -> (String, &'static str) {
    let denial = policy.admit(ask, ip(address), &own()).unwrap_err();
    (denial.rule.to_string(), denial.reason.word())
}

/// Every address that must not be reached, in the forms in which a client or a resolver can give it.
const INSIDE: [&str; 40] = [
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "127.0.0.1",
    "127.1.2.3",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
    "::127.0.0.1",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.170.2",
    "10.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:a00:1::",
    "64:ff9b:1::a00:1",
    "172.16.5.4",
    "192.168.1.1",
    "100.64.1.1",
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.0.170",
    "198.18.0.1",
    "100::1",
    "2001::1",
    "2a00::5efe:10.0.0.1",
];

#[test]
fn no_form_of_an_inside_address_is_admitted_for_any_name() {
    let policies = [
        open("[]", "{}"),
        listed(r#"[{"host": "a.example"}]"#, WIDE),
        listed(r#"[{"host": "a.example"}]"#, r#"{"network": [{"host": "*"}]}"#),
    ];
    for policy in policies {
        for address in INSIDE {
            let (rule, reason) = refusal(&policy, &connect("a.example:443"), address);
            assert_eq!(reason, "zone", "{address}");
            assert!(rule.starts_with("network.zone."), "{address} {rule}");
        }
        assert_eq!(policy.admit(&connect("a.example:443"), ip("8.8.8.8"), &own()), Ok(()));
        assert_eq!(policy.admit(&connect("a.example:443"), ip("64:ff9b::8.8.8.8"), &own()), Ok(()));
    }
}

#[test]
fn no_spelling_of_an_inside_address_is_allowed_in_the_open_reach() {
    let policy = open("[]", "{}");
    let spellings = [
        "127.0.0.1:80",
        "127.1:80",
        "2130706433:80",
        "0x7f000001:80",
        "0177.0.0.1:80",
        "127.0.0.1.:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::]:80",
        "0:80",
        "0.0.0.0:80",
        "[::ffff:0:0]:80",
        "2852039166:80",
        "0xa9fea9fe:80",
        "0251.0376.0251.0376:80",
        "169.254.43518:80",
        "[::ffff:a9fe:a9fe]:80",
        "[64:ff9b::a9fe:a9fe]:80",
        "[fd00:ec2::254]:80",
        "１６９.254.169.254:80",
        "10.1:80",
        "[fe80::1]:80",
    ];
    for spelling in spellings {
        assert_eq!(denied(&policy, &connect(spelling)).1, "zone", "{spelling}");
    }
}

#[test]
fn an_address_in_the_list_of_the_agent_alone_opens_nothing() {
    let policy = listed(
        r#"[{"host": "10.0.0.1", "port": 80}, {"tcp": "127.0.0.1:5432"}]"#,
        r#"{"network": [{"host": "*", "ports": [80, 5432]}]}"#,
    );
    assert_eq!(denied(&policy, &connect("10.0.0.1:80")), ("network.zone.private".into(), "zone"));
    assert_eq!(denied(&policy, &connect("127.0.0.1:5432")), ("network.zone.loopback".into(), "zone"));
}

#[test]
fn a_range_opens_its_addresses_at_its_ports_in_all_their_forms() {
    let policy = open(
        "[]",
        r#"{"addresses": [{"cidr": "10.0.0.0/8", "ports": [5432]}, {"cidr": "fd12::/16"}, {"cidr": "127.0.0.0/8", "ports": [99]}]}"#,
    );
    let ask = |port: u16| connect(&format!("db.internal:{port}"));
    for form in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::1"] {
        assert_eq!(policy.admit(&ask(5432), ip(form), &own()), Ok(()), "{form}");
        assert_eq!(refusal(&policy, &ask(5433), form).1, "zone", "{form}");
    }
    assert_eq!(policy.admit(&ask(1), ip("fd12::9"), &own()), Ok(()));
    assert_eq!(policy.admit(&ask(99), ip("127.0.0.1"), &own()), Ok(()));
    assert_eq!(refusal(&policy, &ask(99), "::1").1, "zone");
    assert_eq!(refusal(&policy, &ask(5432), "192.168.0.1").1, "zone");
}

#[test]
fn the_widest_range_opens_no_metadata_no_host_and_no_supervisor() {
    let policy = open("[]", r#"{"addresses": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]}"#);
    let ask = connect("a.example:80");
    for address in [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "64:ff9b::a9fe:a9fe",
    ] {
        assert_eq!(refusal(&policy, &ask, address).1, "zone", "{address}");
    }
    for address in
        ["10.0.0.7", "198.51.99.7", "2a01:4f8::7", "::ffff:10.0.0.7", "64:ff9b::10.0.0.7", "2002:a00:7::", "fe80::7"]
    {
        assert_eq!(refusal(&policy, &ask, address), ("network.own-addresses".into(), "own-address"), "{address}");
    }
    for address in ["127.0.0.1", "::1", "10.0.0.7", "0.0.0.0", "127.5.5.5", "::ffff:7f00:1"] {
        let (rule, reason) = refusal(&policy, &connect("a.example:9464"), address);
        assert_eq!((rule.as_str(), reason), ("network.supervisor-ports", "supervisor-port"), "{address}");
    }
    // What is ordinary is open.
    for address in ["127.0.0.1", "10.0.0.8", "fe80::8"] {
        assert_eq!(policy.admit(&ask, ip(address), &own()), Ok(()), "{address}");
    }
    // A port of the supervisor's on another machine is another machine's.
    assert_eq!(policy.admit(&connect("a.example:9464"), ip("10.0.0.8"), &own()), Ok(()));
}

#[test]
fn what_is_named_alone_is_open() {
    let policy = open(
        "[]",
        r#"{"addresses": [{"cidr": "169.254.169.254/32"}, {"cidr": "10.0.0.7/32"}, {"cidr": "127.0.0.1/32", "ports": [8443]}, {"cidr": "::1/128"}]}"#,
    );
    let admitted = |to: &str, address: &str| policy.admit(&connect(to), ip(address), &own());
    assert_eq!(admitted("a.example:80", "169.254.169.254"), Ok(()));
    assert_eq!(admitted("a.example:80", "10.0.0.7"), Ok(()));
    // The supervisor's ports only with their number.
    assert_eq!(admitted("a.example:8443", "127.0.0.1"), Ok(()));
    assert_eq!(admitted("a.example:8443", "::1").unwrap_err().reason, Reason::SupervisorPort);
    assert_eq!(admitted("a.example:9464", "10.0.0.7").unwrap_err().reason, Reason::SupervisorPort);
}

#[test]
fn an_address_that_the_operator_lists_is_open_to_asks_for_it_and_to_no_name() {
    let policy = listed(
        r#"[{"tcp": "127.0.0.1:8099"}, {"host": "a.example", "port": 8099}]"#,
        r#"{"network": [{"tcp": "127.0.0.1:8099"}, {"host": "a.example", "port": 8099}]}"#,
    );
    let literal = by(Via::Tcp, "127.0.0.1:8099");
    assert!(is_allowed(&policy, &literal));
    assert_eq!(policy.admit(&literal, ip("127.0.0.1"), &own()), Ok(()));
    assert!(is_allowed(&policy, &connect("a.example:8099")));
    assert_eq!(refusal(&policy, &connect("a.example:8099"), "127.0.0.1").1, "zone");
    // At its port, also where every public destination is open.
    let policy = open("[]", r#"{"network": [{"tcp": "127.0.0.1:8099"}]}"#);
    assert!(is_allowed(&policy, &literal));
    let other = by(Via::Tcp, "127.0.0.1:22");
    assert_eq!(denied(&policy, &other).1, "zone");
    assert_eq!(refusal(&policy, &other, "127.0.0.1").1, "zone");
}

#[test]
fn an_address_that_is_denied_is_denied_behind_every_name() {
    let policy = open(
        r#"[{"deny": "9.9.9.9"}]"#,
        r#"{"network": [{"deny": "149.112.0.0/16", "ports": [443]}, {"deny": "2002::/16"}]}"#,
    );
    let ask = connect("a.example:443");
    for form in ["9.9.9.9", "::ffff:9.9.9.9", "64:ff9b::9.9.9.9"] {
        assert_eq!(refusal(&policy, &ask, form), ("network[0]".into(), "denied"), "{form}");
    }
    assert_eq!(refusal(&policy, &ask, "149.112.112.112").0, "operator.network[0]");
    assert_eq!(policy.admit(&connect("a.example:80"), ip("149.112.112.112"), &own()), Ok(()));
    assert_eq!(refusal(&policy, &ask, "2002:808:808::1").0, "operator.network[1]");
    assert_eq!(denied(&policy, &connect("[::ffff:9.9.9.9]:443")).1, "denied");
}

#[test]
fn own_addresses_are_own_in_every_form() {
    let own = OwnAddresses::new([ip("::ffff:10.0.0.7"), ip("2a01::1")], []);
    for form in ["10.0.0.7", "::ffff:10.0.0.7", "64:ff9b::a00:7", "2002:a00:7::1", "2a01::1"] {
        assert!(own.contains(ip(form)), "{form}");
    }
    assert!(!own.contains(ip("10.0.0.8")) && !own.serves(80));
}

#[test]
fn addresses_of_a_translator_of_this_network_are_also_what_it_makes_of_them() {
    // The table of RFC 6052, 2.4.
    let table = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ];
    for (prefix, address) in table {
        let own = OwnAddresses::default().with_translators([prefix.parse().unwrap()]).unwrap();
        let made: Vec<_> = own.translated(ip(address)).collect();
        assert_eq!(made, [std::net::Ipv4Addr::new(192, 0, 2, 33)], "{prefix}");
        assert_eq!(own.translated(ip("2a00::1")).count() + own.translated(ip("192.0.2.33")).count(), 0);
    }
    let prefix = "2a00:64::/96".parse().unwrap();
    let own = OwnAddresses::new([ip("9.9.9.9")], []).with_translators([prefix]).unwrap();
    let policy = open("[]", "{}");
    let reason =
        |address: &str| policy.admit(&connect("a.example:80"), ip(address), &own).map_err(|denial| denial.reason);
    assert_eq!(reason("2a00:64::169.254.169.254"), Err(Reason::Zone));
    assert_eq!(reason("2a00:64::10.0.0.1"), Err(Reason::Zone));
    assert_eq!(reason("2a00:64::9.9.9.9"), Err(Reason::OwnAddress));
    assert_eq!(reason("2a00:64::8.8.8.8"), Ok(()));
    let odd = "2a00::/50".parse().unwrap();
    assert_eq!(OwnAddresses::default().with_translators([odd]), Err(BadTranslator(odd)));
}
