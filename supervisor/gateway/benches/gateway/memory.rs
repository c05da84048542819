//! Memory: of a connection at rest, and of a thousand streams.

use std::net::SocketAddr;
use std::time::Duration;

use super::children::Process;
use super::gateway::Tunnels;
use super::orders::{Door, Held, Order};
use super::rows::say;
use super::{ASK, Anything, Bench, request, stream_request};

const IDLE: usize = 1_200;
/// 150 connections of each: below what one agent may have.
const AGENTS: usize = 8;
/// So that the threads, their pools and the first pages of the heap are there before.
const WARM: usize = 64;
/// A stream at rest says nothing for so long.
const REST_US: u64 = 60_000_000;
const SETTLES: Duration = Duration::from_millis(1_000);

/// A thousand streams: each twice a second, for so long.
const STREAMS: usize = 1_000;
const STREAM_AGENTS: usize = 100;
const STREAM_US: u64 = 500_000;
const STREAM_MILLIS: u64 = 6_000;

pub(crate) fn memory(bench: &mut Bench) -> Result<(), Anything> {
    let port = bench.upstream.echo.port();
    let connect = format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    let [post, secured] = ["/openai", "/secured"].map(|prefix| request("POST", prefix, None, ASK));
    let [stream, secured_stream] =
        ["/openai", "/secured"].map(|prefix| stream_request(prefix, None, REST_US, 1_000_000));
    let all = [
        ("keepalive", Held::KeepAlive, post.clone()),
        ("keepalive_tls", Held::KeepAlive, secured.clone()),
        ("tunnel", Held::Tunnel, connect),
        ("sse", Held::Stream, stream),
        ("sse_tls", Held::Stream, secured_stream),
    ];
    for (name, held, request) in all {
        let warm = if name.ends_with("tls") { &secured } else { &post };
        let (rss, pss) = at_rest(bench, held, &request, warm)?;
        println!("{name}: {rss:.1} KiB a connection at rest (PSS {pss:.1}), of {IDLE}");
        say(&format!("memory_{name}_kib"), rss, 1);
    }
    for (name, prefix) in [("plain", "/openai"), ("tls", "/secured")] {
        thousand(bench, name, prefix)?;
    }
    Ok(())
}

fn doors(all: &[SocketAddr], request: &str) -> Vec<Door> {
    all.iter().map(|at| Door { at: *at, request: request.to_owned() }).collect()
}

/// What one connection of many adds, in KiB: resident, and PSS.
fn at_rest(bench: &mut Bench, held: Held, request: &str, warm: &str) -> Result<(f64, f64), Anything> {
    let (gateway, all) = bench.gateway(AGENTS, Tunnels::Named)?;
    bench.order(&Order::Hold { doors: doors(&all, warm), count: WARM, held: Held::KeepAlive })?;
    bench.order(&Order::Release)?;
    let before = settled(&gateway.process);
    bench.order(&Order::Hold { doors: doors(&all, request), count: IDLE, held })?;
    let after = settled(&gateway.process);
    bench.order(&Order::Release)?;
    let each = |after: f64, before: f64| (after - before) / IDLE as f64;
    Ok((each(after.0, before.0), each(after.1, before.1)))
}

fn settled(process: &Process) -> (f64, f64) {
    std::thread::sleep(SETTLES);
    process.memory()
}

/// A thousand streams from a hundred agents.
fn thousand(bench: &mut Bench, name: &str, prefix: &str) -> Result<(), Anything> {
    let (gateway, all) = bench.gateway(STREAM_AGENTS, Tunnels::Named)?;
    let doors = doors(&all, &stream_request(prefix, None, STREAM_US, 1_000_000));
    let alone = settled(&gateway.process).0;
    // Memory is looked at while they run: what there is at the end is not the most.
    let most = std::thread::scope(|scope| {
        let (done, over) = std::sync::mpsc::channel::<()>();
        let watching = scope.spawn({
            let process = &gateway.process;
            move || {
                let mut most = 0.0_f64;
                while over
                    .recv_timeout(Duration::from_millis(250))
                    .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    most = most.max(process.memory().0);
                }
                most
            }
        });
        let report = bench.order(&Order::Streams { doors, count: STREAMS, warm_millis: 3_000, millis: STREAM_MILLIS });
        drop(done);
        let most = watching.join().unwrap_or(f64::NAN);
        report.map(|report| (most, report))
    });
    let (most, report) = most?;
    println!(
        "{STREAMS} streams, {name}: {:.1} MiB at most, {:.1} before; {} events, delay p50 {:.2} ms, p99 {:.2} ms",
        most / 1024.0,
        alone / 1024.0,
        report.all,
        report.p50 / 1e3,
        report.p99 / 1e3
    );
    say(&format!("streams1000_{name}_rss_mib"), most / 1024.0, 1);
    say(&format!("streams1000_{name}_errors"), (report.errors + report.lost) as f64, 0);
    Ok(())
}
