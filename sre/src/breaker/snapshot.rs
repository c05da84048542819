//! What a breaker keeps over a restart.
//!
//! Permits do not survive one, so a half-open breaker comes back as an open one whose time is up: its next call is
//! again a first probe. Settings are not kept; they come from the file, and a window that they change starts empty.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calls::{Calls, SavedCalls};
use super::{Breaker, BreakerSettings, Phase};
use crate::error::Error;
use crate::time::{Clock, Timestamp};

/// The version that this build writes and reads.
const VERSION: u32 = 1;
const WHAT: &str = "breaker";

/// A breaker's memory, to be stored and given to [`Breaker::restore`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSnapshot {
    version: u32,
    clock: Clock,
    phase: SavedPhase,
    streak: u32,
    closed_after: Option<ClosedAfter>,
    opened_total: u64,
    ignored_total: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum SavedPhase {
    Closed(SavedCalls),
    Open { until: Timestamp },
    ForcedOpen,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClosedAfter {
    at: Timestamp,
    was_open_ms: u64,
}

impl Breaker {
    /// All that must outlive a restart.
    pub fn snapshot(&self) -> BreakerSnapshot {
        let phase = match &self.phase {
            Phase::Closed { calls } => SavedPhase::Closed(calls.save()),
            Phase::Open { until } => SavedPhase::Open { until: *until },
            Phase::HalfOpen { .. } => SavedPhase::Open { until: self.clock.last() },
            Phase::ForcedOpen => SavedPhase::ForcedOpen,
            Phase::Disabled => SavedPhase::Disabled,
        };
        let closed_after =
            self.closed_after.map(|(at, was_open)| ClosedAfter { at, was_open_ms: crate::time::millis(was_open) });
        BreakerSnapshot {
            version: VERSION,
            clock: self.clock,
            phase,
            streak: self.streak,
            closed_after,
            opened_total: self.opened_total,
            ignored_total: self.ignored_total,
        }
    }

    /// A breaker that goes on where the snapshot ended. Fails on bad settings, on a snapshot of another version and on
    /// one that no run can have written.
    pub fn restore(settings: BreakerSettings, snapshot: &BreakerSnapshot, now: Timestamp) -> Result<Self, Error> {
        if snapshot.version != VERSION {
            return Err(Error::SnapshotVersion { what: WHAT, found: snapshot.version, supported: VERSION });
        }
        let damaged = |problem| Error::SnapshotDamaged { what: WHAT, problem };
        let mut breaker = Self::new(settings)?;
        let last = snapshot.clock.last();
        breaker.phase = match &snapshot.phase {
            SavedPhase::Closed(saved) => {
                let calls = Calls::load(&breaker.settings.window, saved, last);
                Phase::Closed { calls: calls.ok_or_else(|| damaged("calls that no run can have counted"))? }
            }
            SavedPhase::Open { until } => {
                // Shorter settings shorten an interval that is running; a damaged time can't keep it open for ever.
                let longest = breaker.settings.interval(u32::MAX, super::Jitter::new(1.0));
                Phase::Open { until: (*until).min(last.plus(longest)) }
            }
            SavedPhase::ForcedOpen => Phase::ForcedOpen,
            SavedPhase::Disabled => Phase::Disabled,
        };
        if snapshot.closed_after.is_some_and(|closed| closed.at > last) {
            return Err(damaged("a time from the future"));
        }
        breaker.clock = snapshot.clock;
        breaker.streak = snapshot.streak;
        breaker.closed_after =
            snapshot.closed_after.map(|closed| (closed.at, Duration::from_millis(closed.was_open_ms)));
        breaker.opened_total = snapshot.opened_total;
        breaker.ignored_total = snapshot.ignored_total;
        breaker.clock.observe(now);
        Ok(breaker)
    }
}
