//! Who is at the other end of a unix socket, as the kernel saw them when they connected.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most groups that Linux lets a process have (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// The supplementary groups of whoever connected (SO_PEERGROUPS, Linux 4.13); their primary group is in SO_PEERCRED.
///
/// # Errors
/// What getsockopt(2) says.
pub fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `bytes` bytes behind the pointer, which the vector owns, and the count to `bytes`.
        let ret = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = usize::try_from(bytes).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        match super::check(libc::c_long::from(ret)) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // Too small: the kernel has said how many there are.
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && count > groups.len() && count <= GROUPS_MAX => {
                groups.resize(count, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn our_own_groups_are_at_both_ends_of_our_own_pair() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut ours: Vec<u32> = nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        ours.sort_unstable();
        for end in [one, other] {
            let mut theirs = groups(end.as_fd()).unwrap();
            theirs.sort_unstable();
            assert_eq!(theirs, ours);
        }
    }
}
