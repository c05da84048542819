//! Steps that are not commands, and what stands around a step: conditions, lists, parameters, shapes.

use std::sync::Arc;

use agt_saga::id::{RunId, RunKind, SagaId};
use agt_saga::journal::Entry;
use agt_saga::lint;
use agt_saga::machine::{
    self, Action, Command, Fate, Input, Order, Policy, Refused, Rest, Stage, State, StepError, StepRun, Submission,
    Turn,
};
use agt_saga::outcome::{Ending, StepOutcome};
use agt_saga::plan::{Call, Plan};
use agt_saga::record::{Authority, EndState, Event, Record, Resolution};
use agt_saga::replay::replay;
use agt_saga::time::{Draw, Moment};
use serde_json::{Value, json};

use crate::crash::digest;

/// A saga played by hand; after each input what its journal gives is compared with what is known.
struct Play {
    state: State,
    records: Vec<Record>,
    runs: Vec<StepRun>,
    ended: Vec<String>,
    now_ms: i64,
}

fn plan(spec: Value) -> Plan {
    let spec = serde_json::from_str(&spec.to_string()).unwrap();
    lint::plan(&spec).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn steps(steps: Value) -> Plan {
    plan(json!({"version": 1, "kind": "saga", "name": "s", "steps": steps}))
}

impl Play {
    fn new(plan: Plan) -> Self {
        Self::with(plan, json!({}))
    }

    fn with(plan: Plan, params: Value) -> Self {
        let params = plan.params(params.as_object().unwrap().clone()).unwrap();
        let plan_hash = digest(plan.text().as_bytes());
        let submission =
            Submission { id: SagaId::new("s"), plan: Arc::new(plan), plan_hash, context: Value::Null, params };
        let moment = Moment { now_ms: 1_000, draw: Draw::LONGEST };
        let (state, turn) = machine::begin(submission, moment, &Policy::default()).unwrap();
        let mut play = Self { state, records: Vec::new(), runs: Vec::new(), ended: Vec::new(), now_ms: 1_000 };
        play.take(turn);
        play
    }

    fn take(&mut self, turn: Turn) {
        self.records.extend(turn.records);
        for action in turn.actions {
            match action {
                Action::Run(run) => self.runs.push(*run),
                Action::End(run) => self.ended.push(run.step.clone()),
            }
        }
        let entry = |(record, seq): (&Record, u64)| Entry { seq, event: record.to_text() };
        let entries: Vec<Entry> = self.records.iter().zip(1..).map(entry).collect();
        let replayed = replay(&entries, digest).unwrap();
        if self.state.in_flight().is_empty() {
            assert_eq!(replayed, self.state, "the journal gives another saga");
        }
    }

    fn try_input(&mut self, input: Input) -> Result<(), Refused> {
        let moment = Moment { now_ms: self.now_ms, draw: Draw::LONGEST };
        match machine::step(&mut self.state, input, moment, &Policy::default()) {
            Ok(turn) => {
                self.take(turn);
                Ok(())
            }
            Err(StepError::Refused(refused)) => Err(refused),
            Err(StepError::Illegal(illegal)) => panic!("{illegal}: {:#?}", self.records),
        }
    }

    fn input(&mut self, input: Input) {
        self.try_input(input).unwrap();
    }

    fn run_of(&self, step: &str) -> RunId {
        let runs = self.state.in_flight();
        runs.iter().find(|run| run.step == step).unwrap_or_else(|| panic!("{step} doesn't run: {runs:?}")).clone()
    }

    fn finish(&mut self, step: &str, outcome: StepOutcome) {
        let run = self.run_of(step);
        self.input(Input::Finished { run, outcome });
    }

    fn ok(&mut self, step: &str, output: Value) {
        self.finish(step, StepOutcome::ok(output));
    }

    fn fail(&mut self, step: &str) {
        self.finish(step, StepOutcome::ended(Ending::Exited(1)));
    }

    fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        self.input(Input::Wake);
    }

    fn say(&mut self, by: &str, order: Order) -> Result<(), Refused> {
        let authority = Authority { by: by.into(), reason: String::new() };
        self.try_input(Input::Command(Command { order, authority }))
    }

    fn stage(&self, name: &str) -> &'static str {
        let mut nodes = self.state.nodes();
        nodes.find(|(node, ..)| node == name).map(|(_, _, slot)| slot.stage().as_str()).unwrap()
    }

    fn running(&self) -> Vec<String> {
        let name = |run: &RunId| match run.kind {
            RunKind::Forward => run.step.clone(),
            kind => format!("{} {}", kind.as_str(), run.step),
        };
        self.state.in_flight().iter().map(name).collect()
    }

    fn end(&self) -> EndState {
        match self.state.rest() {
            Some(Rest::Ended(end)) => end,
            rest => panic!("{rest:?}: {:#?}", self.records),
        }
    }

    fn inputs(&self, step: &str) -> Value {
        Value::Object(self.runs.iter().rfind(|run| run.id.step == step).unwrap().inputs.clone())
    }
}

