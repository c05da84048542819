//! System call names and numbers of the architectures we build filters for, as data.
//!
//! The kernel's numbers are an ABI that only ever grows, so the tables are checked-in text, not a build step: a filter
//! for aarch64 can be built and tested on x86_64, and a call that this machine's headers don't know yet still has a
//! name. They are what the script `generate` beside this file prints from a kernel's headers, and a test compares them with this
//! machine's. What stands in no table is unknown to every ring and answered with ENOSYS, as a kernel without it would.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// A system call ABI that filters can be built for. The others (i386, x32, 32-bit ARM) are refused by every filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit x86, without x32.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// Both architectures.
    pub const ALL: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

    /// The architecture that this program was built for, if filters exist for it.
    #[must_use]
    pub fn native() -> Option<Arch> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Arch::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Arch::Aarch64)
        } else {
            None
        }
    }

    /// `AUDIT_ARCH_*` of linux/audit.h: what the kernel puts into `seccomp_data.arch` (ELF machine | 64-bit | LE).
    #[must_use]
    pub fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xc000_003e,
            Arch::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of the call with this name, if the architecture has it (`open` and `fork` are missing on aarch64).
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        self.table().by_name.get(name).copied()
    }

    /// The name of the call with this number.
    #[must_use]
    pub fn name(self, number: u32) -> Option<&'static str> {
        self.table().by_number.get(&number).copied()
    }

    /// Every call, by number.
    pub fn calls(self) -> impl Iterator<Item = (u32, &'static str)> {
        self.table().by_number.iter().map(|(number, name)| (*number, *name))
    }

    fn table(self) -> &'static Table {
        static X86_64: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("x86_64.tbl")));
        static AARCH64: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("aarch64.tbl")));
        match self {
            Arch::X86_64 => &X86_64,
            Arch::Aarch64 => &AARCH64,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        })
    }
}

struct Table {
    by_number: BTreeMap<u32, &'static str>,
    by_name: BTreeMap<&'static str, u32>,
}

