//! What a finished attacker left in its output pipe, and whether anybody still holds that pipe open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

use super::wire::OUTPUT_BYTES_MAX;

/// An attacker's output.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// A process outlived the end: it holds the pipe open.
    pub(super) is_held: bool,
}

/// How long a pipe must stay open after the end to count as held. Between fork and exec a child of another worker's holds everybody's
/// pipes for a moment; a survivor holds its own for as long as it lives.
const HELD_FOR_MILLIS: u16 = 1_000;

/// Reads what is there; waits only where somebody else holds the pipe.
pub(super) fn collect(pipe: &OwnedFd) -> io::Result<Output> {
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 4096];
    while bytes.len() < OUTPUT_BYTES_MAX {
        match nix::unistd::read(pipe.as_fd(), &mut buffer) {
            Ok(0) => return Ok(Output { bytes, is_held: false }),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], HELD_FOR_MILLIS) {
                Ok(0) => return Ok(Output { bytes, is_held: true }),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            },
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Output { bytes, is_held: false })
}
