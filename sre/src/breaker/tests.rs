#![allow(clippy::unwrap_used)]

use super::*;
use crate::json;
use crate::ratio::Ratio;

const QUICK: Duration = Duration::from_millis(10);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

/// Opens at 2 of 4 failed, for 10 s then 20 s up to 40 s, and closes after two good probes.
fn settings() -> BreakerSettings {
    BreakerSettings {
        window: CallWindow::Calls(4),
        minimum_calls: 4,
        open_for: Duration::from_secs(10),
        open_for_most: Duration::from_secs(40),
        probes: 2,
        ..BreakerSettings::default()
    }
}

fn breaker() -> Breaker {
    Breaker::new(settings()).unwrap()
}

fn call(breaker: &mut Breaker, outcome: CallOutcome, now: Timestamp) -> Finished {
    let permit = breaker.acquire(now).unwrap();
    breaker.finish(permit, outcome, QUICK, now, Jitter::NONE)
}

fn opened(now: Timestamp) -> Breaker {
    let mut breaker = breaker();
    for _ in 0..3 {
        assert_eq!(call(&mut breaker, CallOutcome::Failed, now), Finished::Counted);
    }
    assert!(matches!(call(&mut breaker, CallOutcome::Failed, now), Finished::Opened { .. }));
    breaker
}

#[test]
fn it_opens_at_the_limit_and_not_before_the_minimum() {
    let mut breaker = breaker();
    for outcome in [CallOutcome::Failed, CallOutcome::Failed, CallOutcome::Ok] {
        assert_eq!(call(&mut breaker, outcome, at(0)), Finished::Counted, "three calls are too few");
    }
    assert_eq!(call(&mut breaker, CallOutcome::Ok, at(0)), Finished::Opened { until: at(10) }, "2 of 4 is 50 %");
    let refused = breaker.acquire(at(4)).unwrap_err();
    assert_eq!(
        refused,
        Refused { state: BreakerState::Open { until: at(10) }, retry_after: Some(Duration::from_secs(6)) }
    );
    assert_eq!(breaker.opened_total(), 1);
}

#[test]
fn old_calls_leave_a_count_window() {
    let mut breaker = breaker();
    let _ = call(&mut breaker, CallOutcome::Failed, at(0));
    for _ in 0..4 {
        let _ = call(&mut breaker, CallOutcome::Ok, at(0));
    }
    assert_eq!(call(&mut breaker, CallOutcome::Failed, at(0)), Finished::Counted, "1 of the last 4");
    assert_eq!(breaker.rates(at(0)), Rates { calls: 4, failed: 1, slow: 0 });
}

#[test]
fn old_calls_leave_a_time_window() {
    let window = CallWindow::Time(Duration::from_secs(60));
    let mut breaker = Breaker::new(BreakerSettings { window, ..settings() }).unwrap();
    for _ in 0..3 {
        let _ = call(&mut breaker, CallOutcome::Failed, at(0));
    }
    assert_eq!(call(&mut breaker, CallOutcome::Failed, at(90)), Finished::Counted);
    assert_eq!(breaker.rates(at(90)).calls, 1);
}

#[test]
fn slow_calls_open_it_though_none_fails() {
    let slow = SlowCalls { longer_than: Duration::from_secs(2), rate: Ratio::percent(75) };
    let mut breaker = Breaker::new(BreakerSettings { slow_calls: Some(slow), ..settings() }).unwrap();
    let mut last = Finished::Counted;
    for took in [2_000, 2_000, 2_001, 5_000, 5_000] {
        assert_eq!(last, Finished::Counted, "before {took} ms: a call at the limit is not slow");
        let permit = breaker.acquire(at(0)).unwrap();
        last = breaker.finish(permit, CallOutcome::Ok, Duration::from_millis(took), at(0), Jitter::NONE);
    }
    assert_eq!(last, Finished::Opened { until: at(10) });
}

#[test]
fn it_becomes_half_open_by_time_alone() {
    let breaker = opened(at(0));
    assert_eq!(breaker.state(at(9)), BreakerState::Open { until: at(10) });
    assert_eq!(breaker.state(at(10)), BreakerState::HalfOpen);
}

