//! Hooks sit on flows without the proxy knowing what they are for.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agt_gateway::flow::{Ended, Flow, Kind, Outcome};
use agt_gateway::hook::{Act, Direction, Event, Failure, Hook};
use agt_gateway::live::Happening;
use bytes::Bytes;
use hyper::http::response::Parts;

use crate::rig::{Client, Destination, Plan, Rig, all_at};

/// Does at one place what it is told to, and notes what it sees.
struct Fault {
    before: Act,
    head: Act,
    event: Act,
    change: Option<fn(&mut Event)>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Default for Fault {
    fn default() -> Self {
        Self { before: Act::Go, head: Act::Go, event: Act::Go, change: None, seen: Arc::default() }
    }
}

impl Fault {
    fn note(&self, text: String) {
        self.seen.lock().unwrap().push(text);
    }
}

impl Hook for Fault {
    fn before_connect(&self, flow: &Flow) -> Act {
        self.note(format!("before {} {}", flow.kind.word(), flow.agent));
        self.before
    }

    fn on_head(&self, _: &Flow, head: &Parts) -> Act {
        self.note(format!("head {}", head.status.as_u16()));
        self.head
    }

    fn watches(&self, _: &Flow) -> bool {
        self.change.is_some() || self.event != Act::Go
    }

    fn on_event(&self, _: &Flow, event: &mut Event) -> Act {
        self.note(format!("{:?} {}", event.direction, event.data.len()));
        if let Some(change) = self.change {
            change(event);
        }
        self.event
    }

    fn ended(&self, flow: &Flow, ended: &Ended) {
        self.note(format!("ended {} {}", flow.kind.word(), ended.outcome.word()));
    }
}

fn start(destination: &Destination, fault: Fault) -> (Rig, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::clone(&fault.seen);
    (Plan::new(all_at(destination.port())).hook(fault).start(), seen)
}

fn get(rig: &Rig, destination: &Destination) -> Client {
    let mut client = rig.client();
    client.say(format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", destination.at));
    client
}

fn connect(rig: &Rig, destination: &Destination) -> Client {
    let mut client = rig.client();
    client.say(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", destination.at));
    client
}

fn outcome(rig: &mut Rig) -> Outcome {
    rig.happening(|happening| match happening {
        Happening::Ended { ended, .. } => Some(ended.outcome),
        _ => None,
    })
}

#[test]
fn a_hook_sees_a_flow_from_before_its_connection_to_its_end() {
    let destination = Destination::http();
    let (mut rig, seen) = start(&destination, Fault::default());
    assert_eq!(get(&rig, &destination).answer().unwrap().status, 200);
    assert_eq!(outcome(&mut rig), Outcome::Complete);
    assert_eq!(*seen.lock().unwrap(), ["before http researcher", "head 200", "ended http complete"]);
}

#[test]
fn a_failure_before_connecting_is_seen_as_one_and_nothing_is_connected() {
    let cases = [
        (Failure::Refused, Some(502)),
        (Failure::TimedOut, Some(504)),
        (Failure::Status(429), Some(429)),
        (Failure::Status(200), Some(502)),
        (Failure::Closed, None),
        (Failure::Reset, None),
    ];
    for (failure, status) in cases {
        let destination = Destination::http();
        let (mut rig, _) = start(&destination, Fault { before: Act::Fail(failure), ..Fault::default() });
        for ask in [get, connect] {
            let mut client = ask(&rig, &destination);
            match status {
                Some(_) => assert_eq!(client.answer().map(|answer| answer.status), status, "{failure:?}"),
                None => assert_eq!(client.rest().is_err(), failure == Failure::Reset, "{failure:?}"),
            }
            assert_eq!(outcome(&mut rig), Outcome::Failed(failure));
        }
        assert_eq!(destination.connections(), 0);
    }
}

#[test]
fn a_failure_at_the_head_replaces_the_answer() {
    let destination = Destination::http();
    let (mut rig, _) = start(&destination, Fault { head: Act::Fail(Failure::Status(503)), ..Fault::default() });
    let answer = get(&rig, &destination).answer().unwrap();
    assert_eq!((answer.status, answer.body.len()), (503, 0));
    assert_eq!(outcome(&mut rig), Outcome::Failed(Failure::Status(503)));
}

#[test]
fn a_failure_inside_a_stream_breaks_it_off() {
    let destination = Destination::http();
    let fault = Fault { event: Act::Fail(Failure::Closed), ..Fault::default() };
    let (mut rig, _) = start(&destination, fault);
    let (Ok(rest) | Err(rest)) = get(&rig, &destination).rest();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 200") && !text.ends_with("0\r\n\r\n"), "{text}");
    assert_eq!(outcome(&mut rig), Outcome::Failed(Failure::Closed));
}

#[test]
fn a_hook_may_change_an_answer_and_its_length() {
    let destination = Destination::http();
    let change: fn(&mut Event) = |event| event.data = Bytes::from_static(b"something longer");
    let (mut rig, _) = start(&destination, Fault { change: Some(change), ..Fault::default() });
    assert_eq!(get(&rig, &destination).answer().unwrap().body, b"something longer");
    let ended = outcome(&mut rig);
    assert_eq!(ended, Outcome::Complete);
}

#[test]
fn a_hook_sees_and_changes_both_ways_of_a_tunnel() {
    let destination = Destination::echo();
    let change: fn(&mut Event) = |event| {
        if event.direction == Direction::Back {
            event.data = event.data.to_ascii_uppercase().into();
        }
    };
    let (rig, seen) = start(&destination, Fault { change: Some(change), ..Fault::default() });
    let mut client = connect(&rig, &destination);
    assert_eq!(client.answer_to("CONNECT").unwrap().status, 200);
    client.say("hello");
    assert_eq!(client.exactly(5), b"HELLO");
    assert_eq!(seen.lock().unwrap()[1..], ["Out 5", "Back 5"]);
}

#[test]
fn a_delay_delays() {
    const DELAY: Duration = Duration::from_millis(150);
    let delays = [
        Fault { before: Act::Delay(DELAY), ..Fault::default() },
        Fault { head: Act::Delay(DELAY), ..Fault::default() },
        Fault { event: Act::Delay(DELAY), ..Fault::default() },
    ];
    for fault in delays {
        let destination = Destination::http();
        let (rig, _) = start(&destination, fault);
        let begun = Instant::now();
        let answer = get(&rig, &destination).answer().unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert!(begun.elapsed() >= DELAY);
    }
}

#[test]
fn a_tunnel_that_a_hook_resets_is_reset() {
    let destination = Destination::echo();
    let fault = Fault { event: Act::Fail(Failure::Reset), ..Fault::default() };
    let (mut rig, _) = start(&destination, fault);
    let mut client = connect(&rig, &destination);
    assert_eq!(client.answer_to("CONNECT").unwrap().status, 200);
    client.say("x");
    assert!(client.rest().is_err());
    let kind = rig.happening(|happening| match happening {
        Happening::Ended { flow, ended } => Some((flow.kind, ended.outcome)),
        _ => None,
    });
    assert_eq!(kind, (Kind::Connect, Outcome::Failed(Failure::Reset)));
}
