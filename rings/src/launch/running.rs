//! A launch under way and an agent that runs, as the supervisor holds them: by its end of the channel and by pidfds.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::check::Checker;
use super::entrance::Entrance;
use super::protocol::{Descriptors, Failure, Go, Usage, Word};
use super::streams::Stream;
use crate::notice::Notices;
use crate::plan::Plan;
use crate::spec::Inbound;
use crate::sys::{fdpass, process};

/// How long a launch may take before it is given up and ended. A launch takes milliseconds; this bounds a hung filesystem.
pub(super) const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a launch failed. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher process could not be started or is gone.
    #[error("the launcher process can't be reached ({doing})")]
    Launcher {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step inside the launch failed.
    #[error("launch step `{step}` failed")]
    Step {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A standard stream would open more than bytes.
    #[error("{stream} is {kind}: inside the ring it would be a way out of it")]
    Unfit {
        /// Which.
        stream: Stream,
        /// What it is.
        kind: &'static str,
    },
    /// The init ended before it said anything.
    #[error("the launch ended without a word: killed, or out of memory in its own limits")]
    Silent,
    /// It took longer than the bound.
    #[error("the launch did not finish within {} s", LAUNCH_TIMEOUT.as_secs())]
    Timeout,
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> LaunchError {
        LaunchError::Step { step: failure.step, source: io::Error::from_raw_os_error(failure.errno) }
    }
}

/// A running agent, known by descriptors and never by a number that could be recycled.
#[derive(Debug)]
pub struct Running {
    channel: OwnedFd,
    init: OwnedFd,
    agent: OwnedFd,
    listeners: Vec<TcpListener>,
    checker: Option<Checker>,
    notices: Option<Notices>,
    entrance: Option<Entrance>,
    pid: i32,
    nested: bool,
}

/// How an agent's main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself or by a signal; the usage holds the status of wait(2).
    Ended(Usage),
    /// The whole tree was ended from outside, init included (kill, memory limit, launcher's death): no status exists.
    Taken,
}

impl Running {
    /// The agent's pid on the host.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The channel: readable when the exit can be read with [`Running::read_exit`].
    #[must_use]
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// The pidfd of the init: readable once everything in the namespace is gone.
    #[must_use]
    pub fn init(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// Takes the listeners made inside the agent's network namespace, in the plan's order.
    pub fn take_listeners(&mut self) -> Vec<TcpListener> {
        std::mem::take(&mut self.listeners)
    }

    /// Takes the way to have the plan's check run beside the agent; `None` if it has none.
    pub fn take_checker(&mut self) -> Option<Checker> {
        self.checker.take()
    }

    /// Takes the notices of what the agent is refused; `None` if its filter has no listener ([`Plan::listens`]).
    pub fn take_notices(&mut self) -> Option<Notices> {
        self.notices.take()
    }

    /// Takes the way into the agent's network; `None` if its plan opens none.
    pub fn take_entrance(&mut self) -> Option<Entrance> {
        self.entrance.take()
    }

    /// Sends a signal to the agent's main process.
    ///
    /// # Errors
    /// ESRCH once it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        process::pidfd_send_signal(self.agent.as_fd(), signal)
    }

    /// Ends the init with SIGKILL: in a PID namespace the kernel then ends the whole tree.
    ///
    /// # Errors
    /// ESRCH once it has ended.
    pub fn kill_init(&self) -> io::Result<()> {
        process::pidfd_send_signal(self.init.as_fd(), libc::SIGKILL)
    }

    /// Tells the init that nobody wants its agent any more: it ends all its descendants and then itself. How a tree without a PID
    /// namespace is ended, whose init is its subreaper.
    ///
    /// # Errors
    /// What shutdown(2) says; an init that has ended is no error.
    pub fn dismiss(&self) -> io::Result<()> {
        Ok(nix::sys::socket::shutdown(self.channel.as_raw_fd(), nix::sys::socket::Shutdown::Write)?)
    }

