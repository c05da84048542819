//! What stands between the process that hears the agent's calls and whoever makes names in the agent's stead.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use crate::notice::What;
use crate::seccomp::policy::Call;
use crate::sys::notify::{Listener, Reply, Waiting};

/// A call that waits for its answer.
#[derive(Debug)]
pub(in crate::launch) struct Request {
    /// Its name.
    pub(in crate::launch) name: &'static str,
    /// Its number, architecture and registers.
    pub(in crate::launch) call: Call,
}

/// Who made it: a thread that stands still until it is answered, or is ended.
pub(in crate::launch) struct Caller {
    /// The thread, in the attendant's PID namespace.
    pub(in crate::launch) tid: i32,
    id: u64,
    listener: Rc<Listener>,
}

impl Caller {
    pub(in crate::launch) fn new(waiting: &Waiting, listener: &Rc<Listener>) -> Caller {
        Caller { tid: waiting.tid, id: waiting.id, listener: Rc::clone(listener) }
    }

    /// Whether it still waits: what was read by its number until now was then its own. To be asked after reading, and again
    /// before acting.
    pub(in crate::launch) fn is_waiting(&self) -> bool {
        self.listener.is_waiting(self.id)
    }

    /// What another process needs that shares our descriptors and answers in our place: the listener's number, and the call's.
    pub(in crate::launch) fn for_later(&self) -> (RawFd, u64) {
        (self.listener.as_fd().as_raw_fd(), self.id)
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({}, {:#x})", self.tid, self.id)
    }
}

/// Answers calls that can make a name.
pub(in crate::launch) trait Answer {
    /// Makes the name, or refuses. Must not block for long: all others wait meanwhile ([`Reply::Later`] is for what might).
    /// [`Reply::Continue`] is never right where a path decides.
    fn answer(&mut self, request: &Request, caller: &Caller, tell: &mut dyn FnMut(What)) -> Reply;
}
