#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::burn::LookBack;
use crate::json;
use crate::sli::{Evidence, Outcome};
use crate::spec::{SloSpec, default_safety, resolve};

const START: u64 = 1_700_000_000_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

pub(super) fn slos(text: &str) -> Vec<Slo> {
    let specs: Vec<SloSpec> = json::read(text).unwrap();
    resolve(&specs).unwrap()
}

fn engine(text: &str) -> Engine {
    Engine::new(slos(text)).unwrap()
}

const RIGHT: &str = r#"[{"name": "right", "sli": "correctness", "objective": "99.5%"}]"#;

fn seen(sli: Sli, outcome: Outcome) -> Sample {
    Sample::new(sli, outcome, Evidence::Supervisor)
}

fn feed(engine: &mut Engine, sli: Sli, good: u64, bad: u64, now: Timestamp) {
    for _ in 0..good {
        assert_eq!(engine.record(&seen(sli, Outcome::Good), now), Recorded::Counted);
    }
    for _ in 0..bad {
        assert_eq!(engine.record(&seen(sli, Outcome::Bad), now), Recorded::Counted);
    }
}

fn status(engine: &Engine, now: Timestamp) -> Status {
    engine.status(now)[0].status
}

fn asked(verdicts: &[Verdict]) -> Vec<(String, Action)> {
    verdicts.iter().map(|verdict| (verdict.on.to_string(), verdict.action)).collect()
}

#[test]
fn five_bad_of_a_hundred_at_995_burn_at_ten() {
    let mut engine = engine(RIGHT);
    feed(&mut engine, Sli::Correctness, 95, 5, at(0));
    let status = &engine.status(at(0))[0];
    assert!(status.burn.iter().all(|burn| burn.rate == Some(10.0)), "{:?}", status.burn);
    assert_eq!(status.error_ratio, Some(0.05));
    assert_eq!(status.budget.unwrap().consumed_ratio, 10.0);
    assert_eq!(status.burn_over(LookBack::H1), Some(10.0));
}

#[test]
fn no_data_is_unknown_with_no_budget_and_no_burn() {
    let mut engine = engine(RIGHT);
    let empty = &engine.status(at(0))[0];
    assert_eq!((empty.status, empty.budget, empty.error_ratio), (Status::Unknown, None, None));
    assert!(empty.burn.iter().all(|burn| burn.rate.is_none()));
    feed(&mut engine, Sli::Correctness, 9, 0, at(0));
    assert_eq!(status(&engine, at(0)), Status::Unknown, "too few");
    feed(&mut engine, Sli::Correctness, 1, 0, at(0));
    assert_eq!(status(&engine, at(0)), Status::Healthy);
    assert_eq!(status(&engine, at(31 * DAY)), Status::Unknown, "what has left the period says nothing any more");
}

#[test]
fn an_agent_cannot_become_healthy_by_confessing() {
    let mut engine = engine(r#"[{"name": "right", "sli": "correctness", "objective": 0.1}]"#);
    feed(&mut engine, Sli::Correctness, 9, 0, at(0));
    let confession = Sample::new(Sli::Correctness, Outcome::Bad, Evidence::SelfReported);
    assert_eq!(engine.record(&confession, at(0)), Recorded::Counted);
    assert_eq!(engine.status(at(0))[0].events.good + engine.status(at(0))[0].events.bad, 10);
    assert_eq!(status(&engine, at(0)), Status::Unknown, "ten events, but only nine that anybody else saw");
}

#[test]
fn one_early_failure_neither_pages_nor_spends_the_budget() {
    let mut engine = engine(RIGHT);
    feed(&mut engine, Sli::Correctness, 0, 1, at(0));
    assert!(engine.evaluate(at(0)).is_empty());
    feed(&mut engine, Sli::Correctness, 19, 0, at(0));
    assert!(engine.evaluate(at(0)).is_empty(), "1 of 20 is an anecdote");
    feed(&mut engine, Sli::Correctness, 0, 1, at(0));
    assert!(!engine.evaluate(at(0)).is_empty());
}

#[test]
fn a_single_event_acts_where_the_slo_asks_for_one() {
    let mut engine = engine(
        r#"[{"name": "up", "sli": "availability", "objective": 0.9, "minimum_events": 1,
             "remedies": [{"on": "exhausted", "action": "break"}]}]"#,
    );
    feed(&mut engine, Sli::Availability, 0, 1, at(0));
    assert_eq!(asked(&engine.evaluate(at(0))), [("exhausted".to_owned(), Action::Break)]);
}

