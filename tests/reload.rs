//! `reload`: what changes is shown first, nothing happens without a yes, and a bad file changes nothing.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Outcome, Rig, Supervisor, effort, needs_root, quoted, until};

/// An agent that writes its word into `words` and stays.
fn speaker(rig: &Rig, name: &str, word: &str, rest: &str) -> PathBuf {
    std::fs::create_dir_all(rig.work.join(name)).unwrap();
    let script = format!("echo {word} >> {name}.words; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    // A folder of its own, with `run` as with `serve`.
    let head = format!("ring: 2\nworkdir: {name}\n{}", effort());
    rig.agent(name, &format!("{head}command: [sh, -c, {}]\n{rest}", quoted(&script)))
}

/// One that also runs in R3, where an agent starts that nobody has vouched for.
fn sleeper(rig: &Rig, name: &str) -> PathBuf {
    std::fs::create_dir_all(rig.work.join(name)).unwrap();
    rig.agent(name, &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()))
}

fn words(rig: &Rig, name: &str) -> String {
    let text = std::fs::read_to_string(rig.work.join(name).join(format!("{name}.words"))).unwrap_or_default();
    text.lines().collect::<Vec<_>>().join(" ")
}

fn said(rig: &Rig, name: &str, expected: &str) {
    until(&format!("{name} has said {expected}"), || words(rig, name) == expected);
}

