#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::json;

const START: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 86_400_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn score(score: u16) -> Score {
    Score::new(score).unwrap()
}

fn trust(start: Score) -> Trust {
    Trust::new(start, TrustPolicy::default(), at(0)).unwrap()
}

fn succeed(trust: &mut Trust, times: u32, now: Timestamp) {
    for _ in 0..times {
        let _ = trust.success(Evidence::Supervisor, now);
    }
}

#[test]
fn tiers_cover_every_score() {
    for (points, tier) in [
        (1000, Tier::Verified),
        (900, Tier::Verified),
        (899, Tier::Trusted),
        (700, Tier::Trusted),
        (699, Tier::Standard),
        (500, Tier::Standard),
        (499, Tier::Probationary),
        (300, Tier::Probationary),
        (299, Tier::Untrusted),
        (0, Tier::Untrusted),
    ] {
        assert_eq!(score(points).tier(), tier, "{points}");
    }
    assert_eq!(Score::new(1001), None);
}

#[test]
fn a_vouched_identity_keeps_its_score_through_years_of_silence() {
    let trust = trust(Score::VOUCHED);
    assert_eq!(trust.score(at(0)), score(700));
    assert_eq!(trust.score(at(3_650 * DAY_MS)), score(700));
}

#[test]
fn what_was_earned_halves_in_a_week_and_the_baseline_stays() {
    let mut trust = trust(score(600));
    trust.policy.gain_per_day = 1000.0;
    trust.gain_left = 1000.0;
    trust.policy.earned_most = 400;
    succeed(&mut trust, 1_000, at(0));
    assert_eq!(trust.score(at(0)), score(997), "ever smaller steps towards 1000");
    trust.points = 1000.0;
    assert_eq!(trust.score(at(7 * DAY_MS)), score(800));
    assert_eq!(trust.score(at(14 * DAY_MS)), score(700));
    assert_eq!(trust.score(at(700 * DAY_MS)), score(600));
}

#[test]
fn steps_diminish() {
    let mut trust = trust(Score::VOUCHED);
    let mut last = f64::INFINITY;
    for _ in 0..20 {
        let before = trust.points;
        succeed(&mut trust, 1, at(0));
        let step = trust.points - before;
        assert!(step > 0.0 && step < last);
        last = step;
    }
}

#[test]
fn a_flood_of_successes_earns_one_days_worth() {
    let mut trust = trust(Score::VOUCHED);
    succeed(&mut trust, 1_000_000, at(0));
    assert_eq!(trust.score(at(0)), score(725));
    succeed(&mut trust, 1_000, at(DAY_MS / 5));
    assert!(trust.score(at(DAY_MS / 5)) <= score(730));
}

#[test]
fn successes_alone_never_reach_what_an_operator_must_grant() {
    for (start, most) in [(Score::UNKNOWN, 599), (Score::VOUCHED, 799), (score(950), 1000)] {
        let mut trust = trust(start);
        for hour in 0..24 * 365 {
            succeed(&mut trust, 50, at(hour * DAY_MS / 24));
        }
        assert!(trust.score(at(365 * DAY_MS)) <= score(most), "{start}");
    }
}

#[test]
fn violations_cut_by_severity_and_only_they_go_below_the_baseline() {
    for (severity, after) in
        [(Severity::Low, 690), (Severity::Medium, 650), (Severity::High, 550), (Severity::Critical, 200)]
    {
        let mut trust = trust(Score::VOUCHED);
        assert_eq!(trust.violation(severity, at(0)), Changed { before: score(700), after: score(after) });
        assert_eq!(trust.score(at(365 * DAY_MS)), score(after), "silence heals nothing");
    }
    let mut trust = trust(score(100));
    assert_eq!(trust.violation(Severity::Critical, at(0)).after, Score::LEAST);
}

#[test]
fn own_praise_changes_nothing_and_is_counted() {
    let mut talking = trust(Score::VOUCHED);
    succeed(&mut talking, 100, at(0));
    let mut silent = talking.clone();
    for day in 0..30 {
        let _ = talking.success(Evidence::SelfReported, at(day * DAY_MS));
    }
    assert_eq!(talking.score(at(30 * DAY_MS)), silent.score(at(30 * DAY_MS)));
    assert_eq!((talking.own_praise(), talking.successes()), (30, 100));
    silent.own_praise = 30;
    assert_eq!(talking, silent);
}

#[test]
fn a_child_never_has_more_than_its_parent() {
    let child = trust(score(900));
    assert_eq!(child.score_under(score(650), at(0)), score(650));
    assert_eq!(child.score_under(score(950), at(0)), score(900));
}

