//! What single faults do to an agent, how it is seen, and that they cost it nothing that isn't its own.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::chaos::{Scene, pending_undos, report};
use crate::support::{Outcome, effort, is_root, needs_root, processes_with, until};

/// Availability is counted, and nothing follows from it.
const AVAILABILITY: &str =
    "slos:\n  - {name: up, sli: availability, objective: 0.1, period: 1h, minimum_events: 1000, remedies: []}";

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", outcome.stdout, outcome.stderr))
}

fn trust(scene: &Scene) -> Value {
    json(&scene.rig.output(["trust", "show", "ticker", "--json"]))[0].clone()
}

fn agent(scene: &Scene, name: &str) -> Value {
    let all = scene.rig.ps();
    let agents = all["agents"].as_array().unwrap_or_else(|| panic!("{all}"));
    agents.iter().find(|agent| agent["name"] == name).unwrap().clone()
}

fn events(scene: &Scene) -> (u64, u64) {
    events_of(scene, "ticker").unwrap()
}

/// `None` before it is known.
fn events_of(scene: &Scene, name: &str) -> Option<(u64, u64)> {
    let slos = scene.rig.output(["slo", name, "--json"]);
    if slos.code != 0 {
        return None;
    }
    let slos = json(&slos);
    let up = slos[0]["slos"].as_array()?.iter().find(|slo| slo["slo"] == "up")?.clone();
    Some((up["good"].as_u64()?, up["bad"].as_u64()?))
}

fn timeline(report: &Value) -> String {
    report["timeline"].as_array().unwrap().iter().map(|line| line["what"].as_str().unwrap().to_owned() + "\n").collect()
}

#[test]
fn memory_runs_out_at_the_agents_own_limit_and_it_pays_no_trust_for_it() {
    if !needs_root("memory_runs_out_at_the_agents_own_limit_and_it_pays_no_trust_for_it") {
        return;
    }
    let mut scene = Scene::new();
    scene.one_quiet_process();
    scene.agent_also("limits: {memory: 24MiB}\nrestart: {policy: always}");
    scene.inject("template: memory-pressure");
    scene.edit(
        "chaos.yaml",
        "{metric: oom_kills, comparison: above, value: 0}",
        "{metric: oom_kills, comparison: above, value: 5}",
    );
    scene.hang_for("4s");
    let _supervisor = scene.start();
    let bystander = scene.rig.agent("bystander", "ring: 3\nlimits: {memory: 24MiB}\ncommand: [sleep, \"1000\"]\n");
    let mut other = scene.rig.command(["run".as_ref(), bystander.as_os_str()]).spawn().unwrap();
    until("the bystander runs", || {
        let all = scene.rig.ps();
        all["agents"]
            .as_array()
            .is_some_and(|all| all.iter().any(|a| a["name"] == "bystander" && a["state"] == "running"))
    });
    let outcome = scene.run();
    let report = report(&outcome);
    assert_eq!((&report["acted"], &report["restored"]), (&"yes".into(), &"yes".into()), "{report:#}");
    assert_eq!((&report["undo"]["state"], &report["safety_violations"]), (&"undone".into(), &0.into()), "{report:#}");
    let told = timeline(&report);
    assert!(told.contains("gone since: tail (pid "), "who died is named: {told}");
    assert!(told.contains("met its memory limit") && told.contains("started again, as its life 2"), "{told}");
    let after = agent(&scene, "ticker");
    assert_eq!((&after["life"], &after["last_death"]["cause"]), (&2.into(), &"memory_limit".into()), "{after:#}");
    let trust = trust(&scene);
    assert_eq!((&trust["score"], &trust["violations"]), (&700.into(), &0.into()), "{trust:#}");
    let bystander = agent(&scene, "bystander");
    assert_eq!((&bystander["life"], &bystander["usage"]["oom_kills"]), (&1.into(), &0.into()), "{bystander:#}");
    assert_eq!(pending_undos(&scene.rig.state), 0);
    assert_eq!(scene.rig.output(["stop", "bystander", "--reason", "test"]).code, 0);
    other.wait().unwrap();
}

#[test]
fn a_lowered_memory_limit_is_pressed_against_and_put_back() {
    if !needs_root("a_lowered_memory_limit_is_pressed_against_and_put_back") {
        return;
    }
    let scene = Scene::new();
    scene.agent_also("limits: {memory: 64MiB}");
    // The largest one is taken: were it the main process, nothing could be put back any more.
    scene.edit("agent.yaml", "while true;", "(x=$(seq 900000); while :; do sleep 1; done) & while true;");
    scene.inject("template: memory-pressure\nparameters: {memory: 16MiB}");
    scene.hang_for("3s");
    let _supervisor = scene.start();
    let scores = || -> std::collections::BTreeSet<String> {
        let processes = processes_with(&scene.mark).into_iter();
        let read = |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok();
        processes.filter_map(read).collect()
    };
    let before = scores();
    let report = report(&scene.run());
    assert_eq!((&report["acted"], &report["restored"]), (&"yes".into(), &"yes".into()), "{report:#}");
    // Of several processes the kernel takes one; who is left isn't the OOM killer's favourite for ever.
    assert_eq!(scores(), before);
}

