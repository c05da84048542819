//! Policies that change under open connections, agents that go, bounds that are met, tasks that panic.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agt_gateway::flow::{Cut, Flow, Kind, Label, Outcome};
use agt_gateway::hook::{Act, Hook};
use agt_gateway::live::{Happening, Limit, Outdated, Serve, Settings};
use agt_gateway::policy::{OwnAddresses, Policy, Reach, Reason, spec};
use serde_json::json;

use crate::rig::{Client, Destination, PATIENCE, Plan, Rig, all_at, listener, policy, until};

fn tunnel(rig: &Rig, destination: &Destination) -> Client {
    let mut client = rig.client();
    let to = destination.at;
    client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\nhello"));
    assert_eq!(client.answer_to("CONNECT").unwrap().status, 200);
    assert_eq!(client.exactly(5), b"hello");
    client
}

fn outcome(rig: &mut Rig) -> (Outcome, u64) {
    rig.happening(|happening| match happening {
        Happening::Ended { flow, ended } => Some((ended.outcome, flow.generation)),
        _ => None,
    })
}

#[test]
fn a_new_policy_closes_what_it_does_not_allow_and_leaves_the_rest() {
    let (kept, closed) = (Destination::echo(), Destination::echo());
    let mut entries = all_at(kept.port());
    entries.as_array_mut().unwrap().extend(all_at(closed.port()).as_array().unwrap().iter().cloned());
    let mut rig = Plan::new(entries).start();
    let (mut stays, mut goes) = (tunnel(&rig, &kept), tunnel(&rig, &closed));
    assert_eq!(rig.agent().set_policy(policy(2, all_at(kept.port()))), Ok(1));
    assert!(goes.is_closed());
    stays.say("still here");
    assert_eq!(stays.exactly(10), b"still here");
    assert_eq!(outcome(&mut rig), (Outcome::Cut(Cut::Policy), 1));
    assert_eq!(rig.agent().counts().cut, 1);
    // And nothing new goes there.
    let mut again = rig.client();
    again.say(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", closed.at));
    assert_eq!(again.answer().unwrap().status, 403);
}

#[test]
fn a_connection_kept_for_the_next_request_is_decided_under_the_new_policy() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).start();
    let up = destination.at;
    let get = format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n");
    let mut client = rig.client();
    assert_eq!(client.say(&get).answer().unwrap().status, 200);
    assert_eq!(rig.agent().set_policy(Policy::nothing(2)), Ok(0), "between two requests there is nothing to close");
    assert_eq!(client.say(&get).answer().unwrap().status, 403);
    rig.agent().set_policy(policy(3, all_at(destination.port()))).unwrap();
    assert_eq!(client.say(&get).answer().unwrap().status, 200);
    assert_eq!(destination.requests().len(), 2);
}

#[test]
fn a_stricter_condition_closes_a_tunnel_that_was_not_held_to_it() {
    let destination = Destination::echo();
    let entry = |sni: serde_json::Value| json!([{ "host": "127.0.0.1", "port": destination.port(), "sni": sni }]);
    let mut rig = Plan::new(entry(json!("any"))).start();
    let mut client = tunnel(&rig, &destination);
    assert_eq!(rig.agent().set_policy(policy(2, entry(json!(null)))), Ok(1));
    assert!(client.is_closed());
    assert_eq!(outcome(&mut rig).0, Outcome::Cut(Cut::Policy));
}

/// The same entries, under an operator who opens no address any more.
fn without_addresses(generation: u64, entries: &serde_json::Value) -> Policy {
    let entries: Vec<spec::EntrySpec> = serde_json::from_value(entries.clone()).unwrap();
    let ceiling = spec::CeilingSpec { network: entries.clone(), ..Default::default() };
    Policy::new(generation, Reach::Listed, &entries, &ceiling).unwrap()
}

