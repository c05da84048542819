//! The error budget: how much of what may go wrong in a period has gone wrong.
//!
//! Budget consumed = error ratio / (1 - objective), over the rolling period. Events that leave the period give their
//! budget back: a budget is no lifetime allowance. "7 bad of 7 allowed" is spent; the comparison is one of integers
//! ([`crate::ratio`]), so that no rounding decides whether an agent loses its ring.

use serde::Serialize;

use crate::ratio::{Objective, Ratio};
use crate::sli::Counts;

/// Bad events that it takes before anything is spent or burning, unless an SLO asks for a single event: one failure is
/// an anecdote.
pub const LEAST_BAD: u64 = 2;

/// Whether there are enough events to act on: at least `minimum` valid ones, and more than one bad one unless
/// `minimum` says that one event is enough.
pub fn is_evidence(counts: Counts, minimum: u64) -> bool {
    counts.valid() >= minimum && counts.bad >= LEAST_BAD.min(minimum)
}

/// The state of an error budget. Exists only where there are events: no data is no budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Budget {
    /// Bad events that the objective allows among the valid ones of the period.
    pub allowed_events: f64,
    /// Bad events in the period.
    pub bad_events: u64,
    /// Share of the budget that is used up; more than 1 when overspent.
    pub consumed_ratio: f64,
    /// Share of the budget that is left, 0..=1.
    pub left_ratio: f64,
}

impl Budget {
    /// The budget that `counts` leave under `objective`; `None` without events.
    pub fn of(counts: Counts, objective: Objective) -> Option<Self> {
        let consumed_ratio = consumed(counts, objective)?;
        Some(Self {
            allowed_events: counts.valid() as f64 * objective.allowed().as_f64(),
            bad_events: counts.bad,
            consumed_ratio,
            left_ratio: (1.0 - consumed_ratio).clamp(0.0, 1.0),
        })
    }
}

/// Error ratio / (1 - objective): of a period the share of its budget that is consumed, of a look-back its burn rate.
/// Five bad of a hundred at 99.5 % are 10. `None` without events.
pub fn consumed(counts: Counts, objective: Objective) -> Option<f64> {
    let valid = counts.valid();
    // One division of two exact products: dividing twice would give 9.999999999999998 for the example above.
    (valid > 0).then(|| counts.bad as f64 * 1e9 / (valid as f64 * f64::from(objective.allowed().ppb())))
}

/// Whether at least `share` of the budget is consumed, exactly.
pub fn has_consumed(counts: Counts, objective: Objective, share: Ratio) -> bool {
    let bad = u128::from(counts.bad) * 1_000_000_000_000_000_000;
    let spent_at = u128::from(counts.valid()) * u128::from(objective.allowed().ppb()) * u128::from(share.ppb());
    counts.valid() > 0 && bad >= spent_at
}

/// Whether less than `share` of the budget is left, exactly. Never without events.
pub fn has_left_less_than(counts: Counts, objective: Objective, share: Ratio) -> bool {
    let bad = u128::from(counts.bad) * 1_000_000_000_000_000_000;
    let kept = u128::from(1_000_000_000 - share.ppb());
    counts.valid() > 0 && bad > u128::from(counts.valid()) * u128::from(objective.allowed().ppb()) * kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn objective(value: f64) -> Objective {
        Objective::new(Ratio::new(value).unwrap()).unwrap()
    }

    fn counts(bad: u64, valid: u64) -> Counts {
        Counts { good: valid - bad, bad, claimed: 0 }
    }

    #[test]
    fn five_bad_of_a_hundred_at_995_consume_ten_budgets() {
        assert_eq!(consumed(counts(5, 100), objective(0.995)), Some(10.0));
        let budget = Budget::of(counts(5, 100), objective(0.995)).unwrap();
        assert_eq!(budget.left_ratio, 0.0);
        assert_eq!(budget.allowed_events, 0.5);
    }

    #[test]
    fn no_events_are_no_budget() {
        assert_eq!(Budget::of(Counts::default(), objective(0.99)), None);
        assert!(!has_consumed(Counts::default(), objective(0.99), Ratio::ZERO));
        assert!(!has_left_less_than(Counts::default(), objective(0.99), Ratio::ONE));
    }

    #[test]
    fn seven_bad_of_seven_allowed_is_spent_and_six_is_not() {
        let objective = objective(0.995);
        assert!(has_consumed(counts(7, 1_400), objective, Ratio::ONE));
        assert!(!has_consumed(counts(6, 1_400), objective, Ratio::ONE));
        assert!(!has_left_less_than(counts(6, 1_500), objective, Ratio::percent(20)), "exactly 20 % is not below 20 %");
        assert!(has_left_less_than(counts(6, 1_499), objective, Ratio::percent(20)));
    }

    #[test]
    fn an_objective_of_zero_is_spent_only_when_all_is_bad() {
        assert!(!has_consumed(counts(9, 10), objective(0.0), Ratio::ONE));
        assert!(has_consumed(counts(10, 10), objective(0.0), Ratio::ONE));
    }

    #[test]
    fn one_failure_is_no_evidence_unless_one_event_is_declared_enough() {
        assert!(!is_evidence(counts(1, 100), 10));
        assert!(!is_evidence(counts(2, 9), 10));
        assert!(is_evidence(counts(2, 10), 10));
        assert!(is_evidence(counts(1, 1), 1));
    }

    proptest! {
        #[test]
        fn integer_and_floating_answers_agree_away_from_the_border(
            bad in 0u64..10_000, good in 0u64..1_000_000, ppm in 0u32..999_999, share in 1u32..=100,
        ) {
            let objective = objective(f64::from(ppm) / 1e6);
            let counts = Counts { good, bad, claimed: 0 };
            let share = Ratio::percent(share);
            if let Some(consumed) = consumed(counts, objective) {
                let distance = consumed - share.as_f64();
                if distance.abs() > 1e-9 {
                    prop_assert_eq!(has_consumed(counts, objective, share), distance > 0.0);
                }
                let left = 1.0 - consumed - share.as_f64();
                if left.abs() > 1e-9 {
                    prop_assert_eq!(has_left_less_than(counts, objective, share), left < 0.0);
                }
            }
        }

        #[test]
        fn one_more_bad_event_never_gives_budget_back(bad in 0u64..1_000, good in 0u64..1_000, ppm in 0u32..999_999) {
            let objective = objective(f64::from(ppm) / 1e6);
            let before = consumed(Counts { good, bad, claimed: 0 }, objective).unwrap_or(0.0);
            let after = consumed(Counts { good, bad: bad + 1, claimed: 0 }, objective).unwrap();
            prop_assert!(after >= before);
        }
    }
}
