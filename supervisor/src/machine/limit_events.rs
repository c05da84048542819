//! When the meeting of a limit is worth telling: pure.
//!
//! The kernel counts every time; an agent that lives at its limit meets it a thousand times a second. So the first time is told at
//! once, and what follows is gathered and told as a number, after a minute, then two, then four, up to an hour, as long as it goes
//! on; one such span without any, and the next is a first time again. Nothing is lost by that: what is told adds up to what the
//! kernel counted, except for the CPU, whose quota is met by every busy agent: there only spans are told in which it was held back
//! in at least half of the periods.

use std::time::Duration;

use agt_rings::cgroup::Hits;
use serde::{Deserialize, Serialize};

use super::lifecycle::Now;

/// How long after the first time the following ones are gathered.
const GATHER_FIRST: Duration = Duration::from_secs(60);
/// The longest span that is gathered.
const GATHER_MOST: Duration = Duration::from_secs(3600);
/// Fewer CPU periods (100 ms each) than this are no measure.
const PERIODS_MIN: u64 = 10;

/// A limit that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At the memory limit a process was ended by the OOM killer.
    OomKill,
    /// The memory limit: memory was reclaimed.
    Memory,
    /// `memory.high`: slowed down (only where somebody else has set it).
    MemoryHigh,
    /// The tasks limit: a fork or clone was refused.
    Tasks,
    /// The CPU quota: it waited for the next period.
    Cpu,
}

impl Limit {
    /// All of them, gravest first.
    pub const ALL: [Limit; 5] = [Limit::OomKill, Limit::Memory, Limit::MemoryHigh, Limit::Tasks, Limit::Cpu];

    /// The word of metrics and records.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Limit::OomKill => "oom_kill",
            Limit::Memory => "memory",
            Limit::MemoryHigh => "memory_high",
            Limit::Tasks => "tasks",
            Limit::Cpu => "cpu",
        }
    }

    /// How often it was met.
    #[must_use]
    pub fn count(self, hits: &Hits) -> Option<u64> {
        match self {
            Limit::OomKill => hits.oom_kills,
            Limit::Memory => hits.memory,
            Limit::MemoryHigh => hits.memory_high,
            Limit::Tasks => hits.tasks,
            Limit::Cpu => hits.cpu_throttled_periods,
        }
    }
}

/// Something to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Met {
    /// Which limit.
    pub limit: Limit,
    /// How often since it was last told.
    pub times: u64,
    /// How long ago that was; `None`: it is told for the first time.
    pub since: Option<Duration>,
}

/// What is known of one limit.
#[derive(Debug, Clone, Copy, Default)]
struct Gauge {
    /// The kernel's count at the last look.
    seen: u64,
    /// Met and not told yet.
    untold: u64,
    /// When it was last told, and how long is gathered from then on.
    told: Option<(Now, Duration)>,
}

/// The limits of one agent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    gauges: [Gauge; Limit::ALL.len()],
    periods: u64,
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Meter {
    /// A new life has a new group, whose counts begin at 0. What was told is still told: an agent that is restarted again and again
    /// says the same thing no more often for that.
    pub fn begin(&mut self) {
        self.gauges.iter_mut().for_each(|gauge| gauge.seen = 0);
        self.periods = 0;
    }

    /// A look at the counts; what is worth telling now. Counts that went back or are unknown are no news.
    pub fn look(&mut self, hits: &Hits, now: Now) -> Vec<Met> {
        let held_back = self.held_back(hits);
        let mut told = Vec::new();
        for (gauge, limit) in self.gauges.iter_mut().zip(Limit::ALL) {
            // Too few periods to judge: these are looked at together with the next ones.
            let judged = limit != Limit::Cpu || held_back.is_some();
            if let Some(count) = limit.count(hits).filter(|_| judged) {
                let new = count.saturating_sub(gauge.seen);
                gauge.seen = gauge.seen.max(count);
                if limit != Limit::Cpu || held_back == Some(true) {
                    gauge.untold = gauge.untold.saturating_add(new);
                }
            }
            told.extend(gauge.tell(now).map(|(times, since)| Met { limit, times, since }));
        }
        told
    }

    /// Whether the CPU quota ran out in at least half of the periods since the last verdict; `None`: there were too few.
    fn held_back(&mut self, hits: &Hits) -> Option<bool> {
        let passed = hits.cpu_periods?.saturating_sub(self.periods);
        if passed < PERIODS_MIN {
            return None;
        }
        self.periods = hits.cpu_periods?;
        let cpu = Limit::ALL.iter().position(|limit| *limit == Limit::Cpu).expect("it is one of them");
        Some(hits.cpu_throttled_periods?.saturating_sub(self.gauges[cpu].seen).saturating_mul(2) >= passed)
    }
}

