//! What the store counts, for metrics: every limit that is hit shows here.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions on the disk.
    pub commits: u64,
    /// Requests in them.
    pub requests: u64,
    /// Transactions that failed; their requests were told so.
    pub failed_commits: u64,
    /// Requests refused because the reserve was given up for what takes power.
    pub refused_for_reserve: u64,
    /// Notes that found no room and are lost, apart from their number.
    pub lost_notes: u64,
    /// Signed heads.
    pub heads: u64,
    /// Heads that could not be written at once; they are tried again.
    pub failed_heads: u64,
    /// Log growths and checkpoints that failed; they cost speed and space, never data.
    pub failed_upkeep: u64,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) commits: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) failed_commits: AtomicU64,
    pub(super) refused_for_reserve: AtomicU64,
    pub(super) lost_notes: AtomicU64,
    pub(super) heads: AtomicU64,
    pub(super) failed_heads: AtomicU64,
    pub(super) failed_upkeep: AtomicU64,
    /// Lost notes that no record tells of yet.
    pub(super) untold_notes: AtomicU64,
}

impl Stats {
    pub(super) fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            commits: get(&self.commits),
            requests: get(&self.requests),
            failed_commits: get(&self.failed_commits),
            refused_for_reserve: get(&self.refused_for_reserve),
            lost_notes: get(&self.lost_notes),
            heads: get(&self.heads),
            failed_heads: get(&self.failed_heads),
            failed_upkeep: get(&self.failed_upkeep),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
