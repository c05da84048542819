//! Tunnels whose TLS is opened: decided request by request, with destinations that are verified.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agt_gateway::flow::{Cut, Flow, Kind, Outcome, Wait};
use agt_gateway::hook::{Act, Failure, Hook};
use agt_gateway::intercept::{AUTHORITY_LIFE, LEAF_LIFE, bundle};
use agt_gateway::live::{Happening, Serve};
use agt_gateway::policy::{Policy, Reason};
use agt_gateway::proxy::trust_environment;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;

use crate::clients;
use crate::corpus::{Case, FRAMING, Must, PATHS, REST};
use crate::malformed::one_reading;
use crate::rig::{Client, Destination, Plan, Rig, listener, policy, request};
use crate::secured::{Flaw, Handshakes, Seen, World, believing, handed, inside};
use crate::tunnels::{hello, open};

/// GET and PUT of what is below `/ok`, and nothing below `/ok/not`.
fn entries(port: u16) -> serde_json::Value {
    json!([
        { "host": "localhost", "port": port, "intercept": "on", "methods": ["GET", "PUT"], "paths": ["/ok/**"] },
        { "deny": "localhost", "paths": ["/ok/not/**"] },
    ])
}

/// Everything at one port, opened.
fn all_opened(port: u16) -> serde_json::Value {
    json!([
        { "host": "localhost", "port": port, "intercept": "on" },
        { "host": "127.0.0.1", "port": port, "intercept": "on" },
    ])
}

struct Scene {
    rig: Rig,
    port: u16,
    handshakes: Handshakes,
}

impl Scene {
    fn new(destination: &Destination, flaw: Flaw, entries: fn(u16) -> serde_json::Value) -> Self {
        Self::with(destination, flaw, entries, |plan| plan)
    }

    fn with(
        destination: &Destination,
        flaw: Flaw,
        entries: fn(u16) -> serde_json::Value,
        plan: impl FnOnce(Plan) -> Plan,
    ) -> Self {
        let world = World::new();
        let port = world.front(destination.at, flaw);
        let rig = plan(Plan::new(entries(port)).tls(world.trust())).start();
        Self { rig, port, handshakes: world.1 }
    }

    fn to(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn client_seeing(&self) -> (Client, Seen) {
        inside(open(&self.rig, &self.to()).stream, "localhost", handed(&self.rig)).unwrap()
    }

    fn client(&self) -> Client {
        self.client_seeing().0
    }

    fn get(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.to())
    }

    fn denied(&mut self) -> (Reason, String) {
        self.rig.happening(|happening| match happening {
            Happening::Denied { denial, .. } => Some((denial.reason, denial.rule.to_string())),
            _ => None,
        })
    }

    fn ended(&mut self, kind: Kind) -> agt_gateway::flow::Ended {
        self.rig.happening(|happening| match happening {
            Happening::Ended { flow, ended } if flow.kind == kind => Some(*ended),
            _ => None,
        })
    }
}

