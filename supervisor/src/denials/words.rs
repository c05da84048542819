//! What was tried, in words: the argument that a filter looked at, by its name in the man pages.
//!
//! A filter sees registers. Those that hold a number with a name are shown by that name; pointers say nothing to anybody and are left
//! out. So a path can never be told from a refused call, and that is said instead of guessed.

use std::fmt::Write as _;

use agt_rings::names;

// linux/sched.h
const CLONE_FLAGS: [(u64, &str); 8] = [
    (0x0000_8000, "CLONE_PARENT"),
    (0x0002_0000, "CLONE_NEWNS"),
    (0x0200_0000, "CLONE_NEWCGROUP"),
    (0x0400_0000, "CLONE_NEWUTS"),
    (0x0800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
];
/// In the byte that `clone` has its exit signal in: `unshare` and `setns` alone.
const CLONE_NEWTIME: (u64, &str) = (0x80, "CLONE_NEWTIME");

// linux/socket.h
const FAMILIES: [(u64, &str); 17] = [
    (0, "AF_UNSPEC"),
    (1, "AF_UNIX"),
    (2, "AF_INET"),
    (4, "AF_IPX"),
    (5, "AF_APPLETALK"),
    (9, "AF_X25"),
    (10, "AF_INET6"),
    (15, "AF_KEY"),
    (16, "AF_NETLINK"),
    (17, "AF_PACKET"),
    (29, "AF_CAN"),
    (30, "AF_TIPC"),
    (31, "AF_BLUETOOTH"),
    (38, "AF_ALG"),
    (40, "AF_VSOCK"),
    (43, "AF_SMC"),
    (44, "AF_XDP"),
];
const KINDS: [(u64, &str); 6] = [
    (1, "SOCK_STREAM"),
    (2, "SOCK_DGRAM"),
    (3, "SOCK_RAW"),
    (4, "SOCK_RDM"),
    (5, "SOCK_SEQPACKET"),
    (10, "SOCK_PACKET"),
];
/// The type without SOCK_CLOEXEC and SOCK_NONBLOCK.
const KIND: u64 = 0xf;

// asm-generic/ioctls.h
const IOCTLS: [(u64, &str); 3] = [(0x5412, "TIOCSTI"), (0x541c, "TIOCLINUX"), (0x5423, "TIOCSETD")];
// linux/fcntl.h
const FCNTLS: [(u64, &str); 2] = [(1024, "F_SETLEASE"), (1026, "F_NOTIFY")];
// linux/prctl.h
const PRCTLS: [(u64, &str); 10] = [
    (7, "PR_GET_KEEPCAPS"),
    (8, "PR_SET_KEEPCAPS"),
    (22, "PR_SET_SECCOMP"),
    (24, "PR_CAPBSET_DROP"),
    (35, "PR_SET_MM"),
    (36, "PR_SET_CHILD_SUBREAPER"),
    (47, "PR_CAP_AMBIENT"),
    (52, "PR_SET_SPECULATION_CTRL"),
    (59, "PR_SET_SYSCALL_USER_DISPATCH"),
    (62, "PR_SCHED_CORE"),
];

const RENAME_WHITEOUT: u64 = 1 << 2;
const AT_EMPTY_PATH: u64 = 0x1000;
const MFD_EXEC: u64 = 0x10;
const NEW_LISTENER: u64 = 1 << 3;

/// The low half of a register: what the kernel reads of an `int`.
fn low(register: u64) -> u64 {
    register & u64::from(u32::MAX)
}

fn named(table: &[(u64, &'static str)], value: u64) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == value).map(|(_, name)| *name)
}

fn named_or_number(table: &[(u64, &'static str)], value: u64, what: &str) -> String {
    named(table, value).map_or_else(|| format!("{what} {value}"), str::to_owned)
}

/// The flags of `table` that are set; `None` when there is none.
fn flags(table: &[(u64, &'static str)], value: u64) -> Option<String> {
    let mut text = String::new();
    for (_, name) in table.iter().filter(|(bit, _)| value & bit != 0) {
        let _ = write!(text, "{}{name}", if text.is_empty() { "" } else { "|" });
    }
    (!text.is_empty()).then_some(text)
}

fn mode(value: u64) -> Option<String> {
    (value & 0o6000 != 0).then(|| format!("mode {:04o}", value & 0o7777))
}

fn device(value: u64) -> Option<String> {
    match value & 0o170_000 {
        0o20_000 => Some("a character device".to_owned()),
        0o60_000 => Some("a block device".to_owned()),
        _ => mode(value),
    }
}

/// The argument that tells what a call was about, where there is one.
#[must_use]
pub fn argument(call: &str, args: &[u64; 6]) -> Option<String> {
    let arg = |index: usize| low(args[index]);
    match call {
        "socket" => {
            let protocol = if arg(2) == 0 { String::new() } else { format!(", protocol {}", arg(2)) };
            let family = named_or_number(&FAMILIES, arg(0), "family");
            Some(format!("{family}, {}{protocol}", named_or_number(&KINDS, arg(1) & KIND, "type")))
        }
        "socketpair" => {
            let family = named_or_number(&FAMILIES, arg(0), "family");
            Some(format!("{family}, {}", named_or_number(&KINDS, arg(1) & KIND, "type")))
        }
        "clone" => flags(&CLONE_FLAGS, arg(0)).or_else(|| Some("a new process".to_owned())),
        "unshare" | "setns" => {
            let value = if call == "unshare" { arg(0) } else { arg(1) };
            flags(&[&CLONE_FLAGS[..], &[CLONE_NEWTIME]].concat(), value)
        }
        "ioctl" => Some(named_or_number(&IOCTLS, arg(1), "request")),
        "fcntl" => Some(named_or_number(&FCNTLS, arg(1), "command")),
        "prctl" => Some(named_or_number(&PRCTLS, arg(0), "option")),
        "personality" => Some(format!("{:#x}", arg(0))),
        "prlimit64" if arg(0) != 0 => Some(format!("of process {}", arg(0))),
        "renameat2" if arg(4) & RENAME_WHITEOUT != 0 => Some("RENAME_WHITEOUT".to_owned()),
        "execveat" if arg(4) & AT_EMPTY_PATH != 0 => Some("AT_EMPTY_PATH".to_owned()),
        "seccomp" if arg(1) & NEW_LISTENER != 0 => Some("SECCOMP_FILTER_FLAG_NEW_LISTENER".to_owned()),
        "memfd_create" if arg(1) & MFD_EXEC != 0 => Some("MFD_EXEC".to_owned()),
        "memfd_create" => Some("without MFD_NOEXEC_SEAL".to_owned()),
        "open" => mode(arg(2)),
        "openat" => mode(arg(3)),
        "creat" | "chmod" | "fchmod" => mode(arg(1)),
        "fchmodat" | "fchmodat2" => mode(arg(2)),
        "mknod" => device(arg(1)),
        "mknodat" => device(arg(2)),
        _ => None,
    }
}

/// The name of an errno that a ring answers with.
#[must_use]
pub fn errno(number: i32) -> String {
    match number {
        libc::EPERM => "EPERM".to_owned(),
        libc::ENOENT => "ENOENT".to_owned(),
        libc::EACCES => "EACCES".to_owned(),
        libc::EROFS => "EROFS".to_owned(),
        libc::ENOSYS => "ENOSYS".to_owned(),
        libc::ECONNREFUSED => "ECONNREFUSED".to_owned(),
        other => format!("errno {other}"),
    }
}

/// Why a rule keeps a name from being made.
#[must_use]
pub fn name_rule(rule: &str) -> String {
    match rule {
        names::PROTECTED_PATH => {
            "what stood at that path at the launch was protected, and nothing else may come into its place".to_owned()
        }
        names::STANDING_REPOSITORY => {
            "a git repository stood there at the launch: it gets no hooks or settings that it lacked then, and nothing may come into its place"
                .to_owned()
        }
        names::PATH_TOO_LONG => {
            "the path is too long for the kernel to tell, and a protected name could come about by it".to_owned()
        }
        names::WORKDIR_MOVED => {
            "the workdir would come to lie elsewhere, and the patterns of `files.deny` are about what is in it".to_owned()
        }
        rule => match rule.strip_prefix(names::DENIED) {
            Some(pattern) => format!("the agent's own file denies that name (`{pattern}`)"),
            None => format!(
                "`{rule}` is never an agent's to make: it could change the agent's own rules, or run as its user later"
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_with_a_name_is_told_by_it_and_a_pointer_is_not_told() {
        let of = |call: &str, args: [u64; 3]| argument(call, &[args[0], args[1], args[2], 0, 0, 0]);
        assert_eq!(of("socket", [40, 1 | 0o2_000_000, 0]).as_deref(), Some("AF_VSOCK, SOCK_STREAM"));
        assert_eq!(of("socket", [99, 77, 6]).as_deref(), Some("family 99, type 13, protocol 6"));
        assert_eq!(of("unshare", [0x1000_0080, 0, 0]).as_deref(), Some("CLONE_NEWUSER|CLONE_NEWTIME"));
        assert_eq!(of("clone", [0x11, 0, 0]).as_deref(), Some("a new process"));
        assert_eq!(of("ioctl", [3, 0x5412 | 7 << 32, 0x7fff_0000]).as_deref(), Some("TIOCSTI"));
        assert_eq!(of("fchmod", [3, 0o4755, 0]).as_deref(), Some("mode 4755"));
        assert_eq!(of("mknod", [0x7fff_0000, 0o60_644, 0]).as_deref(), Some("a block device"));
        assert_eq!(of("mount", [0x7fff_0000, 0x7fff_1000, 0x7fff_2000]), None);
    }
}