#[test]
fn an_operators_word_sets_score_and_baseline() {
    let mut trust = trust(Score::UNKNOWN);
    assert_eq!(trust.set(score(850), at(0)), Changed { before: score(500), after: score(850) });
    assert_eq!(trust.score(at(365 * DAY_MS)), score(850));
    let _ = trust.set(score(300), at(365 * DAY_MS));
    assert_eq!(trust.score(at(730 * DAY_MS)), score(300));
}

#[test]
fn a_clock_set_back_neither_decays_nor_restores() {
    let mut trust = trust(Score::VOUCHED);
    succeed(&mut trust, 100, at(10 * DAY_MS));
    let now = trust.score(at(10 * DAY_MS));
    assert_eq!(trust.score(at(0)), now);
    let _ = trust.violation(Severity::Low, at(0));
    assert_eq!(trust.score(at(0)).get(), now.get() - 10);
    assert_eq!(trust.clock_steps_back(), 1);
}

#[test]
fn policies_that_contradict_themselves_are_refused() {
    let good = TrustPolicy::default();
    for bad in [
        TrustPolicy { half_life: Duration::ZERO, ..good },
        TrustPolicy { success_step: f64::NAN, ..good },
        TrustPolicy { success_step: -1.0, ..good },
        TrustPolicy { gain_per_day: f64::INFINITY, ..good },
        TrustPolicy { cuts: [50, 10, 100, 500], ..good },
    ] {
        assert!(Trust::new(Score::UNKNOWN, bad, at(0)).is_err(), "{bad:?}");
    }
}

#[test]
fn a_restart_neither_refills_the_days_allowance_nor_stops_the_decay() {
    let mut trust = trust(Score::VOUCHED);
    succeed(&mut trust, 1_000, at(0));
    let policy = TrustPolicy::default();
    let mut restored = Trust::restore(policy, &trust.snapshot(), at(0)).unwrap();
    succeed(&mut restored, 1_000, at(0));
    assert_eq!(restored.score(at(0)), score(725));
    let much_later = Trust::restore(policy, &trust.snapshot(), at(7 * DAY_MS)).unwrap();
    assert_eq!(much_later.score(at(7 * DAY_MS)), score(712), "the time while it was down is silence too");
}

