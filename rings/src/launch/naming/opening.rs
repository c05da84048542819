//! open with O_CREAT or O_TMPFILE: the one creating call whose last name may be followed, and may exist already.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::geteuid;

use super::ask::PathAt;
use super::walk::{Found, Spot, Walk};
use super::worker::{Act, Done};
use super::{Names, Outcome, SET_ID, Turn};
use super::{standard, worker};
use crate::names::{Kind, Verdict};
use crate::sys::notify::Reply;

/// Memory devices (null, zero, random): opened at once.
const MEMORY_MAJOR: u32 = 1;
/// /dev/tty, /dev/console, /dev/ptmx.
const TTY_MAJOR: u32 = 5;
/// Terminals of /dev/pts.
const PTS_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Flags that every kernel takes in any combination.
const PLAIN: i32 = libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_EXCL
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_NOCTTY
    | libc::O_NONBLOCK
    | libc::O_NOFOLLOW
    | libc::O_CLOEXEC;

/// What an open asks for, besides the path.
#[derive(Debug, Clone, Copy)]
struct How {
    flags: i32,
    mode: u32,
}

impl How {
    fn has(self, flag: i32) -> bool {
        self.flags & flag == flag
    }

    /// For something that stands: nothing is to be made, and no link is followed.
    fn of_existing(self) -> i32 {
        (self.flags & !(libc::O_CREAT | libc::O_EXCL)) | libc::O_NOFOLLOW
    }

    /// Whether a link at the last name is gone through.
    fn follows(self) -> bool {
        !self.has(libc::O_NOFOLLOW) && !self.has(libc::O_CREAT | libc::O_EXCL)
    }
}

impl Names {
    pub(super) fn open(&mut self, turn: &Turn<'_>, at: PathAt, flags: i32, mode: u32) -> Outcome<Reply> {
        let how = How { flags, mode: mode & 0o7777 };
        if how.mode & SET_ID != 0 && (how.has(libc::O_CREAT) || how.has(libc::O_TMPFILE)) {
            return Err(Errno::EPERM);
        }
        // The kernel judges the flags before the path; of no path at all it makes nothing.
        if flags & !PLAIN != 0
            && let Err(Errno::EINVAL) = open(c"", OFlag::from_bits_retain(flags), Mode::from_bits_retain(how.mode))
        {
            return Err(Errno::EINVAL);
        }
        let path = turn.caller.text(at.address)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let start = self.start_of(turn.caller, at, &path)?;
        let root = Rc::clone(&self.root);
        let mut walk = Walk::new(turn.caller, root.as_fd());
        if how.has(libc::O_TMPFILE) {
            if how.has(libc::O_NOFOLLOW) {
                let spot = walk.spot(start.as_fd(), &path)?;
                if spot.is_name() && !spot.slash && matches!(spot.look()?, Found::Link) {
                    return Err(Errno::ENOTDIR);
                }
            }
            let folder = walk.folder(start.as_fd(), &path)?;
            let umask = turn.caller.umask()?;
            turn.still_waits()?;
            let act = Act::Open { folder: folder.as_fd(), name: b".", flags: how.flags, mode: how.mode };
            return self.opened(&act, umask, how);
        }
        let mut spot = walk.spot(start.as_fd(), &path)?;
        loop {
            match self.open_at(turn, &mut walk, &spot, how)? {
                Step::Done(reply) => return Ok(reply),
                Step::Onward(next) => spot = next,
                Step::Again => walk.count()?,
            }
        }
    }

    /// Opens what a last name stands for, or says where to look for it.
    fn open_at(&mut self, turn: &Turn<'_>, walk: &mut Walk<'_>, spot: &Spot, how: How) -> Outcome<Step> {
        let found = if spot.is_name() { spot.look()? } else { Found::Nothing };
        if !spot.is_name() || (spot.slash && how.has(libc::O_CREAT)) {
            // No file can be made there: the kernel knows what to say. Nothing is followed, or it would be as ourselves.
            let name = spot.asked();
            turn.still_waits()?;
            let act =
                Act::Open { folder: spot.folder.as_fd(), name: &name, flags: how.flags | libc::O_NOFOLLOW, mode: 0 };
            return self.opened(&act, 0, how).map(Step::Done);
        }
        match found {
            Found::Link if how.follows() => match walk.onward(spot)? {
                Ok(next) => Ok(Step::Onward(next)),
                Err(object) => self.open_object(turn, object, how).map(Step::Done),
            },
            Found::Other(stat) if is_special(&stat) && !how.has(libc::O_CREAT | libc::O_EXCL) => {
                let object = spot.pin()?;
                self.open_object(turn, object, how).map(Step::Done)
            }
            found => self.open_or_make(turn, spot, &found, how),
        }
    }

