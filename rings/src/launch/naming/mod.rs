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
mod processor;
mod standard;
mod standing;
#[cfg(test)]
mod tests;
mod walk;
mod worker;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use self::ask::{Ask, PathAt};
use self::caller::{Reader, Statuses};
use self::standing::Standing;
use self::walk::{Spot, Walk, path_of};
use self::worker::{Bond, Worker};
use super::attendant::{Answer, Caller, Request};
use crate::capability::Capabilities;
use crate::names::{Kind, Place, Rules, Verdict};
use crate::notice::{TEXT_BYTES_MAX, What, escaped};
use crate::sys::notify::Reply;
use crate::sys::{check, process};

/// The setuid and setgid bits: no ring that has rules gives them.
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Most repositories that are remembered as told of.
const TOLD_MAX: usize = 1024;

/// What answers, once there is a first call to be answered: most agents of a moment make nothing, and only by then does the
/// attendant stand in the agent's groups, which the worker is born into.
#[derive(Debug)]
pub(super) struct Naming {
    rules: Option<Rules>,
    landlock: Option<OwnedFd>,
    names: Option<Names>,
}

impl Naming {
    /// For an agent under these rules; `landlock` is its ruleset.
    pub(super) fn new(rules: Rules, landlock: Option<OwnedFd>) -> Naming {
        Naming { rules: Some(rules), landlock, names: None }
    }

    fn start(&mut self) -> io::Result<&mut Names> {
        if let Some(rules) = &self.rules {
            let landlock = self.landlock.as_ref().map(AsRawFd::as_raw_fd);
            let confine = || {
                // The reader's, if it has one: the worker has what the agent has.
                process::drop_capabilities_but(Capabilities::NONE)?;
                // SAFETY: numbers only.
                let restrict = |rules: i32| check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) });
                landlock.map_or(Ok(()), |rules| restrict(rules).map(drop))
            };
            // SAFETY: system calls alone; and the attendant has one thread.
            self.names = Some(unsafe { Names::start(rules.clone(), &confine, Bond::Together) }?);
            self.rules = None;
        }
        self.names.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Answer for Naming {
    fn answer(&mut self, request: &Request, caller: &Caller, tell: &mut dyn FnMut(What)) -> Reply {
        let names = match self.start() {
            Ok(names) => names,
            // No task is left in the agent's group, say: nothing is made.
            Err(e) => return Reply::Errno(e.raw_os_error().unwrap_or(libc::ENOSYS)),
        };
        let (reply, notices) = names.attend(request, caller);
        notices.into_iter().for_each(tell);
        reply
    }
}

/// Whoever answers for one agent's creating calls.
#[derive(Debug)]
struct Names {
    rules: Rules,
    standing: Standing,
    root: Rc<OwnedFd>,
    worker: Worker,
    told: HashSet<PathBuf>,
    notices: Vec<What>,
    statuses: Rc<Statuses>,
}

/// Why a call goes no further, or what it gave.
type Outcome<T> = Result<T, Errno>;

/// One call under way.
struct Turn<'a> {
    caller: &'a Reader,
    call: &'static str,
    waiting: &'a Caller,
}

impl Turn<'_> {
    /// To be asked after everything was read from the caller, and before anything is done.
    fn still_waits(&self) -> Outcome<()> {
        if self.waiting.is_waiting() { Ok(()) } else { Err(Errno::EINTR) }
    }
}

impl Names {
    /// Makes ready to answer, at the first call: before it no name was made or moved. The caller of this is in the agent's view, with
    /// its uid; `confine` is what the worker has to give up beyond that.
    ///
    /// # Safety
    /// `confine` must do only what is sound after a fork of a process with threads: no allocation.
    unsafe fn start(rules: Rules, confine: &dyn Fn() -> io::Result<()>, bond: Bond) -> io::Result<Names> {
        // SAFETY: passed on.
        let worker = unsafe { Worker::start(confine, bond) }?;
        let standing = Standing::of(&rules.repositories);
        let root = Rc::new(open(Path::new("/"), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?);
        Ok(Names { rules, standing, root, worker, told: HashSet::new(), notices: Vec::new(), statuses: Rc::default() })
    }

    /// Answers one creating call, and says what is to be told of it. Blocks for as long as the file system takes.
    fn attend(&mut self, request: &Request, waiting: &Caller) -> (Reply, Vec<What>) {
        let Some(ask) = Ask::of(request.call.number.into(), &request.call.args) else {
            return (Reply::Errno(libc::ENOSYS), Vec::new());
        };
        let caller = Reader::new(waiting.tid, &self.statuses);
        let turn = Turn { caller: &caller, call: request.name, waiting };
        let reply = match ask {
            // Such an open makes nothing, whatever its path leads to: the flag stands in a register.
            Ask::Open { flags, .. } if flags & libc::O_PATH != 0 => Ok(Reply::Continue),
            Ask::Open { at, flags, mode } => self.open(&turn, at, flags, mode),
            Ask::Folder { at, mode } => self.make_folder(&turn, at, mode),
            Ask::Node { at, mode, dev } => self.make_node(&turn, at, mode, dev),
            Ask::Symlink { target, at } => self.make_symlink(&turn, target, at),
            Ask::Link { old, new, flags } => self.link(&turn, old, new, flags),
            Ask::Rename { old, new, flags } => self.rename(&turn, old, new, flags),
        };
        let reply = reply.unwrap_or_else(|errno| Reply::Errno(errno as i32));
        (reply, std::mem::take(&mut self.notices))
    }

    /// Where a path of the caller's starts.
    fn start_of(&self, caller: &Reader, at: PathAt, path: &[u8]) -> Outcome<OwnedFd> {
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

    /// A place with what is known of it, for as long as nothing is performed.
    fn known(&self, spot: &Spot) -> Outcome<KnownPlace> {
        let in_repository = self.standing.holds(spot.folder.as_fd())?;
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