#[test]
fn an_opened_tunnel_is_decided_request_by_request() {
    let destination = Destination::http();
    let mut scene = Scene::new(&destination, Flaw::None, entries);
    let mut client = scene.client();
    assert_eq!(client.say(scene.get("/ok/a?b=c")).answer().unwrap().body, b"ok");
    for (request, reason, rule) in [
        (scene.get("/secret"), "path", "network[0]"),
        (scene.get("/ok/not/this"), "denied", "operator.network[1]"),
        (scene.get("/ok/a").replace("GET", "DELETE"), "method", "network[0]"),
    ] {
        let answer = client.say(&request).answer().unwrap();
        assert_eq!(answer.status, 403, "{request}");
        let error = &answer.json()["error"];
        assert_eq!((&error["reason"], &error["rule"]), (&json!(reason), &json!(rule)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(&scene.to()), "{error}");
        assert_eq!(scene.denied(), (reason_of(reason), rule.to_owned()));
    }
    let put = format!("PUT /ok/b HTTP/1.1\r\nHost: {}\r\nContent-Length: 3\r\n\r\nabc", scene.to());
    assert_eq!(client.say(put).answer().unwrap().status, 200);
    // One connection outside, and there nothing of what was denied.
    let seen = destination.requests();
    let lines: Vec<_> = seen.iter().map(|request| request.lines().next().unwrap()).collect();
    assert_eq!(lines, ["GET /ok/a?b=c HTTP/1.1", "PUT /ok/b HTTP/1.1"]);
    assert!(seen[0].to_ascii_lowercase().contains(&format!("host: {}\r\n", scene.to())), "{}", seen[0]);
    assert!(seen[1].ends_with("abc"));
    assert_eq!((destination.connections(), scene.rig.agent().counts().denied), (1, 3));
    let ended = scene.ended(Kind::Https);
    assert_eq!((ended.outcome, ended.status, ended.received), (Outcome::Complete, Some(200), 2));
    drop(client);
    let tunnel = scene.ended(Kind::Connect);
    assert_eq!((tunnel.sent, tunnel.received), (0, 0), "bytes are counted once");
    assert_eq!((scene.rig.agent().counts().sent, scene.rig.agent().counts().received), (3, 4));
}

fn reason_of(word: &str) -> Reason {
    Reason::ALL.into_iter().find(|reason| reason.word() == word).unwrap()
}

#[test]
fn nothing_of_it_is_made_where_no_tunnel_is_opened() {
    let destination = Destination::echo();
    let rig = Plan::new(crate::rig::all_at(destination.port())).start();
    let mut client = open(&rig, &destination.at.to_string());
    assert_eq!(client.say("hello").exactly(5), b"hello");
    assert!(!rig.gateway.has_authority());
    let made = rig.gateway.authority().unwrap();
    assert!(rig.gateway.has_authority());
    assert_eq!(rig.gateway.authority().unwrap(), made, "one for the gateway's life");
    // And another for another.
    let other = Plan::new(json!([])).start();
    assert_ne!(other.gateway.authority().unwrap(), made);
}

/// `basicConstraints` as it stands in a certificate (RFC 5280, 4.2.1.9): critical, with this content.
fn constrained(certificate: &[u8], content: &[u8]) -> bool {
    const OID: [u8; 5] = [6, 3, 0x55, 0x1d, 0x13];
    let Some(at) = crate::rig::find(certificate, &OID) else { return false };
    certificate[at..].windows(content.len()).take(16).any(|window| window == content)
}

#[derive(Debug)]
struct At(UnixTime);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// Whether a client believes a chain at some time from now.
fn believes(
    root: &CertificateDer<'static>,
    leaf: &CertificateDer<'_>,
    name: &str,
    after: Duration,
) -> Result<(), String> {
    use rustls::client::danger::ServerCertVerifier;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let at = At(UnixTime::since_unix_epoch(since + after));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(leaf, &[], &name, &[], at.0).map(drop).map_err(|error| error.to_string())
}

#[test]
fn the_certificate_is_for_one_name_and_one_day_by_an_authority_that_makes_no_others() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let (_client, seen) = scene.client_seeing();
    assert_eq!(seen.alpn.as_deref(), Some(&b"http/1.1"[..]), "HTTP/2 was offered and not taken");
    let root =
        CertificateDer::from(pem::parse(scene.rig.gateway.authority().unwrap().as_str()).unwrap().into_contents());
    let now = Duration::ZERO;
    assert_eq!(believes(&root, &seen.leaf, "localhost", now), Ok(()));
    assert!(believes(&root, &seen.leaf, "other.example", now).unwrap_err().contains("not valid for name"));
    assert_eq!(believes(&root, &seen.leaf, "localhost", LEAF_LIFE - Duration::from_secs(60)), Ok(()));
    assert!(
        believes(&root, &seen.leaf, "localhost", LEAF_LIFE + Duration::from_secs(60)).unwrap_err().contains("expired")
    );
    assert!(LEAF_LIFE <= AUTHORITY_LIFE);
    // CA:TRUE with pathlen:0, and CA:FALSE, which DER writes as nothing.
    assert!(constrained(&root, &[0x30, 6, 1, 1, 0xff, 2, 1, 0]));
    assert!(constrained(&seen.leaf, &[4, 2, 0x30, 0]));
    let (_, address) =
        inside(open(&scene.rig, &format!("127.0.0.1:{}", scene.port)).stream, "127.0.0.1", handed(&scene.rig)).unwrap();
    assert_eq!(believes(&root, &address.leaf, "127.0.0.1", now), Ok(()));
    assert!(believes(&root, &address.leaf, "localhost", now).is_err());
    // Two tunnels, one certificate: it is kept.
    assert_eq!(scene.client_seeing().1.leaf, seen.leaf);
}

