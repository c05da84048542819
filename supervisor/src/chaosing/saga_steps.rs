//! A saga under experiment: its step is killed as it begins, and whether the saga comes to a right state is the steady state.
//!
//! A saga has no process of its own, so of the faults only this one fits it, and this one fits nothing else. What is seen of
//! it is the saga's own record: it is well while it goes forward or is being undone and once it is completed or undone in
//! full, and unwell when it waits for an operator, was undone in part or was given up.

use agt_chaos::interlock;
use agt_chaos::target::{Act, Need, Observation, TargetError};
use agt_chaos::undo::{Undo, UndoEntry};

use crate::driver::scene::{SagaScene, Scene};

/// Words of a saga that did not come to a right state.
const UNWELL: [&str; 3] = ["stuck", "partially_compensated", "abandoned"];

/// Why a need isn't met; `None` when it is.
pub(super) fn lacks(need: Need, saga: Option<&SagaScene>) -> Option<String> {
    match (need, saga) {
        (Need::SagaSteps, Some(_)) => None,
        (Need::SagaSteps, None) => Some("this is an agent: name a saga that runs here".to_owned()),
        (_, Some(_)) => Some("this is a saga, which has no process of its own: crash-at-step is for sagas".to_owned()),
        (_, None) => None,
    }
}

/// Whether the last saga of this name is in a right state, or on its way to one; `None` before any has said anything.
pub(super) fn is_well(saga: &SagaScene) -> Option<bool> {
    saga.word.as_deref().map(|word| !UNWELL.contains(&word))
}

/// What the ambush knows.
pub(super) fn look_at(agent: &str, saga: &SagaScene, now: &mut Observation) {
    now.crash_armed = Some(saga.ambush.is_armed(agent));
    now.step_crashes = Some(saga.ambush.sprung(agent));
    now.metrics.insert("saga_well".to_owned(), is_well(saga).map(|well| f64::from(u8::from(well))));
}

fn refused(reason: &str) -> TargetError {
    TargetError::Refused(interlock::Refusal::Target { reason: reason.to_owned() })
}

/// The way back from acts on a saga; `None` when the target is an agent.
pub(super) fn way_back(scene: &Scene, acts: &[Act]) -> Result<Option<Vec<UndoEntry>>, TargetError> {
    if scene.saga.is_none() {
        return Ok(None);
    }
    let entry = |act: &Act| match act {
        Act::CrashAtStep { step } => Ok(UndoEntry::DisarmCrash { step: step.clone() }),
        _ => Err(refused("only its steps can be crashed")),
    };
    acts.iter().rev().map(entry).collect::<Result<_, _>>().map(Some)
}

/// Does the acts on a saga; `None` when the target is an agent.
pub(super) fn perform(agent: &str, scene: &Scene, acts: &[Act]) -> Result<Option<()>, TargetError> {
    let Some(saga) = &scene.saga else { return Ok(None) };
    for act in acts {
        match act {
            Act::CrashAtStep { step } => saga.ambush.arm(agent, step),
            _ => return Err(refused("only its steps can be crashed")),
        }
    }
    Ok(Some(()))
}

/// Disarms, and gives what else of the undo there is.
pub(super) fn undo(scene: Option<&Scene>, undo: &Undo) -> Undo {
    let mut rest = undo.clone();
    rest.entries.retain(|entry| !matches!(entry, UndoEntry::DisarmCrash { .. }));
    if rest.entries.len() < undo.entries.len()
        && let Some(saga) = scene.and_then(|scene| scene.saga.as_ref())
    {
        saga.ambush.disarm();
    }
    rest
}