#[test]
fn a_limit_that_the_host_could_not_fill_is_refused() {
    if !needs_root("a_limit_that_the_host_could_not_fill_is_refused") {
        return;
    }
    let scene = Scene::new();
    scene.edit("operator.yaml", "    file: agent.yaml\n", "    file: agent.yaml\n    limits: {memory: 100000GiB}\n");
    scene.agent_also("limits: {memory: 100000GiB}");
    scene.inject("template: memory-pressure");
    let _supervisor = scene.start();
    let outcome = scene.run();
    let report = report(&outcome);
    assert_eq!((outcome.code, &report["undo"]["state"]), (77, &"nothing-done".into()), "{report:#}");
    assert!(report["reasons"].to_string().contains("the host has"), "{report:#}");
}

#[test]
fn a_lowered_score_changes_the_ring_and_comes_back_whole() {
    let mut scene = Scene::new();
    scene.one_quiet_process();
    scene.agent_also(effort().trim_end());
    scene.inject("template: trust-manipulation");
    scene.hang_for("10m");
    let _supervisor = scene.start();
    let client = scene.begin();
    until("the score is lowered", || trust(&scene)["score"] == 300);
    let during = trust(&scene);
    assert_eq!((&during["own_score"], &during["baseline"]), (&700.into(), &700.into()), "{during:#}");
    assert_eq!(during["ring"], 3, "{during:#}");
    assert_eq!(scene.rig.output(["restart", "ticker"]).code, 0);
    until("it is started in R3", || agent(&scene, "ticker")["ring"] == 3);
    assert_eq!(scene.rig.output(["chaos", "abort"]).code, 0);
    let report = report(&client.wait());
    assert_eq!((&report["acted"], &report["undo"]["state"]), (&"yes".into(), &"undone".into()), "{report:#}");
    assert!(timeline(&report).contains("verdict on its ring: R3, not R2"), "{report:#}");
    let after = trust(&scene);
    assert_eq!((&after["score"], &after["baseline"], &after["own_score"]), (&700.into(), &700.into(), &Value::Null));
    assert_eq!(scene.rig.output(["restart", "ticker"]).code, 0);
    until("it is started in R2 again", || agent(&scene, "ticker")["ring"] == 2);
}

#[test]
fn a_hang_burns_the_availability_budget_and_an_operators_freeze_does_not() {
    if !needs_root("a_hang_burns_the_availability_budget_and_an_operators_freeze_does_not") {
        return;
    }
    let scene = Scene::new();
    scene.agent_also(AVAILABILITY);
    let _supervisor = scene.start();
    until("it is seen to be up", || events(&scene).0 > 0);
    assert_eq!(scene.rig.output(["freeze", "ticker", "--reason", "test"]).code, 0);
    let held = events(&scene);
    // Another agent tells that looks were taken meanwhile.
    let seen = scene
        .rig
        .agent("seen", &format!("ring: 3\nlimits: {{memory: 24MiB}}\n{AVAILABILITY}\ncommand: [sleep, '1000']\n"));
    let mut other = scene.rig.command(["run".as_ref(), seen.as_os_str()]).spawn().unwrap();
    until("three looks are taken", || events_of(&scene, "seen").is_some_and(|(good, _)| good >= 3));
    assert_eq!(events(&scene), held, "an agent that an operator holds is neither up nor down");
    assert_eq!(scene.rig.output(["stop", "seen", "--reason", "test"]).code, 0);
    other.wait().unwrap();
    assert_eq!(scene.rig.output(["thaw", "ticker", "--reason", "test"]).code, 0);
    until("it is seen to be up again", || events(&scene).0 > held.0);
    assert_eq!(events(&scene).1, 0);
    scene.hang_for("10m");
    let client = scene.begin();
    until("the hang is counted", || events(&scene).1 >= 2);
    assert_eq!(scene.rig.output(["chaos", "abort"]).code, 0);
    let report = report(&client.wait());
    let burned = report["budget_burned"]["up"].as_f64().unwrap_or_else(|| panic!("{report:#}"));
    assert!(burned > 0.0, "{report:#}");
}

#[test]
fn an_abort_condition_sees_the_budget_that_a_hang_burns() {
    if !needs_root("an_abort_condition_sees_the_budget_that_a_hang_burns") {
        return;
    }
    let scene = Scene::new();
    scene.agent_also(AVAILABILITY);
    scene.hang_for("30s");
    scene.edit(
        "chaos.yaml",
        "  - {metric: oom_kills,",
        "  - {budget: up, comparison: below, value: 0.97}\n  - {metric: oom_kills,",
    );
    let _supervisor = scene.start();
    until("it is seen to be up", || events(&scene).0 > 0);
    let outcome = scene.run();
    let report = report(&outcome);
    assert_eq!((outcome.code, &report["verdict"]), (1, &"aborted".into()), "{report:#}");
    assert!(report["reasons"].to_string().contains("budget up"), "{report:#}");
    assert_eq!(report["undo"]["state"], "undone");
    scene.until_ticking();
}

