//! Kinds of denials: a closed set, for metrics and for the safety SLO.
//!
//! The kind follows from the filter's own groups, the gravity from what a success would have given. Low is what programs probe for
//! and go on without; one `critical` or three `high` ones in an hour trip the safety SLO, so those words are kept for calls that no
//! program makes by accident.

use agt_rings::seccomp::groups;
use agt_sre::sli::{ClassId, Severity};
use serde::{Deserialize, Serialize};

/// What kind of thing was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Code into the kernel, files past every path.
    Kernel,
    /// The machine as a whole: its clock, swap, ports, log.
    Machine,
    /// Mounts.
    Mounts,
    /// New or other namespaces.
    Namespaces,
    /// Memory, descriptors, limits of other processes.
    OtherProcesses,
    /// Windows into the kernel: counters, watches, page faults.
    KernelWindows,
    /// Kernel keyrings.
    Keys,
    /// System V and POSIX IPC.
    Ipc,
    /// io_uring and kernel aio.
    IoUring,
    /// Families and kinds of sockets.
    Sockets,
    /// Kinds of files, their owners and attributes.
    Files,
    /// Names that a pattern keeps from the agent.
    Names,
    /// Further programs and processes.
    Programs,
    /// Everything else.
    Other,
    /// Destinations.
    Network,
}

/// The words of all classes, as they label series.
pub const WORDS: [&str; 15] = [
    "kernel",
    "machine",
    "mounts",
    "namespaces",
    "other_processes",
    "kernel_windows",
    "keys",
    "ipc",
    "io_uring",
    "sockets",
    "files",
    "names",
    "programs",
    "other",
    "network",
];

impl Class {
    /// All of them, in the order of [`WORDS`].
    pub const ALL: [Class; 15] = [
        Class::Kernel,
        Class::Machine,
        Class::Mounts,
        Class::Namespaces,
        Class::OtherProcesses,
        Class::KernelWindows,
        Class::Keys,
        Class::Ipc,
        Class::IoUring,
        Class::Sockets,
        Class::Files,
        Class::Names,
        Class::Programs,
        Class::Other,
        Class::Network,
    ];

    /// The class of a refused call.
    #[must_use]
    pub fn of_call(call: &str) -> Class {
        let Some(group) = groups::of(call) else { return Class::Other };
        match group.name {
            "kernel-code" | "file-handles" => Class::Kernel,
            "machine" | "clock" => Class::Machine,
            "mounts" => Class::Mounts,
            "namespaces" => Class::Namespaces,
            "other-processes" => Class::OtherProcesses,
            "kernel-windows" => Class::KernelWindows,
            "keyrings" => Class::Keys,
            "shared-ipc" => Class::Ipc,
            "io-uring" | "kernel-aio" => Class::IoUring,
            "named-sockets" | "answering-sockets" | "socket-pairs" => Class::Sockets,
            "files" | "file-internals" | "special-files" | "attributes" | "identity" | "nameless-files" => Class::Files,
            "processes" | "launch" => Class::Programs,
            _ => match call {
                "clone" | "clone3" => Class::Programs,
                "prlimit64" => Class::OtherProcesses,
                _ => Class::Other,
            },
        }
    }

    /// The word of metrics and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        WORDS[self as usize]
    }

    /// Its number for the safety SLO.
    #[must_use]
    pub fn id(self) -> ClassId {
        u8::try_from(self as usize + 1).ok().and_then(ClassId::new).unwrap_or(ClassId::OTHER)
    }
}

/// How grave it is that this call was tried. Words of the request that a filter looked at count for `ioctl` alone: there the same
/// call types into a terminal or asks for its size.
#[must_use]
pub fn severity(call: &str) -> Severity {
    match call {
        "kexec_load" | "kexec_file_load" | "init_module" | "finit_module" | "open_by_handle_at" | "iopl" | "ioperm" => {
            Severity::Critical
        }
        "bpf" | "delete_module" | "reboot" | "swapon" | "swapoff" | "acct" | "ioctl" => Severity::High,
        "chroot" | "syslog" | "quotactl" | "quotactl_fd" => Severity::Low,
        _ => match Class::of_call(call) {
            Class::Mounts => Severity::High,
            Class::Kernel
            | Class::Machine
            | Class::Namespaces
            | Class::OtherProcesses
            | Class::KernelWindows
            | Class::Keys
            | Class::Sockets
            | Class::Network
            | Class::Names => Severity::Medium,
            Class::Ipc | Class::IoUring | Class::Files | Class::Programs | Class::Other => Severity::Low,
        },
    }
}

/// How grave it is that the gateway refused a destination for this reason (`agt_gateway::policy::Reason::word`). Not to be listed is what
/// happens to every program that looks for updates; the supervisor's own ports nobody asks for by accident.
#[must_use]
pub fn severity_of_network(reason: &str) -> Severity {
    match reason {
        "supervisor-port" => Severity::High,
        "denied" | "zone" | "own-address" | "sni-mismatch" | "host-mismatch" | "ech" => Severity::Medium,
        _ => Severity::Low,
    }
}

/// Whether programs make such a call at their start just to see whether it is there: known and counted, but no news.
#[must_use]
pub fn is_probing(call: &str) -> bool {
    Class::of_call(call) == Class::IoUring
        || groups::of(call).is_some_and(|group| matches!(group.name, "rare-memory" | "memory-policy"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_class_has_its_own_word_and_number() {
        let words: BTreeSet<&str> = Class::ALL.iter().map(|class| class.word()).collect();
        assert_eq!(words.len(), Class::ALL.len());
        for (index, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, index);
            assert_ne!(class.id(), ClassId::OTHER);
            assert_eq!(serde_json::json!(class), class.word());
        }
    }

    #[test]
    fn what_programs_probe_for_never_trips_anything() {
        for group in groups::GROUPS {
            for call in group.names().filter(|call| is_probing(call)) {
                assert_eq!(severity(call), Severity::Low, "{call}");
            }
        }
        // Chromium and coding agents try these for a sandbox of their own, and go on without.
        for call in ["unshare", "clone", "clone3", "chroot", "ptrace", "socket"] {
            assert!(severity(call) < Severity::High, "{call}");
        }
    }

    #[test]
    fn every_call_that_a_ring_refuses_as_a_whole_has_a_class() {
        let known = [
            "gone",
            "rare-memory",
            "memory-policy",
            "scheduling",
            "page-gifts",
            "self-restriction",
            "system-facts",
            "behind-pointers",
        ];
        for group in groups::GROUPS.iter().filter(|group| group.refused != groups::Refused::Never) {
            for call in group.names() {
                let class = Class::of_call(call);
                assert!(class != Class::Other || known.contains(&group.name), "{} {call}", group.name);
            }
        }
    }
}
