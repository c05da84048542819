//! Names made in an agent's place: a creating call comes in, the rules are asked, and a worker with the agent's rights performs it.
//!
//! ```text
//! caller --seccomp--> reader: reads the path once, pins the folder, asks the rules
//!                        |  folder's number, last name
//!                        v
//!                     worker: the agent's uid, view and Landlock rules; performs; an opened file goes back by ADDFD
//! ```
//!
//! The agent can change everything that a path goes through, at any moment, but nothing of what is decided here: the folder is a
//! descriptor, its path is the kernel's own word, and the last name is performed as it was asked about, links not followed.
//! Calls are decided and performed one after the other: that is what keeps two renames from undoing each other's reasons. Only
//! an open that may block (it makes no name) is left to a process of its own.

mod ask;
mod caller;
mod late;
mod making;
mod opening;
mod terminal;
#[cfg(test)]
mod tests;
mod walk;
mod worker;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use self::ask::{Ask, PathAt};
use self::caller::Caller;
use self::walk::{Spot, Walk, path_of};
pub(in crate::launch) use self::worker::Bond;
use self::worker::Worker;
use crate::names::{Kind, Place, Rules, Verdict};
use crate::notice::{TEXT_BYTES_MAX, What, escaped};
use crate::sys::notification::{self, Waiting};

/// The setuid and setgid bits: no ring that has rules gives them.
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Most repositories that are remembered as told of.
const TOLD_MAX: usize = 1024;

/// What a call is answered with.
#[derive(Debug)]
pub(in crate::launch) enum Reply {
    /// It failed.
    Errno(i32),
    /// It gave this number.
    Value(i64),
    /// It gave a descriptor: of a copy in the caller's table.
    AddFd {
        /// Ours.
        fd: OwnedFd,
        /// Whether the copy closes on exec.
        cloexec: bool,
    },
    /// It is answered from elsewhere, when it is over.
    Later,
}

/// Whoever answers for one agent's creating calls.
#[derive(Debug)]
pub(in crate::launch) struct Names {
    rules: Rules,
    /// The repositories that stood at launch: held, so that none of their inode numbers is given to another folder.
    standing: Vec<(libc::dev_t, libc::ino_t, OwnedFd)>,
    root: Rc<OwnedFd>,
    worker: Worker,
    told: HashSet<PathBuf>,
    notices: Vec<What>,
}

/// Why a call goes no further, or what it gave.
type Outcome<T> = Result<T, Errno>;

/// One call under way.
struct Turn<'a> {
    caller: &'a Caller,
    call: &'static str,
    listener: RawFd,
    id: u64,
}

impl Turn<'_> {
    /// To be asked after everything was read from the caller, and before anything is done.
    fn still_waits(&self) -> Outcome<()> {
        if notification::is_waiting(self.listener, self.id) { Ok(()) } else { Err(Errno::EINTR) }
    }
}

impl Names {
    /// Makes ready to answer. The caller of this is in the agent's view, with its uid, before the agent exists; `confine` is
    /// what the worker has to give up beyond that.
    ///
    /// # Safety
    /// `confine` must do only what is sound after a fork of a process with threads: no allocation.
    pub(in crate::launch) unsafe fn start(
        rules: Rules,
        confine: &dyn Fn() -> io::Result<()>,
        bond: Bond,
    ) -> io::Result<Names> {
        // SAFETY: passed on.
        let worker = unsafe { Worker::start(confine, bond) }?;
        let pinned = |path: &Path| open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        let mut standing = Vec::new();
        for repository in &rules.repositories {
            // One that is gone meanwhile is kept by its path alone.
            let Ok(folder) = pinned(repository) else { continue };
            let stat = fstat(&folder)?;
            standing.push((stat.st_dev, stat.st_ino, folder));
        }
        let root = Rc::new(pinned(Path::new("/"))?);
        Ok(Names { rules, standing, root, worker, told: HashSet::new(), notices: Vec::new() })
    }

