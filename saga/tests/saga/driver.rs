//! The driver against steps that obey the test: what it promises to whoever calls it.
//!
//! The clock is paused, so waits take no time and their length can be told exactly.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agt_saga::driver::{Driver, Progress, SagaError, Settings, Steps, StepsError};
use agt_saga::id::{RunId, RunKind, SagaId};
use agt_saga::inject::{Onward, Point};
use agt_saga::journal::{Entry, Journal, JournalError, MemoryJournal, Scope, Summary};
use agt_saga::lint;
use agt_saga::machine::{Command, Fate, FateEnd, Order, Refused, Rest, StepRun};
use agt_saga::outcome::{Ending, OUTPUT_BYTES_MAX, StepOutcome};
use agt_saga::plan::Plan;
use agt_saga::record::{Authority, EndState, Event, Resolution};
use agt_saga::replay::{ReplayError, records, replay};
use agt_saga::time::Draw;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::crash::digest;

/// What one command does when it is run.
#[derive(Debug, Clone)]
enum Act {
    Give(Value),
    Exit(i32),
    /// Runs for so long, then succeeds.
    Last(u64),
    /// Runs until it is ended.
    Hang,
}

/// Steps that obey the test and write down what happened.
#[derive(Debug, Default)]
struct Stage {
    /// By command: what the n-th run does; the last one for ever after. No entry: succeeds.
    acts: Mutex<HashMap<String, Vec<Act>>>,
    seen: Mutex<Vec<String>>,
    inputs: Mutex<BTreeMap<String, Value>>,
    started: Notify,
    running: AtomicU64,
    running_most: AtomicU64,
    cancels_fail: AtomicBool,
    trees_left: AtomicBool,
    fates: Mutex<Vec<Fate>>,
}

impl Stage {
    fn act(self: &Arc<Self>, command: &str, acts: &[Act]) -> &Arc<Self> {
        self.acts.lock().unwrap().insert(command.to_owned(), acts.to_vec());
        self
    }

    fn note(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn next_act(&self, command: &str) -> Act {
        match self.acts.lock().unwrap().get_mut(command) {
            Some(acts) if acts.len() > 1 => acts.remove(0),
            Some(acts) => acts[0].clone(),
            None => Act::Give(Value::Null),
        }
    }

    async fn until_started(&self, command: &str) {
        while !self.seen().iter().any(|seen| seen == command) {
            self.started.notified().await;
        }
    }
}

/// One run less when dropped, however the run ends.
struct Running<'a>(&'a AtomicU64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[expect(clippy::disallowed_methods, reason = "runs take time, on a paused clock")]
async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

impl Steps for Stage {
    async fn run(&self, run: StepRun) -> StepOutcome {
        let command = run.work().call.command().unwrap().join(" ");
        self.note(&command);
        let given = json!({"inputs": run.inputs, "output": run.output, "key": run.key.as_str()});
        self.inputs.lock().unwrap().insert(command.clone(), given);
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.running_most.fetch_max(now, Ordering::SeqCst);
        self.started.notify_waiters();
        self.started.notify_one();
        match self.next_act(&command) {
            Act::Give(value) => StepOutcome::ok(value),
            Act::Exit(code) => StepOutcome::ended(Ending::Exited(code)),
            Act::Last(ms) => {
                wait(ms).await;
                StepOutcome::ok(Value::Null)
            }
            Act::Hang => std::future::pending().await,
        }
    }

    async fn cancel(&self, run: &RunId) -> Result<(), StepsError> {
        self.note(format!("ending {}", run.step));
        if self.cancels_fail.load(Ordering::SeqCst) {
            return Err("2 processes are left".into());
        }
        wait(100).await;
        self.note(format!("empty {}", run.step));
        Ok(())
    }

