//! From what was seen to a verdict.
//!
//! The score is AGT's: experiment / baseline x 100, passed at 0.9 of the baseline; a baseline of 0 says nothing. It is only
//! one of several things that must hold: the fault acted and is gone, nobody's safety was violated, the steady state came
//! back. Missing data never passes: what fails for certain fails, the rest is inconclusive.

use std::time::Duration;

use crate::experiment::Evidence;
use crate::fault::Seen;
use crate::plan::{Check, Plan};
use crate::report::{SteadyLine, Verdict};

/// The least part of the baseline that passes.
pub const PASS_RATIO: f64 = 0.9;

/// experiment / baseline x 100. `None` where a number is missing or the baseline is 0.
pub fn score(baseline: Option<f64>, experiment: Option<f64>) -> Option<f64> {
    match (baseline, experiment) {
        (Some(baseline), Some(experiment)) if baseline > 0.0 => Some(experiment / baseline * 100.0),
        _ => None,
    }
}

/// Whether a score passes. Compared a hair below the bound: 0.9 of 0.7 has no exact double.
pub fn passes(score: f64) -> bool {
    score >= PASS_RATIO * 100.0 - 1e-9
}

/// The steady state through the phases, line by line.
pub(crate) fn steady_lines(plan: &Plan, seen: &Evidence) -> Vec<SteadyLine> {
    let line = |(i, check): (usize, &Check)| {
        let (before, during, after) = (seen.before.mean(i), seen.during.mean(i), seen.after.last(i));
        SteadyLine {
            check: check.to_string(),
            before,
            during,
            after,
            held_before: before.map(|value| check.holds(value)),
            held_during: during.map(|value| check.holds(value)),
            held_after: after.map(|value| check.holds(value)),
            score: if check.is_scored() { score(before, during) } else { None },
        }
    };
    plan.steady_state.iter().enumerate().map(line).collect()
}

/// The least score of the SLIs; `None` as soon as one has none.
pub(crate) fn least_score(plan: &Plan, lines: &[SteadyLine]) -> Option<f64> {
    let scored = plan.steady_state.iter().zip(lines).filter(|(check, _)| check.is_scored());
    scored.map(|(_, line)| line.score).try_fold(f64::INFINITY, |least, score| Some(least.min(score?)))
}

/// The verdict on an experiment that was neither refused nor broken off, with the reasons.
pub(crate) fn judge(plan: &Plan, seen: &Evidence, lines: &[SteadyLine]) -> (Verdict, Vec<String>) {
    if seen.injected_at.is_none() {
        return (Verdict::Inconclusive, missing_before(lines));
    }
    if seen.acted_everywhere(plan.bursts.len()) != Seen::Yes {
        return (Verdict::Inconclusive, vec![format!("{} was not seen to act in every burst", plan.fault_kind())]);
    }
    let failures = failures(plan, seen, lines);
    if !failures.is_empty() {
        return (Verdict::Fail, failures);
    }
    let doubts = doubts(plan, seen, lines);
    if !doubts.is_empty() {
        return (Verdict::Inconclusive, doubts);
    }
    (Verdict::Pass, vec!["the fault acted, the steady state was kept and came back, nothing is left of it".to_owned()])
}

fn missing_before(lines: &[SteadyLine]) -> Vec<String> {
    let missing = lines.iter().filter(|line| line.before.is_none());
    missing.map(|line| format!("no data before the fault: {}; nothing was done", line.check)).collect()
}

fn failures(plan: &Plan, seen: &Evidence, lines: &[SteadyLine]) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(violations @ 1..) = seen.safety_violations() {
        found.push(format!("{violations} safety violations"));
    }
    for line in lines {
        if let Some(score) = line.score.filter(|score| !passes(*score)) {
            found.push(format!("{}: score {score:.1}, at least {:.0} is asked for", line.check, PASS_RATIO * 100.0));
        }
        if line.held_after == Some(false) {
            found.push(format!("{} doesn't hold after the fault is undone", line.check));
        }
    }
    if seen.restored == Seen::No {
        found.push("something of the fault is still to be seen after the undo".to_owned());
    }
    let too_late = |asked: Option<Duration>, took: Option<Duration>, what: &str| match (asked, took) {
        (Some(asked), Some(took)) if took > asked => {
            Some(format!("{what} took {:.1} s, {asked:?} is asked for", took.as_secs_f64()))
        }
        (Some(asked), None) => Some(format!("no {what}; within {asked:?} is asked for")),
        _ => None,
    };
    found.extend(too_late(plan.expect.detect_within, seen.detection(), "detection"));
    if lines.iter().all(|line| line.after.is_some()) {
        found.extend(too_late(plan.expect.recover_within, seen.recovery(), "recovery"));
    }
    found
}

fn doubts(plan: &Plan, seen: &Evidence, lines: &[SteadyLine]) -> Vec<String> {
    let mut found = Vec::new();
    for (check, line) in plan.steady_state.iter().zip(lines) {
        if line.during.is_none() {
            found.push(format!("no data during the fault: {check}"));
        }
        if line.after.is_none() {
            found.push(format!("no data after the fault: {check}"));
        }
        if check.is_scored() && line.before == Some(0.0) {
            found.push(format!("{check}: the baseline is 0, so there is nothing to compare with"));
        }
    }
    if seen.safety_violations().is_none() {
        found.push("no data on safety violations".to_owned());
    }
    if seen.restored == Seen::Unknown {
        found.push("it can't be told whether something of the fault is left".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_baseline_of_zero_scores_nothing() {
        assert_eq!(score(Some(0.0), Some(1.0)), None);
        assert_eq!(score(None, Some(1.0)), None);
        assert_eq!(score(Some(1.0), None), None);
        assert_eq!(score(Some(0.5), Some(0.25)), Some(50.0));
    }

    #[test]
    fn nine_tenths_of_the_baseline_pass_and_less_does_not() {
        assert!(!passes(score(Some(1.0), Some(0.899)).unwrap()));
        for baseline in [0.1, 0.3, 0.7, 0.77, 0.99, 1.0] {
            assert!(passes(score(Some(baseline), Some(baseline * 0.9)).unwrap()), "{baseline}");
        }
    }

    proptest! {
        #[test]
        fn a_better_experiment_never_scores_less(baseline in 0.001_f64..1.0, a in 0.0_f64..1.0, b in 0.0_f64..1.0) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(score(Some(baseline), Some(low)) <= score(Some(baseline), Some(high)));
        }
    }
}
