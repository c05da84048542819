//! What a launch could leave behind in the agent by accident: descriptors and environment of whoever started the supervisor.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{Attack, D, MARK, Ready, Stopped, attack, holds_mark};
use crate::probe::Layer::CleanStart;

/// The environment variable that must not be passed on.
pub(in crate::probe) const VARIABLE: &str = "AGT_PROBE_SECRET";

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "inherited-descriptor",
        "find a descriptor that the supervisor's caller left open",
        "open files and connections",
        |_| if foreign()?.is_empty() { Err(nothing()) } else { Ok(()) },
    )
    .rings([D; 4])
    .by(&[CleanStart]),
    attack(
        "inherited-file",
        "read a secret file through such a descriptor",
        "files that no rule on paths sees",
        |_| {
            let reads_secret = |fd: RawFd| {
                let mut bytes = [0u8; MARK.len()];
                // SAFETY: the kernel writes at most as many bytes as there are.
                let read = unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
                read > 0 && holds_mark(&bytes)
            };
            if foreign()?.into_iter().any(reads_secret) { Ok(()) } else { Err(nothing()) }
        },
    )
    .rings([D; 4])
    .by(&[CleanStart]),
    attack(
        "inherited-socket",
        "send through such a descriptor",
        "connections that were made for somebody else",
        |_| {
            // SAFETY: one byte of a constant; what is no socket refuses it.
            let sends = |fd: RawFd| unsafe { libc::send(fd, c"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) } == 1;
            if foreign()?.into_iter().any(sends) { Ok(()) } else { Err(nothing()) }
        },
    )
    .rings([D; 4])
    .by(&[CleanStart]),
    attack(
        "inherited-network",
        "find a socket of the host's network among its descriptors",
        "a way out that was opened for somebody else",
        |_| if foreign()?.into_iter().any(is_network) { Ok(()) } else { Err(nothing()) },
    )
    .rings([D; 4])
    .by(&[CleanStart]),
    attack(
        "inherited-environment",
        "find a secret of the supervisor's environment in one's own",
        "tokens of the user",
        |_| {
            let own = fs::read("/proc/self/environ").ready("read our own environment")?;
            if holds_mark(&own) || std::env::var_os(VARIABLE).is_some() {
                Ok(())
            } else {
                Err(Stopped::Nothing("it is not there".to_owned()))
            }
        },
    )
    .rings([D; 4])
    .by(&[CleanStart]),
];

/// Open descriptors but the standard streams, which are ours by right.
fn foreign() -> Result<Vec<RawFd>, Stopped> {
    let names = fs::read_dir("/proc/self/fd").ready("list our descriptors")?;
    let numbers: Vec<RawFd> =
        names.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    // The listing's own descriptor is closed by now.
    Ok(numbers.into_iter().filter(|fd| *fd > 2 && is_open(*fd)).collect())
}

fn nothing() -> Stopped {
    Stopped::Nothing("0, 1 and 2 only".to_owned())
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only asks.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Whether it is a socket of a family that reaches further than this host's unix sockets.
fn is_network(fd: RawFd) -> bool {
    let mut domain = libc::AF_UNIX;
    let mut length = size_of_val(&domain) as u32;
    let to = (&raw mut domain).cast();
    // SAFETY: the kernel writes at most one int; what is no socket refuses.
    let ret = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, to, &raw mut length) };
    ret == 0 && domain != libc::AF_UNIX
}

/// Descriptors without close-on-exec and a variable, as a careless caller leaves them.
#[derive(Debug)]
pub(in crate::probe) struct Planted {
    _descriptor: File,
    _sockets: (OwnedFd, OwnedFd),
    _listener: TcpListener,
}

impl Planted {
    /// Plants both. Must come before the launcher is started, which would inherit them.
    pub(in crate::probe) fn plant(secret: &Path) -> io::Result<Planted> {
        let path = std::ffi::CString::new(secret.as_os_str().as_encoded_bytes())?;
        // SAFETY: a NUL-terminated path. Without O_CLOEXEC, on purpose.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor of ours.
        let descriptor = unsafe { File::from_raw_fd(fd) };
        let mut bytes = [0u8; MARK.len()];
        descriptor.read_exact_at(&mut bytes, 0)?;
        if fs::read_dir("/proc/self/task")?.count() == 1 {
            // SAFETY: nobody else can read or write the environment: this is the only thread, as checked in the line above.
            unsafe { std::env::set_var(VARIABLE, MARK) };
        }
        // Without SOCK_CLOEXEC, on purpose.
        let sockets = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_NONBLOCK)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        nix::fcntl::fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Planted { _descriptor: descriptor, _sockets: sockets, _listener: listener })
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        if fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1) {
            // SAFETY: the only thread, as checked in the line above.
            unsafe { std::env::remove_var(VARIABLE) };
        }
    }
}