    /// Whether the init is one of a PID namespace, so that nothing of the tree outlives it.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.nested
    }

    /// Blocks until the init has ended: with it, in a PID namespace, the whole tree.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait_gone(&self, timeout: Duration) -> io::Result<bool> {
        readable(self.init.as_fd(), timeout)
    }

    /// Reads how the agent ended; blocks until it has.
    ///
    /// # Errors
    /// A malformed word, or what recvmsg(2) says.
    pub fn read_exit(&self) -> io::Result<Exit> {
        match fdpass::receive(self.channel.as_fd())? {
            None => Ok(Exit::Taken),
            Some((bytes, _)) => match serde_json::from_slice(&bytes)? {
                Word::Exited(usage) => Ok(Exit::Ended(usage)),
                word => Err(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected word {word:?}"))),
            },
        }
    }
}

/// What a launch hands over, in the order in which it is sent.
pub(super) struct Handed {
    pub(super) fds: Vec<RawFd>,
    pub(super) descriptors: Descriptors,
}

/// What became of a launch from a prepared init.
pub(super) enum Prepared {
    /// It was made, or failed as any other would.
    Done(Result<Running, LaunchError>),
    /// Nothing was started: what it was prepared from has changed.
    Stale,
}

pub(super) fn start_prepared(channel: OwnedFd, handed: &Handed, plan: &Plan) -> Prepared {
    let go = serde_json::to_vec(&Go { descriptors: handed.descriptors }).expect("a few numbers");
    // One that is gone has never had the word.
    if fdpass::send(channel.as_fd(), &go, &handed.fds).is_err() {
        return Prepared::Stale;
    }
    match await_word(channel, plan) {
        Ok(Some(running)) => Prepared::Done(Ok(running)),
        Ok(None) => Prepared::Stale,
        Err(e) => Prepared::Done(Err(e)),
    }
}

/// Waits for a launch that was asked for.
pub(super) fn await_start(channel: OwnedFd, plan: &Plan) -> Result<Running, LaunchError> {
    let early = || io::Error::new(io::ErrorKind::InvalidData, "it waits for a word that was not promised");
    await_word(channel, plan)?
        .ok_or_else(|| LaunchError::Launcher { doing: "waiting for the agent to start", source: early() })
}

/// Waits for the first word on the channel. Dropping the channel ends the init, so every error path leaves nothing behind.
///
/// `Ok(None)`: it was prepared, and is stale.
fn await_word(channel: OwnedFd, plan: &Plan) -> Result<Option<Running>, LaunchError> {
    let at = |source| LaunchError::Launcher { doing: "waiting for the agent to start", source };
    if !readable(channel.as_fd(), LAUNCH_TIMEOUT).map_err(at)? {
        return Err(LaunchError::Timeout);
    }
    let Some((bytes, fds)) = fdpass::receive(channel.as_fd()).map_err(at)? else { return Err(LaunchError::Silent) };
    match serde_json::from_slice(&bytes).map_err(|e| at(e.into()))? {
        Word::Started => {
            let mut fds = fds.into_iter();
            let (Some(init), Some(agent)) = (fds.next(), fds.next()) else {
                return Err(at(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing")));
            };
            let checker = if plan.check.is_some() { fds.next().map(Checker::new) } else { None };
            let notices = if plan.listens().is_some() { fds.next().map(Notices::new) } else { None };
            let inbound = plan.inbound == Inbound::Open;
            let entrance = if inbound { fds.next().map(Entrance::new).transpose().map_err(at)? } else { None };
            let listeners: Vec<TcpListener> = fds.map(TcpListener::from).collect();
            let whole = listeners.len() == plan.listen.len()
                && checker.is_some() == plan.check.is_some()
                && notices.is_some() == plan.listens().is_some()
                && entrance.is_some() == inbound;
            if !whole {
                let missing = "listeners, the checker, the notices or the way in are missing";
                return Err(at(io::Error::new(io::ErrorKind::InvalidData, missing)));
            }
            let pid = process::pid_of(agent.as_fd()).map_err(at)?;
            let nested = plan.namespaces & libc::CLONE_NEWPID != 0;
            Ok(Some(Running { channel, init, agent, listeners, checker, notices, entrance, pid, nested }))
        }
        Word::Failed(failure) => Err(failure.into()),
        Word::Stale => Ok(None),
        word @ (Word::Ready | Word::Exited(_)) => {
            Err(at(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected word {word:?}"))))
        }
    }
}

pub(super) fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
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