#[test]
fn a_destination_that_is_not_to_be_trusted_is_told_by_name_and_gets_nothing() {
    for (flaw, words) in [
        (Flaw::Expired, "has expired"),
        (Flaw::WrongName, "is for another name (DnsName(\\\"other.example\\\"))"),
        (Flaw::SelfSigned, "self-signed, or signed by nobody"),
    ] {
        let destination = Destination::http();
        let mut scene = Scene::new(&destination, flaw, entries);
        let mut client = scene.client();
        // Also when it is tried again.
        for _ in 0..2 {
            let answer = client.say(scene.get("/ok/a")).answer().unwrap();
            assert_eq!(answer.status, 502, "{flaw:?}");
            let error = &answer.json()["error"];
            assert_eq!((&error["type"], &error["retry"]), (&json!("destination_not_trusted"), &json!(false)));
            assert_eq!((&error["reason"], &error["rule"]), (&json!("untrusted"), &json!("network[0]")));
            let message = error["message"].as_str().unwrap().replace('"', "\\\"").replace("\\\\\"", "\\\"");
            assert!(message.starts_with(&scene.to()) && message.contains(words), "{message}");
            assert_eq!(scene.denied(), (Reason::Untrusted, "network[0]".to_owned()));
            assert_eq!(scene.ended(Kind::Https).outcome, Outcome::Denied(Reason::Untrusted));
        }
        // What isn't allowed is so whoever is behind it.
        assert_eq!(client.say(scene.get("/secret")).answer().unwrap().status, 403);
        assert_eq!((destination.connections(), scene.rig.agent().counts().denied), (0, 3));
    }
}

#[test]
fn a_destination_without_tls_or_without_an_answer_gives_a_clear_error() {
    let destination = Destination::with(|mut stream, keep| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        keep(rest);
    });
    let world = World::new();
    let rig = Plan::new(all_opened(destination.port())).tls(world.trust()).start();
    let scene = Scene { rig, port: destination.port(), handshakes: Arc::default() };
    let answer = scene.client().say(scene.get("/")).answer().unwrap();
    assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (502, Some("destination_unreachable")));
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("TLS: "), "{:?}", answer.json());
    assert!(destination.requests().iter().all(|seen| !seen.contains("GET")));
    // One that accepts and says nothing.
    let (silent, at) = listener();
    let rig = Plan::new(all_opened(at.port())).tls(world.trust()).quick().start();
    let mut scene = Scene { rig, port: at.port(), handshakes: world.1 };
    let answer = scene.client().say(scene.get("/")).answer().unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(scene.ended(Kind::Https).outcome, Outcome::TimedOut(Wait::Connect));
    drop(silent);
}

#[test]
fn each_connection_outside_is_verified_anew_and_speaks_http_1_1() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    for _ in 0..3 {
        assert_eq!(scene.client().say(scene.get("/")).answer().unwrap().status, 200);
    }
    let anew = (Some(b"http/1.1".to_vec()), rustls::HandshakeKind::Full);
    assert_eq!(*scene.handshakes.lock().unwrap(), [anew.clone(), anew.clone(), anew]);
}

