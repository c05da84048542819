//! Dials over real sockets of this host's loopback, and what they must never reach.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;
use crate::host::{Authority, Name};
use crate::policy::{Reach, Via};
use crate::resolve::{self, Lookup};

/// Gives one answer after the other, the last for ever.
struct Answers(Mutex<Vec<Vec<IpAddr>>>);

impl Lookup for Answers {
    fn addresses(&self, _: &Name) -> io::Result<Vec<IpAddr>> {
        let mut left = self.0.lock().unwrap();
        Ok(if left.len() > 1 { left.remove(0) } else { left[0].clone() })
    }
}

fn resolver(answers: &[&[&str]]) -> Resolver {
    let answers = answers.iter().map(|one| one.iter().map(|text| text.parse().unwrap()).collect()).collect();
    let bounds = resolve::Bounds { keep: Duration::ZERO, ..resolve::Bounds::default() };
    Resolver::new(Answers(Mutex::new(answers)), bounds)
}

fn policy(operator: &str) -> Policy {
    Policy::new(1, Reach::Open, &[], &serde_json::from_str(operator).unwrap()).unwrap()
}

fn ask(to: &str) -> Ask {
    Ask::new(Authority::parse(to).unwrap(), Via::Connect)
}

fn quick() -> Bounds {
    Bounds { head_start: Duration::from_millis(20), connect: Duration::from_secs(20), ..Bounds::default() }
}

const LOOPBACK_OPEN: &str = r#"{"addresses": [{"cidr": "127.0.0.0/8"}]}"#;

async fn listener(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Listeners at two addresses and one port: another test may have the port at the second, so it is tried until both are free.
async fn listeners(one: &str, other: &str) -> (TcpListener, TcpListener, u16) {
    for _ in 0..100 {
        let (first, port) = listener(one).await;
        if let Ok(second) = TcpListener::bind((other, port)).await {
            return (first, second, port);
        }
    }
    panic!("no port is free at both {one} and {other}");
}

#[tokio::test]
async fn a_name_is_connected_at_the_address_that_was_checked() {
    let (listener, port) = listener("127.0.0.2").await;
    let ask = ask(&format!("a.example:{port}"));
    let dialled = dial(&policy(LOOPBACK_OPEN), &ask, &resolver(&[&["127.0.0.2"]]), &OwnAddresses::default(), &quick())
        .await
        .unwrap();
    assert_eq!(dialled.address, listener.local_addr().unwrap());
    assert_eq!(dialled.stream.peer_addr().unwrap(), dialled.address);
    assert!(dialled.stream.nodelay().unwrap() && dialled.refused.is_empty());
}

#[tokio::test]
async fn an_inside_address_is_never_connected_and_the_denial_names_it() {
    let (listener, port) = listener("127.0.0.1").await;
    let ask = ask(&format!("evil.example:{port}"));
    for form in ["127.0.0.1", "::ffff:127.0.0.1"] {
        let error =
            dial(&policy("{}"), &ask, &resolver(&[&[form]]), &OwnAddresses::default(), &quick()).await.unwrap_err();
        let denial = error.denial().unwrap();
        assert_eq!((denial.reason, denial.address), (Reason::Zone, Some("127.0.0.1".parse().unwrap())));
    }
    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "something connected");
}

