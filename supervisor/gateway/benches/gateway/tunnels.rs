//! Tunnels: how many a second, with and without reading what they ask for.

use super::gateway::Tunnels;
use super::orders::{First, Order};
use super::peers;
use super::rows::Rows;
use super::{Anything, Bench};

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 5;
const MILLIS: u64 = 1_000;

/// Opened, one byte (or a ClientHello) there and one back, closed.
pub(crate) fn setups(bench: &mut Bench) -> Result<(), Anything> {
    let (any, any_doors) = bench.gateway(1, Tunnels::Any)?;
    let (named, named_doors) = bench.gateway(1, Tunnels::Named)?;
    let peers = peers::forward(bench.upstream.echo, bench.folder.path());
    let mut ways = vec![("gateway", any_doors[0], First::Byte, &any.process)];
    ways.push(("gateway", named_doors[0], First::Hello, &named.process));
    for peer in &peers {
        ways.extend([First::Byte, First::Hello].map(|first| (peer.name, peer.at, first, &peer.process)));
    }
    let port = bench.upstream.echo.port();
    let mut rows = Rows::default();
    for _ in 0..ROUNDS {
        for (name, proxy, first, process) in &ways {
            let target = match first {
                First::Byte => format!("127.0.0.1:{port}"),
                First::Hello => format!("localhost:{port}"),
            };
            let before = process.cpu();
            let order =
                Order::Tunnels { proxy: *proxy, target, first: *first, connections: CONNECTIONS, millis: MILLIS };
            let report = bench.order(&order)?;
            let cpu = (process.cpu() - before) * 1e6 / report.all as f64;
            rows.add(&format!("{name} {first:?}, tunnels/s"), report.counted as f64 / report.seconds);
            rows.add(&format!("{name} {first:?}, CPU us"), cpu);
            rows.add(&format!("{name} {first:?}, errors"), report.errors as f64);
        }
    }
    rows.report();
    for peer in ["tinyproxy", "squid"] {
        for (first, name) in [(First::Byte, "plain"), (First::Hello, "hello")] {
            let of = |way| format!("{way} {first:?}, tunnels/s");
            rows.ratio(&format!("connect_vs_{peer}_{name}"), &of("gateway"), &of(peer));
        }
    }
    Ok(())
}
