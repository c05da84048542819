//! Ways around the gateway by the gateway itself: an agent in R2 with a narrow list says to the proxy, to SOCKS5 and inside tunnels
//! what would carry it elsewhere if one layer read it otherwise than another.
//!
//! One agent tries all of them, with bytes that no library would send; what it was answered is compared with the table. At the
//! places that it was after nobody may have come, and the listed places may have seen only what the list allows.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use crate::docs::only_its_owner_writes;
use crate::support::{Outcome, Rig, effort, quoted};

/// What is said, and to whom.
enum Say {
    /// To the proxy: the whole request.
    Http(String),
    /// To the proxy: a URL, by GET in absolute form with the `Host` that fits.
    Get(&'static str),
    /// To the proxy: the target of a CONNECT.
    Connect(&'static str),
    /// Inside a tunnel to `localhost:{q}`, or to another place.
    Inside(&'static str, Vec<u8>),
    /// To SOCKS5, after its greeting.
    Socks(Vec<u8>),
    /// curl, with these arguments.
    Curl(&'static str),
}

use Say::{Connect, Curl, Get, Http, Inside, Socks};

/// Name, what is said, what must come back. `{p}` is listed for HTTP at 127.0.0.1, `{q}` for TLS at localhost; `{t}` is listed at
/// localhost, whose address the operator opened at `{q}` only; `{own}` is the proxy itself.
type Attempt = (&'static str, Say, &'static str);

const UNCLEAR: &str = "400 request_not_understood";
const NOT_CARRIED: &str = "501 request_not_understood";

/// Hosts in every spelling.
fn spellings() -> Vec<Attempt> {
    vec![
        ("metadata", Get("http://169.254.169.254/latest/"), "403 not-listed"),
        ("metadata in decimal", Get("http://2852039166/"), "403 not-listed"),
        ("metadata in octal", Get("http://0251.0376.0251.0376/"), "403 not-listed"),
        ("metadata in hexadecimal", Get("http://0xa9fea9fe/"), "403 not-listed"),
        ("metadata with a part left out", Get("http://169.254.43518/"), "403 not-listed"),
        ("metadata mapped into IPv6", Get("http://[::ffff:169.254.169.254]/"), "403 not-listed"),
        ("metadata by NAT64", Get("http://[64:ff9b::a9fe:a9fe]/"), "403 not-listed"),
        ("metadata by 6to4", Get("http://[2002:a9fe:a9fe::1]/"), "403 not-listed"),
        ("metadata with a dot behind", Get("http://169.254.169.254./"), "403 not-listed"),
        ("metadata by IPv6", Get("http://[fd00:ec2::254]/"), "403 not-listed"),
        ("metadata by name", Get("http://metadata.google.internal/"), "403 not-listed"),
        ("metadata in wide digits", Get("http://１６９.254.169.254/"), "400"),
        ("metadata in punycode", Get("http://xn--169254169254-.example/"), UNCLEAR),
        ("loopback in decimal", Get("http://2130706433:{t}/"), "403 port"),
        ("loopback in octal", Get("http://0177.0.0.1:{t}/"), "403 port"),
        ("loopback in hexadecimal", Get("http://0x7f.1:{t}/"), "403 port"),
        ("loopback with parts left out", Get("http://127.1:{t}/"), "403 port"),
        ("loopback mapped into IPv6", Get("http://[::ffff:127.0.0.1]:{t}/"), "403 port"),
        ("loopback's neighbour", Get("http://127.0.0.2:{t}/"), "403 not-listed"),
        ("loopback by IPv6", Get("http://[::1]:{t}/"), "403 not-listed"),
        ("every address", Get("http://0.0.0.0:{t}/"), "403 not-listed"),
        ("zero", Get("http://0:{t}/"), "403 not-listed"),
        ("a listed name with a private address", Get("http://localhost:{t}/"), "403 zone"),
        ("the same in other letters with a dot", Get("http://LocalHost.:{t}/"), "403 zone"),
        ("the same by CONNECT", Connect("localhost:{t}"), "403 zone"),
        ("an encoded dot", Get("http://127%2e0.0.1:{t}/"), "400"),
        ("a zone of an interface", Get("http://[fe80::1%25eth0]/"), UNCLEAR),
    ]
}

/// Targets that two readers could take for two.
fn targets() -> Vec<Attempt> {
    vec![
        ("the listed host as user", Get("http://127.0.0.1:{p}@169.254.169.254/"), UNCLEAR),
        ("the host behind a user", Get("http://169.254.169.254@127.0.0.1:{p}/"), UNCLEAR),
        ("a backslash before the host", Get("http://127.0.0.1:{p}\\@169.254.169.254/"), "400"),
        ("a fragment before the host", Get("http://127.0.0.1:{p}#@169.254.169.254/"), UNCLEAR),
        ("port 0", Get("http://127.0.0.1:0/"), UNCLEAR),
        ("port 65536", Get("http://127.0.0.1:65536/"), UNCLEAR),
        ("no port behind the colon", Get("http://127.0.0.1:/"), UNCLEAR),
        ("https by URL", Get("https://169.254.169.254/"), UNCLEAR),
        ("ftp", Get("ftp://127.0.0.1:{t}/"), UNCLEAR),
        ("a file", Get("file:///etc/passwd"), "400"),
        ("the proxy by itself", Get("http://127.0.0.1:{own}/"), "403 port"),
        ("a tunnel to the proxy", Connect("127.0.0.1:{own}"), "403 port"),
        ("a tunnel to metadata", Connect("169.254.169.254:80"), "403 not-listed"),
        ("a tunnel to another port", Connect("127.0.0.1:{t}"), "403 port"),
        ("a tunnel with a user", Connect("127.0.0.1:{p}@169.254.169.254:80"), UNCLEAR),
        ("a tunnel without a port", Connect("169.254.169.254"), UNCLEAR),
        ("a tunnel to port 0", Connect("127.0.0.1:0"), UNCLEAR),
        ("a tunnel to port 65536", Connect("127.0.0.1:65536"), UNCLEAR),
        ("a tunnel with a URL", Connect("http://169.254.169.254:80/"), UNCLEAR),
        (
            "a route that is not there",
            request("GET /openai/v1/models HTTP/1.1", &["Host: 127.0.0.1"]),
            "404 no_such_route",
        ),
        (
            "another host in origin form",
            request("GET / HTTP/1.1", &["Host: 169.254.169.254"]),
            "421 request_not_understood",
        ),
        ("another host in Host", at_listed(&["Host: 169.254.169.254"]), UNCLEAR),
        ("two Hosts", at_listed(&["Host: 127.0.0.1:{p}", "Host: 169.254.169.254"]), UNCLEAR),
        ("no Host", at_listed(&[]), UNCLEAR),
    ]
}

/// Requests with another one behind them, and ways to become something else than a request.
fn framing() -> Vec<Attempt> {
    let post = |path: &str, fields: &[&str], body: &str| {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let there = "127.0.0.1:{p}";
        Http(format!("POST http://{there}{path} HTTP/1.1\r\nHost: {there}\r\n{fields}\r\n{body}"))
    };
    let behind = "0\r\n\r\nGET http://127.0.0.1:{t}/ HTTP/1.1\r\nHost: 127.0.0.1:{t}\r\n\r\n";
    vec![
        // Chunks win (RFC 9112, 6.3) and are framed anew: what stands behind them is a request, and decided by itself.
        ("a length and chunks", post("/chunks", &["Content-Length: 6", "Transfer-Encoding: chunked"], behind), "302"),
        ("two lengths", post("/smuggled", &["Content-Length: 3", "Content-Length: 60"], behind), "400"),
        ("a length with a sign", post("/smuggled", &["Content-Length: +3"], behind), "400"),
        ("another coding", post("/smuggled", &["Transfer-Encoding: xchunked"], behind), "400"),
        ("two codings", post("/smuggled", &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], behind), "400"),
        ("chunks twice", post("/smuggled", &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], behind), NOT_CARRIED),
        ("Host named as one hop's", at_listed(&["Host: 127.0.0.1:{p}", "Connection: host"]), UNCLEAR),
        ("an alias of the length", post("/smuggled", &["Content_Length: 3"], ""), UNCLEAR),
        (
            "a websocket",
            at_listed(&["Host: 127.0.0.1:{p}", "Connection: upgrade", "Upgrade: websocket"]),
            NOT_CARRIED,
        ),
        ("TRACE", request("TRACE http://127.0.0.1:{p}/smuggled HTTP/1.1", &["Host: 127.0.0.1:{p}"]), NOT_CARRIED),
        ("connect in small letters", request("connect 127.0.0.1:{t} HTTP/1.1", &["Host: 127.0.0.1:{t}"]), NOT_CARRIED),
        ("a tunnel with a body", request("CONNECT localhost:{q} HTTP/1.1", &["Host: localhost:{q}", "Content-Length: 5"]), UNCLEAR),
        ("HTTP/2 at once", request("PRI * HTTP/2.0", &[]), "400"),
        (
            "a second request behind a denied one",
            Http("GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\nGET http://127.0.0.1:{t}/ HTTP/1.1\r\nHost: 127.0.0.1:{t}\r\n\r\n".to_owned()),
            "403 not-listed",
        ),
    ]
}

/// What a tunnel begins with, what SOCKS5 is asked for, where a listed server sends its client.
fn tunnels() -> Vec<Attempt> {
    let socks = |command: u8, kind: u8, address: &[u8], port: u16| {
        Socks([&[5, command, 0, kind], address, &port.to_be_bytes()].concat())
    };
    let metadata = [169, 254, 169, 254];
    let mapped: Vec<u8> = [&[0; 10][..], &[0xff; 2], &metadata].concat();
    let name = |name: &str| [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    vec![
        ("another name in TLS", Inside("localhost:{q}", hello(&["evil.example"], &[])), "alert 49"),
        ("an address as name in TLS", Inside("localhost:{q}", hello(&["169.254.169.254"], &[])), "alert 49"),
        ("no name in TLS", Inside("localhost:{q}", hello(&[], &[])), "alert 49"),
        ("two names in TLS", Inside("localhost:{q}", hello(&["localhost", "evil.example"], &[])), "alert 49"),
        ("a hidden name in TLS", Inside("localhost:{q}", hello(&["localhost"], &[0xfe0d])), "alert 49"),
        ("a hidden name of the older kind", Inside("localhost:{q}", hello(&["localhost"], &[0xffce])), "alert 49"),
        ("an extension twice", Inside("localhost:{q}", hello(&["localhost"], &[43, 43])), "alert 49"),
        ("HTTP inside", Inside("localhost:{q}", b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec()), "closed"),
        ("SSH inside", Inside("localhost:{q}", b"SSH-2.0-x\r\n".to_vec()), "closed"),
        ("HTTP inside, to the address", Inside("127.0.0.1:{p}", b"GET /inside HTTP/1.1\r\n\r\n".to_vec()), "closed"),
        ("a name where there is none", Inside("127.0.0.1:{p}", hello(&["evil.example"], &[])), "alert 49"),
        ("SOCKS to metadata", socks(1, 1, &metadata, 80), "socks 2"),
        ("SOCKS to metadata by IPv6", socks(1, 4, &mapped, 80), "socks 2"),
        ("SOCKS to a name's number", socks(1, 3, &name("2852039166"), 80), "socks 2"),
        ("SOCKS to a name with NUL", socks(1, 3, &name("localhost\0.example"), 80), "socks 2"),
        ("SOCKS to port 0", socks(1, 3, &name("localhost"), 0), "socks 2"),
        ("SOCKS BIND", socks(2, 1, &[0; 4], 0), "socks 7"),
        ("SOCKS UDP", socks(3, 1, &[0; 4], 0), "socks 7"),
        ("SOCKS of an unknown kind", socks(1, 9, &[0; 4], 80), "socks 8"),
        ("a redirect to metadata", Curl("-L http://127.0.0.1:{p}/to/metadata"), "403 not-listed"),
        ("a redirect to another port", Curl("-L http://127.0.0.1:{p}/to/trap"), "403 port"),
        ("a redirect to a short spelling", Curl("-L http://127.0.0.1:{p}/to/short"), "403 port"),
        (
            "a proxy that is told to use a proxy",
            Curl("--preproxy socks5h://127.0.0.1:{t} http://127.0.0.1:{p}/pre"),
            "000",
        ),
    ]
}

fn request(line: &str, fields: &[&str]) -> Say {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    Http(format!("{line}\r\n{fields}\r\n"))
}

fn at_listed(fields: &[&str]) -> Say {
    request("GET http://127.0.0.1:{p}/smuggled HTTP/1.1", fields)
}

/// A ClientHello of one record with these names and these other extensions, empty.
fn hello(names: &[&str], others: &[u16]) -> Vec<u8> {
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let mut extensions = Vec::new();
    if !names.is_empty() {
        let list: Vec<u8> = names.iter().flat_map(|name| [vec![0], long(name.as_bytes())].concat()).collect();
        extensions.extend([vec![0, 0], long(&long(&list))].concat());
    }
    extensions.extend(others.iter().flat_map(|kind| [kind.to_be_bytes(), [0, 0]].concat()));
    let body = [&[3, 3], &[7; 32][..], &[0], &long(&[0x13, 1]), &[1, 0], &long(&extensions)].concat();
    let message = [&[1, 0], &long(&body)[..]].concat();
    [&[22, 3, 1], &long(&message)[..]].concat()
}

/// What the agent runs: it says what the table tells it to, and prints what it is answered.
const AGENT: &str = r#"
import json, os, re, socket, subprocess
own = int(os.environ["http_proxy"].rsplit(":", 1)[1])
socks = int(os.environ["AGT_SOCKS5"].rsplit(":", 1)[1])
def to(port):
    s = socket.create_connection(("127.0.0.1", port)); s.settimeout(20); return s
def head(s):
    got = b""
    while b"\r\n\r\n" not in got:
        piece = s.recv(65536)
        if not piece: break
        got += piece
    return got
def answer(got, more):
    top, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", top)
    while length and len(body) < int(length[1]):
        piece = more()
        if not piece: break
        body += piece
    try: error = json.loads(body[:int(length[1])])["error"]; word = " " + error.get("reason", error["type"])
    except Exception: word = ""
    return (top.split(b" ")[1].decode() if b" " in top else "closed") + word
def attempt(how, text):
    if how == "http":
        s = to(own); s.sendall(bytes.fromhex(text).replace(b"{own}", str(own).encode()))
        return answer(head(s), lambda: s.recv(65536))
    if how == "inside":
        place, first = text
        s = to(own); s.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        opened = head(s)
        if b" 200" not in opened.split(b"\r\n")[0]: return answer(opened, lambda: b"")
        s.sendall(bytes.fromhex(first))
        got = s.recv(65536)
        return f"alert {got[6]}" if got[:1] == b"\x15" else "closed" if not got else repr(got)
    if how == "socks":
        s = to(socks); s.sendall(b"\5\1\0"); s.recv(2); s.sendall(bytes.fromhex(text))
        got = s.recv(64)
        return f"socks {got[1]}" if got else "closed"
    run = ["curl", "-sS", "--noproxy", "", "--max-time", "20", "-i"] + text.split()
    shown = subprocess.run(run, capture_output=True).stdout
    last = shown[shown.rfind(b"HTTP/1.1 "):] if b"HTTP/1.1 " in shown else b"x 000 \r\n\r\n"
    return answer(last, lambda: b"")
for name, how, text in json.load(open("attempts.json")):
    try: got = attempt(how, text)
    except OSError as e: got = f"{type(e).__name__}: {e}"
    print(json.dumps([name, got]), flush=True)
"#;

/// A place that the agent may reach; what came there.
struct Listed {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Listed {
    /// Sends who asks for `/to/...` on to the place of that name.
    fn start(trap: u16) -> Listed {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::default());
        let kept: Arc<Mutex<Vec<String>>> = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).unwrap_or(0);
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                let line = text.lines().next().unwrap_or_default().to_owned();
                let place = match line.split(' ').nth(1) {
                    Some("/to/metadata") => "http://169.254.169.254/latest/".to_owned(),
                    Some("/to/trap") => format!("http://127.0.0.1:{trap}/"),
                    Some("/to/short") => format!("http://127.1:{trap}/"),
                    _ => String::new(),
                };
                if read > 0 {
                    kept.lock().unwrap().push(line);
                }
                let _ = write!(
                    stream,
                    "HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
        });
        Listed { port, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Runs the attempts in R2.
fn run(rig: &Rig, attempts: &serde_json::Value, p: u16, q: u16, t: u16) -> Outcome {
    std::fs::write(rig.work.join("attempts.json"), attempts.to_string()).unwrap();
    std::fs::write(rig.work.join("escape.py"), AGENT).unwrap();
    let entries = format!("[{{host: 127.0.0.1, port: {p}}}, {{host: localhost, ports: [{q}, {t}]}}]");
    let file =
        rig.agent("escaper", &format!("ring: 2\n{}network: {entries}\ncommand: [python3, escape.py]\n", effort()));
    let operator = rig.dir.path().join("operator.yaml");
    let text = format!(
        "version: 1\nkind: operator\nagents:\n  escaper:\n    file: {}\n    network: {entries}\n    addresses:\n      \
         - {{cidr: 127.0.0.1/32, ports: [{q}]}}\n      - {{cidr: \"::1/128\", ports: [{q}]}}\n",
        quoted(file.to_str().unwrap())
    );
    std::fs::write(&operator, text).unwrap();
    only_its_owner_writes(&operator);
    rig.output(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()])
}

#[test]
fn nothing_that_is_said_to_the_gateway_leads_elsewhere_than_the_list() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let t = trap.local_addr().unwrap().port();
    let (plain, tls) = (Listed::start(t), Listed::start(t));
    let (p, q) = (plain.port, tls.port);
    let table: Vec<Attempt> = [spellings(), targets(), framing(), tunnels()].into_iter().flatten().collect();
    assert!(table.len() >= 60, "{}", table.len());
    let fill =
        |text: &str| text.replace("{p}", &p.to_string()).replace("{q}", &q.to_string()).replace("{t}", &t.to_string());
    let http = |text: &str| ("http", serde_json::json!(hex(fill(text).as_bytes())));
    let attempts = table.iter().map(|(name, say, _)| {
        let (how, what) = match say {
            Http(text) => http(text),
            Get(url) => {
                let host = url.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
                http(&format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            }
            Connect(to) => http(&format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")),
            Inside(to, first) => ("inside", serde_json::json!([fill(to), hex(first)])),
            Socks(bytes) => ("socks", serde_json::json!(hex(bytes))),
            Curl(arguments) => ("curl", serde_json::json!(fill(arguments))),
        };
        serde_json::json!([name, how, what])
    });
    let rig = Rig::new();
    let outcome = run(&rig, &attempts.collect(), p, q, t);
    let answers: BTreeMap<String, String> =
        outcome.stdout.lines().filter_map(|line| serde_json::from_str::<(String, String)>(line).ok()).collect();
    let wrong: Vec<String> = table
        .iter()
        .filter(|(name, _, wanted)| answers.get(*name).is_none_or(|got| got != wanted))
        .map(|(name, _, wanted)| format!("{name}: {:?}, not {wanted}", answers.get(*name)))
        .collect();
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), outcome.stderr);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let came = trap.accept().map(|(_, from)| from);
    assert!(came.as_ref().is_err_and(|e| e.kind() == ErrorKind::WouldBlock), "somebody came to the trap: {came:?}");
    let listed =
        ["POST /chunks", "GET /to/metadata", "GET /to/trap", "GET /to/short"].map(|line| format!("{line} HTTP/1.1"));
    assert_eq!(plain.seen(), listed, "the listed place saw something else");
    assert_eq!(tls.seen(), [""; 0], "a tunnel carried what it must not");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
