//! Reads what a waiting thread's registers point to. By its number: whoever uses it asks afterwards whether that thread still waits.

use std::io::IoSliceMut;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// The longest path with its end.
const PATH_BYTES_MAX: usize = 4096;
/// No page is smaller: up to such a boundary memory can be read whole or not at all.
const PAGE: usize = 4096;

/// So many bytes; `None` where they can't be read.
pub(super) fn bytes(tid: i32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = read(tid, usize::try_from(address).ok()?, &mut bytes)?;
    (read == length).then_some(bytes)
}

/// The bytes before the next NUL; `None` where they can't be read or there is none in a path's length.
pub(super) fn text(tid: i32, address: u64) -> Option<Vec<u8>> {
    let mut address = usize::try_from(address).ok()?;
    let mut text = Vec::new();
    while text.len() < PATH_BYTES_MAX {
        let mut part = [0; PAGE];
        let room = (PAGE - address % PAGE).min(PATH_BYTES_MAX - text.len());
        let read = read(tid, address, &mut part[..room])?;
        if let Some(end) = part[..read].iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&part[..end]);
            return Some(text);
        }
        if read < room {
            return None;
        }
        text.extend_from_slice(&part[..read]);
        address = address.checked_add(read)?;
    }
    None
}

fn read(tid: i32, base: usize, into: &mut [u8]) -> Option<usize> {
    let from = [RemoteIoVec { base, len: into.len() }];
    process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(into)], &from).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_to_their_end_and_unmapped_memory_is_none() {
        let long = [vec![b'x'; 5000], vec![0]].concat();
        let me = nix::unistd::gettid().as_raw();
        assert_eq!(text(me, c"/etc/passwd".as_ptr() as u64).as_deref(), Some(&b"/etc/passwd"[..]));
        assert_eq!(text(me, long[2000..].as_ptr() as u64).map(|text| text.len()), Some(3000));
        assert_eq!((text(me, long.as_ptr() as u64), text(me, 8), bytes(me, u64::MAX, 4)), (None, None, None));
    }
}