/// The same ClientHello with one more extension: an encrypted one.
fn hiding(mut hello: Vec<u8>) -> Vec<u8> {
    // Header of the record, of the message, version, random; then the session's id, ciphers, compressions, extensions.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    let more = [0xfe, 0x0d, 0, 1, 0];
    for place in [3, 7, at] {
        let length = u16::from_be_bytes([hello[place], hello[place + 1]]) + 5;
        hello[place..place + 2].copy_from_slice(&length.to_be_bytes());
    }
    hello.extend_from_slice(&more);
    hello
}

#[test]
fn the_client_hello_is_judged_before_anything_is_opened() {
    let destination = Destination::http();
    let mut scene = Scene::new(&destination, Flaw::None, all_opened);
    for (bytes, reason) in [
        (hello("evil.example"), Reason::SniMismatch),
        (hello("127.0.0.1"), Reason::SniMissing),
        (hiding(hello("localhost")), Reason::Ech),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Reason::NotTls),
        (b"\x16\x03\x01\x00\x05hello and more".to_vec(), Reason::BadTls),
    ] {
        let mut client = open(&scene.rig, &scene.to());
        let answer = client.say(&bytes).rest().unwrap();
        let alert: &[u8] = if reason == Reason::NotTls { &[] } else { &[21, 3, 3, 0, 2, 2, 49] };
        assert_eq!(answer, alert, "{reason:?}");
        assert_eq!(scene.denied().0, reason);
        assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::Denied(reason));
    }
    assert_eq!(destination.connections(), 0);
    assert!(!scene.rig.gateway.has_authority());
}

#[test]
fn what_is_no_http_is_refused_told_and_never_passed_on() {
    let destination = Destination::echo();
    let mut scene = Scene::new(&destination, Flaw::None, all_opened);
    for bytes in
        [&b"SSH-2.0-OpenSSH_9.9\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\x00\x00\x08\x04\xd2\x16\x2f"]
    {
        let mut client = scene.client();
        client.say(bytes);
        let (Ok(rest) | Err(rest)) = client.rest();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{rest:?}");
        assert_eq!(scene.denied(), (Reason::NotHttp, "network[0]".to_owned()));
        assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::Denied(Reason::NotHttp));
    }
    // A client that speaks HTTP/2 alone learns it from TLS.
    let authority = scene.rig.gateway.authority().unwrap();
    let root = CertificateDer::from(pem::parse(authority.as_str()).unwrap().into_contents());
    let refused = inside(open(&scene.rig, &scene.to()).stream, "localhost", believing(&[root], &[b"h2"]));
    assert!(refused.err().unwrap().contains("NoApplicationProtocol"));
    assert_eq!(scene.denied().0, Reason::NotHttp);
    assert_eq!(scene.rig.agent().counts().denied, 4);
}

#[test]
fn a_request_to_another_host_behind_the_same_front_is_refused_and_told() {
    let destination = Destination::http();
    let mut scene = Scene::new(&destination, Flaw::None, all_opened);
    let mut client = scene.client();
    for host in ["evil.example", "localhost", "localhost:1", "127.0.0.1"] {
        let answer = client.say(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).answer().unwrap();
        assert_eq!((answer.status, answer.json()["error"]["reason"].as_str()), (403, Some("host-mismatch")), "{host}");
        assert_eq!(scene.denied(), (Reason::HostMismatch, "network[0]".to_owned()));
    }
    for request in [
        format!("GET https://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", scene.to()),
        format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", scene.to()),
        format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\n\r\n", scene.to()),
    ] {
        assert_eq!(scene.client().say(&request).answer().unwrap().status, 400, "{request}");
    }
    assert!(destination.requests().is_empty());
}

/// The cases of the corpus as they look inside a tunnel.
fn told_inside() -> impl Iterator<Item = (Case, String)> {
    [FRAMING, PATHS, REST].into_iter().flatten().filter_map(|case| {
        let (line, rest) = case.1.split_once("\r\n")?;
        let (method, target) = line.split_once(" http://{up}")?;
        target.starts_with('/').then(|| (*case, format!("{method} {target}\r\n{rest}")))
    })
}

