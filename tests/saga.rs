//! Sagas survive their supervisor: killed at every place, they still come to the right end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Outcome, Rig, Supervisor, effort, processes_with, quoted, side_by_side, unique, until};

/// SIGKILL as an exit code.
const KILLED: i32 = 137;
/// The effect is a folder: made once, taken away once, whoever tries. Each try is a line in the log.
const ACT: &str = r#"if mkdir "effect-$AGT_STEP" 2>/dev/null; then word=new; else word=again; fi
echo "$AGT_RUN $AGT_STEP $word" >> log; echo "{\"key\": \"$AGT_IDEMPOTENCY_KEY\"}""#;
const UNDO: &str = r#"if rmdir "effect-$AGT_STEP" 2>/dev/null; then word=new; else word=none; fi
echo "$AGT_RUN $AGT_STEP $word" >> log"#;
const STEPS: [&str; 5] = ["one", "two", "three", "four", "five"];

/// A chain of five; `failing` exits with 1 each time.
fn chain(rig: &Rig, failing: Option<&str>) -> PathBuf {
    let mut text = format!("version: 1\nkind: saga\nname: chain\n{}steps:\n", effort());
    for (at, step) in STEPS.iter().enumerate() {
        let script = if failing == Some(step) { "echo \"$AGT_RUN $AGT_STEP fails\" >> log; exit 1" } else { ACT };
        text.push_str(&format!("  {step}:\n    command: [sh, -c, {}]\n    idempotent: true\n", quoted(script)));
        text.push_str(&format!("    compensate: {{command: [sh, -c, {}]}}\n", quoted(UNDO)));
        if at > 0 {
            let before = STEPS[at - 1];
            text.push_str(&format!("    needs: [{before}]\n    inputs: {{from: steps.{before}.outputs.key}}\n"));
        }
    }
    write(rig, &text)
}

