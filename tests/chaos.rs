//! Experiments act on real agents, are undone whatever happens, and need leave.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::docs::only_its_owner_writes;
use crate::examples::{copy, example};
use crate::support::{Outcome, Rig, Supervisor, needs_root, processes_with, quoted, unique, until};

/// The example in the rig's own folder, with an agent that counts into a file of its workdir.
pub struct Scene {
    pub rig: Rig,
    pub folder: PathBuf,
    pub mark: String,
    is_quiet: bool,
}

impl Scene {
    pub fn new() -> Scene {
        let rig = Rig::new();
        let folder = rig.work.join("hang");
        copy(&example("06-chaos-hang"), &folder);
        only_its_owner_writes(&folder.join("operator.yaml"));
        let scene = Scene { rig, folder, mark: unique("chaos-ticker"), is_quiet: false };
        // Appended to: a freeze between truncating and writing would look like an agent that never ticked.
        let script = format!("while true; do echo >> ticks; sleep 0.05; done # {}", scene.mark);
        scene.edit(
            "agent.yaml",
            "command: [sh, ticker.sh]",
            &format!("command: [sh, -c, {}]\nfiles: {{write: [.]}}", quoted(&script)),
        );
        scene
    }

    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    pub fn start(&self) -> Supervisor {
        // Ticks of an earlier life say nothing of this one.
        let _ = std::fs::remove_file(self.folder.join("ticks"));
        let mut command = self.rig.command(["run", "--metrics", "off", "--operator"]);
        command.arg(self.folder.join("operator.yaml")).arg(self.folder.join("agent.yaml"));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
        // It may tick before its supervisor has heard that it runs, and no experiment begins on an agent that doesn't.
        until("the agent runs", || self.rig.output(["ps", "--json"]).stdout.contains("\"state\": \"running\""));
        until("the agent ticks", || self.is_quiet || self.ticks() > 0);
        supervisor
    }

    /// Puts a single process that does nothing in the ticker's place: it needs no memory, and can live in any ring.
    pub fn one_quiet_process(&mut self) {
        let text = std::fs::read_to_string(self.folder.join("agent.yaml")).unwrap();
        let command = text.lines().find(|line| line.starts_with("command:")).unwrap().to_owned();
        self.edit("agent.yaml", &command, "command: [tail, -f, /dev/null]");
        self.is_quiet = true;
    }

    /// One hang as long as the faulty phase.
    pub fn hang_for(&self, duration: &str) {
        self.edit("chaos.yaml", "duration: 15s\nbursts:\n  length: 1s\n", &format!("duration: {duration}\n"));
    }

    pub fn ticks(&self) -> u64 {
        std::fs::metadata(self.folder.join("ticks")).map_or(0, |file| file.len())
    }

    /// The example's experiment with another fault, given as lines of YAML.
    pub fn inject(&self, fault: &str) {
        self.edit("chaos.yaml", "template: process-hang", fault);
        for file in ["agent.yaml", "operator.yaml"] {
            self.edit(file, "faults: [process-hang]", "faults: []");
        }
    }

    /// Adds to the agent's file.
    pub fn agent_also(&self, lines: &str) {
        self.edit("agent.yaml", "ring: 2\n", &format!("ring: 2\n{lines}\n"));
    }

    fn chaos(&self) -> std::process::Command {
        self.rig.command([
            "chaos".as_ref(),
            "run".as_ref(),
            self.folder.join("chaos.yaml").as_os_str(),
            "--json".as_ref(),
        ])
    }

    pub fn run(&self) -> Outcome {
        Outcome::from(self.chaos().output().unwrap())
    }

    pub fn begin(&self) -> Supervisor {
        let mut command = self.chaos();
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        Supervisor { child: Some(command.spawn().unwrap()) }
    }

    pub fn until_frozen(&self) {
        until("the agent is frozen", || {
            let ended = self.rig.output(["chaos", "report"]);
            assert_ne!(ended.code, 0, "the experiment has ended already: {}", ended.stdout);
            self.is_frozen()
        });
    }

    /// Two looks, with what the ticker does between two ticks done eight times in between: on a busy machine that takes longer, as the
    /// ticker does.
    fn is_frozen(&self) -> bool {
        let before = self.ticks();
        for _ in 0..8 {
            std::process::Command::new("sleep").arg("0.05").status().unwrap();
        }
        before > 0 && self.ticks() == before
    }

    pub fn until_ticking(&self) {
        let before = self.ticks();
        until("the agent ticks again", || self.ticks() > before);
    }
}

pub fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", outcome.stdout, outcome.stderr))
}

pub fn audit(rig: &Rig) -> String {
    rig.output(["audit", "show", "--json"]).stdout
}