    async fn verify_empty(&self, _saga: &SagaId, _in_flight: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        self.note("verify");
        if self.trees_left.load(Ordering::SeqCst) {
            return Err("a process of the old supervisor is left".into());
        }
        Ok(self.fates.lock().unwrap().clone())
    }
}

/// A journal that can be full.
#[derive(Debug, Clone, Default)]
struct Disk {
    kept: MemoryJournal,
    full: Arc<AtomicBool>,
}

impl Journal for Disk {
    async fn append(&self, summary: Summary, after: u64, events: Vec<String>) -> Result<(), JournalError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(JournalError::Store("no space left on device".into()));
        }
        self.kept.append(summary, after, events).await
    }

    async fn load(&self, saga: &str) -> Result<Vec<Entry>, JournalError> {
        self.kept.load(saga).await
    }

    async fn list(&self, scope: Scope) -> Result<Vec<Summary>, JournalError> {
        self.kept.list(scope).await
    }
}

fn settings() -> Settings {
    let mut settings = Settings::new(digest);
    settings.draw = || Draw(0x9e37_79b9);
    settings
}

fn driver(stage: &Arc<Stage>) -> Arc<Driver<Disk, Stage>> {
    Arc::new(Driver::new(Disk::default(), stage.clone(), settings()))
}

/// A plan from short lines: the command is the step's name, its undo `undo NAME`, its check `check NAME`.
fn plan(steps: Value) -> Plan {
    let mut steps = steps;
    for step in steps.as_array_mut().unwrap() {
        let name = step["name"].as_str().unwrap().to_owned();
        let step = step.as_object_mut().unwrap();
        step.entry("command").or_insert_with(|| json!([name]));
        if let Some(check) = step.get_mut("check") {
            *check = json!(["check", name]);
        }
        let free = step.contains_key("pivot") || step.contains_key("idempotent") || step.contains_key("effects");
        if !free {
            step.entry("compensate").or_insert_with(|| json!({"command": ["undo", name]}));
        }
    }
    let spec = json!({"version": 1, "kind": "saga", "name": "trip", "steps": steps});
    lint::plan(&serde_json::from_value(spec).unwrap()).unwrap()
}

fn id() -> SagaId {
    SagaId::new("t1")
}

fn order(order: Order) -> Command {
    Command { order, authority: Authority { by: "op".into(), reason: "because".into() } }
}

fn resolve(step: &str, resolution: Resolution) -> Command {
    order(Order::Resolve { step: step.into(), resolution })
}

/// An error with its causes, as a user sees it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn outputs_are_passed_on_as_typed_json_and_the_key_stays_the_same() {
    let stage = Arc::new(Stage::default());
    stage.act("book", &[Act::Give(json!({"id": 7, "seats": ["1a", "1b"]}))]).act("pay", &[Act::Exit(1)]);
    let steps = json!([
        {"name": "book"},
        {"name": "pay", "needs": ["book"], "inputs": {"order": "steps.book.outputs.id", "seats": "steps.book.outputs.seats"},
         "retry": {"attempts": 2}},
    ]);
    assert_eq!(driver(&stage).run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    assert_eq!(stage.seen(), ["book", "pay", "pay", "undo book"]);
    let inputs = stage.inputs.lock().unwrap();
    assert_eq!(inputs["pay"], json!({"inputs": {"order": 7, "seats": ["1a", "1b"]}, "output": null, "key": "t1/pay"}));
    let undo = json!({"inputs": {}, "output": {"id": 7, "seats": ["1a", "1b"]}, "key": "t1/book/undo"});
    assert_eq!(inputs["undo book"], undo);
}

