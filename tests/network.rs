//! The way out of a ring: the gateway's listeners inside, and nothing beside them.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::docs::only_its_owner_writes;
use crate::kill::Bare;
use crate::metrics::{address, scrape, value};
use crate::support::{Outcome, Rig, Supervisor, effort, needs_root, quoted, until};

/// Answers each connection with one HTTP response, for as long as the test process lives.
pub(crate) fn server() -> u16 {
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

/// Writes an agent in R2 with these entries, and an operator's file that allows `allowed`.
pub(crate) fn files(rig: &Rig, entries: &str, allowed: &str, script: &str) -> [PathBuf; 2] {
    let rest = format!("ring: 2\n{}network: {entries}\ncommand: [sh, -c, {}]\n", effort(), quoted(script));
    let file = rig.agent("net", &rest);
    let operator = rig.dir.path().join("operator.yaml");
    let text = format!(
        "version: 1\nkind: operator\nagents:\n  net: {{file: {}, network: {allowed}}}\n",
        quoted(file.to_str().unwrap())
    );
    std::fs::write(&operator, text).unwrap();
    only_its_owner_writes(&operator);
    [file, operator]
}

/// Runs `script` in R2 with these entries, which the operator's file allows too.
fn run(rig: &Rig, entries: &str, script: &str) -> Outcome {
    let [file, operator] = files(rig, entries, entries, script);
    rig.output(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()])
}

