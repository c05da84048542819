//! Tunnels: what is said before, inside and at the end of them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Instant;

use agt_gateway::flow::{Kind, Outcome, Wait};
use agt_gateway::live::Happening;
use agt_gateway::policy::Reason;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use serde_json::json;

use crate::rig::{Client, Destination, PATIENCE, Plan, Rig, all_at, listener};

/// An entry that wants TLS for `localhost`.
fn strict(port: u16) -> serde_json::Value {
    json!([{ "host": "localhost", "port": port }])
}

pub(crate) fn open(rig: &Rig, to: &str) -> Client {
    let mut client = rig.client();
    client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    let answer = client.answer_to("CONNECT").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.head);
    client
}

fn ended(rig: &mut Rig) -> (Kind, agt_gateway::flow::Ended) {
    rig.happening(|happening| match happening {
        Happening::Ended { flow, ended } => Some((flow.kind, *ended)),
        _ => None,
    })
}

/// The ClientHello of a real client.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let mut config = client_config(rustls::RootCertStore::empty());
    config.enable_sni = true;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

pub(crate) fn client_config(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    let destination = Destination::echo();
    let mut rig = Plan::new(all_at(destination.port())).start();
    let mut client = open(&rig, &destination.at.to_string());
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (there, mut half) = (sent.clone(), client.stream.try_clone().unwrap());
    let sender = std::thread::spawn(move || {
        half.write_all(&there).unwrap();
        half.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(client.rest().unwrap(), sent);
    sender.join().unwrap();
    let (kind, ended) = ended(&mut rig);
    assert_eq!((kind, ended.outcome), (Kind::Connect, Outcome::Complete));
    assert_eq!((ended.sent, ended.received), (300_000, 300_000));
    assert!(ended.first_byte.is_some_and(|first| first <= ended.total));
}

#[test]
fn nothing_is_lost_when_a_side_takes_little_at_a_time() {
    const NUMBERS: u32 = 3_000_000;
    let destination = Destination::with(|mut stream, _| {
        let all: Vec<u8> = (0..NUMBERS).flat_map(u32::to_le_bytes).collect();
        stream.write_all(&all).unwrap();
    });
    let rig = Plan::new(all_at(destination.port())).start();
    let mut client = open(&rig, &destination.at.to_string());
    for n in (0..NUMBERS).step_by(1000) {
        let piece = client.exactly(4000);
        assert_eq!(piece[..4], n.to_le_bytes());
        if n % 100_000 == 0 {
            // The buffers on the way fill up.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    assert!(client.is_closed());
}

#[test]
fn what_is_sent_with_the_connect_arrives() {
    let destination = Destination::echo();
    let rig = Plan::new(all_at(destination.port())).start();
    let mut client = rig.client();
    let to = destination.at;
    client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\nearly"));
    assert_eq!(client.answer_to("CONNECT").unwrap().status, 200);
    assert_eq!(client.exactly(5), b"early");
}

#[test]
fn a_connect_in_http_1_0_without_host_is_understood() {
    // As Python's http.client said it until 3.12.
    let destination = Destination::echo();
    let rig = Plan::new(all_at(destination.port())).start();
    let mut client = rig.client();
    client.say(format!("CONNECT {} HTTP/1.0\r\n\r\n", destination.at));
    assert_eq!(client.answer_to("CONNECT").unwrap().status, 200);
    client.say("hello");
    assert_eq!(client.exactly(5), b"hello");
}

#[test]
fn a_half_closed_tunnel_still_brings_the_answer() {
    // Answers only after the other side has said its last word.
    let destination = Destination::with(|mut stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(format!("got {}", all.len()).as_bytes()).unwrap();
    });
    let rig = Plan::new(all_at(destination.port())).start();
    let mut client = open(&rig, &destination.at.to_string());
    client.say("12345");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest().unwrap(), b"got 5");
}

#[test]
fn a_destination_that_resets_is_seen_as_a_reset() {
    let destination = Destination::with(|mut stream, _| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        // Unread bytes at close make a reset.
        let mut peeked = [0; 4];
        while stream.peek(&mut peeked).unwrap() < 4 {}
    });
    let mut rig = Plan::new(all_at(destination.port())).start();
    let mut client = open(&rig, &destination.at.to_string());
    client.say("x").say("rest");
    assert_eq!(client.rest(), Err(Vec::new()));
    assert_eq!(ended(&mut rig).1.outcome, Outcome::Broken);
}

#[test]
fn a_client_that_hangs_up_ends_the_connection_outside() {
    let (listener, at) = listener();
    let mut rig = Plan::new(all_at(at.port())).start();
    let client = open(&rig, &at.to_string());
    let (mut outside, _) = listener.accept().unwrap();
    outside.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(client);
    assert_eq!(outside.read(&mut [0; 1]).unwrap(), 0);
    drop(outside);
    assert_eq!(ended(&mut rig).1.outcome, Outcome::Complete);
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_ended() {
    let (listener, at) = listener();
    let mut rig = Plan::new(all_at(at.port())).quick().start();
    let begun = Instant::now();
    let mut client = open(&rig, &at.to_string());
    let _outside = listener.accept().unwrap();
    assert_eq!(client.rest(), Err(Vec::new()), "an answer that never came doesn't look like an end");
    assert!(begun.elapsed() >= crate::rig::quick().waits.idle);
    assert_eq!(ended(&mut rig).1.outcome, Outcome::TimedOut(Wait::Idle));
}

#[test]
fn a_half_closed_tunnel_in_which_nothing_moves_is_ended_sooner() {
    let (listener, at) = listener();
    let settings = agt_gateway::live::Settings {
        waits: agt_gateway::live::Waits { idle: PATIENCE * 6, ..crate::rig::quick().waits },
        ..crate::rig::quick()
    };
    let mut plan = Plan::new(all_at(at.port()));
    plan.settings = settings;
    let mut rig = plan.start();
    let mut client = open(&rig, &at.to_string());
    let _outside = listener.accept().unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), Err(Vec::new()));
    assert_eq!(ended(&mut rig).1.outcome, Outcome::TimedOut(Wait::Idle));
}

