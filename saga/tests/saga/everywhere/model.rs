//! What must come of a saga, from what its author wrote and what the world did. No journals, attempts or crashes here.
//!
//! A saga is read as its guide reads: a step runs when all it needs is done; one whose condition doesn't hold is left out;
//! one that can't be done turns the saga back, unless the pivot is done; going back, everything is undone but what can't be.
//! What nobody can know of a step is settled by its rule, of which one, to undo it, means that it can't be done.

use std::collections::{BTreeMap, BTreeSet};

use agt_saga::record::EndState;

use super::graphs::{Graph, Kind, Node, Settle};

/// What the world did that is not in the graph.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    /// Who ran forward and gave no answer, at least once.
    pub(crate) unanswered: BTreeSet<String>,
    /// Whether an operator's cancel was accepted.
    pub(crate) cancelled: bool,
    /// Effects that an operator was told to leave in place.
    pub(crate) left: BTreeSet<String>,
}

/// What must hold at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) turned: bool,
    /// Effects that must be there.
    pub(crate) must: BTreeSet<String>,
    /// Effects that may be.
    pub(crate) may: BTreeSet<String>,
    /// Of each of these groups so many must be there.
    pub(crate) some_of: Vec<(Vec<String>, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// Left out, or skipped by an operator: what needs it goes on, and it gives nothing.
    Without,
    Fails,
}

/// Whether one that acts can be done at all.
fn can(graph: &Graph, facts: &Facts, node: &Node, name: &str) -> bool {
    let is_undone_unknown = node.settle == Settle::Undo && facts.unanswered.contains(name);
    !graph.scripts[name].always_fails && !is_undone_unknown
}

fn fate(graph: &Graph, facts: &Facts, node: &Node, fates: &BTreeMap<&str, Fate>) -> Fate {
    if let Some(asked) = &node.when {
        match fates[asked.as_str()] {
            // Nobody can say whether the condition holds.
            Fate::Without | Fate::Fails => return Fate::Fails,
            Fate::Done if !graph.node(asked).flag => return Fate::Without,
            Fate::Done => {}
        }
    }
    let gave_nothing = |need: &String| graph.node(need).kind == Kind::Effect && fates[need.as_str()] != Fate::Done;
    if node.strict && node.needs.iter().any(gave_nothing) {
        return Fate::Fails;
    }
    let done = match &node.kind {
        Kind::Wait => true,
        Kind::Approval { yes } => *yes >= 2,
        Kind::Effect => can(graph, facts, node, &node.name),
        // Past the pivot an operator lets a branch be that can't be done, and the others count.
        Kind::Fan { .. } if node.past => true,
        Kind::Fan { enough, .. } => {
            node.actors().iter().filter(|name| can(graph, facts, node, name)).count() >= *enough
        }
    };
    if done { Fate::Done } else { Fate::Fails }
}

pub(crate) fn expected(graph: &Graph, facts: &Facts) -> Expected {
    let mut fates: BTreeMap<&str, Fate> = BTreeMap::new();
    let mut turned = facts.cancelled;
    let mut behind_failure: BTreeSet<&str> = BTreeSet::new();
    // A step only ever needs steps that stand before it.
    for node in &graph.nodes {
        let unreachable = node.needs.iter().any(|need| behind_failure.contains(need.as_str()));
        let mut fate = if unreachable { Fate::Fails } else { fate(graph, facts, node, &fates) };
        if fate == Fate::Fails && node.past && !turned {
            // There is no way back: an operator lets it be.
            fate = Fate::Without;
        }
        if fate == Fate::Fails {
            turned = true;
            behind_failure.insert(&node.name);
        }
        fates.insert(&node.name, fate);
    }
    let mut expected = Expected { turned, must: BTreeSet::new(), may: facts.left.clone(), some_of: Vec::new() };
    for node in graph.nodes.iter().filter(|node| !node.reads_only) {
        if turned {
            // What nothing undoes stays, if it had been done by then.
            if node.irreversible {
                expected.may.extend(node.actors());
            }
        } else if fates[node.name.as_str()] == Fate::Done {
            match node.kind {
                Kind::Fan { .. } if node.past => {
                    expected.must.extend(node.actors().into_iter().filter(|name| can(graph, facts, node, name)));
                }
                Kind::Fan { enough, .. } => expected.some_of.push((node.actors(), enough)),
                _ => expected.must.extend(node.actors()),
            }
        }
    }
    expected
}

/// Everything in which an end differs from what it must be.
pub(crate) fn differences(graph: &Graph, facts: &Facts, end: EndState, present: &BTreeSet<String>) -> Vec<String> {
    let expected = expected(graph, facts);
    let mut wrong = Vec::new();
    let right = match (expected.turned, present.is_empty()) {
        (false, _) => EndState::Completed,
        (true, true) => EndState::Compensated,
        (true, false) => EndState::PartiallyCompensated,
    };
    if end != right {
        wrong.push(format!("it ended as {end:?}, the model says {right:?} ({facts:?})"));
    }
    wrong.extend(expected.must.difference(present).map(|name| format!("the effect of {name} is missing")));
    let mut allowed: BTreeSet<String> = expected.must.union(&expected.may).cloned().collect();
    for (group, enough) in &expected.some_of {
        let there = group.iter().filter(|name| present.contains(*name) && !facts.left.contains(*name)).count();
        if there != *enough {
            wrong.push(format!("{there} of {group:?} are there, {enough} should be"));
        }
        allowed.extend(group.iter().cloned());
    }
    wrong.extend(present.difference(&allowed).map(|name| format!("the effect of {name} is there and must not be")));
    wrong
}