pub fn pending_undos(state: &Path) -> i64 {
    let database = rusqlite::Connection::open(state.join("state.db")).unwrap();
    database.query_row("SELECT count(*) FROM chaos_undo", (), |row| row.get(0)).unwrap()
}

#[test]
fn a_hang_acts_and_is_undone() {
    if !needs_root("a_hang_acts_and_is_undone") {
        return;
    }
    let scene = Scene::new();
    scene.hang_for("3s");
    let _supervisor = scene.start();
    let client = scene.begin();
    scene.until_frozen();
    let shown = scene.rig.output(["ps"]).stdout;
    assert!(shown.contains("frozen (by an experiment"), "{shown}");
    let outcome = client.wait();
    let report = report(&outcome);
    assert_eq!(outcome.code, 1, "a phase that is all hang fails: {report:#}");
    assert_eq!(report["verdict"], "fail", "{report:#}");
    assert_eq!((&report["acted"], &report["restored"]), (&"yes".into(), &"yes".into()), "{report:#}");
    assert_eq!(report["undo"]["state"], "undone");
    assert!(report["steady_state"][0]["during"].as_f64().unwrap() < 0.5, "a hung agent is not available: {report:#}");
    scene.until_ticking();
    assert_eq!(pending_undos(&scene.rig.state), 0);
    let kept = scene.rig.output(["chaos", "report", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&kept.stdout).unwrap()["run"], report["run"], "{}", kept.stderr);
    let records = audit(&scene.rig);
    let at = |action: &str| records.find(action).unwrap_or_else(|| panic!("no {action} in {records}"));
    assert!(at("chaos.begin") < at("chaos.inject") && at("chaos.inject") < at("chaos.undo"), "{records}");
}

/// Nearly always one of its calls waits for an answer, and can't be stopped there.
#[test]
fn a_hang_acts_on_an_agent_that_makes_names_all_the_time() {
    if !needs_root("a_hang_acts_on_an_agent_that_makes_names_all_the_time") {
        return;
    }
    let scene = Scene::new();
    scene.edit("agent.yaml", "sleep 0.05", ":");
    scene.hang_for("2s");
    let _supervisor = scene.start();
    let outcome = scene.run();
    let report = report(&outcome);
    assert_eq!((&report["acted"], &report["restored"]), (&"yes".into(), &"yes".into()), "{report:#}");
}

#[test]
fn the_short_hang_of_the_example_passes() {
    if !needs_root("the_short_hang_of_the_example_passes") {
        return;
    }
    let scene = Scene::new();
    let _supervisor = scene.start();
    let outcome = scene.run();
    let report = report(&outcome);
    assert_eq!((outcome.code, &report["acted"], &report["restored"]), (0, &"yes".into(), &"yes".into()), "{report:#}");
}

#[test]
fn a_squeeze_and_spent_files_act_and_are_undone() {
    if !needs_root("a_squeeze_and_spent_files_act_and_are_undone") {
        return;
    }
    let scene = Scene::new();
    scene.hang_for("3s");
    for file in ["agent.yaml", "operator.yaml"] {
        scene.edit(file, "faults: [process-hang]", "faults: [cpu-squeeze, fd-exhaustion]");
    }
    let _supervisor = scene.start();
    let mut last = "template: process-hang";
    // The ticker needs little: a share that it doesn't use up would not be seen to act.
    for fault in ["template: cpu-squeeze\nparameters: {cpu: 1%}", "template: fd-exhaustion"] {
        scene.edit("chaos.yaml", last, fault);
        last = fault;
        let outcome = scene.run();
        let report = report(&outcome);
        assert_eq!((&report["acted"], &report["restored"]), (&"yes".into(), &"yes".into()), "{report:#}");
        assert_eq!(report["undo"]["state"], "undone");
        // What a shell makes of failing calls is its own; a squeeze only slows it.
        if fault.contains("cpu") {
            scene.until_ticking();
        }
    }
}

#[test]
fn what_this_supervisor_can_not_do_is_refused_with_a_reason() {
    if !needs_root("what_this_supervisor_can_not_do_is_refused_with_a_reason") {
        return;
    }
    let scene = Scene::new();
    for file in ["agent.yaml", "operator.yaml"] {
        scene.edit(file, "faults: [process-hang]", "faults: []");
    }
    let _supervisor = scene.start();
    scene.edit("chaos.yaml", "template: process-hang", "template: crash-at-step\nparameters: {step: pay}");
    let outcome = scene.run();
    assert_eq!(outcome.code, 77, "{}", outcome.stderr);
    assert!(report(&outcome)["reasons"].to_string().contains("a saga that runs here"), "{}", outcome.stdout);
}

