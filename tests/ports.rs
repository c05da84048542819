//! Ports of agents, shown to the host: reached from outside through the supervisor, and in no other way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::docs::only_its_owner_writes;
use crate::metrics::{address, scrape, value};
use crate::support::{Outcome, Rig, Supervisor, effort, needs_root, quoted, until};

/// Serves the workdir at 127.0.0.1 inside.
const SERVE: &str = "exec python3 -m http.server 8080 --bind 127.0.0.1";

fn file(rig: &Rig, name: &str, ports: &str, script: &str, rest: &str) -> PathBuf {
    rig.agent(name, &format!("ring: 2\n{}ports: {ports}\ncommand: [sh, -c, {}]\n{rest}", effort(), quoted(script)))
}

/// A port that nobody listens at, as far as one can know.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn of(rig: &Rig, name: &str) -> Value {
    let status = rig.output(["status", name, "--json"]);
    serde_json::from_str::<Value>(&status.stdout).map_or(Value::Null, |status| status["agents"][0].clone())
}

/// Where the agent's first port is shown.
fn shown(rig: &Rig, name: &str) -> SocketAddr {
    let listen = &of(rig, name)["ports"][0]["listen"];
    listen.as_str().unwrap_or_else(|| panic!("no port of {name} is shown")).parse().unwrap()
}

fn get(at: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

/// Asks until somebody inside answers, who may have to start first.
fn answer(at: SocketAddr, path: &str) -> String {
    let mut answered = None;
    until("the agent answers", || {
        answered = get(at, path);
        answered.is_some()
    });
    answered.unwrap()
}

fn is_refused(at: SocketAddr) -> bool {
    TcpStream::connect(at).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn stop(rig: &Rig, supervisor: Supervisor) -> Outcome {
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait()
}

/// Starts agents and waits until all of them run.
fn start(rig: &Rig, args: &[&Path]) -> Supervisor {
    let mut command = rig.command(["run", "--metrics", "127.0.0.1:0"]);
    let child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let supervisor = Supervisor { child: Some(child) };
    let count = args.iter().filter(|arg| arg.to_str().is_some_and(|arg| !arg.contains("operator"))).count();
    until("they run", || {
        let ps = rig.output(["ps", "--json"]);
        ps.code == 0 && ps.stdout.matches("\"state\": \"running\"").count() == count
    });
    supervisor
}

#[test]
fn a_port_is_reached_from_outside_with_what_is_served_inside_and_it_shows() {
    let rig = Rig::new();
    std::fs::write(rig.work.join("hello.txt"), "from inside").unwrap();
    let outside = free();
    let file = file(&rig, "web", &format!("['127.0.0.1:{outside} -> 8080']"), SERVE, "");
    let supervisor = start(&rig, &[&file]);
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, outside));
    assert_eq!(shown(&rig, "web"), at);
    answer(at, "/");
    let curl =
        Command::new("curl").args(["-sS", "--noproxy", "*", &format!("http://{at}/hello.txt")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "from inside", "{curl:?}");
    let status = rig.output(["status", "web"]).stdout;
    assert!(status.contains(&format!("shows its port 8080 at {at}")), "{status}");
    let series = "agt_network_requests_total{agent=\"web\",kind=\"published\",outcome=\"complete\"}";
    let metrics = address(&rig.ps());
    until("it is counted", || value(&scrape(&metrics), series).is_some_and(|count| count >= 2.0));
    let outcome = stop(&rig, supervisor);
    assert!(outcome.stderr.contains(&format!("shows {at} -> 8080")), "{}", outcome.stderr);
    let audit = rig.output(["audit", "show", "--json"]).stdout;
    assert!(audit.contains("port.publish") && audit.contains(&format!("{at} -> 8080")), "{audit}");
    assert!(is_refused(at), "its listener outlives it");
}

#[test]
fn nobody_inside_is_a_connection_that_ends_at_once_and_is_said() {
    let rig = Rig::new();
    let file = file(&rig, "deaf", "['0 -> 8080']", "exec sleep 1000", "");
    let supervisor = start(&rig, &[&file]);
    let at = shown(&rig, "deaf");
    assert_eq!(get(at, "/"), None);
    // What was met is told a moment later.
    let metrics = address(&rig.ps());
    let series = "agt_network_requests_total{agent=\"deaf\",kind=\"published\",outcome=\"unreachable\"}";
    until("it is counted", || value(&scrape(&metrics), series) == Some(1.0));
    let outcome = stop(&rig, supervisor);
    let said = "note: deaf: a connection was closed: it does not listen at its port 8080";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
}

#[test]
fn many_connections_at_once_are_all_made() {
    let rig = Rig::new();
    let supervisor = start(&rig, &[&file(&rig, "busy", "['0 -> 8080']", SERVE, "")]);
    let at = shown(&rig, "busy");
    answer(at, "/");
    // More at once than an agent may have: the others wait.
    let all: Vec<_> = (0..300).map(|_| TcpStream::connect(at).unwrap()).collect();
    for mut stream in all {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET /busy.yaml HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("name: busy"), "{text}");
    }
    stop(&rig, supervisor);
}

