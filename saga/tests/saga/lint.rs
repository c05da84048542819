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
    assert_eq!(inputs["whole"], Source::Output { step: "a".into(), keys: vec![], default: None });
    assert_eq!(
        inputs["deep"],
        Source::Output { step: "a".into(), keys: vec!["order".into(), "id".into()], default: None }
    );
}

#[test]
fn a_default_of_null_survives_the_journal_as_a_default() {
    let plan = lint(json!({"version": 1, "kind": "saga", "name": "s", "params": {"p": {"default": null}}, "steps": [
        {"name": "a", "command": ["x"], "undo": undo()},
        {"name": "b", "command": ["x"], "needs": ["a"], "undo": undo(),
            "inputs": {"x": {"from": "steps.a.outputs.x", "default": null}}}]}))
    .unwrap();
    let again = Plan::from_text(plan.text()).unwrap();
    assert_eq!(again, plan);
    assert_eq!(again.params(serde_json::Map::new()).unwrap()["p"], Value::Null);
}

#[test]
fn a_plan_of_any_kind_of_step_survives_its_text() {
    for seed in 0..200 {
        let plan = crate::everywhere::graphs::Graph::from_seed(seed).plan;
        assert_eq!(Plan::from_text(plan.text()).unwrap(), plan, "seed {seed}");
    }
}

#[test]
fn a_plan_survives_its_text() {
    for seed in 0..50 {
        let plan = crate::cases::Case::from_seed(seed).plan;
        assert_eq!(Plan::from_text(plan.text()).unwrap(), plan);
    }
}

#[test]
fn each_fault_of_kinds_lists_and_classes_is_named_with_its_place() {
    let with = |more: Value| {
        let mut step = json!({"name": "a", "undo": undo()});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([step])
    };
    let http = |more: Value| {
        let mut http = json!({"url": "https://h/x"});
        http.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(json!({"http": http, "inputs": {"id": 1}}))
    };
    let run = |more: Value| {
        let mut step = json!({"command": ["x"]});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(step)
    };
    let pivot = json!({"name": "p", "command": ["x"], "pivot": true});
    let cases = [
        (
            run(json!({"mcp": {"server": ["s"], "tool": "t"}})),
            "steps[0]: a step does one thing; this one says command, mcp",
        ),
        (run(json!({"compensate": undo()})), "steps[0].undo: `compensate` and `undo` are two words"),
        (run(json!({"check": ["c"], "probe": ["c"]})), "steps[0].probe: `check` and `probe` are two words"),
        (with(json!({"mcp": {"server": [], "tool": "t"}})), "steps[0].mcp.server: the command is empty"),
        (with(json!({"mcp": {"server": ["s"]}})), "steps[0].mcp.tool: `tool` is empty"),
        (with(json!({"agent": {}})), "steps[0].agent.file: `file` is empty"),
        (with(json!({"saga": {}})), "steps[0].saga.file: `file` is empty"),
        (
            with(json!({"saga": {"file": "x"}, "env": {"A": "b"}})),
            "steps[0].env: `env` means nothing for a step of kind `saga`",
        ),
        (http(json!({"url": "ftp://h"})), "steps[0].http.url: `ftp://h` is no URL"),
        (http(json!({"url": "https://{id}/x"})), "steps[0].http.url: `https://{id}/x` is no URL"),
        (http(json!({"url": "https://h/{id"})), "steps[0].http.url: `https://h/{id` is no URL"),
        (http(json!({"url": "https://h/{ids}"})), "steps[0].http.url: this step has no input called `ids`"),
        (http(json!({"query": {"q": "x"}})), "steps[0].http.query.q: this step has no input called `x`"),
        (http(json!({"body": ["id", "y"]})), "steps[0].http.body: this step has no input called `y`"),
        (http(json!({"method": "post"})), "steps[0].http.method: `post` is no method"),
        (json!([{"name": "a", "wait": "0s"}]), "steps[0].wait: a time limit of zero"),
        (
            json!([{"name": "a", "wait": "1s", "retry": {}}]),
            "steps[0].retry: `retry` means nothing for a step of kind `wait`",
        ),
        (
            json!([{"name": "a", "approval": {}, "undo": undo()}]),
            "steps[0].undo: `undo` means nothing for a step of kind `approval`",
        ),
        (json!([{"name": "a", "approval": {"quorum": 0}}]), "steps[0].approval.quorum: 0 of 0 can never agree"),
        (
            json!([{"name": "a", "approval": {"who": ["x"], "quorum": 2}}]),
            "steps[0].approval.quorum: 2 of 1 can never agree",
        ),
        (json!([{"name": "a", "approval": {"who": ["x", "x"]}}]), "steps[0].approval.who[1]: `x` is named twice"),
        (run(json!({"when": {}})), "steps[0].when: the condition tests nothing"),
        (run(json!({"when": {"equals": 1}})), "steps[0].when: a test needs a `value`"),
        (run(json!({"when": {"any": []}})), "steps[0].when.any: the condition tests nothing"),
        (run(json!({"when": {"value": "item"}})), "steps[0].when.value: `item` is no reference"),
        (
            run(json!({"when": {"not": {"value": "steps.b.outputs"}}})),
            "steps[0].when.not.value: the input comes from `b`",
        ),
        (run(json!({"when": {"value": "params.x"}})), "steps[0].when.value: the saga has no parameter `x`"),
        (run(json!({"each": {"items": 7}})), "steps[0].each.items: `items` is a list"),
        (run(json!({"each": {"items": vec![0; 257]}})), "steps[0].each.items: 257 items are too many"),
        (run(json!({"each": {"items": [1], "enough": 2}})), "steps[0].each.enough: 2 of 1 branches"),
        (run(json!({"each": {"items": [1], "enough": 0}})), "steps[0].each.enough: 0 of 1 branches"),
        (
            run(json!({"each": {"items": "steps.a.outputs"}})),
            "steps[0].each.items: the input comes from `a`, which need not",
        ),
        (run(json!({"each": {"items": []}, "pivot": true})), "steps[0].each: the point of no return is one step"),
        (
            json!([pivot, {"name": "a", "needs": ["p"], "command": ["x"], "idempotent": true,
                "each": {"items": [1, 2], "enough": "any"}}]),
            "steps[1].each.enough: branches that are not needed are undone",
        ),
        (json!([{"name": "a", "command": ["x"], "each": {"items": [1, 2]}}]), "steps[0]: nothing undoes this step"),
        (
            run(json!({"output_schema": {"pattern": "x"}})),
            "steps[0].output_schema: the schema can't be used: `pattern`",
        ),
        (run(json!({"secrets": {"A": ""}})), "steps[0].secrets.A: `secrets` is empty"),
        (json!([{"name": "a", "command": ["x"], "class": "compensatable"}]), "steps[0]: nothing undoes this step"),
        (
            run(json!({"class": "compensatable", "pivot": true})),
            "steps[0].class: `class: compensatable` contradicts `pivot: true`",
        ),
        (
            json!([{"name": "a", "command": ["x"], "class": "irreversible", "effects": "none"}]),
            "steps[0].class: `class: irreversible` contradicts `effects: none`",
        ),
        (
            json!([{"name": "a", "command": ["x"], "class": "irreversible"}]),
            "steps[0]: what can't be undone needs an approval",
        ),
        (run(json!({"class": "irreversible", "probe": ["p"]})), "steps[0].undo: an irreversible step has nothing"),
        (
            json!([{"name": "a", "command": ["x"], "class": "retriable", "idempotent": true}]),
            "steps[0].class: a retriable step comes after a pivot",
        ),
        (
            json!([pivot, {"name": "a", "needs": ["p"], "command": ["x"], "class": "retriable"}]),
            "steps[1]: past the pivot a step must be repeatable",
        ),
        (
            json!([pivot, {"name": "a", "needs": ["p"], "command": ["x"], "class": "compensatable", "idempotent": true}]),
            "steps[1].class: what is compensatable is undone, and past the pivot `p`",
        ),
        (run(json!({"effects": "files"})), "steps[0].undo: dropping its files undoes it already"),
        (run(json!({"publish": "step"})), "steps[0].publish: only the files of a step"),
        (
            json!([{"name": "a", "http": {"url": "https://h"}, "effects": "files"}]),
            "steps[0].effects: `effects: files` means nothing for a step of kind `http`",
        ),
    ];
    for (steps, message) in cases {
        let found = only(steps);
        assert!(found.starts_with(message), "expected: {message}\n   found: {found}");
    }
}