#[tokio::test]
async fn of_a_mixed_answer_only_admitted_addresses_are_tried_and_the_others_are_told() {
    let (inside, _outside, port) = listeners("127.0.0.1", "127.0.0.9").await;
    let policy = policy(r#"{"addresses": [{"cidr": "127.0.0.9/32"}]}"#);
    let mixed = resolver(&[&["127.0.0.1", "127.0.0.9", "169.254.169.254"]]);
    let dialled =
        dial(&policy, &ask(&format!("evil.example:{port}")), &mixed, &OwnAddresses::default(), &quick()).await.unwrap();
    assert_eq!(dialled.address.ip().to_string(), "127.0.0.9");
    let refused: Vec<String> = dialled.refused.iter().map(|denial| denial.address.unwrap().to_string()).collect();
    assert_eq!(refused, ["127.0.0.1", "169.254.169.254"]);
    assert!(tokio::time::timeout(Duration::from_millis(50), inside.accept()).await.is_err());
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_anew_each_time() {
    let (_outside, inside, port) = listeners("127.0.0.9", "127.0.0.1").await;
    let policy = policy(r#"{"addresses": [{"cidr": "127.0.0.9/32"}]}"#);
    let rebinding = resolver(&[&["127.0.0.9"], &["127.0.0.1"]]);
    let ask = ask(&format!("evil.example:{port}"));
    let first = dial(&policy, &ask, &rebinding, &OwnAddresses::default(), &quick()).await.unwrap();
    assert_eq!(first.address.ip().to_string(), "127.0.0.9");
    let second = dial(&policy, &ask, &rebinding, &OwnAddresses::default(), &quick()).await;
    assert_eq!(second.unwrap_err().denial().unwrap().reason, Reason::Zone);
    assert!(tokio::time::timeout(Duration::from_millis(50), inside.accept()).await.is_err());
}

#[tokio::test]
async fn a_dead_address_is_passed_over_at_once_for_the_next() {
    let patient = Bounds { head_start: Duration::from_secs(60), ..quick() };
    let (_listener, port) = listener("127.0.0.3").await;
    let dead_first = resolver(&[&["127.0.0.4", "127.0.0.5", "127.0.0.3"]]);
    let dialled = dial(
        &policy(LOOPBACK_OPEN),
        &ask(&format!("a.example:{port}")),
        &dead_first,
        &OwnAddresses::default(),
        &patient,
    )
    .await;
    assert_eq!(dialled.unwrap().address.ip().to_string(), "127.0.0.3");
}

#[tokio::test]
async fn no_more_addresses_are_tried_than_the_bound_allows() {
    let (listener, port) = listener("127.0.0.3").await;
    let dead_first = resolver(&[&["127.0.0.4", "127.0.0.5", "127.0.0.3"]]);
    let two = Bounds { addresses: 2, ..quick() };
    let error =
        dial(&policy(LOOPBACK_OPEN), &ask(&format!("a.example:{port}")), &dead_first, &OwnAddresses::default(), &two)
            .await
            .unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    assert!(error.denial().is_none());
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_never_answers_is_given_up_in_time() {
    // A listener whose queue is full drops what comes; the clock is paused and runs ahead when all wait.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut filling = Vec::new();
    for _ in 0..8 {
        let stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
        match stream {
            Ok(stream) => filling.push(stream),
            Err(_) => break,
        }
    }
    let ask = ask(&format!("127.0.0.1:{}", address.port()));
    let error =
        dial(&policy(LOOPBACK_OPEN), &ask, &resolver(&[&[]]), &OwnAddresses::default(), &quick()).await.unwrap_err();
    assert!(matches!(error, DialError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn an_address_that_turns_out_to_be_this_host_is_let_go_unless_it_is_named() {
    // An address of this host that is not loopback, if there is one: connecting a datagram socket sends nothing.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let found = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr());
    let Some(own) = found.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    else {
        eprintln!("skipped: this host has loopback only");
        return;
    };
    let listener = TcpListener::bind((own, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = ask(&format!("a.example:{port}"));
    let text = own.to_string();
    let resolves = resolver(&[&[&text]]);
    // The supervisor doesn't know the address yet; the range would open it.
    let wide = policy(r#"{"addresses": [{"cidr": "0.0.0.0/0"}]}"#);
    let error = dial(&wide, &to, &resolves, &OwnAddresses::default(), &quick()).await.unwrap_err();
    assert_eq!(error.denial().unwrap().reason, Reason::OwnAddress);
    // It knows: nothing is connected.
    let error = dial(&wide, &to, &resolves, &OwnAddresses::new([own], []), &quick()).await.unwrap_err();
    assert_eq!(error.denial().unwrap().reason, Reason::OwnAddress);
    let named = policy(&format!(r#"{{"addresses": [{{"cidr": "{own}/32"}}]}}"#));
    assert!(dial(&named, &to, &resolves, &OwnAddresses::new([own], []), &quick()).await.is_ok());
}

#[tokio::test]
async fn a_name_without_address_is_a_denial_of_its_own() {
    let error = dial(&policy("{}"), &ask("none.example:1"), &resolver(&[&[]]), &OwnAddresses::default(), &quick())
        .await
        .unwrap_err();
    assert_eq!(error.denial().unwrap().reason, Reason::Unresolvable);
}

#[test]
fn the_families_take_turns() {
    let read = |text: &str| -> Vec<IpAddr> { text.split_whitespace().map(|one| one.parse().unwrap()).collect() };
    for (given, expected) in [
        ("::1 ::2 ::3 1.1.1.1 2.2.2.2", "::1 1.1.1.1 ::2 2.2.2.2 ::3"),
        ("1.1.1.1 2.2.2.2 ::1", "1.1.1.1 ::1 2.2.2.2"),
        ("1.1.1.1", "1.1.1.1"),
        ("", ""),
    ] {
        assert_eq!(in_turn(read(given)), read(expected), "{given}");
    }
}