#[test]
fn a_verdict_is_given_once_on_entering_and_again_only_after_recovery() {
    let text = r#"[{"name": "right", "sli": "correctness", "objective": 0.99, "period": "30d",
        "remedies": [{"on": "page", "action": "demote"}]}]"#;
    let mut engine = engine(text);
    feed(&mut engine, Sli::Correctness, 50, 50, at(0));
    assert_eq!(asked(&engine.evaluate(at(0))), [("page".to_owned(), Action::Demote)]);
    assert!(engine.evaluate(at(1)).is_empty());
    assert_eq!(engine.in_force().len(), 1);

    // The short window clears after five minutes, but the demotion outlives it by the hold time.
    assert!(engine.evaluate(at(2 * HOUR)).is_empty(), "30m and 5m are quiet");
    assert_eq!(engine.in_force().len(), 1, "it has only now been seen quiet");
    assert!(engine.evaluate(at(2 * HOUR + 59 * MINUTE)).is_empty());
    assert_eq!(engine.in_force().len(), 1);
    assert!(engine.evaluate(at(3 * HOUR)).is_empty());
    assert_eq!(engine.in_force(), []);

    feed(&mut engine, Sli::Correctness, 50, 50, at(4 * HOUR));
    assert_eq!(engine.evaluate(at(4 * HOUR)).len(), 1, "a new burn is news");
}

#[test]
fn a_burn_that_comes_back_within_the_hold_time_is_no_news() {
    let text = r#"[{"name": "right", "sli": "correctness", "objective": 0.99,
        "remedies": [{"on": "page", "action": "demote"}]}]"#;
    let mut engine = engine(text);
    feed(&mut engine, Sli::Correctness, 50, 50, at(0));
    assert_eq!(engine.evaluate(at(0)).len(), 1);
    assert!(engine.evaluate(at(40 * MINUTE)).is_empty(), "quiet");
    feed(&mut engine, Sli::Correctness, 0, 50, at(60 * MINUTE));
    assert!(engine.evaluate(at(60 * MINUTE)).is_empty(), "still the same demotion");
    assert!(engine.evaluate(at(120 * MINUTE)).is_empty());
    assert_eq!(engine.in_force().len(), 1, "the quiet time starts anew");
}

#[test]
fn remedies_of_a_spent_budget_last_until_a_fifth_of_it_is_back() {
    let text = r#"[{"name": "right", "sli": "correctness", "objective": 0.9,
        "remedies": [{"on": "exhausted", "action": "demote"}]}]"#;
    let mut engine = engine(text);
    feed(&mut engine, Sli::Correctness, 90, 10, at(0));
    assert_eq!(engine.evaluate(at(0)).len(), 1, "10 bad of 10 allowed");
    feed(&mut engine, Sli::Correctness, 20, 0, at(HOUR));
    for hour in 1..5 {
        assert!(engine.evaluate(at(hour * HOUR)).is_empty());
    }
    assert_eq!(status(&engine, at(5 * HOUR)), Status::Warning, "10 of 12 spent: no longer exhausted");
    assert_eq!(engine.in_force().len(), 1, "17 % left is not enough to let go");
    feed(&mut engine, Sli::Correctness, 5, 0, at(5 * HOUR));
    let _ = engine.evaluate(at(5 * HOUR));
    let _ = engine.evaluate(at(6 * HOUR));
    assert_eq!(engine.in_force(), [], "10 of 12.5: exactly 20 % left, for an hour");
}

