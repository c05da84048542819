//! ClientHellos whole, cut, broken, and of a real client.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;

use super::*;

/// What rustls sends to a server of this name.
fn real(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn name_extension(name: &[u8]) -> Vec<u8> {
    extension(0, &vector16(&[&[0][..], &vector16(name)].concat()))
}

/// A message with these extensions; none at all without any.
fn message(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    if let Some(extensions) = extensions {
        body.extend(vector16(extensions));
    }
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vector16(content)].concat()
}

fn read(bytes: &[u8]) -> Progress {
    Hello::new().read(bytes)
}

fn with_name(name: &[u8]) -> Progress {
    read(&record(&message(Some(&name_extension(name)))))
}

fn asks(sni: Option<&str>, ech: bool) -> Progress {
    Progress::Hello { sni: sni.map(|name| Name::parse(name).unwrap()), ech }
}

#[test]
fn a_real_hello_is_read() {
    assert_eq!(read(&real("api.example.com")), asks(Some("api.example.com"), false));
    assert_eq!(read(&real("192.0.2.1")), asks(None, false));
}

#[test]
fn a_hello_is_whole_only_with_its_last_byte_however_it_is_cut() {
    let whole = real("api.example.com");
    let mut hello = Hello::new();
    for (at, byte) in whole.iter().enumerate() {
        let progress = hello.read(&[*byte]);
        if at + 1 < whole.len() {
            assert_eq!(progress, Progress::NeedMore, "at {at}");
        } else {
            assert_eq!(progress, asks(Some("api.example.com"), false));
        }
    }
    assert_eq!(hello.bytes(), whole);
}

#[test]
fn a_name_that_is_cut_over_records_is_read() {
    let message = message(Some(&name_extension(b"hidden.example")));
    for size in [8, 20, 64] {
        let records: Vec<u8> = message.chunks(size).flat_map(record).collect();
        assert_eq!(read(&records), asks(Some("hidden.example"), false), "{size}");
    }
    let many: Vec<u8> = message.chunks(1).flat_map(record).collect();
    assert_eq!(read(&many), Progress::Bad(BadHello::TooLong));
}

#[test]
fn what_follows_the_hello_is_kept_and_not_read() {
    let mut bytes = record(&message(Some(&name_extension(b"a.example"))));
    let early = [20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 2, 9, 9];
    bytes.extend(early);
    let mut hello = Hello::new();
    assert_eq!(hello.read(&bytes), asks(Some("a.example"), false));
    assert_eq!(hello.read(b"more"), asks(Some("a.example"), false));
    assert!(hello.into_bytes().ends_with(&[&early[..], b"more"].concat()));
}

#[test]
fn hidden_names_are_seen_in_every_draft() {
    for kind in [0xfe0d, 0xfe08, 0xfe09, 0xfe0a, 0xfe0c, 0xffce] {
        let extensions = [name_extension(b"front.example"), extension(kind, &[0, 1, 2, 3])].concat();
        assert_eq!(read(&record(&message(Some(&extensions)))), asks(Some("front.example"), true), "{kind:#x}");
    }
    assert_eq!(read(&record(&message(Some(&extension(0xfe0d, &[]))))), asks(None, true));
    let before_others = [extension(0xfe0d, &[]), name_extension(b"a.example"), extension(43, &[2, 3, 4])].concat();
    assert_eq!(read(&record(&message(Some(&before_others)))), asks(Some("a.example"), true));
}

#[test]
fn no_extension_is_no_name() {
    assert_eq!(read(&record(&message(None))), asks(None, false));
    assert_eq!(read(&record(&message(Some(&[])))), asks(None, false));
}

#[test]
fn server_names_have_one_spelling() {
    assert_eq!(with_name(b"API.Example.com"), asks(Some("api.example.com"), false));
    let wrong: [&[u8]; 9] = [
        b"",
        b"127.0.0.1",
        b"0x7f.1",
        b"::1",
        b"a..b",
        b"a\0.example",
        "bücher.example".as_bytes(),
        b"a b",
        &[0xff, 0xfe],
    ];
    for name in wrong {
        assert_eq!(with_name(name), Progress::Bad(BadHello::Name), "{name:?}");
    }
}

#[test]
fn two_server_names_are_bad() {
    let both = [name_extension(b"a.example"), name_extension(b"b.example")].concat();
    assert_eq!(read(&record(&message(Some(&both)))), Progress::Bad(BadHello::Twice));
    let entry = |name: &[u8]| [&[0][..], &vector16(name)].concat();
    let list = extension(0, &vector16(&[entry(b"a.example"), entry(b"b.example")].concat()));
    assert_eq!(read(&record(&message(Some(&list)))), Progress::Bad(BadHello::Name));
    let other_kind = extension(0, &vector16(&[&[1][..], &vector16(b"a.example")].concat()));
    assert_eq!(read(&record(&message(Some(&other_kind)))), Progress::Bad(BadHello::Name));
}

/// A message of these bytes behind its header.
fn wrapped(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    record(&[&[1], &length[1..], body].concat())
}

#[test]
fn lengths_that_do_not_fit_are_bad() {
    let fixed = [&[3, 3][..], &[7; 32]].concat();
    let wrong: [&[u8]; 8] = [
        // Nothing behind the random; a session id too long; no cipher; half a cipher; no compression; a list that is too short.
        &[],
        &[&[33][..], &[0; 33], &[0, 2, 0x13, 1, 1, 0]].concat(),
        &[0, 0, 0, 1, 0],
        &[0, 0, 3, 0x13, 1, 0, 1, 0],
        &[0, 0, 2, 0x13, 1, 0],
        &[0, 0, 2, 0x13, 1, 1, 0, 0, 9, 0],
        // A byte behind the extensions, and one behind the list of names.
        &[0, 0, 2, 0x13, 1, 1, 0, 0, 0, 0],
        &[&[0, 0, 2, 0x13, 1, 1, 0][..], &vector16(&extension(0, &[&vector16(&[0, 0, 1, b'a'])[..], &[0]].concat()))]
            .concat(),
    ];
    for rest in wrong {
        let read = read(&wrapped(&[&fixed[..], rest].concat()));
        assert_eq!(read, Progress::Bad(BadHello::Lengths), "{rest:?}");
    }
}

