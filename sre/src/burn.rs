//! Burn rates and the multi-window alerts built on them.
//!
//! A burn rate of 1 spends exactly the budget in exactly the period. The four window pairs are those of the Google SRE
//! workbook, chapter 5 ("Alerting on SLOs", table 5-8 and its page/ticket split as sloth's google-30d ships it): the
//! long window says that it matters, the short one that it is still going on. They are given for 30 days; another
//! period scales every window by period / 30 d, so that an alert always stands for the same share of the budget.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::{consumed, is_evidence};
use crate::ratio::Objective;
use crate::sli::Counts;
use crate::time::millis;

/// The period that the windows below are named for.
pub const NOMINAL_PERIOD: Duration = Duration::from_secs(30 * 86_400);

/// No look-back gets shorter than this, however short the period.
pub const SHORTEST_LOOK_BACK: Duration = Duration::from_secs(1);

/// A window that burn is read over, named by its length for a period of 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LookBack {
    /// Five minutes.
    #[serde(rename = "5m")]
    M5,
    /// Half an hour.
    #[serde(rename = "30m")]
    M30,
    /// An hour.
    #[serde(rename = "1h")]
    H1,
    /// Two hours.
    #[serde(rename = "2h")]
    H2,
    /// Six hours.
    #[serde(rename = "6h")]
    H6,
    /// A day.
    #[serde(rename = "1d")]
    D1,
    /// Three days.
    #[serde(rename = "3d")]
    D3,
}

impl LookBack {
    /// All, shortest first, in the order of [`LookBack::index`].
    pub const ALL: [Self; 7] = [Self::M5, Self::M30, Self::H1, Self::H2, Self::H6, Self::D1, Self::D3];

    /// Position in [`LookBack::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The length it has for a period of 30 days.
    pub const fn nominal(self) -> Duration {
        Duration::from_secs(match self {
            Self::M5 => 300,
            Self::M30 => 1_800,
            Self::H1 => 3_600,
            Self::H2 => 7_200,
            Self::H6 => 21_600,
            Self::D1 => 86_400,
            Self::D3 => 259_200,
        })
    }

    /// The length it has for `period`: to the millisecond, at least [`SHORTEST_LOOK_BACK`].
    pub fn scaled(self, period: Duration) -> Duration {
        let scaled = u128::from(millis(self.nominal())) * u128::from(millis(period)) / NOMINAL_PERIOD.as_millis();
        Duration::from_millis(u64::try_from(scaled).unwrap_or(u64::MAX)).max(SHORTEST_LOOK_BACK)
    }

    /// The name, as in `burn 1h`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::M5 => "5m",
            Self::M30 => "30m",
            Self::H1 => "1h",
            Self::H2 => "2h",
            Self::H6 => "6h",
            Self::D1 => "1d",
            Self::D3 => "3d",
        }
    }
}

impl fmt::Display for LookBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How urgent a burn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alert {
    /// Somebody, or a remedy, must act now.
    Page,
    /// Somebody must look within days.
    Ticket,
}

impl Alert {
    /// The word used as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// One condition of an alert: both windows burn faster than the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// What it raises.
    pub alert: Alert,
    /// Says that it matters.
    pub long: LookBack,
    /// Says that it still goes on.
    pub short: LookBack,
    /// Burn rate to be exceeded, in tenths: whole numbers compare exactly.
    pub over_tenths: u32,
}

impl Pair {
    /// Burn rate to be exceeded.
    pub fn over(self) -> f64 {
        f64::from(self.over_tenths) / 10.0
    }

    /// Whether this condition holds. The long window must hold enough events to be believed ([`is_evidence`]).
    pub fn holds(self, long: Counts, short: Counts, objective: Objective, minimum_events: u64) -> bool {
        is_evidence(long, minimum_events)
            && burns_over(long, objective, self.over_tenths)
            && burns_over(short, objective, self.over_tenths)
    }

    /// Whether this condition can hold at all: burn can't exceed 1 / (1 - objective), which below 93.1 % is less than
    /// 14.4. Such an SLO is alerted by its slower pairs and by its budget.
    pub fn can_hold(self, objective: Objective) -> bool {
        burns_over(Counts { good: 0, bad: 1, claimed: 0 }, objective, self.over_tenths)
    }
}

