//! mkdir, mknod, symlink, link and rename: calls whose last name is never followed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::ask::PathAt;
use super::walk::{Found, Spot, Walk};
use super::worker::Act;
use super::{KnownPlace, Names, Outcome, SET_ID, Turn};
use crate::names::{Kind, STANDING_REPOSITORY, Verdict};
use crate::sys::notify::Reply;

/// What is to have a second name.
enum Linked {
    Named(Spot),
    Object(OwnedFd),
}

impl Names {
    pub(super) fn make_folder(&mut self, turn: &Turn<'_>, at: PathAt, mode: u32) -> Outcome<Reply> {
        let spot = self.spot(turn, at)?;
        let (umask, name) = (turn.caller.umask()?, spot.asked());
        self.make(turn, &spot, Kind::Folder, umask, &Act::Folder { folder: spot.folder.as_fd(), name: &name, mode })
    }

    pub(super) fn make_node(&mut self, turn: &Turn<'_>, at: PathAt, mode: u32, dev: u64) -> Outcome<Reply> {
        if mode & SET_ID != 0 {
            return Err(Errno::EPERM);
        }
        let spot = self.spot(turn, at)?;
        let (umask, name) = (turn.caller.umask()?, spot.asked());
        self.make(turn, &spot, Kind::New, umask, &Act::Node { folder: spot.folder.as_fd(), name: &name, mode, dev })
    }

    pub(super) fn make_symlink(&mut self, turn: &Turn<'_>, target: u64, at: PathAt) -> Outcome<Reply> {
        let target = turn.caller.text(target)?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        let spot = self.spot(turn, at)?;
        let name = spot.asked();
        let act = Act::Symlink { target: &target, folder: spot.folder.as_fd(), name: &name };
        self.make(turn, &spot, Kind::New, 0, &act)
    }

    pub(super) fn link(&mut self, turn: &Turn<'_>, old: PathAt, new: PathAt, flags: i32) -> Outcome<Reply> {
        if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        let linked = self.linked(turn, old, flags)?;
        let to = self.spot(turn, new)?;
        let name = to.asked();
        let new = (to.folder.as_fd(), &name[..]);
        match &linked {
            Linked::Named(from) => {
                let asked = from.asked();
                self.make(turn, &to, Kind::New, 0, &Act::Link { old: (from.folder.as_fd(), &asked), new })
            }
            Linked::Object(object) => {
                self.make(turn, &to, Kind::New, 0, &Act::LinkObject { object: object.as_fd(), new })
            }
        }
    }

    /// The first name of a link; or the object, where that is a descriptor's or a magic link is to be followed to it.
    fn linked(&self, turn: &Turn<'_>, at: PathAt, flags: i32) -> Outcome<Linked> {
        let path = turn.caller.text(at.address)?;
        if path.is_empty() {
            let by_descriptor = flags & libc::AT_EMPTY_PATH != 0;
            return if by_descriptor { turn.caller.start(at).map(Linked::Object) } else { Err(Errno::ENOENT) };
        }
        let start = self.start_of(turn.caller, at, &path)?;
        let mut walk = Walk::new(turn.caller, self.root.as_fd());
        let mut spot = walk.spot(start.as_fd(), &path)?;
        let follow = flags & libc::AT_SYMLINK_FOLLOW != 0;
        while follow && spot.is_name() && matches!(spot.look()?, Found::Link) {
            match walk.onward(&spot)? {
                Ok(next) => spot = next,
                Err(object) => return Ok(Linked::Object(object)),
            }
        }
        // The kernel looks for it before it looks at the new name.
        fstatat(&spot.folder, OsStr::from_bytes(&spot.asked()), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(Linked::Named(spot))
    }

    pub(super) fn rename(&mut self, turn: &Turn<'_>, old: PathAt, new: PathAt, flags: u32) -> Outcome<Reply> {
        if flags & libc::RENAME_WHITEOUT != 0 {
            return Err(Errno::EPERM);
        }
        if !matches!(flags, 0 | libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        let from = self.spot(turn, old)?;
        let to = match self.spot(turn, new) {
            // The kernel asks whether the old name's folder may be searched before it walks to the new one.
            Err(_) if from.look().err() == Some(Errno::EACCES) => return Err(Errno::EACCES),
            to => to?,
        };
        let (leaves, comes) = (self.known(&from)?, self.known(&to)?);
        turn.still_waits()?;
        self.may_move(turn, (&from, &leaves), (&to, &comes))?;
        self.may_leave(turn, &from, &leaves)?;
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        if exchange {
            self.may_move(turn, (&to, &comes), (&from, &leaves))?;
            self.may_leave(turn, &to, &comes)?;
        }
        let (one, other) = (from.asked(), to.asked());
        let act = Act::Rename { old: (from.folder.as_fd(), &one), new: (to.folder.as_fd(), &other), flags };
        self.worker.act(&act, 0)?;
        self.made(&to, &comes);
        if exchange {
            self.made(&from, &leaves);
        }
        Ok(Reply::Value(0))
    }

    /// Whether what stands at one name may come to be at another.
    fn may_move(
        &mut self,
        turn: &Turn<'_>,
        (from, leaves): (&Spot, &KnownPlace),
        (to, comes): (&Spot, &KnownPlace),
    ) -> Outcome<()> {
        if !from.is_name() {
            // Nothing can be moved from there: the kernel knows what to say.
            return Ok(());
        }
        match self.decide(to, comes, Kind::Moved(leaves.at(from))) {
            Verdict::Free => Ok(()),
            // The kernel compares the mounts before it looks at the names.
            Verdict::FromOutside => Err(Errno::EXDEV),
            Verdict::Refused(_) if matches!(from.look()?, Found::Nothing) => Err(Errno::ENOENT),
            Verdict::Refused(pattern) => Err(self.refuse(turn, to, comes, &pattern)),
        }
    }

    /// Whether what stands at a name may go elsewhere: not with a repository that nobody would know again there.
    fn may_leave(&mut self, turn: &Turn<'_>, from: &Spot, leaves: &KnownPlace) -> Outcome<()> {
        let Some(folder) = &leaves.folder else { return Ok(()) };
        let held = self.standing.before_a_move_of(&folder.join(from.name()));
        held.map_err(|_| self.refuse(turn, from, leaves, STANDING_REPOSITORY))
    }

    /// Has a name made that must not stand yet.
    fn make(&mut self, turn: &Turn<'_>, spot: &Spot, kind: Kind<'_>, umask: u32, act: &Act<'_>) -> Outcome<Reply> {
        let place = self.known(spot)?;
        turn.still_waits()?;
        if let Verdict::Refused(pattern) = self.decide(spot, &place, kind) {
            return match spot.look()? {
                Found::Nothing => Err(self.refuse(turn, spot, &place, &pattern)),
                Found::Link | Found::Other(_) => Err(Errno::EEXIST),
            };
        }
        self.worker.act(act, umask)?;
        self.made(spot, &place);
        Ok(Reply::Value(0))
    }
}