#[test]
fn what_is_malformed_in_the_clear_is_so_inside() {
    let mut wrong = Vec::new();
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let fill = |text: &str| {
        let text = text.replace("{up}", &scene.to()).replace("{port}", &scene.port.to_string());
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<u8>>()
    };
    let mut tried = 0;
    for ((name, _, must), bytes) in told_inside() {
        tried += 1;
        let before = destination.requests().len();
        let mut client = scene.client();
        client.say(fill(&bytes));
        if !matches!(must, Must::Pass(..)) {
            client.say(fill("GET /smuggled HTTP/1.1\r\nHost: {up}\r\n\r\n"));
        }
        let got = client.answer().map(|answer| answer.status);
        let closed = matches!(must, Must::Pass(..)) || client.is_closed();
        let seen = destination.requests().split_off(before);
        let right = match must {
            Must::Refuse(status) => got == Some(status) && closed && seen.is_empty(),
            Must::Close => got.is_none() && seen.is_empty(),
            Must::Pass(line, body) => {
                let read = |request: &String| one_reading(request, line, body, &scene.to());
                got == Some(200) && seen.len() == 1 && read(&seen[0]).inspect_err(|how| wrong.push(how.clone())).is_ok()
            }
        };
        if !right {
            wrong.push(format!("{name}: got {got:?}, closed {closed}, the destination saw {seen:?}; {must:?}"));
        }
    }
    assert!(tried >= 80, "{tried} cases");
    assert!(wrong.is_empty(), "{} of {tried} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn websockets_are_refused_in_words_that_fit() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let asks = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", scene.to());
    let answer = scene.client().say(asks).answer().unwrap();
    assert_eq!(answer.status, 501);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("intercept: on"));
}

#[test]
fn a_new_policy_closes_an_opened_tunnel_between_requests_and_within_one() {
    let destination = Destination::with(|mut stream, keep| {
        let mut kept = Vec::new();
        while let Some(request) = request(&mut stream, &mut kept) {
            let answers = request.starts_with(b"GET /ok/a ");
            keep(request);
            if answers {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
        }
    });
    for (within, next) in [(false, 0), (true, 0), (false, 1), (false, 2)] {
        let mut scene = Scene::new(&destination, Flaw::None, entries);
        let mut client = scene.client();
        assert_eq!(client.say(scene.get("/ok/a")).answer().unwrap().status, 200);
        assert_eq!(scene.ended(Kind::Https).outcome, Outcome::Complete);
        if within {
            let before = destination.requests().len();
            client.say(scene.get("/ok/waits"));
            assert!(crate::rig::until(|| (destination.requests().len() > before).then_some(())).is_some());
        }
        let policy = match next {
            0 => Policy::nothing(2),
            // What was opened shall not be open any more, or be held to no rules.
            1 => policy(2, json!([{ "host": "localhost", "port": scene.port }])),
            _ => policy(2, json!([{ "host": "localhost", "port": scene.port, "sni": "any" }])),
        };
        assert_eq!(scene.rig.agent().set_policy(policy), Ok(1), "{within} {next}");
        assert!(client.is_closed());
        assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::Cut(Cut::Policy));
    }
}

#[test]
fn a_request_is_decided_under_the_policy_of_its_time() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let mut client = scene.client();
    assert_eq!(client.say(scene.get("/secret")).answer().unwrap().status, 200);
    assert_eq!(scene.rig.agent().set_policy(policy(2, entries(scene.port))), Ok(0), "the tunnel is still allowed");
    assert_eq!(client.say(scene.get("/secret")).answer().unwrap().status, 403);
    assert_eq!(client.say(scene.get("/ok/a")).answer().unwrap().status, 200);
    assert_eq!((destination.requests().len(), destination.connections()), (2, 1));
}