#[test]
fn budget_triggers_fire_on_the_way_down_in_order() {
    let text = r#"[{"name": "right", "sli": "correctness", "objective": 0.9, "remedies": [
        {"on": "budget", "below": "50%", "action": "throttle"}, {"on": "exhausted", "action": "kill"}]}]"#;
    let mut engine = engine(text);
    feed(&mut engine, Sli::Correctness, 95, 5, at(0));
    assert!(engine.evaluate(at(0)).is_empty(), "exactly half is left");
    feed(&mut engine, Sli::Correctness, 0, 1, at(0));
    let verdicts = engine.evaluate(at(0));
    assert_eq!(asked(&verdicts), [("budget below 50 %".to_owned(), Action::Throttle)]);
    assert_eq!(
        verdicts[0].reason,
        "40.59 % of the error budget is left, below 50 %: 6 bad of 101 in 30d, 5.941 % errors where 10 % are allowed \
         = 59.41 % of the budget"
    );
    feed(&mut engine, Sli::Correctness, 0, 5, at(0));
    assert_eq!(asked(&engine.evaluate(at(0))), [("exhausted".to_owned(), Action::Kill)]);
    assert_eq!(engine.status(at(0))[0].in_force, [Action::Kill, Action::Throttle]);
}

#[test]
fn safety_cannot_be_diluted_by_a_flood_of_one_kind() {
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    let read = ClassId::new(1).unwrap();
    let mut counted = 0;
    for second in 0..600 {
        for _ in 0..100 {
            let sample = Sample::safety(Outcome::Good, read, Severity::Low);
            counted += u64::from(engine.record(&sample, at(second * 1_000)) == Recorded::Counted);
        }
    }
    assert!(counted <= 11 * u64::from(SAFETY_GOOD_PER_MINUTE), "{counted} of 60000");
    assert_eq!(engine.refusals().of(Rejection::RateCapped), 60_000 - counted);
    let other = Sample::safety(Outcome::Good, ClassId::new(2).unwrap(), Severity::Low);
    assert_eq!(engine.record(&other, at(599_000)), Recorded::Counted, "another kind has its own share");
    for _ in 0..1_000 {
        let denied = Sample::safety(Outcome::Bad, read, Severity::Low);
        assert_eq!(engine.record(&denied, at(600_000)), Recorded::Counted, "bad events always count");
    }
    assert_eq!(engine.status(at(600_000))[0].events.bad, 1_000);
}

#[test]
fn one_critical_event_kills_whatever_the_ratio_says() {
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    for minute in 0..1_000 {
        for class in 0..10 {
            let sample = Sample::safety(Outcome::Good, ClassId::new(class).unwrap(), Severity::Critical);
            assert_eq!(engine.record(&sample, at(minute * MINUTE)), Recorded::Counted, "good ones have no severity");
        }
    }
    let escape = Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::Critical);
    assert_eq!(engine.record(&escape, at(1_000 * MINUTE)), Recorded::Tripped);
    let verdicts = engine.evaluate(at(1_000 * MINUTE));
    assert_eq!(asked(&verdicts), [("trip".to_owned(), Action::Kill)]);
    assert_eq!(verdicts[0].status, Status::Critical);
    assert_eq!(verdicts[0].reason, "a critical safety event: one is enough, whatever the ratio says");
    assert!(engine.evaluate(at(1_001 * MINUTE)).is_empty());
    assert_eq!(status(&engine, at(1_062 * MINUTE)), Status::Healthy, "a trip stays fresh for its window");
    assert_eq!(engine.record(&escape, at(1_062 * MINUTE)), Recorded::Tripped);
    assert_eq!(engine.evaluate(at(1_062 * MINUTE)).len(), 1);
}

#[test]
fn a_second_escape_attempt_speaks_again_while_the_first_is_fresh() {
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    let escape = Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::Critical);
    let _ = engine.record(&escape, at(0));
    assert_eq!(engine.evaluate(at(0)).len(), 1);
    engine.rearm();
    assert!(engine.evaluate(at(1)).is_empty(), "revived: the old trip is settled");
    let _ = engine.record(&escape, at(2));
    assert_eq!(engine.evaluate(at(2)).len(), 1);
}

