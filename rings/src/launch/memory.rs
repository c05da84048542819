//! Reads what a waiting thread's registers point to. By its number: whoever uses it asks afterwards whether that thread still waits.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// The longest path with its end, as the kernel has it.
const PATH_BYTES_MAX: usize = 4096;
/// No page is smaller: up to such a boundary memory can be read whole or not at all.
const PAGE: usize = 4096;

/// So many bytes.
pub(super) fn bytes(tid: i32, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    let read = read(tid, address, &mut bytes)?;
    if read == length { Ok(bytes) } else { Err(Errno::EFAULT) }
}

/// The bytes before the next NUL; ENAMETOOLONG where there is none in a path's length.
pub(super) fn text(tid: i32, address: u64) -> Result<Vec<u8>, Errno> {
    let mut at = address;
    let mut text = Vec::new();
    while text.len() < PATH_BYTES_MAX {
        let mut part = [0; PAGE];
        let room = (PAGE - (at % PAGE as u64) as usize).min(PATH_BYTES_MAX - text.len());
        let read = read(tid, at, &mut part[..room])?;
        if let Some(end) = part[..read].iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&part[..end]);
            return Ok(text);
        }
        if read < room {
            return Err(Errno::EFAULT);
        }
        text.extend_from_slice(&part[..read]);
        at = at.checked_add(read as u64).ok_or(Errno::EFAULT)?;
    }
    Err(Errno::ENAMETOOLONG)
}

fn read(tid: i32, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    let from = [RemoteIoVec { base, len: into.len() }];
    process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(into)], &from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_to_their_end_and_unmapped_memory_is_a_fault() {
        let long = [vec![b'x'; 5000], vec![0]].concat();
        let me = nix::unistd::gettid().as_raw();
        assert_eq!(text(me, c"/etc/passwd".as_ptr() as u64).as_deref(), Ok(&b"/etc/passwd"[..]));
        assert_eq!(text(me, long[2000..].as_ptr() as u64).map(|text| text.len()), Ok(3000));
        assert_eq!(text(me, long.as_ptr() as u64), Err(Errno::ENAMETOOLONG));
        assert_eq!((text(me, 8), bytes(me, u64::MAX, 4)), (Err(Errno::EFAULT), Err(Errno::EFAULT)));
    }
}
