//! Budgets, trust and breakers act on real agents, and outlive the supervisor.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Outcome, Rig, effort, needs_root, quoted, skip, until};

/// A python agent that says `lines` on its control socket, one by one, prints each answer, then runs `rest`.
fn talker(lines: &[&str], rest: &str) -> String {
    let said: Vec<String> = lines.iter().map(|line| format!("{line:?}")).collect();
    format!(
        "import os, socket, sys, time\n\
         s = socket.socket(socket.AF_UNIX); s.connect(os.environ['AGT_SOCKET']); f = s.makefile('rw')\n\
         for line in [{}]:\n  f.write(line + '\\n'); f.flush(); print(f.readline().strip(), flush=True)\n{rest}\n",
        said.join(", ")
    )
}

const BAD: &str = r#"{"task":"end","id":"t","outcome":"bad"}"#;
const GOOD: &str = r#"{"task":"end","id":"t","outcome":"ok"}"#;

fn slo(remedies: &str) -> String {
    format!(
        "slos: [{{name: answers, sli: correctness, objective: 90%, period: 1h, minimum_events: 3, remedies: [{remedies}]}}]\n"
    )
}

fn python(rig: &Rig, name: &str, ring: u8, more: &str, script: &str) -> PathBuf {
    let rest = format!("ring: {ring}\n{}{more}command: [python3, -c, {}]\n", effort(), quoted(script));
    rig.agent(name, &rest)
}

fn run(rig: &Rig, file: &std::path::Path) -> Outcome {
    rig.output(["run".as_ref(), file.as_os_str()])
}

fn json(rig: &Rig, args: &[&str]) -> Value {
    let outcome = rig.output(args.iter().copied().chain(["--json"]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn trust(rig: &Rig, agent: &str) -> Value {
    json(rig, &["trust", "show", agent])[0].clone()
}

fn slo_of<'a>(agents: &'a Value, name: &str) -> &'a Value {
    agents[0]["slos"].as_array().unwrap().iter().find(|slo| slo["slo"] == name).unwrap()
}

#[test]
fn a_spent_budget_kills_and_only_revive_brings_it_back() {
    let rig = Rig::new();
    let forever = talker(&[BAD; 3], "time.sleep(20)");
    let file = python(&rig, "spender", 2, &slo("{on: exhausted, action: kill}"), &forever);
    let killed = run(&rig, &file);
    assert_eq!(killed.code, 76, "{}", killed.stderr);
    assert!(killed.stderr.contains("killed (budget_exhausted)"), "{}", killed.stderr);
    let refused = run(&rig, &file);
    assert_eq!(refused.code, 76, "{}", refused.stderr);
    assert_eq!(refused.stdout, "", "nothing was started");
    assert!(refused.stderr.contains("help: agt-supervise revive spender"), "{}", refused.stderr);
    assert_eq!(trust(&rig, "spender")["killed"]["reason"], "budget_exhausted");
    let revived = rig.output(["revive", "spender", "--reason", "mended"]);
    assert_eq!(revived.code, 0, "{}", revived.stderr);
    // The file is the same agent: only what it does has changed.
    let mended = python(&rig, "spender", 2, &slo("{on: exhausted, action: kill}"), "print('well')");
    let third = run(&rig, &mended);
    assert_eq!((third.code, third.stdout.as_str()), (0, "well\n"), "{}", third.stderr);
}

#[test]
fn the_mark_of_an_operators_kill_outlives_the_supervisor() {
    let rig = Rig::new();
    let file = rig.agent("marked", &format!("ring: 2\n{}command: [sleep, '20']\n", effort()));
    let supervisor = rig.start(&file);
    assert_eq!(rig.output(["kill", "marked", "--reason", "test", "--yes"]).code, 0);
    assert_eq!(supervisor.wait().code, 76);
    let refused = run(&rig, &file);
    assert_eq!(refused.code, 76, "{}", refused.stderr);
    assert!(rig.output(["trust", "forget", "marked", "--reason", "test"]).code != 0, "forgetting is no revival");
    assert_eq!(run(&rig, &file).code, 76);
    assert_eq!(rig.output(["revive", "marked", "--reason", "test"]).code, 0);
    assert_eq!(rig.output(["revive", "marked", "--reason", "test"]).code, 1, "it is not dead any more");
}

#[test]
fn trust_picks_the_ring_at_launch_and_the_launch_says_so() {
    let rig = Rig::new();
    let file = rig.agent("climber", &format!("ring: 1\n{}command: ['true']\n", effort()));
    let first = run(&rig, &file);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains("climber  R3"), "nobody vouches for an R1 agent: {}", first.stderr);
    assert!(
        first.stderr.contains(
            "climber starts in R3, not R1: its trust is 500 and R1 needs 800; `agt-supervise trust set climber 800"
        ),
        "{}",
        first.stderr
    );
    for (score, ring) in [("800", "R1"), ("799", "R2"), ("600", "R2"), ("599", "R3")] {
        assert_eq!(rig.output(["trust", "set", "climber", score, "--reason", "test"]).code, 0);
        let outcome = run(&rig, &file);
        assert!(outcome.stderr.contains(&format!("climber  {ring}")), "{score}: {}", outcome.stderr);
    }
    assert_eq!(rig.output(["trust", "set", "climber", "1001", "--reason", "test"]).code, 64);
    assert_eq!(rig.output(["trust", "set", "nobody", "800", "--reason", "test"]).code, 64);
}