#[test]
fn bodies_are_passed_on_as_they_come() {
    // Says the first half of its answer after the first half of the request.
    let destination = Destination::with(|mut stream, keep| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut half = [0; 4];
        stream.read_exact(&mut half).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").unwrap();
        keep(half.to_vec());
        stream.read_exact(&mut half).unwrap();
        stream.write_all(b"rest").unwrap();
        keep(half.to_vec());
        // Until the other side is done.
        let _ = stream.read(&mut half);
    });
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let mut client = scene.client();
    client.say(format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 8\r\n\r\n1234", scene.to()));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(client.exactly(1));
    }
    assert_eq!(client.exactly(4), b"half");
    client.say("5678");
    assert_eq!(client.exactly(4), b"rest");
    assert_eq!(destination.requests(), ["1234", "5678"]);
}

#[test]
fn a_large_body_passes_both_ways_whole() {
    const SIZE: usize = 5_000_000;
    // Sends back the body that it got.
    let destination = Destination::with(|mut stream, _| {
        let mut kept = Vec::new();
        while let Some(request) = request(&mut stream, &mut kept) {
            let at = crate::rig::find(&request, b"\r\n\r\n").unwrap() + 4;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.len() - at);
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&request[at..]).unwrap();
        }
    });
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let body: Vec<u8> = (0..SIZE).map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)]).collect();
    let mut client = scene.client();
    client.say(format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {SIZE}\r\n\r\n", scene.to()));
    client.say(&body);
    assert!(client.answer().unwrap().body == body);
    let counts = scene.rig.agent().counts();
    assert_eq!((counts.sent, counts.received), (SIZE as u64, SIZE as u64));
}

#[test]
fn the_last_word_is_said_inside_tls() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let mut client = scene.client();
    client.say(format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", scene.to()));
    assert_eq!(client.answer().unwrap().status, 200);
    // The client's TLS passes on an end that was said, and breaks off otherwise.
    assert_eq!(client.rest(), Ok(Vec::new()));
}

#[test]
fn an_answer_that_breaks_off_looks_like_it() {
    let destination = Destination::with(|mut stream, _| {
        let _ = request(&mut stream, &mut Vec::new());
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").unwrap();
    });
    let mut scene = Scene::new(&destination, Flaw::None, all_opened);
    let mut client = scene.client();
    client.say(scene.get("/"));
    let (Ok(said) | Err(said)) = client.rest();
    assert!(said.ends_with(b"half"), "{}", String::from_utf8_lossy(&said));
    assert_eq!(scene.ended(Kind::Https).outcome, Outcome::Broken);
    assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::Broken);
    // And an agent that goes away is one that hung up.
    let mut scene = Scene::new(&Destination::http(), Flaw::None, all_opened);
    let mut client = scene.client();
    client.say(format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 8\r\n\r\nhalf", scene.to()));
    drop(client);
    assert_eq!(scene.ended(Kind::Https).outcome, Outcome::HungUp);
    // It said so in TLS.
    assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::Complete);
}

#[test]
fn an_opened_tunnel_that_asks_nothing_is_closed() {
    let destination = Destination::http();
    let mut scene = Scene::with(&destination, Flaw::None, all_opened, Plan::quick);
    let mut silent = scene.client();
    assert!(silent.is_closed());
    assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::TimedOut(Wait::Head));
    let mut idle = scene.client();
    assert_eq!(idle.say(scene.get("/")).answer().unwrap().status, 200);
    assert!(idle.is_closed());
    assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::TimedOut(Wait::Idle));
    // One whose TLS never comes about.
    let hello = hello("localhost");
    let mut half = open(&scene.rig, &scene.to());
    half.say(&hello);
    let (Ok(said) | Err(said)) = half.rest();
    assert_eq!(said.first(), Some(&22), "our hello");
    assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::TimedOut(Wait::Hello));
}

/// Makes requests out of opened tunnels fail.
struct Fault;

impl Hook for Fault {
    fn before_connect(&self, flow: &Flow) -> Act {
        if flow.kind == Kind::Https { Act::Fail(Failure::Status(429)) } else { Act::Go }
    }
}

