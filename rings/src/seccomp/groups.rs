//! Every system call stands in exactly one named group; a group says from which ring down it is refused, and why.
//!
//! Written this way a less privileged ring can't be wider than a more privileged one, a call can't be forgotten (a
//! test counts both tables against the groups), and the reasons can be printed next to what they explain. Calls that
//! are fine or not depending on their arguments stand in the group of their kind and get a check in
//! [`checks`](super::checks). What programs really use was measured: the union over twenty agents and MCP servers is
//! 136 calls, none of them io_uring, ptrace, bpf, userfaultfd or keyctl.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Serialize;

use super::options::{Nested, Sockets};
use super::policy::Refusal;
use crate::ring::Ring;

/// Calls of one kind, with one answer and one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Short name, for docs and `status`.
    pub name: &'static str,
    /// Why rings allow it, or why they stop doing so.
    pub why: &'static str,
    /// From which ring on it is refused.
    pub refused: Refused,
    /// Names of the calls, with spaces between; some are missing on one architecture.
    pub calls: &'static str,
}

impl Group {
    /// The names of its calls.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.calls.split_ascii_whitespace()
    }

    /// Whether the call with this name is one of it.
    #[must_use]
    pub fn contains(&self, call: &str) -> bool {
        self.names().any(|name| name == call)
    }
}

/// What a sandbox inside a ring is built with, where [`Nested::Allowed`] says so: namespaces of its own (clone's flags have a check),
/// and mounts in them. Not setns, chroot or the newer mount calls: bwrap, the one that agents bring, needs none of them.
pub const NESTED: &[&str] = &["unshare", "sethostname", "mount", "umount2", "pivot_root"];

/// Whether a call that its group refuses is open all the same to an agent that may build sandboxes.
#[must_use]
pub fn opened_for_nested(call: &str, ring: Ring, nested: Nested) -> bool {
    nested == Nested::Allowed && matches!(ring, Ring::R1 | Ring::R2) && NESTED.contains(&call)
}

/// From which ring on a group is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// In no ring: nothing runs without it.
    Never,
    /// In this ring and the less privileged ones.
    From(Ring),
    /// The same, answered with ENOSYS so that the caller takes the older way.
    AsMissingFrom(Ring),
}

impl Refused {
    /// How `ring` turns the group down, if it does.
    #[must_use]
    pub fn in_ring(self, ring: Ring) -> Option<Refusal> {
        match self {
            Refused::Never => None,
            Refused::From(first) => (!ring.is_more_privileged_than(first)).then_some(Refusal::NotPermitted),
            Refused::AsMissingFrom(first) => (!ring.is_more_privileged_than(first)).then_some(Refusal::NoSuchCall),
        }
    }
}

/// The group of a call, by name.
#[must_use]
pub fn of(call: &str) -> Option<&'static Group> {
    // Asked for every call of an architecture whenever a policy is made, and one is made at each launch.
    static BY_CALL: LazyLock<BTreeMap<&'static str, &'static Group>> =
        LazyLock::new(|| GROUPS.iter().flat_map(|group| group.names().map(move |name| (name, group))).collect());
    BY_CALL.get(call).copied()
}

/// Calls that make a socket or call by one: refused as a whole where there are no sockets but pairs.
const NAMED_SOCKETS: &str = "named-sockets";
/// Calls by which a socket is called by others: refused as a whole where sockets only call, too.
const ANSWERING_SOCKETS: &str = "answering-sockets";

impl Group {
    /// Whether a launch's choice of sockets refuses all of it.
    #[must_use]
    pub fn is_closed_by(&self, sockets: Sockets) -> bool {
        match sockets {
            Sockets::Any | Sockets::Loopback | Sockets::Unix => false,
            Sockets::Calls => self.name == ANSWERING_SOCKETS,
            Sockets::UnixPairs => self.name == ANSWERING_SOCKETS || self.name == NAMED_SOCKETS,
        }
    }
}

