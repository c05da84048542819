//! What an experiment found, for people and for programs.
//!
//! Everything is there as data (`serde`), times in seconds since the experiment's start; the text says the same. A number
//! that nobody measured is absent, never zero.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::{ReadyFault, Seen};
use crate::interlock::Refusal;
use crate::schedule::Burst;
use crate::undo::{RunId, UndoId};

/// Durations as seconds with a fraction.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(serde::de::Error::custom)
    }

    pub(crate) mod option {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => to.serialize_some(&duration.as_secs_f64()),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
            let seconds = Option::<f64>::deserialize(from)?;
            seconds.map(|s| Duration::try_from_secs_f64(s).map_err(serde::de::Error::custom)).transpose()
        }
    }
}

/// How an experiment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[must_use]
pub enum Verdict {
    /// The fault acted, everything that was asked for held, nothing is left of it.
    Pass,
    /// The fault acted, and something did not hold.
    Fail,
    /// Data is missing, or the fault was not seen to act: nothing was shown either way.
    Inconclusive,
    /// It was broken off and undone.
    Aborted,
    /// Nothing was done to the agent.
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Aborted => "aborted",
            Verdict::Refused => "refused",
        })
    }
}

/// Why an experiment was broken off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "abort", rename_all = "kebab-case")]
pub enum AbortReason {
    /// Somebody asked for it.
    Operator {
        /// In their words.
        reason: String,
    },
    /// An abort condition became true.
    Condition {
        /// Which.
        check: String,
        /// The reading.
        value: f64,
    },
    /// A reading that an abort condition stands on is missing.
    MissingReading {
        /// Which.
        check: String,
    },
    /// An error budget was burned further than allowed, or it is spent.
    Budget {
        /// The SLO.
        slo: String,
        /// How much of it this experiment burned.
        burned: f64,
    },
    /// The leave to experiment ended: opt-in or environment changed, or another experiment began.
    Leave {
        /// What is in the way now.
        refusal: Refusal,
    },
    /// The kill switch ended the agent.
    KillSwitch,
    /// The guardian is gone: nobody would undo the fault if the supervisor died.
    GuardianLost {
        /// How it ended.
        reason: String,
    },
    /// The fault could not be injected in full.
    InjectFailed {
        /// Why.
        reason: String,
    },
    /// A later burst was refused.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// The whole experiment took too long.
    Deadline,
    /// The supervisor that ran it is dead; a later one has ended it.
    SupervisorDied,
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AbortReason::Operator { reason } => write!(f, "by the operator: {reason}"),
            AbortReason::Condition { check, value } => write!(f, "abort condition: {check} (it is {value:.4})"),
            AbortReason::MissingReading { check } => write!(f, "no data for the abort condition {check}"),
            AbortReason::Budget { slo, burned } => {
                write!(
                    f,
                    "{:.1} % of the budget of {slo} burned, which is all that was allowed or left",
                    burned * 100.0
                )
            }
            AbortReason::Leave { refusal } => write!(f, "no longer allowed: {refusal}"),
            AbortReason::KillSwitch => f.write_str("the kill switch ended the agent"),
            AbortReason::GuardianLost { reason } => write!(f, "the guardian is gone: {reason}"),
            AbortReason::InjectFailed { reason } => write!(f, "the fault could not be injected: {reason}"),
            AbortReason::Refused { refusal } => write!(f, "a later burst was refused: {refusal}"),
            AbortReason::Deadline => f.write_str("the experiment took too long"),
            AbortReason::SupervisorDied => f.write_str("the supervisor died in the middle of it"),
        }
    }
}

/// What became of the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum UndoState {
    /// Nothing was done to the agent.
    NothingDone,
    /// Everything was put back, and recorded as such.
    Undone,
    /// Everything was put back; the record of that failed, so the next start will do it once more, in vain.
    NotRecorded {
        /// The undo that the journal still holds open.
        id: UndoId,
        /// Why.
        reason: String,
    },
    /// Something could not be put back. The journal holds it open, and the next start tries again.
    NotUndone {
        /// The undo that the journal still holds open.
        id: UndoId,
        /// Why.
        reason: String,
    },
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Since the start.
    #[serde(with = "seconds", rename = "at_seconds")]
    pub at: Duration,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.2} s  {}", self.at.as_secs_f64(), self.what)
    }
}

/// One steady-state condition through the phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteadyLine {
    /// The condition.
    pub check: String,
    /// Its mean before.
    pub before: Option<f64>,
    /// Its mean while the fault acted.
    pub during: Option<f64>,
    /// Its last reading afterwards.
    pub after: Option<f64>,
    /// Whether it held before.
    pub held_before: Option<bool>,
    /// Whether it held during.
    pub held_during: Option<bool>,
    /// Whether it held at the end.
    pub held_after: Option<bool>,
    /// during / before x 100, for SLIs; absent where a number is missing or the baseline is 0.
    pub score: Option<f64>,
}

