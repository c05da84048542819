//! Mounts by descriptor: open_tree, mount_setattr, move_mount, openat2. Paths that an agent may have rearranged are resolved
//! without following any link.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// Attributes of mount_setattr(2).
pub(crate) const ATTR_RDONLY: u64 = 0x1;
pub(crate) const ATTR_NOSUID: u64 = 0x2;
pub(crate) const ATTR_NODEV: u64 = 0x4;
pub(crate) const ATTR_NOEXEC: u64 = 0x8;
const ATTR_IDMAP: u64 = 0x0010_0000;

#[repr(C)]
#[derive(Default)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: called only with a descriptor that the kernel has just made for us.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// openat2(2), O_PATH, with `root` as the root of the walk, following no link of any kind.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT,
    };
    // SAFETY: path and how outlive the call; the size is how's own.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>())
    })?;
    Ok(owned(fd))
}

/// A detached copy of the mounts below `at`, not yet visible anywhere.
pub(crate) fn clone_tree(at: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: an empty NUL-terminated path.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), c"".as_ptr(), flags) })?;
    Ok(owned(fd))
}

/// Sets attributes on a detached mount and everything mounted below it, and cuts it off from the mounts that it is a copy of:
/// what is mounted or unmounted there is not mounted or unmounted here.
pub(crate) fn set_attributes_of_copy(mount: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set: set, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(mount, &attr)
}

/// Sets attributes on a mount and everything mounted below it.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set: set, ..MountAttr::default() };
    mount_setattr(mount, &attr)
}

/// Takes nosuid off a mount and everything mounted below it: what a probe leaves out, and nothing else.
pub(crate) fn allow_set_id(at: &Path) -> io::Result<()> {
    let at = std::fs::File::open(at)?;
    mount_setattr(at.as_fd(), &MountAttr { attr_clr: ATTR_NOSUID, ..MountAttr::default() })
}

/// Gives a detached mount the id mapping of a user namespace (Linux 5.12; which filesystems can is the kernel's list).
pub(crate) fn set_id_map(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr { attr_set: ATTR_IDMAP, userns_fd: user_namespace.as_raw_fd() as u64, ..MountAttr::default() };
    mount_setattr(mount, &attr)
}

fn mount_setattr(mount: BorrowedFd<'_>, attr: &MountAttr) -> io::Result<()> {
    let flags = AT_RECURSIVE | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: an empty path, and an attr of the size given that outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Attaches a detached mount at `target`.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: two empty paths.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// What a name led to: the object, and the mount that shows it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The object.
    pub(crate) object: Object,
    /// It is a directory.
    pub(crate) is_dir: bool,
    /// The mount whose root it is; `None` when it is no mount's root.
    pub(crate) root_of: Option<u64>,
}

/// A file system object. The numbers are its own for as long as anything (a mount of it, say) keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Object {
    device: (u32, u32),
    inode: u64,
    kind: u16,
}

/// statx(2) of a path below `root`, without following a link at its end; of `root` itself for an empty path.
pub(crate) fn find(root: BorrowedFd<'_>, path: &Path) -> io::Result<Found> {
    let path = c_path(path.strip_prefix("/").unwrap_or(path))?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let wanted = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_MNT_ID;
    // SAFETY: statx is plain old data; all zeroes is a valid value.
    let mut seen: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: path and seen outlive the call.
    check(unsafe { libc::statx(root.as_raw_fd(), path.as_ptr(), flags, wanted, &raw mut seen) }.into())?;
    let kind = seen.stx_mode & libc::S_IFMT as u16;
    let is_root = seen.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0;
    Ok(Found {
        object: Object { device: (seen.stx_dev_major, seen.stx_dev_minor), inode: seen.stx_ino, kind },
        is_dir: u32::from(kind) == libc::S_IFDIR,
        root_of: is_root.then_some(seen.stx_mnt_id),
    })
}

/// pivot_root(2).
pub(crate) fn pivot_root(new: &Path, old: &Path) -> io::Result<()> {
    let (new, old) = (c_path(new)?, c_path(old)?);
    // SAFETY: two NUL-terminated paths.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) })?;
    Ok(())
}
