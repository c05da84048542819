//! Every fault that the linter knows, all of them at once, and what a good saga becomes.

use agt_saga::lint::{self, ATTEMPTS_MAX, Problem, ProblemKind, STEPS_MAX};
use agt_saga::plan::{Class, OnUnknown, Plan, Source};
use serde_json::{Value, json};

fn lint(spec: Value) -> Result<Plan, Vec<Problem>> {
    // As text, for a map keeps the order of the file only there.
    lint::plan(&serde_json::from_str(&spec.to_string()).unwrap())
}

fn saga(steps: Value) -> Result<Plan, Vec<Problem>> {
    lint(json!({"version": 1, "kind": "saga", "name": "s", "steps": steps}))
}

/// The one problem of a saga, as text.
#[track_caller]
fn only(steps: Value) -> String {
    let problems = saga(steps).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].to_string()
}

fn undo() -> Value {
    json!({"command": ["undo"]})
}

#[test]
fn each_fault_is_named_with_its_place() {
    let good =
        |name: &str, needs: &[&str]| json!({"name": name, "command": ["x"], "needs": needs, "compensate": undo()});
    let with = |name: &str, needs: &[&str], more: Value| {
        let mut step = good(name, needs);
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        step
    };
    let cases = [
        (json!([]), "steps: a saga needs at least one step"),
        (json!([good("a", &[]), good("a", &[])]), "steps[1].name: another step is called `a`"),
        (json!([good("a b", &[])]), "steps[0].name: `a b` is no name"),
        (json!([good("a", &["b"])]), "steps[0].needs[0]: no step is called `b`"),
        (json!([good("a", &[]), good("b", &["a", "a"])]), "steps[1].needs[1]: `a` is needed twice"),
        (json!([good("a", &["a"])]), "steps[0].needs: these steps wait for each other: a -> a"),
        (json!([with("a", &[], json!({"command": []}))]), "steps[0].command: the command is empty"),
        (json!([with("a", &[], json!({"check": [""]}))]), "steps[0].check: the command is empty"),
        (json!([with("a", &[], json!({"compensate": {}}))]), "steps[0].compensate.command: the command is empty"),
        (json!([with("a", &[], json!({"timeout": "0s"}))]), "steps[0].timeout: a time limit of zero"),
        (json!([with("a", &[], json!({"retry": {"attempts": 0}}))]), "steps[0].retry.attempts: 0 attempts"),
        (json!([with("a", &[], json!({"retry": {"attempts": ATTEMPTS_MAX + 1}}))]), "steps[0].retry.attempts: 101"),
        (
            json!([with("a", &[], json!({"retry": {"backoff": {"initial": "9s", "max": "1s"}}}))]),
            "steps[0].retry.backoff: the first wait is longer",
        ),
        (json!([with("a", &[], json!({"on_unknown": "rerun"}))]), "steps[0].on_unknown: `on_unknown: rerun` needs"),
        (json!([with("a", &[], json!({"on_unknown": "check"}))]), "steps[0].on_unknown: `on_unknown: check` needs"),
        (
            json!([{"name": "a", "command": ["x"], "on_unknown": "compensate"}]),
            "steps[0].on_unknown: `on_unknown: compensate` needs",
        ),
        (
            json!([{"name": "a", "command": ["x"]}, good("b", &["a"])]),
            "steps[0]: nothing undoes this step if a later one fails",
        ),
        (json!([with("a", &[], json!({"effects": "none"}))]), "steps[0].compensate: a step without effects"),
        (json!([with("a", &[], json!({"inputs": {"x": "steps.b"}}))]), "steps[0].inputs.x: `steps.b` is no reference"),
        (
            json!([with("a", &[], json!({"inputs": {"x": "steps.b.outputs.y"}}))]),
            "steps[0].inputs.x: the input comes from `b`, but no step",
        ),
        (
            json!([good("a", &[]), with("b", &[], json!({"inputs": {"x": "steps.a.outputs.y"}}))]),
            "steps[1].inputs.x: the input comes from `a`, which need not be done by then",
        ),
        (
            json!([
                with("a", &[], json!({"pivot": true})),
                with("b", &["a"], json!({"pivot": true, "compensate": null, "idempotent": true}))
            ]),
            "steps[1].pivot: `a` is the pivot already",
        ),
        (
            json!([{"name": "a", "command": ["x"], "pivot": true}, good("b", &[])]),
            "steps[1]: this step stands beside the pivot `a`",
        ),
        (
            json!([{"name": "a", "command": ["x"], "pivot": true}, {"name": "b", "command": ["x"], "needs": ["a"]}]),
            "steps[1]: past the pivot a step must be repeatable",
        ),
        (
            json!([{"name": "a", "command": ["x"], "pivot": true}, with("b", &["a"], json!({"idempotent": true}))]),
            "steps[1].compensate: past the pivot `a` nothing is ever undone",
        ),
    ];
    for (steps, message) in cases {
        let found = only(steps);
        assert!(found.starts_with(message), "expected: {message}\n   found: {found}");
    }
}

