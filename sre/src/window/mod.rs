//! Rolling windows as rings of exact time buckets: O(1) to record, O(1) to read, never a scan over events.
//!
//! All windows of an SLO share one running total that only grows. A window is a ring that remembers what the total was
//! at the start of each of its buckets; its sum is the total now minus the total at the start of its oldest bucket.
//! So recording touches one counter, reading is one subtraction, and nothing can drift. Exponential averages would be
//! smaller but never forget, and can't say "5 bad of 100" (linkerd's success-rate breaker made the same choice).
//!
//! A window of length L with n buckets covers the n buckets before the one that is filling, and that one: at least L
//! and less than L + L/n. It errs towards remembering longer: no budget comes back early.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Timestamp, millis};

/// More events than any honest snapshot holds, and exact as a JSON number (2^53).
pub const MAX_EVENTS: u64 = 1 << 53;

/// Something that is counted up: a few counters side by side.
pub trait Tally: Copy + Default + PartialEq {
    /// What was added since `earlier`.
    #[must_use]
    fn since(self, earlier: Self) -> Self;
    /// Both together, saturating.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// Whether this can be the count of real events (a snapshot may have been damaged).
    fn is_sound(self) -> bool;
}

/// What one bucket counted, as kept in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket<T> {
    /// Milliseconds since the epoch at which the bucket starts.
    pub start_ms: u64,
    /// What was counted in it.
    pub counted: T,
}

/// One window over a running total.
#[derive(Debug, Clone, PartialEq)]
pub struct Ring<T> {
    width_ms: u64,
    /// `marks[i % len]` is the total at the start of bucket `i`, for the `len` buckets up to `current`.
    marks: Box<[T]>,
    current: u64,
}

impl<T: Tally> Ring<T> {
    /// A window of `length` in `buckets` equal parts (at least one, each at least a millisecond).
    pub fn new(length: Duration, buckets: usize) -> Self {
        let buckets = buckets.max(1);
        let width_ms = millis(length).div_ceil(buckets as u64).max(1);
        Self { width_ms, marks: vec![T::default(); buckets + 1].into_boxed_slice(), current: 0 }
    }

    /// The first millisecond that no longer belongs to the bucket that is filling.
    pub fn next_boundary_ms(&self) -> u64 {
        self.current.saturating_add(1).saturating_mul(self.width_ms)
    }

    /// Opens the bucket that `now` lies in. Must be called before anything of `now` is added to the total.
    pub fn rotate(&mut self, now: Timestamp, total: T) {
        let bucket = now.as_millis() / self.width_ms;
        if bucket <= self.current {
            return;
        }
        let len = self.marks.len() as u64;
        let opened = (bucket - self.current).min(len);
        for index in (bucket - (opened - 1))..=bucket {
            self.marks[(index % len) as usize] = total;
        }
        self.current = bucket;
    }

    /// What was counted in the window that ends `now`.
    pub fn sum(&self, now: Timestamp, total: T) -> T {
        let len = self.marks.len() as u64;
        let bucket = (now.as_millis() / self.width_ms).max(self.current);
        let oldest = bucket.saturating_sub(len - 1);
        if oldest > self.current {
            return T::default();
        }
        // Before the epoch plus one window there are fewer buckets than marks; the oldest mark then still holds the
        // total before the first event.
        let oldest = oldest.max(self.current.saturating_sub(len - 1));
        total.since(self.marks[(oldest % len) as usize])
    }

    /// The buckets that counted something, oldest first.
    pub fn buckets(&self, total: T) -> Vec<Bucket<T>> {
        let len = self.marks.len() as u64;
        let oldest = self.current.saturating_sub(len - 1);
        (oldest..=self.current)
            .map(|index| {
                let start = self.marks[(index % len) as usize];
                let end = if index == self.current { total } else { self.marks[((index + 1) % len) as usize] };
                Bucket { start_ms: index.saturating_mul(self.width_ms), counted: end.since(start) }
            })
            .filter(|bucket| bucket.counted != T::default())
            .collect()
    }

    /// Puts back what [`Ring::buckets`] gave, also that of a ring of another width. `total` is the running total that
    /// ends with the last of `buckets`, which must be ordered by time.
    pub fn load(&mut self, buckets: &[Bucket<T>], total: T) {
        let loaded = buckets.iter().fold(T::default(), |sum, bucket| sum.plus(bucket.counted));
        let mut running = total.since(loaded);
        self.marks.fill(running);
        self.current = 0;
        for bucket in buckets {
            self.rotate(Timestamp::from_millis(bucket.start_ms), running);
            running = running.plus(bucket.counted);
        }
    }
}

/// Several windows over one running total.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows<T> {
    total: T,
    rings: Vec<Ring<T>>,
    next_boundary_ms: u64,
}

impl<T: Tally> Windows<T> {
    /// Windows of the given lengths and numbers of buckets.
    pub fn new(lengths: impl IntoIterator<Item = (Duration, usize)>) -> Self {
        let rings = lengths.into_iter().map(|(length, buckets)| Ring::new(length, buckets)).collect();
        Self { total: T::default(), rings, next_boundary_ms: 0 }
    }

    /// Counts something at `now`, in every window.
    pub fn add(&mut self, now: Timestamp, counted: T) {
        if now.as_millis() >= self.next_boundary_ms {
            self.rotate(now);
        }
        self.total = self.total.plus(counted);
    }

    fn rotate(&mut self, now: Timestamp) {
        for ring in &mut self.rings {
            ring.rotate(now, self.total);
        }
        self.next_boundary_ms = self.rings.iter().map(Ring::next_boundary_ms).min().unwrap_or(u64::MAX);
    }

    /// Everything ever counted.
    pub fn total(&self) -> T {
        self.total
    }

    /// What window number `index` counts at `now`; nothing if there is no such window.
    pub fn sum(&self, index: usize, now: Timestamp) -> T {
        self.rings.get(index).map_or_else(T::default, |ring| ring.sum(now, self.total))
    }

    /// What a snapshot keeps of window number `index`.
    pub fn buckets(&self, index: usize) -> Vec<Bucket<T>> {
        self.rings.get(index).map_or_else(Vec::new, |ring| ring.buckets(self.total))
    }

    /// Puts back a running total and, per window, the buckets that end with it.
    pub fn load<'a>(&mut self, total: T, buckets_of: impl Fn(usize) -> &'a [Bucket<T>])
    where
        T: 'a,
    {
        self.total = total;
        for (index, ring) in self.rings.iter_mut().enumerate() {
            ring.load(buckets_of(index), total);
        }
        self.next_boundary_ms = 0;
    }
}

/// Whether buckets from a snapshot can be real: ordered, not later than `last`, sound, and not more than `total`.
pub(crate) fn buckets_are_sound<T: Tally>(buckets: &[Bucket<T>], total: T, last: Timestamp) -> bool {
    let ordered = buckets.windows(2).all(|pair| pair[0].start_ms < pair[1].start_ms);
    let sum = buckets.iter().fold(T::default(), |sum, bucket| sum.plus(bucket.counted));
    ordered
        && buckets.iter().all(|bucket| bucket.start_ms <= last.as_millis() && bucket.counted.is_sound())
        && sum.is_sound()
        && total.is_sound()
        && total.since(sum).plus(sum) == total
}

#[cfg(test)]
mod tests;
