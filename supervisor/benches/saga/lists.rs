//! What `saga list` and `saga show` read, over a million events.

use std::time::Instant;

use agt_saga::driver::{Driver, Settings};
use agt_saga::id::SagaId;
use agt_saga::journal::{Journal as _, MemoryJournal, Scope, Summary};
use agt_saga::machine::Rest;
use agt_saga::record::EndState;
use agt_supervise::store::{Commit, SqliteJournal, Store};
use serde_json::Value;

use super::sagas::{Nothing, chain, digest};
use super::{folder, median};

const EVENTS: usize = 1_000_000;
/// Steps of each saga: two events for each, and two more.
const STEPS: usize = 49;
/// Sagas in one commit.
const AT_ONCE: usize = 50;
const ROUNDS: usize = 9;

pub(crate) fn measure() {
    let dir = folder();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("threads");
    runtime.block_on(async {
        let store = Store::open(&dir.path().join("state")).expect("the store opens");
        let sagas = fill(&store).await;
        let journal = SqliteJournal::new(store.clone());
        let (mut all, mut unfinished, mut one) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let started = Instant::now();
            assert_eq!(journal.list(Scope::All).await.expect("it reads").len(), sagas);
            all.push(started.elapsed().as_secs_f64() * 1e3);
            let started = Instant::now();
            journal.list(Scope::Unfinished).await.expect("it reads");
            unfinished.push(started.elapsed().as_secs_f64() * 1e3);
            let started = Instant::now();
            let events = journal.load(&format!("saga-{}", round * sagas / ROUNDS)).await.expect("it reads");
            assert!(events.len() > 2 * STEPS);
            one.push(started.elapsed().as_secs_f64() * 1e3);
        }
        println!("note: {sagas} sagas of {} events each", EVENTS / sagas);
        println!("RATIO list_ms={:.1}", median(all));
        println!("RATIO list_unfinished_ms={:.2}", median(unfinished));
        println!("RATIO show_ms={:.2}", median(one));
        store.close().await.expect("the store closes");
    });
}

/// Writes copies of one real history; how many.
async fn fill(store: &Store) -> usize {
    let driver = Driver::new(MemoryJournal::default(), std::sync::Arc::new(Nothing::said()), Settings::new(digest));
    let id = SagaId::new("original");
    let rest = driver.run(chain(STEPS), id.clone(), Value::Null).await.expect("nothing fails");
    assert_eq!(rest, Rest::Ended(EndState::Completed));
    let events: Vec<String> =
        driver.journal().load("original").await.expect("it reads").into_iter().map(|entry| entry.event).collect();
    let sagas = EVENTS / events.len();
    for first in (0..sagas).step_by(AT_ONCE) {
        let mut commit = Commit::new();
        for number in first..(first + AT_ONCE).min(sagas) {
            let summary = Summary {
                id: format!("saga-{number}"),
                name: "chain".to_owned(),
                state: "completed".to_owned(),
                finished: number % 100 != 0,
                updated_ms: number as i64,
            };
            commit = commit.saga(summary, 0, events.clone());
        }
        store.commit(commit).await.expect("the store works");
    }
    sagas
}
