//! Who may end, hold and bring back an agent, what is recorded and shown of it, and what `run` and `serve` come out with.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::metrics::scrape;
use crate::support::{Outcome, Rig, Supervisor, effort, needs_root, quoted, until};

fn sleeper(rig: &Rig, name: &str) -> std::path::PathBuf {
    rig.agent(name, &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()))
}

fn spawn(rig: &Rig, args: &[&str]) -> Supervisor {
    let child = rig.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Supervisor { child: Some(child) }
}

fn records(rig: &Rig) -> Vec<Value> {
    let shown = rig.output(["audit", "show", "--json"]);
    let value: Value = serde_json::from_str(&shown.stdout).unwrap();
    value["records"].as_array().unwrap().clone()
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

/// Actor, outcome and reason of every record of an action, oldest first.
fn said_of(rig: &Rig, action: &str) -> Vec<(String, String, String)> {
    let ours = records(rig).into_iter().filter(|record| text(record, "action") == action);
    ours.map(|r| (text(&r, "actor").to_owned(), text(&r, "outcome").to_owned(), text(&r, "reason").to_owned()))
        .collect()
}

fn agent(rig: &Rig, name: &str) -> Value {
    let ps = rig.ps();
    let found = ps["agents"].as_array().unwrap().iter().find(|agent| agent["name"] == name).cloned();
    found.unwrap_or(Value::Null)
}

fn operator() -> String {
    format!("operator:{}", nix::unistd::geteuid())
}

/// Orders without a terminal, answered with success.
fn order(rig: &Rig, args: &[&str]) -> Outcome {
    let outcome = rig.output(args);
    assert_eq!(outcome.code, 0, "{args:?}: {}", outcome.stderr);
    outcome
}

#[test]
fn a_refused_second_run_leaves_the_agent_alone_that_it_was_refused_for() {
    let rig = Rig::new();
    let file = sleeper(&rig, "only");
    let supervisor = rig.start(&file);
    let again = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(again.code, 75, "{}", again.stderr);
    assert!(again.stderr.contains("only is already running"), "{}", again.stderr);
    let folder = rig.work.join("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&file, folder.join("only.yaml")).unwrap();
    let other = rig.output(["run".as_ref(), folder.join("only.yaml").as_os_str()]);
    assert_eq!(other.code, 77, "{}", other.stderr);
    // A third one that is taken over and answered: by then the loop has seen the hang-ups of the two above.
    let through = rig.agent("through", &format!("ring: 2\n{}command: [sleep, '0.5']\n", effort()));
    assert_eq!(rig.output(["run".as_ref(), through.as_os_str()]).code, 0);
    assert_eq!(agent(&rig, "only")["state"], "running");
    order(&rig, &["stop", "only", "--reason", "ours", "--yes"]);
    supervisor.wait();
    let stops = said_of(&rig, "stop");
    assert_eq!(stops, [(operator(), "done".to_owned(), "ours".to_owned())], "nobody else stopped anything");
}

#[test]
fn a_killed_agent_is_not_brought_back_by_restart() {
    let rig = Rig::new();
    let keeper = rig.start(&sleeper(&rig, "keeper"));
    let file = sleeper(&rig, "evil").into_os_string().into_string().unwrap();
    let run = spawn(&rig, &["run", &file]);
    until("it runs", || agent(&rig, "evil")["state"] == "running");
    order(&rig, &["kill", "evil", "--reason", "loops", "--yes"]);
    assert_eq!(run.wait().code, 76);
    let restart = rig.output(["restart", "evil", "--reason", "please", "--yes"]);
    assert_eq!(restart.code, 76, "{}", restart.stderr);
    assert!(restart.stderr.contains("agt-supervise revive evil"), "{}", restart.stderr);
    assert_eq!(agent(&rig, "evil")["state"], "ended");
    let again = order(&rig, &["kill", "evil", "--reason", "twice", "--yes"]);
    assert!(again.stderr.contains("nothing of it runs") && !again.stderr.contains("verified"), "{}", again.stderr);
    let ends = records(&rig).iter().filter(|r| text(r, "action") == "end" && r["agent"] == "evil").count();
    assert_eq!(ends, 1, "it ended once");
    order(&rig, &["revive", "evil", "--reason", "mended"]);
    until("it runs again", || agent(&rig, "evil")["state"] == "running");
    order(&rig, &["stop", "--all", "--reason", "test", "--yes"]);
    keeper.wait();
}

#[test]
fn a_kill_is_not_undone_by_a_restart_that_was_on_its_way() {
    let rig = Rig::new();
    let script = "trap '' TERM; touch ready; while :; do sleep 0.1; done";
    let file = rig.agent("slow", &format!("ring: 2\n{}command: [sh, -c, \"{script}\"]\n", effort()));
    let supervisor = rig.start(&file);
    until("it heeds no TERM", || rig.work.join("ready").exists());
    order(&rig, &["restart", "slow", "--reason", "turn it off and on", "--yes"]);
    order(&rig, &["kill", "slow", "--reason", "no, off", "--yes"]);
    assert_eq!(supervisor.wait().code, 76);
    assert_eq!(said_of(&rig, "launch").len(), 1, "it was launched once");
}

#[test]
fn every_order_is_on_record_with_who_why_and_how_it_ended() {
    let test = "every_order_is_on_record_with_who_why_and_how_it_ended";
    if !needs_root(test) {
        return;
    }
    let rig = Rig::new();
    let supervisor = rig.start(&sleeper(&rig, "long"));
    let done = |reason: &str, outcome: &str| (operator(), outcome.to_owned(), reason.to_owned());
    order(&rig, &["freeze", "long", "--reason", "cold"]);
    order(&rig, &["thaw", "long", "--reason", "warm"]);
    assert_eq!(rig.output(["thaw", "long", "--reason", "warmer"]).code, 1);
    order(&rig, &["restart", "long", "--reason", "fresh", "--yes"]);
    until("it runs again", || agent(&rig, "long")["life"] == 2 && agent(&rig, "long")["state"] == "running");
    assert_eq!(rig.output(["revive", "long", "--reason", "by mistake"]).code, 1);
    order(&rig, &["kill", "long", "--reason", "loops", "--yes"]);
    assert_eq!(supervisor.wait().code, 76);
    assert_eq!(said_of(&rig, "freeze"), [done("cold", "done")]);
    assert_eq!(said_of(&rig, "thaw"), [done("warm", "allowed"), done("warmer", "failed")]);
    assert_eq!(said_of(&rig, "restart"), [done("fresh", "allowed")]);
    assert_eq!(said_of(&rig, "kill"), [done("loops", "done")]);
    assert_eq!(
        said_of(&rig, "revive"),
        [done("by mistake", "failed")],
        "it was not killed then, so nothing was allowed"
    );
    // Without a supervisor the words are the same.
    assert_eq!(rig.output(["revive", "long", "--reason", "mended"]).code, 0);
    assert_eq!(said_of(&rig, "revive")[1], done("mended", "allowed"));
}

#[test]
fn an_order_for_all_leaves_out_whom_it_does_not_fit_and_does_the_rest() {
    if !needs_root("an_order_for_all_leaves_out_whom_it_does_not_fit_and_does_the_rest") {
        return;
    }
    let rig = Rig::new();
    let keeper = rig.start(&sleeper(&rig, "zebra"));
    let over = rig.agent("ant", "ring: 2\ncommand: ['true']\n");
    assert_eq!(rig.output(["run".as_ref(), over.as_os_str()]).code, 0);
    let killed = sleeper(&rig, "bee").into_os_string().into_string().unwrap();
    let run = spawn(&rig, &["run", &killed]);
    until("it runs", || agent(&rig, "bee")["state"] == "running");
    order(&rig, &["kill", "bee", "--reason", "test", "--yes"]);
    run.wait();
    let frozen = order(&rig, &["freeze", "--all", "--reason", "test"]);
    assert!(frozen.stderr.contains("ant  left alone: does not run"), "{}", frozen.stderr);
    assert!(frozen.stderr.contains("zebra  frozen"), "{}", frozen.stderr);
    assert_eq!(agent(&rig, "zebra")["frozen"], "operator");
    order(&rig, &["thaw", "--all", "--reason", "test"]);
    assert_eq!(agent(&rig, "zebra")["frozen"], Value::Null);
    let revived = order(&rig, &["revive", "--all", "--reason", "test"]);
    assert!(revived.stderr.contains("ant  left alone: was not killed"), "{}", revived.stderr);
    until("the killed one lives", || agent(&rig, "bee")["state"] == "running");
    let stopped = order(&rig, &["stop", "--all", "--reason", "test", "--yes"]);
    assert!(stopped.stderr.contains("bee  stopped") && stopped.stderr.contains("zebra  stopped"), "{}", stopped.stderr);
    keeper.wait();
}

#[test]
fn what_is_frozen_is_shown_as_frozen() {
    if !needs_root("what_is_frozen_is_shown_as_frozen") {
        return;
    }
    let rig = Rig::new();
    let file = sleeper(&rig, "ice").into_os_string().into_string().unwrap();
    let supervisor = spawn(&rig, &["run", "--metrics", "127.0.0.1:0", &file]);
    until("it runs", || rig.output(["ps", "--json"]).code == 0 && agent(&rig, "ice")["state"] == "running");
    let url = rig.ps()["supervisor"]["metrics"].as_str().unwrap().to_owned();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
    order(&rig, &["freeze", "ice", "--reason", "test"]);
    assert!(rig.output(["ps"]).stdout.contains("frozen (by operator)"));
    assert!(rig.output(["status", "ice"]).stdout.contains("frozen (by operator)"));
    assert_eq!(agent(&rig, "ice")["frozen"], "operator");
    let frozen = "agt_agent_state{agent=\"ice\",state=\"frozen\"} 1";
    until("the metric says so", || scrape(&address).contains(frozen));
    order(&rig, &["thaw", "ice", "--reason", "test"]);
    assert!(!rig.output(["ps"]).stdout.contains("frozen"));
    until("the metric says that too", || !scrape(&address).contains(frozen));
    order(&rig, &["stop", "ice", "--reason", "test", "--yes"]);
    supervisor.wait();
}

#[test]
fn what_is_said_of_a_handed_over_agent_is_said_to_its_own_run() {
    let rig = Rig::new();
    let owner = rig.start(&sleeper(&rig, "owners"));
    let retried = "restart: {policy: on-failure, attempts: 1, backoff: {initial: 100ms}}";
    let file = rig.agent("guest", &format!("ring: 2\n{}{retried}\ncommand: [sh, -c, 'exit 4']\n", effort()));
    let guest = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(guest.code, 4, "{}", guest.stderr);
    for line in ["guest  R2  ", "guest  exited 4; restart 1 in", "guest: gave up after 1 restarts"] {
        assert!(guest.stderr.contains(line), "{line} is missing in\n{}", guest.stderr);
    }
    let quiet = rig.output(["run".as_ref(), "-q".as_ref(), file.as_os_str()]);
    assert!(!quiet.stderr.contains("guest  R2  "), "{}", quiet.stderr);
    let missing = rig.agent("missing", &format!("ring: 2\n{}command: [sh, -c, 'exit 0']\nworkdir: gone\n", effort()));
    assert_ne!(rig.output(["run".as_ref(), missing.as_os_str()]).code, 0);
    order(&rig, &["stop", "--all", "--reason", "test", "--yes"]);
    let owner = owner.wait();
    assert!(owner.stderr.contains("owners"), "{}", owner.stderr);
    assert!(!owner.stderr.contains("guest") && !owner.stderr.contains("missing"), "{}", owner.stderr);
}

#[test]
fn a_run_that_comes_while_the_supervisor_ends_becomes_the_next_one() {
    let rig = Rig::new();
    let first = rig.agent("first", &format!("ring: 2\n{}command: [sleep, '0.2']\n", effort()));
    let second = rig.agent("second", &format!("ring: 2\n{}command: [sh, -c, 'exit 6']\n", effort()));
    let (first, second) =
        (first.into_os_string().into_string().unwrap(), second.into_os_string().into_string().unwrap());
    for after_ms in [0, 150, 180, 200, 220, 240, 260, 280, 300, 320] {
        let supervisor = spawn(&rig, &["run", &first]);
        if after_ms > 0 {
            let marked = || rig.output(["ps", "--json"]).code == 0;
            let over = || {
                supervisor.child.as_ref().is_some_and(|child| {
                    std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
                        .is_ok_and(|stat| stat.contains(") Z "))
                })
            };
            until("the first supervises", || marked() || over());
            std::thread::sleep(std::time::Duration::from_millis(after_ms - 100));
        }
        let outcome = rig.output(["run", &second]);
        assert_eq!(outcome.code, 6, "{after_ms} ms: {}", outcome.stderr);
        assert_eq!(supervisor.wait().code, 0);
    }
}

#[test]
fn a_service_that_is_told_to_end_and_has_comes_out_with_0() {
    let rig = Rig::new();
    let folder = rig.work.join("agents");
    std::fs::create_dir(&folder).unwrap();
    for (name, command) in [("stays", "[sleep, '1000']"), ("fails", "[sh, -c, 'exit 3']")] {
        let file = rig.agent(name, &format!("ring: 2\n{}command: {command}\n", effort()));
        std::fs::rename(&file, folder.join(format!("{name}.yaml"))).unwrap();
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    let service = spawn(&rig, &["serve", "--metrics", "off", folder.to_str().unwrap()]);
    until("both have been started", || {
        rig.output(["ps", "--json"]).code == 0
            && agent(&rig, "stays")["state"] == "running"
            && agent(&rig, "fails")["state"] == "ended"
    });
    assert!(rig.output(["ps"]).stdout.contains("exit 3"), "{}", rig.output(["ps"]).stdout);
    service.signal(Signal::SIGTERM);
    let ended = service.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[test]
fn a_second_signal_ends_at_once_and_leaves_no_mark_of_the_kill_switch() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let rig = Rig::new();
        let script = "trap 'touch told' TERM; touch ready; while :; do sleep 0.1; done";
        let file = rig.agent("stubborn", &format!("ring: 2\n{}command: [sh, -c, \"{script}\"]\n", effort()));
        let supervisor = rig.start(&file);
        until("it heeds no TERM", || rig.work.join("ready").exists());
        supervisor.signal(signal);
        until("it was told", || rig.work.join("told").exists());
        supervisor.signal(signal);
        assert_eq!(supervisor.wait().code, 137);
        assert_eq!(agent_after(&rig, "stubborn"), Value::Null, "no mark");
        let next = rig.agent("stubborn", &format!("ring: 2\n{}command: [sh, -c, 'exit 0']\n", effort()));
        let next = rig.output(["run".as_ref(), next.as_os_str()]);
        assert_eq!(next.code, 0, "{}", next.stderr);
    }
}

/// The kill switch's mark, when no supervisor runs.
fn agent_after(rig: &Rig, name: &str) -> Value {
    let trust = rig.output(["trust", "show", "--json"]);
    let trust: Value = serde_json::from_str(&trust.stdout).unwrap_or_else(|e| panic!("{e}: {trust:?}"));
    trust.as_array().unwrap().iter().find(|a| a["agent"] == name).map(|a| a["killed"].clone()).unwrap()
}

#[test]
fn two_files_of_one_name_are_refused_before_anything_starts() {
    let rig = Rig::new();
    let folder = rig.work.join("agents");
    std::fs::create_dir(&folder).unwrap();
    let file = rig.agent("twin", &format!("ring: 2\n{}command: [sh, -c, 'touch started']\n", effort()));
    std::fs::copy(&file, folder.join("one.yaml")).unwrap();
    std::fs::copy(&file, folder.join("two.yaml")).unwrap();
    std::fs::create_dir(folder.join("twin")).unwrap();
    for verb in ["run", "serve"] {
        let outcome = rig.output([verb.as_ref(), "--metrics".as_ref(), "off".as_ref(), folder.as_os_str()]);
        assert_eq!(outcome.code, 64, "{verb}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("one.yaml") && outcome.stderr.contains("two.yaml"), "{}", outcome.stderr);
    }
    assert!(!folder.join("started").exists());
}

#[test]
fn giving_up_is_shown_with_code_and_count_and_is_no_success() {
    let rig = Rig::new();
    let keeper = rig.start(&sleeper(&rig, "keeper"));
    for (code, expected) in [(0, 1), (3, 3)] {
        let name = format!("quits-{code}");
        let retried = "restart: {policy: always, attempts: 2, backoff: {initial: 60ms}}";
        let command = quoted(&format!("exit {code}"));
        let file = rig.agent(&name, &format!("ring: 2\n{}{retried}\ncommand: [sh, -c, {command}]\n", effort()));
        let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
        assert_eq!(outcome.code, expected, "{}", outcome.stderr);
        let shown = format!("gave up after 2 restarts (exit {code})");
        assert!(rig.output(["ps"]).stdout.contains(&shown), "{}", rig.output(["ps"]).stdout);
        assert!(rig.output(["status", &name]).stdout.contains(&shown));
    }
    order(&rig, &["stop", "--all", "--reason", "test", "--yes"]);
    keeper.wait();
}

#[test]
fn a_stranger_is_told_that_it_is_not_permitted() {
    if !needs_root("a_stranger_is_told_that_it_is_not_permitted") {
        return;
    }
    let rig = Rig::new();
    let supervisor = rig.start(&sleeper(&rig, "mine"));
    // The copy stands where every uid can execute it.
    let program = rig.dir.path().join("agt-supervise");
    std::fs::copy(crate::support::binary(), &program).unwrap();
    let line = format!(
        "exec setpriv --reuid 12345 --regid 12345 --clear-groups {} --state-dir {} ps",
        program.display(),
        rig.state.display()
    );
    let outcome: Outcome = std::process::Command::new("sh").args(["-c", &line]).output().unwrap().into();
    assert_eq!(outcome.code, 77, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not permitted"), "{}", outcome.stderr);
    order(&rig, &["stop", "--all", "--reason", "test", "--yes"]);
    supervisor.wait();
}
