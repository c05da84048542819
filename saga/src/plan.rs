//! The resolved saga: defaults filled in, references parsed, the graph known to have no cycle.
//!
//! A plan is what the journal keeps in a saga's first event, word for word with its hash: a changed file never changes a
//! running saga, and a plan written today must load for ever. Fields are therefore only ever added, with a default.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::{Draw, later};

/// How long one attempt may take when nothing is said, in milliseconds.
pub const TIMEOUT_DEFAULT_MS: u64 = 300_000;
/// How long one check may take when nothing is said, in milliseconds.
pub const CHECK_TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// A saga's plan.
#[derive(Clone, PartialEq)]
pub struct Plan {
    document: PlanDocument,
    /// The bytes that are hashed and journaled: those that were read, where it was read.
    text: String,
    graph: Graph,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}

/// What is written of a plan: everything but what can be reckoned from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanDocument {
    /// The saga's name.
    pub name: String,
    /// The ring ceiling of all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<u8>,
    /// The longest the whole saga may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The steps, in the order of the file.
    pub steps: Vec<Step>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in its saga.
    pub name: String,
    /// What its place in the saga asks of it.
    pub class: Class,
    /// The names of the steps before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What it is given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Source>,
    /// The command that makes the effect.
    pub forward: Work,
    /// How an unknown effect is settled.
    pub on_unknown: OnUnknown,
    /// The command that says whether the effect is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Work>,
    /// The command that takes the effect back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Work>,
}

/// A command with all that is needed to run it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// The ring it asks for; the caller's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<u8>,
    /// Where it runs; relative to the saga's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Variables added to its clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The longest one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// Its retries.
    pub retry: Retry,
}

impl fmt::Debug for Work {
    /// Values of `env` are left out: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("command", &self.command)
            .field("ring", &self.ring)
            .field("workdir", &self.workdir)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("timeout_ms", &self.timeout_ms)
            .field("retry", &self.retry)
            .finish()
    }
}

/// What a step's place in the saga asks of it: the classes of Garcia-Molina and Salem ("Sagas", 1987) and of the
/// microservice literature after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Changes nothing: needs no undo and may be run again.
    ReadOnly,
    /// Can be undone.
    Compensatable,
    /// The point of no return.
    Pivot,
    /// Past the pivot: repeated until it succeeds.
    Retriable,
    /// The last step of a saga without a pivot: once it is done there is nothing left that could fail.
    Last,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The file.
    Literal(Value),
    /// An earlier step.
    Output {
        /// That step's name.
        step: String,
        /// The keys to walk down its output; none for all of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
    },
}

/// How an unknown effect is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Run the step again.
    Rerun,
    /// Ask its check.
    Check,
    /// Undo it, then the saga.
    Compensate,
    /// Wait for an operator.
    Operator,
}

/// A retry budget with exponential backoff and full jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How many failed attempts make a failure; at least 1.
    pub attempts: u32,
    /// The bound of the first wait, in milliseconds.
    pub initial_ms: u64,
    /// No wait is longer, in milliseconds.
    pub max_ms: u64,
    /// Exit codes that no retry mends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_retryable: Vec<i32>,
}

impl Retry {
    /// One attempt: what a step has that declares nothing.
    #[must_use]
    pub fn once() -> Self {
        Self { attempts: 1, ..Self::times(1) }
    }

    /// `attempts` attempts with waits of up to 1 s, 2 s, 4 s, ... 30 s.
    #[must_use]
    pub fn times(attempts: u32) -> Self {
        Self { attempts, initial_ms: 1_000, max_ms: 30_000, non_retryable: Vec::new() }
    }

    /// When the next attempt is due after `failures` failed ones (0: at once).
    #[must_use]
    pub fn due_ms(&self, failures: u32, now_ms: i64, draw: Draw) -> i64 {
        let Some(doublings) = failures.checked_sub(1) else { return now_ms };
        let factor = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
        later(now_ms, draw.of(self.initial_ms.saturating_mul(factor).min(self.max_ms)))
    }
}

