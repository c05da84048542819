//! The seven indicators, what one sample of them is, and which samples count.
//!
//! Every indicator is good events over valid events. The rule that carries the rest stands here: **what an agent says
//! about itself can cost it, never help it**. A bad outcome counts whoever reports it; a good one counts only on the
//! supervisor's own evidence (evaluator, gateway, kernel), except for throughput, which is mere volume.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::window::Tally;

/// A service level indicator: the kind of thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sli {
    /// Tasks whose result an evaluator found right.
    Correctness,
    /// Decisions that could have been denied: good if nothing had to be.
    Safety,
    /// Answers that came within a time.
    Latency,
    /// Tasks that stayed within a price.
    Cost,
    /// Times at which the agent was up and healthy.
    Availability,
    /// Tasks finished at the expected pace.
    Throughput,
    /// Delegated work that succeeded.
    Delegation,
}

impl Sli {
    /// All seven, in the order of [`Sli::index`].
    pub const ALL: [Self; 7] = [
        Self::Correctness,
        Self::Safety,
        Self::Latency,
        Self::Cost,
        Self::Availability,
        Self::Throughput,
        Self::Delegation,
    ];

    /// The word used in agent.yaml, in messages and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Correctness => "correctness",
            Self::Safety => "safety",
            Self::Latency => "latency",
            Self::Cost => "cost",
            Self::Availability => "availability",
            Self::Throughput => "throughput",
            Self::Delegation => "delegation",
        }
    }

    /// Position in [`Sli::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Sli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a measured value is compared with to be good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Latency in seconds: at most this is good.
    AtMostSeconds(f64),
    /// Cost in US dollars: at most this is good.
    AtMostUsd(f64),
    /// Throughput in whatever unit the caller measures: at least this is good.
    AtLeast(f64),
}

impl Threshold {
    /// Whether a measured value is good.
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMostSeconds(limit) | Self::AtMostUsd(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMostSeconds(limit) => write!(f, "at most {limit} s"),
            Self::AtMostUsd(limit) => write!(f, "at most {limit} USD"),
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

/// Whose word a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The agent's own: it came in over the agent's socket.
    SelfReported,
    /// The supervisor's: seen by an evaluator, the gateway or the kernel.
    Supervisor,
}

/// How a sampled event came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// A good event.
    Good,
    /// A bad event.
    Bad,
    /// A measurement (seconds, US dollars, units of throughput), judged by each SLO's own threshold.
    Value(f64),
}

/// How grave a bad safety event or a violation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A slip: a denied read of something harmless.
    Low,
    /// A denial that a well-behaved agent would not run into twice.
    Medium,
    /// Something that several of in a short time are an incident.
    High,
    /// An escape attempt, a touched decoy: one is an incident.
    Critical,
}

/// The kind of decision that a safety event was (read, connect, spawn, ...), numbered by the caller. Kinds are capped
/// one by one, so that a million harmless reads can't buy back one denied connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassId(u8);

impl ClassId {
    /// How many kinds there can be.
    pub const COUNT: usize = 32;
    /// The kind of everything that has no kind of its own.
    pub const OTHER: Self = Self(0);

    /// A kind by number; `None` from [`ClassId::COUNT`] on.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self(number)) } else { None }
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One event to be counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Which indicator it belongs to.
    pub sli: Sli,
    /// How it came out.
    pub outcome: Outcome,
    /// Whose word it is.
    pub evidence: Evidence,
    /// What kind of decision it was; looked at for safety only.
    pub class: ClassId,
    /// How grave it is if it is bad; looked at for safety only.
    pub severity: Severity,
}

impl Sample {
    /// A sample without a kind, of low severity.
    pub const fn new(sli: Sli, outcome: Outcome, evidence: Evidence) -> Self {
        Self { sli, outcome, evidence, class: ClassId::OTHER, severity: Severity::Low }
    }

    /// A safety decision of a kind, as the supervisor saw it.
    pub const fn safety(outcome: Outcome, class: ClassId, severity: Severity) -> Self {
        Self { sli: Sli::Safety, outcome, evidence: Evidence::Supervisor, class, severity }
    }
}

/// Why a sample was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// No SLO looks at this indicator.
    NoSlo,
    /// The value is NaN or infinite.
    NotFinite,
    /// The value is below zero.
    Negative,
    /// A value for an indicator or SLO that has no threshold to judge it by.
    NoThreshold,
    /// A good outcome on the agent's own word.
    SelfReportedGood,
    /// More good safety events of this kind in this minute than may count.
    RateCapped,
}

impl Rejection {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::NoSlo, Self::NotFinite, Self::Negative, Self::NoThreshold, Self::SelfReportedGood, Self::RateCapped];

    /// The word used as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSlo => "no_slo",
            Self::NotFinite => "not_finite",
            Self::Negative => "negative",
            Self::NoThreshold => "no_threshold",
            Self::SelfReportedGood => "self_reported_good",
            Self::RateCapped => "rate_capped",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlo => "no SLO looks at this indicator",
            Self::NotFinite => "the value is not a finite number",
            Self::Negative => "the value is negative",
            Self::NoThreshold => "a value needs a threshold to be judged by",
            Self::SelfReportedGood => "an agent's own word can cost it, never help it",
            Self::RateCapped => "enough good events of this kind in this minute",
        })
    }
}

