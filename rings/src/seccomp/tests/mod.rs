//! Tests of the filters as a whole: against the policies, and against the running kernel.
#![allow(clippy::unwrap_used)]

mod equality;
mod kernel;
mod promises;

use super::*;

/// Every combination of options that a ring can be launched with, on both architectures.
fn all_options(ring: Ring) -> Vec<Options> {
    let sockets: &[Sockets] = match ring {
        Ring::R0 => &[Sockets::Any, Sockets::Loopback, Sockets::Unix, Sockets::Calls, Sockets::UnixPairs],
        Ring::R1 | Ring::R2 | Ring::R3 => &[Sockets::Loopback, Sockets::Unix, Sockets::Calls, Sockets::UnixPairs],
    };
    let mut all = Vec::new();
    for arch in Arch::ALL {
        for &sockets in sockets {
            for memfd in [Memfd::MustBeSealed, Memfd::SealedByNamespace] {
                let notify = if ring == Ring::R0 { &[Notify::Off][..] } else { &NOTIFY };
                for (notify, names) in notify.iter().flat_map(|notify| NAMES.map(|names| (*notify, names))) {
                    all.extend([Nested::Refused, Nested::Allowed].map(|nested| Options {
                        arch,
                        exec_fd: EXEC_FD,
                        exec_cookie: COOKIE,
                        sockets,
                        memfd,
                        notify,
                        names,
                        nested,
                    }));
                }
            }
        }
    }
    all
}

const NOTIFY: [Notify; 3] = [Notify::Off, Notify::Refusals, Notify::Learn];
const NAMES: [Names; 2] = [Names::Free, Names::Asked];

const COOKIE: ExecCookie = ExecCookie::new(0x1234_5678_9abc_def0);