/// Why a stored plan can't be used. The linter keeps such plans from being written, so this means a damaged journal or
/// one of a newer version.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not a plan at all.
    #[error("the stored plan is no plan of a version that this program knows")]
    Format(#[source] serde_json::Error),
    /// The steps don't form a graph.
    #[error("the stored plan's step `{step}` {fault}")]
    Graph {
        /// The step.
        step: String,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl Plan {
    /// Completes a document.
    ///
    /// # Errors
    /// [`PlanError::Graph`] when a name is used twice, a need is unknown, or steps wait for each other.
    pub fn new(document: PlanDocument) -> Result<Self, PlanError> {
        let graph = Graph::of(&document.steps)?;
        let text = serde_json::to_string(&document).expect("text keys and finite numbers always serialize");
        Ok(Self { document, text, graph })
    }

    /// Reads what [`Plan::text`] gave.
    ///
    /// # Errors
    /// [`PlanError`] when it isn't such a text.
    pub fn from_text(text: &str) -> Result<Self, PlanError> {
        let document: PlanDocument = serde_json::from_str(text).map_err(PlanError::Format)?;
        let graph = Graph::of(&document.steps)?;
        Ok(Self { document, text: text.to_owned(), graph })
    }

    /// The plan as one line of JSON, the same for the same plan: what is hashed and journaled.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The saga's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.document.name
    }

    /// The ring ceiling of all steps.
    #[must_use]
    pub fn ring(&self) -> Option<u8> {
        self.document.ring
    }

    /// The longest the whole saga may take, in milliseconds.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<u64> {
        self.document.timeout_ms
    }

    /// The steps, in the order of the file.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.document.steps
    }

    /// The position of the step called `name`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.graph.positions.get(name).copied()
    }

    /// Positions of the steps that `step` waits for.
    #[must_use]
    pub fn needs(&self, step: usize) -> &[usize] {
        &self.graph.needs[step]
    }

    /// Positions of all steps that come after `step`, near and far.
    #[must_use]
    pub fn descendants(&self, step: usize) -> &[usize] {
        &self.graph.descendants[step]
    }

    /// The position of the point of no return.
    #[must_use]
    pub fn pivot(&self) -> Option<usize> {
        self.graph.pivot
    }
}

/// What can be reckoned from the steps.
#[derive(Debug, Clone, PartialEq)]
struct Graph {
    positions: HashMap<String, usize>,
    needs: Vec<Vec<usize>>,
    descendants: Vec<Vec<usize>>,
    pivot: Option<usize>,
}

impl Graph {
    fn of(steps: &[Step]) -> Result<Self, PlanError> {
        let fault = |step: &Step, fault| PlanError::Graph { step: step.name.clone(), fault };
        let mut positions = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            if positions.insert(step.name.clone(), at).is_some() {
                return Err(fault(step, "stands there twice"));
            }
        }
        let mut needs = vec![Vec::new(); steps.len()];
        let mut dependents = vec![Vec::new(); steps.len()];
        for (at, step) in steps.iter().enumerate() {
            for need in &step.needs {
                let before = *positions.get(need).ok_or_else(|| fault(step, "needs a step that doesn't exist"))?;
                needs[at].push(before);
                dependents[before].push(at);
            }
        }
        let order = topological_order(&needs, &dependents).map_err(|at| fault(&steps[at], "waits for itself"))?;
        let descendants = descendants(&dependents, &order);
        let pivot = steps.iter().position(|step| step.class == Class::Pivot);
        Ok(Self { positions, needs, descendants, pivot })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound_and_never_overflows() {
        let retry = Retry { attempts: 9, initial_ms: 100, max_ms: 1_000, non_retryable: vec![] };
        let waits: Vec<i64> = (0..7).map(|failures| retry.due_ms(failures, 0, Draw::LONGEST)).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(retry.due_ms(u32::MAX, 0, Draw::LONGEST), 1_000);
        assert_eq!(retry.due_ms(4, 50, Draw(0)), 50);
    }

    #[test]
    fn a_damaged_plan_is_named_and_not_run() {
        let step = |name: &str, needs: &[&str]| {
            serde_json::json!({"name": name, "class": "compensatable", "needs": needs, "on_unknown": "operator",
                "forward": {"command": ["x"], "timeout_ms": 1, "retry": {"attempts": 1, "initial_ms": 1, "max_ms": 1}}})
        };
        let load = |steps: Vec<Value>| Plan::from_text(&serde_json::json!({"name": "n", "steps": steps}).to_string());
        assert!(load(vec![step("a", &[]), step("b", &["a"])]).is_ok());
        for (steps, fault) in [
            (vec![step("a", &[]), step("a", &[])], "stands there twice"),
            (vec![step("a", &["b"])], "needs a step that doesn't exist"),
            (vec![step("a", &["b"]), step("b", &["a"])], "waits for itself"),
        ] {
            assert!(load(steps).unwrap_err().to_string().contains(fault), "{fault}");
        }
        assert!(matches!(Plan::from_text("{"), Err(PlanError::Format(_))));
    }
}
