//! Money that an agent, or all agents of a ring, spent on models: kept over restarts of both.
//!
//! A cap of a day is none if a restart empties it. What can't be read of the past counts as if it were all that the caps allow: to call
//! no model for a while costs less than to pay twice, and an operator who knows better raises the cap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agt_gateway::limit::Shared;
use agt_gateway::limit::spec::SpendSpec;
use agt_gateway::price::Money;
use serde::{Deserialize, Serialize};

use crate::driver::records::wall_ms;
use crate::store::{Commit, Store};

/// The kind of state in which spending lies in the store.
const SPENT: &str = "models.spent";
/// What was spent within this time is one sum, in milliseconds.
const SPAN_MS: i64 = 60_000;
/// How long a sum counts, in milliseconds: the longest period of a cap.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// Sums that are kept.
const SPANS_MAX: usize = 1500;

/// What was spent when: sums of a minute each, the oldest first.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    /// When a minute began, on the wall clock, and billionths of a dollar.
    sums: VecDeque<(i64, u64)>,
}

impl Spent {
    fn add(&mut self, cost: Money, now_ms: i64) {
        match self.sums.back_mut() {
            // A clock that was set back adds to the newest sum: it counts for longer, never for less.
            Some((began, sum)) if now_ms < *began + SPAN_MS => *sum = sum.saturating_add(cost.nanos()),
            _ => self.sums.push_back((now_ms, cost.nanos())),
        }
        while self.sums.len() > SPANS_MAX
            || self.sums.front().is_some_and(|(began, _)| began + SPAN_MS + KEPT_MS < now_ms)
        {
            self.sums.pop_front();
        }
    }

    /// How much was spent how long ago. What lies in the future counts as of now.
    fn ago(&self, now_ms: i64) -> impl Iterator<Item = (Money, Duration)> {
        self.sums.iter().map(move |(began, nanos)| {
            let ago = u64::try_from(now_ms.saturating_sub(*began)).unwrap_or(0);
            (Money::from_nanos(*nanos), Duration::from_millis(ago))
        })
    }
}

/// What the store knows of the past.
#[derive(Debug)]
pub(super) enum Past {
    Known(PastSums),
    /// Why it can't be read.
    Unknown(String),
}

/// Sums of the past.
#[derive(Debug)]
pub(super) struct PastSums(Spent);

/// Reads what `whose` spent in an earlier supervisor's time.
pub(super) async fn past(store: &Store, whose: &str) -> Past {
    match store.get_state(whose, SPENT).await {
        Ok(None) => Past::Known(PastSums(Spent::default())),
        // What another version wrote is not readable as sums, either.
        Ok(Some(state)) => match serde_json::from_value(state.value) {
            Ok(spent) => Past::Known(PastSums(spent)),
            Err(e) => Past::Unknown(e.to_string()),
        },
        Err(e) => Past::Unknown(e.to_string()),
    }
}

/// Limits of an agent or a ring, with what was spent under them.
#[derive(Debug)]
pub(super) struct Purse {
    /// Under which name it lies in the store: an agent's, or `R2`, which no agent can have.
    whose: String,
    pub(super) limits: Arc<Shared>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    spent: Spent,
    unstored: bool,
}

impl Purse {
    pub(super) fn new(whose: &str, limits: Arc<Shared>) -> Purse {
        Purse { whose: whose.to_owned(), limits, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic under this lock leaves it whole: each change is one call of a collection.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call was paid, under `limits` already.
    pub(super) fn spend(&self, cost: Money) {
        if !cost.is_zero() {
            let mut kept = self.kept();
            kept.spent.add(cost, wall_ms());
            kept.unstored = true;
        }
    }

    /// What was spent before counts; gives why it is not known, where that costs these caps.
    pub(super) fn recall(&self, past: Past, caps: &SpendSpec) -> Option<String> {
        let why = match past {
            Past::Known(PastSums(spent)) => {
                spent.ago(wall_ms()).for_each(|(cost, ago)| self.limits.recall(cost, ago));
                self.kept().spent = spent;
                return None;
            }
            Past::Unknown(why) => why,
        };
        // Caps of a task begin with it.
        let most = caps.hour.max(caps.day)?;
        self.limits.recall(most, Duration::ZERO);
        // Kept as well: another restart must not forget it.
        self.spend(most);
        Some(why)
    }

    pub(super) fn store(&self, store: &Store) {
        let mut kept = self.kept();
        if !std::mem::take(&mut kept.unstored) {
            return;
        }
        let value = serde_json::to_value(&kept.spent).expect("plain data");
        drop(kept);
        // A note that finds no room is counted by the store; the next one holds this one's sums too.
        let _ = store.note(Commit::new().put_state(&self.whose, SPENT, value, wall_ms()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_gateway::limit::spec::LimitSpec;

    use super::*;

    #[test]
    fn what_was_spent_is_summed_by_the_minute_and_kept_for_a_day() {
        let mut spent = Spent::default();
        let cent = Money::from_cents(1);
        spent.add(cent, 1_000_000);
        spent.add(cent, 1_059_999);
        spent.add(cent, 1_060_000);
        // Set back.
        spent.add(cent, 500_000);
        assert_eq!(spent.sums, [(1_000_000, 20_000_000), (1_060_000, 20_000_000)]);
        let ago: Vec<_> = spent.ago(1_060_000).collect();
        assert_eq!(ago[0], (Money::from_cents(2), Duration::from_secs(60)));
        spent.add(cent, 1_000_000 + KEPT_MS + SPAN_MS + 1);
        assert_eq!(spent.sums.front().unwrap().0, 1_060_000);
        let again: Spent = serde_json::from_value(serde_json::to_value(&spent).unwrap()).unwrap();
        assert_eq!(again, spent);
    }

    #[test]
    fn a_past_that_cant_be_read_counts_as_all_that_the_caps_allow() {
        let purse = Purse::new("a", Shared::new("agent a", &LimitSpec::default()));
        let caps = SpendSpec { hour: Some(Money::from_cents(5)), day: Some(Money::from_cents(20)), task: None };
        assert_eq!(purse.recall(Past::Unknown("torn".to_owned()), &caps).as_deref(), Some("torn"));
        let standing = purse.limits.standing();
        assert_eq!((standing.hour, standing.day), (Money::from_cents(20), Money::from_cents(20)));
        assert_eq!(purse.kept().spent.sums.len(), 1, "the next restart knows it");
        let without = Purse::new("b", Shared::new("agent b", &LimitSpec::default()));
        let task = SpendSpec { task: Some(Money::from_cents(5)), ..SpendSpec::default() };
        assert_eq!(without.recall(Past::Unknown("torn".to_owned()), &task), None, "nothing to hold");
        assert!(without.limits.standing().day.is_zero());
    }
}