fn write(rig: &Rig, text: &str) -> PathBuf {
    let path = rig.work.join("saga.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

fn saga(rig: &Rig, args: &[&str]) -> Outcome {
    rig.output(["saga"].iter().chain(args))
}

fn run(rig: &Rig, file: &std::path::Path) -> Outcome {
    saga(rig, &["run", file.to_str().unwrap()])
}

fn run_to(rig: &Rig, file: &std::path::Path, place: u32) -> Outcome {
    saga(rig, &["run", file.to_str().unwrap(), "--crash-at", &place.to_string()])
}

/// The one saga of the rig.
fn only(rig: &Rig) -> Option<String> {
    let list: Value = serde_json::from_str(&saga(rig, &["list", "--json"]).stdout).unwrap();
    assert!(list.as_array().unwrap().len() <= 1, "{list}");
    list[0]["id"].as_str().map(str::to_owned)
}

fn shown(rig: &Rig, id: &str) -> Value {
    serde_json::from_str(&saga(rig, &["show", id, "--json"]).stdout).unwrap()
}

/// How often each line stands in the log.
fn log(rig: &Rig) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in std::fs::read_to_string(rig.work.join("log")).unwrap_or_default().lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

fn effects(rig: &Rig) -> Vec<&'static str> {
    STEPS.into_iter().filter(|step| rig.work.join(format!("effect-{step}")).is_dir()).collect()
}

/// Each effect was made once, and at most one repeat of one step for each crash.
fn assert_completed(rig: &Rig, context: &str) {
    assert_eq!(effects(rig), STEPS, "{context}");
    let log = log(rig);
    for step in STEPS {
        assert_eq!(log.get(&format!("forward {step} new")), Some(&1), "{context}: {log:?}");
    }
    let repeats: usize = log.iter().filter(|(line, _)| line.ends_with("again")).map(|(_, count)| count).sum();
    assert!(repeats <= 1, "{context}: {log:?}");
    assert!(!log.keys().any(|line| line.starts_with("compensate")), "{context}: {log:?}");
}

/// Each step that was done is undone, once.
fn assert_undone(rig: &Rig, id: &str, context: &str) {
    assert!(effects(rig).is_empty(), "{context}: {:?}", effects(rig));
    let log = log(rig);
    let shown = shown(rig, id);
    let history = shown["history"].to_string();
    for step in ["one", "two", "three"] {
        assert_eq!(log.get(&format!("forward {step} new")), Some(&1), "{context}: {log:?}");
        assert_eq!(log.get(&format!("compensate {step} new")), Some(&1), "{context}: {log:?}");
        assert_eq!(history.matches(&format!("{step}  undone")).count(), 1, "{context}: {history}");
    }
    assert!(!log.keys().any(|line| line.contains("five")), "{context}: {log:?}");
}

/// Kills a supervisor at each place up to the last but one, each in a rig of its own; at the last it comes to its end unhurt. `one`
/// says whether its supervisor was killed.
fn at_every_place(last: u32, one: impl Fn(u32) -> bool + Sync) {
    side_by_side(1..=last, 4, |place| {
        assert_eq!(one(place), place < last, "{place} of {last}: the places are not those that this test knows");
    });
}

#[test]
fn a_supervisor_killed_at_every_place_going_forward_completes_each_effect_once() {
    // Six appends and five runs, each with a place before and one after it.
    at_every_place(2 * (6 + 5) + 1, |place| {
        let rig = Rig::new();
        let file = chain(&rig, None);
        let outcome = run_to(&rig, &file, place);
        if outcome.code != KILLED {
            assert_eq!(outcome.code, 0, "{}", outcome.stderr);
            assert_completed(&rig, "unhurt");
            return false;
        }
        // Nothing was begun before the first record was durable.
        let Some(id) = only(&rig) else {
            assert_eq!((place, effects(&rig).len()), (1, 0));
            return true;
        };
        let resumed = saga(&rig, &["resume", &id]);
        assert_eq!(resumed.code, 0, "place {place}: {}", resumed.stderr);
        assert_completed(&rig, &format!("place {place}"));
        true
    });
}

#[test]
fn a_supervisor_killed_twice_at_every_place_going_back_undoes_each_effect_once() {
    // Four steps, three undos: as many runs, and one append more.
    at_every_place(2 * (8 + 7) + 1, |place| {
        let rig = Rig::new();
        let file = chain(&rig, Some("four"));
        let outcome = run_to(&rig, &file, place);
        if outcome.code != KILLED {
            assert_eq!(outcome.code, 1, "{}", outcome.stderr);
            assert_undone(&rig, &only(&rig).unwrap(), "unhurt");
            return false;
        }
        let Some(id) = only(&rig) else {
            assert_eq!((place, effects(&rig).len()), (1, 0));
            return true;
        };
        // Killed once more while it is taken up, at another place each time.
        let again = saga(&rig, &["resume", &id, "--crash-at", &(place % 6 + 1).to_string()]);
        assert!([KILLED, 1].contains(&again.code), "place {place}: {}", again.stderr);
        let resumed = saga(&rig, &["resume", &id]);
        assert_eq!(resumed.code, 1, "place {place}: {}", resumed.stderr);
        assert_undone(&rig, &id, &format!("place {place}"));
        true
    });
}

/// Starts a saga and waits until `line` stands in its log.
fn started(rig: &Rig, file: &std::path::Path, line: &str) -> Supervisor {
    let child = rig.command(["saga".as_ref(), "run".as_ref(), file.as_os_str()]).spawn().unwrap();
    let supervisor = Supervisor { child: Some(child) };
    until("the step runs", || log(rig).contains_key(line));
    supervisor
}

#[test]
fn a_step_cut_off_in_the_middle_leaves_no_process_and_is_settled_by_its_rule() {
    let rig = Rig::new();
    let mark = unique("agt-saga-sleep");
    let script = format!("mkdir effect-one; echo started >> log; sh -c 'sleep 300; : {mark}'");
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: cut\n{}steps:\n  one:\n    command: [sh, -c, {}]\n    on_unknown: compensate\n    \
             compensate: {{command: [sh, -c, {}]}}\n",
            effort(),
            quoted(&script),
            quoted(UNDO)
        ),
    );
    let supervisor = started(&rig, &file, "started");
    assert!(!processes_with(&mark).is_empty());
    supervisor.signal(Signal::SIGKILL);
    assert_eq!(supervisor.wait().code, KILLED);
    let id = only(&rig).unwrap();
    let resumed = saga(&rig, &["resume", &id]);
    assert_eq!(resumed.code, 1, "{}", resumed.stderr);
    assert!(processes_with(&mark).is_empty(), "the step outlived its supervisor");
    assert_eq!(log(&rig).get("compensate one new"), Some(&1));
}

