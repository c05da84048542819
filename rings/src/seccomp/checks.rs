//! Calls that are fine or not depending on their arguments: what is looked at, in which rings, and why.
//!
//! A filter sees registers, not what they point to. So there is a check where the danger shows in a number (flags,
//! modes, families, request codes); where it hides behind a pointer the whole call answers ENOSYS (clone3, openat2),
//! and where the number tells nothing (a path, a pid) mounts, Landlock and namespaces have to hold instead.

use super::options::{Memfd, Nested, Options, Sockets};
use super::policy::{Check, Clause, Condition, Test};
use crate::ring::Ring;

/// Looks at one argument position of some calls.
#[derive(Debug, Clone, Copy)]
pub struct ArgumentRule {
    /// The calls that are looked at: the arguments stand at the same place in each.
    pub calls: &'static [&'static str],
    /// The most privileged ring that has this check.
    pub from: Ring,
    /// The least privileged ring that has it; those below refuse the call or have a stricter check.
    pub until: Ring,
    /// What is refused, in words.
    pub refuses: &'static str,
    /// What a success would give.
    pub why: &'static str,
    /// The check, if the options leave something to look at.
    pub check: fn(&Options) -> Option<Check>,
}

impl ArgumentRule {
    /// Whether `ring` has this check.
    #[must_use]
    pub fn applies_in(&self, ring: Ring) -> bool {
        !ring.is_more_privileged_than(self.from) && !self.until.is_more_privileged_than(ring)
    }
}

// ioctl requests, asm-generic/ioctls.h: the same on both architectures.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const TIOCSETD: u32 = 0x5423;

// linux/sched.h. CLONE_NEWTIME lies in clone's exit-signal byte: only clone3 and unshare know it.
const CLONE_THREAD: u32 = 0x0001_0000;
const CLONE_PARENT: u32 = 0x0000_8000;
const CLONE_NEW: u32 = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

// asm-generic/fcntl.h and linux/stat.h.
const O_CREAT: u32 = 0o100;
const O_TMPFILE_BIT: u32 = 0o20_000_000;
const SET_ID: u32 = 0o6000;
/// The bit that S_IFCHR and S_IFBLK have and fifos, sockets and plain files don't (S_IFLNK has it: never valid here).
const DEVICE_BIT: u32 = 0o20_000;

const AT_EMPTY_PATH: u32 = 0x1000;
// linux/fcntl.h and linux/fs.h.
const F_SETLEASE: u32 = 1024;
const F_NOTIFY: u32 = 1026;
const RENAME_WHITEOUT: u32 = 1 << 2;
const MFD_NOEXEC_SEAL: u32 = 0x8;
const MFD_EXEC: u32 = 0x10;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 1 << 3;

// linux/socket.h and linux/in.h. SOCK_CLOEXEC and SOCK_NONBLOCK lie above the type's four bits.
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const SOCK_TYPE: u32 = 0xf;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_SEQPACKET: u32 = 5;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const NETLINK_ROUTE: u32 = 0;

// asm-generic/socket.h and linux/tcp.h: what clients of HTTP set.
const SOL_SOCKET: u32 = 1;
/// SO_SNDTIMEO: up to here reuse, buffers, keep-alive, lingering, time-outs; filters on packets and the like come after it. Of TCP
/// delay, keep-alive, time-outs (and repair, which takes a capability); upper-layer protocols come after it.
const LAST_PLAIN_OPTION: u32 = 21;

// linux/prctl.h.
const PR_SET_MM: u32 = 35;
const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;
const PR_SCHED_CORE: u32 = 62;
const PR_LAST_KNOWN: u32 = 76;
const PR_SET_VMA: u32 = 0x5356_4d41;
/// Up to here: parent-death signal and dumpable flag.
const PR_LAST_OF_DEATH_AND_DUMP: u32 = 4;
/// Between these two, both left out: no_new_privs, the address for set_tid_address, huge pages.
const PR_BEFORE_NO_NEW_PRIVS: u32 = 37;
const PR_LAST_OF_HUGE_PAGES: u32 = 42;
const PR_SET_NAME: u32 = 15;
const PR_GET_NAME: u32 = 16;
const PR_CAPBSET_READ: u32 = 23;

fn arg(index: u8, test: Test) -> Condition {
    Condition::new(index, test)
}

fn refuse_when(clauses: impl Into<Vec<Clause>>) -> Option<Check> {
    Some(Check::RefuseWhen(clauses.into()))
}

