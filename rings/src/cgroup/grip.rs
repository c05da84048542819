//! The open files by which a tree is killed and watched.
//!
//! Why open them early: a kill must work when the process has run out of descriptors or memory. With `cgroup.kill` and
//! `cgroup.events` in hand it needs neither. (v1 has no such files: there the lists of processes must be opened anew,
//! since the kernel fills them at open.)

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::error::{Error, Result};
use super::file;
use super::kill::Means;
use super::layout::Controller;
use super::tree::Tree;

/// `cgroup.events` has two short lines.
const EVENTS_MAX: usize = 256;

/// The first and the longest wait before looking again. The kernel notifies at most each 10 ms for a file
/// (`CGROUP_FILE_NOTIFY_MIN_INTV`), so a change right after another is seen sooner by looking.
const LOOK_FIRST: Duration = Duration::from_micros(100);
const LOOK_LAST: Duration = Duration::from_millis(4);

/// A tree held by open files.
#[derive(Debug)]
pub struct Grip {
    pub(super) tree: Tree,
    pub(super) events: Option<Watched>,
    pub(super) kill: Option<Watched>,
    pub(super) freezer: Option<Freezer>,
}

/// Where the tree is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Freezer {
    /// `cgroup.freeze` in this v2 group (kernel 5.2).
    V2(PathBuf),
    /// `freezer.state` in this v1 group.
    V1(PathBuf),
}

/// An open file and its name for messages.
#[derive(Debug)]
pub(super) struct Watched {
    file: File,
    path: PathBuf,
}

impl Watched {
    fn open(path: PathBuf, options: &OpenOptions) -> Result<Option<Watched>> {
        match options.open(&path) {
            Ok(file) => Ok(Some(Watched { file, path })),
            Err(error) if file::is_gone(&error) => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Writes a value at once: control files have no position.
    pub(super) fn write(&self, value: &str) -> Result<()> {
        match self.file.write_at(value.as_bytes(), 0) {
            Ok(_) => Ok(()),
            // A group that is gone holds nobody.
            Err(error) if file::is_gone(&error) => Ok(()),
            Err(source) => Err(Error::Write { path: self.path.clone(), value: value.to_owned(), source }),
        }
    }

    /// The number behind `key`, without allocating; 0 when the group is gone. Reading arms the next notification.
    pub(super) fn key(&self, key: &str) -> Result<u64> {
        let mut buffer = [0_u8; EVENTS_MAX];
        let length = match self.file.read_at(&mut buffer, 0) {
            Ok(length) => length,
            Err(error) if file::is_gone(&error) => return Ok(0),
            Err(source) => return Err(Error::Read { path: self.path.clone(), source }),
        };
        let text = str::from_utf8(&buffer[..length]).unwrap_or_default();
        file::flat_key(text, key).ok_or_else(|| Error::Malformed {
            path: self.path.clone(),
            found: text.to_owned(),
            expected: "`populated` and `frozen`",
        })
    }

    /// Waits until `key` is `wanted` or `deadline` is over; whether it is.
    pub(super) fn wait_for(&self, key: &str, wanted: u64, deadline: Instant) -> Result<bool> {
        let mut pause = LOOK_FIRST;
        loop {
            if self.key(key)? == wanted {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLPRI)];
            match ppoll(&mut fds, Some(TimeSpec::from_duration(pause.min(left))), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Read { path: self.path.clone(), source: errno.into() }),
            }
            pause = (pause * 2).min(LOOK_LAST);
        }
    }
}

/// Looks at `done` until it is true or `deadline` is over: for v1, which notifies of nothing.
pub(super) fn look_until(deadline: Instant, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let mut pause = LOOK_FIRST;
    loop {
        if done()? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LOOK_LAST);
    }
}

impl Grip {
    /// Opens what the kernel offers for `tree`.
    ///
    /// # Errors
    /// [`Error::Read`] when a file is there and can't be opened.
    pub fn open(tree: Tree) -> Result<Grip> {
        let open = |name: &str, options: &OpenOptions| match &tree.unified {
            Some(dir) => Watched::open(dir.join(name), options),
            None => Ok(None),
        };
        let events = open("cgroup.events", OpenOptions::new().read(true))?;
        let kill = open("cgroup.kill", OpenOptions::new().write(true))?;
        let v2 = tree.unified.clone().filter(|dir| dir.join("cgroup.freeze").exists()).map(Freezer::V2);
        let v1 = tree.legacy_dir(Controller::Freezer).map(|dir| Freezer::V1(dir.to_owned()));
        let freezer = v2.or(v1);
        Ok(Grip { tree, events, kill, freezer })
    }

    /// The group's places.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The best way to end it that this kernel offers.
    #[must_use]
    pub fn means(&self) -> Means {
        match (&self.kill, &self.freezer) {
            (Some(_), _) => Means::CgroupKill,
            (None, Some(Freezer::V2(_))) => Means::FreezeV2,
            (None, Some(Freezer::V1(_))) => Means::FreezerV1,
            (None, None) => Means::Signals,
        }
    }
}
