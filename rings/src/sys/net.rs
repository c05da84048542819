//! The loopback interface of a fresh network namespace, and what a socket is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings `lo` up in the network namespace of the caller.
pub(crate) fn loopback_up() -> io::Result<()> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain old data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a descriptor is a TCP socket for addresses of this family (`AF_INET`, `AF_INET6`).
pub(crate) fn is_tcp(fd: BorrowedFd<'_>, family: libc::c_int) -> io::Result<bool> {
    let option = |name: libc::c_int| -> io::Result<libc::c_int> {
        let (mut value, mut length) = (0, size_of::<libc::c_int>() as libc::socklen_t);
        let at: *mut libc::c_int = &raw mut value;
        // SAFETY: room for one int, which these options are, and its size; both outlive the call.
        let ret = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, at.cast(), &raw mut length) };
        match ret {
            0 => Ok(value),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let is = |name, wanted| match option(name) {
        Ok(value) => Ok(value == wanted),
        Err(e) if e.raw_os_error() == Some(libc::ENOTSOCK) => Ok(false),
        Err(e) => Err(e),
    };
    Ok(is(libc::SO_DOMAIN, family)?
        && is(libc::SO_TYPE, libc::SOCK_STREAM)?
        && is(libc::SO_PROTOCOL, libc::IPPROTO_TCP)?)
}
