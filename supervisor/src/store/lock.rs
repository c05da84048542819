//! One supervisor per state directory, held by the process.
//!
//! A flock(2) lock ends with the process however it ends, so no stale lock can be left; the file's text names the holder for
//! people and messages and is never trusted for anything else. The descriptor is close-on-exec: no agent inherits it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{StoreError, directory};

/// The lock's file name in the state directory.
pub const LOCK_FILE: &str = "supervisor.lock";

/// The right to work with a state directory, until it is dropped.
#[derive(Debug)]
pub struct StateLock {
    dir: PathBuf,
    _file: Flock<File>,
}

impl StateLock {
    /// Makes the directory if it is missing and takes its lock, without waiting.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the holder's pid, [`StoreError::UnsafeDirectory`], [`StoreError::Io`],
    /// [`StoreError::DiskFull`].
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        directory::prepare(dir)?;
        let path = dir.join(LOCK_FILE);
        let io = |doing| {
            let path = &path;
            move |error| StoreError::of_io(doing, path, error)
        };
        let mut options = OpenOptions::new();
        // Not truncated here: the text belongs to whoever holds the lock.
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(io("open"))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                return Err(StoreError::Locked { path: dir.to_owned(), pid: read_pid(&mut file) });
            }
            Err((_, errno)) => return Err(io("lock")(errno.into())),
        };
        file.set_len(0).map_err(io("write"))?;
        file.rewind().map_err(io("write"))?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io("write"))?;
        Ok(Self { dir: dir.to_owned(), _file: file })
    }

    /// The directory that this lock is for.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process that holds a directory's lock now; none when nobody does, or when it can't be known.
    #[must_use]
    pub fn holder(dir: &Path) -> Option<u32> {
        let mut file = File::open(dir.join(LOCK_FILE)).ok()?;
        let pid = read_pid(&mut file);
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, Errno::EWOULDBLOCK)) => pid,
            _ => None,
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
