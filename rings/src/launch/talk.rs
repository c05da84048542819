//! Questions to the launcher, each with a number that its answer repeats.
//!
//! Why numbers: a launcher that was held up (stopped, or on a hung file system) answers when nobody waits any more. Without
//! them that answer would be taken for the one to the next question, and every later one would be off by one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt::SendTimeout};
use nix::sys::time::TimeVal;

use super::payload;
use super::protocol::{Answer, Reply, Request};
use super::running::readable;
use crate::sys::fdpass;

/// The supervisor's end of the socket.
#[derive(Debug)]
pub(super) struct Talk {
    socket: OwnedFd,
    /// The number of the last question.
    last: u64,
    within: Duration,
}

impl Talk {
    /// Talks over `socket`; neither a question nor what is only sent may take longer than `within`.
    pub(super) fn new(socket: OwnedFd, within: Duration) -> io::Result<Talk> {
        // A launcher that reads nothing fills the socket, and a send would wait for it for ever.
        let most = TimeVal::new(i64::try_from(within.as_secs()).unwrap_or(i64::MAX), 0);
        setsockopt(&socket, SendTimeout, &most)?;
        Ok(Talk { socket, last: 0, within })
    }

    /// For what is answered elsewhere or not at all.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks, and waits for the answer to this question. Answers to earlier ones are dropped, descriptors included.
    pub(super) fn ask(&mut self, question: impl FnOnce(u64) -> Request) -> io::Result<Reply> {
        self.last += 1;
        payload::send(self.socket.as_fd(), &question(self.last), &[])?;
        let deadline = Instant::now() + self.within;
        loop {
            if !readable(self.socket.as_fd(), deadline.saturating_duration_since(Instant::now()))? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let Some((bytes, fds)) = fdpass::receive(self.socket.as_fd())? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the launcher has ended"));
            };
            let answer: Answer = serde_json::from_slice(&payload::read(bytes, fds)?.0)?;
            if answer.id == self.last {
                return Ok(answer.reply);
            }
        }
    }

    /// Ends the talk, and with it the launcher.
    pub(super) fn hang_up(&self) {
        // It fails where the other end is gone already.
        let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&self.socket), Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::fdpass;

    fn names(reply: &Reply) -> &str {
        match reply {
            Reply::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Answers every question that is there by its number, as the launcher does: in order.
    fn answer_all(launcher: &OwnedFd) {
        while readable(launcher.as_fd(), Duration::ZERO).unwrap() {
            let (bytes, fds) = fdpass::receive(launcher.as_fd()).unwrap().unwrap();
            let (request, _) = payload::read(bytes, fds).unwrap();
            let Request::Inspect { id, .. } = serde_json::from_slice(&request).unwrap() else {
                panic!("another question")
            };
            // With a descriptor too many: what is dropped must be closed.
            let more = std::fs::File::open("/dev/null").unwrap();
            let answer = Answer { id, reply: Reply::Failed(format!("to {id}")) };
            payload::send(launcher.as_fd(), &answer, &[std::os::fd::AsRawFd::as_raw_fd(&more)]).unwrap();
        }
    }

    fn inspect(id: u64) -> Request {
        Request::Inspect { id, paths: Vec::new() }
    }

    #[test]
    fn a_late_answer_is_never_taken_for_another_ones() {
        let (ours, launcher) = fdpass::pair().unwrap();
        let mut talk = Talk::new(ours, Duration::from_millis(20)).unwrap();
        for _ in 0..3 {
            assert_eq!(talk.ask(inspect).unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        answer_all(&launcher);
        talk.within = Duration::from_secs(60);
        let answering = std::thread::spawn(move || {
            assert!(readable(launcher.as_fd(), Duration::from_secs(60)).unwrap());
            answer_all(&launcher);
            launcher
        });
        assert_eq!(names(&talk.ask(inspect).unwrap()), "to 4");
        drop(answering.join().unwrap());
        // Whichever comes first: another test's child holds the launcher's end too until it has called exec.
        let gone = talk.ask(inspect).unwrap_err().kind();
        assert!(matches!(gone, io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof), "{gone}");
    }

    #[test]
    fn a_launcher_that_reads_nothing_holds_nobody_for_ever() {
        let (ours, _launcher) = fdpass::pair().unwrap();
        let mut talk = Talk::new(ours, Duration::from_secs(1)).unwrap();
        talk.within = Duration::ZERO;
        let refused = (0..100_000)
            .map(|_| talk.ask(inspect))
            .find_map(|asked| asked.err().filter(|e| e.kind() != io::ErrorKind::TimedOut));
        assert!(refused.is_some(), "the socket never was full");
    }
}
