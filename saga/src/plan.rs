//! The resolved saga: defaults filled in, references parsed, the graph known to have no cycle.
//!
//! A plan is what the journal keeps in a saga's first event, word for word with its hash: a changed file never changes a
//! running saga, and a plan written today must load for ever. Fields are therefore only ever added, with a default.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use call::{Approval, Body, Call, Delegate, FillError, Http, Mcp, Request, SubSaga, Wait};
pub(crate) use graph::topological_order;
pub use params::{Param, ParamsError};
pub use value::{Condition, Source, Test};
pub(crate) use value::{present, same, walk};
pub use work::{CHECK_TIMEOUT_DEFAULT_MS, Retry, TIMEOUT_DEFAULT_MS, Work};

use crate::id::RunKind;
use crate::schema::Schema;
use graph::Graph;

mod call;
mod graph;
mod params;
mod value;
mod work;

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
    /// What it is given when it begins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Param>,
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
    /// When it runs at all; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// The list that it fans out over: one branch for each item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<Each>,
    /// What it is given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Source>,
    /// What makes the effect.
    pub forward: Work,
    /// The shape that its output must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Schema>,
    /// How an unknown effect is settled.
    pub on_unknown: OnUnknown,
    /// The probe: what says whether the effect is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Work>,
    /// The undo: what takes the effect back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Work>,
    /// Its effects are files, kept apart from those of others until they are published; dropping them undoes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

impl Step {
    /// Its work for one kind of run; the forward one where that kind isn't declared.
    #[must_use]
    pub fn work(&self, kind: RunKind) -> &Work {
        let work = match kind {
            RunKind::Forward => None,
            RunKind::Check => self.check.as_ref(),
            RunKind::Compensate => self.compensate.as_ref(),
        };
        work.unwrap_or(&self.forward)
    }
}

/// A list to fan out over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Each {
    /// The list.
    pub items: Source,
    /// How many branches have to be done.
    pub enough: Enough,
}

/// How many branches of a fan-out have to be done. The others are cancelled, settled and undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enough {
    /// Every one.
    All,
    /// One.
    Any,
    /// More than half.
    Majority,
    /// This many.
    Count(u32),
}

impl Enough {
    /// How many that is of so many.
    #[must_use]
    pub fn of(self, branches: usize) -> usize {
        match self {
            Self::All => branches,
            Self::Any => 1,
            Self::Majority => branches / 2 + 1,
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }
}

/// Effects that are files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// When they are published.
    pub publish: Publish,
}

/// When files are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publish {
    /// When the saga is completed.
    Saga,
    /// When the step is done.
    Step,
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
    /// Can't be undone, and is not the point of no return: if the saga goes back, its effect stays.
    Irreversible,
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

    /// What is written of it.
    #[must_use]
    pub fn document(&self) -> &PlanDocument {
        &self.document
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

    /// Its parameters, with what stands in for those that are not given.
    ///
    /// # Errors
    /// [`ParamsError`] when one is missing, unknown or not of its shape.
    pub fn params(&self, given: Map<String, Value>) -> Result<Map<String, Value>, ParamsError> {
        params::complete(&self.document.params, given)
    }

    /// The version of the records that a saga of this plan needs: a program that knows only an older one would leave out
    /// what it doesn't know, and must not run it.
    pub(crate) fn version(&self) -> u32 {
        let first = |step: &Step| {
            let works = [Some(&step.forward), step.check.as_ref(), step.compensate.as_ref()];
            let is_first = |work: &Work| {
                work.call.command().is_some() && work.secrets.is_empty() && work.retry.non_retryable_errors.is_empty()
            };
            let plain = |source: &Source| matches!(source, Source::Literal(_) | Source::Output { default: None, .. });
            works.into_iter().flatten().all(is_first)
                && step.inputs.values().all(plain)
                && (&step.when, &step.each, &step.output_schema, step.files) == (&None, &None, &None, None)
                && step.class != Class::Irreversible
        };
        if self.document.params.is_empty() && self.steps().iter().all(first) { 1 } else { 2 }
    }

    /// The steps, in the order of the file.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.document.steps
    }

    /// The position of the step called `name`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.graph.position(self.steps(), name)
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

#[cfg(test)]
mod tests {
    use super::*;

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
