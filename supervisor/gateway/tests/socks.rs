//! SOCKS5: greetings, requests, replies, and the same conditions as everywhere.

use std::io::Read;

use agt_gateway::flow::{Kind, Outcome};
use agt_gateway::live::{Happening, Serve};
use serde_json::json;

use crate::rig::{Client, Destination, PATIENCE, Plan, all_at, listener};

fn domain(name: &str, port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    request.extend_from_slice(name.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    request
}

fn address(port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0, 1, 127, 0, 0, 1];
    request.extend_from_slice(&port.to_be_bytes());
    request
}

/// The reply code to a request, after a greeting.
fn reply(client: &mut Client, request: &[u8]) -> u8 {
    client.say([5, 1, 0]);
    assert_eq!(client.exactly(2), [5, 0]);
    client.say(request);
    let reply = client.exactly(10);
    assert_eq!((reply[0], reply[2], reply[3]), (5, 0, 1));
    reply[1]
}

#[test]
fn names_and_addresses_are_connected() {
    let destination = Destination::echo();
    let port = destination.port();
    let mut rig = Plan::new(all_at(port)).serve(Serve::Socks).start();
    let mut v6 = vec![5, 1, 0, 4];
    v6.extend_from_slice(&"::ffff:127.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v6.extend_from_slice(&port.to_be_bytes());
    for request in [domain("localhost", port), domain("LOCALHOST.", port), address(port), v6] {
        let mut client = rig.client();
        assert_eq!(reply(&mut client, &request), 0);
        client.say("hello");
        assert_eq!(client.exactly(5), b"hello");
        drop(client);
        let ended = rig.happening(|happening| match happening {
            Happening::Ended { flow, ended } => Some((flow.kind, ended.outcome)),
            _ => None,
        });
        assert_eq!(ended, (Kind::Socks, Outcome::Complete));
    }
}

#[test]
fn what_is_not_permitted_gets_reply_2_and_touches_nothing() {
    let destination = Destination::echo();
    let mut rig = Plan::new(all_at(destination.port())).serve(Serve::Socks).start();
    let cases = [
        domain("evil.example", 443),
        domain("localhost", destination.port() ^ 1),
        domain("a@localhost", destination.port()),
        domain("", destination.port()),
        domain("loc\0alhost", destination.port()),
        domain("127.0.0.1.", destination.port() ^ 1),
        domain("localhost", 0),
    ];
    for request in cases {
        let mut client = rig.client();
        assert_eq!(reply(&mut client, &request), 2, "{request:?}");
        assert!(client.is_closed());
        rig.happening(|happening| matches!(happening, Happening::Denied { .. }).then_some(()));
    }
    assert_eq!(destination.connections(), 0);
}

#[test]
fn what_is_not_socks5_connect_is_refused() {
    let destination = Destination::echo();
    let rig = Plan::new(all_at(destination.port())).serve(Serve::Socks).quick().start();
    let port = destination.port();
    let with = |at: usize, byte: u8| {
        let mut request = address(port);
        request[at] = byte;
        request
    };
    // BIND, UDP, a command and an address that don't exist.
    for (request, code) in [(with(1, 2), 7), (with(1, 3), 7), (with(1, 9), 7), (with(3, 9), 8)] {
        let mut client = rig.client();
        assert_eq!(reply(&mut client, &request), code);
        assert!(client.is_closed());
    }
    // SOCKS4, HTTP, TLS, another version inside, too little, nothing.
    let greetings: [&[u8]; 6] = [
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\x05\x01\x00\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"\x05\x02\x00",
        b"",
    ];
    for greeting in greetings {
        let mut client = rig.client();
        client.say(greeting);
        let (Ok(rest) | Err(rest)) = client.rest();
        assert!(rest.is_empty() || rest == [5, 0], "{greeting:?}: {rest:?}");
    }
    // No method that we have.
    let mut client = rig.client();
    client.say([5, 1, 2]);
    let (Ok(rest) | Err(rest)) = client.rest();
    assert_eq!(rest, [5, 0xff]);
    assert_eq!(destination.connections(), 0);
    assert!(rig.agent().counts().malformed >= 10);
}

#[test]
fn an_entry_for_tls_carries_nothing_else_by_socks() {
    let (listener, at) = listener();
    let entry = json!([{ "host": "localhost", "port": at.port() }]);
    let rig = Plan::new(entry).serve(Serve::Socks).start();
    let mut client = rig.client();
    assert_eq!(reply(&mut client, &domain("localhost", at.port())), 0);
    let (mut outside, _) = listener.accept().unwrap();
    outside.set_read_timeout(Some(PATIENCE)).unwrap();
    client.say("SSH-2.0-tunnel\r\n");
    assert!(client.is_closed());
    assert_eq!(outside.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn a_destination_that_is_not_there_is_told() {
    let (closed, at) = listener();
    drop(closed);
    let rig = Plan::new(all_at(at.port())).serve(Serve::Socks).start();
    let mut client = rig.client();
    assert_eq!(reply(&mut client, &address(at.port())), 4);
}
