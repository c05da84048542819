//! A gateway with one agent, destinations that remember what they were sent, and clients that say exactly what they are told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use agt_gateway::flow::Label;
use agt_gateway::hook::{Hook, Hooks};
use agt_gateway::live::{Agent, Gateway, Happening, Happenings, Outside, Serve, Settings, Waits};
use agt_gateway::policy::{OwnAddresses, Policy, Reach, spec};
use agt_gateway::resolve::Resolver;
use agt_gateway::route::{SystemDial, trust};
use serde_json::json;

/// What a test waits for at most before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) agent: Option<Agent>,
    pub(crate) happenings: Happenings,
    pub(crate) at: SocketAddr,
}

/// A policy of these entries (as agent.yaml has them) under an operator who allows everything on loopback.
pub(crate) fn policy(generation: u64, entries: serde_json::Value) -> Policy {
    let entries: Vec<spec::EntrySpec> = serde_json::from_value(entries).unwrap();
    let ceiling: spec::CeilingSpec = serde_json::from_value(json!({
        "network": entries,
        "addresses": [{ "cidr": "127.0.0.1/32" }, { "cidr": "::1/128" }],
    }))
    .unwrap();
    Policy::new(generation, Reach::Listed, &entries, &ceiling).unwrap()
}

/// Everything at one port of `127.0.0.1` and `localhost`, TLS or not.
pub(crate) fn all_at(port: u16) -> serde_json::Value {
    json!([
        { "host": "127.0.0.1", "port": port, "sni": "any" },
        { "host": "localhost", "port": port, "sni": "any" },
    ])
}

pub(crate) fn quick() -> Settings {
    let waits = Waits {
        head: Duration::from_millis(400),
        keep_alive: Duration::from_millis(800),
        hello: Duration::from_millis(400),
        connect: Duration::from_secs(2),
        answer: Duration::from_millis(700),
        idle: Duration::from_millis(900),
        half_closed: Duration::from_millis(300),
    };
    Settings { threads: 2, waits, ..Settings::default() }
}

pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) hooks: Vec<Arc<dyn Hook>>,
    pub(crate) serve: Serve,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) entries: serde_json::Value,
}

impl Plan {
    pub(crate) fn new(entries: serde_json::Value) -> Self {
        Self {
            settings: Settings { threads: 2, ..Settings::default() },
            hooks: Vec::new(),
            serve: Serve::Proxy,
            tls: None,
            entries,
        }
    }

    pub(crate) fn quick(mut self) -> Self {
        self.settings = quick();
        self
    }

    pub(crate) fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    pub(crate) fn serve(mut self, serve: Serve) -> Self {
        self.serve = serve;
        self
    }

    /// Whom the gateway believes.
    pub(crate) fn tls(mut self, tls: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    pub(crate) fn start(self) -> Rig {
        let (gateway, happenings) = Gateway::start(self.settings, Hooks::new(self.hooks), outside(self.tls)).unwrap();
        let agent = gateway.register(Label::from("researcher"), policy(1, self.entries));
        let (listener, at) = listener();
        agent.listen(listener, self.serve).unwrap();
        Rig { gateway, agent: Some(agent), happenings, at }
    }
}

/// Reading the system's roots takes longer than most tests.
static TLS: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();

fn outside(tls: Option<Arc<rustls::ClientConfig>>) -> Outside {
    Outside {
        resolver: Resolver::system(agt_gateway::resolve::Bounds::default()),
        own: OwnAddresses::new([], []),
        dial: Arc::new(SystemDial),
        tls: tls.unwrap_or_else(|| TLS.get_or_init(|| trust(&[]).unwrap()).clone()),
    }
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

impl Rig {
    pub(crate) fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.at)
    }

    /// The next happening that fits.
    pub(crate) fn happening<T>(&mut self, fits: impl Fn(&Happening) -> Option<T>) -> T {
        let mut seen = Vec::new();
        until(|| {
            while let Some(happening) = self.happenings.try_next() {
                if let Some(found) = fits(&happening) {
                    return Some(found);
                }
                seen.push(happening);
            }
            None
        })
        .unwrap_or_else(|| panic!("it did not happen; this did: {seen:#?}"))
    }
}

