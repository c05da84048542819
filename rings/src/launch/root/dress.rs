//! The layer of a root that is made anew for each agent, over the one that can be kept.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::copies::Copy;
use super::layers::written_to_a_tree;
use super::{CONSOLE, PRIVATE, cover, mount_proc, open_dir, place, show};
use crate::launch::protocol::Failure;
use crate::plan::{Execute, Ids, Mount};
use crate::sys::mount::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};

/// Files of one agent in its private directories.
const INODES_MAX: u32 = 1 << 18;

/// A name at which a mask stands, or where nothing was to be masked.
pub(in crate::launch) type Mask = (PathBuf, Option<u64>);

/// A name that is there and is no mount's root, as a mask is: it has come to be since it was to be masked. 0 is no mount's number.
const BARE: Option<u64> = Some(0);

/// What was copied before the old root went.
pub(super) struct Copies<'a> {
    /// Of the fresh entries, in their order.
    pub(super) fresh: &'a [Option<Copy>],
    /// Its terminal.
    pub(super) console: Option<&'a Copy>,
    /// A fresh /proc, where one can't be mounted any more.
    pub(super) proc: Option<&'a Copy>,
}

/// Mounts the fresh entries of a root; the caller is in it. Returns what stands at each masked name.
pub(super) fn dress(fresh: &[&Mount], copies: &Copies<'_>, bytes: u64, ids: Option<Ids>) -> Result<Vec<Mask>, Failure> {
    let root = open_dir("/")?;
    let root = root.as_fd();
    private_room(bytes)?;
    let mut masks = Vec::new();
    for (number, (entry, copy)) in fresh.iter().zip(copies.fresh).enumerate() {
        if written_to_a_tree(entry, &fresh[..number]) {
            let at = entry.target().display();
            return Err(Failure {
                step: format!("show {at}: it would be written to a tree of the host"),
                errno: libc::EROFS,
            });
        }
        let copy = if matches!(entry, Mount::Proc { .. }) { copies.proc } else { copy.as_ref() };
        add(root, number, entry, copy, ids)?;
        if matches!(entry, Mount::Pin { .. } | Mount::Protect { .. } | Mount::Hide { .. }) {
            masks.push((entry.target().to_owned(), None));
        }
    }
    if let Some(console) = copies.console {
        show(root, Path::new(CONSOLE), console).map_err(|e| Failure::new("show its terminal as /dev/console", &e))?;
    }
    // Its directories are mounts of their own by now, and stay writable. Here nothing of them can be run, should somebody come here.
    let refused = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | refused;
    nix::mount::mount(None::<&str>, PRIVATE, None::<&str>, flags, None::<&str>)
        .map_err(|e| Failure::new("make the private directories' own root read-only", &e.into()))?;
    // Only now: a mask may have been covered by a later one.
    for (path, stands) in &mut masks {
        *stands = mask_at(root, path).map_err(|e| Failure::new(format!("see {}", path.display()), &e))?;
    }
    Ok(masks)
}