/// Good or bad, once judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    Good,
    Bad,
}

/// Judges a sample by an SLO's threshold and by whose word it is.
pub(crate) fn judge(sample: &Sample, threshold: Option<Threshold>) -> Result<Judged, Rejection> {
    let judged = match sample.outcome {
        Outcome::Good => Judged::Good,
        Outcome::Bad => Judged::Bad,
        Outcome::Value(value) => {
            if !value.is_finite() {
                return Err(Rejection::NotFinite);
            }
            if value < 0.0 {
                return Err(Rejection::Negative);
            }
            let threshold = threshold.ok_or(Rejection::NoThreshold)?;
            if threshold.is_met_by(value) { Judged::Good } else { Judged::Bad }
        }
    };
    let own_praise =
        judged == Judged::Good && sample.evidence == Evidence::SelfReported && sample.sli != Sli::Throughput;
    if own_praise { Err(Rejection::SelfReportedGood) } else { Ok(judged) }
}

/// Events counted: good, bad, and how many of the bad ones are only the agent's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Good events.
    pub good: u64,
    /// Bad events, whoever reported them.
    pub bad: u64,
    /// Those of `bad` that only the agent itself reported.
    pub claimed: u64,
}

impl Counts {
    /// All events that count.
    pub const fn valid(self) -> u64 {
        self.good.saturating_add(self.bad)
    }

    /// Events that stand on more than the agent's word against itself. Only these end the state `unknown`: an agent
    /// must not become healthy by confessing.
    pub const fn witnessed(self) -> u64 {
        self.valid().saturating_sub(self.claimed)
    }

    /// Bad events per valid event; `None` without any.
    pub fn error_ratio(self) -> Option<f64> {
        (self.valid() > 0).then(|| self.bad as f64 / self.valid() as f64)
    }
}

impl Tally for Counts {
    fn since(self, earlier: Self) -> Self {
        Self {
            good: self.good.saturating_sub(earlier.good),
            bad: self.bad.saturating_sub(earlier.bad),
            claimed: self.claimed.saturating_sub(earlier.claimed),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            good: self.good.saturating_add(other.good),
            bad: self.bad.saturating_add(other.bad),
            claimed: self.claimed.saturating_add(other.claimed),
        }
    }

    fn is_sound(self) -> bool {
        self.claimed <= self.bad && self.valid() <= crate::window::MAX_EVENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_indicator_stands_at_its_own_index() {
        for (position, sli) in Sli::ALL.into_iter().enumerate() {
            assert_eq!(sli.index(), position);
        }
        for (position, rejection) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(rejection.index(), position);
        }
    }

    #[test]
    fn own_praise_counts_for_throughput_only() {
        for sli in Sli::ALL {
            let good = Sample::new(sli, Outcome::Good, Evidence::SelfReported);
            let expected = if sli == Sli::Throughput { Ok(Judged::Good) } else { Err(Rejection::SelfReportedGood) };
            assert_eq!(judge(&good, None), expected, "{sli}");
            let bad = Sample::new(sli, Outcome::Bad, Evidence::SelfReported);
            assert_eq!(judge(&bad, None), Ok(Judged::Bad), "{sli}");
        }
    }

    #[test]
    fn value_at_the_threshold_is_good() {
        let limit = Some(Threshold::AtMostSeconds(2.0));
        let sample = |value| Sample::new(Sli::Latency, Outcome::Value(value), Evidence::Supervisor);
        assert_eq!(judge(&sample(2.0), limit), Ok(Judged::Good));
        assert_eq!(judge(&sample(2.000_001), limit), Ok(Judged::Bad));
        let pace = Some(Threshold::AtLeast(10.0));
        assert_eq!(judge(&sample(10.0), pace), Ok(Judged::Good));
        assert_eq!(judge(&sample(9.9), pace), Ok(Judged::Bad));
    }

    #[test]
    fn a_fast_answer_on_the_agents_word_is_refused_and_a_slow_one_counts() {
        let limit = Some(Threshold::AtMostSeconds(2.0));
        let sample = |value| Sample::new(Sli::Latency, Outcome::Value(value), Evidence::SelfReported);
        assert_eq!(judge(&sample(0.1), limit), Err(Rejection::SelfReportedGood));
        assert_eq!(judge(&sample(9.0), limit), Ok(Judged::Bad));
    }

    #[test]
    fn nonsense_values_are_refused_with_their_reason() {
        let limit = Some(Threshold::AtMostUsd(1.0));
        let sample = |value| Sample::new(Sli::Cost, Outcome::Value(value), Evidence::Supervisor);
        assert_eq!(judge(&sample(f64::NAN), limit), Err(Rejection::NotFinite));
        assert_eq!(judge(&sample(f64::INFINITY), limit), Err(Rejection::NotFinite));
        assert_eq!(judge(&sample(-0.01), limit), Err(Rejection::Negative));
        assert_eq!(judge(&sample(0.5), None), Err(Rejection::NoThreshold));
    }

    #[test]
    fn kinds_are_bounded() {
        assert!(ClassId::new(31).is_some());
        assert!(ClassId::new(32).is_none());
    }
}
