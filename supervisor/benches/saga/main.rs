//! Sagas on the SQLite journal against the floor of one append and fdatasync per step, and against DBOS on SQLite; the engine
//! alone; the start with many unfinished sagas; lists over many events.
//!
//! `cargo bench -p agt-supervise --bench saga [-- SECTION...]`; sections are `engine`, `steps`, `start`, `lists`, all by default. The
//! last lines of each are `RATIO name=value`.
//!
//! The modes of `steps` run by turns in one process, so that the disk's moods meet them alike; a round's ratio is taken against
//! the faster floor of that round, and the median round counts. One spinner of nice 19 runs beside every mode: an idle virtual
//! CPU sees disk completions only at its next timer tick, which would flatter whoever keeps the CPU awake. What the modes do
//! without it is printed as ambient. `SAGA_BENCH_DIR` names a folder on another disk. DBOS has a row where
//! `$AGT_BENCH_PEERS/dbos/bin/python` has it (`python3 -m venv $AGT_BENCH_PEERS/dbos`, then its `pip install dbos`).

#![allow(missing_docs, clippy::unwrap_used, unreachable_pub)]

mod dbos;
mod engine;
mod lists;
mod sagas;
mod start;
mod steps;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--spin") {
        spin();
    }
    let sections: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let all: [(&str, fn()); 4] =
        [("engine", engine::measure), ("steps", steps::measure), ("start", start::measure), ("lists", lists::measure)];
    println!("machine: {}", machine());
    for (name, measure) in all {
        if sections.is_empty() || sections.iter().any(|section| *section == name) {
            println!("\n{name}");
            measure();
        }
    }
}

/// Cores, kernel, load.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, kernel {}, load {}", read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"))
}

/// A folder on the disk that is measured.
fn folder() -> tempfile::TempDir {
    let place = std::env::var_os("SAGA_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    tempfile::tempdir_in(PathBuf::from(place)).expect("the folder is writable")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A spinner for as long as this lives.
struct Spinner(Child);

impl Spinner {
    fn start() -> Spinner {
        let exe = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(exe).arg("--spin").stdin(Stdio::piped());
        Spinner(command.spawn().expect("nice(1) is on every system"))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.kill().expect("the spinner is our child");
        self.0.wait().expect("the spinner is our child");
    }
}

/// Keeps a CPU awake until the parent is gone.
fn spin() -> ! {
    std::thread::spawn(|| {
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        std::process::exit(0);
    });
    loop {
        std::hint::spin_loop();
    }
}