/// The mount whose root a name is; `None` when the name does not exist.
fn mask_at(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<u64>> {
    match mount::find(root, path) {
        Ok(found) => Ok(found.root_of.map_or(BARE, Some)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether every mask still stands, and no name has come to be where there was none to mask.
pub(in crate::launch) fn masks_stand(masks: &[Mask]) -> bool {
    let Ok(root) = open_dir("/") else { return false };
    masks.iter().all(|(path, stands)| *stands != BARE && mask_at(root.as_fd(), path).is_ok_and(|now| now == *stands))
}

/// One file system for all private directories of an agent, so that they share its bound.
fn private_room(bytes: u64) -> Result<(), Failure> {
    // Closed to everybody, its owner too: as an ordinary user the agent has our uid.
    let options = format!("size={bytes},nr_inodes={INODES_MAX},mode=0000");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("agt-private"), PRIVATE, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|e| Failure::new("mount the private directories", &e.into()))
}

fn add(
    root: BorrowedFd<'_>,
    number: usize,
    entry: &Mount,
    copy: Option<&Copy>,
    ids: Option<Ids>,
) -> Result<(), Failure> {
    let named = |path: &Path, e: io::Error| Failure::new(format!("show {}", path.display()), &e);
    match (entry, copy) {
        (Mount::Bind { target, .. } | Mount::Device { path: target }, Some(copy)) => {
            show(root, target, copy).map_err(|e| named(target, e))
        }
        (Mount::Overlay { target, marks, .. }, Some(copy)) => {
            super::overlay::show(root, number, target, copy, (*marks, ids)).map_err(|e| named(target, e))
        }
        (Mount::Bind { .. } | Mount::Overlay { .. } | Mount::Device { .. }, None) => {
            Err(named(entry.target(), io::ErrorKind::NotFound.into()))
        }
        (Mount::Private { target, mode, execute }, _) => {
            private(root, number, target, (*mode, *execute), ids).map_err(|e| named(target, e))
        }
        (Mount::Link { target, to }, _) => super::link(target, to).map_err(|e| named(target, e)),
        (Mount::File { target, content }, _) => super::file(target, content.as_bytes()).map_err(|e| named(target, e)),
        (Mount::Proc { .. }, Some(copy)) => {
            show(root, Path::new("/proc"), copy).map_err(|e| named(Path::new("/proc"), e))
        }
        (Mount::Proc { view }, None) => mount_proc(Path::new("/proc"), *view),
        (Mount::Terminals, _) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
            let options = "newinstance,ptmxmode=0666,mode=0620";
            nix::mount::mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some(options))
                .map_err(|e| Failure::new("mount /dev/pts", &e.into()))
        }
        (Mount::Pin { target }, _) => {
            over_itself(root, target, 0).map_err(|e| Failure::new(format!("pin {}", target.display()), &e))
        }
        (Mount::Protect { target }, _) => over_itself(root, target, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
            .map_err(|e| Failure::new(format!("keep {} read-only", target.display()), &e)),
        (Mount::Hide { target }, _) => match mount::open_in_root(root, target) {
            Ok(_) => cover(root, target),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(()),
            Err(e) => Err(named(target, e)),
        },
    }
}

/// A directory of the agent's own file system, shown where it belongs. Its attributes come from the mount that it is copied of.
fn private(
    root: BorrowedFd<'_>,
    number: usize,
    target: &Path,
    (mode, execute): (u32, Execute),
    ids: Option<Ids>,
) -> io::Result<()> {
    let made = PathBuf::from(format!("{PRIVATE}/{number}"));
    fs::create_dir(&made)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(mode))?;
    if let Some(ids) = ids {
        chown(&made, Some(ids.uid), Some(ids.gid))?;
    }
    let at = mount::open_in_root(root, &made)?;
    let copy = mount::clone_tree(at.as_fd())?;
    if execute == Execute::Refused {
        mount::set_attributes(copy.as_fd(), ATTR_NOEXEC)?;
    }
    mount::attach(copy.as_fd(), place(root, target, true)?.as_fd())
}

/// Mounts a name onto itself. One that is gone since the plan was made (its owner or an agent removed it) is a reason for
/// nothing: there is nothing to keep or to hold in place.
fn over_itself(root: BorrowedFd<'_>, target: &Path, attributes: u64) -> io::Result<()> {
    let at = match mount::open_in_root(root, target) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        at => at?,
    };
    let copy = mount::clone_tree(at.as_fd())?;
    if attributes != 0 {
        mount::set_attributes(copy.as_fd(), attributes)?;
    }
    mount::attach(copy.as_fd(), at.as_fd())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_that_came_to_be_while_the_masks_were_made_is_no_mask_that_stands() {
        let scratch = tempfile::tempdir().unwrap();
        let bare = scratch.path().canonicalize().unwrap();
        let missing = bare.join("missing");
        let root = open_dir("/").unwrap();
        assert_eq!(mask_at(root.as_fd(), &bare).unwrap(), BARE);
        assert!(!masks_stand(&[(bare, BARE)]), "nothing covers it, now as then");
        assert!(masks_stand(&[(missing.clone(), None)]), "what is not there needs no mask");
        fs::write(&missing, "").unwrap();
        assert!(!masks_stand(&[(missing, None)]), "what came later has none");
        let proc = Path::new("/proc");
        let mask = mask_at(root.as_fd(), proc).unwrap();
        assert!(mask != BARE && masks_stand(&[(proc.to_owned(), mask)]));
    }
}