#[test]
fn what_is_no_tls_is_told_by_its_first_bytes() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", &[0x80, 46, 1, 3, 1], &[22, 2, 0], &[23, 3, 3, 0, 1], &[22, 0x13]]
    {
        assert_eq!(read(bytes), Progress::NotTls, "{bytes:?}");
    }
    assert_eq!(read(&[]), Progress::NeedMore);
    assert_eq!(read(&[22]), Progress::NeedMore);
}

#[test]
fn broken_records_are_bad_at_once() {
    for header in [&[22, 3, 1, 0, 0][..], &[22, 3, 1, 0x40, 1], &[22, 3, 1, 0xff, 0xff]] {
        assert_eq!(read(header), Progress::Bad(BadHello::Record), "{header:?}");
    }
    // Another kind of record, or version, in the midst of the message.
    let message = message(None);
    for second in [[23, 3, 3], [21, 3, 3], [22, 4, 0]] {
        let bytes = [&record(&message[..10])[..], &second, &vector16(&message[10..])].concat();
        assert_eq!(read(&bytes), Progress::Bad(BadHello::Record), "{second:?}");
    }
    // Another message, and one behind the hello in its record.
    assert_eq!(read(&[22, 3, 1, 0, 9, 2]), Progress::Bad(BadHello::NotAlone));
    assert_eq!(read(&record(&[&message[..], &[0]].concat())), Progress::Bad(BadHello::NotAlone));
}

#[test]
fn a_hello_without_end_is_refused_by_its_announcement() {
    let announced = |length: u32| [&[22, 3, 1, 0x40, 0, 1][..], &length.to_be_bytes()[1..]].concat();
    assert_eq!(read(&announced(0xff_ffff)), Progress::Bad(BadHello::TooLong));
    assert_eq!(read(&announced(u32::try_from(MESSAGE_MAX).unwrap() + 1)), Progress::Bad(BadHello::TooLong));
    assert_eq!(read(&announced(u32::try_from(MESSAGE_MAX).unwrap())), Progress::NeedMore);
}

#[test]
fn rules_of_the_name_judge_what_the_tunnel_says() {
    use crate::policy::{Reason, SniRule};
    let rule = SniRule::Name(Name::parse("a.example").unwrap());
    assert_eq!(rule.check(&asks(Some("a.example"), false)), Ok(()));
    assert_eq!(rule.check(&asks(Some("b.example"), false)), Err(Reason::SniMismatch));
    assert_eq!(rule.check(&asks(Some("x.a.example"), false)), Err(Reason::SniMismatch));
    assert_eq!(rule.check(&asks(None, false)), Err(Reason::SniMissing));
    assert_eq!(rule.check(&asks(Some("a.example"), true)), Err(Reason::Ech));
    assert_eq!(rule.check(&Progress::NotTls), Err(Reason::NotTls));
    assert_eq!(rule.check(&Progress::NeedMore), Err(Reason::BadTls));
    assert_eq!(rule.check(&Progress::Bad(BadHello::Twice)), Err(Reason::BadTls));
    assert_eq!(SniRule::Absent.check(&asks(None, false)), Ok(()));
    assert_eq!(SniRule::Absent.check(&asks(None, true)), Err(Reason::Ech));
    assert_eq!(SniRule::Absent.check(&asks(Some("a.example"), false)), Err(Reason::SniMismatch));
    for anything in [Progress::NotTls, Progress::NeedMore, asks(None, true), Progress::Bad(BadHello::Name)] {
        assert_eq!(SniRule::Any.check(&anything), Ok(()));
    }
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer_and_within_bounds(bytes: Vec<u8>, tls: bool, cut in 1_usize..50) {
        let bytes = if tls { record(&[&[1, 0, 0][..], &bytes].concat()) } else { bytes };
        let mut hello = Hello::new();
        let mut last = Progress::NeedMore;
        for chunk in bytes.chunks(cut) {
            last = hello.read(chunk);
        }
        prop_assert_eq!(&last, &read(&bytes));
        prop_assert_eq!(hello.bytes(), &bytes[..]);
        prop_assert!(last != Progress::NeedMore || bytes.len() <= BYTES_MAX);
    }

    #[test]
    fn a_changed_byte_never_shows_a_name_that_is_not_in_the_bytes(at: prop::sample::Index, to: u8) {
        let mut bytes = record(&message(Some(&[name_extension(b"a.example"), extension(43, &[2, 3, 4])].concat())));
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Progress::Hello { sni: Some(name), .. } = read(&bytes) {
            let text = bytes.to_ascii_lowercase();
            prop_assert!(text.windows(name.as_str().len()).any(|window| window == name.as_str().as_bytes()));
        }
    }

    #[test]
    fn where_the_cuts_are_changes_nothing(cuts in prop::collection::vec(1_usize..40, 0..12)) {
        let message = message(Some(&name_extension(b"cut.example")));
        let (mut rest, mut bytes) = (&message[..], Vec::new());
        for cut in cuts {
            let (one, other) = rest.split_at(cut.min(rest.len().saturating_sub(1)));
            if !one.is_empty() {
                bytes.extend(record(one));
            }
            rest = other;
        }
        bytes.extend(record(rest));
        prop_assert_eq!(read(&bytes), asks(Some("cut.example"), false));
    }
}
