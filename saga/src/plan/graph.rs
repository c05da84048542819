//! What can be reckoned from a plan's steps: who comes before whom, and where the pivot stands.

use super::{Class, PlanError, Step};

/// What can be reckoned from the steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Graph {
    /// Positions in the order of their steps' names: few and short, so that comparing beats hashing.
    by_name: Vec<usize>,
    pub(super) needs: Vec<Vec<usize>>,
    pub(super) descendants: Vec<Vec<usize>>,
    pub(super) pivot: Option<usize>,
}

impl Graph {
    pub(super) fn of(steps: &[Step]) -> Result<Self, PlanError> {
        let fault = |step: &Step, fault| PlanError::Graph { step: step.name.clone(), fault };
        let mut by_name: Vec<usize> = (0..steps.len()).collect();
        by_name.sort_by_key(|at| &steps[*at].name);
        if let Some(twice) = by_name.windows(2).find(|pair| steps[pair[0]].name == steps[pair[1]].name) {
            return Err(fault(&steps[twice[1]], "stands there twice"));
        }
        let mut needs = vec![Vec::new(); steps.len()];
        let mut dependents = vec![Vec::new(); steps.len()];
        for (at, step) in steps.iter().enumerate() {
            for need in &step.needs {
                let before =
                    find(steps, &by_name, need).ok_or_else(|| fault(step, "needs a step that doesn't exist"))?;
                needs[at].push(before);
                dependents[before].push(at);
            }
        }
        let order = topological_order(&needs, &dependents).map_err(|at| fault(&steps[at], "waits for itself"))?;
        let descendants = descendants(&dependents, &order);
        let pivot = steps.iter().position(|step| step.class == Class::Pivot);
        Ok(Self { by_name, needs, descendants, pivot })
    }
}

impl Graph {
    /// The position of the step called `name`, of the steps that this graph was made of.
    pub(super) fn position(&self, steps: &[Step], name: &str) -> Option<usize> {
        find(steps, &self.by_name, name)
    }
}

fn find(steps: &[Step], by_name: &[usize], name: &str) -> Option<usize> {
    by_name.binary_search_by(|at| steps[*at].name.as_str().cmp(name)).ok().map(|found| by_name[found])
}

fn descendants(dependents: &[Vec<usize>], order: &[usize]) -> Vec<Vec<usize>> {
    let mut descendants: Vec<Vec<usize>> = vec![Vec::new(); dependents.len()];
    for at in order.iter().rev().copied() {
        let mut after: Vec<usize> = dependents[at].clone();
        after.extend(dependents[at].iter().flat_map(|near| descendants[*near].iter().copied()));
        after.sort_unstable();
        after.dedup();
        descendants[at] = after;
    }
    descendants
}

/// Positions so that each comes after all it needs (Kahn 1962).
///
/// # Errors
/// The position of a step on, or behind, a cycle.
pub(crate) fn topological_order(needs: &[Vec<usize>], dependents: &[Vec<usize>]) -> Result<Vec<usize>, usize> {
    let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..needs.len()).filter(|at| open[*at] == 0).collect();
    let mut next = 0;
    while let Some(at) = order.get(next).copied() {
        next += 1;
        for dependent in &dependents[at] {
            open[*dependent] -= 1;
            if open[*dependent] == 0 {
                order.push(*dependent);
            }
        }
    }
    match open.iter().position(|count| *count > 0) {
        Some(stuck) => Err(stuck),
        None => Ok(order),
    }
}
