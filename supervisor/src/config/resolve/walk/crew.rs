//! Who looks: one thread, and for a tree of more than a few hundred names a second one.
//!
//! Each file costs two system calls that wait for memory more than for anything else, so a second processor halves the time. No
//! more than two: the look stands beside agents that run.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::Walk;

/// Up to so many names one thread is done before another has begun.
const ALONE_UP_TO: usize = 500;

/// A folder to look into.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Counted from the top of the tree.
    pub(super) depth: usize,
}

/// Folders that wait. Those below a folder are put here when it was looked at.
#[derive(Debug, Default)]
struct Waiting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    folders: Vec<Folder>,
    /// Folders that are being looked at: more may come of each.
    open: usize,
}

/// One folder, taken; given back with what is below it, or with nothing by who panics.
struct Taken<'a> {
    waiting: &'a Waiting,
    folder: Folder,
    below: Vec<Folder>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a folder; `None` once there is none and none can come.
    fn take(&self) -> Option<Taken<'_>> {
        let mut state = self.lock();
        loop {
            if let Some(folder) = state.folders.pop() {
                state.open += 1;
                return Some(Taken { waiting: self, folder, below: Vec::new() });
            }
            if state.open == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.waiting.lock();
        state.open -= 1;
        state.folders.append(&mut self.below);
        self.waiting.changed.notify_all();
    }
}

/// Looks through a tree; what is found is added to `walk`, in an order that does not depend on who found it.
pub(super) fn look_through(top: Folder, walk: &mut Walk) {
    let waiting = Waiting::default();
    waiting.lock().folders.push(top);
    let began_at = walk.looked_at();
    thread::scope(|scope| {
        let mut second = None;
        while let Some(mut taken) = waiting.take() {
            taken.below = walk.folder(&taken.folder);
            drop(taken);
            if second.is_none() && walk.looked_at() - began_at > ALONE_UP_TO {
                let mut theirs = walk.another();
                let work = || {
                    while let Some(mut taken) = waiting.take() {
                        taken.below = theirs.folder(&taken.folder);
                    }
                    theirs
                };
                // Where no thread can be had one does it all.
                second = Some(thread::Builder::new().name("look".to_owned()).spawn_scoped(scope, work));
            }
        }
        if let Some(Ok(second)) = second {
            match second.join() {
                Ok(theirs) => walk.add(theirs),
                // What it had found is lost: there must be no plan without it.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    walk.sort();
}
