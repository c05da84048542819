//! Model routes behind the gateway's own door: flows, hooks and cuts hold for them as for everything else.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agt_gateway::flow::{Cut, Ended, Flow, Kind, Outcome};
use agt_gateway::hook::{Act, Event, Failure, Hook};
use agt_gateway::limit::spec::LimitSpec;
use agt_gateway::limit::{Account, Refused, Shared};
use agt_gateway::live::{Happening, Models};
use agt_gateway::price::Table;
use agt_gateway::route::{Call, RouteSpec, Routes, Trouble, Witness};
use serde_json::json;

use crate::rig::{self, Answer, Client, Destination, PATIENCE, Plan, Rig, listener};

#[derive(Debug, Default)]
struct Told {
    ended: AtomicUsize,
    refused: AtomicUsize,
}

impl Witness for Told {
    fn ended(&self, _: &Call) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn refused(&self, _: &str, _: Trouble, _: &str) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn limited(&self, _: &str, _: &Refused) {}
}

fn models(upstream: std::net::SocketAddr, limits: serde_json::Value) -> (Models, Arc<Told>) {
    let spec: RouteSpec =
        serde_json::from_value(json!({ "upstream": format!("http://{upstream}"), "idle": "2s" })).unwrap();
    let routes = Routes::new(&[("openai".to_owned(), spec)].into(), Arc::new(Table::built_in())).unwrap();
    let limits: LimitSpec = serde_json::from_value(limits).unwrap();
    let account = Arc::new(Account::new(vec![Shared::new("researcher", &limits)]));
    let told = Arc::new(Told::default());
    (Models { routes, account, witness: told.clone() }, told)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 96\r\n\r\n\
    {\"id\":\"1\",\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}      ";

fn provider() -> Destination {
    assert_eq!(ANSWER.len() - rig::find(ANSWER, b"\r\n\r\n").unwrap() - 4, 96);
    Destination::with(|stream, keep| rig::http(stream, keep, ANSWER))
}

fn start(hook: Option<Fault>) -> Rig {
    let plan = Plan::new(json!([]));
    match hook {
        Some(hook) => plan.hook(hook).start(),
        None => plan.start(),
    }
}

fn chat(client: &mut Client, rig: &Rig, body: &str) -> Option<Answer> {
    let (at, length) = (rig.at, body.len());
    client.say(format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
    client.answer()
}

const ASK: &str = r#"{"model":"gpt-4o","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}"#;

fn ended(rig: &mut Rig) -> (Kind, String, Ended) {
    rig.happening(|happening| match happening {
        Happening::Ended { flow, ended } => Some((flow.kind, flow.to.to_string(), *ended)),
        _ => None,
    })
}

#[test]
fn a_call_is_a_flow_and_its_connection_serves_the_next() {
    let provider = provider();
    let mut rig = start(None);
    let (models, told) = models(provider.at, json!({}));
    rig.agent().set_models(Some(models));
    let mut client = rig.client();
    for _ in 0..3 {
        let answer = chat(&mut client, &rig, ASK).unwrap();
        assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some("1")));
        let (kind, to, ended) = ended(&mut rig);
        assert_eq!(
            (kind, to.as_str(), ended.outcome, ended.status),
            (Kind::Route, "/openai", Outcome::Complete, Some(200))
        );
        assert_eq!((ended.sent, ended.received), (ASK.len() as u64, 96));
    }
    assert_eq!((provider.connections(), told.ended.load(Ordering::SeqCst)), (1, 3));
}

#[test]
fn without_routes_there_is_nothing_behind_the_door() {
    let rig = start(None);
    let mut client = rig.client();
    assert_eq!(chat(&mut client, &rig, ASK).unwrap().status, 404);
    let provider = provider();
    rig.agent().set_models(Some(models(provider.at, json!({})).0));
    assert_eq!(chat(&mut client, &rig, ASK).unwrap().status, 200);
    rig.agent().set_models(None);
    assert_eq!(chat(&mut client, &rig, ASK).unwrap().status, 404);
    assert_eq!(provider.requests().len(), 1);
}

#[test]
fn a_limit_answers_in_the_providers_words_and_nothing_leaves() {
    let provider = provider();
    let mut rig = start(None);
    let (models, told) = models(provider.at, json!({ "requests_per_minute": 1 }));
    rig.agent().set_models(Some(models));
    let mut client = rig.client();
    assert_eq!(chat(&mut client, &rig, ASK).unwrap().status, 200);
    let answer = chat(&mut client, &rig, ASK).unwrap();
    assert_eq!(answer.status, 429, "{}", answer.head);
    assert!(answer.field("retry-after").is_some());
    ended(&mut rig);
    assert_eq!(ended(&mut rig).2.status, Some(429));
    assert_eq!((provider.requests().len(), told.refused.load(Ordering::SeqCst)), (1, 1));
}

/// A provider that says the head of a stream and one event, and goes on when it is told to.
fn stream(at: std::net::TcpListener) -> (std::thread::JoinHandle<bool>, std::sync::mpsc::Receiver<()>) {
    let (told, begun) = std::sync::mpsc::channel();
    let task = std::thread::spawn(move || {
        let (mut stream, _) = at.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(rig::request(&mut stream, &mut Vec::new()));
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                  1b\r\ndata: {\"choices\":[{\"a\":1}]}\r\n4\r\n\r\n\r\n\r\n",
            )
            .unwrap();
        told.send(()).unwrap();
        // Whether the connection was closed.
        matches!(stream.read(&mut [0; 16]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
    });
    (task, begun)
}

#[test]
fn taking_a_route_away_cuts_its_calls_and_cancels_them_outside() {
    let (at, upstream) = listener();
    let (outside, begun) = stream(at);
    let mut rig = start(None);
    rig.agent().set_models(Some(models(upstream, json!({})).0));
    let mut client = rig.client();
    let streamed = ASK.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
    let (host, length) = (rig.at, streamed.len());
    client.say(format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{streamed}"
    ));
    begun.recv_timeout(PATIENCE).unwrap();
    let cut = rig::until(|| (rig.agent().set_models(None) == 1).then_some(())).is_some();
    assert!(cut);
    let (Ok(rest) | Err(rest)) = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut stream looks whole");
    assert!(outside.join().unwrap(), "the call outside goes on");
    assert_eq!(ended(&mut rig).2.outcome, Outcome::Cut(Cut::Policy));
}

#[test]
fn who_hangs_up_in_a_stream_cancels_the_call() {
    let (at, upstream) = listener();
    let (outside, begun) = stream(at);
    let mut rig = start(None);
    let (models, told) = models(upstream, json!({}));
    rig.agent().set_models(Some(models));
    let mut client = rig.client();
    let streamed = ASK.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
    let (host, length) = (rig.at, streamed.len());
    client.say(format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{streamed}"
    ));
    begun.recv_timeout(PATIENCE).unwrap();
    drop(client);
    assert!(outside.join().unwrap(), "the call outside goes on");
    assert_eq!(ended(&mut rig).2.outcome, Outcome::HungUp);
    assert_eq!(told.ended.load(Ordering::SeqCst), 1);
}

struct Fault(Act, Act);

impl Hook for Fault {
    fn before_connect(&self, _: &Flow) -> Act {
        self.0
    }

    fn on_head(&self, _: &Flow, _: &hyper::http::response::Parts) -> Act {
        self.1
    }
}

/// Takes every second event of a stream out.
struct EverySecond(AtomicUsize);

impl Hook for EverySecond {
    fn watches(&self, _: &Flow) -> bool {
        true
    }

    fn on_event(&self, _: &Flow, event: &mut Event) -> Act {
        if self.0.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
            event.data.clear();
        }
        Act::Go
    }
}