impl Table {
    /// Reads `NUMBER NAME` lines; `#` starts a comment line. The text is part of the program, so a bad line is a bug
    /// that the first test finds.
    fn parse(text: &'static str) -> Table {
        let mut table = Table { by_number: BTreeMap::new(), by_name: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (number, name) = line.split_once(' ').expect("a checked-in table line is `NUMBER NAME`");
            let number = number.parse().expect("a checked-in table line starts with a number");
            let taken = table.by_number.insert(number, name).is_some() | table.by_name.insert(name, number).is_some();
            assert!(!taken, "{line}: a number or name stands twice in its table");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! same_as_libc {
        ($($name:ident)*) => {{
            let arch = Arch::native().unwrap();
            $(assert_eq!(
                arch.number(&stringify!($name)[4..]).map(i64::from),
                Some(libc::$name),
                stringify!($name)
            );)*
        }};
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn numbers_are_libcs_wherever_libc_has_one() {
        same_as_libc!(SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_brk
            SYS_rt_sigaction SYS_rt_sigreturn SYS_ioctl SYS_pread64 SYS_sched_yield SYS_mremap SYS_shmget SYS_dup
            SYS_nanosleep SYS_getpid SYS_socket SYS_connect SYS_accept SYS_sendto SYS_socketpair SYS_clone SYS_execve
            SYS_exit SYS_wait4 SYS_kill SYS_uname SYS_semget SYS_msgget SYS_fcntl SYS_flock SYS_getcwd SYS_fchmod
            SYS_umask SYS_ptrace SYS_syslog SYS_setuid SYS_setgroups SYS_capset SYS_personality SYS_statfs
            SYS_setpriority SYS_mlock SYS_vhangup SYS_pivot_root SYS_prctl SYS_adjtimex SYS_chroot SYS_acct SYS_mount
            SYS_umount2 SYS_swapon SYS_reboot SYS_init_module SYS_quotactl SYS_gettid SYS_setxattr SYS_futex
            SYS_io_setup SYS_restart_syscall SYS_timer_create SYS_clock_settime SYS_exit_group SYS_tgkill SYS_mbind
            SYS_mq_open SYS_waitid SYS_add_key SYS_keyctl SYS_openat SYS_mkdirat SYS_mknodat SYS_fchmodat SYS_unshare
            SYS_splice SYS_vmsplice SYS_utimensat SYS_fallocate SYS_accept4 SYS_pipe2 SYS_perf_event_open
            SYS_fanotify_init SYS_prlimit64 SYS_name_to_handle_at SYS_open_by_handle_at SYS_clock_adjtime SYS_setns
            SYS_process_vm_readv SYS_kcmp SYS_finit_module SYS_renameat2 SYS_seccomp SYS_getrandom SYS_memfd_create
            SYS_kexec_file_load SYS_bpf SYS_execveat SYS_userfaultfd SYS_membarrier SYS_pkey_alloc SYS_statx SYS_rseq
            SYS_pidfd_send_signal SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_open_tree
            SYS_move_mount SYS_fsopen SYS_pidfd_open SYS_clone3 SYS_close_range SYS_openat2 SYS_pidfd_getfd
            SYS_faccessat2 SYS_process_madvise SYS_epoll_pwait2 SYS_mount_setattr SYS_quotactl_fd
            SYS_landlock_create_ruleset SYS_memfd_secret SYS_process_mrelease SYS_futex_waitv
            SYS_set_mempolicy_home_node SYS_mseal);
    }

    /// What the script prints for an architecture; none where it can't run.
    fn generated(arch: Arch) -> Option<Vec<(u32, String)>> {
        let crate_dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let script = std::path::Path::new(&crate_dir).join("src/seccomp/syscalls/generate");
        let output = std::process::Command::new("sh").arg(script).arg(arch.to_string()).output().expect("run sh");
        let text = String::from_utf8(output.stdout).expect("names are ASCII");
        let lines = text.lines().map(|line| line.split_once(' ').expect("`NUMBER NAME`"));
        let calls: Vec<_> = lines.map(|(number, name)| (number.parse().expect("a number"), name.to_owned())).collect();
        // No compiler, or no headers of the C library.
        if calls.is_empty() { None } else { Some(calls) }
    }

    #[test]
    fn tables_are_what_the_kernels_headers_generate() {
        for arch in Arch::ALL {
            // An ARM machine has asm-generic's table under both names; x86's own header is on x86 alone.
            if arch == Arch::X86_64 && Arch::native() != Some(Arch::X86_64) {
                continue;
            }
            let Some(generated) = generated(arch) else {
                assert!(std::env::var_os("AGT_FORBID_SKIPS").is_none(), "skips are forbidden: no kernel headers here");
                eprintln!("SKIPPED: no kernel headers or no C compiler here");
                return;
            };
            let last = generated.iter().map(|(number, _)| *number).max().expect("not empty");
            assert!(last >= 440, "{arch}: headers from before Linux 5.10");
            // Given out years after the numbers above them (Linux 6.11 and 6.18), so that older headers lack them.
            let filled_later = [("uretprobe", 335), ("uprobe", 336)];
            let ours: Vec<(u32, String)> = arch
                .calls()
                .filter(|(number, name)| *number <= last && !filled_later.contains(&(*name, *number)))
                .map(|(number, name)| (number, name.to_owned()))
                .collect();
            let theirs: Vec<(u32, String)> = generated
                .into_iter()
                .filter(|(number, name)| *number <= 469 && !filled_later.contains(&(name.as_str(), *number)))
                .collect();
            assert_eq!(ours, theirs, "{arch}");
        }
    }

    #[test]
    fn tables_are_complete_to_linux_6_18() {
        // Assigned ranges of both ABIs; what lies between was never a call of a 64-bit ABI.
        let ranges = [(Arch::X86_64, vec![0..337, 424..470]), (Arch::Aarch64, vec![0..244, 260..295, 424..470])];
        for (arch, assigned) in ranges {
            let expected: Vec<u32> = assigned.into_iter().flatten().collect();
            assert_eq!(arch.calls().map(|(number, _)| number).collect::<Vec<_>>(), expected, "{arch}");
        }
    }

    #[test]
    fn calls_newer_than_the_old_tables_have_the_same_number_everywhere() {
        for (number, name) in Arch::X86_64.calls().filter(|(number, _)| *number >= 424) {
            assert_eq!(Arch::Aarch64.number(name), Some(number), "{name}");
        }
    }

    #[test]
    fn aarch64_spot_checks() {
        for (name, number) in [
            ("openat", 56),
            ("read", 63),
            ("mount", 40),
            ("clone", 220),
            ("execve", 221),
            ("execveat", 281),
            ("ptrace", 117),
            ("bpf", 280),
            ("socket", 198),
            ("prlimit64", 261),
            ("newfstatat", 79),
            ("kexec_file_load", 294),
            ("file_setattr", 469),
        ] {
            assert_eq!(Arch::Aarch64.number(name), Some(number), "{name}");
            assert_eq!(Arch::Aarch64.name(number), Some(name));
        }
        for absent in ["open", "fork", "vfork", "mknod", "chmod", "iopl", "modify_ldt"] {
            assert_eq!(Arch::Aarch64.number(absent), None, "{absent}");
        }
    }
}
