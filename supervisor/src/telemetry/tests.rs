#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use super::*;

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn cpu(usec: u64) -> Usage {
    Usage { cpu_usec: Some(usec), ..Usage::default() }
}

#[test]
fn counters_of_an_agent_begin_at_zero_with_every_cause() {
    let telemetry = Telemetry::new();
    telemetry.launching("a");
    let text = telemetry.render();
    for cause in state::CAUSES {
        assert_eq!(
            value(&text, &format!("agt_agent_deaths_total{{agent=\"a\",cause=\"{cause}\"}}")),
            Some(0.0),
            "{text}"
        );
    }
    assert_eq!(value(&text, "agt_agent_restarts_total{agent=\"a\"}"), Some(0.0));
}

#[test]
fn a_death_counts_once_for_each_life() {
    let telemetry = Telemetry::new();
    let killed = |text: &str| value(text, "agt_agent_deaths_total{agent=\"a\",cause=\"killed\"}");
    telemetry.died("a", "killed");
    assert_eq!(killed(&telemetry.render()), Some(0.0), "it had no life");
    telemetry.launching("a");
    telemetry.launched("a", Ring::R2);
    telemetry.died("a", "killed");
    telemetry.died("a", "killed");
    assert_eq!(killed(&telemetry.render()), Some(1.0));
    assert_eq!(value(&telemetry.render(), "agt_launch_seconds_count{ring=\"2\"}"), Some(1.0));
}

#[test]
fn denials_are_counted_by_kind_from_zero_on() {
    let telemetry = Telemetry::new();
    telemetry.launching("a");
    telemetry.denied("a", Class::Mounts, 40);
    telemetry.denied("a", Class::Mounts, 2);
    let text = telemetry.render();
    for class in Class::ALL {
        let series = format!("agt_denials_total{{agent=\"a\",class=\"{}\"}}", class.word());
        assert_eq!(value(&text, &series), Some(if class == Class::Mounts { 42.0 } else { 0.0 }), "{text}");
    }
}

#[test]
fn used_time_never_goes_back_over_lives_and_late_readings() {
    let telemetry = Telemetry::new();
    let total = |life, usec: Option<u64>| {
        telemetry.total_used("a", life, usec.map(cpu).as_ref()).unwrap().get(super::life::Counted::CpuUsec)
    };
    assert_eq!(total(1, None), None, "not counted is not 0");
    assert_eq!(total(1, Some(500)), Some(500));
    assert_eq!(total(1, Some(400)), Some(500));
    assert_eq!(total(2, Some(100)), Some(600));
    assert_eq!(total(1, Some(999)), Some(600), "a late reading of an earlier life");
    assert_eq!(total(2, None), Some(600));
}

#[test]
fn no_more_agents_are_labelled_than_the_limit() {
    let telemetry = Telemetry::new();
    (0..AGENTS_MAX + 10).for_each(|index| telemetry.launching(&format!("a{index}")));
    let text = telemetry.render();
    assert_eq!(text.lines().filter(|line| line.starts_with("agt_agent_restarts_total{")).count(), AGENTS_MAX);
    telemetry.died("a0", "exit");
}

#[test]
fn a_sample_writes_counters_with_fractions_as_counters() {
    let mut sample = Sample::new();
    sample.set(&names::AGENT_CPU, &[("agent", "a")], 0.25);
    sample.set_state(&names::AGENT_RING, &[("agent", "a")], "2");
    sample.set_known(&names::TRUST_SCORE, &[("agent", "a")], None);
    let text = sample.render();
    assert!(
        text.contains("# TYPE agt_agent_cpu_seconds_total counter\nagt_agent_cpu_seconds_total{agent=\"a\"} 0.25\n"),
        "{text}"
    );
    assert!(text.contains("# TYPE agt_agent_ring gauge\n"));
    let set: BTreeSet<(&str, &str)> =
        text.lines().filter(|line| line.starts_with("agt_agent_ring{")).filter_map(|l| l.rsplit_once(' ')).collect();
    assert_eq!(set.len(), 4);
    assert!(set.contains(&("agt_agent_ring{agent=\"a\",ring=\"2\"}", "1")), "{set:?}");
    assert!(!text.contains("agt_trust_score"), "what is unknown has no series");
}

#[test]
fn kills_land_in_their_buckets_and_unverified_ones_apart() {
    let telemetry = Telemetry::new();
    telemetry.killed(Some(Duration::from_millis(7)));
    telemetry.killed(None);
    let text = telemetry.render();
    assert_eq!(value(&text, "agt_kill_seconds_bucket{le=\"0.005\"}"), Some(0.0), "{text}");
    assert_eq!(value(&text, "agt_kill_seconds_bucket{le=\"0.01\"}"), Some(1.0));
    assert_eq!(value(&text, "agt_kills_unverified_total"), Some(1.0));
}
