//! The way out of a ring: the gateway's listeners inside, and nothing beside them.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::docs::only_its_owner_writes;
use crate::support::{Outcome, Rig, effort, quoted};

/// Answers each connection with one HTTP response, for as long as the test process lives.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nit works");
        }
    });
    port
}

/// Runs `script` in R2 with these entries, which the operator's file allows too.
fn run(rig: &Rig, entries: &str, script: &str) -> Outcome {
    let rest = format!("ring: 2\n{}network: {entries}\ncommand: [sh, -c, {}]\n", effort(), quoted(script));
    let file = rig.agent("net", &rest);
    let operator = rig.dir.path().join("operator.yaml");
    let text = format!(
        "version: 1\nkind: operator\nagents:\n  net: {{file: {}, network: {entries}}}\n",
        quoted(file.to_str().unwrap())
    );
    std::fs::write(&operator, text).unwrap();
    only_its_owner_writes(&operator);
    rig.output(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()])
}

#[test]
fn what_the_operator_opened_is_fetched_through_the_proxy_and_the_rest_is_denied_by_rule() {
    let (rig, port, other) = (Rig::new(), server(), server());
    let script = format!(
        "curl -sS --noproxy '' http://127.0.0.1:{port}/; echo; curl -sS --noproxy '' http://127.0.0.1:{other}/; \
         curl -sS --noproxy '*' --max-time 5 http://127.0.0.1:{other}/ || echo closed"
    );
    let outcome = run(&rig, &format!("[{{host: 127.0.0.1, port: {port}}}]"), &script);
    assert!(outcome.stdout.contains("it works"), "{} {}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("denied") && outcome.stdout.contains("rule network["), "{}", outcome.stdout);
    assert!(outcome.stdout.trim_end().ends_with("closed"), "no way beside the proxy: {}", outcome.stdout);
}

#[test]
fn a_tcp_entry_is_found_at_its_own_address_inside() {
    let (rig, port) = (Rig::new(), server());
    let script = format!("curl -sS --noproxy '*' http://127.0.0.1:{port}/");
    let outcome = run(&rig, &format!("[{{tcp: \"127.0.0.1:{port}\"}}]"), &script);
    assert!(outcome.stdout.contains("it works"), "{} {}", outcome.stdout, outcome.stderr);
}
