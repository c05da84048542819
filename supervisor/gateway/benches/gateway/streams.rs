//! Streams: how much later an event is there, and whether all are there one by one.

use super::gateway::Tunnels;
use super::orders::{Door, Order};
use super::rows::{Rows, say};
use super::{Anything, Bench, KEY, stream_request};

const STREAMS: usize = 200;
const ROUNDS: usize = 3;
const WARM_MILLIS: u64 = 2_500;
const MILLIS: u64 = 4_000;

/// 200 at once from one agent.
pub(crate) fn delay(bench: &mut Bench) -> Result<(), Anything> {
    let (_gateway, doors) = bench.gateway(1, Tunnels::Any)?;
    let mut rows = Rows::default();
    for per_second in [20, 50] {
        let every = 1_000_000 / per_second;
        let ask = |prefix, key| stream_request(prefix, key, every, 1_000_000);
        let direct = Door { at: bench.upstream.plain, request: ask("", Some(KEY)) };
        let gateway = Door { at: doors[0], request: ask("/openai", None) };
        for _ in 0..ROUNDS {
            for (way, door) in [("direct", &direct), ("gateway", &gateway)] {
                let doors = vec![door.clone()];
                let report =
                    bench.order(&Order::Streams { doors, count: STREAMS, warm_millis: WARM_MILLIS, millis: MILLIS })?;
                let name = format!("{way} at {per_second}/s");
                rows.add(&format!("{name}, p50 ms"), report.p50 / 1e3);
                rows.add(&format!("{name}, p99 ms"), report.p99 / 1e3);
                rows.add(&format!("{name}, events/s"), report.counted as f64 / report.seconds);
                rows.add(&format!("{name}, lost"), report.lost as f64);
                rows.add(&format!("{name}, merged"), report.merged as f64);
                rows.add(&format!("{name}, errors"), report.errors as f64);
            }
        }
    }
    rows.report();
    for per_second in [20, 50] {
        let of = |way: &str, what: &str| format!("{way} at {per_second}/s, {what}");
        for quantile in ["p50", "p99"] {
            let row = |way| of(way, &format!("{quantile} ms"));
            rows.added(&format!("sse{per_second}_{quantile}_ms"), &row("gateway"), &row("direct"), 2);
        }
        for what in ["lost", "merged", "errors"] {
            say(&format!("sse{per_second}_{what}"), rows.sum(&of("gateway", what)), 0);
        }
    }
    Ok(())
}