#[test]
fn ctrl_c_ends_what_runs_and_the_saga_can_be_taken_up_again() {
    let rig = Rig::new();
    let mark = unique("agt-saga-wait");
    let script = format!("test -e go && exit 0; echo started >> log; sh -c 'sleep 300; : {mark}'");
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: wait\n{}steps:\n  one: {{command: [sh, -c, {}], idempotent: true}}\n",
            effort(),
            quoted(&script)
        ),
    );
    let supervisor = started(&rig, &file, "started");
    supervisor.signal(Signal::SIGINT);
    assert_eq!(supervisor.wait().code, 75);
    assert!(processes_with(&mark).is_empty());
    std::fs::write(rig.work.join("go"), "").unwrap();
    let resumed = saga(&rig, &["resume", &only(&rig).unwrap()]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
}

#[test]
fn a_compensation_that_keeps_failing_is_stuck_until_an_operator_resolves_it() {
    let rig = Rig::new();
    let retry = "retry: {attempts: 2, backoff: {initial: 1ms, max: 1ms}}";
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: stuck\n{}steps:\n  one:\n    command: [sh, -c, 'true']\n    compensate: \
             {{command: [sh, -c, 'exit 7'], {retry}}}\n  two: {{command: [sh, -c, 'exit 1'], needs: [one]}}\n",
            effort()
        ),
    );
    let outcome = run(&rig, &file);
    assert_eq!(outcome.code, 75, "{}", outcome.stderr);
    let id = only(&rig).unwrap();
    let why = ["--reason", "refunded by hand"];
    let wrong = saga(&rig, &["resolve", &id, "two", "--applied", why[0], why[1]]);
    assert_eq!(wrong.code, 64, "{}", wrong.stderr);
    let resolved = saga(&rig, &["resolve", &id, "one", "--applied", why[0], why[1]]);
    assert_eq!(resolved.code, 0, "{}", resolved.stderr);
    let resumed = saga(&rig, &["resume", &id]);
    assert_eq!(resumed.code, 1, "{}", resumed.stderr);
    assert_eq!(shown(&rig, &id)["state"], "compensated");
}

#[test]
fn a_step_over_its_time_is_ended_with_its_whole_tree_and_its_output_reaches_the_next() {
    let rig = Rig::new();
    let mark = unique("agt-saga-slow");
    let slow = format!("sh -c 'sleep 300; : {mark}' & sh -c 'sleep 300; : {mark}'");
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: slow\n{}steps:\n  one: {{command: [sh, -c, {}], effects: none}}\n  two:\n    \
             command: [sh, -c, {}]\n    needs: [one]\n    inputs: {{n: steps.one.outputs.n, t: hello}}\n    effects: none\n  \
             three: {{command: [sh, -c, {}], needs: [two], effects: none, timeout: 300ms}}\n",
            effort(),
            quoted("echo some words; echo '{\"n\": 41}'"),
            quoted("read -r given; echo \"$given $AGT_INPUT_N $AGT_INPUT_T\" >> log"),
            quoted(&slow)
        ),
    );
    let outcome = run(&rig, &file);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("time limit"), "{}", outcome.stderr);
    assert!(processes_with(&mark).is_empty());
    let given = r#"{"inputs":{"n":41,"t":"hello"},"output":null} 41 hello"#;
    assert_eq!(log(&rig).get(given), Some(&1), "{:?}", log(&rig));
}

