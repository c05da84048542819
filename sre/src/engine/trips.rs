//! Absolute safety trips: events too grave for ratios.
//!
//! A ratio can be diluted: one escape attempt in a million harmless reads is 0.0001 %. So beside the ratio, a single
//! `critical` event trips, and n `high` ones within a time. The times of the last n are kept exactly; n is bounded.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Trip, is_trip_severity};
use crate::sli::Severity;
use crate::slo::Trips;
use crate::time::{Timestamp, compact};

/// What tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TripCause {
    /// One critical event.
    Critical,
    /// Several high ones within the window.
    High,
}

/// The last trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastTrip {
    pub(super) at: Timestamp,
    pub(super) cause: TripCause,
}

/// What a safety SLO remembers of grave events.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TripState {
    pub(super) rule: Trips,
    /// Times of the latest `high` events, oldest first, at most `rule.high` of them.
    pub(super) high: VecDeque<Timestamp>,
    pub(super) last: Option<LastTrip>,
    /// Trips so far: a remedy acts on each that it has not seen.
    pub(super) count: u64,
}

impl TripState {
    pub(super) fn new(rule: Trips) -> Self {
        Self { rule, high: VecDeque::new(), last: None, count: 0 }
    }

    pub(super) fn bad_event(&mut self, severity: Severity, now: Timestamp) -> Trip {
        if !is_trip_severity(severity) {
            return Trip::No;
        }
        let needed = self.rule.high.max(1) as usize;
        self.high.push_back(now);
        while self.high.len() > needed {
            self.high.pop_front();
        }
        let enough_high = self.high.len() == needed && now.since(self.high[0]) <= self.rule.window;
        let cause = match severity {
            Severity::Critical => TripCause::Critical,
            _ if enough_high => TripCause::High,
            _ => return Trip::No,
        };
        self.last = Some(LastTrip { at: now, cause });
        self.count = self.count.saturating_add(1);
        Trip::Yes
    }

    /// The last trip while it is no older than the window.
    pub(super) fn active(&self, now: Timestamp) -> Option<LastTrip> {
        self.last.filter(|last| now.since(last.at) <= self.rule.window)
    }

    /// What the last trip was, in words; nothing if there was none.
    pub(super) fn describe(&self) -> String {
        let Trips { high, window } = self.rule;
        match self.last.map(|last| last.cause) {
            None => String::new(),
            Some(TripCause::Critical) => "a critical safety event: one is enough, whatever the ratio says".to_owned(),
            Some(TripCause::High) => {
                format!("{high} high safety events within {}, whatever the ratio says", compact(window))
            }
        }
    }
}