/// The same, for as long as it is wanted, with metrics; waits until it runs.
pub(crate) fn start(rig: &Rig, [file, operator]: &[PathBuf; 2]) -> (Supervisor, String) {
    let mut command = rig.command(["run", "--metrics", "127.0.0.1:0", "--operator"]);
    let child = command.args([operator, file]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let supervisor = Supervisor { child: Some(child) };
    until("the agent runs", || {
        let ps = rig.output(["ps", "--json"]);
        ps.code == 0 && ps.stdout.contains("\"state\": \"running\"")
    });
    let address = address(&rig.ps());
    (supervisor, address)
}

#[test]
fn without_a_network_of_its_own_an_agent_has_no_way_out_and_no_other_network() {
    if !needs_root("without_a_network_of_its_own_an_agent_has_no_way_out_and_no_other_network") {
        return;
    }
    let (bare, port) = (Bare::new(), server());
    let script = format!(
        "curl -sS -m 5 --noproxy '*' http://127.0.0.1:{port}/ || curl -sS -m 5 http://example.com/ || echo none"
    );
    let [file, operator] =
        files(&bare.rig, "[{host: example.com, port: 80}]", "[{host: example.com, port: 80}]", &script);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("ring: 2\n", "ring: 2\nenforcement: best-effort\n")).unwrap();
    let ran = bare.output(&["run", "--operator", operator.to_str().unwrap(), file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.ends_with("none\n"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("no way out: this host gives it no network of its own"), "{}", ran.stderr);
    assert!(ran.stderr.contains("network namespace"), "the report names what is missing: {}", ran.stderr);
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

#[test]
fn datagrams_and_names_end_nowhere_and_its_own_loopback_is_its_own() {
    let (rig, port) = (Rig::new(), server());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let to = socket.local_addr().unwrap().port();
    let script = format!(
        "import socket\nd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nd.sendto(b'x', ('127.0.0.1', {to}))\n\
         def tried(what):\n  try: what(); print('LEAK')\n  except OSError as e: print(type(e).__name__, e.errno)\n\
         tried(lambda: d.sendto(b'x', ('192.0.2.1', 53)))\n\
         tried(lambda: socket.create_connection(('192.0.2.1', 80), 5))\n\
         tried(lambda: socket.create_connection(('2001:db8::1', 80), 5))\n\
         tried(lambda: socket.getaddrinfo('name.example', 80))\n\
         s = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname())\n\
         a, _ = s.accept()\na.send(b'own')\nprint(c.recv(3).decode())\n"
    );
    let outcome = run(&rig, &format!("[{{host: 127.0.0.1, port: {port}}}]"), &format!("python3 -c {}", shell(&script)));
    let said: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(said[..3], ["OSError 101"; 3], "unreachable: {} {}", outcome.stdout, outcome.stderr);
    assert!(said[3].starts_with("gaierror "), "{}", outcome.stdout);
    assert_eq!(said[4], "own", "{}", outcome.stdout);
    assert_eq!(
        socket.recv(&mut [0; 4]).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "the host's loopback is another"
    );
}

/// For sh.
pub(crate) fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn what_is_denied_is_counted_recorded_and_explained_and_what_passed_is_counted() {
    let (rig, port, other) = (Rig::new(), server(), server());
    let script = format!(
        "curl -sS --noproxy '' http://127.0.0.1:{port}/; for i in 1 2 3; do curl -sS --noproxy '' http://127.0.0.1:{other}/; done; sleep 1000"
    );
    let entries = format!("[{{host: 127.0.0.1, port: {port}}}]");
    let (supervisor, metrics) = start(&rig, &files(&rig, &entries, &entries, &script));
    until("all are counted", || {
        let text = scrape(&metrics);
        let denied = value(&text, "agt_network_denials_total{agent=\"net\",reason=\"port\"}");
        let passed = value(&text, "agt_network_requests_total{agent=\"net\",kind=\"http\",outcome=\"complete\"}");
        denied == Some(3.0) && passed == Some(1.0)
    });
    let text = scrape(&metrics);
    assert!(value(&text, "agt_network_bytes_total{agent=\"net\",direction=\"in\"}").unwrap() >= 8.0, "{text}");
    assert_eq!(value(&text, "agt_denials_total{agent=\"net\",class=\"network\"}"), Some(3.0), "{text}");
    let why = rig.output(["why", "net"]);
    assert!(
        why.stdout.contains(&format!("127.0.0.1:{other}")) && why.stdout.contains("to allow it:"),
        "{}",
        why.stdout
    );
    assert_eq!(rig.output(["stop", "net", "--reason", "test", "--yes"]).code, 0);
    let outcome = supervisor.wait();
    let said = outcome.stderr.lines().filter(|line| line.starts_with("denied: ")).count();
    assert_eq!(said, 1, "once: {}", outcome.stderr);
    let audit = rig.output(["audit", "show", "--agent", "net", "--json"]).stdout;
    assert!(audit.contains(&format!("127.0.0.1:{other}")) && audit.contains("\"port\""), "{audit}");
}

#[test]
fn a_reload_closes_what_is_no_longer_allowed_and_opens_what_is_while_the_agent_runs() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (held, other) = (listener.local_addr().unwrap().port(), server());
    let [one, two] = [held, other].map(|port| format!("{{host: 127.0.0.1, port: {port}}}"));
    let script = format!(
        "curl -sS --noproxy '' http://127.0.0.1:{held}/; echo ended $? > cut; \
         until curl -sSf --noproxy '' http://127.0.0.1:{other}/ > got; do sleep 0.1; done; sleep 1000"
    );
    let paths = files(&rig, &format!("[{one}]"), &format!("[{one}, {two}]"), &script);
    let (supervisor, _) = start(&rig, &paths);
    // The first answer never comes.
    let (mut open, _) = listener.accept().unwrap();
    let life = |rig: &Rig| rig.ps()["agents"][0]["pid"].clone();
    let pid = life(&rig);
    let text = std::fs::read_to_string(&paths[0]).unwrap();
    std::fs::write(&paths[0], text.replace(&format!("network: [{one}]"), &format!("network: [{two}]"))).unwrap();
    let reload = rig.output(["reload", "net", "--yes"]);
    assert_eq!(reload.code, 0, "{} {}", reload.stdout, reload.stderr);
    until("the open connection is cut", || rig.work.join("cut").exists());
    let _ = open.read_to_end(&mut Vec::new());
    until("the other is reached", || std::fs::read_to_string(rig.work.join("got")).is_ok_and(|got| got == "it works"));
    assert_eq!(life(&rig), pid, "the same life");
    assert_eq!(rig.output(["stop", "net", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn in_r1_public_destinations_are_open_for_whom_the_operator_knows_and_others_are_not() {
    if !needs_root("in_r1_public_destinations_are_open_for_whom_the_operator_knows_and_others_are_not") {
        return;
    }
    let rig = Rig::new();
    // Without routes: what is let through can't be connected to.
    let script = "for to in 9.9.9.9 10.0.0.1 127.0.0.1:9; do \
        curl -s -o /dev/null -w '%{http_code} ' --noproxy '' --max-time 20 http://$to/; done";
    let [file, operator] = files(&rig, "[]", "[]", script);
    let text = std::fs::read_to_string(&file).unwrap().replace("ring: 2", "ring: 1");
    std::fs::write(&file, text).unwrap();
    let trusted =
        rig.output(["trust".as_ref(), "set".as_ref(), file.as_os_str(), "800".as_ref(), "--reason=test".as_ref()]);
    assert_eq!(trusted.code, 0, "{}", trusted.stderr);
    let run = |args: &[&OsStr]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["-n", "--"]).arg(crate::support::binary()).arg("--state-dir").arg(&rig.state);
        Outcome::from(command.arg("run").args(args).arg(&file).current_dir(&rig.work).output().unwrap())
    };
    let known = run(&["--operator".as_ref(), operator.as_os_str()]);
    assert_eq!(known.stdout, "502 403 403 ", "{}", known.stderr);
    // An operator who has not written it down has opened nothing: there is no proxy to ask.
    let empty = rig.dir.path().join("empty.yaml");
    std::fs::write(&empty, "version: 1\nkind: operator\n").unwrap();
    only_its_owner_writes(&empty);
    let unknown = run(&["--operator".as_ref(), empty.as_os_str()]);
    assert_eq!(unknown.stdout, "000 000 000 ", "{}", unknown.stderr);
}

/// Answers over TLS as whom a certificate of `ca.pem` names; 0 is any port, which is said in `port`.
const TLS_SERVER: &str = "import http.server, os, ssl, sys\n\
    class H(http.server.BaseHTTPRequestHandler):\n\
    \tdef do_GET(self):\n\t\tself.send_response(200); self.send_header('Content-Length', '8'); self.end_headers(); self.wfile.write(b'it works')\n\
    \tdef log_message(self, *a): pass\n\
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H)\n\
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\nc.load_cert_chain('server.pem')\n\
    s.socket = c.wrap_socket(s.socket, server_side=True)\n\
    open('port.new', 'w').write(str(s.server_port)); os.rename('port.new', 'port')\ns.serve_forever()\n";

fn authority_and_server(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.join("server.pem"), format!("{}{}", key.serialize_pem(), server.pem())).unwrap();
}

#[test]
fn where_tls_is_opened_programs_believe_the_gateway_and_paths_are_decided() {
    let rig = Rig::new();
    let outside = rig.dir.path();
    authority_and_server(outside);
    let mut server = std::process::Command::new("python3");
    let child = server.args(["-c", TLS_SERVER]).current_dir(outside).spawn().unwrap();
    let _server = Supervisor { child: Some(child) };
    until("the server listens", || outside.join("port").exists());
    let port = std::fs::read_to_string(outside.join("port")).unwrap();
    let get = |path: &str| format!("curl -sS --noproxy '' https://localhost:{port}{path}; echo; ");
    let python = format!(
        "python3 -c \"import os, urllib.request as u; os.environ.pop('no_proxy'); os.environ.pop('NO_PROXY'); \
         print(u.urlopen('https://localhost:{port}/open/b').read().decode())\""
    );
    let script = format!("{}{}{python}; ls -l $SSL_CERT_FILE | cut -c1-10", get("/open/a"), get("/closed"));
    let entries = format!("[{{host: localhost, port: {port}, paths: [/open/**], intercept: on}}]");
    let [file, operator] = files(&rig, &entries, &entries, &script);
    let text = std::fs::read_to_string(&operator).unwrap();
    let range = format!("addresses: [{{cidr: 127.0.0.1/32, ports: [{port}]}}]}}\n");
    std::fs::write(&operator, format!("{}, {range}", text.trim_end().strip_suffix('}').unwrap())).unwrap();
    let mut command = rig.command(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()]);
    let outcome = Outcome::from(
        command.env("SSL_CERT_FILE", outside.join("ca.pem")).env_remove("SSL_CERT_DIR").output().unwrap(),
    );
    let said: Vec<&str> = outcome.stdout.lines().filter(|line| !line.is_empty()).collect();
    assert!(said.len() == 4, "{} {}", outcome.stdout, outcome.stderr);
    assert_eq!((said[0], said[2], said[3]), ("it works", "it works", "-rw-r--r--"), "{}", outcome.stderr);
    assert!(
        said[1].contains("denied") && said[1].contains("/closed") && said[1].contains("rule network[0]"),
        "{}",
        said[1]
    );
}

#[test]
fn a_host_without_root_certificates_says_so_and_has_its_other_ways() {
    let (rig, port) = (Rig::new(), server());
    let script = format!("curl -sS --noproxy '*' http://127.0.0.1:{port}/");
    let entries = format!("[{{tcp: \"127.0.0.1:{port}\"}}]");
    let [file, operator] = files(&rig, &entries, &entries, &script);
    let nothing = rig.dir.path().join("no.pem");
    std::fs::write(&nothing, "").unwrap();
    let mut command = rig.command(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()]);
    // Where the variables of whoever runs this name roots, these win.
    command.env("SSL_CERT_FILE", &nothing).env("SSL_CERT_DIR", &rig.state);
    let outcome = Outcome::from(command.output().unwrap());
    assert!(outcome.stdout.contains("it works"), "{} {}", outcome.stdout, outcome.stderr);
    assert!(
        outcome.stderr.contains("no root certificate") && outcome.stderr.contains("ca-certificates"),
        "{}",
        outcome.stderr
    );
}
