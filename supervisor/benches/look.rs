//! What a launch's look through the workdir costs, against reading the names alone and against starting a process.
//!
//! `cargo bench -p agt-supervise --bench look [-- FILES]`: plain files, a hundred to a folder, with a few names among them that
//! stay read-only. The names are in the kernel's cache, as they are at a restart.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use agt_supervise::config::{Overrides, OwnFolders, RingTable, Surroundings, load_agent};

/// Files in the workdir unless told otherwise.
const FILES: usize = 10_000;
const FILES_PER_FOLDER: usize = 100;
const ROUNDS: usize = 51;

fn main() {
    let files = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(FILES);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the folder is writable");
    let dir = scratch.path().canonicalize().expect("it exists");
    let top = dir.join("work");
    fs::create_dir(&top).expect("the folder is writable");
    fill(&top, files);
    let file = top.join("agent.yaml");
    fs::write(&file, "version: 1\nname: bench\nring: 2\ncommand: ['true']\n").expect("the folder is writable");
    let own = OwnFolders { config: dir.join("config"), state: dir.join("state"), runtime: dir.join("runtime") };
    let around =
        Surroundings::of_process(own, RingTable::default(), Vec::new()).expect("this process has surroundings");
    let plan = load_agent(&file, &around, None, &Overrides::default()).expect("the plan is sound");
    let spec = plan.launch_spec(plan.ceiling).expect("it has no secrets");
    let (mut looks, mut reads, mut spawns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        looks.push(timed(|| assert!(!plan.as_it_stands(spec.clone()).protect.is_empty())));
        reads.push(timed(|| assert!(names(&top) > files)));
        spawns.push(timed(|| assert!(Command::new("/bin/true").status().expect("it exists").success())));
    }
    let [look, read, spawn] = [looks, reads, spawns].map(|mut times: Vec<Duration>| {
        times.sort();
        times[ROUNDS / 2].as_secs_f64()
    });
    println!(
        "{files} files: look {:.2} ms, names alone {:.2} ms, a process {:.2} ms",
        look * 1e3,
        read * 1e3,
        spawn * 1e3
    );
    println!("RATIO look_us_per_name={:.2}", look * 1e6 / files as f64);
    println!("RATIO look_vs_names={:.2}", look / read);
    println!("RATIO look_vs_posix_spawn={:.2}", look / spawn);
}

fn fill(top: &Path, files: usize) {
    for number in 0..files {
        let folder = top.join(format!("d{}", number / FILES_PER_FOLDER));
        if number % FILES_PER_FOLDER == 0 {
            fs::create_dir(&folder).expect("the folder is writable");
        }
        fs::write(folder.join(format!("f{number}")), "").expect("the folder is writable");
    }
    fs::create_dir_all(top.join(".git/hooks")).expect("the folder is writable");
    fs::write(top.join(".git/config"), "").expect("the folder is writable");
}

/// How many names there are, read and nothing more.
fn names(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("it can be read").map(|entry| entry.expect("it can be read"));
    let below = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.map(|entry| 1 + if below(&entry) { names(&entry.path()) } else { 0 }).sum()
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}