/// The four conditions: page = (1h > 14.4 and 5m > 14.4) or (6h > 6 and 30m > 6); ticket = (1d > 3 and 2h > 3) or
/// (3d > 1 and 6h > 1).
pub const PAIRS: [Pair; 4] = [
    Pair { alert: Alert::Page, long: LookBack::H1, short: LookBack::M5, over_tenths: 144 },
    Pair { alert: Alert::Page, long: LookBack::H6, short: LookBack::M30, over_tenths: 60 },
    Pair { alert: Alert::Ticket, long: LookBack::D1, short: LookBack::H2, over_tenths: 30 },
    Pair { alert: Alert::Ticket, long: LookBack::D3, short: LookBack::H6, over_tenths: 10 },
];

/// Error ratio over a look-back / (1 - objective); `None` without events. The window's length does not enter: a burn
/// rate is a ratio of ratios.
pub fn burn_rate(counts: Counts, objective: Objective) -> Option<f64> {
    consumed(counts, objective)
}

/// Whether the burn rate exceeds a threshold in tenths, exactly. Never without events.
pub fn burns_over(counts: Counts, objective: Objective, tenths: u32) -> bool {
    let bad = u128::from(counts.bad) * 10_000_000_000;
    counts.valid() > 0 && bad > u128::from(tenths) * u128::from(counts.valid()) * u128::from(objective.allowed().ppb())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ratio::Ratio;

    fn objective(value: f64) -> Objective {
        Objective::new(Ratio::new(value).unwrap()).unwrap()
    }

    fn counts(bad: u64, valid: u64) -> Counts {
        Counts { good: valid - bad, bad, claimed: 0 }
    }

    #[test]
    fn five_bad_of_a_hundred_at_995_burn_at_ten() {
        assert_eq!(burn_rate(counts(5, 100), objective(0.995)), Some(10.0));
    }

    #[test]
    fn burning_exactly_at_the_threshold_is_not_over_it() {
        assert!(!burns_over(counts(72, 1_000), objective(0.995), 144));
        assert!(burns_over(counts(73, 1_000), objective(0.995), 144));
        assert!(!burns_over(Counts::default(), objective(0.995), 0), "no data burns nothing");
    }

    #[test]
    fn thirty_days_leave_the_windows_as_named_and_other_periods_scale_them() {
        for look_back in LookBack::ALL {
            assert_eq!(look_back.scaled(NOMINAL_PERIOD), look_back.nominal());
        }
        assert_eq!(LookBack::H1.scaled(Duration::from_secs(86_400)), Duration::from_secs(120));
        assert_eq!(LookBack::D3.scaled(Duration::from_secs(60 * 86_400)), Duration::from_secs(6 * 86_400));
        assert_eq!(LookBack::M5.scaled(Duration::from_secs(3_600)), SHORTEST_LOOK_BACK);
        for (position, look_back) in LookBack::ALL.into_iter().enumerate() {
            assert_eq!(look_back.index(), position);
        }
    }

    #[test]
    fn one_failure_of_few_events_does_not_page_and_both_windows_must_burn() {
        let page = PAIRS[0];
        let objective = objective(0.995);
        assert!(!page.holds(counts(1, 5), counts(1, 5), objective, 10), "too few events");
        assert!(!page.holds(counts(1, 12), counts(1, 12), objective, 10), "one failure, whatever it burns at");
        assert!(page.holds(counts(2, 12), counts(1, 2), objective, 10));
        assert!(!page.holds(counts(9, 20), counts(0, 5), objective, 10), "it has stopped");
        assert!(!page.holds(counts(9, 20), Counts::default(), objective, 10), "nothing recent");
    }

    #[test]
    fn low_objectives_cannot_reach_the_fast_pair() {
        assert!(!PAIRS[0].can_hold(objective(0.9)));
        assert!(PAIRS[1].can_hold(objective(0.9)));
        assert!(PAIRS[0].can_hold(objective(0.995)));
        assert!(!PAIRS[3].can_hold(objective(0.0)), "a budget of everything never burns over 1");
    }
}