/// What an experiment found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// This run.
    pub run: RunId,
    /// The experiment's name.
    pub experiment: String,
    /// The agent.
    pub agent: String,
    /// The fault.
    pub fault: ReadyFault,
    /// The seed of the schedule.
    pub seed: u64,
    /// The schedule, from the beginning of the faulty phase.
    pub bursts: Vec<Burst>,
    /// The end.
    pub verdict: Verdict,
    /// Why, in sentences; never empty.
    pub reasons: Vec<String>,
    /// Why it was broken off.
    pub abort: Option<AbortReason>,
    /// Why it wasn't begun.
    pub refusals: Vec<Refusal>,
    /// The least score of all SLIs in the steady state: 100 = as before.
    pub score: Option<f64>,
    /// The steady state, line by line.
    pub steady_state: Vec<SteadyLine>,
    /// Whether the fault was seen to act, in every burst.
    pub acted: Seen,
    /// Whether nothing of it is to be seen any more.
    pub restored: Seen,
    /// What became of the way back.
    pub undo: UndoState,
    /// From the first injection until an incident was open. As exact as the readings are frequent.
    #[serde(with = "seconds::option", rename = "detection_seconds")]
    pub detection: Option<Duration>,
    /// From the last undo until the steady state held for good. Up to one look-back later than the truth.
    #[serde(with = "seconds::option", rename = "recovery_seconds")]
    pub recovery: Option<Duration>,
    /// How much of each error budget was burned, 0 to 1.
    pub budget_burned: BTreeMap<String, Option<f64>>,
    /// Safety violations from beginning to end. Any of them fails the experiment.
    pub safety_violations: Option<u64>,
    /// From start to end.
    #[serde(with = "seconds", rename = "duration_seconds")]
    pub duration: Duration,
    /// What happened when.
    pub timeline: Vec<Moment>,
    /// Lines that the timeline had no room for.
    pub timeline_dropped: u64,
}

impl Report {
    /// The report for people.
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// The report for programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only string keys and finite numbers or none")
    }
}

struct Number<'a>(Option<f64>, &'a str);

impl fmt::Display for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => f.pad(&format!("{number:.3}{}", self.1)),
            None => f.pad("no data"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} on {}: {}", self.experiment, self.fault.kind(), self.agent, self.verdict)?;
        for reason in &self.reasons {
            writeln!(f, "  {reason}")?;
        }
        if self.undo != UndoState::NothingDone {
            self.fmt_findings(f)?;
        }
        writeln!(f, "\ntimeline (run {}, seed {})", self.run, self.seed)?;
        for moment in &self.timeline {
            writeln!(f, "{moment}")?;
        }
        match self.timeline_dropped {
            0 => Ok(()),
            more => writeln!(f, "          ... and {more} more"),
        }
    }
}

impl Report {
    fn fmt_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  {:<34} {:>9} {:>9} {:>9} {:>9}", "STEADY STATE", "BEFORE", "DURING", "AFTER", "SCORE")?;
        for line in &self.steady_state {
            let SteadyLine { check, before, during, after, score, .. } = line;
            let (before, during, after) = (Number(*before, ""), Number(*during, ""), Number(*after, ""));
            let score = Number(*score, "");
            writeln!(f, "  {check:<34} {before:>9} {during:>9} {after:>9} {score:>9}")?;
        }
        let seconds = |duration: Option<Duration>| Number(duration.map(|d| d.as_secs_f64()), " s");
        writeln!(f, "\n  score       {}", Number(self.score, ""))?;
        writeln!(f, "  detected    {}", self.detection.map_or("no".into(), |d| seconds(Some(d)).to_string()))?;
        writeln!(f, "  recovered   {}", self.recovery.map_or("no".into(), |d| seconds(Some(d)).to_string()))?;
        for (slo, burned) in &self.budget_burned {
            match burned {
                Some(burned) => writeln!(f, "  budget      {} of {slo} burned", Number(Some(burned * 100.0), " %"))?,
                None => writeln!(f, "  budget      no data of {slo}")?,
            }
        }
        let violations = self.safety_violations.map_or("no data".to_owned(), |n| n.to_string());
        writeln!(f, "  safety      {violations} violations")?;
        match &self.undo {
            UndoState::NothingDone => Ok(()),
            UndoState::Undone => writeln!(f, "  undo        everything is put back"),
            UndoState::NotRecorded { id, reason } => {
                writeln!(f, "  undo        everything is put back, but that could not be recorded ({id}): {reason}")
            }
            UndoState::NotUndone { id, reason } => {
                writeln!(f, "  undo        NOT PUT BACK ({id}): {reason}. The next start tries again.")
            }
        }
    }
}