#[test]
fn only_so_many_probes_pass_and_good_ones_close_it() {
    let mut breaker = opened(at(0));
    let first = breaker.acquire(at(10)).unwrap();
    let second = breaker.acquire(at(10)).unwrap();
    assert!(first.is_probe());
    let refused = breaker.acquire(at(10)).unwrap_err();
    assert_eq!(refused.state, BreakerState::HalfOpen);
    assert_eq!(breaker.finish(first, CallOutcome::Ok, QUICK, at(11), Jitter::NONE), Finished::Counted);
    assert!(breaker.acquire(at(11)).is_err(), "one is in, one is out: that is both");
    assert_eq!(breaker.finish(second, CallOutcome::Ok, QUICK, at(11), Jitter::NONE), Finished::Closed);
    assert_eq!(breaker.state(at(11)), BreakerState::Closed);
    assert_eq!(breaker.rates(at(11)).calls, 0, "it starts with a clean window");
}

#[test]
fn a_dropped_probe_gives_its_slot_back() {
    let mut breaker = opened(at(0));
    for _ in 0..100 {
        drop(breaker.acquire(at(10)).unwrap());
    }
    let _held = (breaker.acquire(at(10)).unwrap(), breaker.acquire(at(10)).unwrap());
    assert!(breaker.acquire(at(10)).is_err());
}

#[test]
fn bad_probes_open_it_again_for_longer_up_to_the_most() {
    let mut breaker = opened(at(0));
    let mut now = 10;
    for wait in [20, 40, 40] {
        let permit = breaker.acquire(at(now)).unwrap();
        let finished = breaker.finish(permit, CallOutcome::Failed, QUICK, at(now), Jitter::NONE);
        assert_eq!(finished, Finished::Opened { until: at(now + wait) }, "1 of 2 can't come out well any more");
        now += wait;
    }
}

#[test]
fn a_probe_that_never_comes_back_opens_it_again() {
    let mut breaker = opened(at(0));
    let hung = (breaker.acquire(at(10)).unwrap(), breaker.acquire(at(20)).unwrap());
    assert_eq!(breaker.acquire(at(79)).unwrap_err().retry_after, Some(Duration::from_secs(1)));
    let refused = breaker.acquire(at(80)).unwrap_err();
    assert_eq!(refused.state, BreakerState::Open { until: at(100) });
    let late = breaker.finish(hung.0, CallOutcome::Ok, QUICK, at(101), Jitter::NONE);
    assert_eq!(late, Finished::Ignored);
    assert!(breaker.acquire(at(101)).is_ok());
}

#[test]
fn results_of_an_older_generation_are_ignored() {
    let mut breaker = breaker();
    let from_before = breaker.acquire(at(0)).unwrap();
    let also = breaker.acquire(at(0)).unwrap();
    for _ in 0..4 {
        let _ = call(&mut breaker, CallOutcome::Failed, at(0));
    }
    assert_eq!(breaker.finish(from_before, CallOutcome::Ok, QUICK, at(1), Jitter::NONE), Finished::Ignored);
    let probe = breaker.acquire(at(10)).unwrap();
    assert_eq!(breaker.finish(also, CallOutcome::Failed, QUICK, at(10), Jitter::NONE), Finished::Ignored);
    assert_eq!(breaker.finish(probe, CallOutcome::Ok, QUICK, at(10), Jitter::NONE), Finished::Counted);
    assert_eq!(breaker.ignored_total(), 2);
}

#[test]
fn a_relapse_goes_on_with_the_backoff_and_a_lasting_recovery_ends_it() {
    let recover = |breaker: &mut Breaker, now| {
        assert_eq!(call(breaker, CallOutcome::Ok, now), Finished::Counted);
        assert_eq!(call(breaker, CallOutcome::Ok, now), Finished::Closed);
    };
    let mut breaker = opened(at(0));
    recover(&mut breaker, at(10));
    assert_eq!(breaker.trip(at(15), Jitter::NONE), Some(at(35)), "well for 5 s after 10 s open: no recovery");
    recover(&mut breaker, at(35));
    assert_eq!(breaker.trip(at(55), Jitter::NONE), Some(at(65)), "well for 20 s after 20 s open");
}

#[test]
fn a_trip_opens_it_at_once_and_never_shortens_what_is_open() {
    let mut breaker = breaker();
    assert_eq!(breaker.trip(at(0), Jitter::NONE), Some(at(10)));
    assert_eq!(breaker.trip(at(1), Jitter::NONE), Some(at(21)), "a second one for longer");
    let mut jittered =
        Breaker::new(BreakerSettings { jitter: Ratio::ONE, open_for_most: Duration::from_secs(10), ..settings() })
            .unwrap();
    assert_eq!(jittered.trip(at(0), Jitter::new(1.0)), Some(at(20)));
    assert_eq!(jittered.trip(at(1), Jitter::NONE), Some(at(20)));
}