#[test]
fn the_head_of_the_file_is_judged_too() {
    let problems = lint(json!({"version": 2, "kind": "agent", "name": "", "timeout": "0s",
        "steps": [{"name": "a", "command": ["x"]}]}));
    let found: Vec<String> = problems.unwrap_err().iter().map(|problem| problem.path.to_string()).collect();
    assert_eq!(found, ["version", "kind", "name", "timeout"]);
    let many: Vec<Value> =
        (0..=STEPS_MAX).map(|at| json!({"name": format!("s{at}"), "command": ["x"], "compensate": undo()})).collect();
    assert!(only(json!(many)).starts_with("steps: 257 steps are too many"));
}

#[test]
fn all_faults_are_reported_together() {
    let problems = saga(json!([
        {"name": "a", "needs": ["z"], "on_unknown": "rerun", "compensate": undo()},
        {"name": "a", "command": ["x"], "retry": {"attempts": 0}, "compensate": undo()},
    ]))
    .unwrap_err();
    let found: Vec<String> = problems.iter().map(|problem| problem.path.to_string()).collect();
    assert_eq!(
        found,
        ["steps[1].name", "steps[0].needs[0]", "steps[0].command", "steps[0].on_unknown", "steps[1].retry.attempts"]
    );
}

#[test]
fn a_map_of_steps_is_named_by_its_keys() {
    let found = only(json!({"charge": {"command": ["x"], "needs": ["chek"], "compensate": undo()}}));
    assert_eq!(found, "steps.charge.needs[0]: no step is called `chek`");
}

#[test]
fn a_longer_cycle_is_shown_as_a_walk_and_steps_behind_it_are_not_blamed() {
    let step = |name: &str, need: &str| json!({"name": name, "command": ["x"], "needs": [need], "compensate": undo()});
    let problems = saga(json!([step("d", "a"), step("a", "c"), step("b", "a"), step("c", "b")])).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let ProblemKind::Cycle { path } = &problems[0].kind else { panic!("{problems:?}") };
    assert_eq!((path.len(), path.first()), (4, path.last()));
    assert!(!path.contains(&"d".to_owned()), "{path:?}");
}

#[test]
fn an_unknown_name_comes_with_those_it_may_have_meant() {
    let problems = saga(json!([
        {"name": "reserve", "command": ["x"], "compensate": undo()},
        {"name": "charge", "command": ["x"], "needs": ["reserv"], "compensate": undo()},
    ]))
    .unwrap_err();
    assert_eq!(problems[0].kind.unknown_word(), Some(("reserv", &["reserve".to_owned()][..])));
}

#[test]
fn the_place_of_a_step_gives_its_class() {
    let plan = saga(json!([
        {"name": "look", "command": ["x"], "effects": "none"},
        {"name": "reserve", "command": ["x"], "compensate": undo()},
        {"name": "charge", "command": ["x"], "needs": ["look", "reserve"], "pivot": true, "check": ["c"]},
        {"name": "mail", "command": ["x"], "needs": ["charge"], "idempotent": true},
    ]))
    .unwrap();
    let classes: Vec<Class> = plan.steps().iter().map(|step| step.class).collect();
    assert_eq!(classes, [Class::ReadOnly, Class::Compensatable, Class::Pivot, Class::Retriable]);
    let rules: Vec<OnUnknown> = plan.steps().iter().map(|step| step.on_unknown).collect();
    assert_eq!(rules, [OnUnknown::Rerun, OnUnknown::Compensate, OnUnknown::Check, OnUnknown::Rerun]);
    assert_eq!(plan.steps()[3].forward.retry.attempts, 10);
    let alone = saga(json!([{"name": "a", "command": ["x"]}])).unwrap();
    assert_eq!((alone.steps()[0].class, alone.steps()[0].on_unknown), (Class::Last, OnUnknown::Operator));
}

#[test]
fn inputs_are_values_references_or_escaped_texts() {
    let plan = saga(json!([
        {"name": "a", "command": ["x"], "compensate": undo()},
        {"name": "b", "command": ["x"], "needs": ["a"], "compensate": undo(), "inputs": {
            "number": 7, "text": "a step", "escaped": {"literal": "steps.a.outputs"}, "map": {"literal": 1, "x": 2},
            "whole": "steps.a.outputs", "deep": "steps.a.outputs.order.id"}},
    ]))
    .unwrap();
    let inputs = &plan.steps()[1].inputs;
    assert_eq!(inputs["number"], Source::Literal(json!(7)));
    assert_eq!(inputs["text"], Source::Literal(json!("a step")));
    assert_eq!(inputs["escaped"], Source::Literal(json!("steps.a.outputs")));
    assert_eq!(inputs["map"], Source::Literal(json!({"literal": 1, "x": 2})));
    assert_eq!(inputs["whole"], Source::Output { step: "a".into(), keys: vec![] });
    assert_eq!(inputs["deep"], Source::Output { step: "a".into(), keys: vec!["order".into(), "id".into()] });
}

#[test]
fn a_plan_survives_its_text() {
    for seed in 0..50 {
        let plan = crate::cases::Case::from_seed(seed).plan;
        assert_eq!(Plan::from_text(plan.text()).unwrap(), plan);
    }
}