fn refuse_unless(clauses: impl Into<Vec<Clause>>) -> Option<Check> {
    Some(Check::RefuseUnless(clauses.into()))
}

/// The launch itself: this descriptor and this secret in the sixth register.
fn launch_exec(options: &Options) -> [Condition; 2] {
    [
        arg(0, Test::one_of(&[options.exec_fd])),
        // The kernel takes five arguments and ignores the sixth, the filter sees it.
        arg(5, Test::Whole(options.exec_cookie.secret())),
    ]
}

fn new_socket(options: &Options) -> Option<Check> {
    let unix = vec![arg(0, Test::one_of(&[AF_UNIX]))];
    match options.sockets {
        Sockets::Any => None,
        Sockets::Loopback => refuse_unless([
            unix,
            vec![
                arg(0, Test::one_of(&[AF_INET, AF_INET6])),
                arg(1, Test::OneOf { mask: SOCK_TYPE, values: vec![SOCK_STREAM, SOCK_DGRAM] }),
                arg(2, Test::one_of(&[0, IPPROTO_TCP, IPPROTO_UDP])),
            ],
            vec![arg(0, Test::one_of(&[AF_NETLINK])), arg(2, Test::one_of(&[NETLINK_ROUTE]))],
        ]),
        Sockets::Calls => refuse_unless([
            unix,
            vec![
                arg(0, Test::one_of(&[AF_INET])),
                arg(1, Test::OneOf { mask: SOCK_TYPE, values: vec![SOCK_STREAM] }),
                arg(2, Test::one_of(&[0, IPPROTO_TCP])),
            ],
        ]),
        // With pairs alone `socket` is refused as a whole.
        Sockets::Unix | Sockets::UnixPairs => refuse_unless([unix]),
    }
}

fn new_socket_pair(options: &Options) -> Option<Check> {
    match options.sockets {
        Sockets::Any | Sockets::Loopback | Sockets::Unix | Sockets::Calls => None,
        // A datagram socket, paired or not, can be pointed at any other by address; connected kinds can't.
        Sockets::UnixPairs => refuse_unless([vec![
            arg(0, Test::one_of(&[AF_UNIX])),
            arg(1, Test::OneOf { mask: SOCK_TYPE, values: vec![SOCK_STREAM, SOCK_SEQPACKET] }),
        ]]),
    }
}

fn socket_option(options: &Options) -> Option<Check> {
    if options.sockets != Sockets::Calls {
        return None;
    }
    refuse_unless([vec![arg(1, Test::one_of(&[SOL_SOCKET, IPPROTO_TCP])), arg(2, Test::AtMost(LAST_PLAIN_OPTION))]])
}

fn creating_open(flags: u8) -> Option<Check> {
    refuse_when([vec![arg(flags, Test::AnyBit(O_CREAT | O_TMPFILE_BIT)), arg(flags + 1, Test::AnyBit(SET_ID))]])
}

const SET_ID_FILES: &str = "a mode with the setuid or setgid bit";
const SET_ID_WHY: &str = "the workspace is mapped onto its owner's uid: on disk such a file belongs to the user, and \
                          whoever runs it outside becomes the user. (mkdir is free: the kernel drops both bits there)";

