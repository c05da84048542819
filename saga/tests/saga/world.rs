//! A world in which sagas act: what is in place, who may touch it, and every rule that was broken.
//!
//! It outlives drivers and their crashes. It knows what the journal acknowledged, and compares each run with that: a run
//! without a durable intent, a second run of what is acknowledged, an undo of what is undone, a forward run while going
//! back, an undo under something still standing, an effect made twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agt_saga::driver::{Steps, StepsError};
use agt_saga::id::{RunId, RunKind, SagaId};
use agt_saga::journal::{Entry, Journal, JournalError, MemoryJournal, Scope, Summary};
use agt_saga::machine::{Fate, StepRun};
use agt_saga::outcome::{Ending, StepOutcome, Verdict};
use agt_saga::record::{Attempt, Becomes, Event, Record};
use serde_json::{Value, json};

use crate::cases::Case;

/// A bug planted to see whether it is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Plant {
    #[default]
    None,
    /// The journal acknowledges an append and keeps it only with the next one.
    LyingJournal,
    /// A check says that there is no effect where there is one.
    LyingCheck,
    /// A step pays no heed to its idempotency key.
    KeyIgnored,
}

#[derive(Debug)]
pub(crate) struct World {
    case: Case,
    plant: Plant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Records that the journal acknowledged.
    acked: Vec<Record>,
    acked_lines: Vec<String>,
    /// Effects in place.
    present: BTreeSet<String>,
    /// How often each command was run.
    runs: BTreeMap<(String, RunKind), u64>,
    keys: BTreeMap<(String, RunKind), String>,
    running_forward: u64,
    /// Which driver is alive: runs of an older one are dead.
    generation: u64,
    violations: Vec<String>,
}

impl World {
    pub(crate) fn new(case: Case, plant: Plant) -> Arc<Self> {
        Arc::new(Self { case, plant, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn case(&self) -> &Case {
        &self.case
    }

    /// A new supervisor: nothing of the old one runs any more.
    pub(crate) fn crash(&self) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.running_forward = 0;
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub(crate) fn accuse(&self, violation: String) {
        self.lock().violations.push(violation);
    }

    pub(crate) fn is_present(&self, step: &str) -> bool {
        self.lock().present.contains(step)
    }

    pub(crate) fn acked(&self) -> Vec<Record> {
        self.lock().acked.clone()
    }

    fn has_descendant(&self, step: &str, other: &str) -> bool {
        let plan = &self.case.plan;
        plan.descendants(plan.position(step).unwrap()).contains(&plan.position(other).unwrap())
    }

    /// A run begins: what does the journal say to that?
    fn begin(&self, run: &StepRun) -> (u64, u64) {
        let (step, kind) = (&run.id.step, run.id.kind);
        let mut inner = self.lock();
        let mut faults: Vec<String> = Vec::new();
        let attempt = Attempt { step: step.clone(), kind, attempt: run.id.attempt };
        let acked = |event: &dyn Fn(&Event) -> bool| inner.acked.iter().any(|record| event(&record.event));
        if !acked(&|event| *event == Event::Started(attempt.clone())) {
            faults.push("began without a durable intent".into());
        }
        let succeeded = acked(&|event| match event {
            Event::Finished(done) => done.run.step == *step && done.run.kind == kind && done.verdict == Verdict::Ok,
            Event::Resolved(resolved) => {
                resolved.step == *step
                    && match kind {
                        RunKind::Forward => resolved.becomes == Becomes::Done,
                        RunKind::Compensate => resolved.becomes == Becomes::Undone,
                        RunKind::Check => false,
                    }
            }
            _ => false,
        });
        if succeeded && kind != RunKind::Check {
            faults.push("began although its success was acknowledged".into());
        }
        let unwinding = acked(&|event| matches!(event, Event::Unwinding(_)));
        match kind {
            RunKind::Forward if unwinding => faults.push("went forward while unwinding".into()),
            RunKind::Compensate => {
                if !unwinding {
                    faults.push("was undone while the saga goes forward".into());
                }
                if inner.running_forward > 0 {
                    faults.push("was undone while another step runs forward".into());
                }
                let left = |name: &str| {
                    acked(&|event| match event {
                        Event::Resolved(resolved) => resolved.step == name && resolved.becomes == Becomes::Left,
                        Event::Left(left) => left.step == name,
                        _ => false,
                    })
                };
                for standing in inner.present.iter().filter(|name| self.has_descendant(step, name)) {
                    if !left(standing) {
                        faults.push(format!("was undone under {standing}"));
                    }
                }
            }
            _ => {}
        }
        let key = run.key.to_string();
        let known = inner.keys.entry((step.clone(), kind)).or_insert_with(|| key.clone()).clone();
        if known != key {
            faults.push(format!("changed its key from {known} to {key}"));
        }
        let run_id = run.id.to_string();
        inner.violations.extend(faults.into_iter().map(|fault| format!("{run_id} {fault}")));
        if kind == RunKind::Forward {
            inner.running_forward += 1;
        }
        let nth = inner.runs.entry((step.clone(), kind)).or_default();
        *nth += 1;
        (*nth, inner.generation)
    }

    fn apply(&self, step: &str) {
        let script = &self.case.scripts[step];
        if script.reads_only {
            return;
        }
        let mut inner = self.lock();
        let doubled = !inner.present.insert(step.to_owned());
        let heeds_key = script.idempotent && self.plant != Plant::KeyIgnored;
        if doubled && !heeds_key {
            inner.violations.push(format!("{step} took effect twice"));
        }
    }
}

/// The steps of one supervisor.
#[derive(Debug)]
pub(crate) struct Hands(pub(crate) Arc<World>);

/// Counts a forward run as running until it is dropped.
struct Running<'a>(&'a World, RunKind, u64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        if self.1 == RunKind::Forward && inner.generation == self.2 {
            inner.running_forward -= 1;
        }
    }
}

fn failed() -> StepOutcome {
    StepOutcome::ended(Ending::Exited(1))
}

impl Steps for Hands {
    #[expect(clippy::disallowed_methods, reason = "runs take time, on a paused clock")]
    async fn run(&self, run: StepRun) -> StepOutcome {
        let world = &self.0;
        let (nth, generation) = world.begin(&run);
        let _running = Running(world, run.id.kind, generation);
        let step = &run.id.step;
        let script = &world.case.scripts[step];
        tokio::time::sleep(Duration::from_millis(script.before_ms)).await;
        match run.id.kind {
            RunKind::Forward => {
                if script.always_fails || nth <= script.fails {
                    return failed();
                }
                if script.hangs_at.is_some_and(|at| nth == script.fails + at) {
                    if script.hang_applies {
                        world.apply(step);
                    }
                    return std::future::pending().await;
                }
                world.apply(step);
                tokio::time::sleep(Duration::from_millis(script.after_ms)).await;
                StepOutcome::ok(json!({"of": step}))
            }
            RunKind::Check => {
                if nth <= script.check_fails {
                    return failed();
                }
                let applied = world.is_present(step) && world.plant != Plant::LyingCheck;
                StepOutcome::ok(json!({"applied": applied, "outputs": {"of": step}}))
            }
            RunKind::Compensate => {
                if script.undo_always_fails || nth <= script.undo_fails {
                    return failed();
                }
                world.lock().present.remove(step);
                tokio::time::sleep(Duration::from_millis(script.after_ms)).await;
                StepOutcome::ok(Value::Null)
            }
        }
    }