#[test]
fn hooks_see_each_request() {
    let destination = Destination::http();
    let mut scene = Scene::with(&destination, Flaw::None, all_opened, |plan| plan.hook(Fault));
    assert_eq!(scene.client().say(scene.get("/")).answer().unwrap().status, 429);
    assert_eq!(scene.ended(Kind::Https).outcome, Outcome::Failed(Failure::Status(429)));
    assert!(destination.requests().is_empty());
}

#[test]
fn a_program_that_does_not_believe_the_gateway_is_told_of() {
    let destination = Destination::http();
    let mut scene = Scene::new(&destination, Flaw::None, all_opened);
    let refused = inside(open(&scene.rig, &scene.to()).stream, "localhost", believing(&[], &[b"http/1.1"]));
    assert!(refused.err().unwrap().contains("UnknownIssuer"));
    assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::Distrusted);
}

#[test]
fn no_open_file_has_a_key_in_it() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, all_opened);
    let mut client = scene.client();
    assert_eq!(client.say(scene.get("/")).answer().unwrap().status, 200);
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        // Another test's may be gone by now.
        let Ok(path) = entry.and_then(|entry| std::fs::read_link(entry.path())) else { continue };
        if std::fs::metadata(&path).is_ok_and(|about| about.is_file()) {
            let content = std::fs::read(&path).unwrap_or_default();
            assert!(crate::rig::find(&content, b"PRIVATE KEY").is_none(), "{}", path.display());
        }
    }
    // And nothing here writes one.
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    for file in ["intercept/authority.rs", "intercept/bundle.rs", "proxy/opened.rs", "proxy/secure.rs"] {
        // Where the sources are not beside the test there is nothing to look at.
        let Ok(text) = std::fs::read_to_string(format!("{sources}/{file}")) else { continue };
        assert!(!text.contains("std::fs") && !text.contains("File"), "{file} touches files");
    }
}

#[test]
fn the_bundle_has_the_hosts_roots_and_ours() {
    let rig = Plan::new(json!([])).start();
    let authority = rig.gateway.authority().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["company.example".to_owned()]).unwrap().cert.der().clone();
    let bundle = bundle(&authority, std::slice::from_ref(&own));
    let all = pem::parse_many(bundle.as_str()).unwrap();
    let system = rustls_native_certs::load_native_certs().certs.len();
    assert_eq!((all.len(), bundle.roots()), (system + 2, system + 1));
    assert_eq!(all[system].contents(), own.as_ref());
    assert_eq!(all[system + 1], pem::parse(authority.as_str()).unwrap());
    assert!(!bundle.as_str().contains("PRIVATE"));
}

#[test]
fn curl_and_python_go_through_an_opened_tunnel_by_their_variables() {
    let destination = Destination::http();
    let mut scene = Scene::new(&destination, Flaw::None, entries);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bundle(&scene.rig.gateway.authority().unwrap(), &[]).as_str()).unwrap();
    let mut variables = clients::variables(&scene.rig);
    let believed = trust_environment(file.path());
    assert!(believed.iter().all(|(_, path)| path == file.path().to_str().unwrap()));
    let url = |path: &str| format!("https://{}{path}", scene.to());
    let quiet = ["-sS", "-q", "--max-time", "10"];
    // Without them it is refused, and the supervisor told.
    let Some(refused) = clients::run("curl", &variables, &[&quiet[..], &[&url("/ok/a")]].concat()) else { return };
    assert_eq!(refused.status.code(), Some(60), "{}", clients::text(&refused));
    assert_eq!(scene.ended(Kind::Connect).outcome, Outcome::Distrusted);
    variables.extend(believed);
    let url = |path: &str| format!("https://{}{path}", scene.to());
    let curl =
        |path: &str| clients::text(&clients::run("curl", &variables, &[&quiet[..], &[&url(path)]].concat()).unwrap());
    assert_eq!(curl("/ok/a"), "ok");
    let denied = curl("/secret");
    assert!(denied.contains("denied_by_policy") && denied.contains("network[0]"), "{denied}");
    let script = format!(
        "import urllib.request as u\nprint(u.urlopen('{}', timeout=10).read().decode())\n\
         try: u.urlopen('{}', timeout=10)\nexcept u.HTTPError as e: print(e)\n",
        url("/ok/a"),
        url("/secret")
    );
    let Some(output) = clients::run("python3", &variables, &["-c", &script]) else { return };
    let said = clients::text(&output);
    assert!(said.starts_with("ok\n") && said.contains("Denied by policy (path, rule network[0])"), "{said}");
}