#[test]
fn everything_wrong_with_a_saga_is_reported_at_its_line_and_nothing_starts() {
    let rig = Rig::new();
    let cases = [
        ("steps: {one: {comand: [sh]}}", 64, "command"),
        ("steps: {one: {command: [sh]}, two: {command: [sh], needs: [onee]}}", 64, "did you mean `one`?"),
        ("steps: {one: {command: [sh]}, two: {command: [sh], needs: [one]}}", 64, "nothing undoes this step"),
        ("steps: {one: {command: [no-such-program-at-all]}}", 127, "step `one`"),
        ("steps: {one: {command: [sh], ring: 0}}", 77, "can't run in"),
        ("steps: {one: {command: [sh], workdir: /etc}}", 77, "/etc"),
        ("timeout: 5M\nsteps: {one: {command: [sh], effects: none}}", 64, "unknown time unit `M`"),
        ("steps: {one: {command: [sh], effects: none, timeout: 5M}}", 64, "unknown time unit `M`"),
        ("steps: {one: {command: [sh], retry: {backoff: {max: 30}}}}", 64, "has no unit"),
        ("slos: [{name: a, sli: correctness, objective: 90%, period: 5M}]\nsteps: {}", 64, "unknown time unit `M`"),
        (
            "slos: [{name: a, sli: correctness, objective: 100%}]\nsteps: {one: {command: [sh], effects: none}}",
            64,
            "slos[0]",
        ),
        (
            "steps: {one: {http: {url: 'https://example.com/'}, effects: none}}",
            64,
            "an `http` step can't be done by this version yet",
        ),
        ("steps: {one: {approval: {}}}", 64, "an `approval` step can't be done by this version yet"),
        ("steps: {one: {command: [sh], effects: files}}", 64, "`effects: files` can't be done by this version yet"),
        ("steps: {one: {command: [sh], undo: {mcp: {server: [sh], tool: t}}}}", 64, "an `mcp` step can't be done"),
        ("params: {order: {}}\nsteps: {one: {command: [sh], effects: none}}", 64, "parameter `order` can't be given"),
        ("ring: 3\nsteps: {one: {command: [sh], ring: 2}}", 64, "more privileged than the saga's own"),
        ("chaos: {opt_in: true}\nsteps: {one: {command: [sh], effects: none}}", 77, "needs an operator's line"),
    ];
    for (steps, code, word) in cases {
        let file = write(&rig, &format!("version: 1\nkind: saga\nname: wrong\n{steps}\n"));
        let outcome = run(&rig, &file);
        assert_eq!(outcome.code, code, "{steps}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(word)
                && ["4", "5"].iter().any(|line| outcome.stderr.contains(&format!("saga.yaml:{line}:"))),
            "{steps}: {}",
            outcome.stderr
        );
        assert!(only(&rig).is_none(), "{steps}");
    }
}

/// A supervisor that has nothing to do with the saga that is handed to it.
fn busy(rig: &Rig) -> Supervisor {
    let agent = rig.agent("busy", &format!("ring: 2\n{}command: [sleep, '300']\n", effort()));
    rig.start(&agent)
}

/// Ends a supervisor and lets go of what it printed.
fn end(supervisor: Supervisor) -> Outcome {
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait()
}

#[test]
fn a_saga_beside_a_running_supervisor_is_driven_by_it_and_answers_where_it_was_started() {
    let rig = Rig::new();
    let supervisor = busy(&rig);
    let forward = run(&rig, &chain(&rig, None));
    assert_eq!(forward.code, 0, "{}", forward.stderr);
    assert!(forward.stderr.contains("chain  five  done"), "{}", forward.stderr);
    assert!(forward.stdout.contains("(chain): completed"), "{}", forward.stdout);
    assert_completed(&rig, "handed over");
    for step in STEPS {
        std::fs::remove_dir(rig.work.join(format!("effect-{step}"))).unwrap();
    }
    let back = run(&rig, &chain(&rig, Some("four")));
    assert_eq!(back.code, 1, "{}", back.stderr);
    assert!(back.stderr.contains("turns back: step `four` failed") && effects(&rig).is_empty(), "{}", back.stderr);
    // The supervisor and its agent had nothing to do with it.
    assert!(rig.ps()["agents"].to_string().contains("\"state\":\"running\""), "{}", rig.ps());
    end(supervisor);
}

#[test]
fn the_refund_example_is_undone_in_plain_sight_twice_over() {
    let rig = Rig::new();
    let from = crate::examples::example("04-saga-refund");
    let folder = rig.work.join("refund");
    crate::examples::copy(&from, &folder);
    let file = folder.join("saga.yaml");
    for time in 1..=2 {
        let outcome = run(&rig, &file);
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stdout.contains("(refund): compensated"), "{}", outcome.stdout);
        let ledger = std::fs::read_to_string(folder.join("ledger.txt")).unwrap();
        let count = |sign: &str| ledger.lines().filter(|line| line.starts_with(sign)).count();
        assert_eq!((count("+ "), count("- ")), (2 * time, 2 * time), "{ledger}");
    }
}

