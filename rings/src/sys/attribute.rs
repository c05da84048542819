//! Extended attributes of files that are named below an open directory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct xattr_args` of getxattrat(2).
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Since Linux 6.13; on all architectures alike.
const SYS_GETXATTRAT: libc::c_long = 464;

/// Whether a file has an attribute, by getxattrat(2); a link at the end is not followed.
///
/// # Errors
/// What it says but ENODATA and EOPNOTSUPP; on older kernels and under filters that don't know it ENOSYS or EPERM: who must know
/// then asks by path.
pub fn has(dir: BorrowedFd<'_>, name: &CStr, attribute: &CStr) -> io::Result<bool> {
    // No room for the value: its length is the answer.
    let args = XattrArgs { value: 0, size: 0, flags: 0 };
    // SAFETY: two NUL-terminated texts, and args of the size given; all outlive the call, which writes nothing.
    let asked = super::check(unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            attribute.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    });
    match asked {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_missing_attribute_is_told_from_a_call_that_is_not_there() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("file"), "").unwrap();
        let dir = std::fs::File::open(scratch.path()).unwrap();
        let known = has(dir.as_fd(), c"file", c"user.agt-none");
        // ENOSYS before 6.13.
        assert!(matches!(known, Ok(false)) || known.unwrap_err().raw_os_error() == Some(libc::ENOSYS));
        let missing = has(dir.as_fd(), c"no-file", c"user.agt-none").unwrap_err().raw_os_error();
        assert!(matches!(missing, Some(libc::ENOENT | libc::ENOSYS)));
    }
}
