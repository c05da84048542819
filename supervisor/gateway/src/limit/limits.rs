//! The limits of one subject, and what stands against them.

use super::spec::{LimitSpec, SpendSpec};
use super::{Bucket, Period, Spend};
use crate::price::Money;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// When to ask again where only the end of another call can make room.
const CONTENDED: Duration = Duration::from_secs(1);

/// The most that a call can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// Tokens, input and output.
    pub tokens: u64,
    /// Money.
    pub cost: Money,
}

/// What a call took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Tokens, input and output.
    pub tokens: u64,
    /// Money.
    pub cost: Money,
}

/// Why a call may not leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many calls in the last minute.
    #[error("the limit of {limit} model calls a minute is reached")]
    Requests {
        /// Calls a minute.
        limit: u64,
        /// Until one may leave.
        retry_after: Duration,
    },
    /// Too many tokens in the last minute.
    #[error("the limit of {limit} tokens a minute is reached ({asked} asked for)")]
    Tokens {
        /// Tokens a minute.
        limit: u64,
        /// What this call can take.
        asked: u64,
        /// Until it may leave.
        retry_after: Duration,
    },
    /// Too many calls under way.
    #[error("the limit of {limit} model calls at the same time is reached")]
    Concurrent {
        /// Calls at the same time.
        limit: u32,
    },
    /// A cap of money.
    #[error(
        "the spend cap of {cap} per {period} is reached: {spent} spent, {reserved} reserved by calls under way, and this call can \
         cost up to {asked}"
    )]
    Spend {
        /// Of what.
        period: Period,
        /// The cap.
        cap: Money,
        /// What counts as spent.
        spent: Money,
        /// What calls under way can still cost.
        reserved: Money,
        /// What this call can cost.
        asked: Money,
        /// Until there is room; none: not by waiting.
        retry_after: Option<Duration>,
    },
}

impl Refusal {
    /// When to ask again; none: waiting does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Requests { retry_after, .. } | Self::Tokens { retry_after, .. } => {
                (*retry_after != Duration::MAX).then_some(*retry_after)
            }
            Self::Concurrent { .. } => Some(CONTENDED),
            Self::Spend { retry_after, .. } => *retry_after,
        }
    }

    /// A word for metrics and audit that stays.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Requests { .. } => "requests-per-minute",
            Self::Tokens { .. } => "tokens-per-minute",
            Self::Concurrent { .. } => "concurrent",
            Self::Spend { period: Period::Task, .. } => "spend-task",
            Self::Spend { period: Period::Hour, .. } => "spend-hour",
            Self::Spend { period: Period::Day, .. } => "spend-day",
        }
    }
}

/// Room taken for one call. To be settled exactly once; it can't be copied.
#[must_use = "a reservation that is not settled is never given back"]
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    worst: Worst,
    /// The task it was taken in.
    task: u64,
}

impl Reservation {
    /// What was reserved.
    pub fn worst(&self) -> Worst {
        self.worst
    }
}

/// What stands against the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Calls under way.
    pub in_flight: u32,
    /// What they can still cost.
    pub reserved: Money,
    /// Spent in the task.
    pub task: Money,
    /// Spent in the last hour.
    pub hour: Money,
    /// Spent in the last day.
    pub day: Money,
}

/// Limits with what was taken from them. Times are since a moment of the owner's choice, the same in all calls.
#[derive(Clone, Debug)]
pub struct Limits {
    spec: LimitSpec,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    in_flight: u32,
    reserved: Money,
    task: u64,
    task_spent: Money,
    task_reserved: Money,
    hour: Spend,
    day: Spend,
}

impl Limits {
    /// Nothing taken yet.
    pub fn new(spec: &LimitSpec, now: Duration) -> Self {
        let bucket = |limit: Option<u64>| limit.map(|limit| Bucket::full(limit, MINUTE, now));
        Self {
            spec: spec.clone(),
            requests: bucket(spec.requests_per_minute),
            tokens: bucket(spec.tokens_per_minute),
            in_flight: 0,
            reserved: Money::ZERO,
            task: 0,
            task_spent: Money::ZERO,
            task_reserved: Money::ZERO,
            hour: Spend::hour(),
            day: Spend::day(),
        }
    }

    /// Other limits from now on; what was taken stays taken.
    pub fn set(&mut self, spec: &LimitSpec, now: Duration) {
        let change = |bucket: &mut Option<Bucket>, limit: Option<u64>| match (bucket.as_mut(), limit) {
            (Some(bucket), Some(limit)) => bucket.resize(limit, now),
            (_, limit) => *bucket = limit.map(|limit| Bucket::full(limit, MINUTE, now)),
        };
        change(&mut self.requests, spec.requests_per_minute);
        change(&mut self.tokens, spec.tokens_per_minute);
        self.spec = spec.clone();
    }

