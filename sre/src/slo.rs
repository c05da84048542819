//! A service level objective: an indicator, how much of it must be good over which period, and what happens if not.
//!
//! A value of [`Slo`] is valid: it comes only out of [`crate::spec`], which has checked every field. Defaults that an
//! agent.yaml leaves out stand here, once.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::burn::{Alert, LookBack, PAIRS};
use crate::ratio::Objective;
use crate::remedy::Remedy;
use crate::sli::{Sli, Threshold};

/// Period of an SLO that names none.
pub const DEFAULT_PERIOD: Duration = Duration::from_secs(30 * 86_400);
/// Shortest period.
pub const SHORTEST_PERIOD: Duration = Duration::from_secs(60);
/// Longest period.
pub const LONGEST_PERIOD: Duration = Duration::from_secs(366 * 86_400);
/// Valid events that a window needs before anything is concluded from it, unless the SLO says otherwise.
pub const DEFAULT_MINIMUM_EVENTS: u64 = 10;
/// The most that an SLO may ask for.
pub const MOST_MINIMUM_EVENTS: u64 = 1_000_000;
/// Good safety events of one kind that count in one minute. Bad ones always count: with this cap, no agent can buy
/// back a denied act by a flood of harmless ones.
pub const SAFETY_GOOD_PER_MINUTE: u32 = 10;
/// SLOs that one agent may have.
pub const MOST_SLOS: usize = 32;
/// Buckets of a look-back window: its length is exact to 1/30.
pub const LOOK_BACK_BUCKETS: usize = 30;
/// Buckets of the period's window: 2 hours each for 30 days.
pub const PERIOD_BUCKETS: usize = 360;

/// The name of an SLO: a label and a key, so a short plain word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SloName(String);

impl SloName {
    /// A name; `None` unless it is 1 to 63 lowercase letters, digits, `-` or `_`, starting with a letter.
    pub fn new(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        let fits = (1..=63).contains(&name.len()) && name.as_bytes()[0].is_ascii_lowercase();
        (fits && name.bytes().all(plain)).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When safety trips without regard to ratios. A single `critical` event always does; no setting turns that off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Trips {
    /// This many `high` events...
    pub high: u32,
    /// ...within this time.
    pub window: Duration,
}

impl Default for Trips {
    fn default() -> Self {
        Self { high: 3, window: Duration::from_secs(3_600) }
    }
}

/// A checked service level objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo {
    pub(crate) name: SloName,
    pub(crate) sli: Sli,
    pub(crate) objective: Objective,
    pub(crate) period: Duration,
    pub(crate) threshold: Option<Threshold>,
    pub(crate) minimum_events: u64,
    pub(crate) remedies: Vec<Remedy>,
    pub(crate) trips: Option<Trips>,
}

impl Slo {
    /// Its name, unique within an agent.
    pub fn name(&self) -> &SloName {
        &self.name
    }

    /// What it counts.
    pub fn sli(&self) -> Sli {
        self.sli
    }

    /// The share that must be good.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// The rolling period of its error budget.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// What values are judged by.
    pub fn threshold(&self) -> Option<Threshold> {
        self.threshold
    }

    /// Valid events that a window needs before anything is concluded from it.
    pub fn minimum_events(&self) -> u64 {
        self.minimum_events
    }

    /// Its policy.
    pub fn remedies(&self) -> &[Remedy] {
        &self.remedies
    }

    /// Its absolute trips; safety has them, nothing else does.
    pub fn trips(&self) -> Option<Trips> {
        self.trips
    }

    /// Alerts that can't ever hold at this objective (see [`crate::burn::Pair::can_hold`]): worth a warning at load,
    /// because a remedy on one of them would never act.
    pub fn unreachable_alerts(&self) -> Vec<Alert> {
        let reachable = |alert| PAIRS.iter().any(|pair| pair.alert == alert && pair.can_hold(self.objective));
        [Alert::Page, Alert::Ticket].into_iter().filter(|alert| !reachable(*alert)).collect()
    }

    /// The windows it needs: its period first, then every look-back in the order of [`LookBack::ALL`].
    pub(crate) fn window_lengths(&self) -> impl Iterator<Item = (Duration, usize)> {
        let look_backs = LookBack::ALL.map(|look_back| (look_back.scaled(self.period), LOOK_BACK_BUCKETS));
        std::iter::once((self.period, PERIOD_BUCKETS)).chain(look_backs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ratio::Ratio;

    #[test]
    fn names_are_short_plain_words() {
        for good in ["a", "latency-p99", "cost_per_task", &"x".repeat(63)] {
            assert!(SloName::new(good).is_some(), "{good}");
        }
        for bad in ["", "A", "9lives", "-x", "a b", "a\"b", "a\n", "ä", &"x".repeat(64)] {
            assert!(SloName::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_objective_too_low_to_page_says_so() {
        let mut slo = Slo {
            name: SloName::new("correct").unwrap(),
            sli: Sli::Correctness,
            objective: Objective::new(Ratio::percent(80)).unwrap(),
            period: DEFAULT_PERIOD,
            threshold: None,
            minimum_events: 10,
            remedies: vec![],
            trips: None,
        };
        assert_eq!(slo.unreachable_alerts(), [Alert::Page]);
        slo.objective = Objective::new(Ratio::percent(99)).unwrap();
        assert!(slo.unreachable_alerts().is_empty());
    }
}
