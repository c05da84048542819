//! Seccomp filters of the rings: from named groups of system calls to programs that the kernel runs before each call.
//!
//! The road: [`groups`] and [`checks`] (tables: what, from which ring on, why) and the launch's [`Options`] give a
//! [`policy::Policy`], one answer for each number and argument case; [`tree`] or [`denylist`] compiles it; [`Filters`]
//! is the stack of programs to load. Everything here is pure: loading is the launcher's single system call per program.
//!
//! Two compilers. Our own range tree takes every policy: R2's and R3's allow-lists and R1's wider deny-list are one
//! program each of under 150 instructions (R3 with access to models: 163), loaded in about 50 us of CPU, where a list takes 1,000 instructions and 400
//! us. The crate seccompiler makes the list of what no ring may ever do: it is R0's filter (with a short tree beside it
//! for the answers that seccompiler can't give) and the first of R1's two, so that in the rings without an allow-list
//! no mistake in our compiler opens the kernel. And it is the reference: tests hold both compilers, for all four rings,
//! to the policy's own plain answer on every number, ABI and argument case.
//!
//! What no filter here can do, because it doesn't see what a pointer points to: tell one path, address or pid from
//! another. Where a ring's promise needs that, mounts, Landlock and namespaces keep it. Two neighbours of the exec
//! rules stay the mounts' job as well: `ld.so PROGRAM` (an mmap, not an exec; noexec mounts stop it), and
//! /proc/self/fd/N of ordinary files (a path rule sees the file; noexec mounts stop it). Memory files are closed here
//! ([`Memfd`]).

pub mod asks;
pub mod builtin;
pub mod checks;
pub mod denylist;
pub mod describe;
pub mod error;
pub mod groups;
pub mod interpret;
pub mod options;
pub mod policy;
pub mod program;
pub mod syscalls;
pub mod tree;

mod bpf;
mod leaf;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use describe::{Description, describe};
pub use error::Error;
pub use interpret::Verdict;
pub use options::{EXEC_FD, ExecCookie, Memfd, Names, Nested, Notify, Options, Sockets};
pub use policy::Call;
pub use program::Program;
pub use syscalls::Arch;

use crate::ring::Ring;

/// Reads the tables that a policy is made of, for whoever will be forked from this process and makes one.
pub(crate) fn read_tables() {
    if let Some(arch) = Arch::native() {
        let _read = arch.calls().next().and_then(|(_, name)| groups::of(name));
    }
}

/// The programs of a ring, in the order to load them: the kernel runs all and takes the most restrictive answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Filters {
    programs: Vec<Program>,
}

impl Filters {
    /// Builds the filters of a ring. Pure; some hundred microseconds, so once per plan and not per launch.
    ///
    /// # Errors
    /// [`Error::SocketsTooWide`] when R1 to R3 are asked to have every socket family; else only what a bug in the
    /// tables could bring about.
    pub fn for_ring(ring: Ring, options: &Options) -> Result<Filters, Error> {
        if options.sockets == Sockets::Any && ring != Ring::R0 {
            return Err(Error::SocketsTooWide { ring, sockets: options.sockets });
        }
        let policy = builtin::policy(ring, options);
        let programs = match ring {
            Ring::R0 => denylist::compile(&policy)?,
            Ring::R1 => {
                let mut programs = denylist::refusals(&builtin::never(options))?;
                programs.push(tree::compile(&policy)?);
                programs
            }
            Ring::R2 | Ring::R3 => vec![tree::compile(&policy)?],
        };
        Ok(Filters { programs })
    }

    /// The programs, in the order to load them (a listener is that of the last: it asks for whatever the others ask): each as it
    /// is ([`Program::as_sock_filters`]) by seccomp(SECCOMP_SET_MODE_FILTER), after no_new_privs and Landlock, as the last
    /// step before the launch's exec. In R2 and R3 that must be `execveat(exec_fd, "", argv, envp, AT_EMPTY_PATH,
    /// exec_cookie)`, six arguments by raw syscall.
    #[must_use]
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// Instructions of all programs together.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.programs.iter().map(Program::instructions).sum()
    }
}
