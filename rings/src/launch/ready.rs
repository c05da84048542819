//! An init that was prepared ahead, and waits: for the word to start its agent, or for a reason not to.
//!
//! Why it may be used at all: nothing has run in its namespaces but the init itself, and it is used once. Why it may not be
//! used any more: a mount of the host has changed (it ends at once), a name that its view shows leads elsewhere by now, a mask
//! inside a writable tree is gone or a name that needs one has come to be (it ends when it is asked). The supervisor then
//! launches anew, with everything as it is then.

use std::fs::File;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::given::{Given, Wiring};
use super::protocol::{Failure, Go, Word};
use super::root::Basis;
use super::server::{changed, tell};
use crate::sys::fdpass;

/// What the wait has ended with.
pub(super) enum Told {
    /// Start the agent, connected so.
    Go(Wiring),
    /// There is nothing to start.
    Over,
}

/// Waits for the supervisor's word. `mounts`: the host's, watched since before the view was made.
pub(super) fn wait(given: &Given, mounts: &File, basis: &Basis) -> Result<Told, Failure> {
    tell(given.channel.as_fd(), &Word::Ready);
    loop {
        let mut fds =
            [PollFd::new(given.channel.as_fd(), PollFlags::POLLIN), PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => return Err(Failure::new("wait for the word to start", &e.into())),
        }
        if changed(&fds[1]) {
            return Ok(stale(given));
        }
        if fds[0].revents().is_some_and(|events| !events.is_empty()) {
            break;
        }
    }
    let word = fdpass::receive(given.channel.as_fd()).map_err(|e| Failure::new("hear the word to start", &e))?;
    // An end of file: the supervisor wants no more of it.
    let Some((bytes, fds)) = word else { return Ok(Told::Over) };
    let wiring =
        serde_json::from_slice(&bytes).ok().and_then(|Go { descriptors }| Wiring::new(descriptors, fds.into_iter()));
    let Some(wiring) = wiring else {
        return Err(Failure { step: "understand the word to start".to_owned(), errno: 0 });
    };
    match &given.help {
        Some(help) if basis.holds(&help.host) => Ok(Told::Go(wiring)),
        _ => Ok(stale(given)),
    }
}

fn stale(given: &Given) -> Told {
    tell(given.channel.as_fd(), &Word::Stale);
    Told::Over
}
