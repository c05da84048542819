//! The right to make one call, stamped with the generation that gave it.
//!
//! A probe of a half-open breaker takes one of few slots. Whoever is cancelled half-way drops the permit, and the slot
//! is free again: a breaker must not stay half-open for ever because a caller gave up. Slots belong to one half-open
//! spell; a permit of an earlier spell gives its slot back to slots that nobody looks at any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Slots that are out. Shared with the permits, which may be dropped on other threads.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<AtomicU32>);

impl Slots {
    pub(super) fn taken(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

/// The right to make one call.
#[derive(Debug)]
#[must_use = "give it to `finish` with the result, or its call counts for nothing"]
pub struct Permit {
    generation: u64,
    slot: Option<Slot>,
}

impl Permit {
    #[inline]
    pub(super) fn plain(generation: u64) -> Self {
        Self { generation, slot: None }
    }

    pub(super) fn probe(generation: u64, slots: &Slots) -> Self {
        slots.0.fetch_add(1, Ordering::AcqRel);
        Self { generation, slot: Some(Slot(Arc::clone(&slots.0))) }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether this call is a probe: one that a caller may want to make a cheap one.
    pub fn is_probe(&self) -> bool {
        self.slot.is_some()
    }
}

#[derive(Debug)]
struct Slot(Arc<AtomicU32>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
