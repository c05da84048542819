//! The pure machine under inputs in any order: what must hold for every saga, whatever the world does to it.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use agt_saga::id::{RunId, RunKind, SagaId};
use agt_saga::journal::Entry;
use agt_saga::machine::{
    self, Action, Command, Fate, FateEnd, Input, Order, Phase, Policy, Rest, Stage, State, StepError, Submission, Turn,
};
use agt_saga::outcome::{Again, Ending, StepOutcome, Verdict};
use agt_saga::plan::Call;
use agt_saga::record::{Authority, Event, Record, Resolution};
use agt_saga::replay::replay;
use agt_saga::time::{Draw, Moment};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cases::Case;
use crate::crash::digest;
use crate::everywhere::graphs::Graph;

/// What the world does next.
#[derive(Debug, Clone)]
enum Move {
    /// One of the runs in flight ends like this.
    Finish(u8, End),
    /// Several end at once and share one append.
    FinishAll(End),
    /// Time passes (or goes back).
    Wait(i32),
    /// The supervisor dies and recovers, and so much is known of the runs in flight.
    Crash(u8),
    Operator(u8, u8),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Ok,
    NoOutput,
    Failed,
    ForGood,
    NoAnswer,
    /// The kill switch.
    Struck,
    BadOutput,
    Applied,
    NotApplied,
}

fn outcome(end: End) -> StepOutcome {
    match end {
        End::Ok => StepOutcome::ok(json!({"of": "it", "applied": true})),
        End::NoOutput => StepOutcome::ok(Value::Null),
        End::Failed => StepOutcome::ended(Ending::Exited(1)),
        End::ForGood => StepOutcome::ended(Ending::NotStarted { reason: "no such program".into(), again: Again::No }),
        End::NoAnswer => StepOutcome::ended(Ending::Signalled(9)),
        End::Struck => StepOutcome::ended(Ending::Killed { reason: "kill switch (manual)".into(), again: Again::No }),
        End::BadOutput => StepOutcome::ended(Ending::BadOutput { reason: "not JSON".into() }),
        End::Applied => StepOutcome::ok(json!({"applied": true, "outputs": {"of": "it"}})),
        End::NotApplied => StepOutcome::ok(json!({"applied": false})),
    }
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        8 => Just(End::Ok),
        1 => Just(End::NoOutput),
        3 => Just(End::Failed),
        1 => Just(End::ForGood),
        2 => Just(End::NoAnswer),
        1 => Just(End::Struck),
        1 => Just(End::BadOutput),
        1 => Just(End::Applied),
        1 => Just(End::NotApplied),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        10 => (any::<u8>(), ends()).prop_map(|(which, end)| Move::Finish(which, end)),
        3 => ends().prop_map(Move::FinishAll),
        4 => (-5_000..200_000).prop_map(Move::Wait),
        1 => any::<u8>().prop_map(Move::Crash),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(what, which)| Move::Operator(what, which)),
    ]
}

/// A saga with its history, held against the rules after each turn.
struct Held {
    state: State,
    records: Vec<Record>,
    now_ms: i64,
    policy: Policy,
}

impl Held {
    fn begin(case: &Case) -> Self {
        let policy = Policy { parallel: NonZeroUsize::new(3).unwrap() };
        let moment = Moment { now_ms: 1_000, draw: Draw(u32::MAX / 3) };
        let plan = Arc::new(case.plan.clone());
        let plan_hash = digest(plan.text().as_bytes());
        let submission = Submission {
            id: SagaId::new("s"),
            plan,
            plan_hash,
            context: json!({"base": "/srv"}),
            params: Default::default(),
        };
        let (state, turn) = machine::begin(submission, moment, &policy).unwrap();
        let mut held = Self { state, records: Vec::new(), now_ms: 1_000, policy };
        held.take(turn);
        held
    }

    fn moment(&self) -> Moment {
        Moment { now_ms: self.now_ms, draw: Draw(u32::MAX / 3) }
    }

    /// All inputs, sharing one append; refused ones change nothing.
    fn input(&mut self, inputs: Vec<Input>) {
        let (mut turn, moment) = (Turn::default(), self.moment());
        for input in inputs {
            let before = self.state.clone();
            match machine::accept(&mut self.state, input, moment) {
                Ok(accepted) => turn.join(accepted),
                Err(StepError::Refused(_)) => assert_eq!(self.state, before, "a refused input changed the saga"),
                Err(StepError::Illegal(illegal)) => panic!("{illegal}: {:#?}", self.records),
            }
        }
        turn.advance(&mut self.state, moment, &self.policy).unwrap();
        self.take(turn);
    }

