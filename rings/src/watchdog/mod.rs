//! The watchdog: a process that outlives the supervisor for as long as one kill takes.
//!
//! Why a process of its own, beside PDEATHSIG and the sweep at the next start: PDEATHSIG reaches an agent through the launcher
//! and an init, so it needs both of them to run; the sweep needs somebody to start us again. The watchdog needs neither. It
//! holds the open `cgroup.kill` of the group over all agents and one end of a socket whose other end only the supervisor
//! has: when that closes, in whatever way the supervisor ended, it kills the group and verifies that it is empty.
//!
//! It has a session and a cgroup of its own, so that neither a signal to the supervisor's terminal or process group nor a
//! kill of its cgroup takes both. It can't be traced, listens to nothing but that socket, and ignores every signal that can
//! be ignored: who ends it with SIGKILL is seen by the supervisor ([`Watchdog::gone`]), which starts another.

mod process;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Base, Tree};
use crate::sys::{fdpass, process as system};

pub use process::become_watchdog_if_asked;

/// `argv[0]` and the process's name.
const NAME: &str = "agt-watchdog";

/// How long it may take to say that it watches. It takes milliseconds; this bounds a host that is out of everything.
const ARMED_WITHIN: Duration = Duration::from_secs(10);
/// How long a dismissed one may take to end before it is killed.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Supervisor to watchdog.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Kill this group once the socket closes.
    Watch(Tree),
    /// Nothing is left to watch: end without a kill.
    Dismissed,
}

/// Watchdog to supervisor, once.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// From now on it kills.
    Armed,
    /// It can't: a sentence.
    Refused(String),
}

/// Why there is no watchdog.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The process could not be started or spoken to.
    #[error("the watchdog process can't be had ({doing})")]
    Process {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has no group of its own.
    #[error("the watchdog has no cgroup of its own")]
    Group(#[source] cgroup::Error),
    /// It started and can't watch.
    #[error("the watchdog can't watch: {reason}")]
    Refused {
        /// Its own words.
        reason: String,
    },
}

/// A watchdog that is armed. Dropping it without [`Watchdog::dismiss`] lets it kill.
#[derive(Debug)]
pub struct Watchdog {
    socket: OwnedFd,
    process: OwnedFd,
    child: Child,
}

impl Watchdog {
    /// Starts one from our own executable (whose `main` must begin with [`become_watchdog_if_asked`]) over all agents of `base`.
    ///
    /// # Errors
    /// [`WatchdogError`]; no process is left then.
    pub fn start(base: &Base) -> Result<Watchdog, WatchdogError> {
        let at = |doing| move |source| WatchdogError::Process { doing, source };
        let (socket, theirs) = fdpass::pair().map_err(at("making its socket"))?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .current_dir("/")
            .spawn()
            .map_err(at("starting it"))?;
        let process = system::pidfd_open(child.id().cast_signed()).map_err(at("getting hold of it"));
        let mut started = match process {
            Ok(process) => Watchdog { socket, process, child },
            Err(error) => {
                end(child);
                return Err(error);
            }
        };
        match started.arm(base) {
            Ok(()) => Ok(started),
            Err(error) => {
                // Not dropped: an armed watchdog whose answer was lost would take the closed socket for our death.
                let _already_gone = started.child.kill();
                let _reaped = started.child.wait();
                Err(error)
            }
        }
    }

    fn arm(&mut self, base: &Base) -> Result<(), WatchdogError> {
        let at = |doing| move |source| WatchdogError::Process { doing, source };
        base.hold_watchdog(self.child.id().cast_signed()).map_err(WatchdogError::Group)?;
        let order = Order::Watch(base.agents().tree().clone());
        self.send(&order).map_err(at("saying what to watch"))?;
        if !readable(self.socket.as_fd(), ARMED_WITHIN).map_err(at("waiting for its word"))? {
            return Err(at("waiting for its word")(io::ErrorKind::TimedOut.into()));
        }
        let Some((bytes, _)) = fdpass::receive(self.socket.as_fd()).map_err(at("reading its word"))? else {
            return Err(at("reading its word")(io::ErrorKind::UnexpectedEof.into()));
        };
        match serde_json::from_slice(&bytes).map_err(|e| at("reading its word")(e.into()))? {
            Answer::Armed => Ok(()),
            Answer::Refused(reason) => Err(WatchdogError::Refused { reason }),
        }
    }

    fn send(&self, order: &Order) -> io::Result<()> {
        fdpass::send(self.socket.as_fd(), &serde_json::to_vec(order)?, &[])
    }

    /// Its pid: for messages and for whoever must leave it alone.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A descriptor that is readable once the watchdog is gone.
    #[must_use]
    pub fn gone(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Ends it without a kill: every agent is gone already. Waits until it is gone, so that its group can be removed.
    pub fn dismiss(mut self) {
        // One that is gone already, or that does not go by itself in time, is reaped all the same.
        let told = self.send(&Order::Dismissed).is_ok();
        if !told || !readable(self.process.as_fd(), GONE_WITHIN).unwrap_or(false) {
            let _already_gone = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}

fn end(mut child: Child) {
    let _already_gone = child.kill();
    let _reaped = child.wait();
}

fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut fds, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
