//! What the engine itself costs: sagas of ten steps that do nothing, on a journal in memory.
//!
//! `cargo bench -p agt-saga --bench engine` prints one `RATIO name=value` line; microseconds for each step, all of the
//! machine, the JSON of its records, and the tasks of its runs included.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use agt_saga::driver::{Driver, Settings, Steps, StepsError};
use agt_saga::id::{RunId, SagaId};
use agt_saga::journal::MemoryJournal;
use agt_saga::lint;
use agt_saga::machine::{Fate, Rest, StepRun};
use agt_saga::outcome::StepOutcome;
use agt_saga::plan::Plan;
use agt_saga::record::EndState;
use serde_json::{Value, json};

const STEPS: usize = 10;
const SAGAS: usize = 2_000;
const ROUNDS: usize = 5;

struct Nothing;

impl Steps for Nothing {
    async fn run(&self, run: StepRun) -> StepOutcome {
        black_box(run);
        StepOutcome::ok(Value::Null)
    }

    async fn cancel(&self, _run: &RunId) -> Result<(), StepsError> {
        Ok(())
    }

    async fn verify_empty(&self, _saga: &SagaId, _in_flight: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        Ok(Vec::new())
    }
}

fn chain() -> Plan {
    let step = |at: usize| {
        let needs: Vec<String> = at.checked_sub(1).map(|before| format!("s{before}")).into_iter().collect();
        json!({"name": format!("s{at}"), "command": ["true"], "needs": needs, "compensate": {"command": ["true"]}})
    };
    let steps: Vec<Value> = (0..STEPS).map(step).collect();
    let spec = json!({"version": 1, "kind": "saga", "name": "chain", "steps": steps});
    lint::plan(&serde_json::from_value(spec).expect("it is a spec")).expect("it has no fault")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let plan = Arc::new(chain());
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let driver =
            Driver::new(MemoryJournal::default(), Arc::new(Nothing), Settings::new(|bytes| bytes.len().to_string()));
        let started = Instant::now();
        runtime.block_on(async {
            for saga in 0..SAGAS {
                let rest = driver
                    .run(plan.clone(), SagaId::new(format!("saga-{saga}")), Value::Null)
                    .await
                    .expect("nothing fails");
                assert_eq!(rest, Rest::Ended(EndState::Completed));
            }
        });
        let micros = started.elapsed().as_secs_f64() * 1e6;
        best = best.min(micros / (SAGAS * STEPS) as f64);
    }
    println!("RATIO engine_us_per_step={best:.2}");
}