#[test]
fn an_abort_condition_without_data_aborts() {
    let scene = Scene::new();
    scene.agent_also(effort().trim_end());
    scene.agent_also("slos:\n  - {name: right, sli: correctness, objective: 0.9}");
    scene.inject("template: trust-manipulation");
    scene.edit(
        "chaos.yaml",
        "  - {metric: oom_kills, comparison: above, value: 0}",
        "  - {sli: correctness, comparison: below, value: 0.5}",
    );
    let _supervisor = scene.start();
    let outcome = scene.run();
    let report = report(&outcome);
    assert_eq!((outcome.code, &report["verdict"]), (1, &"aborted".into()), "{report:#}");
    assert!(report["abort"].to_string().contains("missing"), "{report:#}");
}

#[test]
fn a_steady_state_without_data_is_inconclusive_and_nothing_is_done() {
    let scene = Scene::new();
    scene.agent_also(effort().trim_end());
    scene.agent_also("slos:\n  - {name: right, sli: correctness, objective: 0.9}");
    scene.inject("template: trust-manipulation");
    scene.edit(
        "chaos.yaml",
        "  - {sli: availability, comparison: at-least, value: 0.9}",
        "  - {sli: correctness, comparison: at-least, value: 0.9}",
    );
    scene.edit("chaos.yaml", "abort:\n  - {metric: oom_kills, comparison: above, value: 0}\n", "");
    let _supervisor = scene.start();
    let outcome = scene.run();
    let report = report(&outcome);
    assert_eq!((outcome.code, &report["verdict"]), (1, &"inconclusive".into()), "{report:#}");
    assert_eq!(report["undo"]["state"], "nothing-done");
    assert!(report["reasons"].to_string().contains("no data before the fault"), "{report:#}");
    let kept = json(&scene.rig.output(["chaos", "report", "--json"]));
    assert_eq!((&kept["verdict"], &kept["run"]), (&"inconclusive".into(), &report["run"]));
}

#[test]
fn a_name_that_nothing_has_and_an_agent_held_already_are_refused() {
    let scene = Scene::new();
    scene.agent_also(effort().trim_end());
    scene.inject("template: trust-manipulation");
    scene.edit("chaos.yaml", "metric: oom_kills", "metric: oom_killz");
    let _supervisor = scene.start();
    let outcome = scene.run();
    assert_eq!(outcome.code, 77, "{}", outcome.stderr);
    assert!(report(&outcome)["reasons"].to_string().contains("oom_kills"), "what there is: {}", outcome.stdout);
    if !is_root() {
        return;
    }
    scene.edit("chaos.yaml", "oom_killz", "oom_kills");
    scene.edit("chaos.yaml", "template: trust-manipulation", "template: process-hang");
    assert_eq!(scene.rig.output(["freeze", "ticker", "--reason", "test"]).code, 0);
    let outcome = scene.run();
    assert_eq!(outcome.code, 77, "{}", outcome.stderr);
    assert!(report(&outcome)["reasons"].to_string().contains("frozen already"), "{}", outcome.stdout);
}

#[test]
fn what_needs_a_cgroup_acts_where_there_is_one_and_says_so_where_there_is_none() {
    let scene = Scene::new();
    scene.agent_also(effort().trim_end());
    scene.hang_for("2s");
    let _supervisor = scene.start();
    let outcome = scene.run();
    let report = report(&outcome);
    if report["verdict"] == "refused" {
        assert!(!is_root(), "{report:#}");
        assert_eq!(outcome.code, 77);
        assert!(report["reasons"].to_string().contains("a cgroup of its own"), "{report:#}");
    } else {
        assert_eq!((&report["acted"], &report["restored"]), (&"yes".into(), &"yes".into()), "{report:#}");
    }
}

#[test]
fn what_an_operator_froze_meanwhile_stays_frozen_when_the_hang_is_undone() {
    if !needs_root("what_an_operator_froze_meanwhile_stays_frozen_when_the_hang_is_undone") {
        return;
    }
    let scene = Scene::new();
    scene.hang_for("4s");
    let supervisor = scene.start();
    let client = scene.begin();
    scene.until_frozen();
    let frozen = scene.rig.output(["freeze", "ticker", "--reason", "a look"]);
    assert_eq!(frozen.code, 0, "{}", frozen.stderr);
    let before = scene.ticks();
    let report = json(&client.wait());
    assert_eq!(report["undo"]["state"], "undone", "{report:#}");
    assert_eq!(scene.ticks(), before, "it has run meanwhile");
    assert!(scene.rig.output(["ps"]).stdout.contains("frozen"), "{}", scene.rig.output(["ps"]).stdout);
    assert_eq!(scene.rig.output(["thaw", "ticker", "--reason", "seen"]).code, 0);
    scene.until_ticking();
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}
