#![allow(clippy::unwrap_used)]

use super::*;
use crate::json;
use crate::ratio::Ratio;
use crate::remedy::{Remedy, Trigger};
use crate::slo::{DEFAULT_MINIMUM_EVENTS, DEFAULT_PERIOD};

fn read(text: &str) -> SloSpec {
    json::read(text).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    resolve_one(&read(text)).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn three_lines_are_an_slo_and_the_rest_is_default() {
    let slo = resolve_one(&read(r#"{"name": "right", "sli": "correctness", "objective": 0.95}"#)).unwrap();
    assert_eq!(slo.period(), DEFAULT_PERIOD);
    assert_eq!(slo.minimum_events(), DEFAULT_MINIMUM_EVENTS);
    assert_eq!(slo.remedies(), Remedy::defaults(Sli::Correctness));
    assert_eq!(slo.trips(), None);
    assert!(slo.remedies().iter().all(|remedy| remedy.action == Action::Alert), "only safety takes power by default");
}

#[test]
fn every_field_is_taken_as_written() {
    let text = r#"{"name": "safe", "sli": "safety", "objective": "99.5%", "period": "1h30m", "minimum_events": 25,
        "remedies": [{"on": "budget", "below": "20%", "action": "throttle"}, {"on": "trip", "action": "quarantine"}],
        "trips": {"high": 5, "window": "10m"}}"#;
    let slo = resolve_one(&read(text)).unwrap();
    assert_eq!(slo.objective().allowed().ppb(), 5_000_000);
    assert_eq!(slo.period(), Duration::from_secs(5_400));
    assert_eq!(slo.minimum_events(), 25);
    assert_eq!(slo.trips(), Some(Trips { high: 5, window: Duration::from_secs(600) }));
    let budget = Remedy { on: Trigger::Budget(Ratio::percent(20)), action: Action::Throttle };
    assert_eq!(slo.remedies(), [budget, Remedy { on: Trigger::Trip, action: Action::Quarantine }]);
}

#[test]
fn percent_and_number_mean_the_same_share() {
    for (text, ppb) in [("\"99.9%\"", 999_000_000), ("0.999", 999_000_000), ("\"0 %\"", 0), ("0", 0)] {
        let Share(value) = json::read(text).unwrap();
        assert_eq!(Ratio::new(value).unwrap().ppb(), ppb, "{text}");
    }
    assert!(json::read::<Share>("\"0.5\"").is_err(), "a string without % is a slip of the pen");
    assert!(json::read::<Share>("\"most\"").is_err());
}

#[test]
fn an_unknown_key_is_refused_at_every_level() {
    for text in [
        r#"{"name": "a", "sli": "safety", "objective": 0.9, "perod": "1d"}"#,
        r#"{"name": "a", "sli": "safety", "objective": 0.9, "trips": {"hgih": 3}}"#,
        r#"{"name": "a", "sli": "safety", "objective": 0.9, "remedies": [{"on": "page", "action": "kill", "belw": 0.2}]}"#,
    ] {
        let error = json::read::<SloSpec>(text).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn bare_numbers_are_no_durations() {
    for period in ["30", "\"30\"", "\"soon\"", "\"-1d\""] {
        let text = format!(r#"{{"name": "a", "sli": "safety", "objective": 0.9, "period": {period}}}"#);
        assert!(json::read::<SloSpec>(&text).is_err(), "{period}");
    }
}

#[test]
fn all_that_is_wrong_is_reported_at_once_with_its_path() {
    let text = r#"{"name": "Not a name", "sli": "latency", "objective": 1, "period": "1s", "minimum_events": 0,
        "threshold": 3, "trips": {"high": 0},
        "remedies": [{"on": "budget", "action": "kill"}, {"on": "page", "below": 0.2, "action": "kill"},
                     {"on": "trip", "action": "kill"}, {"on": "page", "action": "kill"},
                     {"on": "budget", "below": "120%", "action": "kill"}, {"on": "budget", "below": 0, "action": "kill"}]}"#;
    assert_eq!(
        problems(text),
        [
            "0.name: \"Not a name\" is not a name: 1 to 63 lowercase letters, digits, `-` or `_`, starting with a letter",
            "0.objective: 1 leaves no error budget: an objective is at least 0 and below 1, such as 0.995 or 99.5%",
            "0.period: 1s is out of range: 1m to 366d",
            "0.minimum_events: 0 is out of range: 1 to 1000000",
            "0.threshold: latency has a threshold of another kind, such as `threshold: 2s`",
            "0.trips: latency has no trips: only safety has",
            "0.remedies.0.below: `on: budget` needs `below`, such as `below: 20%`",
            "0.remedies.1.below: `below` belongs to `on: budget` only",
            "0.remedies.2.on: latency has no trips: only safety has",
            "0.remedies.3: the same trigger and action stand in the list already",
            "0.remedies.4.below: 1.2 is no share: above 0 and at most 1, such as 0.2 or 20%",
            "0.remedies.5.below: 0 is no share: above 0 and at most 1, such as 0.2 or 20%",
        ]
    );
}

#[test]
fn objectives_of_one_or_more_are_refused_and_just_below_one_are_not() {
    for (objective, accepted) in [
        ("1", false),
        ("1.5", false),
        ("99.5", false),
        ("-0.1", false),
        ("\"100%\"", false),
        ("0", true),
        ("0.99999", true),
    ] {
        let text = format!(r#"{{"name": "a", "sli": "availability", "objective": {objective}}}"#);
        assert_eq!(resolve_one(&read(&text)).is_ok(), accepted, "{objective}");
    }
    let mut spec = read(r#"{"name": "a", "sli": "availability", "objective": 0.5}"#);
    for nonsense in [f64::NAN, f64::INFINITY] {
        spec.objective = Share(nonsense);
        assert!(resolve_one(&spec).is_err(), "{nonsense}");
    }
}

#[test]
fn thresholds_fit_their_indicator() {
    for (sli, threshold, accepted) in [
        ("latency", Some("\"2s\""), true),
        ("latency", Some("2"), false),
        ("latency", Some("\"0s\""), false),
        ("latency", None, false),
        ("cost", Some("0.05"), true),
        ("cost", Some("\"2s\""), false),
        ("cost", Some("-1"), false),
        ("cost", None, false),
        ("throughput", Some("10"), true),
        ("throughput", None, true),
        ("correctness", Some("0.5"), false),
    ] {
        let threshold_text = threshold.map_or_else(String::new, |text| format!(r#", "threshold": {text}"#));
        let text = format!(r#"{{"name": "a", "sli": "{sli}", "objective": 0.9{threshold_text}}}"#);
        assert_eq!(resolve_one(&read(&text)).is_ok(), accepted, "{text}");
    }
}

#[test]
fn names_are_unique_and_slos_are_bounded() {
    let spec = read(r#"{"name": "a", "sli": "availability", "objective": 0.9}"#);
    let errors = resolve(&[spec.clone(), spec.clone()]).unwrap_err();
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["1.name: another SLO is named \"a\" already"]
    );
    let many: Vec<SloSpec> = (0..33).map(|index| SloSpec { name: format!("a{index}"), ..spec.clone() }).collect();
    assert!(matches!(resolve(&many).unwrap_err()[0].problem, Problem::TooMany { count: 33, limit: 32 }));
    assert!(resolve(&many[..32]).is_ok());
}

#[test]
fn a_safety_slo_that_names_no_trip_remedy_still_kills_on_a_trip() {
    let text = r#"{"name": "s", "sli": "safety", "objective": 0.9, "remedies": []}"#;
    assert_eq!(resolve_one(&read(text)).unwrap().remedies(), [Remedy::TRIP]);
    let text = r#"{"name": "s", "sli": "safety", "objective": 0.9, "remedies": [{"on": "trip", "action": "demote"}]}"#;
    assert_eq!(resolve_one(&read(text)).unwrap().remedies().len(), 1);
}

#[test]
fn the_default_safety_slo_may_demote_break_and_kill() {
    let slo = default_safety();
    let actions: BTreeSet<Action> = slo.remedies().iter().map(|remedy| remedy.action).collect();
    assert!([Action::Demote, Action::Break, Action::Kill].iter().all(|action| actions.contains(action)));
    assert_eq!(slo.trips(), Some(Trips::default()));
}

#[test]
fn what_is_written_is_read_again() {
    let text = r#"{"name": "x", "sli": "latency", "objective": "99%", "period": "7d", "threshold": "1m30s",
        "minimum_events": 3, "remedies": [{"on": "budget", "below": 0.5, "action": "alert"}]}"#;
    let spec = read(text);
    assert_eq!(read(&json::write(&spec)), spec);
    let text = r#"{"name": "x", "sli": "safety", "objective": 0.5, "trips": {"window": "90s"}}"#;
    let spec = read(text);
    assert_eq!(spec.trips, Some(TripsSpec { high: 3, window: Duration::from_secs(90) }));
    assert_eq!(read(&json::write(&spec)), spec);
}

#[test]
fn the_schema_refuses_unknown_keys_and_knows_every_indicator() {
    let schema = schemars::schema_for!(SloSpec);
    assert_eq!(schema.get("additionalProperties").and_then(|value| value.as_bool()), Some(false));
    let text = json::write(&schema);
    for sli in Sli::ALL {
        assert!(text.contains(&format!("\"{sli}\"")), "{sli} is missing in {text}");
    }
}
