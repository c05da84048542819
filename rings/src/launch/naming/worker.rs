//! The hand that makes names: a process with exactly the agent's rights, which takes a pinned folder and a last name.
//!
//! Whoever reads a caller's memory must be outside of the agent's Landlock domain, and so could do more than the agent. So it
//! does nothing: it asks this process, which has the agent's uid, mount namespace and Landlock rules and no capability. The two
//! share one table of descriptors, so that a folder is a number and an opened file needs no passing. It never allocates: where
//! it was forked from a process with threads, a lock may be held for ever.
//!
//! An open that can block (a FIFO) is done by a child of the worker's, which answers the caller by itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::late::{Late, late_open};
use super::processor::Processor;
use crate::sys::{self, fdpass};

/// Room for one request: the header, and two texts with their ends.
const REQUEST_BYTES_MAX: usize = HEADER_BYTES + 2 * 4097;
const HEADER_BYTES: usize = 48;

/// What becomes of the process that asks when its worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::launch) enum Bond {
    /// It is ended too: nothing is left that could only half answer.
    Together,
    /// It goes on, and each request fails.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test outlives its workers"))]
    Apart,
}

/// One act, on descriptors of the shared table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act<'a> {
    Open {
        folder: BorrowedFd<'a>,
        name: &'a [u8],
        flags: i32,
        mode: u32,
    },
    /// What a descriptor shows, opened anew.
    Reopen {
        object: BorrowedFd<'a>,
        flags: i32,
    },
    Folder {
        folder: BorrowedFd<'a>,
        name: &'a [u8],
        mode: u32,
    },
    Node {
        folder: BorrowedFd<'a>,
        name: &'a [u8],
        mode: u32,
        dev: u64,
    },
    Symlink {
        target: &'a [u8],
        folder: BorrowedFd<'a>,
        name: &'a [u8],
    },
    Link {
        old: (BorrowedFd<'a>, &'a [u8]),
        new: (BorrowedFd<'a>, &'a [u8]),
    },
    /// A second name for what a descriptor shows.
    LinkObject {
        object: BorrowedFd<'a>,
        new: (BorrowedFd<'a>, &'a [u8]),
    },
    Rename {
        old: (BorrowedFd<'a>, &'a [u8]),
        new: (BorrowedFd<'a>, &'a [u8]),
        flags: u32,
    },
}

/// A request as it travels: numbers, and two texts behind them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Header {
    act: u32,
    umask: u32,
    one: i32,
    other: i32,
    flags: u32,
    mode: u32,
    dev: u64,
    /// Of the call that a late open answers.
    id: u64,
    listener: i32,
    first_bytes: u32,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        let words = [self.act, self.umask, self.one as u32, self.other as u32, self.flags, self.mode];
        for (at, word) in words.into_iter().chain([self.listener as u32, self.first_bytes]).enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[32..40].copy_from_slice(&self.dev.to_ne_bytes());
        bytes[40..48].copy_from_slice(&self.id.to_ne_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let word =
            |at: usize| u32::from_ne_bytes([bytes[at * 4], bytes[at * 4 + 1], bytes[at * 4 + 2], bytes[at * 4 + 3]]);
        let long = |at: usize| bytes[at..].first_chunk().map(|long| u64::from_ne_bytes(*long));
        Some(Header {
            act: word(0),
            umask: word(1),
            one: word(2) as i32,
            other: word(3) as i32,
            flags: word(4),
            mode: word(5),
            listener: word(6) as i32,
            first_bytes: word(7),
            dev: long(32)?,
            id: long(40)?,
        })
    }
}

const OPEN: u32 = 0;
const REOPEN: u32 = 1;
const FOLDER: u32 = 2;
const NODE: u32 = 3;
const SYMLINK: u32 = 4;
const LINK: u32 = 5;
const LINK_OBJECT: u32 = 6;
const RENAME: u32 = 7;
const LATE: u32 = 8;

/// Acts that open: their number is a descriptor of the shared table.
fn opens(act: u32) -> bool {
    act == OPEN || act == REOPEN
}

/// The asking end.
#[derive(Debug)]
pub(super) struct Worker {
    socket: OwnedFd,
    theirs: RawFd,
    pid: libc::pid_t,
    processor: Option<Processor>,
}