#[test]
fn only_the_ports_that_are_listed_are_reached() {
    let (rig, other) = (Rig::new(), free());
    let script = format!("python3 -m http.server {other} --bind 127.0.0.1 & {SERVE}");
    let supervisor = start(&rig, &[&file(&rig, "web", "['0 -> 8080']", &script, "")]);
    answer(shown(&rig, "web"), "/");
    assert!(is_refused(SocketAddr::from((Ipv4Addr::LOCALHOST, other))), "a port that it does not show");
    stop(&rig, supervisor);
}

#[test]
fn beyond_loopback_the_operator_decides() {
    let (rig, outside) = (Rig::new(), free());
    let ports = format!("['0.0.0.0:{outside} -> 8080']");
    let file = file(&rig, "web", &ports, &format!("test -e go || exit 0; {SERVE}"), "");
    let refused = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    let line = format!("publish: [\"0.0.0.0:{outside}\"]");
    assert!(refused.stderr.contains(&line), "{}", refused.stderr);
    assert!(is_refused(SocketAddr::from((Ipv4Addr::LOCALHOST, outside))));
    let operator = rig.dir.path().join("operator.yaml");
    let agents = format!("agents:\n  web: {{file: {}, {line}}}\n", quoted(file.to_str().unwrap()));
    std::fs::write(&operator, format!("version: 1\nkind: operator\n{agents}")).unwrap();
    only_its_owner_writes(&operator);
    std::fs::write(rig.work.join("go"), "").unwrap();
    let supervisor = start(&rig, &[Path::new("--operator"), &operator, &file]);
    // Another address of this host's than 127.0.0.1.
    answer(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), outside)), "/");
    stop(&rig, supervisor);
}

#[test]
fn a_port_is_kept_over_restarts_and_given_back_at_the_end() {
    let rig = Rig::new();
    let script = format!("echo life >> lives; {SERVE}");
    let other = file(&rig, "other", "[]", "exec sleep 1000", "");
    let supervisor = start(&rig, &[&file(&rig, "web", "['0 -> 8080']", &script, ""), &other]);
    let at = shown(&rig, "web");
    let lives = || std::fs::read_to_string(rig.work.join("lives")).unwrap_or_default().lines().count();
    // As root the last of these lives begin in an init that was prepared ahead.
    for life in 1..=4 {
        until("it lives", || lives() == life);
        assert!(answer(at, "/lives").contains("life"));
        assert_eq!(shown(&rig, "web"), at);
        if life < 4 {
            assert_eq!(rig.output(["restart", "web", "--reason", "test"]).code, 0);
        }
    }
    // It ends, the supervisor does not.
    assert_eq!(rig.output(["stop", "web", "--reason", "test"]).code, 0);
    assert_eq!(of(&rig, "web")["ports"], serde_json::json!([]));
    TcpListener::bind(at).unwrap();
    stop(&rig, supervisor);
}

#[test]
fn an_agent_that_ends_all_that_it_sees_cuts_off_nobody_but_itself() {
    let rig = Rig::new();
    // The first process of its namespaces makes the sockets: it is neither ended nor looked into.
    let script = format!(
        "python3 -m http.server 8080 --bind 127.0.0.1 & while ! test -e go; do sleep 0.1; done; \
         cat /proc/1/environ > seen; ls /proc/1/fd >> seen; kill -STOP 1; kill -9 1; kill -9 -1; touch done; \
         while ! test -e again; do sleep 0.1; done; {SERVE}"
    );
    let supervisor = start(&rig, &[&file(&rig, "wild", "['0 -> 8080']", &script, "")]);
    let at = shown(&rig, "wild");
    answer(at, "/");
    std::fs::write(rig.work.join("go"), "").unwrap();
    until("it has ended what it could", || rig.work.join("done").exists());
    assert_eq!(get(at, "/"), None, "its server is gone, and who asks is told at once");
    std::fs::write(rig.work.join("again"), "").unwrap();
    assert!(answer(at, "/seen").starts_with("HTTP/1.0 200"));
    assert_eq!(std::fs::read_to_string(rig.work.join("seen")).unwrap(), "");
    let outcome = stop(&rig, supervisor);
    assert!(outcome.stderr.contains("it does not listen at its port 8080"), "{}", outcome.stderr);
}

