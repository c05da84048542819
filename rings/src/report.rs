//! What was really enforced, as data: a list of protections, each with the mechanisms that hold it or the reason it is missing.
//!
//! A ring is a list of protections, and any mechanism that suffices on this kernel may meet one. So the report names both: the
//! protection is the promise, the mechanism is the fact.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ring::Ring;

/// Something that a ring promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// The supervisor's state, sockets and keys can't be seen.
    HiddenSupervisor,
    /// Nothing outside the allowed trees can be read.
    FileRead,
    /// Nothing outside the declared trees can be created, changed, truncated or removed.
    FileWrite,
    /// No chmod, chown, utime or xattr on anything outside.
    FileMetadata,
    /// HOME, /tmp and /dev/shm are the agent's own and end with it.
    PrivateFiles,
    /// The agent shares its uid with nobody and with no file outside.
    OwnIdentity,
    /// No process outside can be seen, signalled, traced or changed.
    ProcessIsolation,
    /// No System V or POSIX IPC object outside can be reached.
    IpcIsolation,
    /// No network but the listeners that the supervisor serves.
    NetworkIsolation,
    /// No network at all.
    NoNetwork,
    /// One program, threads only.
    SingleProgram,
    /// System calls outside the ring's list are refused.
    Syscalls,
    /// No capability but what the operator's file names for R0, and no way to gain one.
    Privileges,
    /// Nothing of the supervisor's environment or descriptors is inherited.
    CleanStart,
    /// Memory is capped for the whole tree.
    MemoryLimit,
    /// CPU time is capped for the whole tree.
    CpuLimit,
    /// The number of tasks is capped for the whole tree.
    TaskLimit,
    /// Nothing of the tree outlives the supervisor.
    DiesWithSupervisor,
}

impl Protection {
    /// The name used in reports, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protection::HiddenSupervisor => "hidden-supervisor",
            Protection::FileRead => "file-read",
            Protection::FileWrite => "file-write",
            Protection::FileMetadata => "file-metadata",
            Protection::PrivateFiles => "private-files",
            Protection::OwnIdentity => "own-identity",
            Protection::ProcessIsolation => "process-isolation",
            Protection::IpcIsolation => "ipc-isolation",
            Protection::NetworkIsolation => "network-isolation",
            Protection::NoNetwork => "no-network",
            Protection::SingleProgram => "single-program",
            Protection::Syscalls => "syscalls",
            Protection::Privileges => "privileges",
            Protection::CleanStart => "clean-start",
            Protection::MemoryLimit => "memory-limit",
            Protection::CpuLimit => "cpu-limit",
            Protection::TaskLimit => "task-limit",
            Protection::DiesWithSupervisor => "dies-with-supervisor",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a protection can't be had here, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The promise that can't be kept.
    pub protection: Protection,
    /// What is missing, with the kernel's own word for it.
    pub reason: String,
    /// One thing that helps.
    pub help: String,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// The promise.
    pub protection: Protection,
    /// The mechanisms that hold it, by name. Never empty.
    pub by: Vec<String>,
}

/// What a launch enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The ring that was asked for.
    pub ring: Ring,
    /// Promises kept.
    pub enforced: Vec<Enforced>,
    /// Promises not kept; only under `enforcement: best-effort`, else the launch is refused.
    pub gaps: Vec<Gap>,
}

impl Report {
    /// Whether the ring is enforced as specified.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.gaps.is_empty()
    }

    /// `full` or `partial`, as tables and metrics show it.
    #[must_use]
    pub fn extent(&self) -> &'static str {
        if self.is_full() { "full" } else { "partial" }
    }
}
