//! TCP ways out with one named target, and ports of the agent shown to the host.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use agt_gateway::flow::{Kind, Outcome};
use agt_gateway::host::Authority;
use agt_gateway::live::{Happening, Serve};
use agt_gateway::publish::{Connecting, Exposure, Inside};
use serde_json::json;

use crate::rig::{Destination, Plan, Rig, listener, policy};

fn ended(rig: &mut Rig) -> (Kind, Outcome) {
    rig.happening(|happening| match happening {
        Happening::Ended { flow, ended } => Some((flow.kind, ended.outcome)),
        _ => None,
    })
}

#[test]
fn a_tcp_way_out_leads_to_its_target_and_asks_the_policy_each_time() {
    let destination = Destination::echo();
    let target = format!("localhost:{}", destination.port());
    let serve = Serve::Tcp(Authority::parse(&target).unwrap());
    let mut rig = Plan::new(json!([{ "tcp": target }])).serve(serve).start();
    let mut client = rig.client();
    client.say("SELECT 1");
    assert_eq!(client.exactly(8), b"SELECT 1");
    drop(client);
    assert_eq!(ended(&mut rig), (Kind::Tcp, Outcome::Complete));
    rig.agent().set_policy(policy(2, json!([]))).unwrap();
    let mut client = rig.client();
    assert!(client.is_closed());
    rig.happening(|happening| matches!(happening, Happening::Denied { generation: 2, .. }).then_some(()));
    assert_eq!(destination.connections(), 1);
}

/// The "inside" of these tests: this host's loopback, at another port.
#[derive(Debug)]
struct Here(SocketAddr);

impl Inside for Here {
    fn connect(&self, port: u16) -> Connecting<'_> {
        Box::pin(async move {
            assert_eq!(port, 8080);
            tokio::net::TcpStream::connect(self.0).await
        })
    }
}

#[test]
fn a_published_port_leads_inside() {
    let inside = Destination::echo();
    let serve =
        Serve::Publish { port: 8080, inside: std::sync::Arc::new(Here(inside.at)), exposure: Exposure::Loopback };
    let mut rig = Plan::new(json!([])).serve(serve).start();
    let mut client = rig.client();
    client.say("ping");
    assert_eq!(client.exactly(4), b"ping");
    drop(client);
    assert_eq!(ended(&mut rig), (Kind::Published, Outcome::Complete));
}

#[test]
fn an_agent_that_listens_nowhere_is_a_closed_connection() {
    let (closed, at) = listener();
    drop(closed);
    let serve = Serve::Publish { port: 8080, inside: std::sync::Arc::new(Here(at)), exposure: Exposure::Loopback };
    let mut rig = Plan::new(json!([])).serve(serve).start();
    assert!(rig.client().is_closed());
    assert_eq!(ended(&mut rig), (Kind::Published, Outcome::Unreachable));
}

#[test]
fn a_port_is_published_beyond_loopback_only_with_leave() {
    let rig = Plan::new(json!([])).start();
    let publish = |exposure| Serve::Publish { port: 8080, inside: std::sync::Arc::new(Here(rig.at)), exposure };
    let everywhere = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let refused = rig.agent().listen(everywhere(), publish(Exposure::Loopback)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    rig.agent().listen(everywhere(), publish(Exposure::Everywhere)).unwrap();
}
