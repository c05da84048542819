//! The calls that a closed breaker judges by: the last n of them, or those of the last while.
//!
//! Both are exact and O(1): a ring of single calls with running sums, and the ring of time buckets that SLOs use too.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::settings::CallWindow;
use crate::time::Timestamp;
use crate::window::{Bucket, MAX_EVENTS, Tally, Windows, buckets_are_sound};

/// Buckets of a time window: its length is exact to 1/30.
const BUCKETS: usize = 30;

/// How a call came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallOutcome {
    /// It worked.
    Ok,
    /// It failed.
    Failed,
}

/// One call, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) outcome: CallOutcome,
    pub(super) slow: bool,
}

/// Calls counted. A call can be both failed and slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// All calls.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that took too long.
    pub slow: u64,
}

impl Rates {
    pub(super) fn add(&mut self, call: Call) {
        *self = self.plus(Self::of(call));
    }

    fn of(call: Call) -> Self {
        Self { calls: 1, failed: u64::from(call.outcome == CallOutcome::Failed), slow: u64::from(call.slow) }
    }
}

impl Tally for Rates {
    fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            failed: self.failed.saturating_sub(earlier.failed),
            slow: self.slow.saturating_sub(earlier.slow),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failed: self.failed.saturating_add(other.failed),
            slow: self.slow.saturating_add(other.slow),
        }
    }

    fn is_sound(self) -> bool {
        self.failed <= self.calls && self.slow <= self.calls && self.calls <= MAX_EVENTS
    }
}

/// The window of a closed breaker.
#[derive(Debug, Clone)]
pub(super) enum Calls {
    Last { most: usize, kept: VecDeque<Call>, sum: Rates },
    Within(Box<Windows<Rates>>),
}

/// What a snapshot keeps of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum SavedCalls {
    Last(Vec<Call>),
    Within(Vec<Bucket<Rates>>),
}

impl Calls {
    pub(super) fn new(window: &CallWindow) -> Self {
        match window {
            CallWindow::Calls(most) => {
                let most = *most as usize;
                Self::Last { most, kept: VecDeque::new(), sum: Rates::default() }
            }
            CallWindow::Time(length) => Self::Within(Box::new(Windows::new([(*length, BUCKETS)]))),
        }
    }

    pub(super) fn add(&mut self, call: Call, now: Timestamp) {
        match self {
            Self::Last { most, kept, sum } => {
                if kept.len() >= *most
                    && let Some(oldest) = kept.pop_front()
                {
                    *sum = sum.since(Rates::of(oldest));
                }
                kept.push_back(call);
                sum.add(call);
            }
            Self::Within(windows) => windows.add(now, Rates::of(call)),
        }
    }

    pub(super) fn rates(&self, now: Timestamp) -> Rates {
        match self {
            Self::Last { sum, .. } => *sum,
            Self::Within(windows) => windows.sum(0, now),
        }
    }

    pub(super) fn save(&self) -> SavedCalls {
        match self {
            Self::Last { kept, .. } => SavedCalls::Last(kept.iter().copied().collect()),
            Self::Within(windows) => SavedCalls::Within(windows.buckets(0)),
        }
    }

    /// Puts back what was saved; a window of the other kind starts empty. `None` if no run can have saved it.
    pub(super) fn load(window: &CallWindow, saved: &SavedCalls, last: Timestamp) -> Option<Self> {
        let mut calls = Self::new(window);
        match (&mut calls, saved) {
            (Self::Last { .. }, SavedCalls::Last(kept)) => kept.iter().for_each(|call| calls.add(*call, last)),
            (Self::Within(windows), SavedCalls::Within(buckets)) => {
                let total = buckets.iter().fold(Rates::default(), |sum, bucket| sum.plus(bucket.counted));
                if !buckets_are_sound(buckets, total, last) {
                    return None;
                }
                windows.load(total, |_| buckets.as_slice());
            }
            _ => {}
        }
        Some(calls)
    }
}
