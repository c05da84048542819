//! What the gateway costs: requests through a metered model route, tunnels, streams of events, memory; beside the direct way and
//! other proxies, by turns in one run.
//!
//! `cargo bench -p agt-gateway --bench gateway [-- SECTION...]`; sections are `requests`, `tunnels`, `latency`, `streams`,
//! `memory`, all by default. The last lines of each are `RATIO name=value`. The load, the gateway and the provider are processes
//! of their own (this program again), with a thread for each core; peers get as many workers. CPU time is what the kernel
//! charged to a process while the load ran.
//!
//! Peers that are not here have no row; where to get them is said then. nginx, tinyproxy and squid: `apt install nginx-light
//! tinyproxy squid` (stop their services again), or programs of these names in `$AGT_BENCH_PEERS/bin`. mitmproxy and LiteLLM:
//! `python3 -m venv $AGT_BENCH_PEERS/mitmproxy && $AGT_BENCH_PEERS/mitmproxy/bin/pip install mitmproxy`, and the same with
//! `litellm` and `'litellm[proxy]'`.

#![allow(missing_docs, clippy::unwrap_used, unreachable_pub)]

mod children;
mod gateway;
mod load;
mod memory;
mod orders;
mod peers;
mod requests;
mod rows;
mod streams;
mod threads;
mod tunnels;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use children::Role;
use gateway::{Plan, Tunnels};
use orders::{Order, Report};
use upstream::{Identity, Upstream};

type Anything = Box<dyn std::error::Error>;
type Section = fn(&mut Bench) -> Result<(), Anything>;

/// What the provider wants to see.
const KEY: &str = "sk-bench-0123456789abcdef0123456789abcdef";
/// A question of about the size that a short one has.
const ASK: &str = r#"{"model":"gpt-4o","max_tokens":200,"messages":[{"role":"system","content":"You are a helpful assistant that answers briefly."},{"role":"user","content":"Hello! What can you do for me today, and how do I ask for it?"}]}"#;

fn main() -> Result<(), Anything> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [role, identity] if role == "--upstream" => return upstream::run(&serde_json::from_str::<Identity>(identity)?),
        [role, plan] if role == "--gateway" => return gateway::run(&serde_json::from_str::<Plan>(plan)?),
        [role, _] if role == "--load" => return load::run(),
        _ => {}
    }
    let sections: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |section: &str| sections.is_empty() || sections.iter().any(|wanted| *wanted == section);
    println!("machine: {}", machine());
    let mut bench = Bench::open()?;
    let all: [(&str, Section); 5] = [
        ("requests", requests::throughput),
        ("tunnels", tunnels::setups),
        ("latency", requests::latency),
        ("streams", streams::delay),
        ("memory", memory::memory),
    ];
    for (section, measure) in all {
        if wanted(section) {
            println!("\n{section}");
            measure(&mut bench)?;
        }
    }
    Ok(())
}

/// Cores, processor, kernel, load.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("a processor");
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    format!(
        "{cores} cores, {}, kernel {}, load {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load.trim()
    )
}

/// What every section stands on.
struct Bench {
    load: Role,
    provider: Role,
    upstream: Upstream,
    certificate: String,
    folder: tempfile::TempDir,
    key: PathBuf,
}

impl Bench {
    fn open() -> Result<Bench, Anything> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let identity = Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() };
        let mut provider = Role::start("--upstream", &identity)?;
        let upstream = provider.says()?;
        let load = Role::start("--load", &())?;
        let folder = tempfile::tempdir()?;
        let key = gateway::key_file(folder.path())?;
        Ok(Bench { load, provider, upstream, certificate: identity.certificate, folder, key })
    }

    /// A fresh gateway with so many agents, and the listener of each.
    fn gateway(&self, agents: usize, tunnels: Tunnels) -> Result<(Role, Vec<SocketAddr>), Anything> {
        let (upstream, certificate, key) = (self.upstream, self.certificate.clone(), self.key.clone());
        let plan = Plan { agents, upstream, certificate, key, tunnels };
        let mut gateway = Role::start("--gateway", &plan)?;
        let doors = gateway.says()?;
        Ok((gateway, doors))
    }

    /// Has it done, and fails where nothing came of it.
    fn order(&mut self, order: &Order) -> Result<Report, Anything> {
        let report = self.try_order(order)?;
        match report.counted {
            0 if !matches!(order, Order::Release) => Err(format!("{order:?}: nothing came of it").into()),
            _ => Ok(report),
        }
    }

    /// Has it done by somebody of whom nothing may come.
    fn try_order(&mut self, order: &Order) -> Result<Report, Anything> {
        let report = self.load.order(order)?;
        if let Some(error) = &report.first_error {
            println!("  {} errors, the first: {error}", report.errors);
        }
        Ok(report)
    }
}

/// A request to a provider's path behind `prefix`, with a key of one's own or none.
fn request(method: &str, prefix: &str, key: Option<&str>, body: &str) -> String {
    let path = if method == "GET" { "models" } else { "chat/completions" };
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    let body = if method == "GET" { "" } else { body };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    // What a Python library says of itself, more or less.
    format!(
        "{method} {prefix}/v1/{path} HTTP/1.1\r\nHost: localhost\r\n{key}Accept: application/json\r\n\
         Accept-Encoding: identity\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 1.99.0\r\n\
         X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.99.0\r\nX-Stainless-OS: Linux\r\n{length}\r\n{body}"
    )
}

/// A request for a stream: microseconds between events, and how many.
fn stream_request(prefix: &str, key: Option<&str>, every_us: u64, count: u64) -> String {
    let body = ASK.replacen('{', &format!(r#"{{"stream":true,"user":"{every_us}x{count}","#), 1);
    request("POST", prefix, key, &body)
}
