//! The shape of a saga: who comes before whom, and where the pivot stands.

use std::collections::HashMap;

use super::problem::{Path, Problem, ProblemKind};
use super::{NAME_BYTES_MAX, STEPS_MAX};
use crate::plan::topological_order;
use crate::spec::{ClassSpec, SagaSpec, StepSpec, StepsForm};

/// What the other rules need to know of the graph.
pub(super) struct Shape {
    /// Each step's place in the file.
    pub(super) paths: Vec<Path>,
    /// Positions by name; the first of two.
    pub(super) positions: HashMap<String, usize>,
    /// `ancestors[a][b]`: b is done before a starts.
    pub(super) ancestors: Vec<Vec<bool>>,
    /// The point of no return.
    pub(super) pivot: Option<usize>,
}

impl Shape {
    pub(super) fn of(spec: &SagaSpec, problems: &mut Vec<Problem>) -> Self {
        let paths = paths(spec);
        let positions = names(spec, &paths, problems);
        let (needs, dependents) = edges(spec, &paths, &positions, problems);
        let ancestors = match topological_order(&needs, &dependents) {
            Ok(order) => ancestors(&needs, &order),
            Err(stuck) => {
                cycle(spec, &paths, &needs, stuck, problems);
                vec![vec![false; needs.len()]; needs.len()]
            }
        };
        let pivot = pivot(spec, &paths, problems);
        Self { paths, positions, ancestors, pivot }
    }

    /// Whether `step` starts only after the pivot is done.
    pub(super) fn past_pivot(&self, step: usize) -> bool {
        self.pivot.is_some_and(|pivot| self.ancestors[step][pivot])
    }

    /// Whether every other step is done before `step` starts: when it is done, so is the saga.
    pub(super) fn comes_last(&self, step: usize) -> bool {
        (0..self.paths.len()).all(|other| other == step || self.ancestors[step][other])
    }
}

fn paths(spec: &SagaSpec) -> Vec<Path> {
    let steps = Path::default().key("steps");
    let place = |(at, step): (usize, &crate::spec::StepSpec)| match spec.steps.form {
        StepsForm::List => steps.index(at),
        StepsForm::Map => steps.key(&step.name),
    };
    spec.steps.list.iter().enumerate().map(place).collect()
}

pub(super) fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn names(spec: &SagaSpec, paths: &[Path], problems: &mut Vec<Problem>) -> HashMap<String, usize> {
    let mut report = |path: Path, kind| problems.push(Problem { path, kind });
    let root = Path::default();
    if spec.version != 1 {
        report(root.key("version"), ProblemKind::Version { found: spec.version });
    }
    if spec.kind != "saga" {
        report(root.key("kind"), ProblemKind::Kind { found: spec.kind.clone() });
    }
    if !is_name(&spec.name) {
        report(root.key("name"), ProblemKind::Name { name: spec.name.clone() });
    }
    match spec.steps.list.len() {
        0 => report(root.key("steps"), ProblemKind::NoSteps),
        found if found > STEPS_MAX => report(root.key("steps"), ProblemKind::TooManySteps { found }),
        _ => {}
    }
    let mut positions = HashMap::new();
    for (at, step) in spec.steps.list.iter().enumerate() {
        let path = match spec.steps.form {
            StepsForm::List => paths[at].key("name"),
            StepsForm::Map => paths[at].clone(),
        };
        if !is_name(&step.name) {
            report(path, ProblemKind::Name { name: step.name.clone() });
        } else if positions.contains_key(&step.name) {
            report(path, ProblemKind::DuplicateName { name: step.name.clone() });
        } else {
            positions.insert(step.name.clone(), at);
        }
    }
    positions
}

type Edges = Vec<Vec<usize>>;

fn edges(
    spec: &SagaSpec,
    paths: &[Path],
    positions: &HashMap<String, usize>,
    problems: &mut Vec<Problem>,
) -> (Edges, Edges) {
    let count = spec.steps.list.len();
    let (mut needs, mut dependents) = (vec![Vec::new(); count], vec![Vec::new(); count]);
    for (at, step) in spec.steps.list.iter().enumerate() {
        for (number, name) in step.needs.iter().enumerate() {
            let path = paths[at].key("needs").index(number);
            let Some(before) = positions.get(name).copied() else {
                let candidates = candidates(spec, at);
                problems.push(Problem { path, kind: ProblemKind::UnknownNeed { name: name.clone(), candidates } });
                continue;
            };
            if needs[at].contains(&before) {
                problems.push(Problem { path, kind: ProblemKind::DuplicateNeed { name: name.clone() } });
                continue;
            }
            needs[at].push(before);
            dependents[before].push(at);
        }
    }
    (needs, dependents)
}

/// The names that could have been meant at step `at`: all but its own.
pub(super) fn candidates(spec: &SagaSpec, at: usize) -> Vec<String> {
    let others = spec.steps.list.iter().enumerate().filter(|(other, _)| *other != at);
    others.map(|(_, step)| step.name.clone()).collect()
}

fn ancestors(needs: &Edges, order: &[usize]) -> Vec<Vec<bool>> {
    let mut ancestors = vec![vec![false; needs.len()]; needs.len()];
    for at in order.iter().copied() {
        for before in needs[at].iter().copied() {
            let row = ancestors[before].clone();
            for (mine, theirs) in ancestors[at].iter_mut().zip(row) {
                *mine |= theirs;
            }
            ancestors[at][before] = true;
        }
    }
    ancestors
}

/// Names one cycle, found by walking back from a step that no order could place: each such step has such a need.
fn cycle(spec: &SagaSpec, paths: &[Path], needs: &Edges, stuck: usize, problems: &mut Vec<Problem>) {
    let placed = placed(needs);
    let mut walk = vec![stuck];
    let start = loop {
        let at = *walk.last().expect("the walk begins with a step");
        let before = *needs[at].iter().find(|before| !placed[**before]).expect("an unplaced step has an unplaced need");
        if let Some(start) = walk.iter().position(|seen| *seen == before) {
            break start;
        }
        walk.push(before);
    };
    let mut names: Vec<String> = walk[start..].iter().map(|at| spec.steps.list[*at].name.clone()).collect();
    names.push(names[0].clone());
    let path = paths[walk[start]].key("needs");
    problems.push(Problem { path, kind: ProblemKind::Cycle { path: names } });
}

/// Which steps could run, were the cycles never closed.
fn placed(needs: &Edges) -> Vec<bool> {
    let mut placed = vec![false; needs.len()];
    while let Some(next) = (0..needs.len()).find(|at| !placed[*at] && needs[*at].iter().all(|before| placed[*before])) {
        placed[next] = true;
    }
    placed
}

fn pivot(spec: &SagaSpec, paths: &[Path], problems: &mut Vec<Problem>) -> Option<usize> {
    let mut pivots = spec.steps.list.iter().enumerate().filter(|(_, step)| is_pivot(step)).map(|(at, _)| at);
    let first = pivots.next()?;
    for second in pivots {
        let kind = ProblemKind::SecondPivot { first: spec.steps.list[first].name.clone() };
        let key = if spec.steps.list[second].pivot { "pivot" } else { "class" };
        problems.push(Problem { path: paths[second].key(key), kind });
    }
    Some(first)
}

fn is_pivot(step: &StepSpec) -> bool {
    step.pivot || step.class == Some(ClassSpec::Pivot)
}