/// A saga of one step that waits until `go` is there, with a mark in its command line.
fn waiting(rig: &Rig, name: &str, mark: &str, keys: &str) -> PathBuf {
    let script = format!("test -e go && exit 0; echo started >> log; sh -c 'sleep 300; : {mark}'");
    write(
        rig,
        &format!(
            "version: 1\nkind: saga\nname: {name}\n{}steps:\n  before:\n    command: [sh, -c, {}]\n    idempotent: true\n    \
             compensate: {{command: [sh, -c, {}]}}\n  one:\n    command: [sh, -c, {}]\n    timeout: 60s\n    needs: [before]\n    {keys}\n",
            effort(),
            quoted(ACT),
            quoted(UNDO),
            quoted(&script)
        ),
    )
}

const UNDONE_BY: &str = "compensate: {command: [sh, -c, 'echo undone >> log']}";

#[test]
fn ctrl_c_of_a_handed_over_saga_stops_it_alone_and_it_can_be_taken_up_again() {
    let rig = Rig::new();
    let supervisor = busy(&rig);
    let mark = unique("agt-saga-handed");
    let file = waiting(&rig, "handed", &mark, "idempotent: true");
    let caller = started(&rig, &file, "started");
    caller.signal(Signal::SIGINT);
    assert_eq!(caller.wait().code, 75);
    assert!(processes_with(&mark).is_empty(), "what ran was not ended");
    let id = only(&rig).unwrap();
    assert_eq!(shown(&rig, &id)["finished"], false);
    assert!(rig.ps()["agents"].to_string().contains("busy"));
    std::fs::write(rig.work.join("go"), "").unwrap();
    let resumed = saga(&rig, &["resume", &id]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    end(supervisor);
}

#[test]
fn a_saga_whose_serve_was_killed_is_finished_by_the_next_serve_without_asking() {
    let rig = Rig::new();
    // Not below the folder of the saga: nobody works in what holds the served one.
    let folder = rig.dir.path().join("agents");
    std::fs::create_dir_all(folder.join("busy")).unwrap();
    let agent = format!("version: 1\nname: busy\nring: 2\n{}command: [sleep, '300']\n", effort());
    std::fs::write(folder.join("busy.yaml"), agent).unwrap();
    let serve = || {
        let mut command = rig.command([std::ffi::OsStr::new("serve"), folder.as_os_str()]);
        command.args(["--metrics", "off"]).stderr(std::process::Stdio::piped());
        Supervisor { child: Some(command.spawn().unwrap()) }
    };
    let first = serve();
    until("it serves", || rig.output(["ps"]).code == 0);
    let mark = unique("agt-saga-served");
    let caller = started(&rig, &waiting(&rig, "served", &mark, "idempotent: true"), "started");
    assert!(!processes_with(&mark).is_empty());
    first.signal(Signal::SIGKILL);
    first.wait();
    let caller = caller.wait();
    assert_eq!(caller.code, 69, "{}", caller.stderr);
    let id = only(&rig).unwrap();
    std::fs::write(rig.work.join("go"), "").unwrap();
    let second = serve();
    until("the next serve has finished it", || shown(&rig, &id)["state"] == "completed");
    assert!(processes_with(&mark).is_empty(), "a step outlived its supervisor");
    let shown = shown(&rig, &id)["history"].to_string();
    assert!(shown.contains("was running when the supervisor stopped"), "{shown}");
    assert_eq!(log(&rig).get("forward before new"), Some(&1), "{:?}", log(&rig));
    let said = end(second).stderr;
    assert!(said.contains(&format!("saga {id} is taken up where it stood")), "{said}");
}

#[test]
fn a_stuck_saga_stays_stuck_at_a_start_and_is_named() {
    let rig = Rig::new();
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: stuck\n{}steps:\n  one: {{command: [sh, -c, 'kill -9 $$'], on_unknown: operator, \
             compensate: {{command: [sh, -c, 'true']}}}}\n",
            effort()
        ),
    );
    assert_eq!(run(&rig, &file).code, 75);
    let id = only(&rig).unwrap();
    let supervisor = busy(&rig);
    // A word given while the supervisor is there goes through it.
    let resolved = saga(&rig, &["resolve", &id, "one", "--applied", "--reason", "looked"]);
    assert_eq!(resolved.code, 0, "{}", resolved.stderr);
    let resumed = saga(&rig, &["resume", &id]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    let said = end(supervisor).stderr;
    assert!(said.contains(&format!("saga {id} is stuck and waits for an operator")), "{said}");
}