#[test]
fn damaged_snapshots_are_refused() {
    let stored = json::write(&trust(Score::VOUCHED).snapshot());
    for (from, to) in [
        ("\"version\":1", "\"version\":0"),
        ("\"points\":700.0", "\"points\":1e9"),
        ("\"gain_left\":25.0", "\"gain_left\":-1.0"),
        (&format!("\"at\":{START}"), &format!("\"at\":{}", START + 1)),
    ] {
        let changed = stored.replacen(from, to, 1);
        assert_ne!(changed, stored, "{from}");
        let snapshot = json::read(&changed).unwrap();
        assert!(Trust::restore(TrustPolicy::default(), &snapshot, at(0)).is_err(), "{to}");
    }
    assert!(json::read::<TrustSnapshot>(&stored.replacen("\"baseline\":700", "\"baseline\":1001", 1)).is_err());
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Success(Evidence),
    Violation(Severity, Evidence),
    Set(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let evidence = || prop::sample::select(vec![Evidence::SelfReported, Evidence::Supervisor]);
    let severity = prop::sample::select(vec![Severity::Low, Severity::Medium, Severity::High, Severity::Critical]);
    prop_oneof![
        8 => evidence().prop_map(Act::Success),
        3 => (severity, evidence()).prop_map(|(severity, evidence)| Act::Violation(severity, evidence)),
        1 => (0u16..=1000).prop_map(Act::Set),
    ]
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    prop::collection::vec((prop_oneof![0u64..1_000, 0u64..3 * DAY_MS], act()), 0..200)
}

fn perform(trust: &mut Trust, act: Act, now: Timestamp) -> Changed {
    match act {
        Act::Success(evidence) => trust.success(evidence, now),
        Act::Violation(severity, _) => trust.violation(severity, now),
        Act::Set(points) => trust.set(score(points), now),
    }
}

#[test]
fn a_lowered_score_counts_until_it_is_given_back_and_the_baseline_never_moves() {
    let mut trust = trust(Score::VOUCHED);
    assert_eq!(trust.lower(score(300), at(0)), Changed { before: score(700), after: score(300) });
    assert_eq!((trust.own_score(at(0)), trust.baseline()), (Some(score(700)), score(700)));
    assert_eq!(trust.violation(Severity::Medium, at(1)), Changed { before: score(300), after: score(250) });
    assert_eq!(trust.give_back(at(2)), Changed { before: score(250), after: score(650) });
    assert_eq!((trust.own_score(at(2)), trust.baseline()), (None, score(700)));
    assert_eq!(trust.give_back(at(3)).after, score(650), "a second time gives nothing");
}

#[test]
fn lowering_never_raises() {
    let mut low = trust(score(200));
    assert_eq!(low.lower(score(300), at(0)), Changed { before: score(200), after: score(200) });
    assert_eq!(low.own_score(at(0)), None);
    let mut twice = trust(Score::VOUCHED);
    let _ = twice.lower(score(100), at(0));
    assert_eq!(twice.lower(score(400), at(0)).after, score(100), "the lower of two stays");
}

#[test]
fn a_lowered_score_does_not_outlive_whoever_lowered_it() {
    let mut trust = trust(Score::VOUCHED);
    let _ = trust.lower(score(0), at(0));
    let restored = Trust::restore(TrustPolicy::default(), &trust.snapshot(), at(0)).unwrap();
    assert_eq!((restored.score(at(0)), restored.own_score(at(0))), (score(700), None));
}

proptest! {
    #[test]
    fn what_was_earned_and_lost_meanwhile_is_all_that_a_lowering_leaves(
        start in 0u16..=1000, to in 0u16..=1000, acts in acts(), from in 0usize..200, until in 0usize..200,
    ) {
        let (mut tampered, mut twin) = (trust(score(start)), trust(score(start)));
        let mut now = 0;
        for (index, (wait, act)) in acts.into_iter().enumerate() {
            now += wait;
            if index == from {
                let before = tampered.score(at(now));
                prop_assert_eq!(tampered.lower(score(to), at(now)).after, before.min(score(to)));
            }
            if index == until {
                let _ = tampered.give_back(at(now));
            }
            let _ = perform(&mut tampered, act, at(now));
            let _ = perform(&mut twin, act, at(now));
            prop_assert!(tampered.score(at(now)) <= twin.score(at(now)));
        }
        let _ = tampered.give_back(at(now));
        // An extra settling on the way may differ in the last bits of the points.
        prop_assert!((tampered.points_at(at(now)) - twin.points_at(at(now))).abs() < 1e-6);
        prop_assert_eq!(tampered.baseline(), twin.baseline());
    }

    #[test]
    fn scores_stay_within_bounds_and_move_only_as_they_may(start in 0u16..=1000, acts in acts()) {
        let mut trust = trust(score(start));
        let mut now = 0;
        for (wait, act) in acts {
            let rest = trust.score(at(now)).min(trust.baseline());
            now += wait;
            let decayed = trust.score(at(now));
            prop_assert!(decayed >= rest, "silence went below the baseline");
            let changed = perform(&mut trust, act, at(now));
            prop_assert_eq!(changed.before, decayed);
            prop_assert_eq!(changed.after, trust.score(at(now)));
            match act {
                Act::Success(Evidence::SelfReported) => prop_assert_eq!(changed.after, changed.before),
                Act::Success(_) => prop_assert!(changed.after >= changed.before),
                Act::Violation(..) => prop_assert!(changed.after < changed.before || changed.before == Score::LEAST),
                Act::Set(points) => prop_assert_eq!(changed.after.get(), points),
            }
            prop_assert!((0.0..=1000.0).contains(&trust.points));
        }
    }

    #[test]
    fn nothing_an_agent_says_about_itself_raises_its_score(start in 0u16..=1000, acts in acts()) {
        let (mut silent, mut talking) = (trust(score(start)), trust(score(start)));
        let mut now = 0;
        for (wait, act) in acts {
            now += wait;
            let _ = perform(&mut talking, act, at(now));
            let own_word = matches!(act, Act::Success(Evidence::SelfReported) | Act::Violation(_, Evidence::SelfReported));
            if !own_word {
                let _ = perform(&mut silent, act, at(now));
            }
            // Two roads to one score may differ in the last bits of their points.
            prop_assert!(talking.points_at(at(now)) <= silent.points_at(at(now)) + 1e-9);
        }
    }

    #[test]
    fn asking_often_gives_the_same_score_as_asking_once(start in 0u16..=1000, acts in acts(), cut in 0usize..200) {
        let mut kept = trust(score(start));
        let mut asked = kept.clone();
        let mut now = 0;
        for (index, (wait, act)) in acts.into_iter().enumerate() {
            for step in 0..5 {
                let _ = asked.score(at(now + wait * step / 5));
            }
            now += wait;
            if index == cut {
                let stored = json::write(&asked.snapshot());
                let policy = TrustPolicy::default();
                asked = Trust::restore(policy, &json::read(&stored).unwrap(), at(now)).unwrap();
            }
            prop_assert_eq!(perform(&mut kept, act, at(now)), perform(&mut asked, act, at(now)));
        }
    }
}
