//! Agents that do their worst: the supervisor answers all the time, and a sibling's work goes on.
//!
//! Debian's stress-ng in R2, and a hog of threads, memory and descriptors in R3. Each must be seen to have done enough to mean
//! anything: a stress that a ring had refused would prove nothing. `AGT_STRESS_SECONDS` is how long it lasts at least.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::pulse::{Pulse, at};
use crate::support::{Rig, Supervisor, needs_root, quoted, skip, until};

/// How long a stress lasts at least, unless the environment says otherwise.
const SECONDS: u64 = 10;
/// How much of each kind must have been done.
const OPERATIONS: u64 = 1_000;
/// How long it may take to do that much, on a machine that others use.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(900);
/// Longer than this the supervisor may never take to answer: as long as `kill` gives it before it takes it for hung.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);
/// One round of stress-ng.
const ROUND: &str = "5";
const KINDS: [&str; 4] = ["fork", "vm", "clone", "sock"];

/// Works, and shows how far it has come.
const SIBLING: &str = "i=0; while :; do i=$((i+1)); echo $i > next; mv next count; sleep 0.05; done";

const HOG: &str = r#"
import os, sys, threading, time
def say(what, number):
    sys.stdout.write(f"{what} {number}\n"); sys.stdout.flush()
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as e: say("descriptors", len(held) if e.errno == 24 else -e.errno)
for fd in held: os.close(fd)
over, threads = threading.Event(), 0
try:
    while True:
        threading.Thread(target=over.wait, daemon=True).start(); threads += 1
except RuntimeError: say("threads", threads)
over.set()
time.sleep(0.1)
say("memory", 0)
blocks = []
while True: blocks.append(bytearray(b"x" * (16 << 20)))
"#;

fn lasts() -> Duration {
    let given = std::env::var("AGT_STRESS_SECONDS").ok();
    Duration::from_secs(given.map_or(SECONDS, |text| text.parse().expect("seconds")))
}

/// A sibling at work beside the agent under stress, and a supervisor that is asked all the time.
struct Scene {
    rig: Rig,
    sibling: PathBuf,
    _supervisor: Supervisor,
}

impl Scene {
    fn start(name: &str, keys: &str) -> Scene {
        let rig = Rig::new();
        let make = |name: &str, keys: &str| {
            std::fs::create_dir(rig.work.join(name)).unwrap();
            let path = rig.work.join(name).join("agent.yaml");
            std::fs::write(&path, format!("version: 1\nname: {name}\n{keys}")).unwrap();
            path
        };
        let files = [
            make("sibling", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(SIBLING))),
            make(name, &format!("stdio: prefixed\n{keys}")),
        ];
        let to = |file: &str| std::fs::File::create(rig.dir.path().join(file)).unwrap();
        let mut command = rig.command(["run"]);
        command.args(&files).stdout(to("stdout")).stderr(to("stderr"));
        let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
        let sibling = rig.work.join("sibling/count");
        let scene = Scene { rig, sibling, _supervisor: supervisor };
        until("both run", || scene.count() > 0 && scene.rig.output(["ps", "--json"]).code == 0);
        scene
    }

    fn said(&self, file: &str) -> String {
        std::fs::read_to_string(self.rig.dir.path().join(file)).unwrap_or_default()
    }

    fn count(&self) -> u64 {
        std::fs::read_to_string(&self.sibling).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn agent(&self, name: &str) -> Value {
        let agents = self.rig.ps()["agents"].as_array().unwrap().clone();
        agents.into_iter().find(|agent| agent["name"] == name).unwrap()
    }

    /// Lets the stress go on until it has lasted and has done enough, and looks all the time that nobody else is harmed.
    fn endure(&self, mut has_done_enough: impl FnMut() -> bool) {
        let before = self.agent("sibling");
        let pulse = Pulse::start(&self.rig.state.join("operator.sock"), Duration::from_millis(10), ANSWERS_WITHIN);
        let began = Instant::now();
        let mut asked = 0;
        while began.elapsed() < lasts() || !has_done_enough() {
            assert!(
                began.elapsed() < GIVEN_UP_AFTER,
                "it does not come to {OPERATIONS} of each: {}",
                self.said("stdout")
            );
            let (count, asks) = (self.count(), Instant::now());
            let ps = self.rig.output(["ps", "--json"]);
            assert_eq!(ps.code, 0, "{}", ps.stderr);
            assert!(asks.elapsed() < ANSWERS_WITHIN, "ps took {:?}", asks.elapsed());
            asked += 1;
            until("the sibling has come further", || self.count() > count);
        }
        let took = pulse.end();
        let after = self.agent("sibling");
        for key in ["pid", "state", "restarts"] {
            assert_eq!(before[key], after[key], "{key} of the sibling");
        }
        println!(
            "{:.0?}: ps answered {asked} times; smallest answer of the supervisor n={} p50={:.2?} p99={:.2?} max={:.2?}",
            began.elapsed(),
            took.len(),
            at(&took, 500),
            at(&took, 990),
            at(&took, 1000)
        );
    }

    fn end(self) {
        assert_eq!(self.rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    }
}

/// What all finished rounds have done of each kind, by stress-ng's own count.
fn done(folder: &Path) -> [u64; 4] {
    let mut sums = [0; 4];
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().starts_with("round-") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let report: serde_yaml::Value = serde_yaml::from_str(&text).expect("what stress-ng writes");
        for metric in report["metrics"].as_sequence().expect("metrics") {
            let kind = KINDS.iter().position(|kind| metric["stressor"] == **kind).expect("one that was asked for");
            sums[kind] += metric["bogo-ops"].as_u64().expect("a count");
        }
    }
    sums
}