#[test]
fn an_abort_undoes_at_once() {
    if !needs_root("an_abort_undoes_at_once") {
        return;
    }
    let scene = Scene::new();
    scene.hang_for("10m");
    let _supervisor = scene.start();
    let client = scene.begin();
    scene.until_frozen();
    let second = scene.run();
    assert_eq!(second.code, 77, "one experiment at a time: {}", second.stderr);
    let aborted = scene.rig.output(["chaos", "abort", "--reason", "seen enough"]);
    assert_eq!(aborted.code, 0, "{}", aborted.stderr);
    scene.until_ticking();
    let outcome = client.wait();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert_eq!(report(&outcome)["verdict"], "aborted");
    assert_eq!(scene.rig.output(["chaos", "abort"]).code, 1, "nothing is left to be aborted");
}

#[test]
fn nothing_is_left_when_the_supervisor_dies_in_the_middle() {
    if !needs_root("nothing_is_left_when_the_supervisor_dies_in_the_middle") {
        return;
    }
    let scene = Scene::new();
    scene.hang_for("10m");
    let supervisor = scene.start();
    let client = scene.begin();
    scene.until_frozen();
    assert_eq!(pending_undos(&scene.rig.state), 1, "the way back is on the disk while the fault acts");
    supervisor.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(supervisor.wait().code, 137);
    assert_eq!(client.wait().code, 69);
    // Frozen tasks of cgroup v1 can't even be killed: only the guardian's thaw lets them die.
    until("the agent is gone", || processes_with(&scene.mark).is_empty());
    let again = scene.start();
    assert_eq!(pending_undos(&scene.rig.state), 0, "the next start settles it");
    drop(again);
}

#[test]
fn without_leave_nothing_is_done() {
    if !needs_root("without_leave_nothing_is_done") {
        return;
    }
    let cases = [
        ("agent.yaml", "opt_in: true", "opt_in: false", "has not opted in"),
        ("operator.yaml", "environment: dev", "environment: production", "is production"),
    ];
    for (file, from, to, word) in cases {
        let scene = Scene::new();
        if file == "agent.yaml" {
            scene.edit(file, "  faults: [process-hang]\n", "");
        }
        scene.edit(file, from, to);
        let _supervisor = scene.start();
        let outcome = scene.run();
        assert_eq!(outcome.code, 77, "{file}: {}", outcome.stderr);
        let report = report(&outcome);
        assert_eq!(report["verdict"], "refused");
        assert!(report["reasons"].to_string().contains(word), "{report:#}");
        assert_eq!(report["undo"]["state"], "nothing-done");
        assert!(!audit(&scene.rig).contains("chaos.inject"));
    }
}

#[test]
fn the_catalogue_has_six_faults_and_a_bad_file_is_named() {
    let rig = Rig::new();
    let all: Value = serde_json::from_str(&rig.output(["chaos", "list", "--json"]).stdout).unwrap();
    for fault in
        ["process-hang", "crash-at-step", "cpu-squeeze", "memory-pressure", "fd-exhaustion", "trust-manipulation"]
    {
        assert!(all.as_array().unwrap().iter().any(|template| template["fault"] == fault), "{fault}");
    }
    let file = rig.work.join("chaos.yaml");
    std::fs::write(&file, "version: 1\nkind: chaos\nname: x\nagent: a\ntemplte: process-hang\n").unwrap();
    let bad = rig.output(["chaos".as_ref(), "plan".as_ref(), file.as_os_str()]);
    assert_eq!(bad.code, 64);
    assert!(bad.stderr.contains("templte") && bad.stderr.contains("template"), "{}", bad.stderr);
    std::fs::write(&file, "version: 1\nkind: chaos\nname: x\nagent: a\ntemplate: process-hang\n").unwrap();
    let bad = rig.output(["chaos".as_ref(), "run".as_ref(), file.as_os_str()]);
    assert_eq!(bad.code, 64, "no steady state: {}", bad.stderr);
}

#[test]
fn an_experiment_whose_target_dies_still_reports_before_its_supervisor_ends() {
    if !needs_root("an_experiment_whose_target_dies_still_reports_before_its_supervisor_ends") {
        return;
    }
    let scene = Scene::new();
    scene.hang_for("5s");
    let supervisor = scene.start();
    let client = scene.begin();
    scene.until_frozen();
    let killed = scene.rig.output(["kill", "ticker", "--reason", "test", "--yes"]);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert_eq!(supervisor.wait().code, 76);
    let outcome = client.wait();
    let report = report(&outcome);
    assert_ne!(report["verdict"], "pass", "{report:#}");
    assert_eq!(pending_undos(&scene.rig.state), 0);
    let records = audit(&scene.rig);
    assert!(records.contains("chaos.end"), "{records}");
    let kept = scene.rig.output(["chaos", "report", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&kept.stdout).unwrap()["run"], report["run"], "{}", kept.stderr);
}
