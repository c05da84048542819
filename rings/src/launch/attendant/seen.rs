//! What an observed call is about, as far as its caller's memory says it: for `learn`, which watches and changes nothing.
//!
//! Another thread of the agent may change a path between this look and the kernel's. So nothing is decided by it: the proposal
//! that is made of it is a person's to accept.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::launch::memory;
use crate::notice::{Outcome, TEXT_BYTES_MAX, What, escaped};

/// The longest socket address (`struct sockaddr_storage`).
const ADDRESS_BYTES_MAX: usize = 128;

/// What a call by that name is about.
pub(super) fn what(name: &str, tid: i32, args: &[u64; 6]) -> Option<What> {
    let writes = |flags: u64| flags as i32 & (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) != libc::O_RDONLY;
    let here = libc::AT_FDCWD;
    match name {
        "open" => opened(tid, here, args[0], writes(args[1])),
        "openat" => opened(tid, args[0] as i32, args[1], writes(args[2])),
        "creat" => opened(tid, here, args[0], true),
        "execve" => Some(What::Executed { path: shown(&path(tid, here, args[0])?) }),
        "execveat" => Some(What::Executed { path: shown(&path(tid, args[0] as i32, args[1])?) }),
        "connect" => {
            let length = usize::try_from(args[2] as u32).ok()?.min(ADDRESS_BYTES_MAX);
            Some(What::Connected { address: address(&memory::bytes(tid, args[1], length).ok()?)? })
        }
        _ => None,
    }
}

fn opened(tid: i32, folder: i32, at: u64, write: bool) -> Option<What> {
    let path = path(tid, folder, at)?;
    Some(What::Opened { path: shown(&path), write, result: outcome(&path, write) })
}

/// A path with the folder it starts from; as it was written otherwise.
fn path(tid: i32, folder: i32, at: u64) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(memory::text(tid, at).ok()?));
    if path.is_absolute() {
        return Some(path);
    }
    let from = match folder {
        libc::AT_FDCWD => format!("/proc/{tid}/cwd"),
        number => format!("/proc/{tid}/fd/{number}"),
    };
    let from = std::fs::read_link(from).ok()?;
    Some(if path.as_os_str().is_empty() { from } else { from.join(path) })
}

fn shown(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes(), TEXT_BYTES_MAX)
}

/// Whether the path leads anywhere here: this process sees what the agent sees, but for what only Landlock keeps from it.
fn outcome(path: &Path, write: bool) -> Outcome {
    // Of these each process has its own.
    if path.starts_with("/proc/self") || path.starts_with("/proc/thread-self") || path.starts_with("/dev") {
        return Outcome::Unknown;
    }
    match access(path, if write { AccessFlags::W_OK } else { AccessFlags::R_OK }) {
        Ok(()) => Outcome::Found,
        Err(errno) => Outcome::Missing(errno as i32),
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let family = i32::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
    let port = |bytes: &[u8]| Some(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    Some(match family {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            SocketAddr::from((Ipv4Addr::from(ip), port(bytes)?)).to_string()
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            SocketAddr::from((Ipv6Addr::from(ip), port(bytes)?)).to_string()
        }
        libc::AF_UNIX => match &bytes[2..] {
            [] => "unix:".to_owned(),
            [0, name @ ..] => format!("unix:@{}", escaped(name, TEXT_BYTES_MAX)),
            path => {
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                format!("unix:{}", escaped(&path[..end], TEXT_BYTES_MAX))
            }
        },
        family => format!("family:{family}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_named_as_people_write_them_and_short_ones_are_none() {
        let with = |family: i32, rest: &[u8]| [&(family as u16).to_ne_bytes()[..], rest].concat();
        let told = |family, rest: &[u8]| address(&with(family, rest));
        assert_eq!(told(libc::AF_INET, &[1, 187, 10, 0, 0, 1, 0, 0]).as_deref(), Some("10.0.0.1:443"));
        let six = [&[0, 80, 0, 0, 0, 0][..], &[0; 15], &[1], &[0; 4]].concat();
        assert_eq!(told(libc::AF_INET6, &six).as_deref(), Some("[::1]:80"));
        assert_eq!(told(libc::AF_UNIX, b"/run/x\0rest").as_deref(), Some("unix:/run/x"));
        assert_eq!(told(libc::AF_UNIX, b"\0name").as_deref(), Some("unix:@name"));
        assert_eq!(told(libc::AF_VSOCK, b"").as_deref(), Some("family:40"));
        assert_eq!((told(libc::AF_INET, &[1]), address(&[]), address(&[2])), (None, None, None));
    }
}