    async fn cancel(&self, _run: &RunId) -> Result<(), StepsError> {
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn verify_empty(&self, _saga: &SagaId, _in_flight: &[RunId]) -> Result<Vec<Fate>, StepsError> {
        Ok(Vec::new())
    }
}

/// The arguments of an append.
type Append = (Summary, u64, Vec<String>);

/// A journal that tells the world what it acknowledged, and forgets at a crash what it lied about.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    world: Arc<World>,
    kept: MemoryJournal,
    cached: Arc<Mutex<Vec<Append>>>,
}

impl Disk {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, kept: MemoryJournal::default(), cached: Arc::default() }
    }

    pub(crate) fn crash(&self) {
        self.cached.lock().unwrap().clear();
    }

    async fn flush(&self) {
        let cached = std::mem::take(&mut *self.cached.lock().unwrap());
        for (summary, after, events) in cached {
            self.kept.append(summary, after, events).await.unwrap();
        }
    }
}

impl Journal for Disk {
    async fn append(&self, summary: Summary, after: u64, events: Vec<String>) -> Result<(), JournalError> {
        let records: Vec<Record> = events.iter().map(|event| Record::from_text(event).unwrap()).collect();
        self.flush().await;
        let lines = events.clone();
        if self.world.plant == Plant::LyingJournal {
            self.cached.lock().unwrap().push((summary, after, events));
        } else {
            self.kept.append(summary, after, events).await?;
        }
        let mut inner = self.world.lock();
        inner.acked.extend(records);
        inner.acked_lines.extend(lines);
        Ok(())
    }

    async fn load(&self, saga: &str) -> Result<Vec<Entry>, JournalError> {
        self.flush().await;
        let entries = self.kept.load(saga).await?;
        let lost = !entries.iter().map(|entry| &entry.event).eq(&self.world.lock().acked_lines);
        // The planted liar is to be caught by what it does to the world, not by looking at its hands.
        if lost && self.world.plant != Plant::LyingJournal {
            self.world.accuse("an acknowledged record is lost".into());
        }
        Ok(entries)
    }

    async fn list(&self, scope: Scope) -> Result<Vec<Summary>, JournalError> {
        self.kept.list(scope).await
    }
}
