//! What trust keeps over a restart: a score must not be forgotten because a process ended.

use serde::{Deserialize, Serialize};

use super::{Score, Trust, TrustPolicy, WHAT};
use crate::error::Error;
use crate::time::{Clock, Timestamp};

/// The version that this build writes and reads.
const VERSION: u32 = 1;

/// A trust score's memory, to be stored and given to [`Trust::restore`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSnapshot {
    version: u32,
    clock: Clock,
    points: f64,
    at: Timestamp,
    baseline: Score,
    gain_left: f64,
    successes: u64,
    violations: u64,
    own_praise: u64,
}

impl Trust {
    /// All that must outlive a restart.
    pub fn snapshot(&self) -> TrustSnapshot {
        TrustSnapshot {
            version: VERSION,
            clock: self.clock,
            points: self.points,
            at: self.at,
            baseline: self.baseline,
            gain_left: self.gain_left,
            successes: self.successes,
            violations: self.violations,
            own_praise: self.own_praise,
        }
    }

    /// Trust that goes on where the snapshot ended; the time in between counts as silence. Fails on a bad policy, on a
    /// snapshot of another version and on one that no run can have written.
    pub fn restore(policy: TrustPolicy, snapshot: &TrustSnapshot, now: Timestamp) -> Result<Self, Error> {
        if snapshot.version != VERSION {
            return Err(Error::SnapshotVersion { what: WHAT, found: snapshot.version, supported: VERSION });
        }
        let damaged = |problem| Err(Error::SnapshotDamaged { what: WHAT, problem });
        if !(0.0..=1000.0).contains(&snapshot.points) {
            return damaged("the score is not between 0 and 1000");
        }
        if !(0.0..=1000.0).contains(&snapshot.gain_left) {
            return damaged("the day's allowance is not between 0 and 1000");
        }
        if snapshot.at > snapshot.clock.last() {
            return damaged("a time from the future");
        }
        let mut trust = Self::new(snapshot.baseline, policy, now)?;
        trust.clock = snapshot.clock;
        trust.points = snapshot.points;
        trust.at = snapshot.at;
        trust.gain_left = snapshot.gain_left.min(policy.gain_per_day);
        trust.successes = snapshot.successes;
        trust.violations = snapshot.violations;
        trust.own_praise = snapshot.own_praise;
        trust.clock.observe(now);
        Ok(trust)
    }
}
