//! Plain requests: rewritten, decided one by one, and ended when a side goes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use agt_gateway::flow::{Ended, Kind, Outcome, Wait};
use agt_gateway::live::Happening;
use serde_json::json;

use crate::rig::{self, Client, Destination, Manner, PATIENCE, Plan, Rig, all_at, listener, until};

fn get(client: &mut Client, up: impl std::fmt::Display, path: &str) -> rig::Answer {
    client.say(format!("GET http://{up}{path} HTTP/1.1\r\nHost: {up}\r\n\r\n"));
    client.answer().expect("an answer")
}

fn ended(rig: &mut Rig) -> Ended {
    rig.happening(|happening| match happening {
        Happening::Ended { flow, ended } => {
            assert_eq!(flow.kind, Kind::Http);
            Some(*ended)
        }
        _ => None,
    })
}

#[test]
fn requests_of_one_connection_use_one_connection_outside() {
    let destination = Destination::http();
    let mut rig = Plan::new(all_at(destination.port())).start();
    let mut client = rig.client();
    for n in 0..5 {
        let answer = get(&mut client, destination.at, &format!("/{n}?a=b"));
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
    }
    let seen = destination.requests();
    assert_eq!((seen.len(), destination.connections()), (5, 1));
    assert_eq!(seen[4], format!("GET /4?a=b HTTP/1.1\r\nhost: {}\r\n\r\n", destination.at));
    let first = ended(&mut rig);
    assert_eq!((first.outcome, first.status, first.received), (Outcome::Complete, Some(200), 2));
}

#[test]
fn requests_to_two_places_by_one_connection_go_to_both() {
    let (one, two) = (Destination::http(), Destination::http());
    let mut entries = all_at(one.port());
    entries.as_array_mut().unwrap().extend(all_at(two.port()).as_array().unwrap().iter().cloned());
    let rig = Plan::new(entries).start();
    let mut client = rig.client();
    for destination in [&one, &two, &one] {
        assert_eq!(get(&mut client, destination.at, "/").status, 200);
    }
    assert_eq!((one.requests().len(), two.requests().len()), (2, 1));
}

#[test]
fn each_request_of_a_connection_is_decided_by_itself() {
    let destination = Destination::http();
    let entry = json!([{
        "host": "127.0.0.1", "port": destination.port(), "methods": ["GET"], "paths": ["/open/**"],
    }]);
    let rig = Plan::new(entry).start();
    let mut client = rig.client();
    let up = destination.at;
    assert_eq!(get(&mut client, up, "/open/a").status, 200);
    let answer = get(&mut client, up, "/closed");
    assert_eq!((answer.status, &answer.json()["error"]["reason"]), (403, &json!("path")));
    client.say(format!("POST http://{up}/open/a HTTP/1.1\r\nHost: {up}\r\nContent-Length: 2\r\n\r\nab"));
    assert_eq!(client.answer().unwrap().json()["error"]["reason"], "method");
    assert_eq!(get(&mut client, up, "/open/b").status, 200);
    assert_eq!(get(&mut client, "other.example", "/").status, 403);
    assert_eq!(destination.requests().len(), 2);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let destination =
        Destination::with(|stream, keep| rig::http(stream, keep, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let mut client = rig.client();
    let good = format!("GET http://{up}/a HTTP/1.1\r\nHost: {up}\r\n\r\n");
    let denied = "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    client.say(format!("{good}{denied}{good}"));
    let statuses: Vec<_> = (0..3).map(|_| client.answer().unwrap().status).collect();
    assert_eq!(statuses, [200, 403, 200]);
}

#[test]
fn a_large_body_passes_both_ways_whole() {
    const SIZE: usize = 30_000_000;
    let manner: Manner = |mut stream, keep| {
        let mut kept = Vec::new();
        let request = rig::request(&mut stream, &mut kept).unwrap();
        keep(request.len().to_string().into_bytes());
        let body = vec![b'x'; SIZE];
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
    };
    let destination = Destination::with(manner);
    let mut rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let mut client = rig.client();
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        write!(sender, "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
        sender.write_all(&vec![b'y'; SIZE]).unwrap();
    });
    let answer = client.answer().unwrap();
    sending.join().unwrap();
    assert_eq!(answer.body.len(), SIZE);
    let end = ended(&mut rig);
    assert_eq!((end.sent, end.received, end.outcome), (SIZE as u64, SIZE as u64, Outcome::Complete));
}

#[test]
fn expect_is_answered_here_and_stays_here() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let mut client = rig.client();
    client
        .say(format!("POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"));
    assert_eq!(client.answer().unwrap().status, 100);
    client.say("abc");
    assert_eq!(client.answer().unwrap().status, 200);
    assert!(!destination.requests()[0].to_ascii_lowercase().contains("expect"));
}