#[test]
fn programs_find_the_authority_by_the_variables_that_are_theirs() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::None, entries);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("roots.pem");
    std::fs::write(&file, bundle(&scene.rig.gateway.authority().unwrap(), &[]).as_str()).unwrap();
    let mut common = clients::variables(&scene.rig);
    let place = |name: &str| (name.to_owned(), home.path().display().to_string());
    common.extend([place("HOME"), place("TMPDIR"), ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned())]);
    let url = |path: &str| format!("https://{}/ok/{path}", scene.to());
    let folder = home.path().join("pip").display().to_string();
    let requests = "import requests, sys; requests.get(sys.argv[1], timeout=10)";
    let quiet = ["-m", "pip", "download", "--no-cache-dir", "--retries", "0", "--timeout", "10", "-d", &folder];
    for (program, own, arguments) in [
        ("git", "GIT_SSL_CAINFO", vec!["ls-remote"]),
        ("npm", "NPM_CONFIG_CAFILE", vec!["view", "x", "--fetch-retries=0", "--registry"]),
        ("python3", "PIP_CERT", [&quiet[..], &["x", "--index-url"]].concat()),
        ("python3", "REQUESTS_CA_BUNDLE", vec!["-c", requests]),
    ] {
        let path = format!("{program}-{own}");
        let url = url(&path);
        let arguments = [arguments, vec![url.as_str()]].concat();
        let mut variables = common.clone();
        variables.extend(trust_environment(&file).into_iter().filter(|(name, _)| name == own));
        let Some(output) = clients::run(program, &variables, &arguments) else { continue };
        let said = clients::text(&output);
        if said.contains("No module named") {
            eprintln!("SKIP {program} lacks a module: {said}");
            continue;
        }
        let seen = destination.requests();
        assert!(seen.iter().any(|request| request.contains(&format!(" /ok/{path}"))), "{path}: {said}\n{seen:?}");
    }
}

#[test]
fn curl_reads_why_a_destination_is_not_trusted() {
    let destination = Destination::http();
    let scene = Scene::new(&destination, Flaw::Expired, entries);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), scene.rig.gateway.authority().unwrap().as_str()).unwrap();
    let variables = [clients::variables(&scene.rig), trust_environment(file.path())].concat();
    let url = format!("https://{}/ok/a", scene.to());
    let Some(output) = clients::run("curl", &variables, &["-sS", "-q", "-i", "--max-time", "10", &url]) else { return };
    let said = clients::text(&output);
    assert!(said.contains("502 Destination not trusted (untrusted, rule network[0])"), "{said}");
    assert!(said.contains("its certificate has expired"), "{said}");
}

#[test]
fn socks_opens_tunnels_too() {
    let destination = Destination::http();
    let scene = Scene::with(&destination, Flaw::None, entries, |plan| plan.serve(Serve::Socks));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), scene.rig.gateway.authority().unwrap().as_str()).unwrap();
    let (proxy, root) = (format!("socks5h://{}", scene.rig.at), file.path().to_str().unwrap());
    for (path, words) in [("/ok/a", "ok"), ("/secret", "denied_by_policy")] {
        let url = format!("https://{}{path}", scene.to());
        let arguments = ["-sS", "-q", "--max-time", "10", "--cacert", root, "--proxy", &proxy, &url];
        let Some(output) = clients::run("curl", &[], &arguments) else { return };
        assert!(clients::text(&output).contains(words), "{}", clients::text(&output));
    }
    assert_eq!(destination.requests().len(), 1);
}
