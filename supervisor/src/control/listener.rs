//! Who listens at the other end of a socket of ours.
//!
//! A supervisor checks who connects; whoever connects must check the supervisor as well, or somebody who may write the
//! folder puts a socket of their own there and is handed plans, secrets and descriptors. The kernel knows who called listen(2)
//! (SO_PEERCRED, see unix(7)): that is who answers.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};

/// What is said to a listener, and so who may be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Plans, secrets, descriptors: only root and our own user get them.
    Secrets,
    /// Orders and questions. Whoever named the folder meant its owner, whose supervisor they may command as an operator.
    Orders,
}

/// Somebody listens who must not be spoken to.
#[derive(Debug, thiserror::Error)]
#[error("{} belongs to uid {uid}, who may not answer there: nothing was said to it", path.display())]
pub struct Stranger {
    /// The socket.
    pub path: PathBuf,
    /// Who listens there.
    pub uid: u32,
}

impl Stranger {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        format!(
            "find out who put it there (`ls -ld {}`), remove it, or choose another folder",
            self.path.parent().unwrap_or(&self.path).display()
        )
    }
}

/// Checks whoever listens at `path`, to which `socket` is connected.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] with a [`Stranger`] in it; what the kernel says when it can't be known.
pub(super) fn check(socket: impl AsFd, path: &Path, trust: Trust) -> io::Result<()> {
    let uid = getsockopt(&socket, sockopt::PeerCredentials)?.uid();
    let owner = match trust {
        Trust::Secrets => None,
        Trust::Orders => path.parent().map(std::fs::metadata).transpose()?.map(|folder| folder.uid()),
    };
    if may_answer(uid, nix::unistd::geteuid().as_raw(), owner) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, Stranger { path: path.to_owned(), uid }))
}

fn may_answer(uid: u32, ours: u32, owner: Option<u32>) -> bool {
    uid == 0 || uid == ours || owner == Some(uid)
}

/// The stranger in an error of [`check`].
pub(crate) fn stranger(error: &io::Error) -> Option<&Stranger> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_ourselves_and_the_owner_of_a_named_folder_may_answer_and_nobody_else() {
        assert!(may_answer(0, 7, None) && may_answer(7, 7, None) && may_answer(8, 7, Some(8)));
        assert!(!may_answer(8, 7, None) && !may_answer(8, 7, Some(7)) && !may_answer(8, 0, Some(0)));
    }
}