#[test]
fn a_killed_step_is_not_tried_again_and_its_saga_is_undone() {
    for (name, all) in [("struck", false), ("all-struck", true)] {
        let rig = Rig::new();
        let mark = unique("agt-saga-struck");
        // Idempotent and with tries left: everything that would make it run again.
        let keys = format!("idempotent: true\n    retry: {{attempts: 5}}\n    {UNDONE_BY}");
        let caller = started(&rig, &waiting(&rig, name, &mark, &keys), "started");
        let id = only(&rig).unwrap();
        let step = format!("{id}/one");
        let ps = rig.ps();
        let shown_step = ps["agents"].as_array().unwrap().iter().find(|agent| agent["name"] == step.as_str());
        assert_eq!(shown_step.unwrap()["state"], "running", "{ps}");
        let whom = if all { "--all" } else { step.as_str() };
        let killed = rig.output(["kill", whom, "--reason", "it spends"]);
        assert_eq!(killed.code, 0, "{}", killed.stderr);
        assert!(killed.stderr.contains(&format!("{step}  killed")), "{}", killed.stderr);
        assert!(processes_with(&mark).is_empty(), "the kill returned before the tree was empty");
        let outcome = caller.wait();
        assert_eq!(outcome.code, 1, "a killed step's saga is compensated");
        let log = log(&rig);
        assert_eq!(log.get("started"), Some(&1), "it was tried again: {log:?}");
        assert_eq!((log.get("undone"), log.get("compensate before new")), (Some(&1), Some(&1)), "{log:?}");
        let history = shown(&rig, &id)["history"].to_string();
        assert!(history.contains("kill switch (it spends)"), "{history}");
    }
}

#[test]
fn an_act_that_a_step_does_not_know_says_what_it_does_know() {
    let rig = Rig::new();
    let supervisor = busy(&rig);
    let nobody = rig.output(["kill", "no-saga/no-step", "--reason", "x"]);
    assert_eq!(nobody.code, 1, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("no step of that name runs"), "{}", nobody.stderr);
    let frozen = rig.output(["freeze", "no-saga/no-step"]);
    assert_eq!(frozen.code, 1, "{}", frozen.stderr);
    assert!(frozen.stderr.contains("it can be killed, and its saga cancelled"), "{}", frozen.stderr);
    end(supervisor);
}

#[test]
fn extension_keys_are_ignored_in_a_saga_as_in_an_agent() {
    let rig = Rig::new();
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: noted\n{}x-owner: me\nsteps:\n  one: {{command: [sh, -c, 'true'], effects: none, \
             x-why: because, retry: {{attempts: 2, x-note: 1}}}}\n",
            effort()
        ),
    );
    let outcome = run(&rig, &file);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

#[test]
fn the_ends_of_steps_count_for_the_objectives_of_their_saga() {
    let rig = Rig::new();
    let slos = "slos:\n  - {name: right, sli: correctness, objective: 50%, period: 1h, minimum_events: 1}\n  \
                - {name: quick, sli: latency, objective: 50%, threshold: 1h, period: 1h, minimum_events: 1}\n  \
                - {name: given, sli: delegation, objective: 50%, period: 1h, minimum_events: 1}\n";
    let retry = "retry: {attempts: 2, backoff: {initial: 1ms, max: 1ms}}";
    let text = format!(
        "version: 1\nkind: saga\nname: measured\n{}{slos}steps:\n  one:\n    command: [sh, -c, 'true']\n    compensate: \
         {{command: [sh, -c, 'true']}}\n  two: {{command: [sh, -c, 'exit 1'], needs: [one], idempotent: true, {retry}, \
         compensate: {{command: [sh, -c, 'true']}}}}\n",
        effort()
    );
    let file = write(&rig, &text);
    // In a supervisor of its own, and in one that is there.
    assert_eq!(run(&rig, &file).code, 1);
    let supervisor = busy(&rig);
    assert_eq!(run(&rig, &file).code, 1);
    let slo = rig.output(["slo", "measured", "--json"]);
    assert_eq!(slo.code, 0, "{}", slo.stderr);
    let slo: Value = serde_json::from_str(&slo.stdout).unwrap();
    let counts = |name: &str| {
        let slo = slo[0]["slos"].as_array().unwrap().iter().find(|slo| slo["slo"] == name).unwrap();
        (slo["good"].as_u64().unwrap(), slo["bad"].as_u64().unwrap())
    };
    // Twice: one step and its undo went well, the other's two attempts did not, so that it failed as a whole.
    assert_eq!(counts("right"), (4, 4), "{slo}");
    assert_eq!(counts("quick"), (6, 0), "{slo}");
    assert_eq!(counts("given"), (2, 2), "{slo}");
    let metrics = crate::metrics::scrape(&crate::metrics::address(&rig.ps()));
    let bad = crate::metrics::value(&metrics, "agt_slo_events_total{agent=\"measured\",slo=\"right\",outcome=\"bad\"}");
    assert!(bad.is_some_and(|bad| bad >= 2.0), "{metrics}");
    let trust = rig.output(["trust", "show", "measured", "--json"]);
    assert!(trust.stdout.contains("700"), "whoever started it by hand vouched for it: {}", trust.stdout);
    end(supervisor);
}