/// All groups, from what everything needs to what nothing gets.
pub const GROUPS: &[Group] = &[
    Group {
        name: "descriptors",
        why: "reads, writes and waits on what is already open",
        refused: Refused::Never,
        calls: "read write close lseek pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 dup dup2 dup3 \
                fcntl flock pipe pipe2 poll ppoll select pselect6 ioctl sendfile copy_file_range splice tee fsync \
                fdatasync sync_file_range fadvise64 readahead fallocate ftruncate close_range",
    },
    Group {
        name: "files",
        why: "names, makes and changes files; which ones is for the mounts and Landlock to say",
        refused: Refused::Never,
        calls: "open openat creat stat fstat lstat newfstatat statx access faccessat faccessat2 getdents getdents64 \
                getcwd chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir unlink unlinkat link linkat symlink \
                symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 umask truncate utime utimes futimesat \
                utimensat statfs fstatfs getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr \
                listxattrat file_getattr sync syncfs",
    },
    Group {
        name: "memory",
        why: "a program's own address space; W+X stays possible, since Node, Bun and other JITs map it",
        refused: Refused::Never,
        calls: "mmap mprotect munmap brk mremap msync madvise mincore mlock munlock mlock2 mlockall munlockall \
                pkey_mprotect pkey_alloc pkey_free mseal membarrier map_shadow_stack",
    },
    Group {
        name: "threads",
        why: "threads, locks and the ends of threads and processes; clone's flags are checked",
        refused: Refused::Never,
        calls: "clone exit exit_group futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list \
                get_robust_list set_tid_address gettid rseq arch_prctl prctl sched_yield sched_getaffinity \
                sched_setaffinity getcpu",
    },
    Group {
        name: "process-facts",
        why: "asks about oneself and the system, waits for children, lowers one's own limits",
        refused: Refused::Never,
        calls: "getpid getppid getpgid getpgrp getsid getuid geteuid getgid getegid getresuid getresgid getgroups \
                capget getrusage getrlimit setrlimit prlimit64 uname sysinfo times getpriority sched_getscheduler \
                sched_getparam sched_getattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval \
                ioprio_get personality wait4 waitid getrandom",
    },
    Group {
        name: "signals",
        why: "a program's own signals; whom a signal can reach is for the PID namespace to say",
        refused: Refused::Never,
        calls: "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigqueueinfo \
                rt_tgsigqueueinfo sigaltstack signalfd signalfd4 kill tkill tgkill pause restart_syscall",
    },
    Group {
        name: "time",
        why: "reads clocks and sets timers",
        refused: Refused::Never,
        calls: "nanosleep clock_gettime clock_getres clock_nanosleep gettimeofday time alarm getitimer setitimer \
                timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime \
                timerfd_gettime",
    },
    Group {
        name: "events",
        why: "event loops and file watches",
        refused: Refused::Never,
        calls: "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 inotify_init \
                inotify_init1 inotify_add_watch inotify_rm_watch",
    },
    Group {
        name: "socket-pairs",
        why: "talks over sockets that one has: event loops wake themselves through a pair (Python's asyncio)",
        refused: Refused::Never,
        calls: "socketpair getsockname getpeername setsockopt getsockopt sendto recvfrom sendmsg recvmsg sendmmsg \
                recvmmsg shutdown",
    },
    Group {
        name: NAMED_SOCKETS,
        why: "makes sockets and calls addresses; which families is checked, whom they reach is for the network namespace \
              to say",
        refused: Refused::Never,
        calls: "socket connect",
    },
    Group {
        name: ANSWERING_SOCKETS,
        why: "gives sockets an address and answers those who call it; who can call is for the network namespace and the \
              mounts to say. Sockets that are there for calls to models have no use for it",
        refused: Refused::Never,
        calls: "bind listen accept accept4",
    },
    Group {
        name: "launch",
        why: "the one exec that starts a program from a descriptor; checked in R2 and R3",
        refused: Refused::Never,
        calls: "execveat",
    },
    Group {
        name: "trampolines",
        why: "made by the kernel's own trampolines while an administrator traces the program; any other caller gets a \
              signal or EPERM from the kernel",
        refused: Refused::Never,
        calls: "uretprobe uprobe",
    },
    Group {
        name: "processes",
        why: "children and other programs: R3 is one program, threads only",
        refused: Refused::From(Ring::R3),
        calls: "fork vfork execve setpgid setsid pidfd_open pidfd_send_signal",
    },
    Group {
        name: "identity",
        why: "changes of uid, gid and owner: harmless without capabilities, and programs that drop privileges call \
              them, but one program of one uid has no use for them",
        refused: Refused::From(Ring::R3),
        calls: "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset chown fchown \
                lchown fchownat",
    },
    Group {
        name: "scheduling",
        why: "priorities and scheduling classes: build tools and servers lower their own",
        refused: Refused::From(Ring::R3),
        calls: "setpriority sched_setparam sched_setscheduler sched_setattr ioprio_set",
    },
    Group {
        name: "special-files",
        why: "fifos and sockets in the file tree (device nodes are refused by a check)",
        refused: Refused::From(Ring::R3),
        calls: "mknod mknodat",
    },
    Group {
        name: "attributes",
        why: "writes extended attributes: package managers and copies do",
        refused: Refused::From(Ring::R3),
        calls: "setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat",
    },
    Group {
        name: "nameless-files",
        why: "files in memory, useful to browsers and Bun; executable ones would walk around every rule on paths, so \
              R2 checks the flags",
        refused: Refused::From(Ring::R3),
        calls: "memfd_create",
    },
    Group {
        name: "page-gifts",
        why: "gives pages to a pipe instead of copying them, with a history of kernel bugs",
        refused: Refused::From(Ring::R3),
        calls: "vmsplice",
    },
    Group {
        name: "self-restriction",
        why: "further seccomp filters and Landlock rules can only narrow, and tools sandbox their parsers with them",
        refused: Refused::From(Ring::R3),
        calls: "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    },
    Group {
        name: "system-facts",
        why: "the mounts and security modules around one, which /proc shows as well",
        refused: Refused::From(Ring::R3),
        calls: "statmount listmount lsm_get_self_attr lsm_list_modules",
    },
    Group {
        name: "shared-ipc",
        why: "System V IPC and POSIX queues are named outside the file tree, where no file rule reaches; no agent \
              measured uses them",
        refused: Refused::From(Ring::R2),
        calls: "shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink \
                mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    },
    Group {
        name: "rare-memory",
        why: "placement of pages on machines with several memories, memory hidden from the kernel, the page cache's \
              state: attack surface and side channels that libraries do without",
        refused: Refused::From(Ring::R2),
        calls: "migrate_pages move_pages remap_file_pages memfd_secret cachestat",
    },
    Group {
        name: "memory-policy",
        why: "where pages are placed on machines with several memories. ENOSYS is what libnuma takes for \"there is only one\"; \
              programs ask at their start",
        refused: Refused::AsMissingFrom(Ring::R2),
        calls: "mbind set_mempolicy get_mempolicy set_mempolicy_home_node",
    },
    Group {
        name: "file-internals",
        why: "names of files that outlive renames and masks, and flags such as the quota's project number",
        refused: Refused::From(Ring::R2),
        calls: "name_to_handle_at file_setattr",
    },
    Group {
        name: "behind-pointers",
        why: "their flags stand in memory, where a filter can't look. ENOSYS makes callers take clone and openat, \
              whose flags are checked; EPERM crashes Node",
        refused: Refused::AsMissingFrom(Ring::R1),
        calls: "clone3 openat2",
    },
    Group {
        name: "kernel-aio",
        why: "its contexts come out of one pool for the whole machine (fs.aio-max-nr), which one agent can empty for every \
              database on it. ENOSYS makes callers take their threads",
        refused: Refused::AsMissingFrom(Ring::R1),
        calls: "io_setup io_destroy io_getevents io_submit io_cancel io_pgetevents",
    },
    Group {
        name: "namespaces",
        why: "a new user namespace gives all capabilities within it, and with them most kernel bugs of recent years",
        refused: Refused::From(Ring::R1),
        calls: "unshare setns sethostname setdomainname",
    },
    Group {
        name: "mounts",
        why: "the root that the ring was given is made of mounts",
        refused: Refused::From(Ring::R1),
        calls: "mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick \
                mount_setattr",
    },
    Group {
        name: "other-processes",
        why: "memory, descriptors and registers of other processes: what one agent process may do, all may do",
        refused: Refused::From(Ring::R1),
        calls: "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise process_mrelease",
    },
    Group {
        name: "kernel-windows",
        why: "counters, watches and page-fault handlers that exploits use to time and stop the kernel",
        refused: Refused::From(Ring::R1),
        calls: "perf_event_open userfaultfd fanotify_init fanotify_mark lookup_dcookie modify_ldt lsm_set_self_attr",
    },
    Group {
        name: "gone",
        why: "removed from the kernel or kept for programs of the last century",
        refused: Refused::From(Ring::R1),
        calls: "uselib ustat sysfs _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg \
                afs_syscall tuxcall security vserver epoll_ctl_old epoll_wait_old set_thread_area get_thread_area",
    },
    Group {
        name: "io-uring",
        why: "its operations never pass a seccomp filter, so every other rule would be void. EPERM, not a signal: \
              Node and Bun probe for it and go on without",
        refused: Refused::From(Ring::R0),
        calls: "io_uring_setup io_uring_enter io_uring_register",
    },
    Group {
        name: "kernel-code",
        why: "puts code into the kernel",
        refused: Refused::From(Ring::R0),
        calls: "kexec_load kexec_file_load init_module finit_module delete_module bpf",
    },
    Group {
        name: "keyrings",
        why: "keys are bound to users and sessions, not to files or namespaces: another agent's or the user's secrets",
        refused: Refused::From(Ring::R0),
        calls: "add_key request_key keyctl",
    },
    Group {
        name: "clock",
        why: "one clock for the whole machine: deadlines, certificates and audit depend on it",
        refused: Refused::From(Ring::R0),
        calls: "settimeofday clock_settime clock_adjtime adjtimex",
    },
    Group {
        name: "machine",
        why: "acts on the machine as a whole, its log and its ports",
        refused: Refused::From(Ring::R0),
        calls: "reboot swapon swapoff acct syslog quotactl quotactl_fd iopl ioperm vhangup",
    },
    Group {
        name: "file-handles",
        why: "opens files by number, past every path, mount and mask",
        refused: Refused::From(Ring::R0),
        calls: "open_by_handle_at",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Arch;
    use super::*;

    #[test]
    fn every_call_of_every_architecture_stands_in_exactly_one_group() {
        for arch in Arch::ALL {
            for (number, name) in arch.calls() {
                let groups: Vec<_> = GROUPS.iter().filter(|group| group.contains(name)).map(|g| g.name).collect();
                assert_eq!(groups.len(), 1, "{arch} {number} {name}: {groups:?}");
            }
        }
    }

    #[test]
    fn groups_name_only_calls_that_exist_somewhere() {
        for group in GROUPS {
            for call in group.names() {
                assert!(Arch::ALL.iter().any(|arch| arch.number(call).is_some()), "{} {call}", group.name);
            }
            assert!(!group.why.is_empty() && !group.calls.is_empty());
        }
        let names: BTreeSet<_> = GROUPS.iter().map(|group| group.name).collect();
        assert_eq!(names.len(), GROUPS.len());
    }

    #[test]
    fn a_group_refused_in_a_ring_is_refused_in_all_below() {
        for group in GROUPS {
            let refused: Vec<bool> = Ring::ALL.iter().map(|ring| group.refused.in_ring(*ring).is_some()).collect();
            assert!(refused.is_sorted(), "{}: {refused:?}", group.name);
        }
    }

    #[test]
    fn what_no_measured_agent_uses_and_escapes_are_made_of_is_refused_from_ring_one_on() {
        for call in ["io_uring_setup", "ptrace", "bpf", "userfaultfd", "keyctl", "mount", "unshare", "pidfd_getfd"] {
            assert!(of(call).is_some_and(|group| group.refused.in_ring(Ring::R1).is_some()), "{call}");
        }
    }
}
