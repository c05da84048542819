//! What the engine can plan and this supervisor can't perform yet: refused when the saga is read, by name.
//!
//! A saga that would come to a step nobody can do is worse than one that never starts.

use agt_saga::plan::{Call, Plan, Step, Work};
use agt_saga::spec::StepsForm;

use crate::config::tree::KeyPath;
use crate::config::{Document, Problem};

/// Everything in a plan that can't be done here yet, at its line where that is known.
pub(super) fn problems(plan: &Plan, place: Option<(&Document, StepsForm)>) -> Vec<Problem> {
    let draw = |path: KeyPath, problem: Problem| match place {
        Some((document, _)) => document.locate(problem, &path),
        None => problem,
    };
    let mut problems = Vec::new();
    for (index, step) in plan.steps().iter().enumerate() {
        let steps = KeyPath::of("steps");
        let at = match place {
            Some((_, StepsForm::List)) => steps.item(index),
            _ => steps.key(&step.name),
        };
        for (key, what) in missing(step) {
            let message = format!("step `{}`: {what} can't be done by this version yet", step.name);
            problems.push(draw(at.key(key), Problem::config(message)));
        }
    }
    let needed = plan.document().params.iter().filter(|(_, param)| param.default.is_none());
    for (name, _) in needed {
        let message = format!("parameter `{name}` can't be given to a saga by this version yet");
        let problem = Problem::config(message).help("give it a `default`");
        problems.push(draw(KeyPath::of("params").key(name), problem));
    }
    problems
}

/// Which keys of a step ask for something that is missing, and what that is.
fn missing(step: &Step) -> Vec<(&'static str, &'static str)> {
    let mut missing = Vec::new();
    missing.extend(kind(&step.forward).map(|kind| (step.forward.call.kind(), kind)));
    let probe = step.check.as_ref().and_then(kind);
    missing.extend(probe.map(|kind| ("probe", kind)));
    let undo = step.compensate.as_ref().filter(|_| step.files.is_none()).and_then(kind);
    missing.extend(undo.map(|kind| ("undo", kind)));
    if step.files.is_some() {
        missing.push(("effects", "a step with `effects: files`"));
    }
    if !step.forward.secrets.is_empty() {
        missing.push(("secrets", "a step with `secrets`"));
    }
    missing
}

fn kind(work: &Work) -> Option<&'static str> {
    match work.call {
        // A wait is the engine's own: it needs nothing of us.
        Call::Command(_) | Call::Wait(_) => None,
        Call::Http(_) => Some("an `http` step"),
        Call::Mcp(_) => Some("an `mcp` step"),
        Call::Agent(_) => Some("an `agent` step"),
        Call::Saga(_) => Some("a `saga` inside a saga"),
        Call::Approval(_) => Some("an `approval` step"),
        Call::Discard => Some("a step with `effects: files`"),
    }
}