fn undo() -> Value {
    json!({"command": ["undo"]})
}

fn with_undo(name: &str, needs: &[&str]) -> Value {
    json!({"name": name, "command": ["x"], "needs": needs, "undo": undo()})
}

#[test]
fn a_wait_lets_what_needs_it_start_only_when_its_time_is_over() {
    let mut play = Play::new(steps(json!([{"name": "w", "wait": "10s"}, with_undo("a", &["w"])])));
    assert_eq!(play.stage("w"), "sleeping");
    assert_eq!(play.state.next_wake_ms(play.now_ms), Some(11_000));
    play.wait(9_999);
    assert!(play.running().is_empty());
    play.wait(1);
    assert_eq!(play.running(), ["a"]);
    play.ok("a", Value::Null);
    assert_eq!(play.end(), EndState::Completed);
}

#[test]
fn a_timer_goes_on_over_a_crash_and_is_given_up_when_the_saga_goes_back() {
    let mut play = Play::new(steps(json!([with_undo("a", &[]), {"name": "w", "wait": "10s"}])));
    play.fail("a");
    assert_eq!((play.stage("w"), play.end()), ("failed", EndState::Compensated));
}

fn asks() -> Plan {
    steps(json!([
        with_undo("a", &[]),
        {"name": "ok", "needs": ["a"], "approval": {"who": ["ann", "bob", "eve"], "quorum": 2, "timeout": "1h"}},
        with_undo("b", &["ok"]),
    ]))
}

#[test]
fn an_approval_needs_its_quorum_of_different_people_who_may() {
    let mut play = Play::new(asks());
    let approve = || Order::Approve { step: "ok".into() };
    assert!(matches!(play.say("ann", approve()), Err(Refused::NotAsking { stage: "waiting", .. })));
    play.ok("a", Value::Null);
    assert_eq!(play.state.rest(), None, "an open question is no rest: it may be answered at any time");
    assert!(matches!(play.say("mallory", approve()), Err(Refused::NotAsked { .. })));
    play.say("ann", approve()).unwrap();
    assert_eq!(play.say("ann", approve()), Err(Refused::AnsweredAlready { by: "ann".into() }));
    assert!(play.running().is_empty());
    play.say("bob", approve()).unwrap();
    assert_eq!(play.running(), ["b"]);
    assert!(matches!(play.say("eve", approve()), Err(Refused::NotAsking { stage: "done", .. })));
    play.ok("b", Value::Null);
    assert_eq!(play.end(), EndState::Completed);
}

#[test]
fn one_no_is_enough_and_silence_is_a_no() {
    let mut play = Play::new(asks());
    play.ok("a", Value::Null);
    play.say("ann", Order::Approve { step: "ok".into() }).unwrap();
    play.say("eve", Order::Deny { step: "ok".into() }).unwrap();
    assert_eq!(play.running(), ["compensate a"]);
    let gave_up = play.records.iter().find_map(|record| match &record.event {
        Event::GaveUp(gave_up) => Some(gave_up.why.clone()),
        _ => None,
    });
    assert_eq!(gave_up.unwrap(), "eve said no");
    let mut play = Play::new(asks());
    play.ok("a", Value::Null);
    play.wait(3_599_999);
    assert!(play.running().is_empty());
    play.wait(1);
    assert_eq!(play.running(), ["compensate a"]);
}