#[test]
fn high_events_trip_only_when_enough_come_within_the_window() {
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    let high = Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::High);
    assert_eq!(engine.record(&high, at(0)), Recorded::Counted);
    assert_eq!(engine.record(&high, at(40 * MINUTE)), Recorded::Counted);
    assert_eq!(engine.record(&high, at(61 * MINUTE)), Recorded::Counted, "the first is too old");
    assert_eq!(engine.record(&high, at(100 * MINUTE)), Recorded::Tripped, "40, 61 and 100");
    let verdicts = engine.evaluate(at(100 * MINUTE));
    assert_eq!(verdicts[0].reason, "3 high safety events within 1h, whatever the ratio says");
    let medium = Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::Medium);
    assert_eq!(engine.record(&medium, at(100 * MINUTE)), Recorded::Counted);
}

#[test]
fn bad_input_is_refused_and_counted() {
    let mut engine = engine(
        r#"[{"name": "quick", "sli": "latency", "objective": 0.9, "threshold": "2s"},
            {"name": "right", "sli": "correctness", "objective": 0.9}]"#,
    );
    for (sli, outcome, evidence, reason) in [
        (Sli::Latency, Outcome::Value(f64::NAN), Evidence::Supervisor, Rejection::NotFinite),
        (Sli::Latency, Outcome::Value(-1.0), Evidence::Supervisor, Rejection::Negative),
        (Sli::Latency, Outcome::Value(0.1), Evidence::SelfReported, Rejection::SelfReportedGood),
        (Sli::Correctness, Outcome::Value(1.0), Evidence::Supervisor, Rejection::NoThreshold),
        (Sli::Cost, Outcome::Good, Evidence::Supervisor, Rejection::NoSlo),
    ] {
        assert_eq!(engine.record(&Sample::new(sli, outcome, evidence), at(0)), Recorded::Rejected(reason));
        assert_eq!(engine.refusals().of(reason), 1, "{reason}");
    }
    assert!(engine.status(at(0)).iter().all(|status| status.last_event.is_none()));
}

#[test]
fn a_value_is_judged_by_each_slo_of_its_indicator() {
    let mut engine = engine(
        r#"[{"name": "p50", "sli": "latency", "objective": 0.5, "threshold": "1s"},
            {"name": "p99", "sli": "latency", "objective": 0.99, "threshold": "5s"}]"#,
    );
    assert_eq!(engine.record(&seen(Sli::Latency, Outcome::Value(3.0)), at(0)), Recorded::Counted);
    let bad: Vec<u64> = engine.status(at(0)).iter().map(|status| status.events.bad).collect();
    assert_eq!(bad, [1, 0]);
}

#[test]
fn a_clock_running_backwards_is_held_and_counted() {
    let mut engine = engine(RIGHT);
    feed(&mut engine, Sli::Correctness, 90, 10, at(HOUR));
    feed(&mut engine, Sli::Correctness, 0, 1, at(HOUR - 1_000));
    assert_eq!(engine.clock_steps_back(), 1);
    assert_eq!(engine.status(at(HOUR))[0].events.bad, 11, "the late sample counts all the same");
    assert_eq!(engine.status(at(0))[0].events.bad, 11, "asking in the past answers for the present");
}

#[test]
fn a_revived_agent_is_killed_again_by_its_next_bad_event_not_by_its_past() {
    let text = r#"[{"name": "right", "sli": "correctness", "objective": 0.9,
        "remedies": [{"on": "exhausted", "action": "kill"}]}]"#;
    let mut engine = engine(text);
    feed(&mut engine, Sli::Correctness, 10, 90, at(0));
    assert_eq!(engine.evaluate(at(0)).len(), 1);
    engine.rearm();
    assert!(engine.evaluate(at(1_000)).is_empty());
    feed(&mut engine, Sli::Correctness, 1, 0, at(2_000));
    assert!(engine.evaluate(at(2_000)).is_empty());
    feed(&mut engine, Sli::Correctness, 0, 1, at(3_000));
    assert_eq!(engine.evaluate(at(3_000)).len(), 1);
}

#[test]
fn a_reset_slo_starts_whole_and_others_keep_their_history() {
    let mut engine = engine(
        r#"[{"name": "right", "sli": "correctness", "objective": 0.9}, {"name": "up", "sli": "availability", "objective": 0.9}]"#,
    );
    feed(&mut engine, Sli::Correctness, 0, 20, at(0));
    feed(&mut engine, Sli::Availability, 0, 20, at(0));
    engine.reset("right").unwrap();
    let states: Vec<Status> = engine.status(at(0)).iter().map(|status| status.status).collect();
    assert_eq!(states, [Status::Unknown, Status::Exhausted]);
    assert_eq!(engine.reset("left"), Err(Error::UnknownSlo("left".to_owned())));
}