    fn take(&mut self, turn: Turn) {
        let started = turn.records.iter().position(|record| matches!(record.event, Event::Started(_)));
        let after_start = &turn.records[started.unwrap_or(turn.records.len())..];
        assert!(
            after_start.iter().all(|record| matches!(record.event, Event::Started(_))),
            "something was decided after a start in the same append: {after_start:#?}"
        );
        let runs = turn.actions.iter().filter(|action| matches!(action, Action::Run(_))).count();
        assert_eq!(runs, after_start.len(), "each intent is one action");
        for action in &turn.actions {
            if let Action::Run(run) = action
                && run.id.kind == RunKind::Forward
            {
                assert_eq!(*self.state.phase(), Phase::Forward, "a forward run while going back");
            }
        }
        self.records.extend(turn.records);
        self.check();
        self.check_struck();
    }

    fn check(&self) {
        let times = self.records.iter().map(|record| record.at);
        assert!(times.is_sorted(), "the history goes back in time");
        assert!(self.state.in_flight().len() <= self.policy.parallel.get());
        let moves_by_itself = !self.state.in_flight().is_empty()
            || self.state.next_wake_ms(self.now_ms).is_some()
            || self.state.asking().next().is_some();
        assert!(moves_by_itself || self.state.rest().is_some(), "it neither moves nor rests: {:#?}", self.state);
        let undone = |step: &str| {
            let is_undo = |record: &&Record| {
                matches!(&record.event, Event::Finished(done)
                    if done.run.step == step && done.run.kind == RunKind::Compensate && done.verdict == Verdict::Ok)
            };
            self.records.iter().filter(is_undo).count()
        };
        for (name, _, slot) in self.state.nodes() {
            assert!(undone(&name) <= 1, "{name} was undone twice");
            assert!(!matches!(slot.stage(), Stage::Faulted { .. }), "{name} was left undecided");
        }
        self.check_losers();
    }

    /// What is not needed goes forward no more, and nothing that is needed is undone while the saga goes forward.
    fn check_losers(&self) {
        let mut lost: BTreeSet<String> = BTreeSet::new();
        let mut forward = true;
        for record in &self.records {
            match &record.event {
                Event::Gathered(gathered) => {
                    let branches = self.state.nodes().filter(|(_, step, _)| step.name == gathered.step);
                    let wins = |name: &String| {
                        gathered.winners.iter().any(|number| *name == format!("{}.{number}", gathered.step))
                    };
                    lost.extend(branches.map(|(name, ..)| name).filter(|name| !wins(name) && name.contains('.')));
                }
                Event::GaveUp(gave_up) => {
                    let prefix = format!("{}.", gave_up.step);
                    lost.extend(self.state.nodes().map(|(name, ..)| name).filter(|name| name.starts_with(&prefix)));
                }
                Event::Dropped(dropped) => drop(lost.insert(dropped.step.clone())),
                Event::Unwinding(_) => forward = false,
                Event::Started(run) => {
                    let is_lost = lost.contains(&run.step);
                    assert!(!is_lost || run.kind != RunKind::Forward, "{run:?} is not needed: {:#?}", self.records);
                    let undoes = run.kind == RunKind::Compensate;
                    assert!(!undoes || is_lost || !forward, "{run:?} while going forward: {:#?}", self.records);
                }
                _ => {}
            }
        }
    }

