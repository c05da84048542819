#![allow(clippy::unwrap_used)]

use super::*;
use crate::json;
use crate::spec::{SloSpec, resolve};

fn slos() -> Vec<Slo> {
    let specs: Vec<SloSpec> = json::read(
        r#"[{"name": "right", "sli": "correctness", "objective": "99.5%"},
            {"name": "quick", "sli": "latency", "objective": 0.9, "threshold": "2s", "period": "1h", "minimum_events": 1}]"#,
    )
    .unwrap();
    resolve(&specs).unwrap()
}

#[test]
fn rules_are_as_checked_with_promtool() {
    // Checked by hand with `promtool check rules` when it changes; the supervisor's tests feed rules to a Prometheus.
    let expected = include_str!("golden.yml");
    let found = rules("researcher", &slos(), &RuleNames::default());
    assert!(found == expected, "the rules have changed; if they should have, this is the new golden.yml:\n{found}");
}

#[test]
fn every_alert_reads_only_what_is_recorded() {
    let text = rules("researcher", &slos(), &RuleNames::default());
    let recorded: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let used: Vec<&str> = text
        .split(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)))
        .filter(|word| word.starts_with("slo:") && *word != "slo:")
        .collect();
    assert!(used.len() > recorded.len());
    assert!(used.iter().all(|name| recorded.contains(name)), "{used:?}");
}

#[test]
fn windows_of_a_short_period_are_no_shorter_than_scrapes_allow_and_stand_once() {
    let text = rules("researcher", &slos()[1..], &RuleNames::default());
    let recorded: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    assert_eq!(
        recorded,
        [
            "slo:sli_error:ratio_rate1m",
            "slo:sli_error:ratio_rate2m",
            "slo:sli_error:ratio_rate6m",
            "slo:sli_error:ratio_rate1h",
            "slo:error_budget:ratio",
            "slo:error_budget_left:ratio",
        ]
    );
    let names = RuleNames { shortest_window: Duration::from_secs(4), ..RuleNames::default() };
    assert!(rules("researcher", &slos()[1..], &names).contains("[4s]"));
}

#[test]
fn names_are_quoted_for_yaml_promql_and_templates() {
    let names = RuleNames::default();
    let text = rules("a\"b\\c\nd: {{ .X }}\u{7}\u{2028}", &slos(), &names);
    assert!(text.contains(r#"agent="a\"b\\c\nd: {{ .X }}\x07\u2028""#), "{text}");
    assert!(text.contains(r#"summary: "the error budget of a\"b\\c\nd: {{ \"{{\" }} .X }}"#), "{text}");
    assert!(!text.contains("\nd:"), "no name begins a line");
}

#[test]
fn no_slos_are_an_empty_rules_file() {
    assert_eq!(rules("idle", &[], &RuleNames::default()), "groups: []\n");
}