#[test]
fn a_ring_above_the_ceiling_is_named_for_the_step_and_for_its_undo() {
    let problems = lint(json!({"version": 1, "kind": "saga", "name": "s", "ring": 2, "steps": [
        {"name": "a", "command": ["x"], "ring": 1, "undo": {"command": ["u"], "ring": 0}},
        {"name": "b", "command": ["x"], "ring": 3, "undo": {"command": ["u"], "ring": 2}}]}));
    let found: Vec<String> = problems.unwrap_err().iter().map(ToString::to_string).collect();
    let fault = |place: &str, ring: u8| format!("{place}.ring: ring {ring} is more privileged than the saga's own, 2");
    assert_eq!(found, [fault("steps[0]", 1), fault("steps[0].undo", 0)]);
}

#[test]
fn an_irreversible_step_is_guarded_by_an_approval_however_far_before_it() {
    let plan = saga(json!([
        {"name": "ok", "approval": {"who": ["ann"]}},
        {"name": "a", "needs": ["ok"], "command": ["x"], "effects": "none"},
        {"name": "mail", "needs": ["a"], "command": ["x"], "class": "irreversible"},
    ]))
    .unwrap();
    let classes: Vec<Class> = plan.steps().iter().map(|step| step.class).collect();
    assert_eq!(classes, [Class::ReadOnly, Class::ReadOnly, Class::Irreversible]);
    assert_eq!(plan.steps()[2].on_unknown, OnUnknown::Operator);
}

#[test]
fn a_text_that_looks_like_a_reference_of_a_feature_that_is_not_used_stays_a_text() {
    let plan = saga(json!([{"name": "a", "command": ["x"], "inputs": {"x": "params.y", "y": "item", "z": "index"}}]));
    let inputs = plan.unwrap().steps()[0].inputs.clone();
    for (name, text) in [("x", "params.y"), ("y", "item"), ("z", "index")] {
        assert_eq!(inputs[name], Source::Literal(json!(text)));
    }
}

#[test]
fn parameters_are_judged_with_everything_else() {
    let problems = lint(json!({"version": 1, "kind": "saga", "name": "s", "params": {
        "a b": {}, "n": {"schema": {"type": "integer"}, "default": "x"}, "m": {"schema": {"format": "date"}}},
        "steps": [{"name": "a", "command": ["x"], "inputs": {"x": "params.k"}}]}));
    let found: Vec<String> = problems.unwrap_err().iter().map(|problem| problem.path.to_string()).collect();
    assert_eq!(found, ["params.a b", "params.m.schema", "params.n.default", "steps[0].inputs.x"]);
}