#[test]
fn past_the_pivot_a_refused_approval_waits_for_an_operator_and_can_be_asked_again() {
    let mut play = Play::new(steps(json!([
        {"name": "p", "command": ["x"], "pivot": true},
        {"name": "ok", "needs": ["p"], "approval": {}},
        {"name": "b", "needs": ["ok"], "command": ["x"], "idempotent": true},
    ])));
    play.ok("p", Value::Null);
    play.say("ann", Order::Deny { step: "ok".into() }).unwrap();
    assert_eq!(play.state.rest(), Some(Rest::Stuck));
    play.say("ann", Order::Retry).unwrap();
    assert_eq!(play.stage("ok"), "asking");
    play.say("ann", Order::Approve { step: "ok".into() }).unwrap();
    assert_eq!(play.running(), ["b"]);
}

#[test]
fn a_step_whose_condition_does_not_hold_is_left_out_and_what_needs_it_goes_on() {
    let spec = json!([
        with_undo("look", &[]),
        {"name": "big", "needs": ["look"], "command": ["x"], "undo": undo(),
            "when": {"value": "steps.look.outputs.amount", "above": 100}},
        {"name": "b", "needs": ["look", "big"], "command": ["x"], "undo": undo(),
            "inputs": {"from_big": {"from": "steps.big.outputs.id", "default": "none"}}},
    ]);
    let mut play = Play::new(steps(spec.clone()));
    play.ok("look", json!({"amount": 100}));
    assert_eq!((play.stage("big"), play.running()), ("bypassed", vec!["b".to_owned()]));
    assert_eq!(play.inputs("b"), json!({"from_big": "none"}));
    play.fail("b");
    assert_eq!(play.running(), ["compensate look"], "what was left out is not undone");
    let mut play = Play::new(steps(spec.clone()));
    play.ok("look", json!({"amount": 101}));
    assert_eq!(play.running(), ["big"]);
    play.ok("big", json!({"id": 7}));
    assert_eq!(play.inputs("b"), json!({"from_big": 7}));
    // What can't be judged is a failure of the step, not a no.
    let mut play = Play::new(steps(spec));
    play.ok("look", json!({"amount": "many"}));
    assert_eq!((play.stage("big"), play.running()), ("failed", vec!["compensate look".to_owned()]));
}

fn fan(enough: Value) -> Plan {
    steps(json!([
        with_undo("list", &[]),
        {"name": "book", "needs": ["list"], "command": ["x"], "undo": undo(), "on_unknown": "compensate",
            "each": {"items": "steps.list.outputs.hotels", "enough": enough},
            "inputs": {"hotel": "item.name", "number": "index"}},
        {"name": "pay", "needs": ["book"], "command": ["x"], "undo": undo(),
            "inputs": {"first": "steps.book.outputs.0"}},
    ]))
}

fn fanned(enough: Value) -> Play {
    let mut play = Play::new(fan(enough));
    play.ok("list", json!({"hotels": [{"name": "Adler"}, {"name": "Bär"}, {"name": "Krone"}]}));
    play
}

#[test]
fn each_item_is_a_run_of_its_own_with_its_own_key() {
    let mut play = fanned(json!("all"));
    assert_eq!(play.running(), ["book.0", "book.1", "book.2"]);
    assert_eq!(play.inputs("book.1"), json!({"hotel": "Bär", "number": 1}));
    let run = play.runs.iter().find(|run| run.id.step == "book.2").unwrap();
    assert_eq!((run.step().name.as_str(), run.key.to_string()), ("book", "s/book.2".to_owned()));
    play.ok("book.2", json!("k"));
    play.ok("book.0", json!("a"));
    assert_eq!(play.running(), ["book.1"]);
    play.ok("book.1", json!("b"));
    assert_eq!(play.inputs("pay"), json!({"first": "a"}), "results stand in the order of the list");
    play.fail("pay");
    assert_eq!(play.running(), ["compensate book.0", "compensate book.1", "compensate book.2"]);
    for step in ["book.0", "book.1", "book.2"] {
        assert_ne!(play.running(), ["compensate list"], "the list goes last");
        play.ok(step, Value::Null);
    }
    assert_eq!(play.stage("book"), "undone");
    play.ok("list", Value::Null);
    assert_eq!(play.end(), EndState::Compensated);
}

