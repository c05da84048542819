//! The four rings as data: the one place where their defaults stand. The operator's file may change the limits.

use crate::report::Protection;
use crate::ring::Ring;
use crate::spec::Limits;

const MIB: u64 = 1024 * 1024;

/// What a ring sees of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The host's own tree, minus what the supervisor hides.
    Host,
    /// A root built from read-only binds: what is not listed is not there.
    Built,
}

/// One ring's defaults.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Which ring.
    pub ring: Ring,
    /// The file system view.
    pub view: View,
    /// Resource limits that hold unless the operator says otherwise.
    pub limits: Limits,
    /// Open files a process may have (RLIMIT_NOFILE, soft and hard).
    pub open_files: u64,
    /// Room in the private HOME, /tmp and /dev/shm together. It counts as the agent's memory.
    pub private_bytes: u64,
    /// Paths read besides the system runtime of every built root.
    pub system_read: &'static [&'static str],
    /// What the ring promises.
    pub protections: &'static [Protection],
}

use Protection as P;

const DEFINITIONS: [Definition; 4] = [
    Definition {
        ring: Ring::R0,
        view: View::Host,
        limits: Limits { memory_bytes: None, cpu_millis: None, tasks: None },
        open_files: 65_536,
        private_bytes: 0,
        system_read: &[],
        protections: &[
            P::HiddenSupervisor,
            P::ProcessIsolation,
            P::Syscalls,
            P::Privileges,
            P::CleanStart,
            P::DiesWithSupervisor,
        ],
    },
    Definition {
        ring: Ring::R1,
        view: View::Built,
        limits: Limits { memory_bytes: Some(4096 * MIB), cpu_millis: Some(2000), tasks: Some(512) },
        open_files: 16_384,
        private_bytes: 1024 * MIB,
        system_read: &["/etc", "/opt", "/srv", "/var/lib"],
        protections: &[
            P::HiddenSupervisor,
            P::FileRead,
            P::FileWrite,
            P::FileMetadata,
            P::PrivateFiles,
            P::OwnIdentity,
            P::ProcessIsolation,
            P::IpcIsolation,
            P::NetworkIsolation,
            P::Syscalls,
            P::Privileges,
            P::CleanStart,
            P::MemoryLimit,
            P::CpuLimit,
            P::TaskLimit,
            P::DiesWithSupervisor,
        ],
    },
    Definition {
        ring: Ring::R2,
        view: View::Built,
        limits: Limits { memory_bytes: Some(1024 * MIB), cpu_millis: Some(1000), tasks: Some(256) },
        open_files: 4096,
        private_bytes: 512 * MIB,
        system_read: &[],
        protections: &[
            P::HiddenSupervisor,
            P::FileRead,
            P::FileWrite,
            P::FileMetadata,
            P::PrivateFiles,
            P::OwnIdentity,
            P::ProcessIsolation,
            P::IpcIsolation,
            P::NetworkIsolation,
            P::Syscalls,
            P::Privileges,
            P::CleanStart,
            P::MemoryLimit,
            P::CpuLimit,
            P::TaskLimit,
            P::DiesWithSupervisor,
        ],
    },
    Definition {
        ring: Ring::R3,
        view: View::Built,
        limits: Limits { memory_bytes: Some(512 * MIB), cpu_millis: Some(500), tasks: Some(64) },
        open_files: 1024,
        private_bytes: 256 * MIB,
        system_read: &[],
        protections: &[
            P::HiddenSupervisor,
            P::FileRead,
            P::FileWrite,
            P::FileMetadata,
            P::PrivateFiles,
            P::OwnIdentity,
            P::ProcessIsolation,
            P::IpcIsolation,
            P::NoNetwork,
            P::SingleProgram,
            P::Syscalls,
            P::Privileges,
            P::CleanStart,
            P::MemoryLimit,
            P::CpuLimit,
            P::TaskLimit,
            P::DiesWithSupervisor,
        ],
    },
];

/// The definition of a ring.
#[must_use]
pub fn definition(ring: Ring) -> &'static Definition {
    &DEFINITIONS[usize::from(ring.number())]
}

/// System paths that every built root shows read-only, where they exist. Links are recreated as links.
pub const RUNTIME_TREES: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/sys/devices/system/cpu"];

/// What of /etc an ordinary runtime reads: name resolution, certificates, locale, the dynamic linker. An allow-list,
/// because /etc also holds what services believe to be private.
pub const RUNTIME_ETC: [&str; 20] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/inputrc",
    "/etc/locale.alias",
    "/etc/terminfo",
];

/// Where the agent's private HOME stands inside a built root.
pub const HOME: &str = "/home/agent";

/// The descriptor number by which R3 executes its one program: above the hard limit that the agent then lives under, so that
/// nobody can ever own a descriptor of that number again.
pub const EXEC_FD: u32 = 4095;

/// First uid of the range from which agents get uids of their own: above every range that systemd's UIDS-GIDS document
/// assigns, below 2^31.
pub const OWN_ID_BASE: u32 = 0x7000_0000;
/// How many there are.
pub const OWN_ID_COUNT: u32 = 0x0100_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_less_privileged_ring_never_gets_more() {
        for pair in DEFINITIONS.windows(2) {
            let (more, less) = (&pair[0], &pair[1]);
            assert!(more.ring.is_more_privileged_than(less.ring));
            assert!(less.open_files <= more.open_files);
            let limit = |l: Option<u64>| l.unwrap_or(u64::MAX);
            assert!(limit(less.limits.memory_bytes) < limit(more.limits.memory_bytes));
            assert!(limit(less.limits.tasks.map(u64::from)) < limit(more.limits.tasks.map(u64::from)));
            assert!(limit(less.limits.cpu_millis.map(u64::from)) < limit(more.limits.cpu_millis.map(u64::from)));
            for protection in more.protections {
                let kept = less.protections.contains(protection)
                    || (*protection == P::NetworkIsolation && less.protections.contains(&P::NoNetwork));
                assert!(kept, "{} drops {protection}", less.ring);
            }
        }
    }

    #[test]
    fn exec_descriptor_lies_above_the_open_file_limit_of_r3() {
        assert!(u64::from(EXEC_FD) >= definition(Ring::R3).open_files);
    }
}