#[test]
fn what_is_denied_is_asked_for_no_body() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).start();
    let mut client = rig.client();
    client.say(
        "POST http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    );
    assert_eq!(client.answer().unwrap().status, 403);
}

#[test]
fn an_answer_loses_what_belonged_to_one_hop_and_nothing_else() {
    let destination = Destination::with(|stream, keep| {
        let answer =
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
            Keep-Alive: timeout=5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: s\r\nTransfer-Encoding: chunked\r\n\
            Content-Length: 99\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n";
        rig::http(stream, keep, answer);
    });
    let rig = Plan::new(all_at(destination.port())).start();
    let mut client = rig.client();
    let answer = get(&mut client, destination.at, "/");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
    let head = answer.head.to_ascii_lowercase();
    for gone in ["x-hop", "keep-alive:", "content-length", "link"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert_eq!(head.matches("set-cookie").count(), 2);
    assert_eq!(answer.field("server"), Some("s"));
}

#[test]
fn the_length_of_an_answer_to_head_stays() {
    let destination = Destination::with(|stream, keep| {
        rig::http(stream, keep, b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
    });
    let rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let mut client = rig.client();
    for _ in 0..2 {
        client.say(format!("HEAD http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n"));
        let answer = client.answer_to("HEAD").unwrap();
        assert_eq!((answer.status, answer.field("content-length")), (200, Some("12345")));
    }
}

/// What bad destinations do, and what the agent gets.
#[test]
fn a_bad_destination_gives_a_clear_error() {
    let cases: [(&str, Manner, Option<u16>, Outcome); 9] = [
        ("closes at once", |_, _| {}, Some(502), Outcome::Broken),
        (
            "closes after the request",
            |mut s, _| drop(rig::request(&mut s, &mut Vec::new())),
            Some(502),
            Outcome::Broken,
        ),
        ("speaks something else", |s, k| rig::http(s, k, b"\x15\x03\x01\x00\x02\x02\x46"), Some(502), Outcome::Broken),
        ("answers HTTP/2", |s, k| rig::http(s, k, b"HTTP/2 200\r\n\r\n"), Some(502), Outcome::Broken),
        (
            "has lengths that differ",
            |s, k| rig::http(s, k, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            Some(502),
            Outcome::Broken,
        ),
        (
            "switches protocols unasked",
            |s, k| rig::http(s, k, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            Some(502),
            Outcome::Broken,
        ),
        (
            "has an endless head",
            |mut s, _| {
                drop(rig::request(&mut s, &mut Vec::new()));
                let _ = s.write_all(b"HTTP/1.1 200 OK\r\nX: ");
                while s.write_all(&[b'a'; 8192]).is_ok() {}
            },
            Some(502),
            Outcome::Broken,
        ),
        (
            "breaks off inside chunks",
            |mut s, _| {
                drop(rig::request(&mut s, &mut Vec::new()));
                s.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").unwrap();
            },
            None,
            Outcome::Broken,
        ),
        (
            "breaks off before its length",
            |mut s, _| {
                drop(rig::request(&mut s, &mut Vec::new()));
                s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab").unwrap();
            },
            None,
            Outcome::Broken,
        ),
    ];
    for (name, manner, status, outcome) in cases {
        let destination = Destination::with(manner);
        let mut rig = Plan::new(all_at(destination.port())).start();
        let mut client = rig.client();
        let up = destination.at;
        client.say(format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n"));
        match status {
            Some(status) => assert_eq!(client.answer().unwrap().status, status, "{name}"),
            None => {
                let (Ok(rest) | Err(rest)) = client.rest();
                let text = String::from_utf8_lossy(&rest);
                assert!(text.starts_with("HTTP/1.1 200"), "{name}: {text}");
                assert!(!text.ends_with("0\r\n\r\n"), "{name}: a torn answer looks whole");
            }
        }
        assert_eq!(ended(&mut rig).outcome, outcome, "{name}");
    }
}

#[test]
fn a_destination_that_never_answers_is_cut_and_the_agent_is_told() {
    let destination = Destination::with(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())));
    let mut rig = Plan::new(all_at(destination.port())).quick().start();
    let mut client = rig.client();
    let begun = Instant::now();
    let answer = get(&mut client, destination.at, "/");
    assert!(begun.elapsed() >= rig::quick().waits.answer);
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (504, &json!("answer-timeout")));
    assert_eq!(ended(&mut rig).outcome, Outcome::TimedOut(Wait::Answer));
}

#[test]
fn after_a_destination_that_never_answered_the_next_request_gets_a_new_connection() {
    let (listener, at) = listener();
    let rig = Plan::new(all_at(at.port())).quick().start();
    let mut client = rig.client();
    let silent = std::thread::spawn(move || {
        let (silent, _) = listener.accept().unwrap();
        let (second, _) = listener.accept().unwrap();
        rig::http(second, &mut |_| {}, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        drop(silent);
    });
    assert_eq!(get(&mut client, at, "/").status, 504);
    assert_eq!(get(&mut client, at, "/").status, 200);
    drop(client);
    silent.join().unwrap();
}

#[test]
fn a_kept_connection_that_closes_when_it_is_used_again_costs_a_safe_request_nothing() {
    // Each connection answers once and closes when it is asked again.
    let destination = Destination::with(|mut stream, keep| {
        let mut kept = Vec::new();
        keep(rig::request(&mut stream, &mut kept).unwrap());
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        drop(rig::request(&mut stream, &mut kept));
    });
    let rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let mut client = rig.client();
    assert_eq!(get(&mut client, up, "/1").status, 200);
    assert_eq!(get(&mut client, up, "/2").status, 200);
    // What may have been done is not done twice.
    client.say(format!("POST http://{up}/3 HTTP/1.1\r\nHost: {up}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(client.answer().unwrap().status, 502);
    assert_eq!((destination.requests().len(), destination.connections()), (2, 2));
}

#[test]
fn an_answer_that_stops_in_the_middle_is_cut() {
    let destination = Destination::with(|mut stream, _| {
        drop(rig::request(&mut stream, &mut Vec::new()));
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut rig = Plan::new(all_at(destination.port())).quick().start();
    let mut client = rig.client();
    let up = destination.at;
    client.say(format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n"));
    let (Ok(rest) | Err(rest)) = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    assert_eq!(ended(&mut rig).outcome, Outcome::TimedOut(Wait::Idle));
}

#[test]
fn a_head_that_drips_is_cut_off() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).quick().start();
    let mut client = rig.client();
    let begun = Instant::now();
    let dripping = until(|| {
        client.say("G");
        std::thread::sleep(Duration::from_millis(20));
        client.stream.set_nonblocking(true).unwrap();
        let closed =
            !matches!(client.stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        client.stream.set_nonblocking(false).unwrap();
        closed.then(|| begun.elapsed())
    });
    let waited = dripping.expect("the connection is closed");
    assert!(waited < rig::quick().waits.head * 4, "{waited:?}");
}

#[test]
fn a_connection_that_asks_nothing_more_is_closed() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).quick().start();
    let mut client = rig.client();
    let begun = Instant::now();
    assert_eq!(get(&mut client, destination.at, "/").status, 200);
    assert!(client.is_closed());
    assert!(begun.elapsed() >= rig::quick().waits.keep_alive - Duration::from_millis(50));
}

#[test]
fn who_hangs_up_ends_the_request_outside() {
    let (listener, at) = listener();
    let mut rig = Plan::new(all_at(at.port())).start();
    let mut client = rig.client();
    client.say(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"));
    let (mut outside, _) = listener.accept().unwrap();
    outside.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(rig::request(&mut outside, &mut Vec::new()));
    drop(client);
    assert_eq!(read_end(&mut outside), 0);
    assert_eq!(ended(&mut rig).outcome, Outcome::HungUp);
}

#[test]
fn a_client_that_closes_its_sending_side_has_hung_up() {
    let (listener, at) = listener();
    let rig = Plan::new(all_at(at.port())).start();
    let mut client = rig.client();
    client.say(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"));
    let (mut outside, _) = listener.accept().unwrap();
    outside.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(rig::request(&mut outside, &mut Vec::new()));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&mut outside), 0);
}

fn read_end(stream: &mut TcpStream) -> usize {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
        Err(error) => panic!("the connection outside goes on: {error}"),
    }
}

#[test]
fn an_answer_before_the_body_is_passed_on() {
    let destination = Destination::with(|mut stream, _| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").unwrap();
        // Reads on, or its close would tear the answer.
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let mut client = rig.client();
    client.say(format!("POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 1000000\r\n\r\nonly a little"));
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, &answer.body[..]), (413, &b"big"[..]));
}

#[test]
fn a_body_goes_no_further_than_its_flow() {
    let (listener, at) = listener();
    let mut rig = Plan::new(all_at(at.port())).start();
    let mut client = rig.client();
    client.say(format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 1000\r\n\r\nfirst"));
    let (mut outside, _) = listener.accept().unwrap();
    outside.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"first") {
        let mut piece = [0; 1024];
        let read = outside.read(&mut piece).unwrap();
        seen.extend_from_slice(&piece[..read]);
    }
    outside.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(ended(&mut rig).outcome, Outcome::Complete);
    client.say("second");
    let mut rest = Vec::new();
    drop(outside.read_to_end(&mut rest));
    assert_eq!(rest, b"", "sent although no policy could stop it any more");
}

/// More than all buffers of two connections together: what is held back can't be in our memory.
const FLOOD: usize = 400_000_000;

/// Sends until the other side takes no more; gives how much it took.
fn flood(stream: &mut TcpStream) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (piece, mut sent) = (vec![0; 1 << 20], 0);
    while sent < FLOOD {
        match stream.write(&piece) {
            Ok(0) | Err(_) => break,
            Ok(written) => sent += written,
        }
    }
    sent
}

#[test]
fn a_side_that_takes_nothing_holds_back_the_other() {
    for ask in ["POST", "CONNECT"] {
        let (listener, at) = listener();
        let rig = Plan::new(all_at(at.port())).start();
        let mut client = rig.client();
        if ask == "CONNECT" {
            client.say(format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n"));
            assert_eq!(client.answer_to(ask).unwrap().status, 200);
        } else {
            client.say(format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: {FLOOD}\r\n\r\n"));
        }
        let _takes_nothing = listener.accept().unwrap();
        let sent = flood(&mut client.stream);
        assert!(sent < FLOOD / 4, "{ask}: {sent} bytes went somewhere");
    }
}

#[test]
fn an_agent_that_takes_nothing_of_an_answer_is_cut() {
    let destination = Destination::with(|mut stream, keep| {
        drop(rig::request(&mut stream, &mut Vec::new()));
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n").unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let (piece, mut sent) = (vec![0; 1 << 20], 0);
        while let Ok(written @ 1..) = stream.write(&piece) {
            sent += written;
        }
        keep(sent.to_string().into_bytes());
    });
    let mut rig = Plan::new(all_at(destination.port())).quick().start();
    let mut client = rig.client();
    let up = destination.at;
    client.say(format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n"));
    assert_eq!(ended(&mut rig).outcome, Outcome::TimedOut(Wait::Idle));
    let sent: usize = until(|| destination.requests().first().map(|sent| sent.parse().unwrap())).unwrap();
    assert!(sent < FLOOD / 4, "{sent} bytes went somewhere");
}