#[test]
fn losers_are_ended_settled_and_undone_while_the_saga_goes_on() {
    let mut play = fanned(json!("any"));
    play.fail("book.0");
    assert!(play.ended.is_empty(), "a failure that leaves enough others ends nothing");
    play.ok("book.1", json!({"id": 7}));
    assert_eq!(play.ended, ["book.2"]);
    assert_eq!(play.running(), ["pay", "book.2"]);
    assert_eq!(play.inputs("pay"), json!({"first": {"id": 7}}));
    play.finish("book.2", StepOutcome::ended(Ending::Cancelled));
    assert_eq!(play.running(), ["pay", "compensate book.2"], "nobody knows whether it took effect, so it is undone");
    play.ok("pay", Value::Null);
    assert_eq!(play.state.rest(), None, "the saga isn't over while a loser stands");
    play.ok("book.2", Value::Null);
    assert_eq!(play.end(), EndState::Completed);
    assert_eq!([play.stage("book.0"), play.stage("book.1"), play.stage("book.2")], ["failed", "done", "undone"]);
}

#[test]
fn a_surplus_success_in_the_same_breath_is_a_loser_too() {
    let mut play = fanned(json!(2));
    let moment = Moment { now_ms: play.now_ms, draw: Draw::LONGEST };
    let mut turn = Turn::default();
    for step in ["book.2", "book.1", "book.0"] {
        let input = Input::Finished { run: play.run_of(step), outcome: StepOutcome::ok(json!(step)) };
        turn.join(machine::accept(&mut play.state, input, moment).unwrap());
    }
    turn.advance(&mut play.state, moment, &Policy::default()).unwrap();
    play.take(turn);
    assert_eq!(play.running(), ["pay", "compensate book.2"]);
}

#[test]
fn too_few_branches_undo_the_others_and_then_the_saga() {
    let mut play = fanned(json!("majority"));
    play.ok("book.0", Value::Null);
    play.fail("book.1");
    assert_eq!(play.running(), ["book.2"]);
    play.fail("book.2");
    assert_eq!((play.stage("book"), play.running()), ("failed", vec!["compensate book.0".to_owned()]));
    play.ok("book.0", Value::Null);
    assert_eq!(play.running(), ["compensate list"]);
    play.ok("list", Value::Null);
    assert_eq!(play.end(), EndState::Compensated);
}

#[test]
fn a_list_that_is_none_or_too_short_fails_its_step_and_an_empty_one_is_done_at_once() {
    for (hotels, enough, stage) in
        [(json!(7), json!("all"), "failed"), (json!([1]), json!(2), "failed"), (json!([]), json!("all"), "done")]
    {
        let mut play = Play::new(fan(enough));
        play.ok("list", json!({"hotels": hotels}));
        assert_eq!(play.stage("book"), stage);
    }
}

#[test]
fn a_loser_whose_undo_is_out_of_budget_waits_for_an_operator_and_holds_nothing_else_up() {
    let mut play = fanned(json!("any"));
    play.ok("book.0", json!({}));
    play.finish("book.1", StepOutcome::ended(Ending::Cancelled));
    play.finish("book.2", StepOutcome::ended(Ending::Exited(1)));
    for _ in 0..5 {
        play.fail("book.1");
        play.wait(60_000);
    }
    assert_eq!((play.stage("book.1"), play.running()), ("parked", vec!["pay".to_owned()]));
    play.ok("pay", Value::Null);
    assert_eq!(play.state.rest(), Some(Rest::Stuck));
    let resolution = Resolution::Skip;
    play.say("ann", Order::Resolve { step: "book.1".into(), resolution }).unwrap();
    assert_eq!((play.stage("book.1"), play.end()), ("left", EndState::Completed));
}

#[test]
fn the_sagas_time_limit_is_over_when_only_losers_are_left() {
    let spec = json!({"version": 1, "kind": "saga", "name": "s", "timeout": "10s", "steps": [
        {"name": "book", "command": ["x"], "undo": undo(), "each": {"items": [1, 2], "enough": "any"}}]});
    let mut play = Play::new(plan(spec));
    assert_eq!(play.state.next_wake_ms(play.now_ms), Some(11_000));
    play.ok("book.0", Value::Null);
    play.finish("book.1", StepOutcome::ended(Ending::Cancelled));
    play.wait(60_000);
    assert_eq!((play.stage("book"), play.running()), ("done", vec!["compensate book.1".to_owned()]));
    play.ok("book.1", Value::Null);
    assert_eq!(play.end(), EndState::Completed);
}

