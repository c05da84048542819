//! Requests a minute of one agent, whichever way they come.
//!
//! A ring's pace is that of everything its agent asks of the supervisor: connections and requests of all listeners, model calls, and
//! what it says elsewhere. So the bucket belongs to nobody of those: the supervisor makes it, hands it to each, and changes it when the
//! ring changes. A refusal is told once and counted after: whoever floods makes one word and a number.

use super::Bucket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// The rule by which messages, audit and `why` name this limit: the line of the file that sets it.
pub const RULE: &str = "limits.requests_per_minute";

/// One request too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {per_minute} requests a minute is reached")]
pub struct TooMany {
    /// Requests a minute.
    pub per_minute: u64,
    /// Until one may be made.
    pub retry_after: Duration,
}

/// What stands against a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Requests a minute; none: as many as it likes.
    pub per_minute: Option<u64>,
    /// How many could be made at once now.
    pub left: Option<u64>,
    /// Requests that were let through.
    pub taken: u64,
    /// Requests that were not.
    pub refused: u64,
}

/// Requests a minute, shared by all that count them.
#[derive(Debug)]
pub struct Rate {
    began: Instant,
    limit: Mutex<Limit>,
    taken: AtomicU64,
    refused: AtomicU64,
    /// Refusals that nobody was told of.
    untold: AtomicU64,
    /// Somebody is about to hear of them.
    telling: AtomicBool,
}

#[derive(Debug, Default)]
struct Limit {
    per_minute: Option<u64>,
    bucket: Option<Bucket>,
}

impl Rate {
    /// So many a minute; none: no limit. The first minute's are there at once.
    #[must_use]
    pub fn new(per_minute: Option<u64>) -> Arc<Self> {
        let rate = Self {
            began: Instant::now(),
            limit: Mutex::default(),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            telling: AtomicBool::new(false),
        };
        rate.set(per_minute);
        Arc::new(rate)
    }

    fn limit(&self) -> MutexGuard<'_, Limit> {
        // A panic under this lock leaves the bucket whole: its changes are sums that can't panic between each other.
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another rate from now on; what was taken in the last minute stays taken.
    pub fn set(&self, per_minute: Option<u64>) {
        let now = self.began.elapsed();
        let mut limit = self.limit();
        match (&mut limit.bucket, per_minute) {
            (Some(bucket), Some(most)) => bucket.resize(most, now),
            (bucket, most) => *bucket = most.map(|most| Bucket::full(most, MINUTE, now)),
        }
        limit.per_minute = per_minute;
    }

    /// One request.
    ///
    /// # Errors
    /// [`TooMany`], which is counted: whoever gets it asks [`Rate::is_news`] whether to tell.
    pub fn take(&self) -> Result<(), TooMany> {
        let mut limit = self.limit();
        // Under the lock: a clock that was read before it could stand behind the bucket's.
        let now = self.began.elapsed();
        let taken = match &mut limit.bucket {
            Some(bucket) => bucket.take(1, now),
            None => Ok(()),
        };
        let per_minute = limit.per_minute.unwrap_or_default();
        drop(limit);
        match taken {
            Ok(()) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(retry_after) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.untold.fetch_add(1, Ordering::AcqRel);
                Err(TooMany { per_minute, retry_after })
            }
        }
    }

    /// Whether whoever was just refused has to tell it: nobody else is about to.
    #[must_use]
    pub fn is_news(&self) -> bool {
        !self.telling.swap(true, Ordering::AcqRel)
    }

    /// The word of a refusal was lost on its way: the next one is news again.
    pub fn unheard(&self) {
        self.telling.store(false, Ordering::Release);
    }

    /// Refusals since the last time that this was asked. Later ones are news again.
    pub fn untold(&self) -> u64 {
        // In this order: a refusal in between is told once more with nothing new, never left out.
        self.telling.store(false, Ordering::SeqCst);
        self.untold.swap(0, Ordering::SeqCst)
    }

    /// What stands against it.
    #[must_use]
    pub fn pace(&self) -> Pace {
        let mut limit = self.limit();
        let now = self.began.elapsed();
        Pace {
            per_minute: limit.per_minute,
            left: limit.bucket.as_mut().map(|bucket| bucket.level(now)),
            taken: self.taken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_holds_so_many_requests_and_then_says_when() {
        let rate = Rate::new(Some(10));
        (0..10).for_each(|_| rate.take().unwrap());
        let refused = rate.take().unwrap_err();
        assert_eq!(refused, TooMany { per_minute: 10, retry_after: Duration::from_secs(6) });
        tokio::time::advance(Duration::from_secs(6)).await;
        rate.take().unwrap();
        assert!(rate.take().is_err());
        assert_eq!(rate.pace(), Pace { per_minute: Some(10), left: Some(0), taken: 11, refused: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_at_once_and_gives_no_second_minute() {
        let rate = Rate::new(Some(10));
        (0..4).for_each(|_| rate.take().unwrap());
        rate.set(Some(5));
        rate.take().unwrap();
        assert_eq!(rate.take().unwrap_err().per_minute, 5);
        rate.set(Some(5));
        assert!(rate.take().is_err(), "the same rate again is no new minute");
        rate.set(None);
        (0..1000).for_each(|_| rate.take().unwrap());
    }

    #[test]
    fn refusals_are_told_once_and_none_is_left_out() {
        let rate = Rate::new(Some(1));
        rate.take().unwrap();
        let told = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        rate.take().unwrap_err();
                        if rate.is_news() {
                            told.fetch_add(rate.untold(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(told.into_inner() + rate.untold(), 40_000);
        assert!(rate.take().is_err() && rate.is_news() && !rate.is_news());
    }
}
