//! What a finished attacker left in its output pipe, and whether anybody still holds that pipe open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::wire::OUTPUT_BYTES_MAX;

/// An attacker's output.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// A process outlived the end: it holds the pipe open.
    pub(super) is_held: bool,
}

/// Reads what is there, without waiting.
pub(super) fn collect(pipe: &OwnedFd) -> io::Result<Output> {
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 4096];
    while bytes.len() < OUTPUT_BYTES_MAX {
        match nix::unistd::read(pipe.as_fd(), &mut buffer) {
            Ok(0) => return Ok(Output { bytes, is_held: false }),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(Output { bytes, is_held: true }),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Output { bytes, is_held: false })
}