#[test]
fn a_spent_budget_kills_the_steps_of_a_saga_and_keeps_the_next_from_beginning() {
    let rig = Rig::new();
    let mark = unique("agt-saga-spent");
    let slos = "slos: [{name: right, sli: correctness, objective: 90%, period: 1h, minimum_events: 2, remedies: [{on: exhausted, \
                action: kill}]}]\n";
    let slow = format!("sh -c 'sleep 300; : {mark}'");
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: spent\n{}{slos}steps:\n  fails: {{command: [sh, -c, 'exit 1'], effects: none, retry: \
             {{attempts: 3, backoff: {{initial: 1ms, max: 1ms}}}}}}\n  slow: {{command: [sh, -c, {}], effects: none}}\n",
            effort(),
            quoted(&slow)
        ),
    );
    let outcome = run(&rig, &file);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(processes_with(&mark).is_empty());
    assert!(outcome.stderr.contains("kill switch (budget_exhausted)"), "{}", outcome.stderr);
    let refused = run(&rig, &file);
    assert_eq!(refused.code, 76, "{}", refused.stderr);
    assert!(refused.stderr.contains("agt-supervise revive spent"), "{}", refused.stderr);
    assert_eq!(rig.output(["revive", "spent", "--reason", "mended"]).code, 0);
    assert_eq!(run(&rig, &file).code, 1);
}

/// A saga that opted in, waits for `go`, and then runs `step`; the operator's file for it; an experiment on that step.
fn waylaid(rig: &Rig, step: &str) -> [PathBuf; 3] {
    let wait = "while ! test -e go; do sleep 0.05; done";
    let text = format!(
        "version: 1\nkind: saga\nname: waylaid\n{}chaos: {{opt_in: true, faults: [crash-at-step]}}\nsteps:\n  first:\n    \
         command: [sh, -c, {}]\n    idempotent: true\n    compensate: {{command: [sh, -c, 'echo first undone >> log']}}\n  \
         second:\n    needs: [first]\n{step}",
        effort(),
        quoted(wait)
    );
    let file = write(rig, &text);
    let operator = rig.work.join("operator.yaml");
    let granted = "version: 1\nkind: operator\nenvironment: dev\nagents:\n  waylaid: {file: saga.yaml, chaos: {opt_in: true, faults: \
                   [crash-at-step]}}\n";
    std::fs::write(&operator, granted).unwrap();
    crate::docs::only_its_owner_writes(&operator);
    let chaos = rig.work.join("chaos.yaml");
    let experiment = "version: 1\nkind: chaos\nname: crash\nagent: waylaid\ntemplate: crash-at-step\nparameters: {step: second}\n\
                      duration: 5s\nwindows: {baseline: 1s, observe: 2s, look_back: 500ms, every: 100ms}\nsteady_state:\n  - \
                      {sli: availability, comparison: at-least, value: 0.9}\n  - {metric: saga_well, comparison: at-least, \
                      value: 1}\n";
    std::fs::write(&chaos, experiment).unwrap();
    [file, operator, chaos]
}

