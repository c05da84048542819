//! What can wake a guardian (or a hog): a message, the injector's end, a signal, the deadline. One poll over all of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd;

use super::protocol::MESSAGE_MAX;

/// The longest single poll; the loop goes on until the deadline.
const POLL_MS_MAX: u128 = 60_000;

/// Why the waiting is over.
#[derive(Debug)]
pub(crate) enum Waker {
    /// A whole message.
    Message(Vec<u8>),
    /// The pipe ended, or the injector's process did.
    InjectorGone,
    /// TERM, INT, HUP or QUIT.
    Signal,
    /// It is late.
    Deadline,
    /// Waiting itself failed, or a message was too long.
    Broken(#[expect(dead_code, reason = "for the Debug text in a refusal")] io::Error),
}

/// Everything that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    signals: SignalFd,
    injector: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl Watch {
    /// Begins to watch stdin and the signals that ask a process to end. SIGPIPE is blocked: the answer may find nobody.
    pub(crate) fn begin() -> io::Result<Self> {
        let mut asking = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            asking.add(signal);
        }
        let mut blocked = asking;
        blocked.add(Signal::SIGPIPE);
        blocked.thread_set_mask()?;
        let signals = SignalFd::with_flags(&asking, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { signals, injector: None, buffer: Vec::new() })
    }

    /// Watches the injector's pidfd too.
    pub(crate) fn add_injector(&mut self, injector: OwnedFd) {
        self.injector = Some(injector);
    }

    /// Waits until something happens. A message that was sent before the injector's end comes first: a disarm by an
    /// injector that then ended is a disarm.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Waker {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Waker::Message(line);
            }
            if self.buffer.len() > MESSAGE_MAX {
                return Waker::Broken(io::ErrorKind::FileTooLarge.into());
            }
            match self.wait_once(deadline) {
                Ok(None) => {}
                Ok(Some(waker)) => return waker,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Waker::Broken(errno.into()),
            }
        }
    }

    fn wait_once(&mut self, deadline: Instant) -> nix::Result<Option<Waker>> {
        #[expect(clippy::disallowed_methods, reason = "the guardian's deadline is real time")]
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Some(Waker::Deadline));
        }
        // Rounded up: a poll of 0 ms would spin through the last millisecond.
        let ms = (left.as_micros().div_ceil(1000)).min(POLL_MS_MAX);
        let stdin = io::stdin();
        let mut fds =
            vec![PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.injector.as_ref().map(|injector| PollFd::new(injector.as_fd(), PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX))?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        if ready[0] {
            let mut part = [0; 4096];
            let n = unistd::read(stdin.as_fd(), &mut part)?;
            self.buffer.extend_from_slice(&part[..n]);
            return Ok((n == 0).then_some(Waker::InjectorGone));
        }
        if ready.get(2) == Some(&true) {
            return Ok(Some(Waker::InjectorGone));
        }
        Ok(ready[1].then_some(Waker::Signal))
    }
}