#[test]
fn tls_for_the_permitted_name_passes_whole() {
    let (listener, at) = listener();
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let session = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        let mut tls = rustls::StreamOwned::new(session, stream);
        let mut got = [0; 4];
        tls.read_exact(&mut got).unwrap();
        tls.write_all(b"pong").unwrap();
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        got
    });
    let rig = Plan::new(strict(at.port())).start();
    let client = open(&rig, &format!("localhost:{}", at.port()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(Arc::new(client_config(roots)), name).unwrap();
    let mut tls = rustls::StreamOwned::new(session, client.stream);
    tls.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    tls.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, &served.join().unwrap()), (b"pong", b"ping"));
}

#[test]
fn a_client_hello_in_many_pieces_passes() {
    let destination = Destination::echo();
    let rig = Plan::new(strict(destination.port())).start();
    let mut client = open(&rig, &format!("localhost:{}", destination.port()));
    let hello = hello("localhost");
    for piece in hello.chunks(7) {
        client.say(piece);
    }
    assert_eq!(client.exactly(hello.len()), hello);
}

#[test]
fn a_client_hello_for_another_name_is_refused_by_an_alert_and_goes_nowhere() {
    let (listener, at) = listener();
    let mut rig = Plan::new(strict(at.port())).start();
    let to = format!("localhost:{}", at.port());
    let not_tls: Vec<u8> = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec();
    let cases = [
        (hello("evil.example"), Reason::SniMismatch),
        // An address in place of a name sends no SNI.
        (hello("127.0.0.1"), Reason::SniMissing),
        (not_tls, Reason::NotTls),
        (b"\x16\x03\x01\x00\x05hello and more".to_vec(), Reason::BadTls),
    ];
    for (bytes, reason) in cases {
        let mut client = open(&rig, &to);
        let (mut outside, _) = listener.accept().unwrap();
        client.say(&bytes);
        let answer = client.rest().unwrap();
        let alert: &[u8] = if reason == Reason::NotTls { &[] } else { &[21, 3, 3, 0, 2, 2, 49] };
        assert_eq!(answer, alert, "{reason:?}");
        outside.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(outside.read(&mut [0; 64]).unwrap(), 0, "{reason:?}: a byte of it went on");
        let told = rig.happening(|happening| match happening {
            Happening::Denied { denial, flow: Some(_), .. } => Some(denial.reason),
            _ => None,
        });
        assert_eq!(told, reason);
        assert_eq!(ended(&mut rig).1.outcome, Outcome::Denied(reason));
    }
}

#[test]
fn a_tunnel_without_a_client_hello_is_ended() {
    let (listener, at) = listener();
    let mut rig = Plan::new(strict(at.port())).quick().start();
    let mut client = open(&rig, &format!("localhost:{}", at.port()));
    let _outside = listener.accept().unwrap();
    client.say([22]);
    assert!(client.is_closed());
    assert_eq!(ended(&mut rig).1.outcome, Outcome::TimedOut(Wait::Hello));
}

#[test]
fn a_denied_connect_says_why_and_touches_nothing() {
    let destination = Destination::echo();
    let mut rig = Plan::new(all_at(destination.port())).start();
    let mut client = rig.client();
    client.say("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n");
    let answer = client.answer().unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.head.starts_with("HTTP/1.1 403 Denied by policy (not-listed, rule "), "{}", answer.head);
    let error = &answer.json()["error"];
    assert_eq!((&error["retry"], &error["reason"]), (&json!(false), &json!("not-listed")));
    assert!(error["message"].as_str().unwrap().starts_with("denied: connect evil.example:443"), "{error}");
    let (ask, generation) = rig.happening(|happening| match happening {
        Happening::Denied { ask: Some(ask), generation, .. } => Some((ask.to_string(), *generation)),
        _ => None,
    });
    assert_eq!((ask.as_str(), generation), ("connect evil.example:443", 1));
    assert_eq!((rig.agent().counts().denied, destination.connections()), (1, 0));
    // The connection is good for another try.
    let to = destination.at;
    client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    assert_eq!(client.answer_to("CONNECT").unwrap().status, 200);
}

#[test]
fn a_destination_that_refuses_or_has_no_address_is_told() {
    let (closed, at) = listener();
    drop(closed);
    let entries = json!([
        { "host": "127.0.0.1", "port": at.port(), "sni": "any" },
        { "host": "no-such-host.invalid", "sni": "any" },
    ]);
    let rig = Plan::new(entries).start();
    for to in [at.to_string(), "no-such-host.invalid:443".to_owned()] {
        let mut client = rig.client();
        client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 502, "{to}");
        assert_eq!(answer.json()["error"]["type"], "destination_unreachable");
    }
}