#[test]
fn stress_in_r2_harms_neither_the_supervisor_nor_a_sibling() {
    let name = "stress_in_r2_harms_neither_the_supervisor_nor_a_sibling";
    if !needs_root(name) {
        return;
    }
    if !Path::new("/usr/bin/stress-ng").exists() {
        return skip(name, "stress-ng is not installed");
    }
    // Clones are the dearest: the others leave the rest of a round to them. A table of clones of the usual size alone is 128 MiB, which each of them copies.
    let stress = format!(
        "stress-ng --fork 2 --fork-ops 500 --vm 1 --vm-bytes 64M --vm-ops 500 --sock 2 --sock-ops 500 --clone 4 --clone-max 32 -t {ROUND} --temp-path . --quiet --metrics-brief --yaml report"
    );
    let script = format!("i=0; while {stress}; do i=$((i+1)); mv report round-$i; done");
    let scene = Scene::start("stress", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&script)));
    let folder = scene.rig.work.join("stress");
    scene.endure(|| done(&folder).iter().all(|count| *count >= OPERATIONS));
    println!("{KINDS:?}: {:?}", done(&folder));
    assert_eq!(scene.agent("stress")["state"], "running", "{}", scene.said("stdout"));
    scene.end();
}

#[test]
fn a_hog_of_threads_memory_and_descriptors_in_r3_harms_neither() {
    if !needs_root("a_hog_of_threads_memory_and_descriptors_in_r3_harms_neither") {
        return;
    }
    let restart = "restart: {policy: always, attempts: 1000, backoff: {initial: 10ms, max: 20ms}}";
    let limits = "limits: {memory: 128MiB}";
    let keys = format!("ring: 3\n{limits}\n{restart}\ncommand: [python3, -c, {}]\n", quoted(HOG));
    let scene = Scene::start("hog", &keys);
    let told = |what: &str| {
        let text = scene.said("stdout");
        let numbers = text.lines().filter_map(|line| line.rsplit_once(&format!("{what} "))?.1.parse::<i64>().ok());
        numbers.collect::<Vec<_>>()
    };
    // Three lives that went all the way: the kernel ended each at its memory limit.
    scene.endure(|| scene.said("stderr").matches("memory limit").count() >= 3 && told("memory").len() >= 3);
    let (descriptors, threads) = (told("descriptors"), told("threads"));
    println!("descriptors {descriptors:?}, threads {threads:?}, lives {}", told("memory").len());
    assert!(descriptors.iter().all(|held| (1_000..1_024).contains(held)), "at R3's limit: {descriptors:?}");
    assert!(threads.iter().all(|threads| (40..64).contains(threads)), "at R3's limit: {threads:?}");
    scene.end();
}
