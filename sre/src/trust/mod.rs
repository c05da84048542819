//! A trust score from 0 to 1000: raised by successes, cut by violations, decayed by silence.
//!
//! A score starts where somebody has vouched for it, its *baseline*. Successes raise it with diminishing steps towards
//! a ceiling not far above the baseline, and by only so much a day: trust takes time, and climbing further is a
//! person's decision ([`Trust::set`]). Silence lets what was earned fade towards the baseline, never below. Only
//! violations go below, and from there only successes lead back. What an agent says about itself can cut its score,
//! never raise it.
//!
//! Decay is worked out from the time since the last change rather than in steps, so that asking often or seldom gives
//! the same score.

mod ladder;
mod lowered;
mod snapshot;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use ladder::{Ladder, Move, Standing};
pub use snapshot::TrustSnapshot;

use crate::error::Error;
use crate::sli::{Evidence, Severity};
use crate::time::{Clock, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
const WHAT: &str = "trust";

/// A trust score, 0..=1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Score(u16);

impl Score {
    /// No trust at all.
    pub const LEAST: Self = Self(0);
    /// All there is.
    pub const MOST: Self = Self(1000);
    /// An identity that nobody vouched for.
    pub const UNKNOWN: Self = Self(500);
    /// An identity that an operator started by hand.
    pub const VOUCHED: Self = Self(700);

    /// A score; `None` above 1000.
    pub const fn new(score: u16) -> Option<Self> {
        if score <= 1000 { Some(Self(score)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The name of the range it lies in.
    pub const fn tier(self) -> Tier {
        match self.0 {
            900.. => Tier::Verified,
            700.. => Tier::Trusted,
            500.. => Tier::Standard,
            300.. => Tier::Probationary,
            _ => Tier::Untrusted,
        }
    }

    /// Rounds down: no score is shown, or acted on, that was not reached. A millionth of a point is rounding noise of
    /// sums and not a point missing.
    fn from_points(points: f64) -> Self {
        Self((points + 1e-6).clamp(0.0, 1000.0) as u16)
    }
}

impl TryFrom<u16> for Score {
    type Error = &'static str;

    fn try_from(score: u16) -> Result<Self, Self::Error> {
        Self::new(score).ok_or("a trust score is 0 to 1000")
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The range a score lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// 0 to 299.
    Untrusted,
    /// 300 to 499.
    Probationary,
    /// 500 to 699.
    Standard,
    /// 700 to 899.
    Trusted,
    /// 900 and more.
    Verified,
}

impl Tier {
    /// The word used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Probationary => "probationary",
            Self::Standard => "standard",
            Self::Trusted => "trusted",
            Self::Verified => "verified",
        }
    }
}

/// How fast trust comes and goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrustPolicy {
    /// Time in which what was earned above the baseline halves.
    pub half_life: Duration,
    /// Points that a success adds for each 1000 points between the score and its ceiling.
    pub success_step: f64,
    /// How far above its baseline successes alone can carry a score.
    pub earned_most: u16,
    /// Points that successes can add in a day.
    pub gain_per_day: f64,
    /// Points that a violation of low, medium, high, critical severity takes away.
    pub cuts: [u16; 4],
}

impl Default for TrustPolicy {
    /// A half-life of 7 days. With `earned_most` at 99, thresholds that lie 100 above a baseline are reached by an
    /// operator's decision only. One critical violation takes a vouched identity to the lowest tier.
    fn default() -> Self {
        Self { half_life: 7 * DAY, success_step: 5.0, earned_most: 99, gain_per_day: 25.0, cuts: [10, 50, 150, 500] }
    }
}

impl TrustPolicy {
    fn check(&self) -> Result<(), Error> {
        let refuse = |field, problem| Err(Error::Settings { what: WHAT, field, problem });
        if self.half_life < Duration::from_secs(1) {
            return refuse("half_life", "must be at least 1s");
        }
        // A step of 1000 would reach the ceiling at once; beyond it would overshoot.
        if !(0.0..=1000.0).contains(&self.success_step) {
            return refuse("success_step", "must be 0 to 1000 points");
        }
        if !(0.0..=1000.0).contains(&self.gain_per_day) {
            return refuse("gain_per_day", "must be 0 to 1000 points");
        }
        if !self.cuts.is_sorted() {
            return refuse("cuts", "must not fall with severity");
        }
        Ok(())
    }

    fn cut(&self, severity: Severity) -> f64 {
        let [low, medium, high, critical] = self.cuts;
        f64::from(match severity {
            Severity::Low => low,
            Severity::Medium => medium,
            Severity::High => high,
            Severity::Critical => critical,
        })
    }
}

/// What became of a success or violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a changed score may change what the identity is allowed to do"]
pub struct Changed {
    /// The score just before, decay included.
    pub before: Score,
    /// The score from now on.
    pub after: Score,
}

/// The trust in one identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Trust {
    policy: TrustPolicy,
    clock: Clock,
    /// Points at `at`; decay since then is worked out when somebody asks.
    points: f64,
    at: Timestamp,
    baseline: Score,
    /// Points that successes may still add, refilled with time.
    gain_left: f64,
    successes: u64,
    violations: u64,
    own_praise: u64,
    /// Points that [`Trust::lower`] keeps from counting; not stored.
    taken: f64,
}

impl Trust {
    /// Trust in an identity that starts with `score` as its baseline: [`Score::UNKNOWN`] if nobody vouched for it,
    /// [`Score::VOUCHED`] at the first start by an operator's hand. Fails on a policy that contradicts itself.
    pub fn new(score: Score, policy: TrustPolicy, now: Timestamp) -> Result<Self, Error> {
        policy.check()?;
        let mut clock = Clock::default();
        let at = clock.observe(now);
        Ok(Self {
            points: f64::from(score.0),
            at,
            baseline: score,
            gain_left: policy.gain_per_day,
            policy,
            clock,
            successes: 0,
            violations: 0,
            own_praise: 0,
            taken: 0.0,
        })
    }

    /// The score at `now`. Changes nothing.
    pub fn score(&self, now: Timestamp) -> Score {
        self.counting(self.points_at(self.clock.peek(now)))
    }

    /// The score at `now` of a child of an identity with the score `parent`: delegation only ever narrows.
    pub fn score_under(&self, parent: Score, now: Timestamp) -> Score {
        self.score(now).min(parent)
    }

    /// What silence decays towards.
    pub fn baseline(&self) -> Score {
        self.baseline
    }

    fn points_at(&self, now: Timestamp) -> f64 {
        let rest = self.points.min(f64::from(self.baseline.0));
        let half_lives = now.since(self.at).as_secs_f64() / self.policy.half_life.as_secs_f64();
        rest + (self.points - rest) * (-half_lives).exp2()
    }

    /// Brings points and the day's allowance up to `now`.
    fn settle(&mut self, now: Timestamp) -> Timestamp {
        let now = self.clock.observe(now);
        let days = now.since(self.at).as_secs_f64() / DAY.as_secs_f64();
        self.points = self.points_at(now);
        self.gain_left = (self.gain_left + days * self.policy.gain_per_day).min(self.policy.gain_per_day);
        self.at = now;
        now
    }

    /// Something went well. On the agent's own word it changes nothing, not even the decay.
    pub fn success(&mut self, evidence: Evidence, now: Timestamp) -> Changed {
        if evidence == Evidence::SelfReported {
            self.own_praise = self.own_praise.saturating_add(1);
            let score = self.score(now);
            return Changed { before: score, after: score };
        }
        self.settle(now);
        let before = self.counting(self.points);
        let ceiling = (f64::from(self.baseline.0) + f64::from(self.policy.earned_most)).min(1000.0);
        let step = self.policy.success_step * (ceiling - self.points).max(0.0) / 1000.0;
        let gain = step.min(self.gain_left);
        self.points += gain;
        self.gain_left -= gain;
        self.successes = self.successes.saturating_add(1);
        Changed { before, after: self.counting(self.points) }
    }

    /// It did something it must not. Counts whoever says so, the agent itself included.
    pub fn violation(&mut self, severity: Severity, now: Timestamp) -> Changed {
        self.settle(now);
        let before = self.counting(self.points);
        self.points = (self.points - self.policy.cut(severity)).max(0.0);
        self.violations = self.violations.saturating_add(1);
        Changed { before, after: self.counting(self.points) }
    }

    /// An operator decides: the (own) score and the baseline are this from now on.
    pub fn set(&mut self, score: Score, now: Timestamp) -> Changed {
        self.settle(now);
        let before = self.counting(self.points);
        self.points = f64::from(score.0);
        self.baseline = score;
        Changed { before, after: self.counting(self.points) }
    }

    /// Successes counted.
    pub fn successes(&self) -> u64 {
        self.successes
    }

    /// Violations counted.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// Successes on the agent's own word, which changed nothing.
    pub fn own_praise(&self) -> u64 {
        self.own_praise
    }

    /// How often the caller's clock ran backwards and was held.
    pub fn clock_steps_back(&self) -> u64 {
        self.clock.stepped_back()
    }
}

#[cfg(test)]
mod tests;