    /// Another task begins: its cap counts from nothing. Calls under way count for the task they were made in.
    pub fn begin_task(&mut self) {
        self.task += 1;
        self.task_spent = Money::ZERO;
        self.task_reserved = Money::ZERO;
    }

    /// Money that was spent before these limits were made, at `at`: called with the oldest first. A restarted supervisor must not
    /// begin a new day.
    pub fn recall(&mut self, cost: Money, at: Duration) {
        self.hour.add(cost, at);
        self.day.add(cost, at);
    }

    /// The caps of money.
    pub fn caps(&self) -> &SpendSpec {
        &self.spec.spend
    }

    /// What stands against the limits.
    pub fn standing(&mut self, now: Duration) -> Standing {
        Standing {
            in_flight: self.in_flight,
            reserved: self.reserved,
            task: self.task_spent,
            hour: self.hour.sum(now),
            day: self.day.sum(now),
        }
    }

    /// Takes the worst case of a call out of every limit, or out of none.
    pub fn reserve(&mut self, worst: &Worst, now: Duration) -> Result<Reservation, Refusal> {
        if let Some(limit) = self.spec.concurrent.filter(|limit| self.in_flight >= *limit) {
            return Err(Refusal::Concurrent { limit });
        }
        self.affordable(worst.cost, now)?;
        // Tokens first: if then the requests refuse, what was taken goes back unspent.
        if let (Some(bucket), Some(limit)) = (&mut self.tokens, self.spec.tokens_per_minute) {
            bucket.take(worst.tokens, now).map_err(|retry_after| Refusal::Tokens {
                limit,
                asked: worst.tokens,
                retry_after,
            })?;
        }
        if let (Some(bucket), Some(limit)) = (&mut self.requests, self.spec.requests_per_minute)
            && let Err(retry_after) = bucket.take(1, now)
        {
            if let Some(tokens) = &mut self.tokens {
                tokens.correct(worst.tokens, 0, now);
            }
            return Err(Refusal::Requests { limit, retry_after });
        }
        self.in_flight += 1;
        self.reserved = self.reserved.plus(worst.cost);
        self.task_reserved = self.task_reserved.plus(worst.cost);
        Ok(Reservation { worst: *worst, task: self.task })
    }

    fn affordable(&mut self, asked: Money, now: Duration) -> Result<(), Refusal> {
        let caps = &self.spec.spend;
        let periods = [
            (Period::Task, caps.task, self.task_spent, self.task_reserved),
            (Period::Hour, caps.hour, self.hour.sum(now), self.reserved),
            (Period::Day, caps.day, self.day.sum(now), self.reserved),
        ];
        for (period, cap, spent, reserved) in periods {
            let Some(cap) = cap else { continue };
            let whole = spent.checked_plus(reserved).and_then(|sum| sum.checked_plus(asked));
            // A spent cap refuses what is free as well: "hard stop" is for the agent, not for the price.
            if whole.is_some_and(|whole| whole <= cap) && (spent < cap || asked.is_zero() && spent.is_zero()) {
                continue;
            }
            let retry_after = if asked > cap {
                None
            } else if spent < cap && spent.plus(asked) <= cap {
                Some(CONTENDED)
            } else {
                let most = cap.minus(asked).min(cap.minus(Money::from_nanos(1)));
                match period {
                    Period::Task => None,
                    Period::Hour => Some(self.hour.until(most, now)),
                    Period::Day => Some(self.day.until(most, now)),
                }
            };
            return Err(Refusal::Spend { period, cap, spent, reserved, asked, retry_after });
        }
        Ok(())
    }

    /// The call is over and took `actual`: the rest of its reservation is free again.
    pub fn settle(&mut self, reservation: Reservation, actual: Actual, now: Duration) {
        let Reservation { worst, task } = reservation;
        self.give_back(&worst, task);
        if task == self.task {
            self.task_spent = self.task_spent.plus(actual.cost);
        }
        self.hour.add(actual.cost, now);
        self.day.add(actual.cost, now);
        if let Some(tokens) = &mut self.tokens {
            tokens.correct(worst.tokens, actual.tokens, now);
        }
    }

    /// The call never left: nothing of it counts, not even as a call.
    pub fn release(&mut self, reservation: Reservation, now: Duration) {
        let Reservation { worst, task } = reservation;
        self.give_back(&worst, task);
        if let Some(tokens) = &mut self.tokens {
            tokens.correct(worst.tokens, 0, now);
        }
        if let Some(requests) = &mut self.requests {
            requests.correct(1, 0, now);
        }
    }

    fn give_back(&mut self, worst: &Worst, task: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.reserved = self.reserved.minus(worst.cost);
        if task == self.task {
            self.task_reserved = self.task_reserved.minus(worst.cost);
        }
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
