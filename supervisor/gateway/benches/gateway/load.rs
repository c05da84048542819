//! The load, in a process of its own: reads orders, carries them out, says what came of them.
//!
//! Clients are raw sockets that read no more of an answer than where it ends: on two cores, what the load itself takes is taken
//! from what it measures.

mod answer;
mod held;
mod requests;
mod streams;
mod tunnels;

use std::io::{BufRead, Write};
use std::sync::Arc;

use super::Anything;
use super::orders::{Order, Report};
use super::threads::Threads;

pub(crate) fn run() -> Result<(), Anything> {
    let threads = Threads::start()?;
    let mut held = None;
    for line in std::io::stdin().lock().lines() {
        let report = match serde_json::from_str(&line?)? {
            Order::Closed { at, request, connections, millis } => {
                requests::closed(&threads, at, &Arc::from(request), connections, millis)?
            }
            Order::Timed { at, request, connections, per_second, millis } => {
                requests::timed(at, &Arc::from(request), connections, per_second, millis)
            }
            Order::Streams { doors, count, warm_millis, millis } => {
                streams::run(&threads, &doors, count, warm_millis, millis)?
            }
            Order::Tunnels { proxy, target, first, connections, millis } => {
                tunnels::run(&threads, proxy, &target, first, connections, millis)?
            }
            Order::Hold { doors, count, held: what } => {
                let (holding, report) = held::hold(&threads, &doors, count, what)?;
                held = Some(holding);
                report
            }
            Order::Release => held.take().map_or_else(Report::default, held::release),
        };
        println!("{}", serde_json::to_string(&report)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Adds up what several clients report; times are the caller's to add.
fn sum(reports: impl IntoIterator<Item = Report>) -> Report {
    let mut whole = Report::default();
    for report in reports {
        whole.counted += report.counted;
        whole.all += report.all;
        whole.errors += report.errors;
        whole.lost += report.lost;
        whole.merged += report.merged;
        whole.first_error = whole.first_error.or(report.first_error);
    }
    whole
}

/// A report of one thing that went wrong.
fn failed(error: &dyn std::fmt::Display) -> Report {
    Report { errors: 1, first_error: Some(error.to_string()), ..Report::default() }
}

/// Fills in the quantiles of `nanos`.
fn quantiles(mut nanos: Vec<u64>, report: Report) -> Report {
    nanos.sort_unstable();
    let at =
        |share: f64| nanos.get((nanos.len() as f64 * share) as usize).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3);
    Report { p50: at(0.50), p99: at(0.99), ..report }
}

/// Waits for all clients.
fn wait<T>(clients: Vec<tokio::task::JoinHandle<T>>) -> Result<Vec<T>, Anything> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let mut all = Vec::with_capacity(clients.len());
        for client in clients {
            all.push(client.await?);
        }
        Ok(all)
    })
}
