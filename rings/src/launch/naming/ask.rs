//! What a creating call asks for: its number and registers, put into words. Nothing of the caller's memory is read yet.

/// A path in the caller's memory, and the descriptor that it starts at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathAt {
    /// A descriptor of the caller's, or AT_FDCWD.
    pub(super) dir: i32,
    /// The address of the text.
    pub(super) address: u64,
}

/// A creating call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Open { at: PathAt, flags: i32, mode: u32 },
    Folder { at: PathAt, mode: u32 },
    Node { at: PathAt, mode: u32, dev: u64 },
    Symlink { target: u64, at: PathAt },
    Link { old: PathAt, new: PathAt, flags: i32 },
    Rename { old: PathAt, new: PathAt, flags: u32 },
}

impl Ask {
    /// Reads a call of this machine's own ABI. `None` for one that makes no name.
    // The kernel reads an `int` from the low half of a register: so do these casts.
    pub(super) fn of(number: i64, args: &[u64; 6]) -> Option<Ask> {
        let at = |dir: usize, path: usize| PathAt { dir: args[dir] as i32, address: args[path] };
        let low = |index: usize| args[index] as u32;
        Some(match number {
            libc::SYS_openat => Ask::Open { at: at(0, 1), flags: args[2] as i32, mode: low(3) },
            libc::SYS_mkdirat => Ask::Folder { at: at(0, 1), mode: low(2) },
            libc::SYS_mknodat => Ask::Node { at: at(0, 1), mode: low(2), dev: low(3).into() },
            libc::SYS_symlinkat => Ask::Symlink { target: args[0], at: at(1, 2) },
            libc::SYS_linkat => Ask::Link { old: at(0, 1), new: at(2, 3), flags: args[4] as i32 },
            libc::SYS_renameat2 => Ask::Rename { old: at(0, 1), new: at(2, 3), flags: low(4) },
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            libc::SYS_renameat => Ask::Rename { old: at(0, 1), new: at(2, 3), flags: 0 },
            _ => return Ask::of_old(number, args),
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn of_old(number: i64, args: &[u64; 6]) -> Option<Ask> {
        let at = |path: usize| PathAt { dir: libc::AT_FDCWD, address: args[path] };
        let low = |index: usize| args[index] as u32;
        const CREAT: i32 = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
        Some(match number {
            libc::SYS_open => Ask::Open { at: at(0), flags: args[1] as i32, mode: low(2) },
            libc::SYS_creat => Ask::Open { at: at(0), flags: CREAT, mode: low(1) },
            libc::SYS_mkdir => Ask::Folder { at: at(0), mode: low(1) },
            libc::SYS_mknod => Ask::Node { at: at(0), mode: low(1), dev: low(2).into() },
            libc::SYS_symlink => Ask::Symlink { target: args[0], at: at(1) },
            libc::SYS_link => Ask::Link { old: at(0), new: at(1), flags: 0 },
            libc::SYS_rename => Ask::Rename { old: at(0), new: at(1), flags: 0 },
            _ => return None,
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_old(_: i64, _: &[u64; 6]) -> Option<Ask> {
        None
    }
}