impl Gauge {
    fn tell(&mut self, now: Now) -> Option<(u64, Option<Duration>)> {
        match self.told {
            Some((at, gather)) if now.saturating_sub(at) < ms(gather) => None,
            // A whole span without any: the next is a first time again.
            Some(_) if self.untold == 0 => {
                self.told = None;
                None
            }
            _ if self.untold == 0 => None,
            told => {
                let gather = told.map_or(GATHER_FIRST, |(_, gather)| (gather * 2).min(GATHER_MOST));
                let since = told.map(|(at, _)| Duration::from_millis(now.saturating_sub(at)));
                self.told = Some((now, gather));
                Some((std::mem::take(&mut self.untold), since))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn oom(count: u64) -> Hits {
        Hits { oom_kills: Some(count), ..Hits::default() }
    }

    #[test]
    fn the_first_time_is_told_at_once_and_what_follows_as_a_number() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(&oom(0), 0), []);
        assert_eq!(meter.look(&oom(2), 1000), [Met { limit: Limit::OomKill, times: 2, since: None }]);
        assert_eq!(meter.look(&oom(9), 30_000), []);
        assert_eq!(
            meter.look(&oom(10), 61_000),
            [Met { limit: Limit::OomKill, times: 8, since: Some(Duration::from_secs(60)) }]
        );
        assert_eq!(meter.look(&oom(11), 122_000), [], "two minutes are gathered now");
        assert_eq!(meter.look(&oom(11), 181_000).len(), 1);
    }

    #[test]
    fn a_span_without_any_makes_the_next_a_first_time_again() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(&oom(1), 0).len(), 1);
        assert_eq!(meter.look(&oom(1), 60_000), []);
        assert_eq!(meter.look(&oom(2), 61_000), [Met { limit: Limit::OomKill, times: 1, since: None }]);
    }

    #[test]
    fn a_new_life_counts_from_zero_and_does_not_repeat_what_was_told() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(&oom(5), 0).len(), 1);
        meter.begin();
        assert_eq!(meter.look(&oom(3), 1000), []);
        assert_eq!(meter.look(&oom(3), 60_000)[0].times, 3);
    }

    fn cpu(periods: u64, throttled: u64) -> Hits {
        Hits { cpu_periods: Some(periods), cpu_throttled_periods: Some(throttled), ..Hits::default() }
    }

    #[test]
    fn only_an_agent_that_is_held_back_half_of_the_time_is_told_of() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(&cpu(50, 24), 0), [], "less than half");
        assert_eq!(meter.look(&cpu(55, 29), 1), [], "too few periods");
        assert_eq!(meter.look(&cpu(100, 70), 2), [Met { limit: Limit::Cpu, times: 46, since: None }]);
    }

    #[test]
    fn unknown_counts_are_no_news() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(&Hits::default(), 0), []);
        assert_eq!(meter.look(&oom(3), 1)[0].times, 3);
        assert_eq!(meter.look(&oom(1), 200_000), [], "a count that went back");
    }

    proptest! {
        /// Whatever the kernel counts, what is told adds up to it, minus what is still gathered; and it is told seldom.
        #[test]
        fn what_is_told_adds_up(steps in proptest::collection::vec((0_u64..1000, 0_u64..20_000), 1..200)) {
            let mut meter = Meter::default();
            let (mut count, mut now, mut told, mut lines) = (0, 0, 0, 0_u64);
            for (hits, passed) in steps {
                count += hits;
                now += passed;
                for met in meter.look(&oom(count), now) {
                    prop_assert!(met.times > 0);
                    told += met.times;
                    lines += 1;
                }
                prop_assert!(told <= count);
            }
            prop_assert!(lines <= 1 + now / ms(GATHER_FIRST));
            // The span that is being gathered is over by then.
            told += meter.look(&oom(count), now + ms(GATHER_MOST)).iter().map(|met| met.times).sum::<u64>();
            prop_assert_eq!(told, count);
        }
    }
}
