//! The state of an SLO as data: what `slo`, `ps`, `--json` and the metrics show.
//!
//! No invented numbers: where there are no events there is no budget and no burn, and the state is `unknown`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Track;
use super::reading::Reading;
use super::trips::TripCause;
use crate::budget::Budget;
use crate::burn::{Alert, LookBack, burn_rate};
use crate::ratio::Objective;
use crate::remedy::Action;
use crate::sli::{Counts, Sli};
use crate::slo::SloName;
use crate::time::Timestamp;

/// How an SLO stands, best first: of several, the greatest is the one to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Enough events, budget left, no alert.
    Healthy,
    /// Too few events to say anything. Never the same as healthy.
    Unknown,
    /// A ticket alert, or less than a fifth of the budget left.
    Warning,
    /// A page alert, or a safety trip.
    Critical,
    /// The budget is spent.
    Exhausted,
}

impl Status {
    /// All, best first.
    pub const ALL: [Self; 5] = [Self::Healthy, Self::Unknown, Self::Warning, Self::Critical, Self::Exhausted];

    /// The word used in output and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Exhausted => "exhausted",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Events of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Events {
    /// Good ones.
    pub good: u64,
    /// Bad ones, whoever reported them.
    pub bad: u64,
    /// Those of `bad` that are only the agent's own word.
    pub self_reported_bad: u64,
}

impl From<Counts> for Events {
    fn from(counts: Counts) -> Self {
        Self { good: counts.good, bad: counts.bad, self_reported_bad: counts.claimed }
    }
}

/// The burn rate over one look-back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BurnReading {
    /// The look-back, by its name for a period of 30 days.
    pub look_back: LookBack,
    /// Its length for this SLO's period, in seconds.
    pub seconds: f64,
    /// How many times faster than the period allows the budget is being spent; none without events.
    pub rate: Option<f64>,
    /// Events in it.
    pub events: Events,
}

/// Whether an alert holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It holds now.
    Firing,
    /// It does not.
    Quiet,
}

impl From<bool> for AlertState {
    fn from(firing: bool) -> Self {
        if firing { Self::Firing } else { Self::Quiet }
    }
}

/// The state of one SLO.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SloStatus {
    /// Which SLO.
    pub slo: SloName,
    /// What it counts.
    pub sli: Sli,
    /// How it stands.
    pub status: Status,
    /// The share that must be good.
    pub objective: Objective,
    /// The rolling period, in seconds.
    pub period_seconds: f64,
    /// Share of the period's events that are bad; none without events.
    pub error_ratio: Option<f64>,
    /// The error budget; none without events.
    pub budget: Option<Budget>,
    /// Burn rates, shortest look-back first.
    pub burn: Vec<BurnReading>,
    /// The page alert.
    pub page: AlertState,
    /// The ticket alert.
    pub ticket: AlertState,
    /// The cause of a safety trip no older than its window.
    pub trip: Option<TripCause>,
    /// Safety trips ever counted.
    pub trips_total: u64,
    /// Events in the period.
    pub events: Events,
    /// Events ever counted, for counters that only grow.
    pub events_total: Events,
    /// When the last event was counted.
    pub last_event: Option<Timestamp>,
    /// Remedies that bind, gravest first.
    pub in_force: Vec<Action>,
}

impl SloStatus {
    pub(super) fn of(track: &Track, now: Timestamp) -> Self {
        let slo = &track.slo;
        let reading = Reading::of(track, now);
        let burn = LookBack::ALL.map(|look_back| BurnReading {
            look_back,
            seconds: look_back.scaled(slo.period).as_secs_f64(),
            rate: burn_rate(reading.look_back(look_back), slo.objective),
            events: reading.look_back(look_back).into(),
        });
        let bound = track.remedies.iter().filter(|state| state.memory.since.is_some());
        let mut in_force: Vec<Action> = bound.map(|state| state.remedy.action).collect();
        in_force.sort_by_key(|action| std::cmp::Reverse(*action));
        in_force.dedup();
        Self {
            slo: slo.name.clone(),
            sli: slo.sli,
            status: reading.status,
            objective: slo.objective,
            period_seconds: slo.period.as_secs_f64(),
            error_ratio: reading.period.error_ratio(),
            budget: reading.budget,
            burn: burn.to_vec(),
            page: reading.alert(Alert::Page).into(),
            ticket: reading.alert(Alert::Ticket).into(),
            trip: reading.trip.map(|last| last.cause),
            trips_total: reading.trip_count,
            events: reading.period.into(),
            events_total: track.windows.total().into(),
            last_event: track.last_event,
            in_force,
        }
    }

    /// The burn rate over one look-back; `None` without events.
    pub fn burn_over(&self, look_back: LookBack) -> Option<f64> {
        self.burn.iter().find(|reading| reading.look_back == look_back).and_then(|reading| reading.rate)
    }

    /// Share of the budget left, 0..=1; `None` without events.
    pub fn budget_left(&self) -> Option<f64> {
        self.budget.map(|budget| budget.left_ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_ordered_from_healthy_to_exhausted_with_unknown_worse_than_healthy() {
        assert!(Status::ALL.is_sorted());
        assert!(Status::Healthy < Status::Unknown && Status::Unknown < Status::Warning);
        assert!(Status::Warning < Status::Critical && Status::Critical < Status::Exhausted);
    }
}
