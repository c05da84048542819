//! Hosts in every spelling that anybody reads.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn v4(a: u8, b: u8, c: u8, d: u8) -> Host {
    Host::Address(Ipv4Addr::new(a, b, c, d).into())
}

#[test]
fn every_spelling_of_loopback_is_127_0_0_1() {
    let spellings = [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "2130706433.",
        "017700000001",
        "0177.0.0.01",
        "0177.1",
        "0x7f000001",
        "0X7F000001",
        "0x7f.1",
        "0x7f.0x0.0x0.0x1",
        "127.0x000001",
        "0000000000000000000000000177.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "127．0．0．1",
        "①②⑦.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "[::ffff:7f00:1]",
        "0:0:0:0:0:FFFF:7F00:0001",
    ];
    for spelling in spellings {
        assert_eq!(Host::parse(spelling), Ok(v4(127, 0, 0, 1)), "{spelling}");
    }
}

#[test]
fn every_spelling_of_a_name_is_one_name() {
    for spelling in
        ["example.com", "EXAMPLE.com", "example.com.", "ｅｘａｍｐｌｅ.com", "exam\u{ad}ple.com", "example。com"]
    {
        assert_eq!(Host::parse(spelling).unwrap().to_string(), "example.com", "{spelling}");
    }
    for spelling in
        ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "XN--BCHER-KVA.example.", "bu\u{308}cher.example"]
    {
        assert_eq!(Host::parse(spelling).unwrap().to_string(), "xn--bcher-kva.example", "{spelling}");
    }
    for name in [
        "localhost",
        "db_1.internal",
        "r3---sn-4g5e6nsz.googlevideo.com",
        "a.b-.c",
        "0x7f.example",
        "1.2.3.4.example",
        "0xg",
    ] {
        assert_eq!(Host::parse(name).unwrap().to_string(), name);
    }
}

#[test]
fn what_has_two_readings_is_refused() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = format!("{}example", "abcdefg.".repeat(31));
    let long_text = "a".repeat(TEXT_MAX + 1);
    let refused = [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        " a",
        "a b",
        "a\t",
        "a\n",
        "a\0b",
        "a%2e",
        "127.0.0.1%00.example",
        "%31",
        "a/b",
        "a\\b",
        "a?b",
        "a#b",
        "<a>",
        "a^b",
        "a|b",
        "a!b",
        "a,b",
        "a;b",
        "a'b",
        "a\"b",
        "a*b",
        "*.a",
        "a$b",
        "a&b",
        "user@127.0.0.1",
        "@a",
        "a@",
        "fe80::1%eth0",
        "[fe80::1%25eth0]",
        "fe80::1%1",
        "[::1",
        "::1]",
        "[]",
        "[127.0.0.1]",
        "[a]",
        "[v1.x]",
        "[::1]x",
        "[[::1]]",
        ":",
        "::g",
        "1::2::3",
        ":::",
        "::ffff:256.0.0.1",
        "::ffff:0177.0.0.1",
        "127.0.0.1:80",
        "256.1.1.1",
        "1.2.3.4.5",
        "1.2.3.256",
        "1.2.65536",
        "1.16777216",
        "4294967296",
        "08",
        "09.1.1.1",
        "0x",
        "0xg.1",
        "1.0x",
        "1..1",
        "1.-1",
        "+1",
        "1.2.3.+4",
        "-1.1",
        "-oProxyCommand",
        "a.-b",
        "1e3.4",
        "a.1",
        "example.0x7f",
        "example.127",
        "99999999999999999999999999999999999",
        "xn--",
        "xn--a",
        "xn--a.example",
        "xn--\u{fffd}.example",
        "\u{200d}.example",
        "a\u{202e}b",
        &long_label,
        &long_name,
        &long_text,
    ];
    for text in refused {
        assert!(Host::parse(text).is_err(), "{text:?} was read as {:?}", Host::parse(text));
    }
}

