//! What wakes a reader when a limit is met, where the kernel offers something to wait for.
//!
//! Three ways, as the kernel has them: v2's `memory.events` and `pids.events` raise POLLPRI whenever they change (cgroup-v2.rst);
//! v1's `memory.oom_control` takes an eventfd that is written at each OOM (cgroup-v1/memory.rst); v1's `pids.events` raises POLLPRI
//! too on some kernels and nothing on others (seen on 6.18), so it is worth waiting for and not to be relied on. `cpu.stat` and
//! v1's `failcnt` raise nothing anywhere. So an alarm says "look now", never "nothing else has happened": whoever waits also looks
//! from time to time, and the counters of [`super::Usage`] are the truth.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::error::{Error, Result};
use super::file;
use super::layout::Controller;
use super::tree::{Tree, Version};

/// A descriptor that becomes ready when a limit is met.
#[derive(Debug)]
pub struct Alarm(Source);

#[derive(Debug)]
enum Source {
    /// Ready (POLLPRI) from a change until it is read again.
    File(File),
    /// Readable after an OOM. The registration goes with it.
    Counter(EventFd),
}

/// Which readiness to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// POLLPRI.
    Priority,
    /// POLLIN.
    Readable,
}

impl Alarm {
    fn file(path: &Path) -> Result<Option<Alarm>> {
        match File::open(path) {
            Ok(file) => {
                let alarm = Alarm(Source::File(file));
                // Only what changes after this is told.
                alarm.hush();
                Ok(Some(alarm))
            }
            Err(error) if file::is_gone(&error) => Ok(None),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// v1: `EVENTFD CONTROL` written to `cgroup.event_control`. A kernel without it (or that refuses) leaves the counters.
    fn counter(dir: &Path) -> Result<Option<Alarm>> {
        let path = dir.join("memory.oom_control");
        let control = match File::open(&path) {
            Ok(control) => control,
            Err(error) if file::is_gone(&error) => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event =
            EventFd::from_flags(flags).map_err(|errno| Error::Read { path: path.clone(), source: errno.into() })?;
        let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        let registered = File::options()
            .write(true)
            .open(dir.join("cgroup.event_control"))
            .and_then(|mut registry| registry.write_all(line.as_bytes()));
        Ok(registered.is_ok().then_some(Alarm(Source::Counter(event))))
    }

    /// What its descriptor has to be polled for.
    #[must_use]
    pub fn wait(&self) -> Wait {
        match self.0 {
            Source::File(_) => Wait::Priority,
            Source::Counter(_) => Wait::Readable,
        }
    }

    /// Takes note, so that it is ready again only after the next change. Called before the counters are read: what happens
    /// between the two is then told once too often, never not at all.
    pub fn hush(&self) {
        match &self.0 {
            // A group that is gone answers ENODEV, and will tell nothing more.
            Source::File(file) => drop(file.read_at(&mut [0; 512], 0)),
            // EAGAIN: nothing was waiting.
            Source::Counter(event) => drop(event.read()),
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::File(file) => file.as_fd(),
            Source::Counter(event) => event.as_fd(),
        }
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl Tree {
    /// Everything here that can be waited for: at most two descriptors.
    ///
    /// # Errors
    /// [`Error::Read`] when a file is there and can't be opened.
    pub fn alarms(&self) -> Result<Vec<Alarm>> {
        let memory = match self.place(Controller::Memory) {
            Some((dir, Version::V2)) => Alarm::file(&dir.join("memory.events"))?,
            Some((dir, Version::V1)) => Alarm::counter(dir)?,
            None => None,
        };
        let tasks = match self.place(Controller::Pids) {
            Some((dir, _)) => Alarm::file(&dir.join("pids.events"))?,
            None => None,
        };
        Ok(memory.into_iter().chain(tasks).collect())
    }
}
