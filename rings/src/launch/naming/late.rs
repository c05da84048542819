//! Opens that may take their time: a FIFO waits for its other end, a device for its line.
//!
//! Each has a child of the worker's, confined as the worker is, which answers the caller by itself: so nobody else waits. There
//! are only so many. Who is cut off by a signal leaves its child behind; such are found and ended when room is needed.

use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::worker::own_descriptor;
use crate::sys::notify::{Listener, Reply};

/// Most opens that wait at once for one agent.
const LATE_MAX: usize = 16;

/// The opens that wait.
#[derive(Debug, Default)]
pub(super) struct Late {
    places: [Option<Waiting>; LATE_MAX],
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    child: libc::pid_t,
    listener: RawFd,
    id: u64,
}

impl Late {
    /// A free place; EAGAIN when every one is taken by a caller that still waits.
    fn room(&mut self) -> Result<&mut Option<Waiting>, Errno> {
        for place in &mut self.places {
            let Some(waiting) = *place else { continue };
            // SAFETY: our own child, which only this call reaps.
            let mut ended = unsafe { libc::waitpid(waiting.child, std::ptr::null_mut(), libc::WNOHANG) } != 0;
            if !ended && !is_waiting(waiting.listener, waiting.id) {
                // SAFETY: as above.
                unsafe {
                    libc::kill(waiting.child, libc::SIGKILL);
                    libc::waitpid(waiting.child, std::ptr::null_mut(), 0);
                }
                ended = true;
            }
            if ended {
                *place = None;
            }
        }
        self.places.iter_mut().find(|place| place.is_none()).ok_or(Errno::EAGAIN)
    }
}

/// The asker's listener, whose number is good for as long as it asks.
fn is_waiting(listener: RawFd, id: u64) -> bool {
    // SAFETY: an open descriptor of the shared table, which is left open.
    let listener = ManuallyDrop::new(Listener::new(unsafe { OwnedFd::from_raw_fd(listener) }));
    listener.is_waiting(id)
}

/// Opens what a descriptor shows, in a child. Answers whether the child was started; the descriptor is its then.
pub(super) fn late_open(late: &mut Late, object: RawFd, flags: i32, listener: RawFd, id: u64) -> i64 {
    let place = match late.room() {
        Ok(place) => place,
        Err(e) => return -i64::from(e as i32),
    };
    // Its own copy of the table: so nothing that it opens is left in ours when it is ended.
    // SAFETY: a copy of a process with one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match libc::pid_t::try_from(child) {
        Ok(0) => {
            // SAFETY: in the child, which ends there.
            unsafe { open_and_answer(object, flags, listener, id) }
        }
        Ok(child) if child > 0 => {
            // SAFETY: it was given to us, and the child has its own.
            unsafe { libc::close(object) };
            *place = Some(Waiting { child, listener, id });
            0
        }
        _ => -i64::from(Errno::last_raw()),
    }
}

/// # Safety
/// In a child of its own.
unsafe fn open_and_answer(object: RawFd, flags: i32, listener: RawFd, id: u64) -> ! {
    // SAFETY: numbers, and a path that lives until the call returns; both descriptors that are taken over belong to this process's own
    // copy of the table, where nobody else has them.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Whatever else is open here (other callers' files) must not be held for as long as this waits.
        let (low, high) = (object.min(listener), object.max(listener));
        for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, i32::MAX)] {
            if first <= last {
                libc::syscall(libc::SYS_close_range, first, last, 0);
            }
        }
        let mut path = [0u8; 32];
        let opened = libc::open(own_descriptor(object, &mut path), flags | libc::O_CLOEXEC | libc::O_NOCTTY);
        let reply = if opened < 0 {
            Reply::Errno(Errno::last_raw())
        } else {
            Reply::AddFd { fd: OwnedFd::from_raw_fd(opened), cloexec: flags & libc::O_CLOEXEC != 0 }
        };
        // Who waited may be gone by now: then nobody hears it.
        let _ = Listener::new(OwnedFd::from_raw_fd(listener)).reply(id, reply);
        libc::_exit(0)
    }
}
