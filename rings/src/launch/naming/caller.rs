//! The process that waits for its call: its memory, its folder, its descriptors, its umask.
//!
//! All of it is read once, by a number that the kernel gave with the call. The number could have been given to somebody else
//! meanwhile, so whoever asks looks, after reading and before acting, whether the call is still waiting.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;

use super::ask::PathAt;
use crate::launch::memory;

/// The lines of a task's status up to its process: a name of at most 64 bytes, escaped, a mask, a state, two numbers.
const STATUS_BYTES: usize = 512;

/// Status files that are kept open: of so many threads at once the next call is mostly of one.
const STATUSES_MAX: usize = 4;

/// Status files of the last callers, since an open takes as long as a read. Such a file belongs to its thread and not to the
/// number: of a thread that is gone it says nothing any more, whoever has the number by then.
#[derive(Debug, Default)]
pub(super) struct Statuses(RefCell<Vec<(i32, OwnedFd)>>);

impl Statuses {
    /// The beginning, as of now; one read, so all of it is of one moment.
    fn read(&self, tid: i32, into: &mut [u8]) -> Result<usize, Errno> {
        let mut kept = self.0.borrow_mut();
        if let Some(at) = kept.iter().position(|(other, _)| *other == tid) {
            match pread(&kept[at].1, into, 0) {
                Ok(read) if read > 0 => return Ok(read),
                _ => drop(kept.remove(at)),
            }
        }
        let path = format!("/proc/{tid}/status");
        let file = open(Path::new(&path), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let read = pread(&file, into, 0)?;
        if kept.len() == STATUSES_MAX {
            kept.remove(0);
        }
        kept.push((tid, file));
        Ok(read)
    }
}

/// A thread that waits.
#[derive(Debug)]
pub(super) struct Reader {
    tid: i32,
    process: Cell<Option<i32>>,
    statuses: Rc<Statuses>,
}

impl Reader {
    pub(super) fn new(tid: i32, statuses: &Rc<Statuses>) -> Reader {
        Reader { tid, process: Cell::new(None), statuses: Rc::clone(statuses) }
    }

    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// A text that ends with a NUL byte, without it.
    pub(super) fn text(&self, address: u64) -> Result<Vec<u8>, Errno> {
        memory::text(self.tid, address)
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
        let mut start = [0u8; STATUS_BYTES];
        let read = self.statuses.read(self.tid, &mut start).map_err(|_| Errno::ESRCH)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child(umask: &str) -> Child {
        let script = format!("umask {umask}; echo; read a; umask 077; echo; read a");
        let mut command = Command::new("/bin/sh");
        let mut child = command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    #[test]
    fn a_umask_is_that_of_the_moment_and_of_nobody_who_had_the_number_before() {
        let statuses = Rc::new(Statuses::default());
        let mut one = child("022");
        let tid = one.id() as i32;
        let umask = |tid| Reader::new(tid, &statuses).umask();
        assert_eq!((umask(tid), Reader::new(tid, &statuses).process()), (Ok(0o22), Ok(tid)));
        one.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        one.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(umask(tid), Ok(0o77), "it was changed");
        let mut others: Vec<Child> = (0..STATUSES_MAX + 2).map(|_| child("027")).collect();
        others.iter().for_each(|other| assert_eq!(umask(other.id() as i32), Ok(0o27)));
        assert_eq!(statuses.0.borrow().len(), STATUSES_MAX);
        assert_eq!(umask(tid), Ok(0o77), "it was put out, and is read anew");
        one.kill().unwrap();
        one.wait().unwrap();
        // As if the number had been given to another one.
        let other = others[0].id() as i32;
        statuses.0.borrow_mut().iter_mut().for_each(|(number, _)| *number = if *number == tid { other } else { -1 });
        assert_eq!(umask(other), Ok(0o27));
        for other in &mut others {
            other.kill().unwrap();
            other.wait().unwrap();
        }
        assert_eq!(umask(tid), Err(Errno::ESRCH));
    }
}
