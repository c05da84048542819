//! Ports that an agent shows: free on loopback, granted beyond it, never one of the gateway's.

use agt_rings::spec::Inbound;

use super::*;

fn operator(world: &World, lines: &str) {
    let file = world.project.display();
    world.operator(&format!("version: 1\nkind: operator\nagents:\n  a:\n    file: {file}/agent.yaml\n{lines}"));
}

#[test]
fn ports_on_loopback_are_free_and_open_a_way_in_where_there_is_a_network() {
    let world = World::new();
    let plan = world.agent("ring: 1\nports: [8080, 9090 -> 3000]\n").unwrap();
    let shown: Vec<String> = plan.ports_at(Ring::R1).iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1:8080 -> 8080", "127.0.0.1:9090 -> 3000"]);
    assert!(plan.ports_at(Ring::R3).is_empty() && plan.ports_at(Ring::R0).is_empty());
    for (ring, inbound) in [(Ring::R1, Inbound::Open), (Ring::R2, Inbound::Open), (Ring::R3, Inbound::Closed)] {
        assert_eq!(plan.launch_spec(ring).unwrap().inbound, inbound, "{ring}");
    }
    assert!(plan.page(None).contains("its port 3000 at 127.0.0.1:9090"), "{}", plan.page(None));
    assert_eq!(AgentPlan::from_wire(&plan.to_wire()).unwrap(), plan);
    let none = world.agent("ring: 1\n").unwrap();
    assert_eq!(none.launch_spec(Ring::R1).unwrap().inbound, Inbound::Closed);
    assert!(none.to_json().get("ports").is_none(), "plans without ports hash as they always have");
}

#[test]
fn what_more_than_this_host_sees_and_what_is_roots_needs_a_line_that_helps() {
    let world = World::new();
    for (ports, line) in [
        ("['0.0.0.0:8080']", "publish: [\"0.0.0.0:8080\"]"),
        ("['[::]:8080 -> 80']", "publish: [\"[::]:8080\"]"),
        ("['192.0.2.1:8080']", "publish: [\"192.0.2.1:8080\"]"),
        ("[80 -> 8080]", "publish: [\"127.0.0.1:80\"]"),
    ] {
        operator(&world, "");
        let asks = format!("ring: 2\nports: {ports}\n");
        let text = message(world.agent(&asks), 77);
        assert!(text.contains(line), "{ports}: {text}");
        operator(&world, &format!("    {line}\n"));
        assert_eq!(world.agent(&asks).unwrap().ports_at(Ring::R2).len(), 1, "{ports}");
    }
    operator(&world, "    publish: ['0.0.0.0:8080']\n");
    assert!(world.agent("ring: 2\nports: ['10.0.0.1:8080']\n").is_ok(), "it shows less than may be shown");
    message(world.agent("ring: 2\nports: ['0.0.0.0:8081']\n"), 77);
    message(world.agent("ring: 2\nports: ['[::]:8080']\n"), 77);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let world = World::new();
    for (lines, says) in [
        ("ports: [8080, 127.0.0.1:8080 -> 9]", "`127.0.0.1:8080` is listened at for `127.0.0.1:8080 -> 8080` already"),
        ("ports: ['8080:80']", "write `8080 -> 80`"),
        ("ports: [localhost:80]", "addresses are numbers"),
        ("ports: 8080", "`ports`"),
    ] {
        let text = message(world.agent(&format!("ring: 2\n{lines}\n")), 64);
        assert!(text.contains(says) && text.contains("agent.yaml:"), "{lines}: {text}");
    }
    let text = message(world.agent("ring: 3\nports: [8080]\n"), 64);
    assert!(text.contains("R3 listens nowhere") && text.contains("ring: 2"), "{text}");
}

#[test]
fn a_port_of_the_gateways_is_not_shown_as_the_agents() {
    let world = World::new();
    let entries =
        "    network: [{tcp: 127.0.0.1:5432}, {host: api.example.com}]\n    addresses: [{cidr: 127.0.0.1/32}]\n";
    operator(&world, entries);
    let asks = "ring: 2\nnetwork: [{tcp: 127.0.0.1:5432}, {host: api.example.com}]\n";
    let text = message(world.agent(&format!("{asks}ports: [8080 -> 5432]\n")), 64);
    assert!(text.contains("port 5432 inside is the gateway's own, for `tcp: 127.0.0.1:5432`"), "{text}");
    // The proxies make way.
    let plan = world.agent(&format!("{asks}ports: [8080 -> 20789, 8081 -> 20790]\n")).unwrap();
    let inside: Vec<u16> = plan.openings_at(Ring::R2).iter().map(|opening| opening.listen.port()).collect();
    assert_eq!(inside, [5432, 20_791, 20_792]);
}

#[test]
fn a_health_check_may_knock_at_a_port_of_the_agent() {
    let world = World::new();
    let plan = world.agent("ring: 2\nhealth: {http: {port: 8080, path: \"/health?deep=1\"}, interval: 10s}\n").unwrap();
    assert_eq!(plan.launch_spec(Ring::R2).unwrap().inbound, Inbound::Open);
    assert!(plan.launch_spec(Ring::R2).unwrap().check.is_none());
    assert!(
        plan.page(None).contains("GET /health?deep=1 at its port 8080 is answered 2xx: each 10s"),
        "{}",
        plan.page(None)
    );
    assert_eq!(AgentPlan::from_wire(&plan.to_wire()).unwrap(), plan);
    let plan = world.agent("ring: 2\nhealth: {tcp: 8080}\n").unwrap();
    assert!(plan.page(None).contains("its port 8080 takes a connection"), "{}", plan.page(None));
    let command = world.agent("ring: 2\nhealth: {command: [/bin/true]}\n").unwrap();
    let json = serde_json::to_string(&command.health).unwrap();
    assert!(json.starts_with("{\"program\":\"/usr/bin/true\",\"argv\":[\"/usr/bin/true\"],\"interval\":"), "{json}");
    for (health, says) in [
        ("{interval: 10s}", "one of `command`, `http` and `tcp`"),
        ("{tcp: 80, command: [/bin/true]}", "one of `command`, `http` and `tcp`"),
        ("{http: {port: 80, path: health}}", "`health` is no path"),
        ("{http: {port: 80, path: \"/a b\"}}", "is no path"),
        ("{http: {path: /}}", "port"),
        ("{tcp: 0}", "1"),
        ("{http: {port: 80, status: 99}}", "200"),
    ] {
        let text = message(world.agent(&format!("ring: 2\nhealth: {health}\n")), 64);
        assert!(text.contains(says), "{health}: {text}");
    }
    let text = message(world.agent("ring: 3\nhealth: {tcp: 80}\n"), 64);
    assert!(text.contains("R3 listens nowhere: it has no port to knock at"), "{text}");
}
