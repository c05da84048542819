//! A start after a crash with many unfinished sagas: from opening the store until each of them has in its journal what became of
//! the run that was in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agt_saga::driver::{Driver, Settings};
use agt_saga::id::SagaId;
use agt_saga::journal::{Journal as _, Scope};
use agt_supervise::store::{SqliteJournal, Store};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::folder;
use super::sagas::{Endless, chain, digest};

const SAGAS: usize = 10_000;
/// Steps of each.
const STEPS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure() {
    let dir = folder();
    let state = dir.path().join("state");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("threads");
    runtime.block_on(async {
        let (driver, seen) = driver(&state);
        let mut sagas = JoinSet::new();
        for number in 0..SAGAS {
            let (driver, plan) = (Arc::clone(&driver), chain(STEPS));
            let id = SagaId::new(format!("saga-{number}"));
            sagas.spawn(async move { driver.run(plan, id, Value::Null).await.map(drop) });
        }
        seen.wait(SAGAS).await;
        // As a crash would: nothing ends in order.
        sagas.abort_all();
        while sagas.join_next().await.is_some() {}
        driver.journal().store().close().await.expect("the store closes");
    });
    let started = Instant::now();
    let (opened, listed, classified) = runtime.block_on(async {
        let (driver, seen) = driver(&state);
        let opened = started.elapsed();
        let unfinished = driver.journal().list(Scope::Unfinished).await.expect("the store works");
        assert_eq!(unfinished.len(), SAGAS);
        let listed = started.elapsed();
        let mut sagas = JoinSet::new();
        for saga in unfinished {
            let driver = Arc::clone(&driver);
            sagas.spawn(async move { driver.resume(&SagaId::new(saga.id)).await.map(drop) });
        }
        seen.wait(SAGAS).await;
        let classified = started.elapsed();
        sagas.abort_all();
        while sagas.join_next().await.is_some() {}
        driver.journal().store().close().await.expect("the store closes");
        (opened, listed, classified)
    });
    println!("note: {SAGAS} unfinished sagas: open {opened:.2?}, listed {listed:.2?}");
    println!("RATIO start_10000_s={:.2}", classified.as_secs_f64());
}

/// How many sagas have written.
struct Seen {
    count: AtomicUsize,
    more: Notify,
}

impl Seen {
    async fn wait(&self, wanted: usize) {
        let all = async {
            loop {
                let more = self.more.notified();
                if self.count.load(Ordering::SeqCst) >= wanted {
                    return;
                }
                more.await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("all sagas write");
    }
}

type Endlessly = Arc<Driver<SqliteJournal, Endless>>;

/// A driver whose sagas write once and then hang in a step.
fn driver(state: &std::path::Path) -> (Endlessly, Arc<Seen>) {
    let store = Store::open(state).expect("the store opens");
    let seen = Arc::new(Seen { count: AtomicUsize::new(0), more: Notify::new() });
    let mut settings = Settings::new(digest);
    let counted = Arc::clone(&seen);
    settings.observer = Some(Arc::new(move |_| {
        counted.count.fetch_add(1, Ordering::SeqCst);
        counted.more.notify_waiters();
    }));
    (Arc::new(Driver::new(SqliteJournal::new(store), Arc::new(Endless), settings)), seen)
}
