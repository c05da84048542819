//! What a launcher prepares before it is asked to launch: which plans, how many, and until when.
//!
//! The supervisor's end of the channel of a prepared init is the hold on it: dropping it ends the init, and so does the death of
//! either process. So what is prepared needs no list anywhere else, and nothing has to be cleared away.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::protocol::{SLOTS, Word};
use super::running::readable;
use crate::sys::fdpass;

/// The most inits that wait at any time.
pub const READY_MAX: usize = 8;
/// A plan is prepared for once it has been launched so often: most plans are launched once.
const LAUNCHES_BEFORE: u32 = 2;

/// How much of a launch is made before it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing: each launch makes everything.
    Nothing,
    /// The part of a plan's root that no agent can change is made once and copied by later launches.
    Layers,
    /// That, and for plans that are launched again and again an init that waits in namespaces of its own: so many in all, at
    /// most [`READY_MAX`]. Each serves one launch.
    Inits(usize),
}

impl Default for Ahead {
    /// Few: a waiting init costs some 300 KiB, most of it its network namespace.
    fn default() -> Ahead {
        Ahead::Inits(2)
    }
}

/// The inits that wait.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Oldest first.
    waiting: Vec<(u8, OwnedFd)>,
    /// Launches of the plan in each slot.
    launches: Vec<u32>,
}

impl Ready {
    /// Takes the one that waits for a plan. One that is not ready yet would have to be waited for, longer than a launch takes:
    /// it stays; one that has ended goes.
    pub(super) fn take(&mut self, slot: u8) -> Option<OwnedFd> {
        let position = self.waiting.iter().position(|(of, channel)| *of == slot && has_said_something(channel))?;
        let channel = self.waiting.remove(position).1;
        let (word, _) = fdpass::receive(channel.as_fd()).ok()??;
        matches!(serde_json::from_slice(&word), Ok(Word::Ready)).then_some(channel)
    }

    /// Counts a launch; whether one is to be prepared for the next.
    pub(super) fn launched(&mut self, slot: u8, most: usize) -> bool {
        self.launches.resize(usize::from(SLOTS), 0);
        let launches = &mut self.launches[usize::from(slot)];
        *launches = launches.saturating_add(1);
        *launches >= LAUNCHES_BEFORE && most > 0 && !self.waiting.iter().any(|(of, _)| *of == slot)
    }

    /// Keeps a new one; the oldest go when there are too many.
    pub(super) fn keep(&mut self, slot: u8, channel: OwnedFd, most: usize) {
        self.waiting.push((slot, channel));
        let over = self.waiting.len().saturating_sub(most.min(READY_MAX));
        self.waiting.drain(..over);
    }

    /// The plan of a slot is another from now on.
    pub(super) fn forget(&mut self, slot: u8) {
        self.waiting.retain(|(of, _)| *of != slot);
        if let Some(launches) = self.launches.get_mut(usize::from(slot)) {
            *launches = 0;
        }
    }

    /// How many are ready.
    pub(super) fn count(&self) -> usize {
        self.waiting.iter().filter(|(_, channel)| has_said_something(channel)).count()
    }

    /// Lets all of them go.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// That it is ready, or that it has ended.
fn has_said_something(channel: &OwnedFd) -> bool {
    readable(channel.as_fd(), Duration::ZERO).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Both ends: of an init that has said `word`.
    fn init(word: &Word) -> (OwnedFd, OwnedFd) {
        let (ours, theirs) = fdpass::pair().unwrap();
        fdpass::send(theirs.as_fd(), &serde_json::to_vec(word).unwrap(), &[]).unwrap();
        (ours, theirs)
    }

    #[test]
    fn one_is_prepared_only_for_a_plan_that_comes_again() {
        let mut ready = Ready::default();
        assert!(!ready.launched(3, 4));
        assert!(ready.launched(3, 4));
        let (ours, _theirs) = init(&Word::Ready);
        ready.keep(3, ours, 4);
        assert!(!ready.launched(3, 4), "one waits already");
        assert!(ready.take(3).is_some());
        assert!(ready.take(3).is_none(), "each serves one launch");
        assert!(ready.launched(3, 4));
        assert!(!ready.launched(3, 0));
    }

    #[test]
    fn one_that_is_not_ready_is_not_waited_for_and_one_that_has_ended_is_not_used() {
        let mut ready = Ready::default();
        let (ours, theirs) = fdpass::pair().unwrap();
        ready.keep(1, ours, 4);
        assert!(ready.take(1).is_none() && ready.count() == 0);
        fdpass::send(theirs.as_fd(), b"\"Ready\"", &[]).unwrap();
        assert_eq!(ready.count(), 1);
        assert!(ready.take(1).is_some(), "it had stayed");
        let (stale, _theirs) = init(&Word::Stale);
        ready.keep(2, stale, 4);
        assert!(ready.take(2).is_none());
        let (ended, theirs) = fdpass::pair().unwrap();
        drop(theirs);
        // Not at once: another test's child holds the other end too until it has called exec.
        assert!(readable(ended.as_fd(), Duration::from_secs(60)).unwrap());
        ready.keep(3, ended, 4);
        assert!(ready.take(3).is_none());
        assert!(!ready.waiting.iter().any(|(slot, _)| *slot != 1), "what has ended is let go");
    }

    #[test]
    fn a_changed_plan_takes_its_init_along() {
        let mut ready = Ready::default();
        let ((first, _a), (second, _b)) = (init(&Word::Ready), init(&Word::Ready));
        ready.keep(1, first, 4);
        ready.keep(2, second, 4);
        ready.forget(1);
        assert!(ready.take(1).is_none() && ready.take(2).is_some());
    }

    #[test]
    fn never_more_wait_than_the_bound() {
        let mut ready = Ready::default();
        let mut others = Vec::new();
        for slot in 0..20 {
            let (ours, theirs) = init(&Word::Ready);
            others.push(theirs);
            ready.keep(slot, ours, 100);
        }
        assert_eq!(ready.count(), READY_MAX);
        assert!(ready.take(0).is_none() && ready.take(19).is_some(), "the oldest go first");
    }
}
