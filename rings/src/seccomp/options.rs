//! What a launch can choose about its filter, within what the ring allows.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Arch;
use super::error::Error;
use crate::ring::Ring;

/// The descriptor that the launcher starts programs from. Above every RLIMIT_NOFILE that a ring gives, so that an agent
/// can't come to own it.
pub const EXEC_FD: u32 = 4095;

/// Which sockets can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sockets {
    /// Every family: R0 only.
    Any,
    /// AF_UNIX, TCP and UDP, and the routing netlink that getifaddrs needs: only for a network namespace of its own.
    Loopback,
    /// AF_UNIX only: R3's control socket. Others must be out of sight, by mounts and by a network namespace (abstract
    /// names), since a filter can't see whom `connect` calls.
    Unix,
    /// AF_UNIX and TCP over IPv4, which only call: none is given an address or listened at, and few of their options can be set. R3
    /// with access to models, only for a network namespace of its own in which nothing else listens.
    Calls,
    /// AF_UNIX pairs only, no `socket`, no `connect`: holds without any namespace.
    UnixPairs,
}

impl Sockets {
    /// What the ring has where its namespaces can be had.
    #[must_use]
    pub fn for_ring(ring: Ring) -> Sockets {
        match ring {
            Ring::R0 => Sockets::Any,
            Ring::R1 | Ring::R2 => Sockets::Loopback,
            Ring::R3 => Sockets::Unix,
        }
    }
}

/// Which memory files (memfd_create) R2 can make. Either way none can be executed, not even by /proc/self/fd/N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memfd {
    /// Only those asked for with MFD_NOEXEC_SEAL. Holds on every kernel; before Linux 6.3, which doesn't know the flag,
    /// there are none.
    #[default]
    MustBeSealed,
    /// All but those asked for with MFD_EXEC: only where the agent's PID namespace has vm.memfd_noexec set to 1 or 2,
    /// so that the kernel adds the seal by itself (Linux 6.3).
    SealedByNamespace,
}

/// Which calls go to a listener beside the agent. The agent's filter is the same wall either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// None: a refused call has its errno from the filter itself.
    #[default]
    Off,
    /// What the ring refuses with EPERM: it gets the same errno from the listener, which tells of it. What programs try in order
    /// to find out what a kernel has (every ENOSYS) stays with the filter.
    Refusals,
    /// Also opens, execs and connects, which then go on: to see what a program does.
    Learn,
}

/// Who makes a name that is not there yet, in R1 and R2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Names {
    /// The kernel, as mounts and Landlock allow.
    #[default]
    Free,
    /// The listener: it looks at the name first. Only calls that can make one go there; an open without O_CREAT stays what it is.
    Asked,
}

/// Whether an agent may build sandboxes of its own (bwrap and the like), in R1 and R2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nested {
    /// No namespace, no mount.
    #[default]
    Refused,
    /// The calls of [`super::groups::NESTED`], and clone's namespace flags: an operator's decision, because they open much of the
    /// kernel. R3 and R0 know nothing of it.
    Allowed,
}

/// The secret that the launcher puts into the sixth argument register of its one `execveat`.
///
/// The kernel ignores that register and clears all of them on exec; the filter compares all 64 bits. Whoever can't read
/// the launcher's memory can't repeat the call. It takes 64 random bits, made once per supervisor. It is part of the
/// compiled program: don't write programs where an agent could read them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecCookie(u64);

impl ExecCookie {
    /// From 64 random bits (getrandom(2)).
    #[must_use]
    pub const fn new(random: u64) -> ExecCookie {
        ExecCookie(random)
    }

    /// The sixth argument of the launcher's `execveat`.
    #[must_use]
    pub fn secret(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ExecCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExecCookie(hidden)")
    }
}

/// What a launch chooses about its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The ABI: the filter kills what comes in by another.
    pub arch: Arch,
    /// The descriptor of the program, for the launch's `execveat`.
    pub exec_fd: u32,
    /// The secret that goes with it.
    pub exec_cookie: ExecCookie,
    /// Which sockets can be made.
    pub sockets: Sockets,
    /// Which memory files R2 can make.
    pub memfd: Memfd,
    /// What a listener hears of.
    #[serde(default)]
    pub notify: Notify,
    /// Who makes new names.
    #[serde(default)]
    pub names: Names,
    /// Whether it may build sandboxes of its own.
    #[serde(default)]
    pub nested: Nested,
}

impl Options {
    /// What `ring` has by default on this machine, all its namespaces given.
    ///
    /// # Errors
    /// [`Error::UnsupportedArch`] on a processor without tables.
    pub fn new(ring: Ring, exec_cookie: ExecCookie) -> Result<Options, Error> {
        Ok(Options {
            arch: Arch::native().ok_or(Error::UnsupportedArch)?,
            exec_fd: EXEC_FD,
            exec_cookie,
            sockets: Sockets::for_ring(ring),
            memfd: Memfd::default(),
            notify: Notify::Off,
            names: Names::Free,
            nested: Nested::default(),
        })
    }

    /// Whether a filter with these options needs a listener, without which some of its calls answer ENOSYS.
    #[must_use]
    pub fn need_listener(&self) -> bool {
        self.notify != Notify::Off || self.names != Names::Free
    }
}
