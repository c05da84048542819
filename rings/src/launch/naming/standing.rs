//! The git repositories that stood at launch, known again wherever they are moved.
//!
//! One that stands where it stood is known by its path. It is held as well, so that a rename of it, or of a folder around it, loses
//! nobody's track, and its inode number is given to no other folder. An agent can keep a folder of its own from being opened
//! (chmod 000) and undo that later: so what could not be held is not moved before it is.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use super::Outcome;

/// Most that are held before one of them is moved: each is a descriptor of a process that is given some hundreds.
const HELD_AHEAD_MAX: usize = 128;

/// The repositories.
#[derive(Default)]
pub(super) struct Standing {
    held: Vec<(libc::dev_t, libc::ino_t, OwnedFd)>,
    /// By their paths, which are those of the launch: none of them has been moved.
    unheld: Vec<PathBuf>,
}

impl Standing {
    pub(super) fn of(repositories: &[PathBuf]) -> Standing {
        let mut standing = Standing::default();
        let (first, rest) = repositories.split_at(repositories.len().min(HELD_AHEAD_MAX));
        for repository in first {
            if standing.hold(repository).is_err() {
                standing.unheld.push(repository.clone());
            }
        }
        standing.unheld.extend_from_slice(rest);
        standing
    }

    /// Before what is at this path is moved: holds the repositories there.
    pub(super) fn before_a_move_of(&mut self, path: &Path) -> Outcome<()> {
        let (moved, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unheld).into_iter().partition(|repository| repository.starts_with(path));
        self.unheld = rest;
        let mut held = Ok(());
        for repository in moved {
            if let Err(e) = self.hold(&repository) {
                self.unheld.push(repository);
                held = Err(e);
            }
        }
        held
    }

    fn hold(&mut self, repository: &Path) -> Outcome<()> {
        match open(repository, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(folder) => {
                let stat = fstat(&folder)?;
                self.held.push((stat.st_dev, stat.st_ino, folder));
                Ok(())
            }
            // Gone: there is nothing that could be moved.
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Whether a folder is one of them.
    pub(super) fn holds(&self, folder: BorrowedFd<'_>) -> Outcome<bool> {
        if self.held.is_empty() {
            return Ok(false);
        }
        let stat = fstat(folder)?;
        Ok(self.held.iter().any(|(dev, ino, _)| (*dev, *ino) == (stat.st_dev, stat.st_ino)))
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Standing({} held, {:?})", self.held.len(), self.unheld)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn is_held(standing: &Standing, folder: &Path) -> bool {
        standing.holds(File::open(folder).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn what_could_not_be_held_at_first_is_held_before_it_is_moved_or_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path();
        // Closed to whoever runs this, root too, as a folder of mode 0 is to others.
        symlink("a", top.join("a")).unwrap();
        fs::create_dir_all(top.join("b/.git")).unwrap();
        let mut standing = Standing::of(&[top.join("a/.git"), top.join("b/.git"), top.join("gone/.git")]);
        assert!(is_held(&standing, &top.join("b/.git")) && !is_held(&standing, top));
        assert_eq!(standing.before_a_move_of(&top.join("a")), Err(Errno::ELOOP));
        assert_eq!(standing.before_a_move_of(&top.join("b")), Ok(()));
        fs::remove_file(top.join("a")).unwrap();
        fs::create_dir_all(top.join("a/.git")).unwrap();
        assert_eq!(standing.before_a_move_of(&top.join("a")), Ok(()));
        assert!(is_held(&standing, &top.join("a/.git")));
    }

    #[test]
    fn of_many_only_some_are_held_ahead_and_each_is_before_its_move() {
        let scratch = tempfile::tempdir().unwrap();
        let all: Vec<PathBuf> =
            (0..HELD_AHEAD_MAX + 2).map(|number| scratch.path().join(format!("{number}/.git"))).collect();
        all.iter().for_each(|repository| fs::create_dir_all(repository).unwrap());
        let mut standing = Standing::of(&all);
        assert_eq!(standing.held.len(), HELD_AHEAD_MAX);
        let last = &all[HELD_AHEAD_MAX + 1];
        assert!(!is_held(&standing, last));
        standing.before_a_move_of(last.parent().unwrap()).unwrap();
        assert!(is_held(&standing, last) && standing.held.len() == HELD_AHEAD_MAX + 1);
    }
}