#[test]
fn the_first_run_by_hand_vouches_for_r2_and_is_not_repeated() {
    let rig = Rig::new();
    let file = rig.agent("vouched", &format!("ring: 2\n{}command: ['true']\n", effort()));
    let first = run(&rig, &file);
    assert!(first.stderr.contains("vouched  R2"), "{}", first.stderr);
    assert_eq!(trust(&rig, "vouched")["baseline"], 700);
    assert_eq!(rig.output(["trust", "set", "vouched", "550", "--reason", "doubts"]).code, 0);
    let second = run(&rig, &file);
    assert!(second.stderr.contains("vouched  R3"), "a second run vouches for nothing: {}", second.stderr);
    assert_eq!(trust(&rig, "vouched")["score"], 550);
}

#[test]
fn praise_of_oneself_raises_nothing() {
    let rig = Rig::new();
    let file = python(&rig, "boaster", 2, &slo("{on: exhausted, action: alert}"), &talker(&[GOOD; 20], ""));
    let outcome = run(&rig, &file);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "{\"ok\":true}\n".repeat(20));
    let trust = trust(&rig, "boaster");
    assert_eq!((&trust["score"], &trust["own_praise"], &trust["successes"]), (&700.into(), &20.into(), &0.into()));
    let slos = json(&rig, &["slo", "boaster"]);
    let answers = slo_of(&slos, "answers");
    assert_eq!((&answers["good"], &answers["status"]), (&0.into(), &"unknown".into()));
}

#[test]
fn no_data_is_unknown_and_has_no_number() {
    let rig = Rig::new();
    let empty = rig.output(["slo", "--json"]);
    assert_eq!((empty.code, empty.stdout.as_str()), (0, "[]\n"), "{}", empty.stderr);
    assert!(!rig.state.exists(), "looking makes no state directory");
    let file = rig.agent("silent", &format!("ring: 2\n{}{}command: ['true']\n", effort(), slo("")));
    assert_eq!(run(&rig, &file).code, 0);
    let slos = json(&rig, &["slo", "silent"]);
    for name in ["answers", "safety"] {
        let slo = slo_of(&slos, name);
        assert_eq!(slo["status"], "unknown", "{slo}");
        assert!(slo["budget_left_ratio"].is_null() && slo["burn"][0]["rate"].is_null(), "{slo}");
    }
    let text = rig.output(["slo", "silent", "--explain"]);
    assert!(text.stdout.contains("(0 bad / 0 valid) / 0.01 = no data"), "{}", text.stdout);
}

#[test]
fn an_slo_opens_the_breaker_and_a_start_must_wait() {
    let rig = Rig::new();
    let start = r#"{"task":"start","id":"u"}"#;
    let lines = [BAD, BAD, BAD, start];
    let file = python(&rig, "broken", 2, &slo("{on: exhausted, action: break}"), &talker(&lines, ""));
    let first = run(&rig, &file);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stdout.contains("the circuit breaker is open: no new work"), "{}", first.stdout);
    let second = run(&rig, &file);
    assert_eq!(second.code, 75, "{}", second.stderr);
    assert_eq!(second.stdout, "");
}