/// Runs the experiment on a saga that `go`es once it is armed; its report, and the saga's end.
fn waylay(rig: &Rig, [file, operator, chaos]: &[PathBuf; 3]) -> (Value, Outcome) {
    let supervisor = busy(rig);
    let mut command = rig.command(["saga".as_ref(), "run".as_ref(), file.as_os_str(), "--operator".as_ref()]);
    let caller = Supervisor { child: Some(command.arg(operator).spawn().unwrap()) };
    until("the first step runs", || rig.ps()["agents"].to_string().contains("/first"));
    let mut command = rig.command(["chaos".as_ref(), "run".as_ref(), chaos.as_os_str(), "--json".as_ref()]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let experiment = Supervisor { child: Some(command.spawn().unwrap()) };
    until("the crash is armed", || rig.output(["audit", "show"]).stdout.contains("chaos.inject"));
    std::fs::write(rig.work.join("go"), "").unwrap();
    let ended = caller.wait();
    let outcome = experiment.wait();
    let report = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.stderr));
    end(supervisor);
    (report, ended)
}

const SECOND: &str = "    command: [sh, -c, 'echo started >> log; sleep 1; echo finished >> log']\n";

#[test]
fn a_step_that_crashes_as_it_starts_is_tried_again_and_the_experiment_sees_it() {
    let rig = Rig::new();
    let files = waylaid(&rig, &format!("{SECOND}    idempotent: true\n    retry: {{attempts: 3}}\n"));
    let (report, ended) = waylay(&rig, &files);
    assert_eq!(ended.code, 0, "{report:#}");
    assert_eq!(report["verdict"], "pass", "{report:#}");
    assert_eq!((&report["acted"], &report["restored"]), (&"yes".into(), &"yes".into()), "{report:#}");
    assert_eq!(log(&rig).get("finished"), Some(&1), "{:?}", log(&rig));
    let id = only(&rig).unwrap();
    let history = shown(&rig, &id)["history"].to_string();
    assert!(history.contains("second  runs (attempt 2)"), "{history}");
}

#[test]
fn a_crash_that_leaves_the_saga_stuck_fails_the_experiment() {
    let rig = Rig::new();
    let files =
        waylaid(&rig, &format!("{SECOND}    on_unknown: operator\n    compensate: {{command: [sh, -c, 'true']}}\n"));
    let (report, ended) = waylay(&rig, &files);
    assert_eq!(ended.code, 75, "{report:#}");
    assert_eq!((&report["verdict"], &report["acted"]), (&"fail".into(), &"yes".into()), "{report:#}");
    assert_eq!(log(&rig).get("finished"), None, "{:?}", log(&rig));
}

#[test]
fn a_crash_that_never_came_is_inconclusive() {
    let rig = Rig::new();
    let files = waylaid(&rig, &format!("{SECOND}    idempotent: true\n"));
    let chaos = std::fs::read_to_string(&files[2]).unwrap().replace("step: second", "step: third");
    std::fs::write(&files[2], chaos).unwrap();
    let (report, ended) = waylay(&rig, &files);
    assert_eq!(ended.code, 0);
    assert_eq!((&report["verdict"], &report["acted"]), (&"inconclusive".into(), &"no".into()), "{report:#}");
}

#[test]
fn a_saga_that_is_resolved_beside_a_supervisor_goes_on_by_itself() {
    let rig = Rig::new();
    let retry = "retry: {attempts: 1}";
    let file = write(
        &rig,
        &format!(
            "version: 1\nkind: saga\nname: stuck\n{}steps:\n  zero:\n    command: ['true']\n    compensate: {{command: [sh, -c, 'echo \
             undone >> log']}}\n  one:\n    command: ['true']\n    needs: [zero]\n    compensate: {{command: [sh, -c, 'exit 7'], \
             {retry}}}\n  two: {{command: [sh, -c, 'exit 1'], needs: [one]}}\n",
            effort()
        ),
    );
    let supervisor = busy(&rig);
    let outcome = run(&rig, &file);
    assert_eq!(outcome.code, 75, "{}", outcome.stderr);
    let id = only(&rig).unwrap();
    let resolved = saga(&rig, &["resolve", &id, "one", "--applied", "--reason", "refunded by hand"]);
    assert!(resolved.code == 0 && resolved.stderr.contains("the supervisor goes on with it"), "{}", resolved.stderr);
    until("it goes on and ends", || shown(&rig, &id)["state"] == "compensated");
    assert_eq!(log(&rig).get("undone"), Some(&1), "what came before was undone too: {:?}", log(&rig));
    drop(supervisor);
}
