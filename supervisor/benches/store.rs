//! Durable saga steps against the floor of one append and fdatasync per step.
//!
//! All modes run interleaved in one process, so that the disk's moods meet them alike; a round's ratio is taken against the
//! faster floor of that round, and the median round counts. One spinner of nice 19 runs beside every mode: an idle virtual CPU
//! sees disk completions only at its next timer tick, which would flatter whoever keeps the CPU awake.
//!
//! `[STORE_BENCH_DIR=FOLDER] cargo bench -p agt-supervise --bench store [-- ROUNDS]`

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agt_saga::journal::{Journal as _, Summary};
use agt_supervise::audit::record::{Action, Actor, Outcome, Record};
use agt_supervise::store::{SqliteJournal, Store};
use tokio::runtime::Runtime;

/// How long a mode runs in a round.
const SLICE: Duration = Duration::from_millis(40);
/// Rounds unless told otherwise.
const ROUNDS: usize = 75;
/// The preallocated floor's file, in bytes; it starts over at the end.
const FLOOR_BYTES: u64 = 4 * 1024 * 1024;
/// Sagas at once in the group mode.
const SAGAS: usize = 64;

fn main() {
    if std::env::args().any(|argument| argument == "--spin") {
        spin();
    }
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    // Another folder measures another disk; on a tmpfs the same modes show the processor's share alone.
    let place = std::env::var_os("STORE_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let dir = tempfile::tempdir_in(place).expect("the folder is writable");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("threads can be had");
    let mut modes = Modes::new(dir.path(), &runtime);
    let mut spinner = start_spinner();
    let mut results: Vec<[f64; 5]> = Vec::new();
    for round in 0..=rounds {
        let rates = modes.round(&runtime);
        // The first round warms caches and makes the files.
        if round > 0 {
            results.push(rates);
        }
    }
    spinner.kill().expect("the spinner is our child");
    spinner.wait().expect("the spinner is our child");
    runtime.block_on(modes.store.close()).expect("the store closes");
    report(&results);
    let (requests, commits) = modes.grouped;
    println!("note: group64 had {:.1} requests a commit", requests as f64 / commits as f64);
}

fn report(results: &[[f64; 5]]) {
    let median = |of: &dyn Fn(&[f64; 5]) -> f64| {
        let mut values: Vec<f64> = results.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let names = ["floor_growing", "floor_preallocated", "serial", "group64", "audit_serial"];
    for (index, name) in names.into_iter().enumerate() {
        println!("note: {name} {:.0} steps/s", median(&|rates| rates[index]));
    }
    let floor = |rates: &[f64; 5]| rates[0].max(rates[1]);
    println!("RATIO serial_vs_floor={:.3}", median(&|rates| rates[2] / floor(rates)));
    println!("RATIO group64_vs_floor={:.3}", median(&|rates| rates[3] / floor(rates)));
    println!("RATIO audit_serial_vs_floor={:.3}", median(&|rates| rates[4] / floor(rates)));
}

struct Modes {
    growing: File,
    preallocated: File,
    store: Store,
    journal: SqliteJournal,
    round: u64,
    /// Requests and commits of the group mode.
    grouped: (u64, u64),
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
        Self { growing, preallocated, store, journal, round: 0, grouped: (0, 0) }
    }

    fn round(&mut self, runtime: &Runtime) -> [f64; 5] {
        self.round += 1;
        [
            floor(&mut self.growing, u64::MAX),
            floor(&mut self.preallocated, FLOOR_BYTES),
            runtime.block_on(saga(self.journal.clone(), format!("serial-{}", self.round), Instant::now() + SLICE)),
            self.group(runtime),
            runtime.block_on(audit(&self.store)),
        ]
    }

    fn group(&mut self, runtime: &Runtime) -> f64 {
        let before = self.store.counts();
        let end = Instant::now() + SLICE;
        let sagas: Vec<_> = (0..SAGAS)
            .map(|index| runtime.spawn(saga(self.journal.clone(), format!("group-{}-{index}", self.round), end)))
            .collect();
        let rate = sagas.into_iter().map(|saga| runtime.block_on(saga).expect("no saga panics")).sum();
        let after = self.store.counts();
        self.grouped.0 += after.requests - before.requests;
        self.grouped.1 += after.commits - before.commits;
        rate
    }
}

/// One event of a step as the engine writes them, about 200 bytes.
fn event(kind: &str, step: u64) -> String {
    format!(
        r#"{{"type":"{kind}","step":"refund-payment-{step}","attempt":1,"key":"0190f3a2-7c1e-7b4e-9d55-3f2a1b{step:06}","at_ms":1700000000000,"output":{{"amount":1250,"currency":"EUR","ok":true}}}}"#
    )
}

/// Appends a step and waits for the disk, in a file that grows or that starts over.
fn floor(file: &mut File, wrap: u64) -> f64 {
    let started = Instant::now();
    let mut steps = 0;
    while started.elapsed() < SLICE {
        let text = [event("outcome", steps), event("intent", steps + 1)].concat();
        if file.stream_position().expect("a file has a position") + text.len() as u64 > wrap {
            file.rewind().expect("a file can be rewound");
        }
        file.write_all(text.as_bytes()).expect("there is space");
        file.sync_data().expect("the disk works");
        steps += 1;
    }
    steps as f64 / started.elapsed().as_secs_f64()
}

/// One saga's steps, each made durable before the next: an outcome and the next intent in one append.
async fn saga(journal: SqliteJournal, id: String, end: Instant) -> f64 {
    let started = Instant::now();
    let mut steps = 0;
    while Instant::now() < end {
        let summary = Summary {
            id: id.clone(),
            name: "refund".to_owned(),
            state: "running".to_owned(),
            finished: false,
            updated_ms: 1_700_000_000_000 + steps as i64,
        };
        let events = vec![event("outcome", steps), event("intent", steps + 1)];
        journal.append(summary, 2 * steps, events).await.expect("the store works");
        steps += 1;
    }
    steps as f64 / started.elapsed().as_secs_f64()
}

async fn audit(store: &Store) -> f64 {
    const LAUNCH: Action = Action::new("launch");
    let started = Instant::now();
    let mut records = 0_u64;
    while started.elapsed() < SLICE {
        let record = Record::new(1_700_000_000_000, Actor::Operator(0), LAUNCH, Outcome::Allowed);
        let record = record.agent("researcher").reason("started by hand").detail("ring", 2_u32).detail("run", records);
        store.append_audit(record).await.expect("the store works");
        records += 1;
    }
    records as f64 / started.elapsed().as_secs_f64()
}

fn start_spinner() -> Child {
    let exe = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(exe).arg("--spin").stdin(Stdio::piped());
    command.spawn().expect("nice(1) is on every system")
}

/// Keeps a CPU awake until the parent is gone.
fn spin() -> ! {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    loop {
        std::hint::spin_loop();
    }
}
