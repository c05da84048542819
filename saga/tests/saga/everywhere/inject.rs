//! Each node fails once, twice and for good; each undo fails once, twice and for good; and it is that one which fails.

use std::collections::BTreeMap;

use agt_saga::id::RunKind;
use agt_saga::outcome::Verdict;
use agt_saga::record::{Because, EndState, Event};

use super::graphs::{Graph, Kind, Script};
use super::model;
use super::sim::{Life, Plant, live};

const SEEDS: std::ops::Range<u64> = 0..60;

/// A graph where everything goes well and nobody interferes, but with budgets for two failures of each run.
fn calm(seed: u64) -> Graph {
    let graph = Graph::from_seed(seed);
    let mut nodes = graph.nodes;
    for node in &mut nodes {
        node.when = None;
        if let Kind::Approval { yes } = &mut node.kind {
            *yes = 2;
        }
    }
    let names = graph.scripts.into_keys();
    let scripts = names.map(|name| (name, Script { fails: 2, undo_fails: 2, ms: 5, ..Script::default() })).collect();
    // The budgets are reckoned from these scripts; what then happens, from those that are put in their place.
    let mut graph = Graph::new(seed, nodes, scripts, Vec::new());
    graph.scripts.values_mut().for_each(|script| *script = Script { ms: 5, ..Script::default() });
    graph
}

fn with(graph: &Graph, change: impl Fn(&mut BTreeMap<String, Script>)) -> Life {
    let mut graph = graph.clone();
    change(&mut graph.scripts);
    let life = live(&graph, Plant::None, &[]).unwrap();
    assert_eq!(life.violations, Vec::<String>::new(), "seed {}", graph.seed);
    let differences = model::differences(&graph, &life.facts, life.end, &life.present);
    assert_eq!(differences, Vec::<String>::new(), "seed {}", graph.seed);
    life
}

/// How often each run of this kind failed, by name.
fn failures(life: &Life, kind: RunKind) -> BTreeMap<String, usize> {
    let mut failures = BTreeMap::new();
    for record in &life.records {
        if let Event::Finished(finished) = &record.event
            && finished.run.kind == kind
            && matches!(finished.verdict, Verdict::Failed | Verdict::FailedForGood)
        {
            *failures.entry(finished.run.step.clone()).or_default() += 1;
        }
    }
    failures
}

/// Whether it is a branch that isn't needed if others are done.
fn may_lose(graph: &Graph, name: &str) -> bool {
    matches!(graph.node(name).kind, Kind::Fan { items, enough, .. } if enough < items)
}

fn only(name: &str, times: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(name.to_owned(), times)])
}

#[test]
fn each_node_that_fails_once_or_twice_is_repeated_and_no_other() {
    for graph in SEEDS.map(calm) {
        for name in graph.scripts.keys() {
            for times in [1, 2] {
                let life = with(&graph, |scripts| scripts.get_mut(name).unwrap().fails = times);
                let failed = failures(&life, RunKind::Forward);
                if may_lose(&graph, name) {
                    // Others may have been quicker than its repetition.
                    assert!(failed.keys().all(|other| other == name), "seed {}: {failed:?}", graph.seed);
                } else {
                    assert_eq!(failed, only(name, times as usize), "seed {}", graph.seed);
                }
                assert_eq!(life.end, EndState::Completed);
            }
        }
    }
}

#[test]
fn each_node_that_fails_for_good_is_the_one_that_turns_its_saga_round() {
    let (mut turned, mut skipped) = (0, 0);
    for graph in SEEDS.map(calm) {
        for name in graph.scripts.keys() {
            let life = with(&graph, |scripts| scripts.get_mut(name).unwrap().always_fails = true);
            let failed = failures(&life, RunKind::Forward);
            let is_it = failed.keys().eq([name]) || (failed.is_empty() && may_lose(&graph, name));
            assert!(is_it, "seed {}: {failed:?} instead of {name}", graph.seed);
            let node = graph.node(name);
            let because = life.records.iter().find_map(|record| match &record.event {
                Event::Unwinding(Because::Failed { step }) => Some(step.clone()),
                _ => None,
            });
            match &node.kind {
                // Enough others were done.
                Kind::Fan { .. } if may_lose(&graph, name) => {
                    assert_eq!((because, life.end), (None, EndState::Completed), "seed {}: {name}", graph.seed);
                }
                _ if node.past => {
                    skipped += 1;
                    assert_eq!((because, life.end), (None, EndState::Completed), "seed {}: {name}", graph.seed);
                }
                _ => {
                    turned += 1;
                    assert_eq!(because.as_deref(), Some(node.name.as_str()), "seed {}", graph.seed);
                    assert_ne!(life.end, EndState::Completed);
                }
            }
        }
    }
    assert!(turned > 100 && skipped > 5, "{turned} turned their sagas round, {skipped} were past the pivot");
}

/// Who waited for an operator with this question, in the order in which they did.
fn parked(life: &Life, question: RunKind) -> Vec<&str> {
    let parked = life.records.iter().filter_map(|record| match &record.event {
        Event::Parked(parked) if parked.kind == question => Some(parked.step.as_str()),
        _ => None,
    });
    parked.collect()
}

/// Graphs whose last step before any pivot fails for good, so that all before it is undone; with those that can be.
fn undone() -> impl Iterator<Item = (Graph, Vec<String>)> {
    SEEDS.map(calm).filter_map(|mut graph| {
        let breaks = graph.nodes.iter().rev().find(|node| node.kind == Kind::Effect && !node.past)?.clone();
        graph.scripts.get_mut(&breaks.name).unwrap().always_fails = true;
        let life = with(&graph, |_| {});
        let was_undone = |name: &String| {
            life.records.iter().any(|record| {
                matches!(&record.event, Event::Finished(finished)
                    if finished.run.step == *name && finished.run.kind == RunKind::Compensate)
            })
        };
        let names: Vec<String> = graph.scripts.keys().filter(|name| was_undone(name)).cloned().collect();
        Some((graph, names))
    })
}

#[test]
fn each_undo_that_fails_once_or_twice_is_repeated_and_no_other() {
    let mut undos = 0;
    for (graph, names) in undone() {
        for name in &names {
            for times in [1, 2] {
                undos += 1;
                let life = with(&graph, |scripts| scripts.get_mut(name).unwrap().undo_fails = times);
                assert_eq!(failures(&life, RunKind::Compensate), only(name, times as usize), "seed {}", graph.seed);
                assert_ne!(life.end, EndState::Completed);
            }
        }
    }
    assert!(undos > 100, "only {undos} undos failed");
}

#[test]
fn each_undo_that_fails_for_good_is_the_one_that_waits_for_an_operator_while_all_others_are_undone() {
    let mut stuck = 0;
    for (graph, names) in undone() {
        let calm = with(&graph, |_| {});
        for name in &names {
            let life = with(&graph, |scripts| scripts.get_mut(name).unwrap().undo_always_fails = true);
            // Losers whose effect nobody knows ask an operator too, with or without this.
            let asked = parked(&calm, RunKind::Forward);
            assert_eq!(parked(&life, RunKind::Forward), asked, "seed {}", graph.seed);
            assert_eq!(parked(&life, RunKind::Compensate), [name.as_str()], "seed {}", graph.seed);
            let mut expected = calm.present.clone();
            expected.insert(name.clone());
            assert_eq!(life.present, expected, "seed {}: nothing else stays", graph.seed);
            stuck += 1;
        }
    }
    assert!(stuck > 50, "only {stuck} undos got stuck");
}
