//! What was really enforced, as data: a list of protections, each with the mechanisms that hold it or the reason it is missing.
//!
//! A ring is a list of protections, and any mechanism that suffices on this kernel may meet one. So the report names both: the
//! protection is the promise, the mechanism is the fact.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::LaunchPath;
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
    /// The controller that a limit lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<MissingController>,
}

/// A cgroup controller that is missing: what all three limits lack for one and the same reason is said once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingController {
    /// Its name.
    pub name: String,
    /// The kernel's word for it, or the host's state.
    pub because: String,
}

/// Gaps in words, one entry a cause.
#[must_use]
pub fn in_words(gaps: &[Gap]) -> Vec<String> {
    let because = |gap: &Gap| gap.controller.as_ref().map(|missing| missing.because.clone());
    let mut words = Vec::new();
    for (index, gap) in gaps.iter().enumerate() {
        let Some(cause) = because(gap) else {
            words.push(format!("{} {}", gap.protection, gap.reason));
            continue;
        };
        if gaps[..index].iter().any(|earlier| because(earlier).as_ref() == Some(&cause)) {
            continue;
        }
        let same: Vec<&Gap> = gaps[index..].iter().filter(|gap| because(gap).as_ref() == Some(&cause)).collect();
        if let [only] = same[..] {
            words.push(format!("{} {}", only.protection, only.reason));
            continue;
        }
        let protections: Vec<&str> = same.iter().map(|gap| gap.protection.name()).collect();
        let names: Vec<&str> = same.iter().filter_map(|gap| gap.controller.as_ref()).map(|c| c.name.as_str()).collect();
        words.push(format!("{} need the cgroup controllers {} ({cause})", protections.join(", "), names.join(", ")));
    }
    words
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
    /// How its processes are made.
    #[serde(default)]
    pub launch: LaunchPath,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(protection: Protection, controller: Option<(&str, &str)>) -> Gap {
        let reason = controller.map_or("is missing".to_owned(), |(name, because)| format!("needs {name} ({because})"));
        let controller =
            controller.map(|(name, because)| MissingController { name: name.to_owned(), because: because.to_owned() });
        Gap { protection, reason, help: String::new(), controller }
    }

    #[test]
    fn one_cause_is_said_once_and_different_ones_apart() {
        let all = [
            gap(Protection::FileRead, None),
            gap(Protection::MemoryLimit, Some(("memory", "none here"))),
            gap(Protection::CpuLimit, Some(("cpu", "not delegated"))),
            gap(Protection::TaskLimit, Some(("pids", "none here"))),
        ];
        assert_eq!(
            in_words(&all),
            [
                "file-read is missing",
                "memory-limit, task-limit need the cgroup controllers memory, pids (none here)",
                "cpu-limit needs cpu (not delegated)",
            ]
        );
    }
}