    /// Answers one creating call. Blocks for as long as the file system takes.
    pub(in crate::launch) fn attend(&mut self, waiting: &Waiting, listener: RawFd) -> Reply {
        let Some((call, ask)) = Ask::of(waiting.number.into(), &waiting.args) else {
            return Reply::Errno(libc::ENOSYS);
        };
        let caller = Caller::new(waiting.tid as i32);
        let turn = Turn { caller: &caller, call, listener, id: waiting.id };
        let reply = match ask {
            Ask::Open { at, flags, mode } => self.open(&turn, at, flags, mode),
            Ask::Folder { at, mode } => self.make_folder(&turn, at, mode),
            Ask::Node { at, mode, dev } => self.make_node(&turn, at, mode, dev),
            Ask::Symlink { target, at } => self.make_symlink(&turn, target, at),
            Ask::Link { old, new, flags } => self.link(&turn, old, new, flags),
            Ask::Rename { old, new, flags } => self.rename(&turn, old, new, flags),
        };
        reply.unwrap_or_else(|errno| Reply::Errno(errno as i32))
    }

    /// What was to be told of the calls since the last time.
    pub(in crate::launch) fn take_notices(&mut self) -> Vec<What> {
        std::mem::take(&mut self.notices)
    }

    /// Where a path of the caller's starts.
    fn start_of(&self, caller: &Caller, at: PathAt, path: &[u8]) -> Outcome<OwnedFd> {
        if path.starts_with(b"/") {
            // A caller can't change its root in any ring that has rules: chroot, and what would allow it, are refused.
            return self.root.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)));
        }
        caller.start(at)
    }

    /// The text of a path, and the folder and last name that it leads to.
    fn spot(&self, turn: &Turn<'_>, at: PathAt) -> Outcome<Spot> {
        let path = turn.caller.text(at.address)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let start = self.start_of(turn.caller, at, &path)?;
        Walk::new(turn.caller, self.root.as_fd()).spot(start.as_fd(), &path)
    }

    fn is_standing(&self, folder: BorrowedFd<'_>) -> Outcome<bool> {
        if self.standing.is_empty() {
            return Ok(false);
        }
        let stat = fstat(folder)?;
        Ok(self.standing.iter().any(|(dev, ino, _)| (*dev, *ino) == (stat.st_dev, stat.st_ino)))
    }

    /// A place with what is known of it, for as long as nothing is performed.
    fn known(&self, spot: &Spot) -> Outcome<KnownPlace> {
        let in_repository = self.is_standing(spot.folder.as_fd())?;
        Ok(KnownPlace { folder: path_of(spot.folder.as_fd()), in_repository })
    }

    fn decide(&self, spot: &Spot, place: &KnownPlace, kind: Kind<'_>) -> Verdict {
        if spot.is_name() { self.rules.decide(&place.at(spot), kind) } else { Verdict::Free }
    }

    /// Tells of a refusal.
    fn refuse(&mut self, turn: &Turn<'_>, spot: &Spot, place: &KnownPlace, pattern: &str) -> Errno {
        let path = place.folder.clone().unwrap_or_default().join(spot.name());
        self.notices.push(What::Name {
            call: turn.call.to_owned(),
            path: shown(&path),
            pattern: escaped(pattern.as_bytes(), TEXT_BYTES_MAX),
        });
        Errno::EACCES
    }

    /// Tells of a repository that may have begun by a name that was made.
    fn made(&mut self, spot: &Spot, place: &KnownPlace) {
        let Some(folder) = place.folder.as_deref().filter(|_| Rules::begins_repository(spot.name())) else { return };
        let repository =
            if spot.name.eq_ignore_ascii_case(b"head") { folder.to_owned() } else { folder.join(spot.name()) };
        let stood = place.in_repository || self.rules.repositories.contains(&repository);
        if stood || !self.rules.roots.iter().any(|root| repository.starts_with(root)) {
            return;
        }
        if self.told.len() < TOLD_MAX && self.told.insert(repository.clone()) {
            self.notices.push(What::Repository { path: shown(&repository) });
        }
    }
}

/// What is known of a [`Spot`]'s folder.
#[derive(Debug)]
struct KnownPlace {
    folder: Option<PathBuf>,
    in_repository: bool,
}

impl KnownPlace {
    fn at<'a>(&'a self, spot: &'a Spot) -> Place<'a> {
        Place { folder: self.folder.as_deref(), name: spot.name(), in_repository: self.in_repository }
    }
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    escaped(path.as_os_str().as_bytes(), TEXT_BYTES_MAX)
}