#[test]
fn a_new_policy_judges_the_address_that_is_connected_too() {
    // Answers requests for `/` and lets others wait.
    let destination = Destination::with(|mut stream, keep| {
        let mut kept = Vec::new();
        while let Some(request) = crate::rig::request(&mut stream, &mut kept) {
            let answers = request.starts_with(b"GET / ");
            keep(request);
            if answers {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
        }
    });
    let up = format!("localhost:{}", destination.port());
    let entries = json!([{ "host": "localhost", "port": destination.port() }]);
    let get = |path: &str| format!("GET http://{up}{path} HTTP/1.1\r\nHost: {up}\r\n\r\n");
    // On a new connection outside, and on one that is kept.
    for before in [0, 1] {
        let rig = Plan::new(entries.clone()).start();
        let mut client = rig.client();
        for _ in 0..before {
            assert_eq!(client.say(get("/")).answer().unwrap().status, 200);
        }
        let seen = destination.requests().len();
        client.say(get("/waits"));
        assert!(until(|| (destination.requests().len() > seen).then_some(())).is_some());
        assert_eq!(rig.agent().set_policy(without_addresses(2, &entries)), Ok(1), "after {before} requests");
        assert!(client.is_closed());
    }
}

#[test]
fn an_older_policy_never_comes_back() {
    let destination = Destination::echo();
    let rig = Plan::new(all_at(destination.port())).start();
    rig.agent().set_policy(Policy::nothing(7)).unwrap();
    let late = rig.agent().set_policy(policy(6, all_at(destination.port())));
    assert_eq!(late, Err(Outdated { given: 6, current: 7 }));
    assert_eq!(rig.agent().generation(), 7);
    let mut client = rig.client();
    client.say(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", destination.at));
    assert_eq!(client.answer().unwrap().status, 403);
}

/// Changes the policy between the decision and the connection.
struct Between(Arc<AtomicBool>, std::sync::mpsc::Sender<()>, std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Hook for Between {
    fn before_connect(&self, _: &Flow) -> Act {
        if !self.0.swap(true, Ordering::SeqCst) {
            self.1.send(()).unwrap();
            // A test that fails meanwhile says nothing more.
            let _ = self.2.lock().unwrap().recv_timeout(PATIENCE);
        }
        Act::Go
    }
}

#[test]
fn a_policy_that_changes_while_a_connection_is_being_made_is_not_missed() {
    let destination = Destination::echo();
    let ((decided, waiting), (go, gone)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let hook = Between(Arc::default(), decided, std::sync::Mutex::new(gone));
    let mut rig = Plan::new(all_at(destination.port())).hook(hook).start();
    let mut client = rig.client();
    client.say(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", destination.at));
    waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rig.agent().set_policy(Policy::nothing(2)), Ok(1));
    go.send(()).unwrap();
    assert!(client.is_closed());
    assert_eq!(outcome(&mut rig), (Outcome::Cut(Cut::Policy), 1));
}

#[test]
fn under_changing_policies_no_flow_outlives_its_permission() {
    let destination = Destination::echo();
    let rig = Plan::new(all_at(destination.port())).start();
    let (to, at) = (destination.at, rig.at);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let mut client = Client::to(at);
                    client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
                    drop(client.answer_to("CONNECT"));
                }
            })
        })
        .collect();
    for generation in (2..200).step_by(2) {
        rig.agent().set_policy(policy(generation, all_at(to.port()))).unwrap();
        std::thread::yield_now();
        rig.agent().set_policy(Policy::nothing(generation + 1)).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    // The last word was "nothing": whatever is still open carries nothing.
    assert!(until(|| (rig.agent().counts().open == 0).then_some(())).is_some());
}

#[test]
fn an_agent_that_goes_takes_its_connections_and_listeners_with_it() {
    let destination = Destination::echo();
    let mut rig = Plan::new(all_at(destination.port())).start();
    let mut client = tunnel(&rig, &destination);
    drop(rig.agent.take());
    assert!(client.is_closed());
    assert_eq!(outcome(&mut rig).0, Outcome::Cut(Cut::Agent));
    // Without a connection that would wake it.
    let free = until(|| std::net::TcpListener::bind(rig.at).ok());
    assert!(free.is_some(), "the listener is still there");
}

#[test]
fn closing_an_agent_waits_until_nothing_is_left() {
    let destination = Destination::echo();
    let mut rig = Plan::new(all_at(destination.port())).start();
    let mut client = tunnel(&rig, &destination);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let closing = rig.agent.take().unwrap().close();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, closing).await.expect("it closes") });
    client.stream.set_nonblocking(true).unwrap();
    assert!(client.is_closed(), "closed before close returned");
}

#[test]
fn a_gateway_that_goes_takes_everything_with_it() {
    let destination = Destination::echo();
    let rig = Plan::new(all_at(destination.port())).start();
    let mut client = tunnel(&rig, &destination);
    let Rig { gateway, agent, .. } = rig;
    drop(gateway);
    assert!(client.is_closed());
    drop(agent);
}