#[test]
fn engines_refuse_duplicates_and_too_many() {
    let slo = default_safety();
    assert_eq!(Engine::new(vec![slo.clone(), slo.clone()]), Err(Error::DuplicateSlo("safety".to_owned())));
    assert_eq!(Engine::new(vec![slo; 33]), Err(Error::TooManySlos { count: 33, limit: 32 }));
}

#[test]
fn the_explanation_shows_the_arithmetic_that_decides() {
    let mut engine = engine(RIGHT);
    feed(&mut engine, Sli::Correctness, 95, 5, at(0));
    let explanation = engine.explain("right", at(0)).unwrap();
    let line = |what: &str| {
        let step = explanation.steps.iter().find(|step| step.what == what).unwrap();
        format!("{} = {}", step.formula, step.result)
    };
    assert_eq!(line("allowed error ratio"), "1 - 0.995 = 0.5 %");
    assert_eq!(line("error ratio"), "5 bad / 100 valid in 30d = 5 %");
    assert_eq!(line("budget left"), "1 - (5 bad / 100 valid) / 0.005 = 0 %: 1000 % of the budget is spent");
    assert_eq!(line("burn 1h"), "(5 bad / 100 valid) / 0.005 = 10");
    assert_eq!(line("page"), "burn 1h > 14.4 and burn 5m > 14.4 = does not hold");
    assert_eq!(line("remedy alert"), "on ticket = due");
    assert_eq!(line("status"), "budget consumed >= 100 % = exhausted");
    assert!(engine.explain("wrong", at(0)).is_err());
    let idle = Engine::new(slos(RIGHT)).unwrap().explain("right", at(0)).unwrap();
    assert!(idle.steps.iter().filter(|step| step.what.starts_with("burn")).all(|step| step.result == "no data"));
}

#[test]
fn a_period_of_a_day_scales_every_window() {
    let mut engine = engine(r#"[{"name": "right", "sli": "correctness", "objective": "99.5%", "period": "1d"}]"#);
    feed(&mut engine, Sli::Correctness, 50, 50, at(0));
    let status = &engine.status(at(0))[0];
    let seconds: Vec<f64> = status.burn.iter().map(|burn| burn.seconds).collect();
    assert_eq!(seconds, [10.0, 60.0, 120.0, 240.0, 720.0, 2_880.0, 8_640.0]);
    assert_eq!(status.page, AlertState::Firing);
    assert_eq!(engine.status(at(11_000))[0].page, AlertState::Firing, "6h and 30m still burn");
    assert_eq!(engine.status(at(63_000))[0].page, AlertState::Quiet);
}

#[test]
fn history_survives_a_restart_and_a_clock_set_back_meanwhile() {
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    feed(&mut engine, Sli::Safety, 10, 10, at(10 * DAY));
    let escape = Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::Critical);
    let _ = engine.record(&escape, at(10 * DAY));
    let verdicts = engine.evaluate(at(10 * DAY));
    assert!(verdicts.len() > 1);
    let stored = json::write(&engine.snapshot());
    let snapshot: EngineSnapshot = json::read(&stored).unwrap();

    let mut later = Engine::restore(vec![default_safety()], &snapshot, at(10 * DAY)).unwrap().engine;
    assert_eq!(later.status(at(10 * DAY)), engine.status(at(10 * DAY)));
    assert!(later.evaluate(at(10 * DAY)).is_empty(), "what was said before the restart is not said again");
    assert_eq!(later.in_force(), engine.in_force());

    let back = Engine::restore(vec![default_safety()], &snapshot, at(3 * DAY)).unwrap().engine;
    assert_eq!(back.status(at(3 * DAY))[0].events, engine.status(at(10 * DAY))[0].events);
    assert_eq!(back.clock_steps_back(), 1);
    assert_eq!(back.status(at(3 * DAY + 31 * DAY))[0].events.bad, 0, "and it ages from there");
}