    fn open_or_make(&mut self, turn: &Turn<'_>, spot: &Spot, found: &Found, how: How) -> Outcome<Step> {
        let stands = !matches!(found, Found::Nothing);
        if stands && how.has(libc::O_CREAT | libc::O_EXCL) {
            return Err(Errno::EEXIST);
        }
        let name = spot.asked();
        let folder = spot.folder.as_fd();
        if stands {
            turn.still_waits()?;
            if how.has(libc::O_CREAT) && is_folder(found) {
                return Err(Errno::EISDIR);
            }
            let act = Act::Open { folder, name: &name, flags: how.of_existing() | libc::O_NONBLOCK, mode: 0 };
            return match self.opened_at_once(&act, 0, how) {
                // It went meanwhile, or a link came: looked at anew.
                Err(Errno::ENOENT) => Ok(Step::Again),
                Err(Errno::ELOOP) if how.follows() => Ok(Step::Again),
                // What came in its place may let one wait: a FIFO, a file with a lease on it.
                Err(Errno::ENXIO | Errno::EAGAIN) => self.open_pinned(turn, spot, how),
                opened => opened.map(Step::Done),
            };
        }
        let umask = if how.has(libc::O_CREAT) && how.mode != 0 { turn.caller.umask()? } else { 0 };
        let place = self.known(spot)?;
        turn.still_waits()?;
        if let (true, Verdict::Refused(pattern)) = (how.has(libc::O_CREAT), self.decide(spot, &place, Kind::New)) {
            return Err(self.refuse(turn, spot, &place, &pattern));
        }
        let flags = how.flags | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let act = Act::Open { folder, name: &name, flags, mode: how.mode };
        match self.opened_at_once(&act, umask, how) {
            Err(Errno::ELOOP) if how.follows() => Ok(Step::Again),
            Err(Errno::ENXIO | Errno::EAGAIN) => self.open_pinned(turn, spot, how),
            Err(e) => Err(e),
            Ok(reply) => {
                self.made(spot, &place);
                Ok(Step::Done(reply))
            }
        }
    }

    /// Opens what stands at a name by now, in a process of its own if that may wait.
    fn open_pinned(&mut self, turn: &Turn<'_>, spot: &Spot, how: How) -> Outcome<Step> {
        let object = spot.pin()?;
        match fstat(&object)? {
            stat if stat.st_mode & libc::S_IFMT == libc::S_IFLNK => Ok(Step::Again),
            stat if stat.st_mode & libc::S_IFMT == libc::S_IFREG && !how.has(libc::O_NONBLOCK) => {
                let flags = how.flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW);
                let (listener, id) = turn.waiting.for_later();
                self.worker.open_late(object, flags, listener, id)?;
                Ok(Step::Done(Reply::Later))
            }
            _ => self.open_object(turn, object, how).map(Step::Done),
        }
    }

    /// Opens by a name, at which anything may stand since the look, without waiting for it: whoever waited here would hold up every
    /// other call. The descriptor then waits as the caller asked for it.
    fn opened_at_once(&self, act: &Act<'_>, umask: u32, how: How) -> Outcome<Reply> {
        let reply = self.opened(act, umask, how)?;
        if let Reply::AddFd { fd, .. } = &reply
            && !how.has(libc::O_NONBLOCK)
            && !how.has(libc::O_PATH)
        {
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        }
        Ok(reply)
    }

    /// Opens an object that has no name to be made: what a magic link leads to, a FIFO, a device.
    fn open_object(&mut self, turn: &Turn<'_>, object: OwnedFd, how: How) -> Outcome<Reply> {
        let stat = fstat(&object)?;
        let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        let flags = how.flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW);
        turn.still_waits()?;
        // A pipe of somebody else's, whose end the caller may have all the same.
        let is_pipe = stat.st_mode & libc::S_IFMT == libc::S_IFIFO;
        if is_pipe
            && stat.st_uid != geteuid().as_raw()
            && !how.has(libc::O_NONBLOCK)
            && let Some(end) = standard::pipe(turn.caller, &stat, flags)?
        {
            return Ok(self.given(end, how));
        }
        let may_wait = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR if how.has(libc::O_CREAT) => return Err(Errno::EISDIR),
            libc::S_IFIFO => !how.has(libc::O_NONBLOCK) && how.flags & libc::O_ACCMODE != libc::O_RDWR,
            libc::S_IFCHR if (major, minor) == (TTY_MAJOR, 0) => {
                return standard::terminal(turn.caller, flags).map(|fd| self.given(fd, how));
            }
            libc::S_IFCHR => !matches!(major, MEMORY_MAJOR | TTY_MAJOR) && !PTS_MAJORS.contains(&major),
            _ => false,
        };
        if may_wait {
            let (listener, id) = turn.waiting.for_later();
            self.worker.open_late(object, flags, listener, id)?;
            return Ok(Reply::Later);
        }
        self.opened(&worker::Act::Reopen { object: object.as_fd(), flags }, 0, how)
    }

    fn opened(&self, act: &Act<'_>, umask: u32, how: How) -> Outcome<Reply> {
        match self.worker.act(act, umask)? {
            Done::Opened(fd) => Ok(self.given(fd, how)),
            Done::Made => Err(Errno::EIO),
        }
    }

    fn given(&self, fd: OwnedFd, how: How) -> Reply {
        Reply::AddFd { fd, cloexec: how.has(libc::O_CLOEXEC) }
    }
}

/// How an open goes on.
enum Step {
    Done(Reply),
    /// A link led here.
    Onward(Spot),
    /// Something changed between the look and the act.
    Again,
}

fn is_special(stat: &FileStat) -> bool {
    !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
}

fn is_folder(found: &Found) -> bool {
    matches!(found, Found::Other(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}
