//! `learn`: one run inside a ring, watched; then the smallest file that would have let it do what it tried.
//!
//! [`observed`] is what was seen, bounded. [`propose`] makes rules of it: pure, with the file system and the resolver behind a trait,
//! so that what is generalised and what never is can be tested. [`render`] writes them as an agent.yaml for a person to read. Nothing
//! is granted by any of it: a proposed line is a request like any other.

pub mod observed;
pub mod propose;
pub mod render;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agt_rings::notice::Notice;

pub use observed::Observed;

/// A run to learn from.
#[derive(Debug)]
pub struct Learning {
    /// Where the workdir's changes go.
    pub scratch: PathBuf,
    observed: Mutex<Observed>,
}

impl Learning {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(scratch: PathBuf) -> Learning {
        Learning { scratch, observed: Mutex::default() }
    }

    /// Takes what was noticed.
    pub fn take(&self, notice: &Notice) {
        self.observed().take(notice);
    }

    /// What was seen so far.
    pub fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
