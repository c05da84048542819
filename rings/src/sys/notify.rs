//! The listener of a seccomp filter: calls that wait, and their answers (seccomp_unotify(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::check;
use crate::seccomp::policy::Call;

/// `struct seccomp_notif` of linux/seccomp.h; the kernel may know a longer one and fills what it knows.
#[repr(C, align(8))]
struct Notif {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction: u64,
    args: [u64; 6],
    room: [u64; 22],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

const RECEIVE: libc::Ioctl = 0xC050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xC018_2101_u32 as libc::Ioctl;
const IS_VALID: libc::Ioctl = 0x4008_2102_u32 as libc::Ioctl;
const ADD_FD: libc::Ioctl = 0x4018_2103_u32 as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = 0x4008_2104_u32 as libc::Ioctl;

const FLAG_CONTINUE: u32 = 1;
/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The notification.
    pub(crate) id: u64,
    /// The thread, as a number in our own PID namespace; 0 where it can't be seen from there.
    pub(crate) tid: i32,
    /// What it called.
    pub(crate) call: Call,
}

/// What a call is answered with.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It fails with this errno, a positive number.
    Errno(i32),
    /// It returns this.
    Value(i64),
    /// It returns a descriptor of its own for this file.
    AddFd {
        /// The file; ours is closed afterwards.
        fd: OwnedFd,
        /// Whether the caller's is closed on exec.
        cloexec: bool,
    },
    /// The kernel goes on with it, with whatever its pointers point to by then: never where that decides anything.
    Continue,
    /// Somebody else answers, by [`Listener::reply`].
    Later,
}

/// Calls come in here, and answers go out.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub(crate) fn new(fd: OwnedFd) -> Listener {
        Listener(fd)
    }

    /// Has a caller and whoever answers it take turns on one processor, since one of them waits anyway: waking another one up
    /// takes longer than an answer does. Without effect before Linux 6.6.
    pub(crate) fn take_turns(&self) {
        // SAFETY: numbers only. A kernel that does not know it changes nothing by it.
        let _ = unsafe { libc::ioctl(self.0.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
    }

    /// The next call; blocks until there is one. `None`: its caller was ended before it could be handed over.
    pub(crate) fn receive(&self) -> io::Result<Option<Waiting>> {
        // The kernel wants it zeroed.
        // SAFETY: plain numbers; all zeroes is a valid value.
        let mut notif: Notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes its seccomp_notif, 80 bytes by now, into 256 of ours.
        match check(unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE, &raw mut notif) }.into()) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => return Ok(None),
            Err(e) => return Err(e),
        }
        let call = Call { number: notif.number as u32, audit_arch: notif.arch, args: notif.args };
        Ok(Some(Waiting { id: notif.id, tid: i32::try_from(notif.pid).unwrap_or(0), call }))
    }

    /// Whether the call still waits: if so, what was read of its thread until now was of that thread.
    pub(crate) fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one u64 that lives until the call returns.
        unsafe { libc::ioctl(self.0.as_raw_fd(), IS_VALID, &raw const id) == 0 }
    }

    /// Answers a call. One that is gone needs no answer.
    pub(crate) fn reply(&self, id: u64, reply: Reply) -> io::Result<()> {
        let (value, error, flags) = match reply {
            Reply::Errno(errno) => (0, -errno.abs(), 0),
            Reply::Value(value) => (value, 0, 0),
            Reply::Continue => (0, 0, FLAG_CONTINUE),
            Reply::Later => return Ok(()),
            Reply::AddFd { fd, cloexec } => return self.add_fd(id, fd, cloexec),
        };
        self.send(&mut Response { id, value, error, flags })
    }

    fn send(&self, response: &mut Response) -> io::Result<()> {
        // SAFETY: the kernel reads the 24 bytes that the number names.
        gone_is_fine(check(unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, std::ptr::from_mut(response)) }.into()))
    }

    /// Gives the caller a descriptor and has its call return the number: in two steps, with ours closed in between. A caller that
    /// runs while somebody else still has its new file open for writing can't execute it (ETXTBSY).
    fn add_fd(&self, id: u64, fd: OwnedFd, cloexec: bool) -> io::Result<()> {
        let target_flags = if cloexec { libc::O_CLOEXEC.unsigned_abs() } else { 0 };
        let mut request = AddFd { id, flags: 0, source: fd.as_raw_fd().unsigned_abs(), target: 0, target_flags };
        // SAFETY: the kernel reads the 24 bytes that the number names.
        let added = check(unsafe { libc::ioctl(self.0.as_raw_fd(), ADD_FD, &raw mut request) }.into());
        drop(fd);
        match added {
            Ok(number) => self.send(&mut Response { id, value: number, error: 0, flags: 0 }),
            // The caller's own: it has as many open as it may. Any other way the call would wait for ever.
            Err(e) if !is_gone(&e) => {
                let errno = e.raw_os_error().unwrap_or(libc::EIO);
                self.send(&mut Response { id, value: 0, error: -errno, flags: 0 })
            }
            Err(_) => Ok(()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

fn gone_is_fine(answered: io::Result<libc::c_long>) -> io::Result<()> {
    match answered {
        Err(e) if !is_gone(&e) => Err(e),
        _ => Ok(()),
    }
}

/// Loads a filter that allows everything, to see whether a listener can be had here: none can where another filter above has
/// one, or on an old kernel. For a process that ends afterwards.
pub(crate) fn try_listener() -> io::Result<()> {
    super::process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    let allow =
        [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
    const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;
    // SAFETY: the kernel reads one u32 behind the pointer, which lives until the call returns.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) })?;
    let listener = load(&allow, Some(WAIT_KILLABLE))?;
    if listener < 0 { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
const NEW_LISTENER: libc::c_ulong = 1 << 3;
/// Once a call was received only a signal that ends its caller takes it back (Linux 5.19): else it might be made twice.
pub(crate) const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// Loads a filter; with a listener (its number is returned, closed on exec) where `listen` is given, which holds the flags that
/// are tried first. Allocates nothing: it runs in a child that shares its parent's memory.
pub(crate) fn load(filter: &[libc::sock_filter], listen: Option<libc::c_ulong>) -> io::Result<i32> {
    let Ok(len) = u16::try_from(filter.len()) else { return Err(io::Error::from_raw_os_error(libc::EINVAL)) };
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let load = |flags: libc::c_ulong| {
        // SAFETY: the kernel copies `len` instructions behind the pointer.
        check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
    };
    let loaded = match listen {
        None => load(0),
        Some(more) => match load(NEW_LISTENER | more) {
            Err(e) if more != 0 && e.raw_os_error() == Some(libc::EINVAL) => load(NEW_LISTENER),
            loaded => loaded,
        },
    };
    loaded.map(|number| number as i32)
}

/// Sends one descriptor over a connected socket. Allocates nothing, and is one system call that every ring's filter allows.
pub(crate) fn hand_over(socket: i32, fd: i32) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Control {
        header: libc::cmsghdr,
        fd: i32,
        end: i32,
    }
    let mut byte = [0u8; 1];
    let mut data = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: plain numbers and pointers; all zeroes is a valid value of both.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { std::mem::zeroed() };
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: arithmetic alone.
    control.header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<i32>() as u32) } as _;
    control.fd = fd;
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the kernel reads the message, whose parts live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL) }).map(drop)
}