#[test]
fn branches_that_were_lost_in_a_crash_are_settled_each_for_itself() {
    let mut play = fanned(json!("any"));
    let entry = |(record, seq): (&Record, u64)| Entry { seq, event: record.to_text() };
    let entries: Vec<Entry> = play.records.iter().zip(1..).map(entry).collect();
    play.state = replay(&entries, digest).unwrap();
    let fates = vec![Fate { run: play.run_of("book.1"), end: machine::FateEnd::Finished(StepOutcome::ok(json!({}))) }];
    play.input(Input::Recovered { fates });
    assert_eq!([play.stage("book.1"), play.stage("book")], ["done", "done"]);
    assert_eq!(play.running(), ["pay", "compensate book.0", "compensate book.2"]);
}

#[test]
fn parameters_are_completed_checked_and_kept() {
    let plan = plan(json!({"version": 1, "kind": "saga", "name": "s", "params": {
        "order": {"schema": {"type": "integer"}}, "note": {"default": {"text": "hello"}}},
        "steps": [{"name": "a", "command": ["x"], "inputs": {"id": "params.order", "note": "params.note.text"}}]}));
    let fault = |given: Value| plan.params(given.as_object().unwrap().clone()).unwrap_err().to_string();
    assert_eq!(fault(json!({})), "the saga needs the parameter `order`");
    assert_eq!(fault(json!({"order": 1, "x": 1})), "the saga has no parameter `x`");
    assert_eq!(fault(json!({"order": "1"})), "parameter `order`: it is not of type integer");
    let play = Play::with(plan, json!({"order": 7}));
    assert_eq!(play.inputs("a"), json!({"id": 7, "note": "hello"}));
    assert_eq!(play.records[0].v, 2, "an older program must not run what it would misread");
}

#[test]
fn an_output_of_another_shape_is_of_no_use_and_the_step_is_undone() {
    let shaped = json!([{"name": "a", "command": ["x"], "undo": undo(), "probe": ["p"],
        "output_schema": {"type": "object", "required": ["id"]}}, with_undo("b", &["a"])]);
    let mut play = Play::new(steps(shaped.clone()));
    play.ok("a", json!({"name": "x"}));
    assert_eq!(play.running(), ["compensate a"]);
    let note = play.records.iter().find_map(|record| match &record.event {
        Event::Finished(finished) => Some(finished.outcome.ending.clone()),
        _ => None,
    });
    let reason = "its output has not the declared shape: it lacks `id`".to_owned();
    assert_eq!(note, Some(Ending::BadOutput { reason }));
    // Nor does a probe or an operator get anything else past it.
    let mut play = Play::new(steps(shaped));
    play.finish("a", StepOutcome::ended(Ending::TimedOut));
    play.ok("a", json!({"applied": true, "outputs": {}}));
    assert_eq!(play.running(), ["compensate a"]);
}

#[test]
fn an_operators_output_has_to_have_the_declared_shape_too() {
    let mut play = Play::new(steps(json!([{"name": "a", "command": ["x"], "on_unknown": "operator",
        "output_schema": {"required": ["id"], "type": "object"}}])));
    play.finish("a", StepOutcome::ended(Ending::TimedOut));
    let applied = |output| Order::Resolve { step: "a".into(), resolution: Resolution::Applied { output } };
    assert!(matches!(play.say("ann", applied(json!({}))), Err(Refused::BadOutput { .. })));
    play.say("ann", applied(json!({"id": 1}))).unwrap();
    assert_eq!(play.end(), EndState::Completed);
}

#[test]
fn what_is_irreversible_stays_when_the_saga_goes_back_and_is_never_run_twice() {
    let spec = json!([
        with_undo("a", &[]),
        {"name": "mail", "needs": ["a"], "command": ["x"], "class": "irreversible", "probe": ["look"]},
        with_undo("b", &["mail"]),
    ]);
    let mut play = Play::new(steps(spec.clone()));
    play.ok("a", Value::Null);
    play.ok("mail", Value::Null);
    play.fail("b");
    assert_eq!((play.stage("mail"), play.running()), ("left", vec!["compensate a".to_owned()]));
    play.ok("a", Value::Null);
    assert_eq!(play.end(), EndState::PartiallyCompensated);
    let mut play = Play::new(steps(spec));
    play.ok("a", Value::Null);
    play.finish("mail", StepOutcome::ended(Ending::NoAnswer { reason: "connection reset".into() }));
    assert_eq!(play.running(), ["check mail"]);
}

