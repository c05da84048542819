//! Points in time as the caller gives them, and a guard against clocks that step back.
//!
//! This crate reads no clock: every function that needs the time takes a [`Timestamp`]. Wall-clock milliseconds are
//! used rather than a monotonic reading because budgets outlive restarts and reboots. The price is that a wall clock
//! can step; [`Timestamp::anchored`] avoids most of it, [`Clock`] absorbs and counts the rest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A backward step up to this long is waited out: time stands still until the clock has caught up. This is what
/// samples from several threads look like. A longer step is a clock that somebody set.
pub const WAITED_OUT: Duration = Duration::from_secs(60);

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch.
    pub const ZERO: Self = Self(0);

    /// A point in time from milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time `elapsed` after `wall`: read the wall clock once at the start, a monotonic clock from then on, and no
    /// step of the wall clock reaches this crate while the process lives.
    pub fn anchored(wall: Self, elapsed: Duration) -> Self {
        wall.plus(elapsed)
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This point in time plus a span, saturating.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

/// Whole milliseconds of a span, saturating.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Never runs backwards, whatever the caller's clock does.
///
/// A step back of at most [`WAITED_OUT`] holds the time at the last reading. A longer one re-anchors: the time goes on
/// from the last reading at the caller's pace, so that no window freezes until the wall clock has caught up, and what
/// lies in the windows keeps its age. A step forward is believed: time that passed and a clock that was set look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    last: Timestamp,
    ahead_ms: u64,
    stepped_back: u64,
}

impl Clock {
    /// The time to use for something that happens `now`, never earlier than any time before it.
    pub fn observe(&mut self, now: Timestamp) -> Timestamp {
        let shifted = Timestamp(now.0.saturating_add(self.ahead_ms));
        if shifted >= self.last {
            self.last = shifted;
            return shifted;
        }
        self.stepped_back = self.stepped_back.saturating_add(1);
        if self.last.since(shifted) > WAITED_OUT {
            self.ahead_ms = self.ahead_ms.saturating_add(self.last.0 - shifted.0);
        }
        self.last
    }

    /// The time to use for a question asked `now`; changes and counts nothing.
    pub fn peek(&self, now: Timestamp) -> Timestamp {
        self.last.max(Timestamp(now.0.saturating_add(self.ahead_ms)))
    }

    /// The latest time used so far.
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// How often the caller's clock ran backwards.
    pub fn stepped_back(&self) -> u64 {
        self.stepped_back
    }
}

/// A span as people and Prometheus write it: `30d`, `1h30m`, `416ms`; `0s` for nothing.
pub fn compact(span: Duration) -> String {
    let mut rest = millis(span);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
        let count = rest / unit_ms;
        rest %= unit_ms;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn small_step_back_holds_the_time_and_is_counted() {
        let mut clock = Clock::default();
        assert_eq!(clock.observe(at(100_000)), at(100_000));
        assert_eq!(clock.observe(at(99_000)), at(100_000));
        assert_eq!(clock.observe(at(99_500)), at(100_000));
        assert_eq!(clock.observe(at(100_001)), at(100_001));
        assert_eq!(clock.stepped_back(), 2);
    }

    #[test]
    fn clock_set_back_an_hour_runs_on_from_where_it_was() {
        let mut clock = Clock::default();
        clock.observe(at(10_000_000));
        assert_eq!(clock.observe(at(6_400_000)), at(10_000_000));
        assert_eq!(clock.observe(at(6_401_000)), at(10_001_000), "an hour's step must not freeze time for an hour");
        assert_eq!(clock.stepped_back(), 1);
    }

    #[test]
    fn time_stays_monotonic_and_whole_at_the_ends_of_the_range() {
        let mut clock = Clock::default();
        assert_eq!(clock.observe(at(u64::MAX)), at(u64::MAX));
        assert_eq!(clock.observe(at(0)), at(u64::MAX));
        assert_eq!(clock.observe(at(u64::MAX)), at(u64::MAX));
        assert_eq!(at(u64::MAX).plus(Duration::MAX), at(u64::MAX));
    }

    #[test]
    fn peeking_changes_nothing() {
        let mut clock = Clock::default();
        clock.observe(at(5_000));
        let before = clock;
        assert_eq!(clock.peek(at(4_000)), at(5_000));
        assert_eq!(clock.peek(at(6_000)), at(6_000));
        assert_eq!(clock, before);
    }

    #[test]
    fn spans_read_as_people_write_them() {
        for (millis, text) in [
            (0, "0s"),
            (416, "416ms"),
            (5_000, "5s"),
            (300_000, "5m"),
            (5_400_000, "1h30m"),
            (2_592_000_000, "30d"),
            (90_061_001, "1d1h1m1s1ms"),
        ] {
            assert_eq!(compact(Duration::from_millis(millis)), text);
        }
    }
}
