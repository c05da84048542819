//! Tests of the filters as a whole: against the policies, and against the running kernel.
#![allow(clippy::unwrap_used)]

mod equality;
mod kernel;
mod promises;

use super::*;

/// Every combination of options that a ring can be launched with, on both architectures.
fn all_options(ring: Ring) -> Vec<Options> {
    let sockets: &[Sockets] = match ring {
        Ring::R0 => &[Sockets::Any, Sockets::Loopback, Sockets::Unix, Sockets::UnixPairs],
        Ring::R1 | Ring::R2 | Ring::R3 => &[Sockets::Loopback, Sockets::Unix, Sockets::UnixPairs],
    };
    let mut all = Vec::new();
    for arch in Arch::ALL {
        for &sockets in sockets {
            for memfd in [Memfd::MustBeSealed, Memfd::SealedByNamespace] {
                for nested in [Nested::Refused, Nested::Allowed] {
                    all.push(Options { arch, exec_fd: EXEC_FD, exec_cookie: COOKIE, sockets, memfd, nested });
                }
            }
        }
    }
    all
}

const COOKIE: ExecCookie = ExecCookie::new(0x1234_5678_9abc_def0);