#[test]
fn errors_say_what_is_wrong_in_plain_characters() {
    assert!(matches!(Host::parse("fe80::1%eth0"), Err(BadHost::ZoneId(_))));
    assert!(matches!(Host::parse("a@b"), Err(BadHost::Userinfo(_))));
    assert!(matches!(Host::parse("1.2.3.4.5"), Err(BadHost::Ipv4(_))));
    assert_eq!(Host::parse(&"a".repeat(TEXT_MAX + 1)), Err(BadHost::TooLong { length: TEXT_MAX + 1 }));
    assert_eq!(Authority::parse(&"a".repeat(TEXT_MAX + 1)), Err(BadHost::TooLong { length: TEXT_MAX + 1 }));
    assert!(matches!(Authority::parse("a:80@b.example:90"), Err(BadHost::Userinfo(_))));
    assert!(matches!(Authority::parse("::1:80"), Err(BadHost::Ipv6(_))));
    assert!(matches!(Authority::parse("a.example:0"), Err(BadHost::Port(_))));
    let shown = Host::parse("a\u{1b}[31m\nb c").unwrap_err().to_string();
    assert!(shown.contains("\\u{1b}") && shown.contains("\\n"), "{shown}");
    assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
    assert!(Host::parse(&" ".repeat(900)).unwrap_err().to_string().len() < 250);
}

#[test]
fn authorities_have_one_host_and_one_port() {
    for (text, same) in [
        ("example.com:443", "example.com:443"),
        ("EXAMPLE.com.:443", "example.com:443"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0::1]:80", "[::1]:80"),
        ("[::ffff:1.2.3.4]:1", "1.2.3.4:1"),
        ("0x7f.1:65535", "127.0.0.1:65535"),
    ] {
        let read = Authority::parse(text).unwrap();
        assert_eq!(read.to_string(), same, "{text}");
        assert_eq!(Authority::parse(same), Ok(read), "{text}");
    }
    let refused = [
        "",
        ":",
        ":80",
        "a",
        "a:",
        "a:0",
        "a:00",
        "a:65536",
        "a:99999999999999999999",
        "a:080",
        "a:+80",
        "a:-1",
        "a: 80",
        "a:80 ",
        "a:8x",
        "a:٣",
        "a:0x50",
        "::1:80",
        "::1",
        "[::1]",
        "[::1]80",
        "[::1]:",
        "[::1]:0",
        "[::1",
        "[::1]x:80",
        "a:80:80",
        "a:b:80",
        "u@a:80",
        "u:p@a:80",
        "a:80@b:90",
        "a:80/x",
        "http://a:80",
        "//a:80",
        "a\\:80",
        "[1.2.3.4]:80",
        "fe80::1%lo:80",
        "[fe80::1%lo]:80",
        "[]:80",
    ];
    for text in refused {
        assert!(Authority::parse(text).is_err(), "{text:?} was read as {:?}", Authority::parse(text));
    }
}

#[test]
fn a_missing_port_has_a_default_only_where_the_caller_gives_one() {
    assert_eq!(Authority::with_default("a.example", 80).unwrap().to_string(), "a.example:80");
    assert_eq!(Authority::with_default("[::1]", 80).unwrap().to_string(), "[::1]:80");
    assert_eq!(Authority::with_default("a.example:81", 80).unwrap().port, 81);
    for text in ["a.example:", "::1", "u@a.example", "", "[::1]:"] {
        assert!(Authority::with_default(text, 80).is_err(), "{text}");
    }
    assert!(matches!(Authority::with_default("a.example", 0), Err(BadHost::Port(_))));
}

/// inet_aton(3) in other words than ours: how glibc reads a host that getaddrinfo(3) is given.
fn as_libc_reads(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let values: Option<Vec<u128>> = parts
        .iter()
        .map(|part| {
            let low = part.to_ascii_lowercase();
            if !low.starts_with(|c: char| c.is_ascii_digit()) {
                None
            } else if let Some(hex) = low.strip_prefix("0x") {
                u128::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'))
            } else if low.len() > 1 && low.starts_with('0') {
                u128::from_str_radix(&low, 8).ok()
            } else {
                low.parse().ok()
            }
        })
        .collect();
    let values = values?;
    let (last, first) = values.split_last()?;
    let mut sum: u128 = 0;
    for value in first {
        if *value > 255 {
            return None;
        }
        sum = sum * 256 + value;
    }
    let size = 256_u128.pow(4 - first.len() as u32);
    if *last >= size {
        return None;
    }
    Some(Ipv4Addr::from(u32::try_from(sum * size + last).ok()?))
}