#[test]
fn operators_stand_above_time_results_and_trips() {
    let mut breaker = breaker();
    breaker.force_open();
    assert_eq!(breaker.acquire(at(1_000_000)).unwrap_err().retry_after, None);
    assert_eq!(breaker.trip(at(0), Jitter::NONE), None);
    assert_eq!(breaker.state(at(0)), BreakerState::ForcedOpen);
    breaker.disable();
    for _ in 0..20 {
        assert_eq!(call(&mut breaker, CallOutcome::Failed, at(0)), Finished::Ignored);
    }
    assert_eq!(breaker.trip(at(0), Jitter::NONE), None);
    breaker.reset();
    assert_eq!(breaker.state(at(0)), BreakerState::Closed);
}

#[test]
fn it_survives_a_restart_in_every_state() {
    let again = |breaker: &Breaker, now| {
        let stored = json::write(&breaker.snapshot());
        Breaker::restore(settings(), &json::read(&stored).unwrap(), now).unwrap()
    };
    let mut closed = breaker();
    for outcome in [CallOutcome::Failed, CallOutcome::Failed, CallOutcome::Ok] {
        let _ = call(&mut closed, outcome, at(0));
    }
    let mut restored = again(&closed, at(5));
    assert!(matches!(call(&mut restored, CallOutcome::Ok, at(5)), Finished::Opened { .. }), "its window came along");

    let open = opened(at(0));
    assert_eq!(again(&open, at(5)).state(at(5)), BreakerState::Open { until: at(10) });
    assert_eq!(again(&open, at(12)).state(at(12)), BreakerState::HalfOpen, "time passed while it was down");

    let mut half_open = opened(at(0));
    let _lost = (half_open.acquire(at(10)).unwrap(), half_open.acquire(at(10)).unwrap());
    let mut restored = again(&half_open, at(11));
    assert!(restored.acquire(at(11)).is_ok(), "permits that died with the process hold no slot");
    let finished = call(&mut restored, CallOutcome::Failed, at(11));
    assert_eq!(finished, Finished::Opened { until: at(31) }, "and the backoff goes on");

    let mut forced = breaker();
    forced.force_open();
    assert_eq!(again(&forced, at(0)).state(at(0)), BreakerState::ForcedOpen);
    forced.disable();
    assert_eq!(again(&forced, at(0)).state(at(0)), BreakerState::Disabled);
}

#[test]
fn a_clock_set_back_does_not_keep_it_open() {
    let open = opened(at(1_000_000));
    let mut restored = Breaker::restore(settings(), &open.snapshot(), at(0)).unwrap();
    assert!(matches!(restored.state(at(0)), BreakerState::Open { .. }));
    assert_eq!(restored.state(at(10)), BreakerState::HalfOpen, "ten seconds are ten seconds");
    assert!(restored.acquire(at(10)).is_ok());
}

#[test]
fn a_time_window_with_calls_that_never_were_is_refused() {
    let settings = BreakerSettings { window: CallWindow::Time(Duration::from_secs(60)), ..settings() };
    let mut breaker = Breaker::new(settings.clone()).unwrap();
    let _ = call(&mut breaker, CallOutcome::Failed, at(0));
    let stored = json::write(&breaker.snapshot());
    assert!(Breaker::restore(settings.clone(), &json::read(&stored).unwrap(), at(0)).is_ok());
    let more_failed_than_made = stored.replacen("\"failed\":1", "\"failed\":2", 1);
    assert_ne!(more_failed_than_made, stored);
    assert!(Breaker::restore(settings, &json::read(&more_failed_than_made).unwrap(), at(0)).is_err());
}

#[test]
fn damaged_snapshots_are_refused_or_bounded() {
    let stored = json::write(&opened(at(0)).snapshot());
    let other = stored.replacen("\"version\":1", "\"version\":7", 1);
    let refused = Breaker::restore(settings(), &json::read(&other).unwrap(), at(0)).unwrap_err();
    assert_eq!(refused, Error::SnapshotVersion { what: "breaker", found: 7, supported: 1 });
    let until = at(10).as_millis().to_string();
    let endless = stored.replacen(&until, "18446744073709551615", 1);
    assert_ne!(endless, stored);
    let breaker = Breaker::restore(settings(), &json::read(&endless).unwrap(), at(0)).unwrap();
    assert_eq!(breaker.state(at(60)), BreakerState::HalfOpen, "no time keeps it open longer than settings can");
}
