//! The limits that a call stands under together, shared by all that make calls.
//!
//! One lock for each subject (an agent, a ring), held for some additions: two runtimes rarely meet there. A call takes from all
//! subjects or from none. What was taken is given back by [`Held`] whatever happens to the call: dropped unsettled, it is charged
//! its worst case, because nobody knows better.

use super::spec::{LimitSpec, SpendSpec};
use super::{Actual, Limits, Refusal, Reservation, Standing, Worst};
use crate::price::Money;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Limits of one subject behind a lock, with its clock.
#[derive(Debug)]
pub struct Shared {
    name: String,
    began: Instant,
    limits: Mutex<Limits>,
}

impl Shared {
    /// Limits of `name`: `agent researcher`, `ring 2`.
    pub fn new(name: impl Into<String>, spec: &LimitSpec) -> Arc<Self> {
        let limits = Mutex::new(Limits::new(spec, AGE));
        Arc::new(Self { name: name.into(), began: Instant::now(), limits })
    }

    /// Whose limits these are.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A lock that a panic left is taken over: every change of `Limits` is additions that can't panic between each other.
    fn lock(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        AGE + self.began.elapsed()
    }

    /// Other limits from now on.
    pub fn set(&self, spec: &LimitSpec) {
        self.lock().set(spec, self.now());
    }

    /// Another task begins.
    pub fn begin_task(&self) {
        self.lock().begin_task();
    }

    /// Money that was spent `ago`, in an earlier life: the oldest first. What is older than a day no longer counts.
    pub fn recall(&self, cost: Money, ago: Duration) {
        if let Some(at) = self.now().checked_sub(ago) {
            self.lock().recall(cost, at);
        }
    }

    /// Its caps of money.
    pub fn caps(&self) -> SpendSpec {
        self.lock().caps().clone()
    }

    /// What stands against the limits.
    pub fn standing(&self) -> Standing {
        self.lock().standing(self.now())
    }
}

/// The clock of an account begins here and not at nothing, so that what was spent before it began has a time.
const AGE: Duration = Duration::from_secs(48 * 3600);

/// A call that may not leave, and whose limit says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {refusal}")]
pub struct Refused {
    /// Whose limit.
    pub subject: String,
    /// Which, and why: told in the same line, so it is no source.
    pub refusal: Refusal,
}

/// The limits that one agent's calls stand under: its own, its ring's.
#[derive(Clone, Debug)]
pub struct Account {
    subjects: Vec<Arc<Shared>>,
    room: Arc<Semaphore>,
}

/// Bytes of requests that are held for one agent at the same time, so that one leaves room for the others.
const HELD_BYTES_MAX: usize = 64 << 20;

impl Account {
    /// Under all of `subjects`.
    pub fn new(subjects: Vec<Arc<Shared>>) -> Self {
        Self { subjects, room: Arc::new(Semaphore::new(HELD_BYTES_MAX)) }
    }

    /// Room for bytes of requests that are not yet reserved for, because they have not yet been read.
    pub(crate) fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// The subjects.
    pub fn subjects(&self) -> &[Arc<Shared>] {
        &self.subjects
    }

    /// Takes the worst case of a call from all subjects, or from none.
    pub fn reserve(&self, worst: &Worst) -> Result<Held, Refused> {
        let mut held = Held { taken: Vec::with_capacity(self.subjects.len()), worst: *worst };
        for subject in &self.subjects {
            match subject.lock().reserve(worst, subject.now()) {
                Ok(reservation) => held.taken.push((Arc::clone(subject), reservation)),
                Err(refusal) => {
                    held.release();
                    return Err(Refused { subject: subject.name.clone(), refusal });
                }
            }
        }
        Ok(held)
    }
}

/// Room that a call holds. Dropped without [`Held::settle`] or [`Held::release`] it is charged its worst case.
#[must_use = "dropped at once it is charged at once"]
#[derive(Debug)]
pub struct Held {
    taken: Vec<(Arc<Shared>, Reservation)>,
    worst: Worst,
}

impl Held {
    /// What is reserved.
    pub fn worst(&self) -> Worst {
        self.worst
    }

    /// The call is over and took `actual`.
    pub fn settle(mut self, actual: Actual) {
        self.end(actual);
    }

    /// The call never left.
    pub fn release(mut self) {
        for (subject, reservation) in self.taken.drain(..) {
            subject.lock().release(reservation, subject.now());
        }
    }

    fn end(&mut self, actual: Actual) {
        for (subject, reservation) in self.taken.drain(..) {
            subject.lock().settle(reservation, actual, subject.now());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end(Actual { tokens: self.worst.tokens, cost: self.worst.cost });
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
