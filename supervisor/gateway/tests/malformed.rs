//! Requests of every bad kind: refused, or passed on in one reading, and never more than one of them.

use std::collections::BTreeSet;

use crate::corpus::{Case, FRAMING, Must, PATHS, REST, TARGETS};
use crate::rig::{Client, Destination, Plan, all_at};

const BEHIND: &str = "GET http://{up}/smuggled HTTP/1.1\r\nHost: {up}\r\n\r\n";
/// Fields that belong to one hop, and that the destination must not see.
const ONE_HOP: [&str; 9] = [
    "x-hop",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
];

fn all() -> impl Iterator<Item = &'static Case> {
    [FRAMING, TARGETS, PATHS, REST].into_iter().flatten()
}

#[test]
fn the_corpus_is_large_and_names_each_case_once() {
    let names: BTreeSet<_> = all().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), all().count());
    assert!(names.len() >= 150, "{} cases", names.len());
}

#[test]
fn what_is_malformed_is_refused_or_has_one_reading_outside() {
    let mut wrong = Vec::new();
    for case in all() {
        if let Err(how) = try_case(case) {
            wrong.push(format!("{}: {how}", case.0));
        }
    }
    assert!(wrong.is_empty(), "{} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn try_case(&(_, bytes, must): &Case) -> Result<(), String> {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).start();
    let fill = |text: &str| {
        // Latin-1, so that a case can have any byte.
        let text = text.replace("{up}", &destination.at.to_string()).replace("{port}", &destination.port().to_string());
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<u8>>()
    };
    let mut client = rig.client();
    client.say(fill(bytes));
    match must {
        Must::Refuse(status) => {
            client.say(fill(BEHIND));
            let got = client.answer().map(|answer| answer.status);
            if got != Some(status) {
                return Err(format!("got {got:?}, not {status}"));
            }
            let denied = status == 403 || status == 404;
            if !denied && !client.is_closed() {
                return Err("what stands behind it was answered".to_owned());
            }
            let seen = destination.requests();
            if seen.iter().any(|request| !denied || !request.starts_with("GET /smuggled ")) {
                return Err(format!("the destination saw {seen:?}"));
            }
        }
        Must::Close => {
            client.say(fill(BEHIND));
            if let Some(answer) = client.answer() {
                return Err(format!("got {}, not a closed connection", answer.status));
            }
            if destination.connections() > 0 {
                return Err("the destination was connected".to_owned());
            }
        }
        Must::Pass(line, body) => {
            let got = client.answer().map(|answer| answer.status);
            if got != Some(200) {
                return Err(format!("got {got:?}, not 200"));
            }
            let seen = destination.requests();
            let [request] = &seen[..] else { return Err(format!("the destination saw {seen:?}")) };
            one_reading(request, line, body, &destination.at.to_string())?;
        }
    }
    Ok(())
}

/// The request has this line, one `Host`, one framing, no field of one hop, and this body.
pub(crate) fn one_reading(request: &str, line: &str, body: &str, host: &str) -> Result<(), String> {
    let (head, rest) = request.split_once("\r\n\r\n").ok_or("no end of the head")?;
    if head.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(format!("a line end alone in {head:?}"));
    }
    let mut lines = head.split("\r\n");
    if lines.next() != Some(line) {
        return Err(format!("another request line in {head:?}"));
    }
    let fields: Vec<(String, &str)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let of = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect::<Vec<_>>();
    if of("host") != [host] {
        return Err(format!("Host is not {host} once in {head:?}"));
    }
    if let Some(name) = ONE_HOP.iter().find(|name| !of(name).is_empty()) {
        return Err(format!("{name} went on in {head:?}"));
    }
    if of("connection").iter().any(|value| !value.is_empty()) {
        return Err(format!("Connection went on in {head:?}"));
    }
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    let unchunked = match (&lengths[..], &codings[..]) {
        ([], []) => String::new(),
        ([length], []) => rest[..length.parse::<usize>().unwrap()].to_owned(),
        ([], ["chunked"]) => unchunk(rest),
        _ => return Err(format!("not one framing in {head:?}")),
    };
    if unchunked == body { Ok(()) } else { Err(format!("the body is {unchunked:?}, not {body:?}")) }
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(rest, "\r\n", "trailers went on");
            return body;
        }
        body.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
}

#[test]
fn a_head_that_is_too_large_is_refused_and_read_no_further() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let many = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let long = format!("X: {}\r\n", "a".repeat(70 * 1024));
    for fields in [many, long] {
        let mut client = rig.client();
        client.say(format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n{fields}\r\n"));
        assert_eq!(client.answer().map(|answer| answer.status), Some(431));
        assert!(client.is_closed());
    }
    let mut client = rig.client();
    client.say(format!("GET http://{up}/{} HTTP/1.1\r\nHost: {up}\r\n\r\n", "a".repeat(70 * 1024)));
    assert!(matches!(client.answer().map(|answer| answer.status), Some(414 | 431)));
    assert_eq!(destination.connections(), 0);
}

#[test]
fn random_bytes_never_reach_a_destination() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).quick().start();
    // A small generator is enough: each failure is told by its seed.
    for seed in 1_u64..200 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let length = usize::try_from(next() % 600).unwrap();
        let mut bytes: Vec<u8> = (0..length).map(|_| u8::try_from(next() % 256).unwrap()).collect();
        bytes.extend_from_slice(b"\r\n\r\n");
        let mut client: Client = rig.client();
        client.say(&bytes);
        drop(client.stream.shutdown(std::net::Shutdown::Write));
        let end = client.rest();
        let text = match &end {
            Ok(rest) | Err(rest) => String::from_utf8_lossy(rest).into_owned(),
        };
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 501"),
            "seed {seed}: {text}"
        );
    }
    assert_eq!(destination.connections(), 0);
}
