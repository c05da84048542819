//! A directory that an agent may change without changing it: overlayfs, whose upper layer is a folder of the caller's.
//!
//! Both layers are attached for the moment of the mount only, in the room of the private directories: overlayfs keeps them, and no
//! name leads the agent to either. The lower one is read-only and id-mapped like any tree of the agent's; the upper one can't be (the
//! kernel would make its own files there as somebody that the map does not have), so its top folder becomes the agent's instead.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, umount2};

use super::copies::Copy;
use super::{PRIVATE, place};
use crate::plan::{Ids, Marks};
use crate::sys::mount;

/// Mounts the overlay at `target`.
pub(super) fn show(
    root: BorrowedFd<'_>,
    number: usize,
    target: &Path,
    copy: &Copy,
    (marks, ids): (Marks, Option<Ids>),
) -> io::Result<()> {
    let scratch = copy.scratch.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let at = |which: &str| PathBuf::from(format!("{PRIVATE}/{number}-{which}"));
    let (lower, changes) = (at("lower"), at("changes"));
    for (folder, layer) in [(&lower, &copy.mount), (&changes, scratch)] {
        fs::create_dir(folder)?;
        mount::attach(layer.as_fd(), mount::open_in_root(root, folder)?.as_fd())?;
    }
    let (upper, work) = (changes.join("upper"), changes.join("work"));
    for folder in [&upper, &work] {
        match fs::create_dir(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    // What is seen of the top folder is the upper one's.
    let seen = fs::metadata(&lower)?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(seen.mode() & 0o777))?;
    if let Some(ids) = ids {
        chown(&upper, Some(ids.uid), Some(ids.gid))?;
    }
    place(root, target, true)?;
    let marks = match marks {
        Marks::Trusted => "",
        Marks::User => ",userxattr",
    };
    let shown = |path: &Path| path.display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}{marks}", shown(&lower), shown(&upper), shown(&work));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("agt-overlay"), target, Some("overlay"), flags, Some(options.as_str()))?;
    for folder in [&lower, &changes] {
        umount2(folder, MntFlags::MNT_DETACH)?;
        fs::remove_dir(folder)?;
    }
    Ok(())
}