#[tokio::test(start_paused = true)]
async fn branches_run_together_up_to_the_limit() {
    let stage = Arc::new(Stage::default());
    let mut steps = Vec::new();
    for at in 0..6 {
        stage.act(&format!("s{at}"), &[Act::Last(1_000)]);
        steps.push(json!({"name": format!("s{at}")}));
    }
    let mut settings = settings();
    settings.policy.parallel = 3.try_into().unwrap();
    let driver = Driver::new(MemoryJournal::default(), stage.clone(), settings);
    #[expect(clippy::disallowed_methods, reason = "the paused clock is what is tested")]
    let began = tokio::time::Instant::now();
    assert_eq!(driver.run(plan(json!(steps)), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Completed));
    assert_eq!(stage.running_most.load(Ordering::SeqCst), 3);
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_tree_before_anything_is_undone() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Hang]);
    let steps = json!([{"name": "a"}, {"name": "b", "needs": ["a"], "timeout": "2s"}]);
    assert_eq!(driver(&stage).run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    // b gave no answer, and its rule is to undo it.
    assert_eq!(stage.seen(), ["a", "b", "ending b", "empty b", "undo b", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_does_not_end_stops_the_saga_with_nothing_decided() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Hang, Act::Give(Value::Null)]);
    stage.cancels_fail.store(true, Ordering::SeqCst);
    let driver = driver(&stage);
    let steps = json!([{"name": "a"}, {"name": "b", "needs": ["a"], "timeout": "2s"}]);
    let error = driver.run(plan(steps), id(), Value::Null).await.unwrap_err();
    assert_eq!(chain(&error), "run t1/b/forward/1 could not be ended: 2 processes are left");
    assert_eq!(stage.seen().iter().filter(|seen| *seen == "ending b").count(), 5);
    assert_eq!(driver.load(&id()).await.unwrap().word(), "running");
    assert_eq!(driver.resume(&id()).await.unwrap(), Rest::Ended(EndState::Compensated));
}

