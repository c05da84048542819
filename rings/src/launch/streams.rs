//! The three standard streams of an agent: what may be one.
//!
//! A descriptor reaches what it is of, whatever the root shows: a directory as standard input would be a hole in the ring, all
//! of its tree open to `openat(0, ...)`. So what carries bytes may be a stream, and nothing else.

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::{fstat, major, minor};

/// The memory devices: null, zero, full, random and urandom (admin-guide/devices.txt: major 1).
const MEMORY_DEVICES: (u64, [u64; 5]) = (1, [3, 5, 7, 8, 9]);

/// The three standard streams of an agent.
#[derive(Debug)]
pub struct Streams {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Input => "standard input",
            Stream::Output => "standard output",
            Stream::Error => "standard error",
        })
    }
}

impl Streams {
    /// The first that is no pipe, socket, terminal, regular file or memory device, and what it is instead.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub(super) fn unfit(&self) -> io::Result<Option<(Stream, &'static str)>> {
        let all = [(Stream::Input, &self.stdin), (Stream::Output, &self.stdout), (Stream::Error, &self.stderr)];
        for (stream, fd) in all {
            if let Some(kind) = unfit(fd.as_fd())? {
                return Ok(Some((stream, kind)));
            }
        }
        Ok(None)
    }
}

fn unfit(fd: BorrowedFd<'_>) -> io::Result<Option<&'static str>> {
    let stat = fstat(fd)?;
    let device = stat.st_rdev;
    Ok(match stat.st_mode & libc::S_IFMT {
        libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFREG => None,
        libc::S_IFCHR if major(device) == MEMORY_DEVICES.0 && MEMORY_DEVICES.1.contains(&minor(device)) => None,
        libc::S_IFCHR if fd.is_terminal() => None,
        libc::S_IFCHR | libc::S_IFBLK => Some("a device"),
        libc::S_IFDIR => Some("a directory"),
        _ => Some("an object of the kernel"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;

    #[test]
    fn what_carries_bytes_may_be_a_stream_and_nothing_else() {
        let (read, _write) = nix::unistd::pipe().unwrap();
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let null = File::open("/dev/null").unwrap();
        let fit = [read, socket.into(), file.into(), null.into()];
        assert!(fit.iter().all(|fd| unfit(fd.as_fd()).unwrap().is_none()));
        let directory = File::open("/").unwrap();
        assert_eq!(unfit(directory.as_fd()).unwrap(), Some("a directory"));
        // SAFETY: numbers only; a new descriptor of ours.
        let event = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        assert_eq!(unfit(event.as_fd()).unwrap(), Some("an object of the kernel"));
    }
}
