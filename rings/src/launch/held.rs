//! The launcher process as its parent holds it: known to be gone without being waited for, ended, reaped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::Duration;

use super::running::readable;
use crate::sys::process;

/// How long a launcher whose socket was closed may take to end before it is killed.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// A child that is ended and reaped when it is let go of.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    gone: OwnedFd,
}

impl Process {
    /// Takes hold of a child, or ends it.
    pub(super) fn hold(mut child: Child) -> io::Result<Process> {
        match process::pidfd_open(child.id().cast_signed()) {
            Ok(gone) => Ok(Process { child, gone }),
            Err(e) => {
                let _already_gone = child.kill();
                let _reaped = child.wait();
                Err(e)
            }
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable once it is gone.
    pub(super) fn gone(&self) -> BorrowedFd<'_> {
        self.gone.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is stopped, or held up by a file system, would hold us for as long.
        if !readable(self.gone.as_fd(), GONE_WITHIN).unwrap_or(false) {
            let _already_gone = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}