    /// What the kill switch ended begins again only when an operator says so.
    fn check_struck(&self) {
        let mut struck: BTreeSet<(&str, &str)> = BTreeSet::new();
        for record in &self.records {
            match &record.event {
                Event::Finished(done) if done.outcome.is_struck() => {
                    struck.insert((&done.run.step, done.run.kind.as_str()));
                }
                Event::Resolved(resolved) => struck.retain(|(step, _)| *step != resolved.step),
                Event::Started(run) => {
                    let again = struck.contains(&(run.step.as_str(), run.kind.as_str()));
                    assert!(!again, "{run:?} was killed and tried again: {:#?}", self.records);
                }
                _ => {}
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |(record, seq): (&Record, u64)| Entry { seq, event: record.to_text() };
        self.records.iter().zip(1..).map(entry).collect()
    }

    /// Comes back from the journal alone.
    fn crash(&mut self, known: u8) {
        let mut replayed = replay(&self.entries(), digest).unwrap();
        let in_flight = replayed.in_flight();
        if in_flight.is_empty() {
            assert_eq!(replayed, self.state, "the replayed saga is another one");
        } else {
            let wake = machine::step(&mut replayed, Input::Wake, self.moment(), &self.policy);
            assert!(matches!(wake, Err(StepError::Refused(_))), "it went on before the trees were verified");
        }
        self.state = replayed;
        let fate = |(run, number): (RunId, u8)| match known.wrapping_add(number) % 4 {
            0 => Fate { run, end: FateEnd::NeverStarted },
            1 => Fate { run, end: FateEnd::Finished(outcome(End::Ok)) },
            _ => Fate { run, end: FateEnd::Lost },
        };
        let fates = in_flight.into_iter().zip(0..).map(fate).collect();
        self.input(vec![Input::Recovered { fates }]);
    }

    fn play(&mut self, step: &Move) {
        let in_flight = self.state.in_flight();
        let finished = |run: &RunId, end| Input::Finished { run: run.clone(), outcome: outcome(end) };
        match step {
            Move::Finish(which, end) => {
                if let Some(run) = in_flight.get(usize::from(*which) % in_flight.len().max(1)) {
                    self.input(vec![finished(run, *end)]);
                }
            }
            Move::FinishAll(end) => self.input(in_flight.iter().map(|run| finished(run, *end)).collect()),
            Move::Wait(ms) => {
                self.now_ms += i64::from(*ms);
                self.input(vec![Input::Wake]);
            }
            Move::Crash(known) => self.crash(*known),
            Move::Operator(what, which) => {
                let orders = self.orders(*which);
                let order = orders[usize::from(*what) % orders.len()].clone();
                self.input(vec![command_by(["ann", "bob", "eve"][usize::from(*which) % 3], order)]);
            }
        }
    }

    fn orders(&self, which: u8) -> Vec<Order> {
        let parked = self.state.parked();
        let mut orders = vec![Order::Cancel, Order::Pause, Order::Resume, Order::Retry];
        for (step, _) in self.state.asking() {
            orders.push(Order::Approve { step: step.name.clone() });
            orders.push(Order::Deny { step: step.name.clone() });
        }
        if let Some(step) = parked.get(usize::from(which) % parked.len().max(1)) {
            for resolution in [
                Resolution::Applied { output: json!({"of": "it"}) },
                Resolution::NotApplied,
                Resolution::Retry,
                Resolution::Skip,
            ] {
                orders.push(Order::Resolve { step: step.clone(), resolution });
            }
        }
        orders
    }

    /// From here on everything goes well: the saga must come to its end.
    fn finish(&mut self) {
        for _ in 0..1_000 {
            match self.state.rest() {
                Some(Rest::Ended(_)) => return,
                Some(Rest::Paused) => self.input(vec![command(Order::Resume)]),
                Some(Rest::Stuck) => {
                    let step = self.state.parked().remove(0);
                    self.input(vec![command(Order::Resolve { step, resolution: Resolution::Skip })]);
                }
                None if self.state.asking().next().is_some() => {
                    let (step, slot) = self.state.asking().next().unwrap();
                    let by = format!("voter {}", slot.votes().len());
                    let order = Order::Approve { step: step.name.clone() };
                    let by = match &step.forward.call {
                        Call::Approval(approval) if !approval.who.is_empty() => {
                            let given = |who: &&String| slot.votes().iter().any(|vote| vote.authority.by == **who);
                            approval.who.iter().find(|who| !given(who)).unwrap().clone()
                        }
                        _ => by,
                    };
                    self.input(vec![command_by(&by, order)]);
                }
                None if self.state.in_flight().is_empty() => {
                    self.now_ms = self.state.next_wake_ms(self.now_ms).unwrap();
                    self.input(vec![Input::Wake]);
                }
                None => self.play(&Move::FinishAll(End::Ok)),
            }
        }
        panic!("it comes to no end: {:#?}", self.records);
    }
}

fn command(order: Order) -> Input {
    command_by("op", order)
}

fn command_by(by: &str, order: Order) -> Input {
    Input::Command(Command { order, authority: Authority { by: by.into(), reason: "because".into() } })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_the_rules(seed in 0u64..10_000, moves in prop::collection::vec(moves(), 0..60)) {
        let mut held = Held::begin(&Case::from_seed(seed));
        for step in &moves {
            held.play(step);
        }
        held.finish();
        let replayed = replay(&held.entries(), digest).unwrap();
        prop_assert_eq!(replayed, held.state);
    }

    #[test]
    fn no_order_of_events_breaks_the_rules_of_any_kind_of_step(
        seed in 0u64..10_000,
        moves in prop::collection::vec(moves(), 0..80),
    ) {
        let plan = Graph::from_seed(seed).plan;
        let mut held = Held::begin(&Case { plan, scripts: Default::default() });
        for step in &moves {
            held.play(step);
        }
        held.finish();
        let replayed = replay(&held.entries(), digest).unwrap();
        prop_assert_eq!(replayed, held.state);
    }
}

#[test]
fn a_clock_that_was_set_back_delays_no_retry_beyond_its_longest_wait() {
    let spec = json!({"version": 1, "kind": "saga", "name": "s", "steps": [{"name": "a", "command": ["x"],
        "retry": {"attempts": 2, "backoff": {"initial": "10s", "max": "10s"}}}]});
    let plan = agt_saga::lint::plan(&serde_json::from_value(spec).unwrap()).unwrap();
    let mut held = Held::begin(&Case { plan, scripts: Default::default() });
    held.now_ms = 1_000_000;
    held.play(&Move::FinishAll(End::Failed));
    let due_ms = held.state.next_wake_ms(held.now_ms).unwrap();
    held.now_ms = due_ms - 9_999;
    held.input(vec![Input::Wake]);
    assert!(held.state.in_flight().is_empty(), "it was started too early");
    held.now_ms = due_ms - 10_001;
    held.input(vec![Input::Wake]);
    assert_eq!(held.state.in_flight().len(), 1, "it waits for the clock to come back");
}

/// One idempotent step with tries left, before `more`.
fn killed_in(more: Value) -> Held {
    let mut steps = vec![json!({"name": "a", "command": ["x"], "idempotent": true, "retry": {"attempts": 5},
        "compensate": {"command": ["u"], "retry": {"attempts": 5}}})];
    steps.extend(more.as_array().unwrap().iter().cloned());
    let spec = json!({"version": 1, "kind": "saga", "name": "s", "steps": steps});
    let plan = agt_saga::lint::plan(&serde_json::from_value(spec).unwrap()).unwrap();
    Held::begin(&Case { plan, scripts: Default::default() })
}

#[test]
fn a_killed_step_is_undone_without_another_try_and_a_killed_undo_waits_for_an_operator() {
    let mut held = killed_in(json!([]));
    held.play(&Move::FinishAll(End::Struck));
    assert_eq!(held.state.in_flight()[0].kind, RunKind::Compensate, "{:#?}", held.records);
    held.play(&Move::FinishAll(End::Struck));
    assert_eq!(held.state.rest(), Some(Rest::Stuck));
    held.input(vec![command(Order::Resolve { step: "a".into(), resolution: Resolution::Retry })]);
    held.play(&Move::FinishAll(End::Ok));
    assert!(matches!(held.state.rest(), Some(Rest::Ended(_))), "{:#?}", held.state);
}

#[test]
fn a_step_killed_past_the_pivot_waits_for_an_operator_for_there_is_no_way_back() {
    let after = json!({"name": "c", "command": ["x"], "needs": ["b"], "idempotent": true, "retry": {"attempts": 5}});
    let mut held =
        killed_in(json!([{"name": "b", "command": ["x"], "needs": ["a"], "pivot": true, "idempotent": true}, after]));
    held.play(&Move::FinishAll(End::Ok));
    held.play(&Move::FinishAll(End::Ok));
    held.play(&Move::FinishAll(End::Struck));
    assert_eq!(held.state.rest(), Some(Rest::Stuck), "{:#?}", held.records);
    assert_eq!(held.state.parked(), ["c"]);
}

#[test]
fn a_journal_that_does_not_say_whether_a_kill_may_be_tried_again_is_read_as_before() {
    let old: Ending = serde_json::from_value(json!({"killed": {"reason": "manual"}})).unwrap();
    assert_eq!(old, Ending::Killed { reason: "manual".into(), again: Again::Yes });
}
