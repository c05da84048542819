//! Claims about any run: the engine against a model that keeps every event, and what an agent can gain by talking.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::tests::slos;
use super::*;
use crate::burn::LookBack;
use crate::json;
use crate::sli::{Evidence, Outcome};
use crate::time::millis;

const START: u64 = 1_700_000_000_000;

/// Every indicator, on a short period so that windows turn over within a run; two latencies, low and high minimums.
const ALL: &str = r#"[
    {"name": "right", "sli": "correctness", "objective": 0.6, "period": "1h", "minimum_events": 3},
    {"name": "safe", "sli": "safety", "objective": 0.9, "period": "2h"},
    {"name": "quick", "sli": "latency", "objective": "99%", "period": "1h", "threshold": "2s", "minimum_events": 1},
    {"name": "median", "sli": "latency", "objective": 0.5, "period": "10m", "threshold": "1s", "minimum_events": 5},
    {"name": "cheap", "sli": "cost", "objective": 0.8, "period": "1h", "threshold": 0.5},
    {"name": "up", "sli": "availability", "objective": 0.95, "period": "1d"},
    {"name": "busy", "sli": "throughput", "objective": 0.5, "period": "1h"},
    {"name": "passed-on", "sli": "delegation", "objective": 0, "period": "1h", "minimum_events": 2}
]"#;

#[derive(Debug, Clone)]
struct Event {
    step_ms: u64,
    sample: Sample,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Good),
        2 => Just(Outcome::Bad),
        2 => (0.0f64..3.0).prop_map(Outcome::Value),
        1 => prop_oneof![Just(f64::NAN), Just(-1.0), Just(f64::INFINITY)].prop_map(Outcome::Value),
    ]
}

fn severity() -> impl Strategy<Value = Severity> {
    prop_oneof![20 => Just(Severity::Low), 4 => Just(Severity::High), 1 => Just(Severity::Critical)]
}

prop_compose! {
    fn event()(
        step_ms in prop_oneof![5 => 0u64..5_000, 1 => 0u64..1_200_000],
        sli in prop::sample::select(Sli::ALL.to_vec()),
        outcome in outcome(),
        own_word in any::<bool>(),
        class in 0u8..4,
        severity in severity(),
    ) -> Event {
        let evidence = if own_word { Evidence::SelfReported } else { Evidence::Supervisor };
        Event { step_ms, sample: Sample { sli, outcome, evidence, class: ClassId::new(class).unwrap(), severity } }
    }
}

fn rank(track: &SloStatus) -> (Status, u64) {
    (track.status, track.trips_total)
}

/// Events of one SLO, one by one.
#[derive(Default)]
struct Model {
    events: Vec<(u64, Counts)>,
}

