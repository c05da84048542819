//! Requests: how many a second, at what cost, how much later.

use std::net::SocketAddr;

use super::children::Process;
use super::gateway::Tunnels;
use super::orders::Order;
use super::peers::{self, Peer};
use super::rows::{Rows, say};
use super::{ASK, Anything, Bench, KEY, request};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const MILLIS: u64 = 1_500;
/// Before the first round.
const WARM_CONNECTIONS: usize = 8;
const WARM_MILLIS: u64 = 2_000;
/// All connections together.
const PER_SECOND: u32 = 4_000;

/// One way from the load to the provider.
struct Way<'a> {
    name: &'static str,
    at: SocketAddr,
    get: String,
    post: String,
    between: Option<&'a Process>,
}

fn ways<'a>(bench: &Bench, gateway: (&'a Process, SocketAddr), peers: &'a [Peer]) -> Vec<Way<'a>> {
    let way = |name, at, prefix: &str, key, between| {
        let [get, post] = ["GET", "POST"].map(|method| request(method, prefix, key, ASK));
        Way { name, at, get, post, between }
    };
    let mut ways = vec![way("direct", bench.upstream.plain, "", Some(KEY), None)];
    ways.push(way("gateway", gateway.1, "/openai", None, Some(gateway.0)));
    ways.extend(peers.iter().map(|peer| way(peer.name, peer.at, "", peer.key, Some(&peer.process))));
    ways
}

/// As many as go.
pub(crate) fn throughput(bench: &mut Bench) -> Result<(), Anything> {
    let (gateway, doors) = bench.gateway(1, Tunnels::Any)?;
    let peers = peers::reverse(bench.upstream.plain, bench.folder.path());
    let mut rows = Rows::default();
    let ways = ways(bench, (&gateway.process, doors[0]), &peers);
    for way in &ways {
        // Some load half of themselves at their first call.
        let (at, request) = (way.at, way.post.clone());
        bench.try_order(&Order::Closed { at, request, connections: WARM_CONNECTIONS, millis: WARM_MILLIS })?;
    }
    for _ in 0..ROUNDS {
        for method in ["get", "post"] {
            for way in &ways {
                let request = if method == "get" { &way.get } else { &way.post };
                let order =
                    Order::Closed { at: way.at, request: request.clone(), connections: CONNECTIONS, millis: MILLIS };
                let before = cpu(bench, way);
                let report = bench.try_order(&order)?;
                let after = cpu(bench, way);
                // Who answers nothing in the time is taken for one that answers once: no ratio is made larger by it.
                let (counted, all) = (report.counted.max(1), report.all.max(1));
                let name = format!("{method} {}", way.name);
                rows.add(&format!("{name}, requests/s"), counted as f64 / report.seconds);
                for (whose, (after, before)) in ["load", "provider", "between"].iter().zip(after.iter().zip(before)) {
                    rows.add(&format!("{name}, CPU us of {whose}"), (after - before) * 1e6 / all as f64);
                }
                rows.add(&format!("{name}, errors"), report.errors as f64);
            }
        }
    }
    rows.report();
    for method in ["get", "post"] {
        let of = |name: &str| format!("{method} {name}, requests/s");
        for peer in ["direct", "nginx", "mitmproxy", "litellm"] {
            rows.ratio(&format!("throughput_{method}_vs_{peer}"), &of("gateway"), &of(peer));
        }
        if let Some(us) = rows.median(&format!("{method} gateway, CPU us of between")) {
            say(&format!("cpu_us_per_{method}"), us, 1);
        }
    }
    Ok(())
}

/// CPU time so far of the load, the provider, and whoever stands between.
fn cpu(bench: &Bench, way: &Way) -> [f64; 3] {
    [bench.load.process.cpu(), bench.provider.process.cpu(), way.between.map_or(0.0, Process::cpu)]
}

/// How much later an answer is there.
pub(crate) fn latency(bench: &mut Bench) -> Result<(), Anything> {
    let (gateway, doors) = bench.gateway(1, Tunnels::Any)?;
    let mut rows = Rows::default();
    let ways = ways(bench, (&gateway.process, doors[0]), &[]);
    for _ in 0..ROUNDS {
        for (connections, per_second) in [(1, None), (CONNECTIONS, Some(PER_SECOND))] {
            for way in &ways {
                let (at, request) = (way.at, way.post.clone());
                let report = bench.order(&Order::Timed { at, request, connections, per_second, millis: 2 * MILLIS })?;
                rows.add(&format!("{} p50 us, {connections}", way.name), report.p50);
                rows.add(&format!("{} p99 us, {connections}", way.name), report.p99);
                rows.add(&format!("{} errors, {connections}", way.name), report.errors as f64);
            }
        }
    }
    rows.report();
    for connections in [1, CONNECTIONS] {
        for quantile in ["p50", "p99"] {
            let of = |way: &str| format!("{way} {quantile} us, {connections}");
            rows.added(&format!("added{connections}_{quantile}_us"), &of("gateway"), &of("direct"), 0);
        }
    }
    Ok(())
}
