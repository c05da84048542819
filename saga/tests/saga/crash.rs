//! Crash everywhere: over sagas from seeds, the driver is stopped at every place where it writes or runs something,
//! forward and undoing, and again at every such place of its recovery.
//!
//! The world (see `world`) accuses whoever breaks a rule while it happens; here the end is compared with a model that
//! knows nothing of journals, attempts or crashes. Planted bugs show that the harness catches what it should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agt_saga::driver::{Driver, SagaError, Settings};
use agt_saga::id::{RunKind, SagaId};
use agt_saga::inject::{Onward, Point};
use agt_saga::machine::{Command, Order, Rest, Stage};
use agt_saga::outcome::Verdict;
use agt_saga::plan::{Class, OnUnknown};
use agt_saga::record::{Authority, Becomes, EndState, Event, Record, Resolution};
use agt_saga::replay::ReplayError;
use agt_saga::time::Draw;
use serde_json::{Value, json};

use crate::cases::Case;
use crate::world::{Disk, Hands, Plant, World};

/// Operator's visits after which a saga is taken to be stuck for ever.
const VISITS_MAX: usize = 12;

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("fnv1a-{hash:016x}")
}

/// What one life of a saga came to.
struct Life {
    world: Arc<World>,
    end: EndState,
    /// How many places each driver passed.
    places: Vec<usize>,
}

/// Lives a saga through. The n-th driver is stopped at the place of that number in `crashes`, if there is one.
fn live(case: &Case, plant: Plant, crashes: &[usize]) -> Result<Life, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = World::new(case.clone(), plant);
    let disk = Disk::new(world.clone());
    let mut places = Vec::new();
    for number in 0.. {
        let passed = Arc::new(AtomicUsize::new(0));
        let crash_at = crashes.get(number).copied();
        let (lived, counter) = (passed.clone(), disk.clone());
        let ended = runtime.block_on(async {
            let mut settings = Settings::new(digest);
            settings.draw = || Draw(u32::MAX / 2);
            settings.hook = Some(Arc::new(move |_: &Point<'_>| {
                let here = passed.fetch_add(1, Ordering::Relaxed);
                if Some(here) == crash_at { Onward::Stop } else { Onward::GoOn }
            }));
            let driver = Driver::new(counter, Arc::new(Hands(world.clone())), settings);
            live_on(&driver, &world).await
        });
        places.push(lived.load(Ordering::Relaxed));
        match ended {
            Ok(end) => return Ok(Life { world, end, places }),
            Err(SagaError::Stopped { .. }) => {
                world.crash();
                disk.crash();
            }
            Err(error) => return Err(format!("driver {number}: {error:?}; {:?}", world.violations())),
        }
    }
    unreachable!("the last driver is not stopped")
}

/// One driver: takes the saga up, and plays the operator where it rests.
async fn live_on(driver: &Driver<Disk, Hands>, world: &World) -> Result<EndState, SagaError> {
    let id = SagaId::new("saga");
    let mut rest = match driver.resume(&id).await {
        // Nothing of it was acknowledged, so whoever submitted it does so again.
        Err(SagaError::Replay { source: ReplayError::Empty, .. }) => {
            driver.run(world.case().plan.clone(), id.clone(), Value::Null).await?
        }
        other => other?,
    };
    for _ in 0..VISITS_MAX {
        match rest {
            Rest::Ended(end) => return Ok(end),
            Rest::Paused => unreachable!("nobody pauses it"),
            Rest::Stuck => {}
        }
        let state = driver.load(&id).await?;
        for name in state.parked() {
            let (_, slot) = state.steps().find(|(step, _)| step.name == name).unwrap();
            let Stage::Parked { kind, why } = slot.stage() else { unreachable!("it is parked") };
            let order = Order::Resolve { resolution: decision(world, &name, *kind, why), step: name };
            let authority = Authority { by: "tester".into(), reason: "looked".into() };
            driver.command(&id, Command { order, authority }).await?;
        }
        rest = driver.resume(&id).await?;
    }
    panic!("the saga is stuck for ever: {:#?}", world.acked());
}

/// What an operator finds who looks at the world.
fn decision(world: &World, step: &str, kind: RunKind, why: &str) -> Resolution {
    let script = &world.case().scripts[step];
    match kind {
        RunKind::Compensate if !world.is_present(step) => Resolution::Applied { output: Value::Null },
        RunKind::Compensate => Resolution::Skip,
        _ if world.is_present(step) => Resolution::Applied { output: json!({"of": step}) },
        // Without its inputs it can't run: what they would have come from was skipped.
        _ if script.always_fails || why.contains("gave no outputs") => Resolution::Skip,
        _ => Resolution::NotApplied,
    }
}

/// The reference model: which end is right, given what the world did to the saga.
///
/// A saga turns round exactly when a step that always fails was reached before the pivot, or one whose rule for an
/// unknown effect is to undo had a run without an answer. Else it completes.
fn expected(life: &Life) -> EndState {
    let case = life.world.case();
    let records = life.world.acked();
    let no_answer = |name: &str| {
        records.iter().any(|record| match &record.event {
            Event::Lost(run) => run.step == name && run.kind == RunKind::Forward,
            Event::Finished(done) => done.run.step == name && done.verdict == Verdict::Unknown,
            _ => false,
        })
    };
    let pivot = case.plan.pivot();
    let turns = case.plan.steps().iter().enumerate().any(|(at, step)| {
        let before_pivot = pivot.is_none_or(|pivot| at == pivot || !case.plan.descendants(pivot).contains(&at));
        let fails = case.scripts[&step.name].always_fails && before_pivot;
        // A pivot that an operator found missing and then found failing is skipped: the operator's word is to go on.
        let skipped = records.iter().any(|record| {
            matches!(&record.event, Event::Resolved(resolved)
                if resolved.step == step.name && resolved.becomes == Becomes::Skipped)
        });
        let undone_if_unknown = step.on_unknown == OnUnknown::Compensate && no_answer(&step.name);
        (fails && !skipped) || undone_if_unknown
    });
    if !turns {
        return EndState::Completed;
    }
    let stays = case.plan.steps().iter().any(|step| life.world.is_present(&step.name));
    if stays { EndState::PartiallyCompensated } else { EndState::Compensated }
}