fn spelled(address: Ipv4Addr, parts: usize, radix: [u8; 4], zeros: usize) -> String {
    let number = u32::from(address);
    let mut values: Vec<u32> = address.octets()[..parts - 1].iter().map(|octet| u32::from(*octet)).collect();
    let room = 8 * (5 - parts as u32);
    values.push(if room == 32 { number } else { number & ((1 << room) - 1) });
    let zeros = "0".repeat(zeros);
    let part = |(value, radix): (&u32, u8)| match radix % 4 {
        0 => value.to_string(),
        1 => format!("0{zeros}{value:o}"),
        2 => format!("0x{zeros}{value:x}"),
        _ => format!("0X{zeros}{value:X}"),
    };
    values.iter().zip(radix).map(part).collect::<Vec<_>>().join(".")
}

proptest! {
    #[test]
    fn every_spelling_of_an_ipv4_address_is_that_address(
        number: u32, parts in 1_usize..=4, radix: [u8; 4], zeros in 0_usize..3, dot: bool,
    ) {
        let address = Ipv4Addr::from(number);
        let mut text = spelled(address, parts, radix, zeros);
        prop_assert_eq!(as_libc_reads(&text), Some(address), "{}", &text);
        if dot {
            text.push('.');
        }
        prop_assert_eq!(Host::parse(&text), Ok(Host::Address(address.into())), "{}", text);
    }

    #[test]
    fn every_spelling_of_an_ipv6_address_is_that_address(number: u128) {
        let address = Ipv6Addr::from(number);
        let s = address.segments();
        let long = s.map(|segment| format!("{segment:04X}")).join(":");
        let dotted = format!("{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{}", s[0], s[1], s[2], s[3], s[4], s[5], Ipv4Addr::from(number as u32));
        for text in [address.to_string(), long.clone(), dotted, format!("[{long}]")] {
            prop_assert_eq!(Host::parse(&text), Ok(Host::Address(plain(address.into()))), "{}", text);
        }
    }

    #[test]
    fn nothing_that_libc_reads_as_an_address_is_a_name(text in "[0-9a-fxX.]{1,20}") {
        if let (Some(address), Ok(host)) = (as_libc_reads(&text), Host::parse(&text)) {
            prop_assert_eq!(host, Host::Address(address.into()), "{}", text);
        }
        if let Ok(Host::Name(name)) = Host::parse(&text) {
            prop_assert_eq!(as_libc_reads(name.as_str()), None, "{}", text);
        }
    }

    #[test]
    fn what_is_read_once_is_read_the_same_again(text in "\\PC{0,40}") {
        if let Ok(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&host.to_string()), Ok(host.clone()), "{}", &text);
            let shown = host.to_string();
            prop_assert!(shown.bytes().all(|b| b.is_ascii_graphic() && !b"@/\\%[]".contains(&b)), "{}", shown);
        }
    }

    #[test]
    fn names_differ_from_their_other_cases_in_nothing(name in "[a-z0-9_][a-z0-9_-]{0,11}(\\.[a-z][a-z0-9-]{0,8}){1,3}") {
        prop_assume!(!name.contains("xn--"));
        let one = Host::parse(&name).unwrap();
        for other in [name.to_uppercase(), format!("{name}."), name.replace('.', "。")] {
            prop_assert_eq!(Host::parse(&other).unwrap(), one.clone(), "{}", other);
        }
    }

    #[test]
    fn any_text_ends_in_an_answer(text: String) {
        let _ = (Host::parse(&text), Authority::parse(&text), Authority::with_default(&text, 80));
    }
}