impl Worker {
    /// Forks the worker. `confine` runs in it first, without allocating: what it gives up there it lacks at every act.
    ///
    /// # Safety
    /// `confine` must do only what is sound after a fork of a process with threads.
    pub(super) unsafe fn start(confine: &dyn Fn() -> io::Result<()>, bond: Bond) -> io::Result<Worker> {
        let (ours, theirs) = fdpass::pair()?;
        let on_end = if bond == Bond::Together { libc::SIGKILL } else { libc::SIGCHLD };
        let flags = libc::CLONE_FILES | on_end;
        let parent = nix::unistd::getpid();
        // SAFETY: without CLONE_VM the child has its own memory, and runs only what the caller vouches for and `serve`.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if sys::check(pid)? == 0 {
            // SAFETY: a child of one thread, in which nothing below allocates; it ends without running anybody's handlers.
            unsafe {
                live(&theirs, parent, confine);
                libc::_exit(0)
            }
        }
        let pid = libc::pid_t::try_from(pid).expect("pids fit 22 bits");
        // The number stays open: the table is one, and so it must not be closed here.
        let worker = Worker { socket: ours, theirs: theirs.into_raw_fd(), pid, processor: Processor::of(pid) };
        match worker.hear()? {
            0 => Ok(worker),
            refused => Err(io::Error::from_raw_os_error(i32::try_from(-refused).unwrap_or(libc::EIO))),
        }
    }

    /// Has it done. An open gives the descriptor.
    pub(super) fn act(&self, act: &Act<'_>, umask: u32) -> Result<Done, Errno> {
        let (header, first, second) = act.parts();
        let header = Header { umask, ..header };
        let value = self.ask(header, first, second)?;
        if opens(header.act) {
            // SAFETY: the worker has just opened it in the table that both have, for us alone.
            return Ok(Done::Opened(unsafe { OwnedFd::from_raw_fd(value as RawFd) }));
        }
        Ok(Done::Made)
    }

    /// Has an object opened that may take its time; the caller hears of it from there. The object's descriptor goes along.
    pub(super) fn open_late(&self, object: OwnedFd, flags: i32, listener: RawFd, id: u64) -> Result<(), Errno> {
        let one = object.as_raw_fd();
        let header = Header { act: LATE, one, flags: flags as u32, id, listener, ..Header::default() };
        self.ask(header, b"", b"")?;
        let _theirs_now = object.into_raw_fd();
        Ok(())
    }

    fn ask(&self, header: Header, first: &[u8], second: &[u8]) -> Result<i64, Errno> {
        let header = Header { first_bytes: first.len() as u32, ..header };
        let mut request = Vec::with_capacity(HEADER_BYTES + first.len() + second.len() + 2);
        request.extend_from_slice(&header.to_bytes());
        for text in [first, second] {
            request.extend_from_slice(text);
            request.push(0);
        }
        if request.len() > REQUEST_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let errno = |e: io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        let _held = self.processor.as_ref().and_then(Processor::hold);
        nix::sys::socket::send(self.socket.as_raw_fd(), &request, nix::sys::socket::MsgFlags::MSG_NOSIGNAL)?;
        match self.hear().map_err(errno)? {
            refused if refused < 0 => Err(Errno::from_raw(i32::try_from(-refused).unwrap_or(libc::EIO))),
            value => Ok(value),
        }
    }

    fn hear(&self) -> io::Result<i64> {
        let mut bytes = [0u8; 8];
        loop {
            match nix::unistd::read(&self.socket, &mut bytes) {
                Ok(8) => return Ok(i64::from_ne_bytes(bytes)),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: our own unreaped child, and a descriptor that was left open for it alone.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL);
            libc::close(self.theirs);
        }
    }
}

/// What an act gave.
#[derive(Debug)]
pub(super) enum Done {
    Made,
    Opened(OwnedFd),
}

impl<'a> Act<'a> {
    fn parts(&self) -> (Header, &'a [u8], &'a [u8]) {
        let fd = |fd: BorrowedFd<'_>| fd.as_raw_fd();
        let of = |act: u32, one: BorrowedFd<'_>| Header { act, one: fd(one), ..Header::default() };
        match *self {
            Act::Open { folder, name, flags, mode } => {
                (Header { flags: flags as u32, mode, ..of(OPEN, folder) }, name, b"")
            }
            Act::Reopen { object, flags } => (Header { flags: flags as u32, ..of(REOPEN, object) }, b"", b""),
            Act::Folder { folder, name, mode } => (Header { mode, ..of(FOLDER, folder) }, name, b""),
            Act::Node { folder, name, mode, dev } => (Header { mode, dev, ..of(NODE, folder) }, name, b""),
            Act::Symlink { target, folder, name } => (of(SYMLINK, folder), target, name),
            Act::Link { old, new } => (Header { other: fd(new.0), ..of(LINK, old.0) }, old.1, new.1),
            Act::LinkObject { object, new } => (Header { other: fd(new.0), ..of(LINK_OBJECT, object) }, b"", new.1),
            Act::Rename { old, new, flags } => (Header { other: fd(new.0), flags, ..of(RENAME, old.0) }, old.1, new.1),
        }
    }
}

