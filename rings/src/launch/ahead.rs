//! What a launcher prepares before it is asked to launch: which plans, how many, and until when.
//!
//! The supervisor's end of the channel of a prepared init is the hold on it: dropping it ends the init, and so does the death of
//! either process. So what is prepared needs no list anywhere else, and nothing has to be cleared away.

use std::os::fd::OwnedFd;

use super::protocol::SLOTS;

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
    /// Takes the one that waits for a plan.
    pub(super) fn take(&mut self, slot: u8) -> Option<OwnedFd> {
        let position = self.waiting.iter().position(|(of, _)| *of == slot)?;
        Some(self.waiting.remove(position).1)
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

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Lets all of them go.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn channel() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn one_is_prepared_only_for_a_plan_that_comes_again() {
        let mut ready = Ready::default();
        assert!(!ready.launched(3, 4));
        assert!(ready.launched(3, 4));
        ready.keep(3, channel(), 4);
        assert!(!ready.launched(3, 4), "one waits already");
        assert!(ready.take(3).is_some());
        assert!(ready.take(3).is_none(), "each serves one launch");
        assert!(ready.launched(3, 4));
        assert!(!ready.launched(3, 0));
    }

    #[test]
    fn a_changed_plan_takes_its_init_along() {
        let mut ready = Ready::default();
        ready.keep(1, channel(), 4);
        ready.keep(2, channel(), 4);
        ready.forget(1);
        assert!(ready.take(1).is_none() && ready.take(2).is_some());
    }

    #[test]
    fn never_more_wait_than_the_bound() {
        let mut ready = Ready::default();
        for slot in 0..20 {
            ready.keep(slot, channel(), 100);
        }
        assert_eq!(ready.len(), READY_MAX);
        assert!(ready.take(0).is_none() && ready.take(19).is_some(), "the oldest go first");
    }
}