/// Panics when it is asked for this agent's connections.
struct Fault;

impl Hook for Fault {
    fn before_connect(&self, flow: &Flow) -> Act {
        assert!(flow.kind != Kind::Connect, "a fault of ours");
        Act::Go
    }
}

#[test]
fn a_task_that_panics_takes_its_connection_away_and_gives_nothing() {
    let destination = Destination::http();
    let mut rig = Plan::new(all_at(destination.port())).hook(Fault).start();
    let mut client = rig.client();
    let up = destination.at;
    client.say(format!("CONNECT {up} HTTP/1.1\r\nHost: {up}\r\n\r\n"));
    assert!(client.is_closed());
    assert_eq!(outcome(&mut rig).0, Outcome::Broken);
    assert_eq!(destination.connections(), 0);
    // Others go on.
    let mut other = rig.client();
    other.say(format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n"));
    assert_eq!(other.answer().unwrap().status, 200);
    assert!(until(|| (rig.agent().counts().open == 1).then_some(())).is_some());
}

#[test]
fn an_agent_has_so_many_connections_and_the_next_waits() {
    let destination = Destination::http();
    let mut plan = Plan::new(all_at(destination.port()));
    plan.settings = Settings { connections_per_agent: 2, ..plan.settings };
    let mut rig = plan.start();
    let up = destination.at;
    let get = format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n");
    let mut open: Vec<_> = (0..2).map(|_| rig.client()).collect();
    for client in &mut open {
        assert_eq!(client.say(&get).answer().unwrap().status, 200);
    }
    let mut third = rig.client();
    third.say(&get);
    let limit = rig.happening(|happening| match happening {
        Happening::Limited { limit, .. } => Some(*limit),
        _ => None,
    });
    assert_eq!((limit, rig.agent().counts().open), (Limit::Connections, 2));
    drop(open.pop());
    assert_eq!(third.answer().unwrap().status, 200);
}

#[test]
fn all_agents_together_have_so_many_connections() {
    let destination = Destination::http();
    let mut plan = Plan::new(all_at(destination.port()));
    plan.settings = Settings { connections: 1, ..plan.settings };
    let mut rig = plan.start();
    let other = rig.gateway.register(Label::from("other"), policy(1, all_at(destination.port())));
    let (listener, at) = listener();
    other.listen(listener, Serve::Proxy).unwrap();
    let get = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", destination.at);
    let (mut mine, mut others) = (rig.client(), Client::to(at));
    assert_eq!(mine.say(&get).answer().unwrap().status, 200);
    others.say(&get);
    let limited = rig.happening(|happening| match happening {
        Happening::Limited { agent, limit: Limit::AllConnections } => Some(agent.clone()),
        _ => None,
    });
    assert_eq!((limited.as_str(), destination.requests().len()), ("other", 1));
    drop(mine);
    assert_eq!(others.answer().unwrap().status, 200);
}

#[test]
fn happenings_that_nobody_takes_are_counted_and_hold_up_nothing() {
    let destination = Destination::http();
    let mut plan = Plan::new(all_at(destination.port()));
    plan.settings = Settings { happenings: 4, ..plan.settings };
    let mut rig = plan.start();
    let get = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", destination.at);
    let mut client = rig.client();
    for _ in 0..20 {
        assert_eq!(client.say(&get).answer().unwrap().status, 200);
    }
    assert!(until(|| (rig.happenings.lost() == 16).then_some(())).is_some(), "{}", rig.happenings.lost());
    let kept = std::iter::from_fn(|| rig.happenings.try_next()).count();
    assert_eq!(kept, 4);
}

#[test]
fn the_hosts_own_addresses_are_refused_from_when_they_are_known() {
    let destination = Destination::http();
    let mut rig = Plan::new(all_at(destination.port())).start();
    let up = format!("localhost:{}", destination.port());
    let get = format!("GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n");
    let mut client = rig.client();
    assert_eq!(client.say(&get).answer().unwrap().status, 200);
    // The supervisor begins to listen there: also a connection that is kept is not used any more.
    let own = [IpAddr::from(Ipv4Addr::LOCALHOST)];
    rig.gateway.set_own(OwnAddresses::new(own, [destination.port()]));
    assert_eq!(client.say(&get).answer().unwrap().status, 403);
    let reason = rig.happening(|happening| match happening {
        Happening::Denied { denial, .. } => Some(denial.reason),
        _ => None,
    });
    assert_eq!(reason, Reason::SupervisorPort);
}