/// Everything that is wrong with a life.
fn faults(life: &Life) -> Vec<String> {
    let mut faults = life.world.violations();
    let expected = expected(life);
    if life.end != expected {
        faults.push(format!("ended as {:?}, the model says {expected:?}", life.end));
    }
    let case = life.world.case();
    let left = |record: &Record, name: &str| match &record.event {
        Event::Resolved(resolved) => resolved.step == name && resolved.resolution == Resolution::Skip,
        _ => false,
    };
    let records = life.world.acked();
    for step in case.plan.steps().iter().filter(|step| step.class != Class::ReadOnly) {
        let skipped = records.iter().any(|record| left(record, &step.name));
        let present = life.world.is_present(&step.name);
        match life.end {
            EndState::Completed if !present && !skipped => faults.push(format!("{} is missing", step.name)),
            EndState::Compensated if present => faults.push(format!("{} is still there", step.name)),
            EndState::PartiallyCompensated if present && !skipped => {
                faults.push(format!("{} is still there, and nobody said so", step.name));
            }
            _ => {}
        }
    }
    faults
}

/// Stops the driver everywhere, and its recovery everywhere; gives the number of lives and the faults found.
fn crash_everywhere(case: &Case, plant: Plant, depth: Depth) -> (usize, Vec<String>) {
    let mut lives = 0;
    let mut found = Vec::new();
    let mut judge = |crashes: &[usize]| {
        lives += 1;
        match live(case, plant, crashes) {
            Ok(life) => {
                found.extend(faults(&life).into_iter().map(|fault| format!("crashes at {crashes:?}: {fault}")));
                life.places
            }
            Err(error) => {
                found.push(format!("crashes at {crashes:?}: {error}"));
                Vec::new()
            }
        }
    };
    let untouched = judge(&[]);
    for first in 0..untouched.first().copied().unwrap_or(0) {
        let recovered = judge(&[first]);
        if depth == Depth::RecoveryToo {
            // Every third: `everywhere` visits far more of them, without tasks and clocks.
            for second in (first % 3..recovered.get(1).copied().unwrap_or(0)).step_by(3) {
                judge(&[first, second]);
            }
        }
    }
    (lives, found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Once,
    RecoveryToo,
}

/// Crashes the sagas of these seeds everywhere, each seed on a thread of its own (each has a world and a clock of its own); how many
/// lives were lived. Pure computing, and half a minute of it: one thread alone would be what the whole run waits for.
fn crash_all(seeds: std::ops::Range<u64>, depth: Depth) -> usize {
    let next = std::sync::Mutex::new(seeds);
    let work = || {
        let mut lives = 0;
        while let Some(seed) = { next.lock().unwrap().next() } {
            let (count, faults) = crash_everywhere(&Case::from_seed(seed), Plant::None, depth);
            assert!(faults.is_empty(), "seed {seed}: {:#?}", &faults[..faults.len().min(5)]);
            lives += count;
        }
        lives
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a fault is told above")).sum()
    })
}

#[test]
fn every_crash_point_of_many_sagas_ends_as_the_model_says() {
    let lives = crash_all(0..60, Depth::Once);
    assert!(lives > 1_500, "only {lives} lives were lived");
}

#[test]
fn a_crash_during_recovery_from_a_crash_changes_nothing() {
    let lives = crash_all(100..105, Depth::RecoveryToo);
    assert!(lives > 1_000, "only {lives} lives were lived");
}

#[test]
fn the_seeds_reach_every_end_and_every_stage() {
    let mut ends = std::collections::BTreeSet::new();
    let mut events = std::collections::BTreeSet::new();
    for seed in 0..60 {
        for crashes in [&[][..], &[7], &[12]] {
            let life = live(&Case::from_seed(seed), Plant::None, crashes).unwrap();
            ends.insert(life.end.as_str());
            for record in life.world.acked() {
                let event = serde_json::to_value(&record.event).unwrap();
                let name = match event {
                    Value::String(name) => name,
                    Value::Object(map) => map.keys().next().unwrap().clone(),
                    _ => unreachable!("an event is a word or a map"),
                };
                events.insert(name);
            }
        }
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), ["compensated", "completed", "partially_compensated"]);
    for event in ["finished", "gave_up", "lost", "parked", "recovered", "resolved", "retry", "started", "unwinding"] {
        assert!(events.contains(event), "no seed led to {event}: {events:?}");
    }
}

#[test]
fn the_harness_catches_a_journal_that_acknowledges_before_it_keeps() {
    assert_caught(Plant::LyingJournal, "success was acknowledged");
}

#[test]
fn the_harness_catches_a_check_that_lies() {
    assert_caught(Plant::LyingCheck, "took effect twice");
}

#[test]
fn the_harness_catches_a_step_that_ignores_its_key() {
    assert_caught(Plant::KeyIgnored, "took effect twice");
}

/// The first seed whose faults bear the sign is enough.
fn assert_caught(plant: Plant, sign: &str) {
    let caught = (0..20).any(|seed| {
        let (_, faults) = crash_everywhere(&Case::from_seed(seed), plant, Depth::Once);
        faults.iter().any(|fault| fault.contains(sign))
    });
    assert!(caught, "{plant:?} went unnoticed");
}