#[test]
fn a_hook_gets_the_events_of_a_stream_one_by_one() {
    let provider = Destination::with(|stream, keep| {
        // Five events in two pieces that are cut elsewhere.
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
            14\r\ndata: 1\n\ndata: 2\n\nda\r\n19\r\nta: 3\n\ndata: 4\n\ndata: 5\n\n\r\n0\r\n\r\n";
        rig::http(stream, keep, answer);
    });
    let mut rig = Plan::new(json!([])).hook(EverySecond(AtomicUsize::new(0))).start();
    rig.agent().set_models(Some(models(provider.at, json!({})).0));
    let answer =
        chat(&mut rig.client(), &rig, &ASK.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"")).unwrap();
    assert_eq!(String::from_utf8(answer.body).unwrap(), "data: 1\n\ndata: 3\n\ndata: 5\n\n");
    assert_eq!(ended(&mut rig).2.outcome, Outcome::Complete);
}

#[test]
fn a_hook_makes_calls_fail_before_and_after_they_leave() {
    let status = Act::Fail(Failure::Status(529));
    for (fault, calls) in [(Fault(status, Act::Go), 0), (Fault(Act::Go, status), 1)] {
        let provider = provider();
        let mut rig = start(Some(fault));
        rig.agent().set_models(Some(models(provider.at, json!({})).0));
        let mut client = rig.client();
        assert_eq!(chat(&mut client, &rig, ASK).unwrap().status, 529);
        assert_eq!(ended(&mut rig).2.outcome, Outcome::Failed(Failure::Status(529)));
        assert_eq!(provider.requests().len(), calls);
    }
}

#[test]
fn the_door_takes_no_dots_and_no_foreign_host() {
    let provider = provider();
    let rig = start(None);
    rig.agent().set_models(Some(models(provider.at, json!({})).0));
    let cases = [
        ("/openai/../openai/v1/models", rig.at.to_string(), 400),
        ("/openai/%2e%2e/v1/models", rig.at.to_string(), 400),
        ("/openai/v1/models", "evil.example".to_owned(), 421),
        ("/openaix/v1/models", rig.at.to_string(), 404),
        ("/openai/v1/organization", rig.at.to_string(), 404),
        ("/openai/v1/models", format!("localhost:{}", rig.at.port()), 200),
    ];
    for (path, host, status) in cases {
        let mut client = rig.client();
        client.say(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let got = client.answer().unwrap().status;
        assert!(got == status || status == 404 && got == 403, "{path} at {host}: {got}");
    }
    assert_eq!(provider.requests().len(), 1);
}
