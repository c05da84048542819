//! From spec to plan, or everything that is wrong with it at once.
//!
//! A saga is judged before anything starts, because a missing undo is found out too late at the moment it is needed.
//! All problems are reported together, each with the place in the file, so that the caller can draw a caret under it.

mod calls;
mod class;
mod graph;
mod problem;
mod resolve;
mod values;

pub use problem::{Path, Problem, ProblemKind, Segment};

use crate::plan::Plan;
use crate::spec::SagaSpec;

/// The most steps in one saga.
pub const STEPS_MAX: usize = 256;
/// The most attempts in one retry budget.
pub const ATTEMPTS_MAX: u32 = 100;
/// The most items of one fan-out.
pub const ITEMS_MAX: usize = 256;
/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Judges and resolves a saga.
///
/// # Errors
/// Every problem found, in the order of the file as far as that makes sense.
pub fn plan(spec: &SagaSpec) -> Result<Plan, Vec<Problem>> {
    let mut problems = Vec::new();
    let shape = graph::Shape::of(spec, &mut problems);
    let document = resolve::document(spec, &shape, &mut problems);
    if problems.is_empty() {
        Ok(Plan::new(document).expect("the linter found no fault in the graph"))
    } else {
        Err(problems)
    }
}