#[test]
fn an_edited_period_or_objective_does_not_wash_a_budget_clean() {
    let text = |period: &str, objective: &str| {
        format!(r#"[{{"name": "right", "sli": "correctness", "objective": {objective}, "period": "{period}"}}]"#)
    };
    let mut engine = engine(&text("30d", "0.9"));
    feed(&mut engine, Sli::Correctness, 50, 50, at(0));
    let snapshot = engine.snapshot();
    for (period, objective) in [("30d", "0.8"), ("7d", "0.9"), ("90d", "0.9"), ("1h", "0.5")] {
        let restored = Engine::restore(slos(&text(period, objective)), &snapshot, at(1_000)).unwrap();
        assert!(restored.dropped.is_empty());
        let status = &restored.engine.status(at(1_000))[0];
        assert_eq!((status.events.bad, status.events.good), (50, 50), "{period} {objective}");
        assert_eq!(status.status, Status::Exhausted, "{period} {objective}");
    }
}

#[test]
fn histories_without_an_owner_are_reported() {
    let mut engine = engine(RIGHT);
    feed(&mut engine, Sli::Correctness, 1, 1, at(0));
    let snapshot = engine.snapshot();
    let renamed = slos(r#"[{"name": "correct", "sli": "correctness", "objective": 0.9}]"#);
    let restored = Engine::restore(renamed, &snapshot, at(0)).unwrap();
    assert_eq!(restored.dropped[0].reason, DropReason::Gone);
    let other = slos(r#"[{"name": "right", "sli": "availability", "objective": 0.9}]"#);
    let restored = Engine::restore(other, &snapshot, at(0)).unwrap();
    assert_eq!(restored.dropped[0].reason, DropReason::OtherSli);
    assert_eq!(restored.engine.status(at(0))[0].status, Status::Unknown);
}

#[test]
fn snapshots_that_no_run_can_have_written_are_refused() {
    let mut engine = engine(RIGHT);
    feed(&mut engine, Sli::Correctness, 1, 1, at(0));
    let good = json::write(&engine.snapshot());
    let last = at(0).as_millis().to_string();
    let future = at(DAY).as_millis().to_string();
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"bad\":1", "\"bad\":0"),
        ("\"claimed\":0", "\"claimed\":9"),
        (&format!("\"last_event\":{last}"), &format!("\"last_event\":{future}")),
        ("\"good\":1", "\"good\":18446744073709551615"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from} is not in {good}");
        let snapshot: EngineSnapshot = json::read(&changed).unwrap();
        let refused = Engine::restore(slos(RIGHT), &snapshot, at(0));
        assert!(refused.is_err(), "{from} -> {to}: {refused:?}");
    }
}

#[test]
fn a_quiet_engine_has_a_small_snapshot() {
    let mut engine = engine(RIGHT);
    for day in 0..3 {
        feed(&mut engine, Sli::Correctness, 10, 0, at(day * DAY));
    }
    let stored = json::write(&engine.snapshot());
    assert!(stored.len() < 3_000, "{} bytes", stored.len());
}

#[test]
fn hold_time_scales_with_the_period() {
    let slo = &slos(r#"[{"name": "right", "sli": "correctness", "objective": 0.9, "period": "1d"}]"#)[0];
    assert_eq!(remedies::RemedyState::hold(slo), Duration::from_secs(120));
}

#[test]
fn the_gravest_verdict_comes_first() {
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    feed(&mut engine, Sli::Safety, 0, 20, at(0));
    let _ = engine.record(&Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::Critical), at(0));
    let actions: Vec<Action> = engine.evaluate(at(0)).iter().map(|verdict| verdict.action).collect();
    assert_eq!(actions[0], Action::Kill);
    assert!(actions.iter().rev().is_sorted(), "{actions:?}");
}

#[test]
fn a_trip_lets_go_after_its_window_and_a_late_verdict_still_says_why() {
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    let escape = Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::Critical);
    let _ = engine.record(&escape, at(0));
    assert_eq!(engine.evaluate(at(0)).len(), 1);
    assert!(engine.evaluate(at(HOUR)).is_empty());
    assert_eq!(engine.in_force().len(), 1);
    assert!(engine.evaluate(at(HOUR + 1)).is_empty());
    assert_eq!(engine.in_force(), []);
    let _ = engine.record(&escape, at(2 * HOUR));
    let late = engine.evaluate(at(9 * HOUR));
    assert_eq!(asked(&late), [("trip".to_owned(), Action::Kill)]);
    assert!(late[0].reason.starts_with("a critical safety event"), "{}", late[0].reason);
}

