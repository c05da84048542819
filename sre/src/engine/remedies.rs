//! One remedy over time: silent, then in force from the moment its trigger holds until it has been quiet for a while.
//!
//! ```text
//!            trigger holds, bad events since the last rearm
//!   silent ------------------------------------------------> in force   (one verdict)
//!      ^                                                        |
//!      |   quiet for the hold time, and the budget has recovered|
//!      +--------------------------------------------------------+
//! ```
//!
//! A trip is different: it is an event, not a state, so each new one speaks again, also while the last is in force.
//! Otherwise an agent revived by an operator could try its next escape unanswered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reading::Reading;
use crate::burn::LookBack;
use crate::remedy::{Action, RELEASE_LEFT, RELEASE_MARGIN, Remedy, Trigger};
use crate::slo::{Slo, SloName};
use crate::time::Timestamp;

/// A remedy that binds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InForce {
    /// Which SLO.
    pub slo: SloName,
    /// What called for it.
    pub on: Trigger,
    /// What it is.
    pub action: Action,
    /// Since when, in the engine's own monotonic reckoning.
    pub since: Timestamp,
}

/// What is remembered of a remedy; also what a snapshot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    pub(super) since: Option<Timestamp>,
    pub(super) quiet_since: Option<Timestamp>,
    /// Bad events at the last rearm: it takes one more to act again.
    pub(super) rearmed_at_bad: Option<u64>,
    pub(super) trips_seen: u64,
}

/// One remedy of one SLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RemedyState {
    pub(super) remedy: Remedy,
    pub(super) memory: Memory,
}

impl RemedyState {
    pub(super) fn new(remedy: Remedy) -> Self {
        Self { remedy, memory: Memory::default() }
    }

    /// How long a trigger must be quiet before its remedy lets go: the long window of the fast page, so an hour for 30
    /// days. The short window alone would let go five minutes after the last bad event.
    pub(super) fn hold(slo: &Slo) -> Duration {
        LookBack::H1.scaled(slo.period)
    }

    /// Follows a reading. Whether a verdict is due.
    pub(super) fn step(&mut self, slo: &Slo, reading: &Reading, now: Timestamp) -> bool {
        if self.remedy.on == Trigger::Trip {
            return self.step_trip(reading, now);
        }
        let holds = reading.holds(slo, self.remedy.on);
        match self.memory.since {
            None => {
                let news = self.memory.rearmed_at_bad.is_none_or(|bad| reading.total_bad > bad);
                let enters = holds && news;
                if enters {
                    self.memory = Memory { since: Some(now), ..Memory::default() };
                }
                enters
            }
            Some(_) => {
                if holds || !self.has_recovered(slo, reading) {
                    self.memory.quiet_since = None;
                } else {
                    let quiet_since = *self.memory.quiet_since.get_or_insert(now);
                    if now.since(quiet_since) >= Self::hold(slo) {
                        self.memory = Memory::default();
                    }
                }
                false
            }
        }
    }

    fn step_trip(&mut self, reading: &Reading, now: Timestamp) -> bool {
        let enters = reading.trip_count > self.memory.trips_seen;
        self.memory.trips_seen = reading.trip_count;
        if enters {
            self.memory.since = Some(now);
        } else if reading.trip.is_none() {
            self.memory.since = None;
        }
        enters
    }

    fn has_recovered(&self, slo: &Slo, reading: &Reading) -> bool {
        match self.remedy.on {
            Trigger::Exhausted => reading.budget_at_least(slo, RELEASE_LEFT),
            Trigger::Budget(below) => reading.budget_at_least(slo, below.plus(RELEASE_MARGIN)),
            Trigger::Ticket | Trigger::Page | Trigger::Trip => true,
        }
    }

    pub(super) fn rearm(&mut self, total_bad: u64) {
        let trips_seen = self.memory.trips_seen;
        self.memory = Memory { rearmed_at_bad: Some(total_bad), trips_seen, ..Memory::default() };
    }

    pub(super) fn in_force(&self, slo: &Slo) -> Option<InForce> {
        let since = self.memory.since?;
        Some(InForce { slo: slo.name.clone(), on: self.remedy.on, action: self.remedy.action, since })
    }
}
