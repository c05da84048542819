//! Crash everywhere, over sagas of every kind of step: before and after each journal write, spawn and effect, going forward
//! and going back, and again during the recovery from that.
//!
//! `graphs` makes the sagas, `sim` lives them, `model` says what must come of them. The driver itself, with its tasks and
//! clocks, is stopped everywhere in `crash`; here it is the machine, its records and its replay, at a hundred times the pace.

use std::collections::BTreeSet;

use agt_saga::record::Event;

use graphs::Graph;
use sim::{Life, Plant, live};

pub(crate) mod graphs;
mod inject;
mod model;
mod sim;

fn faults(graph: &Graph, life: &Life) -> Vec<String> {
    let mut faults = life.violations.clone();
    faults.extend(model::differences(graph, &life.facts, life.end, &life.present));
    faults
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Once,
    RecoveryToo,
}

/// Stops the supervisor everywhere, and its successor everywhere; the places visited, and the faults found.
fn crash_everywhere(graph: &Graph, plant: Plant, depth: Depth) -> (usize, Vec<String>) {
    let (mut places, mut found) = (0, Vec::new());
    let mut judge = |crashes: &[usize]| match live(graph, plant, crashes) {
        Ok(life) => {
            found.extend(faults(graph, &life).into_iter().map(|fault| format!("crashes at {crashes:?}: {fault}")));
            life.places
        }
        Err(error) => {
            found.push(format!("crashes at {crashes:?}: {error}"));
            Vec::new()
        }
    };
    let untouched = judge(&[]);
    for first in 0..untouched.first().copied().unwrap_or(0) {
        places += 1;
        let recovered = judge(&[first]);
        if depth == Depth::RecoveryToo {
            // Every other one, beginning with either: twice as many sagas in the same time.
            for second in (first % 2..recovered.get(1).copied().unwrap_or(0)).step_by(2) {
                places += 1;
                judge(&[first, second]);
            }
        }
    }
    (places, found)
}

fn everywhere(seeds: std::ops::Range<u64>, depth: Depth) -> usize {
    let mut all = 0;
    for seed in seeds {
        let (places, faults) = crash_everywhere(&Graph::from_seed(seed), Plant::None, depth);
        assert!(faults.is_empty(), "seed {seed}: {:#?}", &faults[..faults.len().min(5)]);
        all += places;
    }
    all
}

#[test]
fn a_saga_cut_off_at_any_place_ends_as_the_model_says() {
    let places = everywhere(0..160, Depth::Once);
    assert!(places >= 6_500, "only {places} places were visited");
}

#[test]
fn a_saga_cut_off_again_while_it_recovers_ends_as_the_model_says() {
    let places = everywhere(1_000..1_008, Depth::RecoveryToo);
    assert!(places >= 6_000, "only {places} places were visited");
}

#[test]
fn the_seeds_reach_every_end_and_every_kind_of_record() {
    let (mut ends, mut events) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..160 {
        let graph = Graph::from_seed(seed);
        for crashes in [&[][..], &[9], &[25]] {
            let life = live(&graph, Plant::None, crashes).unwrap();
            ends.insert(life.end.as_str());
            for record in life.records {
                let event: &Event = &record.event;
                let value = serde_json::to_value(event).unwrap();
                let name = value.as_str().map(str::to_owned).or_else(|| value.as_object()?.keys().next().cloned());
                events.insert(name.unwrap());
            }
        }
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), ["compensated", "completed", "partially_compensated"]);
    let all = [
        "asked",
        "bypassed",
        "cancel_noted",
        "created",
        "decided",
        "dropped",
        "ended",
        "finished",
        "gathered",
        "gave_up",
        "halted",
        "left",
        "lost",
        "never_started",
        "parked",
        "paused",
        "rang",
        "recovered",
        "resolved",
        "resumed",
        "retry",
        "slept",
        "spread",
        "started",
        "unwinding",
        "voted",
    ];
    let missing: Vec<&&str> = all.iter().filter(|event| !events.contains(**event)).collect();
    assert!(missing.is_empty(), "no seed led to {missing:?}");
}

/// The first seed whose faults bear the sign is enough.
fn assert_caught(plant: Plant, sign: &str) {
    let caught = (0..60).any(|seed| {
        let (_, faults) = crash_everywhere(&Graph::from_seed(seed), plant, Depth::Once);
        faults.iter().any(|fault| fault.contains(sign))
    });
    assert!(caught, "{plant:?} went unnoticed");
}

#[test]
fn a_supervisor_that_acts_before_it_writes_is_caught() {
    assert_caught(Plant::ActsFirst, "began without a durable intent");
}

#[test]
fn a_disk_that_acknowledges_and_forgets_is_caught() {
    assert_caught(Plant::LyingDisk, "success was acknowledged");
}

#[test]
fn a_recovery_that_guesses_is_caught() {
    assert_caught(Plant::Guesses, "took effect twice");
}

#[test]
fn a_probe_that_lies_is_caught() {
    assert_caught(Plant::LyingProbe, "took effect twice");
}

#[test]
fn a_loser_that_is_forgotten_is_caught() {
    assert_caught(Plant::LosersForgotten, "are there");
}

#[test]
fn an_idempotency_key_that_changes_is_caught() {
    assert_caught(Plant::FreshKeys, "changed its key");
}
