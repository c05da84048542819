//! What can go wrong while a filter is built or read back: all of it before a process is started.

use super::{Arch, Sockets};
use crate::ring::Ring;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Filters are written for x86_64 and aarch64 alone.
    #[error("no seccomp filter for this processor: there are tables for x86_64 and aarch64 only")]
    UnsupportedArch,
    /// The ring forbids what the options ask for.
    #[error("{ring} can't have `{sockets:?}` sockets: only R0 reaches every socket family")]
    SocketsTooWide {
        /// The ring asked for.
        ring: Ring,
        /// The sockets asked for.
        sockets: Sockets,
    },
    /// A program grew past what its jumps (255 instructions) can span.
    #[error("the seccomp program for {arch} is too long: instruction {at} jumps {distance} forward, at most 255 work")]
    JumpTooFar {
        /// The architecture of the filter.
        arch: Arch,
        /// Index of the jumping instruction.
        at: usize,
        /// How far it would have to jump.
        distance: usize,
    },
    /// seccompiler refused the deny-list.
    #[error("seccompiler refused the deny-list")]
    DenyList(#[source] seccompiler::BackendError),
    /// A stored program isn't one that the kernel would take.
    #[error("not a seccomp program: {what} at instruction {at} of {length}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Index of the instruction.
        at: usize,
        /// Instructions in the program.
        length: usize,
    },
}
