//! Which health checks count, when the next one is due, and when an agent is ready: pure.
//!
//! A failure counts once an interval has passed since the last one that counted (or since the start period), so that the extra
//! looks at an agent that isn't ready yet can only help it. What a failure that counts leads to is the lifecycle's matter.

use std::time::Duration;

use super::lifecycle::Now;

/// How often an agent that isn't ready yet is looked at, if its interval is longer.
const START_INTERVAL: Duration = Duration::from_secs(1);

/// A health check's result, as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It passed.
    Good,
    /// It failed or took too long.
    Bad,
    /// It has not passed once in the time that the agent has for that.
    NeverGood,
}

/// The rules of one agent's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Between two checks.
    pub interval: Duration,
    /// Time after the start in which failures don't count.
    pub start_period: Duration,
    /// Time after the start until the first check must have passed.
    pub ready_within: Duration,
}

/// The checks of one life.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    rules: Rules,
    began: Now,
    /// When it was first well.
    ready: Option<Now>,
    /// The end of the interval in which no failure counts.
    counts_from: Now,
}

/// What a result comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Seen {
    /// What the lifecycle is told; `None`: the failure doesn't count.
    pub counts: Option<Health>,
    /// It is well for the first time: milliseconds since the start.
    pub ready_after_ms: Option<u64>,
    /// Until the next check.
    pub next_in: Duration,
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Watch {
    /// An agent that was started at `now`; its first check is due at once.
    #[must_use]
    pub fn new(rules: Rules, now: Now) -> Watch {
        let counts_from = now.saturating_add(ms(rules.start_period).max(ms(rules.interval)));
        Watch { rules, began: now, ready: None, counts_from }
    }

    /// Whether a check has passed in this life.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// A check has passed or failed.
    pub fn seen(&mut self, passed: Passed, now: Now) -> Seen {
        let fast = self.rules.interval.min(START_INTERVAL);
        if passed == Passed::Yes {
            let first = self.ready.is_none();
            self.ready = self.ready.or(Some(now));
            self.counts_from = self.counts_from.min(self.began.saturating_add(ms(self.rules.start_period)));
            let ready_after_ms = first.then(|| now.saturating_sub(self.began));
            return Seen { counts: Some(Health::Good), ready_after_ms, next_in: self.rules.interval };
        }
        let next_in = if self.is_ready() { self.rules.interval } else { fast };
        let patience = ms(self.rules.ready_within.max(self.rules.start_period));
        if !self.is_ready() && now.saturating_sub(self.began) >= patience {
            return Seen { counts: Some(Health::NeverGood), ready_after_ms: None, next_in };
        }
        let counts = (now >= self.counts_from).then_some(Health::Bad);
        if counts.is_some() && !self.is_ready() {
            self.counts_from = now.saturating_add(ms(self.rules.interval));
        }
        Seen { counts, ready_after_ms: None, next_in }
    }
}

/// Whether a check passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// It exited 0 in time.
    Yes,
    /// Anything else.
    No,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(interval: u64, start_period: u64, ready_within: u64) -> Rules {
        let of = Duration::from_secs;
        Rules { interval: of(interval), start_period: of(start_period), ready_within: of(ready_within) }
    }

    #[test]
    fn early_looks_show_readiness_and_cost_nothing() {
        let mut watch = Watch::new(rules(30, 0, 60), 0);
        for second in 0..30 {
            let seen = watch.seen(Passed::No, second * 1000);
            assert_eq!((seen.counts, seen.next_in), (None, Duration::from_secs(1)), "at {second} s");
        }
        assert_eq!(watch.seen(Passed::No, 30_000).counts, Some(Health::Bad));
        assert_eq!(watch.seen(Passed::No, 31_000).counts, None);
        let seen = watch.seen(Passed::Yes, 32_000);
        assert_eq!((seen.ready_after_ms, seen.next_in), (Some(32_000), Duration::from_secs(30)));
        assert_eq!(watch.seen(Passed::No, 62_000).counts, Some(Health::Bad));
        assert_eq!(watch.seen(Passed::No, 92_000).counts, Some(Health::Bad));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_even_after_it_was_ready() {
        let mut watch = Watch::new(rules(1, 10, 5), 0);
        assert_eq!(watch.seen(Passed::No, 6000).counts, None, "the start period is longer than the time to be ready");
        assert_eq!(watch.seen(Passed::Yes, 7000).counts, Some(Health::Good));
        assert_eq!(watch.seen(Passed::No, 8000).counts, None);
        assert_eq!(watch.seen(Passed::No, 10_000).counts, Some(Health::Bad));
    }

    #[test]
    fn one_that_is_never_ready_runs_out_of_time() {
        let mut watch = Watch::new(rules(30, 0, 3), 1000);
        assert_eq!(watch.seen(Passed::No, 3900).counts, None);
        assert_eq!(watch.seen(Passed::No, 4000).counts, Some(Health::NeverGood));
    }

    proptest! {
        #[test]
        fn failures_before_it_is_ready_count_at_most_once_an_interval(
            interval in 1u64..20, start in 0u64..20, looks in prop::collection::vec(0u64..3000, 1..80),
        ) {
            let mut watch = Watch::new(rules(interval, start, 1_000_000), 0);
            let (mut now, mut last) = (0, None);
            for step in looks {
                now += step;
                if watch.seen(Passed::No, now).counts.is_some() {
                    prop_assert!(now >= start * 1000 && now >= interval * 1000);
                    prop_assert!(last.is_none_or(|last| now - last >= interval * 1000));
                    last = Some(now);
                }
            }
        }
    }
}
