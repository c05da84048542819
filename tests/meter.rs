//! How much an agent may ask, and what it is told when it asks more: the ring's requests a minute over every way that passes the
//! supervisor, and what people are shown of it.

use std::path::PathBuf;

use serde_json::Value;

use crate::metrics::{DASHBOARD, Prometheus, address, has, scrape, value};
use crate::models::{Bench, curl, shell};
use crate::network::{files, server, start};
use crate::support::{Rig, Supervisor, effort, until};

/// One request by every way that there is, then the same again; each answer is a line of `told`.
const EVERY_WAY: &str = r#"
import json, os, socket, sys, time, urllib.request
http, tcp = int(sys.argv[1]), int(sys.argv[2])
proxy = os.environ["HTTP_PROXY"].removeprefix("http://").rstrip("/").split(":")
socks = os.environ["AGT_SOCKS5"].split(":")
def to(where):
    link = socket.create_connection((where[0], int(where[1])), 5)
    link.settimeout(5)
    return link
def all_of(link):
    said = b""
    try:
        while piece := link.recv(4096): said += piece
    except OSError: pass
    return said
def plain():
    link = to(proxy)
    link.sendall(f"GET http://127.0.0.1:{http}/ HTTP/1.1\r\nHost: 127.0.0.1:{http}\r\nConnection: close\r\n\r\n".encode())
    return all_of(link)
def connect():
    link = to(proxy)
    link.sendall(f"CONNECT 127.0.0.1:{http} HTTP/1.1\r\nHost: 127.0.0.1:{http}\r\n\r\n".encode())
    return link.recv(4096)
def by_socks():
    link = to(socks)
    link.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + http.to_bytes(2, "big"))
    said = b""
    while len(said) < 4: said += link.recv(4096)
    return said[:4]
def forward():
    link = to(("127.0.0.1", tcp))
    try: link.sendall(b"GET / HTTP/1.1\r\n\r\n")
    except OSError: pass
    return all_of(link)
def report():
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ["AGT_SOCKET"])
    link.sendall(b'{"task":"start","id":"1"}\n')
    return link.recv(4096)
def refused(answer):
    return answer in (b"", b"\x05\x00\x05\x01") or b" 429 " in answer or b'"ok":false' in answer
with open("told.new", "w") as told:
    for turn in range(2):
        for way in (plain, connect, by_socks, forward, report):
            answer = way()
            # On a slow machine the minute may have given another one meanwhile.
            while turn == 1 and not refused(answer): answer = way()
            print(way.__name__, turn, answer, file=told)
os.rename("told.new", "told")
time.sleep(1000)
"#;