#[tokio::test(start_paused = true)]
async fn waits_between_attempts_double_and_carry_the_jitter() {
    let stage = Arc::new(Stage::default());
    stage.act("a", &[Act::Exit(1)]);
    let steps = json!([{"name": "a", "retry": {"attempts": 5, "backoff": {"initial": "1s", "max": "4s"}}}]);
    let mut settings = settings();
    settings.draw = || Draw::LONGEST;
    let driver = Driver::new(MemoryJournal::default(), stage.clone(), settings);
    assert_eq!(driver.run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    let entries = driver.journal().load("t1").await.unwrap();
    let waits: Vec<i64> = records(&entries)
        .unwrap()
        .into_iter()
        .filter_map(|record| match record.event {
            Event::Retry(retry) => Some(retry.due - record.at),
            _ => None,
        })
        .collect();
    assert_eq!(waits, [1_000, 2_000, 4_000, 4_000]);
    assert_eq!(stage.seen(), ["a"; 5]);
}

#[tokio::test(start_paused = true)]
async fn an_exit_code_that_no_retry_mends_is_not_retried() {
    let stage = Arc::new(Stage::default());
    stage.act("a", &[Act::Exit(65)]);
    let steps = json!([{"name": "a", "retry": {"attempts": 9, "non_retryable": [65]}}]);
    assert_eq!(driver(&stage).run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    assert_eq!(stage.seen(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_what_runs_then_undoes_and_a_second_one_pauses() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Hang]).act("undo b", &[Act::Last(60_000)]);
    let driver = driver(&stage);
    let running = tokio::task::JoinSet::from_iter([{
        let driver = driver.clone();
        async move { driver.run(plan(json!([{"name": "a"}, {"name": "b", "needs": ["a"]}])), id(), Value::Null).await }
    }]);
    stage.until_started("b").await;
    assert!(matches!(driver.resume(&id()).await, Err(SagaError::AlreadyDriven { .. })));
    driver.command(&id(), order(Order::Cancel)).await.unwrap();
    stage.until_started("undo b").await;
    driver.command(&id(), order(Order::Cancel)).await.unwrap();
    let again = driver.command(&id(), order(Order::Cancel)).await.unwrap_err();
    assert_eq!(chain(&again), "saga t1: the saga is paused already");
    // The undo that runs is not disturbed; the next one doesn't start.
    assert_eq!(running.join_all().await.remove(0).unwrap(), Rest::Paused);
    assert_eq!(stage.seen(), ["a", "b", "ending b", "empty b", "undo b"]);
    driver.command(&id(), order(Order::Resume)).await.unwrap();
    assert_eq!(driver.resume(&id()).await.unwrap(), Rest::Ended(EndState::Compensated));
    assert_eq!(stage.seen().last().unwrap(), "undo a");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_while_the_pivot_runs_comes_too_late_if_it_succeeds() {
    for pivot in [Act::Last(1_000), Act::Hang] {
        let stage = Arc::new(Stage::default());
        let driver = driver(&stage);
        let steps = json!([
            {"name": "a"},
            {"name": "p", "needs": ["a"], "pivot": true},
            {"name": "b", "needs": ["p"], "idempotent": true},
        ]);
        stage.act("p", std::slice::from_ref(&pivot));
        let running = tokio::task::JoinSet::from_iter([{
            let driver = driver.clone();
            async move { driver.run(plan(steps), id(), Value::Null).await }
        }]);
        stage.until_started("p").await;
        driver.command(&id(), order(Order::Cancel)).await.unwrap();
        if matches!(pivot, Act::Last(_)) {
            assert_eq!(running.join_all().await.remove(0).unwrap(), Rest::Ended(EndState::Completed));
            assert_eq!(stage.seen(), ["a", "p", "b"], "the pivot was not disturbed");
        } else {
            // It ran into its time limit and nobody can say whether it took effect: that is for an operator.
            assert_eq!(running.join_all().await.remove(0).unwrap(), Rest::Stuck);
            driver.command(&id(), resolve("p", Resolution::NotApplied)).await.unwrap();
            assert_eq!(driver.resume(&id()).await.unwrap(), Rest::Ended(EndState::Compensated));
            assert_eq!(stage.seen(), ["a", "p", "ending p", "empty p", "verify", "undo a"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn past_the_pivot_a_saga_waits_for_an_operator_and_never_goes_back() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Exit(1), Act::Exit(1), Act::Give(Value::Null)]);
    let driver = driver(&stage);
    let steps = json!([
        {"name": "a"},
        {"name": "p", "needs": ["a"], "pivot": true},
        {"name": "b", "needs": ["p"], "idempotent": true, "retry": {"attempts": 2}},
    ]);
    assert_eq!(driver.run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Stuck);
    let summary = driver.journal().list(Scope::Unfinished).await.unwrap().remove(0);
    assert_eq!((summary.state.as_str(), summary.finished), ("stuck", false));
    let cancel = driver.command(&id(), order(Order::Cancel)).await.unwrap_err();
    assert!(matches!(cancel, SagaError::Refused { source: Refused::PastPivot, .. }));
    driver.command(&id(), resolve("b", Resolution::Retry)).await.unwrap();
    assert_eq!(driver.resume(&id()).await.unwrap(), Rest::Ended(EndState::Completed));
    assert!(driver.journal().list(Scope::Unfinished).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_keeps_failing_parks_its_branch_while_the_other_is_undone() {
    let stage = Arc::new(Stage::default());
    stage.act("c", &[Act::Exit(1)]).act("undo a", &[Act::Exit(1)]);
    let driver = driver(&stage);
    let steps =
        json!([{"name": "root"}, {"name": "a", "needs": ["root"]}, {"name": "b"}, {"name": "c", "needs": ["a", "b"]}]);
    assert_eq!(driver.run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Stuck);
    assert_eq!(stage.seen().iter().filter(|seen| *seen == "undo a").count(), 5);
    assert!(stage.seen().contains(&"undo b".to_owned()), "{:?}", stage.seen());
    assert!(!stage.seen().contains(&"undo root".to_owned()), "root was undone under a");
    let wrong = driver.command(&id(), resolve("b", Resolution::Skip)).await.unwrap_err();
    assert_eq!(chain(&wrong), "saga t1: step `b` does not wait for an operator (it is undone)");
    driver.command(&id(), resolve("a", Resolution::Skip)).await.unwrap();
    let rest = driver.resume(&id()).await.unwrap();
    assert_eq!((rest, rest.exit_code()), (Rest::Ended(EndState::PartiallyCompensated), 2));
    assert!(stage.seen().contains(&"undo root".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_saga_can_be_abandoned_with_a_reason() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Exit(1)]).act("undo a", &[Act::Exit(1)]);
    let driver = driver(&stage);
    let steps = json!([{"name": "a"}, {"name": "b", "needs": ["a"]}]);
    assert_eq!(driver.run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Stuck);
    driver.command(&id(), order(Order::Abandon)).await.unwrap();
    let rest = driver.resume(&id()).await.unwrap();
    assert_eq!((rest, rest.exit_code()), (Rest::Ended(EndState::Abandoned), 3));
    let after = driver.command(&id(), order(Order::Cancel)).await.unwrap_err();
    assert_eq!(chain(&after), "saga t1: the saga has ended: abandoned");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_what_runs_and_loses_nothing() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Last(1_000)]).act("c", &[Act::Hang, Act::Give(Value::Null)]);
    let driver = driver(&stage);
    let steps = json!([
        {"name": "a", "effects": "none"},
        {"name": "b", "needs": ["a"], "check": true},
        {"name": "c", "needs": ["a"], "idempotent": true, "compensate": {"command": ["undo", "c"]}},
    ]);
    let running = tokio::task::JoinSet::from_iter([{
        let driver = driver.clone();
        async move { driver.run(plan(steps), id(), Value::Null).await }
    }]);
    stage.until_started("c").await;
    driver.journal().full.store(true, Ordering::SeqCst);
    let error = running.join_all().await.remove(0).unwrap_err();
    assert_eq!(
        chain(&error),
        "saga t1: nothing more can be recorded, so nothing more is done: the journal could not be written or read: \
         no space left on device"
    );
    assert_eq!(stage.running.load(Ordering::SeqCst), 0, "c was left running");
    assert!(stage.seen().contains(&"empty c".to_owned()));
    driver.journal().full.store(false, Ordering::SeqCst);
    stage.act("check b", &[Act::Give(json!({"applied": true}))]);
    assert_eq!(driver.resume(&id()).await.unwrap(), Rest::Ended(EndState::Completed));
    let times = |what: &str| stage.seen().iter().filter(|seen| *seen == what).count();
    assert_eq!((times("a"), times("b"), times("check b"), times("c")), (1, 1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_second_driver_on_the_same_saga_is_stopped_by_the_journal() {
    let stage = Arc::new(Stage::default());
    stage.act("a", &[Act::Last(10_000), Act::Give(Value::Null)]);
    let disk = Disk::default();
    let mine = Arc::new(Driver::new(disk.clone(), stage.clone(), settings()));
    let theirs = Driver::new(disk, stage.clone(), settings());
    let running = tokio::task::JoinSet::from_iter([{
        let mine = mine.clone();
        async move { mine.run(plan(json!([{"name": "a", "idempotent": true}])), id(), Value::Null).await }
    }]);
    stage.until_started("a").await;
    assert_eq!(theirs.resume(&id()).await.unwrap(), Rest::Ended(EndState::Completed));
    let error = running.join_all().await.remove(0).unwrap_err();
    assert!(matches!(error, SagaError::Journal { source: JournalError::Conflict { .. }, .. }), "{error:?}");
    let reused = mine.run(plan(json!([{"name": "a"}])), id(), Value::Null).await.unwrap_err();
    assert!(matches!(reused, SagaError::Journal { source: JournalError::Conflict { expected: 0, .. }, .. }));
}

/// A driver that was stopped, as a crash would, when this run was about to begin.
async fn crashed_before(stage: &Arc<Stage>, disk: &Disk, steps: Value, run: &'static str) {
    let mut settings = settings();
    settings.hook = Some(Arc::new(move |point: &Point<'_>| match point {
        Point::BeforeRun(id) if id.step == run => Onward::Stop,
        _ => Onward::GoOn,
    }));
    let driver = Driver::new(disk.clone(), stage.clone(), settings);
    let error = driver.run(plan(steps), id(), Value::Null).await.unwrap_err();
    assert!(matches!(error, SagaError::Stopped { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_dead_run_is_believed() {
    let run = RunId { saga: id(), step: "b".into(), kind: RunKind::Forward, attempt: 1 };
    let outcome = StepOutcome::ok(json!({"n": 1}));
    for (end, seen) in [
        (FateEnd::Finished(outcome), &["a", "verify", "c"][..]),
        (FateEnd::NeverStarted, &["a", "verify", "b", "c"]),
        // Its rule is to undo it.
        (FateEnd::Lost, &["a", "verify", "undo b", "undo a"]),
    ] {
        let (stage, disk) = (Arc::new(Stage::default()), Disk::default());
        let steps = json!([{"name": "a"}, {"name": "b", "needs": ["a"]}, {"name": "c", "needs": ["b"]}]);
        crashed_before(&stage, &disk, steps, "b").await;
        stage.fates.lock().unwrap().push(Fate { run: run.clone(), end: end.clone() });
        let rest = Driver::new(disk, stage.clone(), settings()).resume(&id()).await.unwrap();
        assert_eq!(stage.seen(), seen, "{end:?}");
        let completed = !matches!(end, FateEnd::Lost);
        assert_eq!(rest == Rest::Ended(EndState::Completed), completed);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_while_old_processes_may_live() {
    let (stage, disk) = (Arc::new(Stage::default()), Disk::default());
    crashed_before(&stage, &disk, json!([{"name": "a"}, {"name": "b", "needs": ["a"]}]), "b").await;
    let before = disk.load("t1").await.unwrap();
    stage.trees_left.store(true, Ordering::SeqCst);
    let driver = Driver::new(disk.clone(), stage.clone(), settings());
    let error = driver.resume(&id()).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "saga t1: the old process trees are not known to be empty: a process of the old supervisor is left"
    );
    assert_eq!(disk.load("t1").await.unwrap(), before);
    stage.trees_left.store(false, Ordering::SeqCst);
    assert_eq!(driver.resume(&id()).await.unwrap(), Rest::Ended(EndState::Compensated));
}

#[tokio::test(start_paused = true)]
async fn a_crash_that_cuts_off_a_run_each_time_ends_with_an_operator() {
    let (stage, disk) = (Arc::new(Stage::default()), Disk::default());
    let steps = json!([{"name": "p", "pivot": true, "idempotent": true}]);
    crashed_before(&stage, &disk, steps, "p").await;
    let mut settings = settings();
    settings.hook = Some(Arc::new(|point: &Point<'_>| match point {
        Point::AfterRun(_) => Onward::Stop,
        _ => Onward::GoOn,
    }));
    let driver = Driver::new(disk, stage.clone(), settings);
    for crash in 0..32 {
        match driver.resume(&id()).await {
            Err(SagaError::Stopped { .. }) => {}
            Ok(Rest::Stuck) => return assert_eq!(crash, 15, "1 + 15 crashes are 16"),
            other => panic!("{other:?}"),
        }
    }
    panic!("it was tried for ever");
}

#[tokio::test(start_paused = true)]
async fn an_output_that_cannot_be_kept_undoes_the_step_that_gave_it() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Give(json!("x".repeat(OUTPUT_BYTES_MAX + 1)))]);
    let steps = json!([{"name": "a"}, {"name": "b", "needs": ["a"]}, {"name": "c", "needs": ["b"]}]);
    assert_eq!(driver(&stage).run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    assert_eq!(stage.seen(), ["a", "b", "undo b", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn the_sagas_own_time_limit_undoes_it() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Hang]);
    let spec = json!({"version": 1, "kind": "saga", "name": "trip", "timeout": "10s", "steps": [
        {"name": "a", "command": ["a"], "compensate": {"command": ["undo", "a"]}},
        {"name": "b", "command": ["b"], "needs": ["a"], "effects": "none"},
    ]});
    let plan = lint::plan(&serde_json::from_value(spec).unwrap()).unwrap();
    assert_eq!(driver(&stage).run(plan, id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    assert_eq!(stage.seen(), ["a", "b", "ending b", "empty b", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_a_record_before_it_is_durable() {
    let (stage, disk) = (Arc::new(Stage::default()), Disk::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut settings = settings();
    let (keep, kept) = (seen.clone(), disk.clone());
    settings.observer = Some(Arc::new(move |progress: &Progress<'_>| {
        let durable = futures_now(kept.load("t1")).unwrap().len() as u64;
        assert_eq!(durable, progress.state.seq(), "a record was shown before it was kept");
        keep.lock().unwrap().extend(progress.records.to_vec());
    }));
    let driver = Driver::new(disk.clone(), stage, settings);
    let steps = json!([{"name": "a"}, {"name": "b", "needs": ["a"]}]);
    assert_eq!(driver.run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Completed));
    let kept = records(&disk.load("t1").await.unwrap()).unwrap();
    assert_eq!(*seen.lock().unwrap(), kept);
}

/// The value of a future that is ready at once.
fn futures_now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the journal in memory never waits"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_named_and_not_acted_on() {
    let (stage, disk) = (Arc::new(Stage::default()), Disk::default());
    crashed_before(&stage, &disk, json!([{"name": "a"}, {"name": "b", "needs": ["a"]}]), "b").await;
    let entries = disk.load("t1").await.unwrap();
    let forged = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = entries.clone();
        change(&mut entries);
        replay(&entries, digest).unwrap_err()
    };
    assert!(matches!(forged(&|entries| entries.clear()), ReplayError::Empty));
    let gap = forged(&|entries| drop(entries.remove(2)));
    assert!(matches!(gap, ReplayError::Gap { expected: 3, found: 4 }), "{gap:?}");
    let plan = forged(&|entries| entries[0].event = entries[0].event.replace("undo", "exec"));
    assert!(matches!(plan, ReplayError::PlanHash { .. }), "{plan:?}");
    let torn = forged(&|entries| entries[1].event.truncate(20));
    assert!(matches!(torn, ReplayError::Record { seq: 2, .. }), "{torn:?}");
    let newer = forged(&|entries| entries[1].event = r#"{"v":3,"at":1,"event":{"dreamt":{}}}"#.into());
    assert_eq!(chain(&newer), "record 2 can't be used: the record has version 3, this program reads up to 2");
    let twice = forged(&|entries| entries[2].event = entries[1].event.clone());
    assert!(matches!(twice, ReplayError::Illegal(_)), "{twice:?}");
    let headless = forged(&|entries| entries[0].event = entries[1].event.clone());
    assert!(matches!(headless, ReplayError::NoBeginning), "{headless:?}");
    let unknown = Driver::new(disk, stage, settings()).resume(&SagaId::new("t2")).await.unwrap_err();
    assert_eq!(chain(&unknown), "saga t2: its journal can't be used: the journal knows no such saga");
}

#[tokio::test(start_paused = true)]
async fn a_clean_failure_after_an_attempt_without_answer_does_not_mean_no_effect() {
    let stage = Arc::new(Stage::default());
    stage.act("b", &[Act::Hang, Act::Exit(1)]);
    let steps = json!([
        {"name": "a"},
        {"name": "b", "needs": ["a"], "idempotent": true, "retry": {"attempts": 2}, "compensate": {"command": ["undo", "b"]}},
    ]);
    assert_eq!(driver(&stage).run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    assert_eq!(stage.seen(), ["a", "b", "ending b", "empty b", "b", "undo b", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_forward_in_the_append_that_turns_the_saga_round() {
    let stage = Arc::new(Stage::default());
    // Both end before the driver looks again, so that their outcomes share one append.
    stage.act("b", &[Act::Exit(1)]);
    let steps = json!([{"name": "a"}, {"name": "b"}, {"name": "c", "needs": ["a"]}]);
    assert_eq!(driver(&stage).run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Compensated));
    assert_eq!(stage.seen(), ["a", "b", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_due_but_has_no_free_place_is_waited_for_without_spinning() {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    let stage = Arc::new(Stage::default());
    stage.act("a", &[Act::Exit(1), Act::Give(Value::Null)]).act("b", &[Act::Last(60_000)]);
    let steps = json!([{"name": "a", "retry": {"attempts": 2}}, {"name": "b"}]);
    let mut settings = settings();
    settings.policy.parallel = 1.try_into().unwrap();
    settings.draw = || {
        assert!(LOOKS.fetch_add(1, Ordering::SeqCst) < 20, "the driver looks again and again");
        Draw::LONGEST
    };
    let driver = Driver::new(MemoryJournal::default(), stage.clone(), settings);
    assert_eq!(driver.run(plan(steps), id(), Value::Null).await.unwrap(), Rest::Ended(EndState::Completed));
    assert_eq!(stage.seen(), ["a", "b", "a"]);
}
