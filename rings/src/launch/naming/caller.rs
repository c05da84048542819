//! The process that waits for its call: its memory, its folder, its descriptors, its umask.
//!
//! All of it is read once, by a number that the kernel gave with the call. The number could have been given to somebody else
//! meanwhile, so whoever asks looks, after reading and before acting, whether the call is still waiting.

use std::cell::Cell;
use std::fs;
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::ask::PathAt;

/// The longest path with its end, as the kernel has it.
const PATH_MAX: usize = 4096;
/// No page is smaller: what is read up to such a boundary is readable whole or not at all.
const PAGE: u64 = 4096;

/// The lines of a task's status up to its process: a name of at most 64 bytes, escaped, a mask, a state, two numbers.
const STATUS_BYTES: usize = 512;

/// A thread that waits.
#[derive(Debug)]
pub(super) struct Reader {
    tid: i32,
    process: Cell<Option<i32>>,
}

impl Reader {
    pub(super) fn new(tid: i32) -> Reader {
        Reader { tid, process: Cell::new(None) }
    }

    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// A text that ends with a NUL byte, without it.
    pub(super) fn text(&self, address: u64) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < PATH_MAX {
            let room = (PAGE - at % PAGE) as usize;
            let mut part = [0u8; PAGE as usize];
            let part = &mut part[..room.min(PATH_MAX - text.len())];
            let base = usize::try_from(at).map_err(|_| Errno::EFAULT)?;
            let from = [RemoteIoVec { base, len: part.len() }];
            let read = process_vm_readv(Pid::from_raw(self.tid), &mut [IoSliceMut::new(part)], &from)?;
            let part = &part[..read];
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&part[..end]);
                return Ok(text);
            }
            if read == 0 {
                return Err(Errno::EFAULT);
            }
            text.extend_from_slice(part);
            at = at.wrapping_add(read as u64);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Where a path starts that has no slash in front.
    pub(super) fn start(&self, at: PathAt) -> Result<OwnedFd, Errno> {
        if at.dir == libc::AT_FDCWD {
            return self.pinned("cwd", OFlag::O_DIRECTORY);
        }
        self.descriptor(at.dir)
    }

    /// What one of its descriptors shows.
    pub(super) fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        if number < 0 {
            return Err(Errno::EBADF);
        }
        match self.pinned(&format!("fd/{number}"), OFlag::empty()) {
            Err(Errno::ENOENT) => Err(Errno::EBADF),
            pinned => pinned,
        }
    }

    fn pinned(&self, what: &str, more: OFlag) -> Result<OwnedFd, Errno> {
        let path = format!("/proc/{}/{what}", self.tid);
        open(Path::new(&path), OFlag::O_PATH | OFlag::O_CLOEXEC | more, Mode::empty())
    }

    /// A number of one of the first lines of its status.
    fn status(&self, key: &str, radix: u32) -> Result<u32, Errno> {
        let file =
            open(Path::new(&format!("/proc/{}/status", self.tid)), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let mut start = [0u8; STATUS_BYTES];
        // One read: so all of it is of one moment.
        let read = nix::unistd::read(file.map_err(|_| Errno::ESRCH)?, &mut start).map_err(|_| Errno::ESRCH)?;
        let mut lines = start[..read].split(|byte| *byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(key.as_bytes())).ok_or(Errno::ESRCH)?;
        let value = std::str::from_utf8(value.trim_ascii()).map_err(|_| Errno::ESRCH)?;
        u32::from_str_radix(value, radix).map_err(|_| Errno::ESRCH)
    }

    /// The bits that it takes off every mode.
    pub(super) fn umask(&self) -> Result<u32, Errno> {
        self.status("Umask:", 8)
    }

    /// Its process.
    pub(super) fn process(&self) -> Result<i32, Errno> {
        if let Some(process) = self.process.get() {
            return Ok(process);
        }
        let process = i32::try_from(self.status("Tgid:", 10)?).map_err(|_| Errno::ESRCH)?;
        self.process.set(Some(process));
        Ok(process)
    }

    /// The device number of its controlling terminal; `None` without one.
    pub(super) fn terminal(&self) -> Result<Option<u64>, Errno> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.tid)).map_err(|_| Errno::ESRCH)?;
        // The name may hold anything, parentheses too; behind it: state, parent, group, session, terminal.
        let number = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(4));
        let number: i64 = number.and_then(|number| number.parse().ok()).ok_or(Errno::ESRCH)?;
        // As the kernel's new_encode_dev has it.
        let packed = number as u32;
        let (major, minor) = ((packed & 0xf_ff00) >> 8, (packed & 0xff) | ((packed >> 12) & 0xf_ff00));
        Ok((packed != 0).then(|| libc::makedev(major, minor)))
    }
}
