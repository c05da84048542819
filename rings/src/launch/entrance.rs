//! The way into an agent's network: sockets that belong to it, made by its init and connected by the supervisor.
//!
//! A socket belongs for good to the network in which it was made, whoever holds it. So the init, which stands in that network,
//! makes one each time it is asked and passes it out, and all that can take long (the connecting) or can be watched for (its time)
//! is the supervisor's. Why the init, and no process beside it: it is there anyway, it is the first process of its PID namespace,
//! so that no signal of the agent's reaches it, it is not dumpable, and making a socket takes no capability, of which it has none.
//! It is asked by the supervisor alone, over a socket that nobody else has; it reads one byte, and answers with what that byte
//! can have: a TCP socket over IPv4 or IPv6, unbound and unconnected.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::plan::Plan;
use crate::spec::Inbound;
use crate::sys::{fdpass, net};

/// Which kind of address a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// 127.0.0.1.
    V4,
    /// ::1.
    V6,
}

impl Family {
    fn byte(self) -> u8 {
        match self {
            Family::V4 => b'4',
            Family::V6 => b'6',
        }
    }

    fn of(byte: u8) -> Option<Family> {
        [Family::V4, Family::V6].into_iter().find(|family| family.byte() == byte)
    }

    fn number(self) -> libc::c_int {
        match self {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        }
    }
}

/// An answer to [`Entrance::ask`].
#[derive(Debug)]
pub struct Made {
    /// What was asked for.
    pub family: Family,
    /// A TCP socket of the agent's network, non-blocking, unbound and unconnected; or what the kernel said there.
    pub socket: io::Result<OwnedFd>,
}

/// The supervisor's end: non-blocking, readable once there is an answer. Who asks waits for the answer before asking for the same
/// family again, so that no more than one of each is ever on its way.
#[derive(Debug)]
pub struct Entrance {
    socket: OwnedFd,
}

impl AsFd for Entrance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Entrance {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Entrance> {
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Entrance { socket })
    }

    /// Asks for a socket.
    ///
    /// # Errors
    /// EPIPE once the init is gone.
    pub fn ask(&self, family: Family) -> io::Result<()> {
        fdpass::send(self.socket.as_fd(), &[family.byte()], &[])
    }

    /// Takes the next answer; `None` once the init is gone.
    ///
    /// # Errors
    /// `WouldBlock` while there is none; `InvalidData` for one that is no answer.
    pub fn take(&self) -> io::Result<Option<Made>> {
        let Some((bytes, fds)) = fdpass::receive(self.socket.as_fd())? else { return Ok(None) };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "what came for a socket is none");
        let (&[byte, a, b, c, d], fd) = (bytes.as_slice(), fds.into_iter().next()) else { return Err(malformed()) };
        let family = Family::of(byte).ok_or_else(malformed)?;
        let socket = match fd {
            Some(fd) if net::is_tcp(fd.as_fd(), family.number())? => Ok(fd),
            Some(_) => return Err(malformed()),
            None => Err(io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]))),
        };
        Ok(Some(Made { family, socket }))
    }
}

/// The init's end.
pub(super) struct Maker {
    socket: OwnedFd,
}

/// Whether there may be more to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Somebody is there who may ask.
    Still,
    /// Nobody is.
    NoMore,
}

impl Maker {
    /// Both ends, the second of them the supervisor's; `None` for a plan that opens no way in.
    pub(super) fn of(plan: &Plan) -> io::Result<Option<(Maker, OwnedFd)>> {
        (plan.inbound == Inbound::Open).then(Maker::open).transpose()
    }

    fn open() -> io::Result<(Maker, OwnedFd)> {
        let (ours, theirs) = fdpass::pair()?;
        // Nothing that comes here may hold up the init.
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Maker { socket: ours }, theirs))
    }

    /// Answers one question.
    pub(super) fn answer(&self) -> Asked {
        match self.try_answer() {
            Ok(asked) => asked,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Asked::Still,
            // A supervisor that takes no answers is told so by the end of this socket.
            Err(_) => Asked::NoMore,
        }
    }

    fn try_answer(&self) -> io::Result<Asked> {
        let mut question = [0u8; 1];
        // SAFETY: so many bytes of an array that outlives the call.
        let read = unsafe { libc::recv(self.socket.as_raw_fd(), question.as_mut_ptr().cast(), 1, 0) };
        match read {
            1.. => {}
            0 => return Ok(Asked::NoMore),
            _ => return Err(io::Error::last_os_error()),
        }
        let family = Family::of(question[0]).ok_or(io::ErrorKind::InvalidData)?;
        let made = make(family);
        let errno = made.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(0);
        let [a, b, c, d] = errno.to_ne_bytes();
        let numbers: Vec<_> = made.iter().map(AsRawFd::as_raw_fd).collect();
        fdpass::send(self.socket.as_fd(), &[family.byte(), a, b, c, d], &numbers)?;
        Ok(Asked::Still)
    }
}

impl AsFd for Maker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn make(family: Family) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: numbers only.
    let number = unsafe { libc::socket(family.number(), kind, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair() -> (Maker, Entrance) {
        let (maker, theirs) = Maker::open().unwrap();
        (maker, Entrance::new(theirs).unwrap())
    }

    #[test]
    fn each_question_is_answered_with_a_socket_of_its_family() {
        let (maker, entrance) = pair();
        assert_eq!(entrance.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for family in [Family::V4, Family::V6] {
            entrance.ask(family).unwrap();
            assert_eq!(maker.answer(), Asked::Still);
            let made = entrance.take().unwrap().unwrap();
            assert_eq!(made.family, family);
            // A host without IPv6 says so.
            assert!(made.socket.is_ok() || family == Family::V6);
        }
        assert_eq!(maker.answer(), Asked::Still, "there is no question, and it does not wait for one");
    }

    #[test]
    fn the_end_of_either_side_is_seen_by_the_other() {
        let (maker, entrance) = pair();
        drop(entrance);
        assert_eq!(maker.answer(), Asked::NoMore);
        let (maker, entrance) = pair();
        drop(maker);
        assert!(entrance.take().unwrap().is_none() && entrance.ask(Family::V4).is_err());
    }

    #[test]
    fn what_is_no_tcp_socket_of_that_family_is_not_taken() {
        let (maker, entrance) = pair();
        let (other, _) = fdpass::pair().unwrap();
        let v4 = make(Family::V4).unwrap();
        for (bytes, fd) in [(&b"40000"[..], &other), (b"60000", &v4), (b"50000", &v4), (b"4", &v4)] {
            fdpass::send(maker.as_fd(), bytes, &[fd.as_raw_fd()]).unwrap();
            assert_eq!(entrance.take().unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        entrance.ask(Family::V4).unwrap();
        maker.answer();
        assert!(entrance.take().unwrap().unwrap().socket.is_ok(), "and it goes on");
    }

    #[test]
    fn a_question_that_is_none_ends_the_answers() {
        let (maker, entrance) = pair();
        fdpass::send(entrance.as_fd(), b"x", &[]).unwrap();
        assert_eq!(maker.answer(), Asked::NoMore);
    }
}
