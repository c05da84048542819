//! When two want different things of one agent at once, or the disk stands in the way: who wins, and that everybody is told.

use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Rig, Supervisor, effort, is_root, needs_root, processes_with, quoted, skip, unique, until};

fn begun(rig: &Rig, args: &[&std::ffi::OsStr]) -> Supervisor {
    let child = rig.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Supervisor { child: Some(child) }
}

fn state(rig: &Rig, name: &str) -> String {
    let ps = rig.output(["ps", "--json"]).stdout;
    let ps: Value = serde_json::from_str(&ps).unwrap_or_default();
    let agents = ps["agents"].as_array().cloned().unwrap_or_default();
    let found = agents.iter().find(|agent| agent["name"] == name);
    found.and_then(|agent| agent["state"].as_str()).unwrap_or_default().to_owned()
}

/// A thread of a supervisor that stands still, as one does that waits for a hung disk.
struct Halted(PathBuf);

impl Halted {
    /// `None` where this host can't stop a single thread.
    fn thread(of: &Supervisor, name: &str) -> Option<Halted> {
        let freezer = PathBuf::from("/sys/fs/cgroup/freezer");
        if !freezer.join("tasks").exists() {
            return None;
        }
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", of.pid())).unwrap().map(|thread| thread.unwrap().path());
        let named =
            |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let thread = threads.into_iter().find(named).unwrap();
        let group = freezer.join(unique("agt-test-halted"));
        std::fs::create_dir(&group).unwrap();
        let halted = Halted(group);
        std::fs::write(halted.0.join("tasks"), thread.file_name().unwrap().to_str().unwrap()).unwrap();
        std::fs::write(halted.0.join("freezer.state"), "FROZEN").unwrap();
        until("the thread stands still", || halted.read("freezer.state") == "FROZEN");
        Some(halted)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        let parent = self.0.parent().unwrap().join("tasks");
        for task in self.read("tasks").lines() {
            let _ = std::fs::write(&parent, task);
        }
        until("the test's group is gone", || std::fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
fn a_kill_waits_for_no_disk_and_what_gives_power_is_refused() {
    let name = "a_kill_waits_for_no_disk_and_what_gives_power_is_refused";
    if !needs_root(name) {
        return;
    }
    let rig = Rig::new();
    let mark = unique("past-the-disk");
    let files = ["other", "target"].map(|name| {
        rig.agent(name, &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&format!("sleep 1000; : {mark}-{name}"))))
    });
    let supervisor = begun(&rig, &["run".as_ref(), files[0].as_os_str(), files[1].as_os_str()]);
    until("both run", || ["other", "target"].iter().all(|name| state(&rig, name) == "running"));
    let Some(halted) = Halted::thread(&supervisor, "store-writer") else {
        drop(supervisor);
        return skip(name, "needs the freezer of cgroup v1, which can stop a single thread");
    };
    // A restart gives power: it waits for its record, and the loop with it.
    let restart = begun(&rig, &["restart", "other", "--reason", "test", "--yes"].map(AsRef::as_ref));
    let killed = rig.output(["kill", "target", "--reason", "test", "--yes"]);
    assert_eq!(processes_with(&format!("{mark}-target")), Vec::<i32>::new(), "{}", killed.stderr);
    assert!(killed.stderr.contains("kill") && killed.stderr.contains("verified empty"), "{}", killed.stderr);
    let restarted = restart.wait();
    assert_eq!(restarted.code, 73, "{}", restarted.stderr);
    assert!(restarted.stderr.contains("the disk has not answered"), "{}", restarted.stderr);
    assert!(!processes_with(&format!("{mark}-other")).is_empty(), "it was not stopped for a start that was refused");
    drop(halted);
    until("the kill is on record", || rig.output(["audit", "show", "--agent", "target"]).stdout.contains("kill"));
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    // The code of the first one named.
    assert_eq!(supervisor.wait().code, 143);
    assert_eq!(rig.output(["audit", "verify"]).code, 0);
}

#[test]
fn what_a_stopping_agent_says_of_itself_does_not_bring_it_back() {
    if !needs_root("what_a_stopping_agent_says_of_itself_does_not_bring_it_back") {
        return;
    }
    let rig = Rig::new();
    let script = "import os, signal, socket, time\n\
                  s = socket.socket(socket.AF_UNIX)\n\
                  s.connect(os.environ['AGT_SOCKET'])\n\
                  def stop(*_):\n  \
                  open('said', 'w').close()\n  \
                  for n in range(20): s.sendall(b'{\"task\":\"end\",\"id\":\"%d\",\"outcome\":\"bad\"}\\n' % n)\n\
                  signal.signal(signal.SIGTERM, stop)\n\
                  open('ready', 'w').close()\n\
                  while True: time.sleep(0.05)\n";
    std::fs::write(rig.work.join("clingy.py"), script).unwrap();
    let slos = "slos: [{name: right, sli: correctness, objective: 90%, period: 1h, minimum_events: 5, remedies: [{on: exhausted, \
                action: demote}]}]\n";
    let file = rig.agent("clingy", &format!("ring: 2\ntimeouts: {{stop: 30s}}\ncommand: [python3, clingy.py]\n{slos}"));
    let supervisor = rig.start(&file);
    until("it heeds TERM its own way", || rig.work.join("ready").exists());
    let stopped = rig.output(["stop", "clingy", "--reason", "test", "--yes"]);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert!(rig.work.join("said").exists());
    let outcome = supervisor.wait();
    assert!(
        outcome.stderr.contains("Demoted from R2 to R3"),
        "the budget was spent while it stopped: {}",
        outcome.stderr
    );
    assert_eq!(outcome.code, 137, "{}", outcome.stderr);
}

#[test]
fn whoever_waits_for_a_stop_is_told_of_a_later_restart() {
    let rig = Rig::new();
    let script = "trap 'touch told' TERM; touch ready; while :; do sleep 0.1; done";
    let text = format!("ring: 2\n{}timeouts: {{stop: 2s}}\ncommand: [sh, -c, \"{script}\"]\n", effort());
    let supervisor = rig.start(&rig.agent("torn", &text));
    until("it heeds no TERM", || rig.work.join("ready").exists());
    let stop = begun(&rig, &["stop", "torn", "--reason", "test", "--yes"].map(AsRef::as_ref));
    until("it was told", || rig.work.join("told").exists());
    assert_eq!(rig.output(["restart", "torn", "--reason", "test", "--yes"]).code, 0);
    let stopped = stop.wait();
    assert!(stopped.stderr.contains("started again by a later order"), "{}", stopped.stderr);
    assert_eq!(rig.output(["kill", "torn", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn ctrl_c_for_ones_own_agents_gives_others_their_grace() {
    let rig = Rig::new();
    let own = rig.agent("own", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let script = "trap 'sleep 1; touch saved; exit 0' TERM; touch ready; while :; do sleep 0.1; done";
    let other = rig.agent("other", &format!("ring: 2\n{}command: [sh, -c, \"{script}\"]\n", effort()));
    let first = rig.start(&own);
    let second = begun(&rig, &["run".as_ref(), other.as_os_str()]);
    until("the other runs", || rig.work.join("ready").exists());
    first.signal(Signal::SIGINT);
    until("the own one has ended", || state(&rig, "own") == "ended");
    assert_eq!(state(&rig, "other"), "running");
    first.signal(Signal::SIGINT);
    let (first, second) = (first.wait(), second.wait());
    assert!(rig.work.join("saved").exists(), "the other had its grace: {}", first.stderr);
    assert!(first.stderr.contains("stays for other"), "{}", first.stderr);
    assert_eq!(second.code, 0, "{}", second.stderr);
}

#[test]
fn one_agent_of_a_hung_supervisor_can_be_killed() {
    if !needs_root("one_agent_of_a_hung_supervisor_can_be_killed") {
        return;
    }
    let rig = Rig::new();
    let mark = unique("hung-supervisor");
    let files = ["spared", "struck"].map(|name| {
        rig.agent(name, &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&format!("sleep 1000; : {mark}-{name}"))))
    });
    let supervisor = begun(&rig, &["run".as_ref(), files[0].as_os_str(), files[1].as_os_str()]);
    until("both run", || ["spared", "struck"].iter().all(|name| state(&rig, name) == "running"));
    supervisor.signal(Signal::SIGSTOP);
    let killed = rig.output(["kill", "struck", "--reason", "test", "--yes"]);
    let (struck, spared) = (processes_with(&format!("{mark}-struck")), processes_with(&format!("{mark}-spared")));
    supervisor.signal(Signal::SIGCONT);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert!(killed.stderr.contains("struck stays dead"), "{}", killed.stderr);
    assert!(struck.is_empty() && !spared.is_empty(), "{struck:?} {spared:?}");
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn a_kill_without_cgroups_is_verified_by_the_end_of_the_namespace() {
    if is_root() {
        return skip_as_root();
    }
    let rig = Rig::new();
    let supervisor = rig.start(&rig.agent("bare", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort())));
    let killed = rig.output(["kill", "bare", "--reason", "test", "--yes", "--json"]);
    let report: Value = serde_json::from_str(&killed.stdout).unwrap();
    let kill = &report["agents"][0]["kill"];
    assert!(kill["verified_empty"] == true && kill["processes"].is_null() && kill["took_us"].is_u64(), "{kill}");
    supervisor.wait();
}

/// Root has cgroups; this one's other half runs as an ordinary user.
fn skip_as_root() {
    println!("not as root: there are cgroups");
}

#[test]
fn a_revival_waits_for_a_supervisor_that_is_ending() {
    let rig = Rig::new();
    for _ in 0..3 {
        let supervisor = rig.start(&rig.agent("last", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort())));
        assert_eq!(rig.output(["kill", "last", "--reason", "test", "--yes"]).code, 0);
        let revived = rig.output(["revive", "last", "--reason", "test"]);
        assert_eq!(revived.code, 0, "{}", revived.stderr);
        supervisor.signal(Signal::SIGTERM);
        supervisor.wait();
    }
}