/// All argument checks. Each refuses with EPERM.
pub const ARGUMENT_RULES: &[ArgumentRule] = &[
    ArgumentRule {
        calls: &["ioctl"],
        from: Ring::R0,
        until: Ring::R0,
        refuses: "TIOCSTI, TIOCLINUX",
        why: "types into the operator's terminal, to be run by the shell there after the agent has ended",
        check: |_| refuse_when([vec![arg(1, Test::one_of(&[TIOCSTI, TIOCLINUX]))]]),
    },
    ArgumentRule {
        calls: &["ioctl"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: "TIOCSTI, TIOCLINUX, TIOCSETD",
        why: "types into a terminal, drives the console, loads line disciplines (kernel modules)",
        check: |_| refuse_when([vec![arg(1, Test::one_of(&[TIOCSTI, TIOCLINUX, TIOCSETD]))]]),
    },
    ArgumentRule {
        calls: &["clone"],
        from: Ring::R1,
        until: Ring::R2,
        refuses: "CLONE_NEW* (where nested sandboxes are not allowed), CLONE_PARENT",
        why: "new namespaces (a user namespace gives all capabilities within), children that count as the launcher's",
        check: |options| {
            let namespaces = if options.nested == Nested::Allowed { 0 } else { CLONE_NEW };
            refuse_when([vec![arg(0, Test::AnyBit(namespaces | CLONE_PARENT))]])
        },
    },
    ArgumentRule {
        calls: &["clone"],
        from: Ring::R3,
        until: Ring::R3,
        refuses: "everything but a thread (CLONE_THREAD, no CLONE_NEW*)",
        why: "a second process: R3 is one program, threads only",
        check: |_| {
            let thread = vec![arg(0, Test::AnyBit(CLONE_THREAD)), arg(0, Test::NoBit(CLONE_NEW | CLONE_PARENT))];
            refuse_unless([thread])
        },
    },
    ArgumentRule {
        calls: &["socket"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: "families, types and protocols outside the plan's sockets",
        why: "vsock, Bluetooth and others are bound to no network namespace; AF_ALG, raw, packet, MPTCP, SMC and most \
              of netlink are kernel attack surface that agents have no use for",
        check: new_socket,
    },
    ArgumentRule {
        calls: &["socketpair"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: "with pairs only: everything but AF_UNIX stream and seqpacket",
        why: "a paired datagram socket can still send to any socket by its name",
        check: new_socket_pair,
    },
    ArgumentRule {
        calls: &["setsockopt"],
        from: Ring::R3,
        until: Ring::R3,
        refuses: "with sockets that only call: options but buffers, time-outs, keep-alive and the like",
        why: "filters on packets, upper-layer protocols, IP options and repair are kernel attack surface that a client of \
              HTTP has no use for",
        check: socket_option,
    },
    ArgumentRule {
        calls: &["open"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: SET_ID_FILES,
        why: SET_ID_WHY,
        check: |_| creating_open(1),
    },
    ArgumentRule {
        calls: &["openat"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: SET_ID_FILES,
        why: SET_ID_WHY,
        check: |_| creating_open(2),
    },
    ArgumentRule {
        calls: &["fcntl"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: "F_SETLEASE, F_NOTIFY",
        why: "a lease on a file that one may read holds up everybody who opens it for writing, for 45 seconds each time; a \
              directory notice tells what others do there",
        check: |_| refuse_when([vec![arg(1, Test::one_of(&[F_SETLEASE, F_NOTIFY]))]]),
    },
    ArgumentRule {
        calls: &["renameat2"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: "RENAME_WHITEOUT",
        why: "leaves a device node behind, which no mknod may make",
        check: |_| refuse_when([vec![arg(4, Test::AnyBit(RENAME_WHITEOUT))]]),
    },
    ArgumentRule {
        calls: &["creat", "chmod", "fchmod"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: SET_ID_FILES,
        why: SET_ID_WHY,
        check: |_| refuse_when([vec![arg(1, Test::AnyBit(SET_ID))]]),
    },
    ArgumentRule {
        calls: &["fchmodat", "fchmodat2"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: SET_ID_FILES,
        why: SET_ID_WHY,
        check: |_| refuse_when([vec![arg(2, Test::AnyBit(SET_ID))]]),
    },
    ArgumentRule {
        calls: &["mknod"],
        from: Ring::R1,
        until: Ring::R2,
        refuses: "device nodes, a mode with the setuid or setgid bit",
        why: "a device node is the device; a setuid file is its owner",
        check: |_| refuse_when([vec![arg(1, Test::AnyBit(DEVICE_BIT | SET_ID))]]),
    },
    ArgumentRule {
        calls: &["mknodat"],
        from: Ring::R1,
        until: Ring::R2,
        refuses: "device nodes, a mode with the setuid or setgid bit",
        why: "a device node is the device; a setuid file is its owner",
        check: |_| refuse_when([vec![arg(2, Test::AnyBit(DEVICE_BIT | SET_ID))]]),
    },
    ArgumentRule {
        calls: &["personality"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: "everything but 0 and the query 0xffffffff",
        why: "turns off address randomisation, makes readable memory executable, takes old ABIs",
        check: |_| refuse_when([vec![arg(0, Test::none_of(&[0, u32::MAX]))]]),
    },
    ArgumentRule {
        calls: &["prctl"],
        from: Ring::R1,
        until: Ring::R1,
        refuses: "PR_SET_MM, PR_SCHED_CORE",
        why: "forges what /proc shows of oneself (command line, program), ties other processes to one's core",
        check: |_| refuse_when([vec![arg(0, Test::one_of(&[PR_SET_MM, PR_SCHED_CORE]))]]),
    },
    ArgumentRule {
        calls: &["prctl"],
        from: Ring::R2,
        until: Ring::R2,
        refuses: "PR_SET_MM, PR_SCHED_CORE, PR_SET_SYSCALL_USER_DISPATCH, options newer than Linux 6.12 but PR_SET_VMA",
        why: "forges what /proc shows of oneself, ties others to one's core, and what nobody has looked at yet",
        check: |_| {
            refuse_when([
                vec![arg(0, Test::one_of(&[PR_SET_MM, PR_SCHED_CORE, PR_SET_SYSCALL_USER_DISPATCH]))],
                vec![arg(0, Test::Above(PR_LAST_KNOWN)), arg(0, Test::none_of(&[PR_SET_VMA]))],
            ])
        },
    },
    ArgumentRule {
        calls: &["prctl"],
        from: Ring::R3,
        until: Ring::R3,
        refuses: "everything but parent-death signal, dumpable flag, names, no_new_privs, tid address, huge pages and \
                  the question for the bounding set",
        why: "what C libraries and runtimes set at their start: a dozen of the hundred options",
        check: |_| {
            refuse_unless([
                vec![arg(0, Test::AtMost(PR_LAST_OF_DEATH_AND_DUMP))],
                vec![arg(0, Test::Above(PR_BEFORE_NO_NEW_PRIVS)), arg(0, Test::AtMost(PR_LAST_OF_HUGE_PAGES))],
                vec![arg(0, Test::one_of(&[PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_SET_VMA]))],
            ])
        },
    },
    ArgumentRule {
        calls: &["prlimit64"],
        from: Ring::R1,
        until: Ring::R3,
        refuses: "another process than oneself (pid 0)",
        why: "changes limits of processes of the same uid outside, where no PID namespace hides them. (Priorities and \
              affinity take thread ids, so that only the PID namespace can hold them)",
        check: |_| refuse_when([vec![arg(0, Test::none_of(&[0]))]]),
    },
    ArgumentRule {
        calls: &["seccomp"],
        from: Ring::R1,
        until: Ring::R2,
        refuses: "SECCOMP_FILTER_FLAG_NEW_LISTENER",
        why: "a listener of one's own would stand in the place of the supervisor's and answer for its children",
        check: |_| refuse_when([vec![arg(1, Test::AnyBit(SECCOMP_FILTER_FLAG_NEW_LISTENER))]]),
    },
    ArgumentRule {
        calls: &["memfd_create"],
        from: Ring::R2,
        until: Ring::R2,
        refuses: "memory files that could be executed (without MFD_NOEXEC_SEAL, or with MFD_EXEC)",
        why: "a program that was never a file passes every rule on paths: noexec mounts and Landlock's EXECUTE",
        check: |options| match options.memfd {
            Memfd::MustBeSealed => refuse_when([vec![arg(1, Test::NoBit(MFD_NOEXEC_SEAL))]]),
            Memfd::SealedByNamespace => refuse_when([vec![arg(1, Test::AnyBit(MFD_EXEC))]]),
        },
    },
    ArgumentRule {
        calls: &["execveat"],
        from: Ring::R2,
        until: Ring::R2,
        refuses: "AT_EMPTY_PATH, except for the launch itself",
        why: "starts a program from a descriptor instead of a path (fexecve); programs that need it use \
              /proc/self/fd/N, which path rules see",
        check: |options| {
            let named = vec![arg(4, Test::NoBit(AT_EMPTY_PATH))];
            refuse_unless([named, launch_exec(options).to_vec()])
        },
    },
    ArgumentRule {
        calls: &["execveat"],
        from: Ring::R3,
        until: Ring::R3,
        refuses: "everything but the launch itself",
        why: "a second program. The descriptor alone doesn't hold: with an absolute path the kernel never looks at it, \
              so a secret in the unused sixth register, known to the launcher only, makes the launch unrepeatable",
        check: |options| refuse_unless([launch_exec(options).to_vec()]),
    },
];

/// The rules for one call in one ring.
pub fn of(call: &str, ring: Ring) -> impl Iterator<Item = &'static ArgumentRule> {
    ARGUMENT_RULES.iter().filter(move |rule| rule.applies_in(ring) && rule.calls.contains(&call))
}