#[test]
fn a_retry_of_all_leaves_out_what_can_not_be_tried_again() {
    let step =
        |name: &str| json!({"name": name, "command": ["x"], "undo": {"command": ["u"], "retry": {"attempts": 1}}});
    let mut play = Play::new(steps(json!([step("a"), step("b")])));
    play.ok("a", Value::Null);
    play.ok("b", Value::Null);
    assert_eq!(play.end(), EndState::Completed);
    let mut play = Play::new(steps(json!([step("a"), step("b"), step("c")])));
    assert_eq!(play.say("ann", Order::Retry), Err(Refused::NothingParked));
    play.ok("a", Value::Null);
    play.ok("b", Value::Null);
    play.fail("c");
    play.fail("a");
    play.fail("b");
    assert_eq!(play.state.parked(), ["a", "b"]);
    play.say("ann", Order::Retry).unwrap();
    assert_eq!(play.running(), ["compensate a", "compensate b"]);
}

#[test]
fn effects_on_files_are_undone_by_dropping_them() {
    let mut play = Play::new(steps(json!([
        {"name": "edit", "command": ["x"], "effects": "files"},
        {"name": "test", "needs": ["edit"], "command": ["x"], "effects": "none"},
    ])));
    play.ok("edit", Value::Null);
    play.fail("test");
    let undo = play.runs.last().unwrap();
    assert_eq!((undo.id.kind, &undo.work().call), (RunKind::Compensate, &Call::Discard));
    play.ok("edit", Value::Null);
    assert_eq!(play.end(), EndState::Compensated);
}

#[test]
fn a_saga_of_commands_alone_is_written_as_the_first_version_wrote_it() {
    let play = Play::new(steps(json!([with_undo("a", &[])])));
    assert!(play.records.iter().all(|record| record.v == 1));
    let text = &play.records[0].to_text();
    assert!(text.contains(r#"\"forward\":{\"command\":[\"x\"],\"timeout_ms\":300000,\"retry\":"#), "{text}");
    assert!(matches!(play.state.steps().next().unwrap().1.stage(), Stage::InFlight { .. }));
}

#[test]
fn whatever_an_older_program_would_leave_out_makes_a_saga_one_that_it_refuses() {
    let first = |more: Value| {
        let mut step = json!({"name": "a", "command": ["x"]});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Play::new(steps(json!([step, {"name": "z", "command": ["x"], "needs": ["a"]}]))).records[0].v
    };
    assert_eq!(first(json!({"undo": undo(), "inputs": {"x": 1}, "retry": {"non_retryable": [1]}})), 1);
    for more in [
        json!({"undo": undo(), "each": {"items": [1]}}),
        json!({"undo": undo(), "output_schema": {}}),
        json!({"undo": undo(), "secrets": {"A": "b"}}),
        json!({"undo": undo(), "retry": {"non_retryable": ["declined"]}}),
        json!({"undo": {"mcp": {"server": ["s"], "tool": "t"}}}),
        json!({"undo": undo(), "probe": {"http": {"url": "https://example.com/"}}}),
        json!({"class": "irreversible", "probe": ["p"]}),
        json!({"effects": "files"}),
    ] {
        assert_eq!(first(more.clone()), 2, "{more}");
    }
    let when = json!({"value": "steps.a.outputs.x", "exists": false});
    let default = json!({"from": "steps.a.outputs.x", "default": 1});
    for more in [json!({"when": when}), json!({"inputs": {"x": default}})] {
        let mut last = json!({"name": "z", "command": ["x"], "needs": ["a"]});
        last.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(Play::new(steps(json!([with_undo("a", &[]), last]))).records[0].v, 2, "{more}");
    }
    for alone in [json!({"wait": "1s"}), json!({"approval": {}}), json!({"agent": {"file": "a.yaml"}})] {
        let mut step = alone.clone();
        step["name"] = json!("a");
        assert_eq!(Play::new(steps(json!([step]))).records[0].v, 2, "{alone}");
    }
}
