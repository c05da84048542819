//! One word of memory that the init and the attendant share: whether there is still something to tell. So an agent that ends need
//! not be followed by a question that is almost always answered with no.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Shared with every process that is forked later; stays mapped as long as one of them lives.
#[derive(Debug, Clone)]
pub(super) struct Pending(NonNull<AtomicU32>);

impl Pending {
    pub(super) fn new() -> io::Result<Pending> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, which nobody else knows and which is never unmapped.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<AtomicU32>(), protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(Pending).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn set(&self, something: bool) {
        // SAFETY: mapped for good, aligned to a page, and only ever used as this atomic.
        unsafe { self.0.as_ref() }.store(something.into(), Ordering::Release);
    }

    pub(super) fn get(&self) -> bool {
        // SAFETY: as in `set`.
        unsafe { self.0.as_ref() }.load(Ordering::Acquire) != 0
    }
}
