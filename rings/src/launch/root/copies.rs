//! Copies of what the host has, taken before the agent's root exists: detached mounts with their attributes set.
//!
//! At no moment does a writable mount stand where a read-only one belongs, and each copy is cut off from what is mounted or
//! unmounted on the host from then on. What was copied is remembered, so that somebody who uses the copy later can see whether
//! the name still leads there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::Maps;
use crate::launch::protocol::Failure;
use crate::plan::Mount;
use crate::spec::Access;
use crate::sys::mount::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Object};

/// A detached mount.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) mount: OwnedFd,
    pub(super) is_dir: bool,
    /// Of an overlay: the folder for its changes.
    pub(super) scratch: Option<OwnedFd>,
}

/// A name of the host, and what it led to.
pub(in crate::launch) type Seen = (PathBuf, Object);

/// Copies what entries of a root show of the host; `None` for those that show nothing of it. Adds to `seen` what was found.
pub(super) fn take(
    host: BorrowedFd<'_>,
    mounts: &[&Mount],
    maps: &Maps,
    seen: &mut Vec<Seen>,
) -> Result<Vec<Option<Copy>>, Failure> {
    mounts
        .iter()
        .map(|mount| {
            let (source, target, copied) = match mount {
                Mount::Bind { source, target, access, id_map } => {
                    let write = if *access == Access::Write { 0 } else { ATTR_RDONLY };
                    let attributes = ATTR_NOSUID | ATTR_NODEV | write;
                    (source, target, copy(host, source, attributes, id_map.map(|owner| (owner, maps))))
                }
                Mount::Overlay { target, scratch, id_map, .. } => {
                    let attributes = ATTR_NOSUID | ATTR_NODEV | ATTR_RDONLY;
                    let copied = copy(host, target, attributes, id_map.map(|owner| (owner, maps)));
                    (target, target, copied.and_then(|copied| with_scratch(host, copied, scratch)))
                }
                Mount::Device { path } => (path, path, copy(host, path, ATTR_NOSUID | ATTR_NOEXEC, None)),
                _ => return Ok(None),
            };
            let (copy, object) = copied.map_err(|e| Failure::new(format!("show {}", target.display()), &e))?;
            seen.push((source.clone(), object));
            Ok(Some(copy))
        })
        .collect()
}

fn copy(
    host: BorrowedFd<'_>,
    source: &Path,
    attributes: u64,
    id_map: Option<((u32, u32), &Maps)>,
) -> io::Result<(Copy, Object)> {
    let at = mount::open_in_root(host, source)?;
    let copy = mount::clone_tree(at.as_fd())?;
    if let Some((owner, maps)) = id_map {
        let namespace = maps.iter().find(|(mapped, _)| *mapped == owner).map(|(_, fd)| fd);
        let namespace = namespace.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        mount::set_id_map(copy.as_fd(), namespace.as_fd())?;
    }
    mount::set_attributes_of_copy(copy.as_fd(), attributes)?;
    let found = mount::find(at.as_fd(), Path::new(""))?;
    Ok((Copy { mount: copy, is_dir: found.is_dir, scratch: None }, found.object))
}

/// Adds the folder for the changes: as it is, since its owner is made the agent's.
fn with_scratch(host: BorrowedFd<'_>, (lower, object): (Copy, Object), scratch: &Path) -> io::Result<(Copy, Object)> {
    let (changes, _) = copy(host, scratch, ATTR_NOSUID | ATTR_NODEV, None)?;
    Ok((Copy { scratch: Some(changes.mount), ..lower }, object))
}

/// The agent's terminal belongs to the host's /dev/pts, so none of its own paths names it and ttyname(3) fails. Shown as
/// /dev/console, where that looks. A terminal that our own /dev/pts does not have (another container's) stays without a name.
pub(super) fn console(host: BorrowedFd<'_>, terminal: BorrowedFd<'_>) -> io::Result<Option<Copy>> {
    let given = nix::sys::stat::fstat(terminal)?;
    let path = PathBuf::from(format!("/dev/pts/{}", libc::minor(given.st_rdev)));
    let at = match mount::open_in_root(host, &path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        at => at?,
    };
    let found = nix::sys::stat::fstat(&at)?;
    if (found.st_dev, found.st_ino, found.st_rdev) != (given.st_dev, given.st_ino, given.st_rdev) {
        return Ok(None);
    }
    let copy = mount::clone_tree(at.as_fd())?;
    mount::set_attributes_of_copy(copy.as_fd(), ATTR_NOSUID | ATTR_NOEXEC)?;
    Ok(Some(Copy { mount: copy, is_dir: false, scratch: None }))
}

/// Whether every name still leads to what it led to. Each copy keeps its object, so a number can't have been given to another.
pub(in crate::launch) fn are_as_seen(host: BorrowedFd<'_>, seen: &[Seen]) -> bool {
    seen.iter().all(|(path, object)| mount::find(host, path).is_ok_and(|found| found.object == *object))
}