#[test]
fn a_demotion_restarts_the_agent_in_the_ring_below() {
    let test = "a_demotion_restarts_the_agent_in_the_ring_below";
    if !needs_root(test) {
        return;
    }
    let rig = Rig::new();
    // In R3 it can't write its workdir.
    let script = format!(
        "import sys, time\ntry:\n  open('written', 'w').close()\nexcept OSError:\n  print('in R3', flush=True); sys.exit(5)\n{}",
        talker(&[BAD; 3], "time.sleep(1000)")
    );
    let remedies = slo("{on: exhausted, action: demote}");
    let outcome = run(&rig, &python(&rig, "fallen", 2, &remedies, &script));
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stdout.ends_with("in R3\n"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("Demoted from R2 to R3"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("writes off"), "{}", outcome.stderr);
    let again = rig.start(&python(&rig, "fallen", 2, &remedies, "import time; time.sleep(1000)"));
    assert_eq!(rig.ps()["agents"][0]["ring"], 3, "a new supervisor keeps the demotion");
    assert!(rig.output(["ps"]).stdout.contains("3 (was 2)"));
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    let outcome = again.wait();
    assert!(outcome.stderr.contains("its SLO answers has demoted it"), "{}", outcome.stderr);
}

#[test]
fn what_was_counted_survives_a_restart() {
    let rig = Rig::new();
    let file = python(&rig, "keeper", 2, &slo("{on: exhausted, action: alert}"), &talker(&[BAD, BAD], ""));
    assert_eq!(run(&rig, &file).code, 0);
    assert_eq!(run(&rig, &file).code, 0);
    let slos = json(&rig, &["slo", "keeper"]);
    let answers = slo_of(&slos, "answers");
    assert_eq!((&answers["bad"], &answers["self_reported_bad"]), (&4.into(), &4.into()));
    assert_eq!((&answers["status"], &answers["budget_left_ratio"]), (&"exhausted".into(), &0.0.into()));
}

#[test]
fn another_file_under_a_known_name_is_refused_until_forgotten() {
    let rig = Rig::new();
    let file = rig.agent("twin", &format!("ring: 2\n{}command: ['true']\n", effort()));
    assert_eq!(run(&rig, &file).code, 0);
    let other = rig.work.join("other.yaml");
    std::fs::copy(&file, &other).unwrap();
    let refused = run(&rig, &other);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    assert_eq!(rig.output(["trust", "forget", "twin", "--reason", "moved"]).code, 0);
    assert_eq!(run(&rig, &other).code, 0);
}

#[test]
fn an_agent_sees_its_own_socket_and_a_bad_line_is_told() {
    if !needs_root("an_agent_sees_its_own_socket_and_a_bad_line_is_told") {
        return;
    }
    let rig = Rig::new();
    let script = talker(
        &[r#"{"task":"end","id":"t","outcom":"bad"}"#, r#"{"task":"end","id":"t","outcome":"bad","trust":1000}"#],
        "print(os.environ['AGT_SOCKET'], os.listdir('/run/agt'), os.listdir('/run'))",
    );
    for ring in [2, 3] {
        let file = python(&rig, &format!("seer{ring}"), ring, "", &script);
        let outcome = run(&rig, &file);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert!(outcome.stdout.contains("unknown field `outcom`"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("unknown field `trust`"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("/run/agt/agent.sock ['agent.sock'] ['agt']"), "{}", outcome.stdout);
    }
}

#[test]
fn prometheus_accepts_the_rules() {
    let rig = Rig::new();
    let file = rig.agent("ruled", &format!("ring: 2\n{}command: ['true']\n", slo("{on: page, action: alert}")));
    let rules = rig.output(["slo".as_ref(), "rules".as_ref(), file.as_os_str()]);
    assert_eq!(rules.code, 0, "{}", rules.stderr);
    assert!(rules.stdout.contains("AgtErrorBudgetBurnsFast"), "{}", rules.stdout);
    let path = rig.work.join("rules.yml");
    std::fs::write(&path, &rules.stdout).unwrap();
    match Command::new("promtool").args(["check", "rules"]).arg(&path).output() {
        Err(_) => skip("prometheus_accepts_the_rules", "promtool is not installed"),
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr)),
    }
}

#[test]
fn r0_takes_an_attestation_of_this_very_plan() {
    if !needs_root("r0_takes_an_attestation_of_this_very_plan") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("chief", "ring: 0\ncommand: ['true']\n");
    assert!(run(&rig, &file).stderr.contains("chief  R3"));
    assert_eq!(rig.output(["trust", "set", "chief", "950", "--reason", "test"]).code, 0);
    let unattested = run(&rig, &file);
    assert!(unattested.stderr.contains("chief  R1"), "{}", unattested.stderr);
    assert!(unattested.stderr.contains("R0 needs an operator's attestation (none was made)"), "{}", unattested.stderr);
    let long = rig.output(["attest", "chief", "--reason", "test", "--ttl", "25h"]);
    assert_eq!(long.code, 64, "{}", long.stderr);
    let attested = rig.output(["attest", "chief", "--reason", "test", "--ttl", "1h"]);
    assert_eq!(attested.code, 0, "{}", attested.stderr);
    let chief = run(&rig, &file);
    assert_eq!(chief.code, 0, "{}", chief.stderr);
    assert!(chief.stderr.contains("chief  R0"), "{}", chief.stderr);
    let changed = run(&rig, &rig.agent("chief", "ring: 0\ncommand: ['true', changed]\n"));
    assert!(changed.stderr.contains("chief  R1"), "{}", changed.stderr);
    assert!(changed.stderr.contains("the plan has changed since"), "{}", changed.stderr);
}

#[test]
fn a_crash_loop_opens_the_breaker() {
    let rig = Rig::new();
    let restart = "restart: {policy: on-failure, attempts: 100, backoff: {initial: 50ms, max: 60ms}}\n";
    let file = rig.agent("crasher", &format!("ring: 2\n{}{restart}command: ['false']\n", effort()));
    let supervisor = rig.command(["run".as_ref(), file.as_os_str()]).stderr(std::process::Stdio::piped()).spawn();
    let supervisor = crate::support::Supervisor { child: Some(supervisor.unwrap()) };
    until("the breaker opens", || rig.output(["ps"]).stdout.contains("open "));
    // Far longer than a backoff: without the breaker it would have been started again by now.
    rig.ask_again_and_again(40);
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    let outcome = supervisor.wait();
    assert!(outcome.stderr.contains("crasher fails too often: its circuit breaker is open"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("crasher  R2  ").count(), 10, "not one start more: {}", outcome.stderr);
    assert_eq!(run(&rig, &file).code, 75);
}

#[test]
fn a_quarantined_agent_stands_still_until_it_is_thawed() {
    if !needs_root("a_quarantined_agent_stands_still_until_it_is_thawed") {
        return;
    }
    let rig = Rig::new();
    let script = talker(&[BAD; 3], "open('on', 'w').close(); time.sleep(1000)");
    let file = python(&rig, "frozen", 2, &slo("{on: exhausted, action: quarantine}"), &script);
    // It may be frozen before `ps` sees it run: what counts is the remedy.
    let mut command = rig.command(["run".as_ref(), file.as_os_str()]);
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let supervisor = crate::support::Supervisor { child: Some(child) };
    until("the budget is spent", || {
        let slos = rig.output(["slo", "frozen", "--json"]);
        slos.stdout.contains("\"quarantine\"")
    });
    assert!(!rig.work.join("on").exists(), "it stood still at its third bad word");
    assert_eq!(rig.output(["thaw", "frozen", "--reason", "test"]).code, 0);
    until("it goes on", || rig.work.join("on").exists());
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    assert!(supervisor.wait().stderr.contains("is quarantined"));
}

#[test]
fn the_example_is_killed_by_its_budget_and_runs_again_after_revive() {
    let rig = Rig::new();
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/05-budget-kill");
    for name in ["agent.yaml", "agent.py"] {
        std::fs::copy(example.join(name), rig.work.join(name)).unwrap();
    }
    let file = rig.work.join("agent.yaml");
    let first = run(&rig, &file);
    assert_eq!(first.code, 76, "{}", first.stderr);
    assert!(first.stdout.starts_with("answer 1:") && !first.stdout.contains("answer 7:"), "{}", first.stdout);
    assert_eq!(run(&rig, &file).code, 76);
    assert_eq!(rig.output(["revive", "budget-kill", "--reason", "test"]).code, 0);
    let again = run(&rig, &file);
    assert_eq!(again.code, 76, "{}", again.stderr);
    assert!(again.stdout.starts_with("answer 1:"), "it did run: {}", again.stdout);
}