/// Asks until there is an answer, or patience ends.
pub(crate) fn until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A raw connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    kept: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn to(at: SocketAddr) -> Self {
        Self::over(TcpStream::connect(at).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, kept: Vec::new() }
    }

    /// Says it. A peer that closed meanwhile is seen when the answer is read.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 16384];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(read) => {
                self.kept.extend_from_slice(&piece[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the peer says nothing and does not close: {error}; so far {:?}", self.text()),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }

    /// The next answer; nothing when the connection closes before one.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            if let Some(at) = find(&self.kept, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more() {
                assert!(self.kept.is_empty(), "half a head: {:?}", self.text());
                return None;
            }
        };
        let head = String::from_utf8(self.kept.drain(..end).collect()).unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if status == 100 {
            return Some(answer);
        }
        let bodiless = method == "HEAD" || method == "CONNECT" && status == 200 || matches!(status, 204 | 304);
        if bodiless {
            return Some(answer);
        }
        if let Some(length) = answer.field("content-length") {
            let length: usize = length.parse().unwrap();
            answer.body = self.exactly(length);
        } else if answer.field("transfer-encoding") == Some("chunked") {
            answer.body = self.chunks();
        } else {
            while self.more() {}
            answer.body = std::mem::take(&mut self.kept);
        }
        Some(answer)
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = find(&self.kept, b"\r\n") {
                    break self.kept.drain(..at + 2).collect::<Vec<_>>();
                }
                assert!(self.more(), "closed inside chunks");
            };
            let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let piece = self.exactly(length + 2);
            if length == 0 {
                return body;
            }
            body.extend_from_slice(&piece[..length]);
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.kept.len() < length {
            assert!(self.more(), "closed after {} of {length} bytes: {:?}", self.kept.len(), self.text());
        }
        self.kept.drain(..length).collect()
    }

    /// All until the connection closes; `Err` when it was reset.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        let mut piece = [0; 16384];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(std::mem::take(&mut self.kept)),
                Ok(read) => self.kept.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(std::mem::take(&mut self.kept));
                }
                Err(error) => panic!("the peer does not close: {error}"),
            }
        }
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.rest(), Ok(rest) | Err(rest) if rest.is_empty())
    }
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A destination that remembers all it was sent, and answers as it is told to.
pub(crate) struct Destination {
    pub(crate) at: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// What a destination does with a connection.
pub(crate) type Manner = fn(TcpStream, &mut dyn FnMut(Vec<u8>));

impl Destination {
    pub(crate) fn with(manner: Manner) -> Self {
        let (listener, at) = listener();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (counted, kept) = (Arc::clone(&connections), Arc::clone(&requests));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                counted.fetch_add(1, Ordering::SeqCst);
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || manner(stream, &mut |request| kept.lock().unwrap().push(request)));
            }
        });
        Self { at, connections, requests }
    }

    /// Answers every request with `ok`.
    pub(crate) fn http() -> Self {
        Self::with(|stream, keep| http(stream, keep, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    }

    /// Sends back what it gets.
    pub(crate) fn echo() -> Self {
        Self::with(|mut stream, _| {
            let mut piece = [0; 65536];
            while let Ok(read) = stream.read(&mut piece) {
                if read == 0 || stream.write_all(&piece[..read]).is_err() {
                    return;
                }
            }
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.at.port()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }
}

/// Reads requests as a strict server does and answers each with the same bytes.
pub(crate) fn http(mut stream: TcpStream, keep: &mut dyn FnMut(Vec<u8>), answer: &[u8]) {
    stream.set_nodelay(true).unwrap();
    let mut kept = Vec::new();
    while let Some(request) = request(&mut stream, &mut kept) {
        keep(request);
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// One request, whole: by its length or its chunks.
pub(crate) fn request(stream: &mut TcpStream, kept: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut more = |kept: &mut Vec<u8>| {
        let mut piece = [0; 16384];
        let read = stream.read(&mut piece).unwrap_or(0);
        kept.extend_from_slice(&piece[..read]);
        read > 0
    };
    let end = loop {
        if let Some(at) = find(kept, b"\r\n\r\n") {
            break at + 4;
        }
        if !more(kept) {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&kept[..end]).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()));
    let whole = if let Some(length) = field("content-length:") {
        end + length.parse::<usize>().unwrap()
    } else if field("transfer-encoding:").is_some() {
        loop {
            if let Some(at) = find(&kept[end..], b"0\r\n\r\n") {
                break end + at + 5;
            }
            if !more(kept) {
                return None;
            }
        }
    } else {
        end
    };
    while kept.len() < whole {
        if !more(kept) {
            return None;
        }
    }
    Some(kept.drain(..whole).collect())
}