/// What [`EVERY_WAY`] was told.
fn told(rig: &Rig) -> Vec<String> {
    let path = rig.work.join("told");
    until("every way was tried twice", || path.exists());
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// An agent in R2 that asks by every way, with these limits in its own file.
fn asks_by_every_way(rig: &Rig, limits: &str) -> [PathBuf; 2] {
    std::fs::write(rig.work.join("ways.py"), EVERY_WAY).unwrap();
    let (http, tcp) = (server(), server());
    let entries = format!("[{{host: 127.0.0.1, port: {http}, sni: any}}, {{tcp: \"127.0.0.1:{tcp}\"}}]");
    files(rig, &format!("{entries}\n{limits}"), &entries, &format!("exec python3 ways.py {http} {tcp}"))
}

#[test]
fn requests_beyond_the_rate_are_refused_by_every_way_counted_recorded_and_explained() {
    let rig = Rig::new();
    let (supervisor, metrics) = start(&rig, &asks_by_every_way(&rig, "limits: {requests_per_minute: 5}\n"));
    let told = told(&rig);
    let said =
        |way: &str| told.iter().find_map(|line| line.strip_prefix(way)).unwrap_or_else(|| panic!("{way}: {told:?}"));
    assert!(said("plain 0").contains("200 OK") && said("plain 0").contains("it works"), "{told:?}");
    assert!(said("connect 0").contains(" 200 "), "{told:?}");
    assert!(said("by_socks 0").contains(r"\x05\x00\x05\x00"), "{told:?}");
    assert!(said("forward 0").contains("it works"), "{told:?}");
    assert!(said("report 0").contains(r#""ok":true"#), "{told:?}");
    for part in
        ["HTTP/1.1 429 ", "limits.requests_per_minute", "retry-after: ", r#""retry":true"#, "5 requests a minute"]
    {
        assert!(said("plain 1").contains(part), "{part} {told:?}");
    }
    assert!(said("connect 1").contains("HTTP/1.1 429 Too Many Requests (rule limits.requests_per_minute"), "{told:?}");
    assert!(said("by_socks 1").contains(r"\x05\x00\x05\x01"), "general failure: {told:?}");
    assert!(said("forward 1").ends_with(" b''"), "closed: {told:?}");
    assert!(said("report 1").contains(r#""ok":false"#) && said("report 1").contains("retry_after_s"), "{told:?}");
    let throttled = "agt_throttled_total{agent=\"net\",limit=\"requests\"}";
    until("all five are counted", || value(&scrape(&metrics), throttled) == Some(5.0));
    let why = rig.output(["why", "net"]).stdout;
    for part in
        ["more than 5 requests a minute", "rule limits.requests_per_minute", "5 times", "requests_per_minute: 10"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(rig.output(["stop", "net", "--reason", "test", "--yes"]).code, 0);
    let outcome = supervisor.wait();
    assert_eq!(outcome.stderr.matches("denied: more than 5 requests a minute").count(), 1, "{}", outcome.stderr);
    let audit = rig.output(["audit", "show", "--agent", "net", "--json"]).stdout;
    assert!(audit.contains("limits.requests_per_minute"), "{audit}");
}

#[test]
fn without_a_line_of_anybody_a_ring_has_its_own_rate() {
    // The control socket is there in every ring.
    let script = r#"
import os, socket, sys, time
link = socket.socket(socket.AF_UNIX)
link.connect(os.environ["AGT_SOCKET"])
talk, began, taken = link.makefile("rw"), time.monotonic(), 0
while True:
    talk.write('{"task":"start","id":"%d"}\n' % taken)
    talk.flush()
    if '"ok":true' not in (answer := talk.readline()): break
    taken += 1
print("taken", taken, "in", int(time.monotonic() - began), answer)
"#;
    for (ring, most) in [(3, 10), (2, 100)] {
        let rig = Rig::new();
        std::fs::write(rig.work.join("reports.py"), script).unwrap();
        let file = rig.agent("talker", &format!("ring: {ring}\n{}command: [python3, reports.py]\n", effort()));
        let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
        let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
        let (Some(taken), Some(seconds)) = (number(1), number(3)) else {
            panic!("{} {}", outcome.stdout, outcome.stderr)
        };
        // A minute's at once, and what came in while they were made.
        assert!((most..=most + most * (seconds + 1) / 60 + 1).contains(&taken), "R{ring}: {}", outcome.stdout);
        assert!(outcome.stdout.contains(&format!("{most} requests a minute")), "R{ring}: {}", outcome.stdout);
        let check = rig.output(["check".as_ref(), file.as_os_str()]);
        assert!(check.stdout.contains(&format!("{most} a minute")), "{}", check.stdout);
    }
    let rig = Rig::new();
    let file = rig.agent("first", &format!("ring: 1\n{}command: [\"true\"]\n", effort()));
    let check = rig.output(["check".as_ref(), file.as_os_str()]);
    assert!(check.stdout.contains("1000 a minute, through the gateway"), "{}", check.stdout);
}

#[test]
fn a_rate_that_the_operator_lowers_holds_for_the_running_agent_at_once() {
    let (rig, port) = (Rig::new(), server());
    let entries = format!("[{{host: 127.0.0.1, port: {port}}}]");
    let ask = format!("curl -sS -o /dev/null -w '%{{http_code}} ' --noproxy '' http://127.0.0.1:{port}/");
    let script = format!(
        "{ask} >> said; {ask} >> said; touch first; until [ -e go ]; do sleep 0.1; done; {ask} >> said; touch second; sleep 1000"
    );
    let paths = files(&rig, &entries, &entries, &script);
    let (_supervisor, _) = start(&rig, &paths);
    until("it has asked twice", || rig.work.join("first").exists());
    let pid = rig.ps()["agents"][0]["pid"].clone();
    let text = std::fs::read_to_string(&paths[1]).unwrap();
    std::fs::write(&paths[1], format!("{text}rings: {{\"2\": {{requests_per_minute: 1}}}}\n")).unwrap();
    let reload = rig.output(["reload", "net", "--yes"]);
    assert!(reload.code == 0 && reload.stdout.contains("runs on with"), "{} {}", reload.stdout, reload.stderr);
    assert!(reload.stdout.contains("limits.requests_per_minute in R2: 100 -> 1"), "{}", reload.stdout);
    std::fs::write(rig.work.join("go"), "").unwrap();
    until("it has asked again", || rig.work.join("second").exists());
    assert_eq!(std::fs::read_to_string(rig.work.join("said")).unwrap(), "200 200 429 ");
    assert_eq!(rig.ps()["agents"][0]["pid"], pid, "the same life");
}

#[test]
fn a_rate_above_the_rings_needs_the_operators_line() {
    let rig = Rig::new();
    let file = rig
        .agent("eager", &format!("ring: 2\n{}limits: {{requests_per_minute: 101}}\ncommand: [\"true\"]\n", effort()));
    let check = rig.output(["check".as_ref(), file.as_os_str()]);
    assert_eq!(check.code, 77, "{} {}", check.stdout, check.stderr);
    assert!(check.stderr.contains("limits: {requests_per_minute: 101}"), "the line that helps: {}", check.stderr);
}

/// For a URL: whatever is no letter and no digit.
fn encoded(query: &str) -> String {
    let byte = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    query.bytes().map(byte).collect()
}

/// The queries of a row of the dashboard, with the title of their panel, as somebody who looks at all agents asks them.
fn queries(row: &str) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_row = panels.skip_while(|panel| panel["title"] != row).skip(1).take_while(|panel| panel["type"] != "row");
    let asked = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let exprs =
            panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap().to_owned());
        exprs.map(|expr| (title.clone(), expr)).collect::<Vec<_>>()
    };
    let plain = |expr: &str| expr.replace("$instance", ".*").replace("$agent", ".*").replace("$__rate_interval", "1m");
    of_row.flat_map(asked).map(|(title, expr)| (title, plain(&expr))).collect()
}

#[test]
fn every_panel_of_network_and_models_shows_values_in_a_real_prometheus() {
    const NAME: &str = "every_panel_of_network_and_models_shows_values_in_a_real_prometheus";
    if !has(NAME, "prometheus") {
        return;
    }
    let (port, closed) = (server(), server());
    let get = |port: u16| format!("curl -sS -o /dev/null --noproxy '' http://127.0.0.1:{port}/");
    let call = |model: &str, more: &str| format!("{} > /dev/null", curl(model, more));
    // Half of its model calls are more than its cap lets through, and after a minute's requests each next one waits for its own.
    let script = format!(
        "{} & until [ -e go ]; do sleep 0.1; done; while :; do {}; {}; {}; {}; sleep 0.2; done",
        call("stalls", ""),
        get(port),
        get(closed),
        call("gpt-4o", r#","stream":true"#),
        call("nobody-knows", "")
    );
    let bench = Bench::new(
        &shell(&script),
        "",
        &format!(
            "    network: [{{host: 127.0.0.1, port: {port}}}]\n    model_limits: {{spend: {{task: \"1\", hour: \"1\"}}}}\n"
        ),
        &format!("network: [{{host: 127.0.0.1, port: {port}}}]\nlimits: {{requests_per_minute: 30}}\n"),
    );
    let mut command = bench.rig.command(["run", "--metrics", "127.0.0.1:0"]);
    let command = command.args(&bench.args()[1..]).stderr(std::process::Stdio::null());
    let _supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
    until("the agent runs", || {
        let ps = bench.rig.output(["ps", "--json"]);
        ps.code == 0 && ps.stdout.contains("\"state\": \"running\"")
    });
    let prometheus = Prometheus::start(&address(&bench.rig.ps()), &[]);
    until("the first values are in", || !prometheus.query("agt_network_in_flight").is_empty());
    std::fs::write(bench.rig.work.join("go"), "").unwrap();
    let all = [queries("Network"), queries("Models")].concat();
    assert!(all.len() > 20, "{all:?}");
    for (title, query) in all {
        until(&format!("{title:?} shows a value: {query}"), || {
            let values = prometheus.query(&encoded(&query));
            values.iter().any(|value| value.parse::<f64>().is_ok_and(f64::is_finite))
        });
    }
}