#[test]
fn a_budget_remedy_lets_go_only_a_margin_above_its_limit() {
    let text = r#"[{"name": "right", "sli": "correctness", "objective": 0.9,
        "remedies": [{"on": "budget", "below": "50%", "action": "throttle"}]}]"#;
    let mut engine = engine(text);
    feed(&mut engine, Sli::Correctness, 48, 52, at(0));
    assert_eq!(engine.evaluate(at(0)).len(), 1);
    feed(&mut engine, Sli::Correctness, 1_000, 0, at(0));
    let left = engine.status(at(0))[0].budget_left().unwrap();
    assert!(left > 0.5 && left < 0.55, "{left}");
    for hour in 0..5 {
        let _ = engine.evaluate(at(hour * HOUR));
    }
    assert_eq!(engine.in_force().len(), 1);
    feed(&mut engine, Sli::Correctness, 200, 0, at(5 * HOUR));
    let _ = engine.evaluate(at(5 * HOUR));
    let _ = engine.evaluate(at(6 * HOUR));
    assert_eq!(engine.in_force(), []);
}

#[test]
fn grave_events_before_a_restart_count_after_it_and_settled_trips_stay_settled() {
    let high = Sample::safety(Outcome::Bad, ClassId::OTHER, Severity::High);
    let mut engine = Engine::new(vec![default_safety()]).unwrap();
    let _ = (engine.record(&high, at(0)), engine.record(&high, at(1)));
    let mut engine = Engine::restore(vec![default_safety()], &engine.snapshot(), at(2)).unwrap().engine;
    assert_eq!(engine.record(&high, at(3)), Recorded::Tripped, "two before the restart and one after");
    assert_eq!(engine.evaluate(at(4)).len(), 1);

    let other =
        r#"[{"name": "safety", "sli": "safety", "objective": 0.99, "remedies": [{"on": "trip", "action": "demote"}]}]"#;
    let mut engine = Engine::restore(slos(other), &engine.snapshot(), at(5)).unwrap().engine;
    assert!(engine.evaluate(at(6)).is_empty(), "a remedy that is new does not answer for the past");
}

#[test]
fn after_a_change_of_period_every_window_keeps_what_it_covers() {
    let text = |period: &str| {
        format!(r#"[{{"name": "right", "sli": "correctness", "objective": 0.9, "period": "{period}"}}]"#)
    };
    let mut engine = engine(&text("30d"));
    feed(&mut engine, Sli::Correctness, 10, 10, at(0));
    let now = at(20 * MINUTE);
    feed(&mut engine, Sli::Correctness, 20, 0, now);
    let restored = Engine::restore(slos(&text("90d")), &engine.snapshot(), now).unwrap().engine;
    let status = &restored.status(now)[0];
    assert_eq!(status.burn_over(LookBack::M5), Some(0.0), "5m are 15 minutes now");
    for longer in &LookBack::ALL[1..] {
        assert_eq!(status.burn_over(*longer), Some(2.5), "{longer}");
    }
}

#[test]
fn the_explanation_tells_what_is_in_force() {
    let mut engine = engine(RIGHT);
    feed(&mut engine, Sli::Correctness, 95, 5, at(0));
    let results = |engine: &Engine, now| -> Vec<String> {
        let steps = engine.explain("right", now).unwrap().steps;
        steps.into_iter().filter(|step| step.what.starts_with("remedy")).map(|step| step.result).collect()
    };
    assert_eq!(results(&engine, at(0)), ["due", "due", "due"]);
    let _ = engine.evaluate(at(0));
    assert_eq!(results(&engine, at(0)), ["in force"; 3]);
    feed(&mut engine, Sli::Correctness, 2_000, 0, at(DAY));
    let until = "in force until quiet for 1h and the budget has recovered";
    assert_eq!(results(&engine, at(DAY)), [until; 3]);
}
