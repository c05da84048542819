//! What the engine itself costs: sagas of ten steps on a journal in memory; microseconds for each step, all of the machine, the
//! JSON of its records, and the tasks of its runs included.

use std::sync::Arc;
use std::time::Instant;

use agt_saga::driver::{Driver, Settings};
use agt_saga::id::SagaId;
use agt_saga::journal::MemoryJournal;
use agt_saga::machine::Rest;
use agt_saga::record::EndState;
use serde_json::Value;

use super::sagas::{Nothing, chain, digest};

const STEPS: usize = 10;
const SAGAS: usize = 2_000;
const ROUNDS: usize = 5;

pub(crate) fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let plan = Arc::new(chain(STEPS));
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let driver = Driver::new(MemoryJournal::default(), Arc::new(Nothing(Value::Null)), Settings::new(digest));
        let started = Instant::now();
        runtime.block_on(async {
            for saga in 0..SAGAS {
                let id = SagaId::new(format!("saga-{saga}"));
                let rest = driver.run(plan.clone(), id, Value::Null).await.expect("nothing fails");
                assert_eq!(rest, Rest::Ended(EndState::Completed));
            }
        });
        let micros = started.elapsed().as_secs_f64() * 1e6;
        best = best.min(micros / (SAGAS * STEPS) as f64);
    }
    println!("RATIO engine_us_per_step={best:.2}");
}
