//! Health checks from the supervisor's side: ask the checker inside the ring, read what the check prints, hear how it ended.
//!
//! The checker stands inside the agent's freezer, task limit and CPU quota, so it is not relied upon: the supervisor keeps a
//! deadline of its own, reads no more than it has to, and takes no answer for one when none comes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::protocol::{Ask, CheckEnd, CheckWord};
use super::running::readable;
use crate::sys::fdpass;

/// What is kept of a check's output: its last bytes, where programs say what went wrong.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// How much longer than the check the answer may take: the checker has to end what the check has left.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The most that is read once the check has ended: what a pipe can hold.
const LEFT_BYTES_MAX: usize = 1 << 20;

/// One check, over.
#[derive(Debug)]
pub struct Checked {
    /// How it ended.
    pub end: End,
    /// The last of what it printed, standard output and error together; at most [`OUTPUT_BYTES_MAX`].
    pub output: Vec<u8>,
    /// Bytes that came before those and were not kept.
    pub dropped: u64,
    /// From the asking to the answer.
    pub took: Duration,
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It exited; 0 is well.
    Exited(i32),
    /// A signal that the checker did not send ended it.
    Signaled(i32),
    /// Its time was over, and it was ended.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
    /// The checker gave no answer: it is frozen, starved, or stopped by the agent.
    Unanswered,
    /// The checker is gone: the agent has ended, or has ended it.
    Gone,
}

/// The way to an agent's checker.
#[derive(Debug)]
pub struct Checker {
    socket: OwnedFd,
    talk: Mutex<Talk>,
}

#[derive(Debug, Default)]
struct Talk {
    last: u64,
    /// The last ask has no answer yet: another would only queue up behind it.
    open: bool,
}

impl Checker {
    pub(super) fn new(socket: OwnedFd) -> Checker {
        Checker { socket, talk: Mutex::default() }
    }

    /// Runs the plan's check once. Blocks until it has ended, for at most `timeout` and a second.
    ///
    /// # Errors
    /// When the check's streams can't be made here; nothing was started then.
    pub fn check(&self, timeout: Duration) -> io::Result<Checked> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let mut output = Tail::default();
        let mut end = self.late_answer(&mut talk);
        if end.is_none() {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let nothing = File::open("/dev/null")?;
            talk.last += 1;
            let ask = Ask { id: talk.last, timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) };
            let bytes = serde_json::to_vec(&ask)?;
            let sent = fdpass::send(self.socket.as_fd(), &bytes, &[nothing.as_raw_fd(), write.as_raw_fd()]);
            drop(write);
            end = Some(match sent {
                Ok(()) => {
                    talk.open = true;
                    self.hear(&mut talk, File::from(read), &mut output, began + timeout + ANSWER_WITHIN)
                }
                Err(_) => End::Gone,
            });
        }
        let end = end.unwrap_or(End::Unanswered);
        Ok(Checked { end, output: output.bytes.into(), dropped: output.dropped, took: began.elapsed() })
    }

    /// Takes answers that came after their deadline; `Some` when there still is none.
    fn late_answer(&self, talk: &mut Talk) -> Option<End> {
        while talk.open {
            match readable(self.socket.as_fd(), Duration::ZERO) {
                Ok(true) => match self.word(talk) {
                    Ok(_) => {}
                    Err(gone) => return Some(gone),
                },
                Ok(false) => return Some(End::Unanswered),
                Err(_) => return Some(End::Gone),
            }
        }
        None
    }

    /// The next word, if it is the answer to the last ask.
    fn word(&self, talk: &mut Talk) -> Result<Option<End>, End> {
        let Ok(Some((bytes, _))) = fdpass::receive(self.socket.as_fd()) else { return Err(End::Gone) };
        match serde_json::from_slice(&bytes) {
            Ok(CheckWord::Ended { id, end }) if id == talk.last => {
                talk.open = false;
                Ok(Some(match end {
                    CheckEnd::Exited(code) => End::Exited(code),
                    CheckEnd::Signaled(signal) => End::Signaled(signal),
                    CheckEnd::TimedOut => End::TimedOut,
                    CheckEnd::NotStarted(failure) => End::NotStarted(match failure.errno {
                        0 => failure.step,
                        errno => format!("{}: {}", failure.step, io::Error::from_raw_os_error(errno)),
                    }),
                }))
            }
            Ok(_) => Ok(None),
            Err(_) => Err(End::Gone),
        }
    }

    fn hear(&self, talk: &mut Talk, mut read: File, output: &mut Tail, deadline: Instant) -> End {
        let mut printing = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return End::Unanswered;
            }
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let mut fds =
                vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(read.as_fd(), PollFlags::POLLIN)];
            fds.truncate(if printing { 2 } else { 1 });
            match poll(&mut fds, left) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return End::Gone,
                Ok(_) => {}
            }
            let happened = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::revents).is_some_and(|e| !e.is_empty());
            let (answered, printed) = (happened(fds.first()), happened(fds.get(1)));
            if printed {
                printing = output.read_from(&mut read);
            }
            if answered {
                match self.word(talk) {
                    Ok(None) => {}
                    Ok(Some(end)) => {
                        let most = output.seen() + LEFT_BYTES_MAX as u64;
                        while output.seen() < most && output.read_some(&mut read) {}
                        return end;
                    }
                    Err(gone) => return gone,
                }
            }
        }
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Tail {
    fn seen(&self) -> u64 {
        self.dropped + self.bytes.len() as u64
    }

    /// Reads what is there; whether more may come.
    fn read_from(&mut self, from: &mut File) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        match from.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.push(&buffer[..length]);
                true
            }
            Err(e) => matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// Reads what is there; whether there was any.
    fn read_some(&mut self, from: &mut File) -> bool {
        let before = self.seen();
        self.read_from(from) && self.seen() > before
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let over = self.bytes.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.bytes.drain(..over);
        self.dropped += over as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_and_the_others_counted() {
        let mut tail = Tail::default();
        for _ in 0..3 {
            tail.push(&[b'a'; 3000]);
        }
        tail.push(b"end");
        assert_eq!((tail.bytes.len(), tail.dropped), (OUTPUT_BYTES_MAX, 9003 - OUTPUT_BYTES_MAX as u64));
        assert!(Vec::from(tail.bytes).ends_with(b"aend"));
    }
}
