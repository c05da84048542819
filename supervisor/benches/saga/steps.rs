//! Durable steps: one saga at a time, and 64 at once.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agt_saga::driver::{Driver, Settings};
use agt_saga::id::SagaId;
use agt_saga::machine::Rest;
use agt_saga::plan::Plan;
use agt_saga::record::EndState;
use agt_supervise::store::{SqliteJournal, Store};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::dbos::Dbos;
use super::sagas::{Nothing, chain, digest};
use super::{Spinner, folder, median};

/// How long a floor runs in a round.
const SLICE: Duration = Duration::from_millis(40);
/// Rounds with the spinner, and without.
const ROUNDS: usize = 60;
const AMBIENT_ROUNDS: usize = 15;
/// Rounds of the peer, which takes long for each.
const PEER_ROUNDS: usize = 5;
/// The preallocated floor's file, in bytes; it starts over at the end.
const FLOOR_BYTES: u64 = 4 * 1024 * 1024;
/// Steps of the saga that runs alone.
const SERIAL_STEPS: usize = 100;
/// Sagas at once, and steps of each.
const SAGAS: usize = 64;
const GROUP_STEPS: usize = 20;
/// Steps of each of the peer's.
const PEER_STEPS: usize = 5;
/// About what a step writes: an outcome and the next intent.
const STEP_BYTES: usize = 400;

const NAMES: [&str; 4] = ["floor_growing", "floor_preallocated", "serial", "group64"];

pub(crate) fn measure() {
    let dir = folder();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("threads");
    let mut modes = Modes::new(dir.path(), &runtime);
    modes.round(&runtime);
    let ambient: Vec<_> = (0..AMBIENT_ROUNDS).map(|_| modes.round(&runtime)).collect();
    report("ambient, without the spinner: ", &ambient);
    let spinner = Spinner::start();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| modes.round(&runtime)).collect();
    report("", &rounds);
    let floor = |rates: &[f64; 4]| rates[0].max(rates[1]);
    let ratio = |of: usize| median(rounds.iter().map(|rates| rates[of] / floor(rates)).collect());
    println!("RATIO serial_vs_floor={:.3}", ratio(2));
    println!("RATIO group64_vs_floor={:.3}", ratio(3));
    peer(&mut modes, &runtime, dir.path());
    drop(spinner);
    runtime.block_on(modes.store.close()).expect("the store closes");
}

fn report(what: &str, rounds: &[[f64; 4]]) {
    for (index, name) in NAMES.into_iter().enumerate() {
        let rates: Vec<f64> = rounds.iter().map(|rates| rates[index]).collect();
        println!("note: {what}{name} {:.0} steps/s", median(rates));
    }
}

fn peer(modes: &mut Modes, runtime: &Runtime, dir: &Path) {
    let (Some(mut alone), Some(mut many)) = (Dbos::start(dir, 1, SERIAL_STEPS), Dbos::start(dir, SAGAS, PEER_STEPS))
    else {
        println!("note: no DBOS here (see the head of this bench)");
        return;
    };
    let mut rounds = Vec::new();
    for round in 0..=PEER_ROUNDS {
        let rates = [modes.serial(runtime), alone.round(), modes.group(runtime), many.round()];
        // The first warms up both.
        if round > 0 {
            rounds.push(rates);
        }
    }
    let of = |index: usize| median(rounds.iter().map(|rates| rates[index]).collect());
    println!("note: DBOS with SQLite: {:.0} steps/s alone, {:.0} with {SAGAS} workflows at once", of(1), of(3));
    let ratio = |of: usize, to: usize| median(rounds.iter().map(|rates| rates[of] / rates[to]).collect());
    println!("RATIO serial_vs_dbos={:.1}", ratio(0, 1));
    println!("RATIO vs_dbos={:.1}", ratio(2, 3));
}

struct Modes {
    growing: File,
    preallocated: File,
    store: Store,
    driver: Arc<Driver<SqliteJournal, Nothing>>,
    long: Plan,
    short: Plan,
    sagas: u64,
}

impl Modes {
    fn new(dir: &Path, runtime: &Runtime) -> Self {
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).open(dir.join(name)).expect("a fresh file can be made")
        };
        let (growing, mut preallocated) = (open("growing"), open("preallocated"));
        preallocated.write_all(&vec![0; FLOOR_BYTES as usize]).expect("there is space");
        preallocated.sync_all().expect("the disk works");
        let _runtime = runtime.enter();
        let store = Store::open(&dir.join("state")).expect("the store opens");
        let journal = SqliteJournal::new(store.clone());
        let driver = Arc::new(Driver::new(journal, Arc::new(Nothing::said()), Settings::new(digest)));
        let (long, short) = (chain(SERIAL_STEPS), chain(GROUP_STEPS));
        Self { growing, preallocated, store, driver, long, short, sagas: 0 }
    }

    fn round(&mut self, runtime: &Runtime) -> [f64; 4] {
        [
            floor(&mut self.growing, u64::MAX),
            floor(&mut self.preallocated, FLOOR_BYTES),
            self.serial(runtime),
            self.group(runtime),
        ]
    }

    fn next(&mut self) -> SagaId {
        self.sagas += 1;
        SagaId::new(format!("saga-{}", self.sagas))
    }

    /// One saga: an outcome and the next intent are one commit.
    fn serial(&mut self, runtime: &Runtime) -> f64 {
        let (id, plan) = (self.next(), self.long.clone());
        let started = Instant::now();
        runtime.block_on(run(Arc::clone(&self.driver), plan, id));
        SERIAL_STEPS as f64 / started.elapsed().as_secs_f64()
    }

    fn group(&mut self, runtime: &Runtime) -> f64 {
        let ids: Vec<SagaId> = (0..SAGAS).map(|_| self.next()).collect();
        let started = Instant::now();
        let sagas: Vec<_> =
            ids.into_iter().map(|id| runtime.spawn(run(Arc::clone(&self.driver), self.short.clone(), id))).collect();
        for saga in sagas {
            runtime.block_on(saga).expect("no saga panics");
        }
        (SAGAS * GROUP_STEPS) as f64 / started.elapsed().as_secs_f64()
    }
}

async fn run(driver: Arc<Driver<SqliteJournal, Nothing>>, plan: Plan, id: SagaId) {
    let rest = driver.run(plan, id, Value::Null).await.expect("the store works");
    assert_eq!(rest, Rest::Ended(EndState::Completed));
}

/// Appends a step and waits for the disk, in a file that grows or that starts over.
fn floor(file: &mut File, wrap: u64) -> f64 {
    let text = [b'x'; STEP_BYTES];
    let started = Instant::now();
    let mut steps = 0;
    while started.elapsed() < SLICE {
        if file.stream_position().expect("a file has a position") + STEP_BYTES as u64 > wrap {
            file.rewind().expect("a file can be rewound");
        }
        file.write_all(&text).expect("there is space");
        file.sync_data().expect("the disk works");
        steps += 1;
    }
    f64::from(steps) / started.elapsed().as_secs_f64()
}