#[test]
fn two_agents_with_the_same_port_inside_are_two() {
    let rig = Rig::new();
    let one = |name: &str| {
        let script = format!("mkdir -p {name}; cd {name}; echo {name} > who; {SERVE}");
        file(&rig, name, "['0 -> 8080']", &script, "")
    };
    let supervisor = start(&rig, &[&one("left"), &one("right")]);
    for name in ["left", "right"] {
        assert!(answer(shown(&rig, name), "/who").ends_with(&format!("{name}\n")));
    }
    stop(&rig, supervisor);
}

#[test]
fn a_port_in_use_is_said_before_anything_is_started() {
    let rig = Rig::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap();
    let file = file(&rig, "late", &format!("['{at} -> 8080']"), "touch started", "");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 69, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("can't be shown at {at}: Address already in use")), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("ports: [127.0.0.1:0 -> 8080]"), "{}", outcome.stderr);
    assert!(!rig.work.join("started").exists());
}

#[test]
fn what_listens_at_the_other_loopback_is_found_too() {
    let rig = Rig::new();
    let script = "exec python3 -m http.server 8080 --bind ::1";
    let supervisor = start(&rig, &[&file(&rig, "six", "['0 -> 8080']", script, "")]);
    assert!(answer(shown(&rig, "six"), "/").starts_with("HTTP/1.0 200"));
    stop(&rig, supervisor);
}

#[test]
fn a_frozen_agent_answers_once_it_is_thawed() {
    if !needs_root("a_frozen_agent_answers_once_it_is_thawed") {
        return;
    }
    let rig = Rig::new();
    let supervisor = start(&rig, &[&file(&rig, "cold", "['0 -> 8080']", SERVE, "")]);
    let at = shown(&rig, "cold");
    answer(at, "/");
    assert_eq!(rig.output(["freeze", "cold", "--reason", "test"]).code, 0);
    let waits = std::thread::spawn(move || get(at, "/"));
    rig.ask_again_and_again(5);
    assert!(!waits.is_finished(), "who answered?");
    assert_eq!(rig.output(["thaw", "cold", "--reason", "test"]).code, 0);
    assert!(waits.join().unwrap().is_some_and(|text| text.starts_with("HTTP/1.0 200")));
    stop(&rig, supervisor);
}

#[test]
fn rings_without_a_network_of_their_own_show_nothing() {
    let rig = Rig::new();
    let file = rig.agent("sealed", "ring: 3\nports: [8080]\ncommand: [sleep, '1']\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("R3 listens nowhere: it has no port to show"), "{}", outcome.stderr);
    let host = rig.agent("host", "ring: 0\nports: [8080]\ncommand: [sleep, '1']\n");
    let check = rig.output(["check".as_ref(), host.as_os_str()]);
    assert!(check.stdout.contains("in R0 it listens on the host itself"), "{}{}", check.stdout, check.stderr);
}

#[test]
fn a_health_check_by_http_judges_what_the_agent_answers() {
    let rig = Rig::new();
    let health = "health: {http: {port: 8080, path: /ok}, interval: 200ms, retries: 1000}\n";
    let supervisor = start(&rig, &[&file(&rig, "well", "[]", SERVE, health)]);
    let last = || of(&rig, "well")["health"]["last"]["result"].as_str().unwrap_or_default().to_owned();
    until("it is asked", || last() == "was answered 404");
    assert!(of(&rig, "well")["health"]["last"]["output"].as_str().unwrap().contains("File not found"));
    assert_eq!(of(&rig, "well")["ports"], serde_json::json!([]), "nothing of it is shown");
    std::fs::write(rig.work.join("ok"), "").unwrap();
    until("it is healthy", || of(&rig, "well")["health"]["state"] == "healthy");
    std::fs::remove_file(rig.work.join("ok")).unwrap();
    until("it fails", || of(&rig, "well")["health"]["state"] == "failing");
    stop(&rig, supervisor);
}

#[test]
fn a_health_check_by_tcp_ends_an_agent_that_has_stopped_listening() {
    let rig = Rig::new();
    let script =
        "python3 -m http.server 8080 --bind 127.0.0.1 & while ! test -e go; do sleep 0.1; done; kill $!; sleep 1000";
    let health = "health: {tcp: 8080, interval: 3s, retries: 2}\n";
    let supervisor = start(&rig, &[&file(&rig, "tired", "[]", script, health)]);
    until("it is healthy", || of(&rig, "tired")["health"]["state"] == "healthy");
    std::fs::write(rig.work.join("go"), "").unwrap();
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let said = "the last one was refused: it does not listen at its port 8080. It is ended.";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
}
