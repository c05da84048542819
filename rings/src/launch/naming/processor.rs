//! One processor for who asks and who performs: while one of them works the other waits, and waking somebody on another, idle
//! processor takes several times as long as what is to be done there.
//!
//! The kernel's own choice is the idle one, whatever is said on the socket. So both are held to the processor that the asker is on,
//! where its caller has just been (`Listener::take_turns`), for as long as it waits. A kernel that refuses only makes it slower.

use std::cell::Cell;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// The processors of the two.
#[derive(Debug)]
pub(super) struct Processor {
    worker: Pid,
    /// Those that the asker may be on otherwise.
    all: CpuSet,
    /// Where the worker is held to.
    at: Cell<Option<usize>>,
}

impl Processor {
    /// `None` where there is no choice, or none is known.
    pub(super) fn of(worker: libc::pid_t) -> Option<Processor> {
        let all = sched_getaffinity(Pid::from_raw(0)).ok()?;
        let several = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false)).nth(1).is_some();
        several.then(|| Processor { worker: Pid::from_raw(worker), all, at: Cell::new(None) })
    }

    /// Holds both to this processor until the answer is there.
    pub(super) fn hold(&self) -> Option<Held<'_>> {
        let here = sched_getcpu().ok()?;
        let mut one = CpuSet::new();
        one.set(here).ok()?;
        if self.at.get() != Some(here) {
            sched_setaffinity(self.worker, &one).ok()?;
            self.at.set(Some(here));
        }
        sched_setaffinity(Pid::from_raw(0), &one).ok()?;
        Some(Held(self))
    }
}

/// The asker is where its worker is.
#[derive(Debug)]
#[must_use]
pub(super) struct Held<'a>(&'a Processor);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It stays here then, and is slower where the processor is wanted by others.
        let _slower = sched_setaffinity(Pid::from_raw(0), &self.0.all);
    }
}
