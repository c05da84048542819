//! What it costs to count a sample and to ask a closed breaker.
//!
//! Run with `cargo bench -p agt-sre`. Batches of the measured work and of an empty loop over the same inputs take
//! turns, so that a noisy machine disturbs both alike; each figure is the median of all batches, loop included.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use agt_sre::breaker::{Breaker, BreakerSettings, CallOutcome, Jitter};
use agt_sre::engine::Engine;
use agt_sre::sli::{ClassId, Evidence, Outcome, Sample, Severity, Sli};
use agt_sre::spec::{Limit, Share, SloSpec, resolve};
use agt_sre::time::Timestamp;

const BATCHES: usize = 401;
const BATCH: u64 = 20_000;
const START_MS: u64 = 1_700_000_000_000;

fn main() {
    let mut engine = engine();
    let samples = samples();
    // A sample each millisecond: windows turn over as they would under a thousand samples a second.
    let record = measure(|index| {
        let sample = &samples[(index % samples.len() as u64) as usize];
        let now = Timestamp::from_millis(START_MS + index);
        let _ = black_box(engine.record(black_box(sample), black_box(now)));
    });
    let start = Timestamp::from_millis(START_MS + BATCH * BATCHES as u64);
    let evaluate = measure_batches(200, |index| {
        black_box(engine.evaluate(black_box(start.plus(Duration::from_millis(index)))));
    });

    let mut breaker = Breaker::new(BreakerSettings::default()).expect("default settings are sound");
    let now = Timestamp::from_millis(START_MS);
    let check = measure(|_| {
        let _ = black_box(breaker.acquire(black_box(now)));
    });
    let call = measure(|index| {
        let now = Timestamp::from_millis(START_MS + index);
        if let Ok(permit) = breaker.acquire(black_box(now)) {
            let took = Duration::from_millis(3);
            let _ = black_box(breaker.finish(permit, CallOutcome::Ok, took, now, Jitter::NONE));
        }
    });

    for (what, found) in [
        ("record a sample", record),
        ("evaluate 7 SLOs", evaluate),
        ("ask a closed breaker", check),
        ("ask it and report the result", call),
    ] {
        println!(
            "{what}: p50 {:.1} ns, p99 {:.1} ns per operation; the empty loop {:.1} ns",
            found.p50, found.p99, found.empty
        );
    }
    println!("RATIO sli_record_ns={:.1}", record.p50);
    println!("RATIO breaker_check_ns={:.1}", check.p50);
}

/// Nanoseconds per operation.
#[derive(Clone, Copy)]
struct Found {
    p50: f64,
    p99: f64,
    empty: f64,
}

fn measure(operation: impl FnMut(u64)) -> Found {
    measure_batches(BATCH, operation)
}

fn measure_batches(batch: u64, mut operation: impl FnMut(u64)) -> Found {
    let (mut worked, mut empty) = (Vec::with_capacity(BATCHES), Vec::with_capacity(BATCHES));
    let mut from = 0;
    for _ in 0..BATCHES {
        worked.push(nanos_each(batch, || (from..from + batch).for_each(&mut operation)));
        empty.push(nanos_each(batch, || {
            (from..from + batch).for_each(|index| {
                black_box(index);
            });
        }));
        from += batch;
    }
    worked.sort_by(f64::total_cmp);
    empty.sort_by(f64::total_cmp);
    Found { p50: worked[BATCHES / 2], p99: worked[BATCHES * 99 / 100], empty: empty[BATCHES / 2] }
}

fn nanos_each(batch: u64, work: impl FnOnce()) -> f64 {
    let before = Instant::now();
    work();
    before.elapsed().as_nanos() as f64 / batch as f64
}

/// One SLO for each indicator.
fn engine() -> Engine {
    let specs: Vec<SloSpec> = Sli::ALL
        .into_iter()
        .map(|sli| SloSpec {
            name: sli.to_string(),
            sli,
            objective: Share(0.99),
            period: None,
            threshold: match sli {
                Sli::Latency => Some(Limit::Duration(Duration::from_secs(2))),
                Sli::Cost => Some(Limit::Number(0.05)),
                _ => None,
            },
            minimum_events: None,
            remedies: None,
            trips: None,
        })
        .collect();
    Engine::new(resolve(&specs).expect("sound specs")).expect("as many as indicators")
}

/// Good, bad, measured and capped ones, of every indicator.
fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for sli in Sli::ALL {
        samples.push(Sample::new(sli, Outcome::Good, Evidence::Supervisor));
        samples.push(Sample::new(sli, Outcome::Bad, Evidence::SelfReported));
    }
    samples.push(Sample::new(Sli::Latency, Outcome::Value(1.5), Evidence::Supervisor));
    samples.push(Sample::new(Sli::Cost, Outcome::Value(0.5), Evidence::Supervisor));
    samples.push(Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::High));
    samples
}