fn pid(rig: &Rig, name: &str) -> Option<i64> {
    let status = rig.output(["status", name, "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).ok()?;
    status["agents"][0]["pid"].as_i64()
}

fn audit(rig: &Rig) -> String {
    rig.output(["audit", "show"]).stdout
}

/// A service over the work folder; waits until its agents have spoken.
fn serve(rig: &Rig, names: &[&str]) -> Supervisor {
    let mut command = rig.command(["serve".as_ref(), rig.work.as_os_str()]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let supervisor = Supervisor { child: Some(child) };
    for name in names {
        until(&format!("{name} runs"), || pid(rig, name).is_some());
    }
    supervisor
}

fn end(rig: &Rig, supervisor: Supervisor) -> Outcome {
    supervisor.signal(Signal::SIGTERM);
    let outcome = supervisor.wait();
    assert!(!rig.state.join("operator.sock").exists());
    outcome
}

/// Served agents are vouched for by nobody: one that was never run by hand would be in R3, where these can't write.
fn vouch(rig: &Rig, file: &Path, name: &str) {
    let supervisor = rig.start(file);
    until("it has spoken", || !words(rig, name).is_empty());
    assert_eq!(rig.output(["stop", name, "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
    std::fs::remove_file(rig.work.join(name).join(format!("{name}.words"))).unwrap();
}

#[test]
fn a_changed_file_takes_effect_by_a_confirmed_reload_and_not_by_a_restart() {
    let rig = Rig::new();
    let file = speaker(&rig, "changed", "one", "");
    let supervisor = rig.start(&file);
    said(&rig, "changed", "one");
    speaker(&rig, "changed", "two", "limits: {memory: 300MiB}\n");
    assert_eq!(rig.output(["restart", "changed", "--reason", "test", "--yes"]).code, 0);
    said(&rig, "changed", "one one");
    let unsaid = rig.output(["reload"]);
    assert_eq!(unsaid.code, 64, "{}", unsaid.stderr);
    assert!(unsaid.stderr.contains("help: say it beforehand: `agt-supervise reload --yes`"), "{}", unsaid.stderr);
    let dry = rig.output(["reload", "changed", "--dry-run"]);
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    for line in
        ["is stopped and started with:\n", "~ limits.memory in R2: 1GiB -> 300MiB\n", "echo two >> changed.words"]
    {
        assert!(dry.stdout.contains(line), "{line} in\n{}", dry.stdout);
        assert!(unsaid.stdout.contains(line), "{line} in\n{}", unsaid.stdout);
    }
    assert!(!dry.stdout.contains("in R1"), "a ring that it can't reach: {}", dry.stdout);
    assert_eq!(words(&rig, "changed"), "one one", "looking does nothing");
    let done = rig.output(["reload", "--yes", "--reason", "more words", "--json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let difference: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&difference["applied"], &difference["agents"][0]["what"]), (&true.into(), &"restart".into()));
    said(&rig, "changed", "one one two");
    assert_eq!(rig.output(["restart", "changed", "--reason", "test", "--yes"]).code, 0);
    said(&rig, "changed", "one one two two");
    let again = rig.output(["reload"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, "nothing has changed\n"), "{}", again.stderr);
    let record = audit(&rig).lines().find(|line| line.contains(" reload ")).unwrap_or_default().to_owned();
    for part in ["allowed", "more words", "limits.memory in R2", "old_plan=", "what=\"restart\""] {
        assert!(record.contains(part), "{part} in {record}");
    }
    end(&rig, supervisor);
}

#[test]
fn a_bad_file_or_a_refused_one_keeps_the_plan_and_the_process() {
    let rig = Rig::new();
    let file = speaker(&rig, "steady", "one", "");
    let supervisor = rig.start(&file);
    said(&rig, "steady", "one");
    let before = pid(&rig, "steady");
    speaker(&rig, "steady", "two", "limits: {memroy: 64MiB}\n");
    let bad = rig.output(["reload", "--yes", "--reason", "typo"]);
    assert_eq!(bad.code, 64, "{}", bad.stderr);
    assert!(bad.stderr.starts_with("error: unknown key `limits.memroy`"), "{}", bad.stderr);
    assert!(bad.stderr.contains("the loaded plans stay as they are"), "{}", bad.stderr);
    speaker(&rig, "steady", "two", "files: {read: [/root]}\n");
    let refused = rig.output(["reload", "--yes"]);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    std::fs::remove_file(&file).unwrap();
    let gone = rig.output(["reload", "--yes"]);
    assert_eq!(gone.code, 64, "{}", gone.stderr);
    let renamed = speaker(&rig, "other", "two", "");
    std::fs::rename(renamed, &file).unwrap();
    let other = rig.output(["reload", "--yes"]);
    assert_eq!(other.code, 1, "{}", other.stderr);
    assert!(other.stderr.contains("was the file of steady and is that of other"), "{}", other.stderr);
    assert_eq!(rig.output(["reload", "nobody", "--yes"]).code, 1);
    assert_eq!(pid(&rig, "steady"), before, "its process was not touched");
    assert_eq!(rig.output(["restart", "steady", "--reason", "test", "--yes"]).code, 0);
    said(&rig, "steady", "one one");
    let records = audit(&rig);
    assert!(records.contains("reload denied  \"typo\"") && records.contains("limits.memroy"), "{records}");
    end(&rig, supervisor);
}

#[test]
fn what_only_the_supervisor_uses_is_taken_over_without_a_restart() {
    let rig = Rig::new();
    let file = speaker(&rig, "quiet", "one", "");
    let supervisor = rig.start(&file);
    said(&rig, "quiet", "one");
    let before = pid(&rig, "quiet");
    let slo = "slos: [{name: new, sli: availability, objective: 0.5, minimum_events: 1}]\n";
    speaker(
        &rig,
        "quiet",
        "one",
        &format!("restart: {{policy: always, backoff: {{initial: 50ms, max: 60ms}}}}\n{slo}"),
    );
    let done = rig.output(["reload", "--yes"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stdout.contains("runs on with:") && done.stdout.contains("~ restart.policy: never -> always"),
        "{}",
        done.stdout
    );
    assert_eq!(pid(&rig, "quiet"), before);
    until("the new SLO counts", || rig.output(["slo", "quiet", "--json"]).stdout.contains("\"new\""));
    // The new restart rule holds for the process that was there before it.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(before.unwrap()).unwrap()), Signal::SIGKILL)
        .unwrap();
    said(&rig, "quiet", "one one");
    end(&rig, supervisor);
}

#[test]
fn on_a_terminal_it_asks_once_and_a_no_does_nothing() {
    let rig = Rig::new();
    let file = speaker(&rig, "asked", "one", "");
    let supervisor = rig.start(&file);
    said(&rig, "asked", "one");
    speaker(&rig, "asked", "two", "");
    for (answer, code, expected) in [("n\n", 1, "one"), ("\n", 1, "one"), ("y\n", 0, "one two")] {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut terminal = std::fs::File::from(pty.master);
        let mut command = rig.command(["reload"]);
        let child =
            command.stdin(Stdio::from(pty.slave)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        terminal.write_all(answer.as_bytes()).unwrap();
        let outcome = Outcome::from(child.wait_with_output().unwrap());
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("[y/N]").count(), 1, "{}", outcome.stderr);
        assert!(outcome.stdout.contains("echo two"), "{}", outcome.stdout);
        said(&rig, "asked", expected);
    }
    end(&rig, supervisor);
}

/// POST to the operator socket: status line and body.
fn post(rig: &Rig, body: &str) -> String {
    let mut socket = UnixStream::connect(rig.state.join("operator.sock")).unwrap();
    let length = body.len();
    write!(
        socket,
        "POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn only_the_difference_that_was_shown_is_done() {
    let rig = Rig::new();
    let file = speaker(&rig, "raced", "one", "");
    let supervisor = rig.start(&file);
    said(&rig, "raced", "one");
    speaker(&rig, "raced", "two", "");
    let shown = rig.output(["reload", "--dry-run", "--json"]);
    let token = serde_json::from_str::<Value>(&shown.stdout).unwrap()["token"].as_str().unwrap().to_owned();
    speaker(&rig, "raced", "evil", "");
    let body = format!("{{\"agent\":null,\"token\":\"{token}\"}}");
    let late = post(&rig, &body);
    assert!(late.starts_with("HTTP/1.1 409") && late.contains("\"exit_code\":75"), "{late}");
    speaker(&rig, "raced", "two", "");
    let done = post(&rig, &body);
    assert!(done.starts_with("HTTP/1.1 200") && done.contains("\"applied\":true"), "{done}");
    said(&rig, "raced", "one two");
    end(&rig, supervisor);
}

#[test]
fn a_served_folder_gains_and_loses_agents_by_reload() {
    let rig = Rig::new();
    let stays = sleeper(&rig, "stays");
    let supervisor = serve(&rig, &["stays"]);
    let before = pid(&rig, "stays");
    let goes = sleeper(&rig, "comes");
    let shown = rig.output(["reload", "--dry-run"]);
    assert!(shown.stdout.contains(&format!("comes  ({}) is new: it is started\n", goes.display())), "{}", shown.stdout);
    assert!(!shown.stdout.contains("stays"), "{}", shown.stdout);
    assert!(pid(&rig, "comes").is_none());
    assert_eq!(rig.output(["reload", "--yes"]).code, 0);
    until("the new one runs", || pid(&rig, "comes").is_some());
    std::fs::remove_file(&goes).unwrap();
    let shown = rig.output(["reload", "--dry-run"]);
    assert!(shown.stdout.contains("is gone: it is stopped\n"), "{}", shown.stdout);
    assert!(pid(&rig, "comes").is_some());
    assert_eq!(rig.output(["reload", "--yes"]).code, 0);
    until("it is stopped and forgotten", || !rig.output(["ps"]).stdout.contains("comes"));
    assert_eq!(pid(&rig, "stays"), before);
    let double = rig.work.join("double.yaml");
    std::fs::copy(&stays, &double).unwrap();
    let taken = rig.output(["reload", "--yes"]);
    assert_eq!(taken.code, 77, "{}", taken.stderr);
    assert!(taken.stderr.contains("the name `stays` belongs to"), "{}", taken.stderr);
    std::fs::remove_file(&double).unwrap();
    // Another name in the same file: the old one goes, the new one comes.
    let text = std::fs::read_to_string(&stays).unwrap().replace("name: stays", "name: renamed");
    std::fs::write(&stays, text).unwrap();
    std::fs::create_dir(rig.work.join("renamed")).unwrap();
    assert_eq!(rig.output(["reload", "--yes"]).code, 0);
    until("the renamed one runs", || pid(&rig, "renamed").is_some());
    until("the old name is forgotten", || !rig.output(["ps"]).stdout.contains("stays"));
    let records = audit(&rig);
    assert!(records.contains("what=\"start\"") && records.contains("what=\"stop\""), "{records}");
    end(&rig, supervisor);
}

#[test]
fn a_service_takes_a_hangup_for_a_reload_and_keeps_its_plans_on_an_error() {
    let rig = Rig::new();
    let file = speaker(&rig, "served", "one", "");
    vouch(&rig, &file, "served");
    let supervisor = serve(&rig, &["served"]);
    said(&rig, "served", "one");
    let before = pid(&rig, "served");
    std::fs::write(&file, "version: 1\nname: served\ncommnad: [true]\n").unwrap();
    supervisor.signal(Signal::SIGHUP);
    until("the refusal is recorded", || audit(&rig).contains("reload denied  \"SIGHUP\""));
    assert_eq!(pid(&rig, "served"), before);
    speaker(&rig, "served", "two", "");
    sleeper(&rig, "second");
    supervisor.signal(Signal::SIGHUP);
    until("the change is taken over", || words(&rig, "served") == "one two");
    until("the new one runs", || pid(&rig, "second").is_some());
    let outcome = end(&rig, supervisor);
    assert!(outcome.stderr.contains("unknown key `commnad`"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the loaded plans stay as they are"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("reload: done\n"), "{}", outcome.stderr);
}

#[test]
fn under_run_a_hangup_stops_in_order() {
    let rig = Rig::new();
    let script = "trap 'echo stopped > end; exit 7' TERM; touch ready; while :; do sleep 0.1; done";
    let file = rig.agent("hung", &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(script)));
    let mut supervisor = rig.start(&file);
    until("the trap is set", || rig.work.join("ready").exists());
    supervisor.signal(Signal::SIGHUP);
    until("it has ended", || supervisor.child.as_mut().unwrap().try_wait().unwrap().is_some());
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 7, "{}", outcome.stderr);
    assert!(rig.work.join("end").exists());
    assert!(!audit(&rig).contains(" reload "));
}

#[test]
fn a_handed_over_agent_is_read_again_as_its_own_run_read_it() {
    let rig = Rig::new();
    let first = speaker(&rig, "first", "one", "");
    let supervisor = rig.start(&first);
    let script = "echo $MINE $0 >> second.words; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let text = |word: &str| {
        format!(
            "ring: 2\nworkdir: second\n{}command: [sh, -c, {}, {word}]\nenv: {{pass: [MINE]}}\n",
            effort(),
            quoted(script)
        )
    };
    std::fs::create_dir(rig.work.join("second")).unwrap();
    let second = rig.agent("second", &text("one"));
    let operator = rig.dir.path().join("operator.yaml");
    let grant =
        format!("version: 1\nkind: operator\nagents: {{second: {{file: {}, env: [MINE]}}}}\n", second.display());
    std::fs::write(&operator, &grant).unwrap();
    std::fs::set_permissions(&operator, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = rig.command(["run".as_ref(), second.as_os_str(), "--operator".as_ref(), operator.as_os_str()]);
    let child = command.env("MINE", "theirs").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let other = Supervisor { child: Some(child) };
    said(&rig, "second", "theirs one");
    let unchanged = rig.output(["reload", "second"]);
    assert_eq!(unchanged.stdout, "nothing has changed\n", "{}", unchanged.stderr);
    rig.agent("second", &text("two"));
    assert_eq!(rig.output(["reload", "second", "--yes"]).code, 0);
    said(&rig, "second", "theirs one theirs two");
    // The operator's file is read again too.
    std::fs::write(&operator, grant.replace("env: [MINE]", "env: []")).unwrap();
    assert_eq!(rig.output(["reload", "second", "--yes"]).code, 77);
    assert_eq!(rig.output(["stop", "second", "--reason", "test", "--yes"]).code, 0);
    assert_eq!(other.wait().code, 0, "its own `run` has seen it through");
    end(&rig, supervisor);
}

#[test]
fn one_that_was_started_without_a_file_has_nothing_to_be_read_again() {
    let rig = Rig::new();
    let mut command = rig.command(["run", "--ring", "3", "--name", "sleep", "--", "sleep", "1000"]);
    if !crate::support::is_root() {
        // Without limits R3 can't be had in full, and a command line can't ask for less.
        return;
    }
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let supervisor = Supervisor { child: Some(child) };
    until("it runs", || pid(&rig, "sleep").is_some());
    let named = rig.output(["reload", "sleep", "--yes"]);
    assert_eq!(named.code, 1, "{}", named.stderr);
    assert!(named.stderr.contains("without a file"), "{}", named.stderr);
    assert_eq!(rig.output(["reload", "--yes"]).stdout, "nothing has changed\n");
    end(&rig, supervisor);
}

#[test]
fn an_attestation_of_the_old_plan_is_void() {
    if !needs_root("an_attestation_of_the_old_plan_is_void") {
        return;
    }
    let rig = Rig::new();
    let chief =
        |word: &str| rig.agent("chief", &format!("ring: 0\ncommand: [sleep, '1000']\nlabels: {{word: {word}}}\n"));
    let file = chief("one");
    let first = rig.start(&file);
    assert_eq!(rig.output(["trust", "set", "chief", "950", "--reason", "test"]).code, 0);
    assert_eq!(rig.output(["attest", "chief", "--reason", "test", "--ttl", "1h"]).code, 0);
    assert_eq!(rig.output(["restart", "chief", "--reason", "test", "--yes"]).code, 0);
    let ring = || rig.ps()["agents"][0]["ring"].clone();
    until("it is in R0", || pid(&rig, "chief").is_some() && ring() == 0);
    chief("two");
    let done = rig.output(["reload", "--yes"]);
    assert!(done.stdout.contains("the attestation of its old plan is void"), "{}", done.stdout);
    assert_eq!(rig.output(["restart", "chief", "--reason", "test", "--yes"]).code, 0);
    until("it is in R1", || pid(&rig, "chief").is_some() && ring() == 1);
    let outcome = end(&rig, first);
    assert!(outcome.stderr.contains("the plan has changed since"), "{}", outcome.stderr);
}
