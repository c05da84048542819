//! Money spent in a task, an hour, a day.
//!
//! An hour is any 60 minutes, not the one on the clock: at the full hour an agent would else have two caps. It is counted in
//! slots of a minute (a day: of a quarter of an hour) and one slot more than fits, so that the sum is of at least the last 60
//! minutes: it can be too careful by one slot, never too generous.

use crate::price::Money;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Over which time money is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// The task at hand.
    Task,
    /// Any 60 minutes.
    Hour,
    /// Any 24 hours.
    Day,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "task",
            Self::Hour => "hour",
            Self::Day => "day",
        })
    }
}

/// Slots in an hour and in a day.
const HOUR: (Duration, u64) = (Duration::from_secs(60), 60);
const DAY: (Duration, u64) = (Duration::from_secs(15 * 60), 96);

/// Money by the time when it was spent.
#[derive(Clone, Debug)]
pub struct Spend {
    slot: Duration,
    slots: u64,
    /// Number of the slot since the beginning of time, and what was spent in it; the oldest first, none of them empty, at most
    /// `slots` + 1.
    spent: VecDeque<(u64, Money)>,
    sum: Money,
}

impl Spend {
    /// Of any 60 minutes.
    pub fn hour() -> Self {
        Self::of(HOUR)
    }

    /// Of any 24 hours.
    pub fn day() -> Self {
        Self::of(DAY)
    }

    fn of((slot, slots): (Duration, u64)) -> Self {
        Self { slot, slots, spent: VecDeque::new(), sum: Money::ZERO }
    }

    fn slot_of(&self, at: Duration) -> u64 {
        u64::try_from(at.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, now: Duration) {
        let current = self.slot_of(now);
        while self.spent.front().is_some_and(|(slot, _)| slot.saturating_add(self.slots) < current) {
            self.spent.pop_front();
        }
        self.sum = self.spent.iter().fold(Money::ZERO, |sum, (_, money)| sum.plus(*money));
    }

    /// What was spent until `now` and still counts.
    pub fn sum(&mut self, now: Duration) -> Money {
        if self.spent.front().is_some_and(|(slot, _)| slot.saturating_add(self.slots) < self.slot_of(now)) {
            self.forget(now);
        }
        self.sum
    }

    /// `money` was spent at `now`.
    pub fn add(&mut self, money: Money, now: Duration) {
        if money.is_zero() {
            return;
        }
        // A clock that went back counts into the newest slot.
        let slot = self.spent.back().map_or(0, |(slot, _)| *slot).max(self.slot_of(now));
        match self.spent.back_mut() {
            Some((newest, sum)) if *newest == slot => *sum = sum.plus(money),
            _ => self.spent.push_back((slot, money)),
        }
        self.sum = self.sum.plus(money);
        self.forget(now);
    }

    /// How long from `now` until what counts is at most `most`.
    pub fn until(&self, most: Money, now: Duration) -> Duration {
        let mut left = self.sum;
        for (slot, money) in &self.spent {
            if left <= most {
                break;
            }
            left = left.minus(*money);
            if left <= most {
                let gone = slot.saturating_add(self.slots).saturating_add(1);
                let at = u32::try_from(gone).map_or(Duration::MAX, |gone| self.slot.saturating_mul(gone));
                return at.saturating_sub(now);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The sum is never less than what the last 60 minutes saw, and never more than what the last 61 saw.
        #[test]
        fn the_sum_is_of_the_last_hour(spends in prop::collection::vec((0u64..900, 0u64..1000), 1..80)) {
            let (mut spend, mut now, mut all) = (Spend::hour(), Duration::ZERO, Vec::new());
            for (seconds, nanos) in spends {
                now += Duration::from_secs(seconds);
                spend.add(Money::from_nanos(nanos), now);
                all.push((now, nanos));
                let since = |length: Duration| -> u64 {
                    all.iter().filter(|(at, _)| now.saturating_sub(*at) < length).map(|(_, nanos)| nanos).sum()
                };
                let sum = spend.sum(now).nanos();
                prop_assert!(sum >= since(Duration::from_secs(3600)));
                prop_assert!(sum <= since(Duration::from_secs(3660)));
                prop_assert!(spend.spent.len() <= 61);
            }
            let wait = spend.until(Money::ZERO, now);
            prop_assert_eq!(spend.clone().sum(now + wait), Money::ZERO);
            if !wait.is_zero() {
                prop_assert!(spend.sum(now + wait - Duration::from_nanos(1)) > Money::ZERO);
            }
        }
    }
}
