//! A request or an answer in one packet: in the packet itself when it is small, else in a memfd.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::fdpass;

/// What a message carries in itself; more travels in a memfd.
const INLINE_BYTES_MAX: usize = fdpass::MESSAGE_BYTES_MAX / 2;

/// Sends a value with descriptors; a large one in a memfd, which is then the first of them.
pub(super) fn send<T: serde::Serialize>(socket: BorrowedFd<'_>, value: &T, fds: &[RawFd]) -> io::Result<()> {
    let mut bytes = vec![b'i'];
    serde_json::to_writer(&mut bytes, value)?;
    if bytes.len() <= INLINE_BYTES_MAX {
        return fdpass::send(socket, &bytes, fds);
    }
    let mut payload = File::from(memfd_create(c"agt-request", MFdFlags::MFD_CLOEXEC)?);
    payload.write_all(&bytes[1..])?;
    payload.rewind()?;
    let mut all = vec![payload.as_raw_fd()];
    all.extend_from_slice(fds);
    fdpass::send(socket, b"m", &all)
}

/// The value of a message, and the descriptors that are not it.
pub(super) fn read(mut bytes: Vec<u8>, mut fds: Vec<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    match bytes.first() {
        Some(b'i') => {
            bytes.remove(0);
            Ok((bytes, fds))
        }
        Some(b'm') if !fds.is_empty() => {
            let mut payload = Vec::new();
            io::Read::read_to_end(&mut File::from(fds.remove(0)), &mut payload)?;
            Ok((payload, fds))
        }
        _ => Err(invalid("a message without its payload")),
    }
}
