//! A token bucket of whole numbers.
//!
//! The level is kept in amounts times the nanoseconds of the period, so that a refill of any length is exact: no drift, however
//! often it is asked. A bucket can be owed: a call whose size was not known takes what it used, and those after it wait.

use std::time::Duration;

/// So much in a period, and at most so much at once.
#[derive(Clone, Debug)]
pub struct Bucket {
    capacity: u64,
    period: Duration,
    /// Amount times nanoseconds of the period; below zero: owed.
    level: i128,
    /// When the level was true.
    at: Duration,
}

impl Bucket {
    /// A full bucket of `capacity` that fills in `period`. A capacity of 0 lets nothing through.
    pub fn full(capacity: u64, period: Duration, now: Duration) -> Self {
        let period = period.max(Duration::from_nanos(1));
        let mut bucket = Self { capacity, period, level: 0, at: now };
        bucket.level = bucket.scaled(capacity);
        bucket
    }

    fn scaled(&self, amount: u64) -> i128 {
        // 2^64 amounts of 2^63 nanoseconds (292 years) are 2^127 - 1 at most.
        let nanos = i64::try_from(self.period.as_nanos()).unwrap_or(i64::MAX);
        i128::from(amount).saturating_mul(i128::from(nanos))
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let nanos = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX);
        let gained = nanos.saturating_mul(i128::from(self.capacity));
        self.level = self.level.saturating_add(gained).min(self.scaled(self.capacity));
    }

    /// What is in it now; 0 where it is owed.
    pub fn level(&mut self, now: Duration) -> u64 {
        self.refill(now);
        u64::try_from(self.level.max(0) / self.scaled(1)).unwrap_or(u64::MAX)
    }

    /// Takes `amount`, or says how long until it is there. More than the bucket holds is taken from a full one, which is then
    /// owed: else it could never be taken.
    pub fn take(&mut self, amount: u64, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        let need = self.scaled(amount.min(self.capacity)).max(self.scaled(u64::from(self.capacity == 0)));
        if self.level < need {
            return Err(self.until(need));
        }
        self.level = self.level.saturating_sub(self.scaled(amount));
        Ok(())
    }

    fn until(&self, need: i128) -> Duration {
        if self.capacity == 0 {
            return Duration::MAX;
        }
        let missing = need - self.level;
        let capacity = i128::from(self.capacity);
        let nanos = missing / capacity + i128::from(missing % capacity != 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Puts back what was taken and not used, or takes what was used beyond.
    pub fn correct(&mut self, taken: u64, used: u64, now: Duration) {
        self.refill(now);
        let back = self.scaled(taken).saturating_sub(self.scaled(used));
        self.level = self.level.saturating_add(back).min(self.scaled(self.capacity));
    }

    /// The same bucket with another capacity: what was taken from the old one stays taken.
    pub fn resize(&mut self, capacity: u64, now: Duration) {
        self.refill(now);
        let taken = self.scaled(self.capacity).saturating_sub(self.level);
        self.capacity = capacity;
        self.level = self.scaled(capacity).saturating_sub(taken);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_empty_bucket_says_when_and_keeps_its_word() {
        let mut bucket = Bucket::full(6, MINUTE, Duration::ZERO);
        for _ in 0..6 {
            bucket.take(1, Duration::ZERO).unwrap();
        }
        let wait = bucket.take(1, Duration::ZERO).unwrap_err();
        assert_eq!(wait, Duration::from_secs(10));
        assert!(bucket.take(1, wait - Duration::from_nanos(1)).is_err());
        bucket.take(1, wait).unwrap();
    }

    #[test]
    fn a_bucket_of_nothing_gives_nothing() {
        let mut bucket = Bucket::full(0, MINUTE, Duration::ZERO);
        assert_eq!(bucket.take(0, MINUTE * 100), Err(Duration::MAX));
        assert_eq!(bucket.take(1, MINUTE * 100), Err(Duration::MAX));
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_once_and_is_owed() {
        let mut bucket = Bucket::full(10, MINUTE, Duration::ZERO);
        bucket.take(30, Duration::ZERO).unwrap();
        assert_eq!(bucket.take(1, Duration::ZERO), Err(Duration::from_secs(126)));
        bucket.correct(30, 5, Duration::ZERO);
        assert_eq!(bucket.level(Duration::ZERO), 5);
    }

    #[test]
    fn a_smaller_bucket_keeps_what_was_taken() {
        let mut bucket = Bucket::full(100, MINUTE, Duration::ZERO);
        bucket.take(50, Duration::ZERO).unwrap();
        bucket.resize(60, Duration::ZERO);
        assert_eq!(bucket.level(Duration::ZERO), 10);
        bucket.resize(20, Duration::ZERO);
        assert!(bucket.take(1, Duration::ZERO).is_err());
    }

    proptest! {
        /// Whatever is asked when, no stretch of time lets through more than its share and one full bucket.
        #[test]
        fn no_stretch_of_time_lets_more_through(
            capacity in 1u64..100,
            asks in prop::collection::vec((0u64..20_000, 1u64..20), 1..100),
        ) {
            let mut bucket = Bucket::full(capacity, MINUTE, Duration::ZERO);
            let (mut now, mut passed) = (Duration::ZERO, Vec::new());
            for (millis, amount) in asks {
                now += Duration::from_millis(millis);
                let amount = amount.min(capacity);
                match bucket.take(amount, now) {
                    Ok(()) => passed.push((now, amount)),
                    Err(wait) => {
                        prop_assert!(bucket.clone().take(amount, now + wait).is_ok());
                        prop_assert!(bucket.clone().take(amount, now + wait - Duration::from_nanos(1)).is_err());
                    }
                }
            }
            for (i, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (at, amount) in &passed[i..] {
                    sum += amount;
                    let most = u128::from(capacity) * (*at - *from).as_nanos() / MINUTE.as_nanos() + u128::from(capacity);
                    prop_assert!(u128::from(sum) <= most, "{sum} in {:?} of {capacity}", *at - *from);
                }
            }
        }
    }
}