impl Model {
    /// What lies in the buckets of a window, counted event by event.
    fn sum(&self, now: u64, length_ms: u64, buckets: u64) -> Counts {
        let width = length_ms.div_ceil(buckets);
        let oldest = (now / width).saturating_sub(buckets);
        let mut sum = Counts::default();
        for (_, counted) in self.events.iter().filter(|(time, _)| time / width >= oldest) {
            sum.good += counted.good;
            sum.bad += counted.bad;
            sum.claimed += counted.claimed;
        }
        sum
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn budgets_and_burns_agree_with_a_model_that_keeps_every_event(events in prop::collection::vec(event(), 1..150)) {
        let mut engine = Engine::new(slos(ALL)).unwrap();
        let mut models: Vec<Model> = engine.slos().map(|_| Model::default()).collect();
        let mut now = START;
        for event in &events {
            now += event.step_ms;
            let before: Vec<Events> = engine.status(Timestamp::from_millis(now)).iter().map(|s| s.events_total).collect();
            let _ = engine.record(&event.sample, Timestamp::from_millis(now));
            for (index, status) in engine.status(Timestamp::from_millis(now)).iter().enumerate() {
                let (total, before) = (status.events_total, before[index]);
                let counted = Counts {
                    good: total.good - before.good,
                    bad: total.bad - before.bad,
                    claimed: total.self_reported_bad - before.self_reported_bad,
                };
                if counted != Counts::default() {
                    models[index].events.push((now, counted));
                }
            }
        }
        let slos: Vec<Slo> = engine.slos().cloned().collect();
        for ((slo, model), status) in slos.iter().zip(&models).zip(engine.status(Timestamp::from_millis(now))) {
            let period = model.sum(now, millis(slo.period()), crate::slo::PERIOD_BUCKETS as u64);
            prop_assert_eq!(status.events, Events::from(period), "{}", slo.name());
            let allowed = 1.0 - slo.objective().as_f64();
            match status.budget {
                None => prop_assert_eq!(period.valid(), 0),
                Some(budget) => {
                    let consumed = period.bad as f64 / period.valid() as f64 / allowed;
                    prop_assert!((budget.consumed_ratio - consumed).abs() <= 1e-9 * consumed.max(1.0));
                }
            }
            for look_back in LookBack::ALL {
                let length = millis(look_back.scaled(slo.period()));
                let counts = model.sum(now, length, crate::slo::LOOK_BACK_BUCKETS as u64);
                let rate = (counts.valid() > 0).then(|| counts.bad as f64 / counts.valid() as f64 / allowed);
                match (status.burn_over(look_back), rate) {
                    (None, None) => {}
                    (Some(found), Some(rate)) => prop_assert!((found - rate).abs() <= 1e-9 * rate.max(1.0)),
                    other => prop_assert!(false, "{} {look_back}: {other:?}", slo.name()),
                }
            }
        }
    }

    #[test]
    fn nothing_an_agent_says_about_itself_improves_any_state(events in prop::collection::vec(event(), 1..200)) {
        let mut silent = Engine::new(slos(ALL)).unwrap();
        let mut talking = Engine::new(slos(ALL)).unwrap();
        let mut now = START;
        for event in &events {
            now += event.step_ms;
            let at = Timestamp::from_millis(now);
            if event.sample.evidence == Evidence::Supervisor {
                let (of_silent, of_talking) = (silent.record(&event.sample, at), talking.record(&event.sample, at));
                // Its confessions may have been what was missing for a trip; nothing else may differ.
                prop_assert!(of_silent == of_talking || of_talking == Recorded::Tripped);
            } else {
                let _ = talking.record(&event.sample, at);
            }
            let _ = (silent.evaluate(at), talking.evaluate(at));
            let (of_silent, of_talking) = (silent.status(at), talking.status(at));
            for (silent, talking) in of_silent.iter().zip(&of_talking) {
                // Throughput is volume: the one indicator that takes an agent's word for a good event.
                if silent.sli == Sli::Throughput {
                    continue;
                }
                prop_assert!(rank(talking) >= rank(silent), "{}: {:?} < {:?}", silent.slo, rank(talking), rank(silent));
                let left = |status: &SloStatus| status.budget_left().unwrap_or(1.0);
                prop_assert!(left(talking) <= left(silent), "{}", silent.slo);
                prop_assert_eq!(talking.events.good, silent.events.good, "{}", silent.slo);
                prop_assert!(silent.in_force.iter().all(|action| talking.in_force.contains(action)), "{}", silent.slo);
            }
        }
    }

    #[test]
    fn an_engine_restored_at_any_point_goes_on_as_if_it_had_never_stopped(
        events in prop::collection::vec(event(), 1..150), cut in 0usize..150,
    ) {
        let mut kept = Engine::new(slos(ALL)).unwrap();
        let mut now = START;
        for (index, event) in events.iter().enumerate() {
            now += event.step_ms;
            let at = Timestamp::from_millis(now);
            if index == cut {
                let snapshot: EngineSnapshot = json::read(&json::write(&kept.snapshot())).unwrap();
                let restored = Engine::restore(slos(ALL), &snapshot, at).unwrap();
                prop_assert!(restored.dropped.is_empty());
                // The minute's caps are not kept: at most one minute's worth of good safety events counts twice.
                let mut restored = restored.engine;
                for (restored, kept) in restored.tracks.iter_mut().zip(&kept.tracks) {
                    restored.caps = kept.caps.clone();
                }
                prop_assert_eq!(restored.status(at), kept.status(at));
                let mut other = restored;
                for event in &events[index..] {
                    now += event.step_ms;
                    let at = Timestamp::from_millis(now);
                    prop_assert_eq!(kept.record(&event.sample, at), other.record(&event.sample, at));
                    prop_assert_eq!(kept.evaluate(at), other.evaluate(at));
                    prop_assert_eq!(kept.in_force(), other.in_force());
                    prop_assert_eq!(kept.status(at), other.status(at));
                }
                return Ok(());
            }
            let _ = kept.record(&event.sample, at);
            let _ = kept.evaluate(at);
        }
    }

    #[test]
    fn a_verdict_speaks_only_for_what_is_in_force(events in prop::collection::vec(event(), 1..150)) {
        let mut engine = Engine::new(slos(ALL)).unwrap();
        let mut now = START;
        for event in &events {
            now += event.step_ms;
            let at = Timestamp::from_millis(now);
            let bound = engine.in_force();
            let recorded = engine.record(&event.sample, at);
            let verdicts = engine.evaluate(at);
            prop_assert!(recorded != Recorded::Tripped || verdicts.iter().any(|verdict| verdict.on == Trigger::Trip));
            let now_bound = engine.in_force();
            for verdict in &verdicts {
                let same = |force: &InForce| force.slo == verdict.slo && force.on == verdict.on && force.action == verdict.action;
                prop_assert!(now_bound.iter().any(same));
                prop_assert!(verdict.on == Trigger::Trip || !bound.iter().any(same), "said twice: {verdict:?}");
                prop_assert!(!verdict.reason.is_empty());
            }
            prop_assert!(engine.evaluate(at).is_empty());
        }
    }
}
