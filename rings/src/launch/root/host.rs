//! What R0 does not see of the host's tree, and the one folder that it does see in spite of that.
//!
//! The folder is copied before its parents are covered, and attached through the cover: every name above it leads nowhere else.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::mount::MsFlags;

use super::{cover, mount};
use crate::launch::protocol::Failure;
use crate::sys::mount::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};

/// Who walks through a cover can't list it.
const WALK_ONLY: u32 = 0o111;

/// Covers every tree of `hide`, and shows `show` where one of them had it.
pub(super) fn cover_all(root: BorrowedFd<'_>, hide: &[impl AsRef<Path>], show: Option<&Path>) -> Result<(), Failure> {
    let covered = |path: &Path| hide.iter().any(|tree| path.starts_with(tree));
    let Some(folder) = show.filter(|folder| covered(folder)) else {
        return hide.iter().try_for_each(|path| cover(root, path.as_ref()));
    };
    let failed = |e: io::Error| Failure::new(format!("show {}", folder.display()), &e);
    let copy = copy_of(root, folder).map_err(failed)?;
    let mut above = Vec::new();
    for path in hide.iter().map(AsRef::as_ref) {
        if folder.starts_with(path) {
            above.extend(cover_walkable(root, path)?);
        } else {
            cover(root, path)?;
        }
    }
    fs::DirBuilder::new().recursive(true).mode(WALK_ONLY).create(folder).map_err(failed)?;
    let at = mount::open_in_root(root, folder).map_err(failed)?;
    mount::attach(copy.as_fd(), at.as_fd()).map_err(failed)?;
    above.iter().try_for_each(|tree| mount::set_attributes(tree.as_fd(), ATTR_RDONLY)).map_err(failed)
}

fn copy_of(root: BorrowedFd<'_>, folder: &Path) -> io::Result<OwnedFd> {
    let at = mount::open_in_root(root, folder)?;
    let copy = mount::clone_tree(at.as_fd())?;
    mount::set_attributes(copy.as_fd(), ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)?;
    Ok(copy)
}

/// Covers a directory with an empty one that is still writable; `None` when an earlier cover has taken it away.
fn cover_walkable(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    let failed = |e: io::Error| Failure::new(format!("hide {}", path.display()), &e);
    match mount::open_in_root(root, path) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("agt-hidden"), path, Some("tmpfs"), flags, Some("size=64k,mode=0111"))
        .map_err(|e| failed(e.into()))?;
    // Opened anew: what was opened before lies below the cover.
    mount::open_in_root(root, path).map(Some).map_err(failed)
}
