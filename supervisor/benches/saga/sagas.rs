//! Sagas that do nothing.

use std::future::pending;
use std::hint::black_box;

use agt_saga::driver::{Steps, StepsError};
use agt_saga::id::{RunId, SagaId};
use agt_saga::lint;
use agt_saga::machine::{Fate, StepRun};
use agt_saga::outcome::StepOutcome;
use agt_saga::plan::Plan;
use serde_json::{Value, json};

/// Steps that are done as soon as they begin, with this output.
pub(crate) struct Nothing(pub(crate) Value);

impl Nothing {
    /// With an output of the size that a small one has.
    pub(crate) fn said() -> Nothing {
        Nothing(json!({"amount": 1250, "currency": "EUR", "ok": true}))
    }
}

impl Steps for Nothing {
    async fn run(&self, run: StepRun) -> StepOutcome {
        black_box(run);
        StepOutcome::ok(self.0.clone())
    }

    async fn cancel(&self, _run: &RunId) -> Result<(), StepsError> {
        Ok(())
    }

    async fn verify_empty(&self, _saga: &SagaId, _in_flight: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        Ok(Vec::new())
    }
}

/// Steps that never end.
pub(crate) struct Endless;

impl Steps for Endless {
    async fn run(&self, run: StepRun) -> StepOutcome {
        black_box(run);
        pending().await
    }

    async fn cancel(&self, _run: &RunId) -> Result<(), StepsError> {
        Ok(())
    }

    async fn verify_empty(&self, _saga: &SagaId, _in_flight: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        Ok(Vec::new())
    }
}

/// So many steps, one after the other, each with a way to undo it.
pub(crate) fn chain(steps: usize) -> Plan {
    let step = |at: usize| {
        let needs: Vec<String> = at.checked_sub(1).map(|before| format!("s{before}")).into_iter().collect();
        json!({"name": format!("s{at}"), "command": ["true"], "needs": needs, "compensate": {"command": ["true"]}})
    };
    let steps: Vec<Value> = (0..steps).map(step).collect();
    let spec = json!({"version": 1, "kind": "saga", "name": "chain", "steps": steps});
    lint::plan(&serde_json::from_value(spec).expect("it is a spec")).expect("it has no fault")
}

/// A digest that tells plans of different lengths apart, which is all that a bench needs.
pub(crate) fn digest(bytes: &[u8]) -> String {
    bytes.len().to_string()
}