/// # Safety
/// In the worker.
unsafe fn live(socket: &OwnedFd, parent: nix::unistd::Pid, confine: &dyn Fn() -> io::Result<()>) {
    let socket = socket.as_raw_fd();
    // SAFETY: numbers, and our own end of the socket.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if nix::unistd::getppid() != parent {
            return;
        }
        match confine() {
            Ok(()) => {
                answer(socket, 0);
                serve(socket);
            }
            Err(e) => answer(socket, -i64::from(e.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}

/// # Safety
/// The descriptor is the worker's end.
unsafe fn answer(socket: RawFd, value: i64) {
    let bytes = value.to_ne_bytes();
    // SAFETY: eight live bytes.
    unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
}

/// The worker's life: until nobody asks any more.
///
/// # Safety
/// In the worker, with its end of the socket.
unsafe fn serve(socket: RawFd) {
    let mut buffer = [0u8; REQUEST_BYTES_MAX];
    let mut late = Late::default();
    let mut umask = u32::MAX;
    loop {
        // SAFETY: the buffer lives, and the kernel writes no more than its length.
        let read = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let Ok(read) = usize::try_from(read) else {
            if Errno::last() == Errno::EINTR {
                continue;
            }
            return;
        };
        let request = &buffer[..read];
        let Some(header) = Header::of(request) else { return };
        if umask != header.umask {
            umask = header.umask;
            // SAFETY: a number.
            unsafe { libc::umask(umask) };
        }
        let texts = &request[HEADER_BYTES..];
        let second = (header.first_bytes as usize + 1).min(texts.len());
        // SAFETY: both texts end with a NUL byte, as `ask` wrote them; the descriptors are the asker's.
        let value = unsafe { perform(&header, texts.as_ptr().cast(), texts[second..].as_ptr().cast(), &mut late) };
        // SAFETY: our end.
        unsafe { answer(socket, value) };
    }
}

/// # Safety
/// Both texts end with a NUL byte.
unsafe fn perform(header: &Header, first: *const libc::c_char, second: *const libc::c_char, late: &mut Late) -> i64 {
    let Header { one, other, flags, mode, dev, .. } = *header;
    // A terminal that the worker opens must not become its own.
    let opening = flags as i32 | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: numbers, and texts that live until each call returns.
    let value = unsafe {
        match header.act {
            OPEN => libc::syscall(libc::SYS_openat, one, first, opening, mode),
            REOPEN => {
                let mut path = [0u8; 32];
                libc::syscall(libc::SYS_openat, libc::AT_FDCWD, own_descriptor(one, &mut path), opening, 0)
            }
            FOLDER => libc::syscall(libc::SYS_mkdirat, one, first, mode),
            NODE => libc::syscall(libc::SYS_mknodat, one, first, mode, dev),
            SYMLINK => libc::syscall(libc::SYS_symlinkat, first, one, second),
            LINK => libc::syscall(libc::SYS_linkat, one, first, other, second, 0),
            LINK_OBJECT => {
                let mut path = [0u8; 32];
                let object = own_descriptor(one, &mut path);
                libc::syscall(libc::SYS_linkat, libc::AT_FDCWD, object, other, second, libc::AT_SYMLINK_FOLLOW)
            }
            RENAME => libc::syscall(libc::SYS_renameat2, one, first, other, second, flags),
            LATE => return late_open(late, one, flags as i32, header.listener, header.id),
            _ => return -i64::from(libc::ENOSYS),
        }
    };
    if value < 0 { -i64::from(Errno::last_raw()) } else { value }
}

/// `/proc/self/fd/N`, written without allocating.
pub(super) fn own_descriptor(number: RawFd, room: &mut [u8; 32]) -> *const libc::c_char {
    const START: &[u8] = b"/proc/self/fd/";
    room.fill(0);
    room[..START.len()].copy_from_slice(START);
    let (mut digits, mut count, mut rest) = ([0u8; 10], 0, number.unsigned_abs());
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        (rest, count) = (rest / 10, count + 1);
        if rest == 0 {
            break;
        }
    }
    for (at, digit) in digits[..count].iter().rev().enumerate() {
        room[START.len() + at] = *digit;
    }
    room.as_ptr().cast()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let header = Header {
            act: 3,
            umask: 0o22,
            one: -100,
            other: 7,
            flags: u32::MAX,
            mode: 5,
            dev: u64::MAX - 1,
            id: 9,
            listener: -1,
            first_bytes: 4096,
        };
        assert_eq!(Header::of(&header.to_bytes()), Some(header));
        assert_eq!(Header::of(&[0; HEADER_BYTES - 1]), None);
    }

    #[test]
    fn the_path_of_a_descriptor_is_written_in_decimal() {
        for number in [0, 7, 10, 4095, i32::MAX] {
            let mut room = [0xff; 32];
            own_descriptor(number, &mut room);
            let text = std::ffi::CStr::from_bytes_until_nul(&room).unwrap();
            assert_eq!(text.to_str().unwrap(), format!("/proc/self/fd/{number}"));
        }
    }
}
