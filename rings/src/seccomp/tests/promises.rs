//! What the rings promise, call by call, asked of the finished filters; and what they may cost.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::policy::{Decision, Notified, Rule};
use super::*;

const OK: Verdict = Verdict::Allow;
const EPERM: Verdict = Verdict::Errno(libc::EPERM as u16);
const ENOSYS: Verdict = Verdict::Errno(libc::ENOSYS as u16);
const NONE: [u64; 6] = [0; 6];

fn options(ring: Ring) -> Options {
    Options { arch: Arch::X86_64, ..Options::new(ring, COOKIE).unwrap() }
}

fn ask(ring: Ring, options: &Options, name: &str, args: [u64; 6]) -> Verdict {
    let number = options.arch.number(name).unwrap_or_else(|| panic!("no call {name}"));
    Filters::for_ring(ring, options).unwrap().decide(&Call::new(options.arch, number, args))
}

/// Asserts the answers of R0, R1, R2 and R3 under their default options.
fn in_each_ring(name: &str, args: [u64; 6], answers: [Verdict; 4]) {
    static RINGS: LazyLock<[Filters; 4]> =
        LazyLock::new(|| Ring::ALL.map(|ring| Filters::for_ring(ring, &options(ring)).unwrap()));
    let call = Call::new(Arch::X86_64, Arch::X86_64.number(name).unwrap(), args);
    for ((filters, ring), expected) in RINGS.iter().zip(Ring::ALL).zip(answers) {
        assert_eq!(filters.decide(&call), expected, "{ring} {name} {args:x?}");
    }
}

#[test]
fn filters_of_rings_two_and_three_have_at_most_150_instructions() {
    for ring in [Ring::R2, Ring::R3] {
        for options in all_options(ring) {
            let filters = Filters::for_ring(ring, &options).unwrap();
            assert_eq!(filters.programs().len(), 1);
            // R3 with other sockets than its own is no launch in full, and a launch to learn from is no ordinary one. With
            // access to models it looks at more.
            // Neither is one with sandboxes of its own.
            let full =
                (ring == Ring::R2 || options.sockets == Sockets::for_ring(ring)) && options.nested == Nested::Refused;
            let most = if full && options.notify != Notify::Learn { 150 } else { 160 };
            let most = if ring == Ring::R3 && options.sockets == Sockets::Calls { 175 } else { most };
            assert!(filters.instructions() <= most, "{ring} {options:?}: {}", filters.instructions());
        }
    }
}

#[test]
fn nested_sandboxes_open_their_calls_in_rings_one_and_two_and_nothing_else() {
    for ring in Ring::ALL {
        let allowed = Options { nested: Nested::Allowed, ..options(ring) };
        let (wide, narrow) = (builtin::policy(ring, &allowed), builtin::policy(ring, &options(ring)));
        let differ: BTreeSet<&str> = allowed
            .arch
            .calls()
            .filter(|(number, _)| wide.rules[number] != narrow.rules[number])
            .map(|(_, name)| name)
            .collect();
        let expected: BTreeSet<&str> = match ring {
            Ring::R1 | Ring::R2 => groups::NESTED.iter().copied().chain(["clone"]).collect(),
            Ring::R0 | Ring::R3 => BTreeSet::new(),
        };
        assert_eq!(differ, expected, "{ring}");
        if ring == Ring::R2 {
            let clone = |flags: u64| ask(ring, &allowed, "clone", [flags, 0, 0, 0, 0, 0]);
            assert_eq!((clone(0x7e02_0000 | 17), clone(0x8000)), (OK, EPERM));
            for call in ["setns", "chroot", "move_mount", "fsopen", "ptrace", "keyctl", "bpf"] {
                assert_eq!(ask(ring, &allowed, call, NONE), EPERM, "{call}");
            }
        }
    }
}

#[test]
fn no_number_takes_more_than_25_steps() {
    for ring in [Ring::R2, Ring::R3] {
        for notify in NOTIFY {
            let options = Options { notify, names: Names::Asked, ..options(ring) };
            let program = tree::compile(&builtin::policy(ring, &options)).unwrap();
            let steps = (0..1024).map(|number| program.run(&Call::new(Arch::X86_64, number, NONE)).1).max();
            assert!(steps <= Some(25), "{ring} {notify:?}: {steps:?}");
        }
    }
}

#[test]
fn deny_lists_stay_far_from_the_kernels_limit() {
    for ring in [Ring::R0, Ring::R1] {
        for options in all_options(ring) {
            assert!(Filters::for_ring(ring, &options).unwrap().instructions() <= 1024);
        }
    }
}

#[test]
fn io_uring_gets_eperm_and_never_a_signal_in_every_ring() {
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        in_each_ring(call, NONE, [EPERM; 4]);
    }
}

#[test]
fn what_takes_from_or_holds_up_the_whole_machine_is_refused() {
    for call in ["io_setup", "io_submit", "io_pgetevents"] {
        in_each_ring(call, NONE, [OK, ENOSYS, ENOSYS, ENOSYS]);
    }
    const F_DUPFD_CLOEXEC: u64 = 1030;
    const F_GETLEASE: u64 = 1025;
    for (command, answers) in [(1024, [OK, EPERM, EPERM, EPERM]), (1026, [OK, EPERM, EPERM, EPERM])] {
        in_each_ring("fcntl", [3, command, 1, 0, 0, 0], answers);
        in_each_ring("fcntl", [3, command | 1 << 32, 1, 0, 0, 0], answers);
    }
    for command in [0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, F_GETLEASE, F_DUPFD_CLOEXEC] {
        in_each_ring("fcntl", [3, command, 0, 0, 0, 0], [OK; 4]);
    }
    let (noreplace, exchange, whiteout) = (1, 2, 4);
    for flags in [0, noreplace, exchange] {
        in_each_ring("renameat2", [0, 0, 0, 0, flags, 0], [OK; 4]);
    }
    for flags in [whiteout, whiteout | noreplace] {
        in_each_ring("renameat2", [0, 0, 0, 0, flags, 0], [OK, EPERM, EPERM, EPERM]);
    }
}

#[test]
fn calls_with_flags_behind_pointers_look_missing() {
    in_each_ring("clone3", NONE, [OK, ENOSYS, ENOSYS, ENOSYS]);
    in_each_ring("openat2", NONE, [OK, ENOSYS, ENOSYS, ENOSYS]);
}

#[test]
fn the_machine_and_the_kernel_are_out_of_reach_in_every_ring() {
    for call in [
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "bpf",
        "reboot",
        "swapon",
        "settimeofday",
        "clock_settime",
        "adjtimex",
        "syslog",
        "acct",
        "quotactl",
        "keyctl",
        "add_key",
        "request_key",
        "open_by_handle_at",
        "iopl",
        "ioperm",
    ] {
        in_each_ring(call, NONE, [EPERM; 4]);
    }
}

#[test]
fn mounts_namespaces_and_other_processes_are_out_of_reach_from_ring_one_on() {
    for call in [
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "fsopen",
        "open_tree",
        "mount_setattr",
        "chroot",
        "unshare",
        "setns",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "kcmp",
        "process_madvise",
        "perf_event_open",
        "userfaultfd",
        "fanotify_init",
    ] {
        in_each_ring(call, NONE, [OK, EPERM, EPERM, EPERM]);
    }
}

/// What a filter with a listener leaves to it, under R0 to R3.
fn left_to_the_listener(notify: Notify, names: Names, name: &str, args: [u64; 6]) -> [bool; 4] {
    let ask = |ring| ask(ring, &Options { notify, names, ..options(ring) }, name, args) == Verdict::Notify;
    Ring::ALL.map(ask)
}

#[test]
fn refusals_go_to_the_listener_and_what_programs_try_at_their_start_does_not() {
    for (call, told) in [
        ("kexec_load", [false, true, true, true]),
        ("io_uring_setup", [false, true, true, true]),
        ("ptrace", [false, true, true, true]),
        ("shmget", [false, false, true, true]),
        ("fork", [false, false, false, true]),
        ("clone3", [false; 4]),
        ("openat2", [false; 4]),
        ("io_setup", [false; 4]),
        ("get_mempolicy", [false; 4]),
        ("read", [false; 4]),
    ] {
        assert_eq!(left_to_the_listener(Notify::Refusals, Names::Free, call, NONE), told, "{call}");
    }
    let raw_socket = [2, 3, 0, 0, 0, 0];
    assert_eq!(left_to_the_listener(Notify::Refusals, Names::Free, "socket", raw_socket), [false, true, true, true]);
    let other_numbers = [470u32, 1000, 0x4000_0027];
    for ring in [Ring::R1, Ring::R2, Ring::R3] {
        let filters = Filters::for_ring(ring, &Options { notify: Notify::Refusals, ..options(ring) }).unwrap();
        for number in other_numbers {
            assert_eq!(filters.decide(&Call::new(Arch::X86_64, number, NONE)), ENOSYS, "{ring} {number}");
        }
    }
}

#[test]
fn calls_that_can_make_a_name_go_to_the_listener_and_no_other_open_does() {
    let flags = |flags: i32| [0, 0, flags as u64, 0o644, 0, 0];
    let asked = |name, args| left_to_the_listener(Notify::Refusals, Names::Asked, name, args);
    for name in
        ["mkdirat", "mknodat", "linkat", "symlinkat", "renameat", "renameat2", "rename", "mkdir", "creat", "link"]
    {
        assert_eq!(asked(name, NONE)[1..3], [true, true], "{name}");
    }
    for creating in [libc::O_CREAT, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, libc::O_TMPFILE | libc::O_WRONLY] {
        assert_eq!(asked("openat", flags(creating)), [false, true, true, false], "{creating:o}");
    }
    for other in [0, libc::O_RDWR | libc::O_TRUNC, libc::O_DIRECTORY | libc::O_CLOEXEC, libc::O_WRONLY | libc::O_APPEND]
    {
        assert_eq!(asked("openat", flags(other)), [false; 4], "{other:o}");
    }
    for name in ["unlinkat", "rmdir", "stat", "readlink", "ftruncate"] {
        assert_eq!(asked(name, NONE), [false; 4], "{name}");
    }
}

#[test]
fn learning_sees_opens_execs_and_connects_but_for_the_launch_itself() {
    let learn = |name, args| left_to_the_listener(Notify::Learn, Names::Free, name, args);
    for name in ["open", "openat", "connect"] {
        assert_eq!(learn(name, NONE), [false, true, true, true], "{name}");
    }
    assert_eq!(learn("execve", NONE)[1..3], [true, true]);
    let launch = [u64::from(EXEC_FD), 0, 0, 0, 0x1000, COOKIE.secret()];
    assert_eq!(learn("execve", launch)[1..3], [false, false]);
    for ring in [Ring::R1, Ring::R2, Ring::R3] {
        let options = Options { notify: Notify::Learn, ..options(ring) };
        assert_eq!(ask(ring, &options, "execveat", launch), OK, "{ring}");
    }
}

#[test]
fn debuggers_work_in_ring_zero_only() {
    in_each_ring("ptrace", NONE, [OK, EPERM, EPERM, EPERM]);
}

#[test]
fn names_outside_the_file_tree_are_refused_from_ring_two_on() {
    for call in ["shmget", "semget", "msgget", "mq_open", "name_to_handle_at", "memfd_secret", "move_pages"] {
        in_each_ring(call, NONE, [OK, OK, EPERM, EPERM]);
    }
}

#[test]
fn ring_three_is_one_program_threads_only() {
    for call in ["fork", "vfork", "execve"] {
        in_each_ring(call, NONE, [OK, OK, OK, EPERM]);
    }
    // What glibc's pthread_create passes, and what fork passes.
    let thread = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    in_each_ring("clone", [thread as u64, 0, 0, 0, 0, 0], [OK; 4]);
    let fork = (libc::CLONE_CHILD_CLEARTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD) as u64;
    in_each_ring("clone", [fork, 0, 0, 0, 0, 0], [OK, OK, OK, EPERM]);
}

#[test]
fn clone_makes_no_namespace_whatever_else_it_asks_for() {
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        for rest in [libc::SIGCHLD, libc::CLONE_THREAD | libc::CLONE_VM] {
            in_each_ring("clone", [(flag | rest) as u32 as u64, 0, 0, 0, 0, 0], [OK, EPERM, EPERM, EPERM]);
        }
    }
}

#[test]
fn exec_takes_descriptor_and_secret_and_nothing_else_in_ring_three() {
    let (fd, secret, empty) = (u64::from(EXEC_FD), COOKIE.secret(), libc::AT_EMPTY_PATH as u64);
    let exec = |fd, flags, sixth| [fd, 0x7000, 0x7100, 0x7200, flags, sixth];
    in_each_ring("execveat", exec(fd, empty, secret), [OK; 4]);
    // Dirt above an int is nothing to the kernel, so it is nothing to the filter.
    in_each_ring("execveat", exec(fd | 1 << 40, empty, secret), [OK; 4]);
    for args in
        [exec(fd, empty, 0), exec(fd, empty, secret ^ 1), exec(fd, empty, secret ^ 1 << 63), exec(3, empty, secret)]
    {
        in_each_ring("execveat", args, [OK, OK, EPERM, EPERM]);
    }
    // By path R2 may start what the mounts and Landlock let it; an absolute path makes the kernel ignore the
    // descriptor, which is why R3 can't rely on the descriptor alone.
    in_each_ring("execveat", exec(fd, 0, 0), [OK, OK, OK, EPERM]);
    in_each_ring("execveat", exec(libc::AT_FDCWD as u64, 0, 0), [OK, OK, OK, EPERM]);
}

#[test]
fn memory_files_cannot_be_executed_in_ring_two_and_do_not_exist_in_ring_three() {
    let create = |flags: u64| [0x7000, flags, 0, 0, 0, 0];
    const CLOEXEC: u64 = 1;
    const SEALED: u64 = 8;
    const EXECUTABLE: u64 = 16;
    in_each_ring("memfd_create", create(CLOEXEC | SEALED), [OK, OK, OK, EPERM]);
    in_each_ring("memfd_create", create(CLOEXEC), [OK, OK, EPERM, EPERM]);
    in_each_ring("memfd_create", create(EXECUTABLE), [OK, OK, EPERM, EPERM]);
    let by_namespace = Options { memfd: Memfd::SealedByNamespace, ..options(Ring::R2) };
    assert_eq!(ask(Ring::R2, &by_namespace, "memfd_create", create(CLOEXEC)), OK);
    assert_eq!(ask(Ring::R2, &by_namespace, "memfd_create", create(EXECUTABLE)), EPERM);
}

#[test]
fn terminals_are_not_typed_into() {
    const TIOCGWINSZ: u64 = 0x5413;
    let request = |request: u64| [0, request, 0x7000, 0, 0, 0];
    for code in [0x5412, 0x541c] {
        in_each_ring("ioctl", request(code), [EPERM; 4]);
        in_each_ring("ioctl", request(code | 1 << 32), [EPERM; 4]);
    }
    in_each_ring("ioctl", request(0x5423), [OK, EPERM, EPERM, EPERM]);
    in_each_ring("ioctl", request(TIOCGWINSZ), [OK; 4]);
}

#[test]
fn sockets_are_those_of_the_plan() {
    let (unix, inet, inet6, netlink, packet, alg, vsock) = (1, 2, 10, 16, 17, 38, 40);
    let (stream, dgram, raw, seqpacket) = (1, 2, 3, 5);
    let (cloexec, mptcp, dirt) = (0o2_000_000, 262, 7 << 32);
    let allowed: [(u64, u64, u64); 7] = [
        (unix, stream, 0),
        (unix, seqpacket | cloexec, 0),
        (inet, stream | cloexec, 6),
        (inet6, dgram, 17),
        (inet, dgram | cloexec, 0),
        (netlink, raw, 0),
        (inet | dirt, stream | dirt, dirt),
    ];
    let refused: [(u64, u64, u64); 9] = [
        (inet, raw, 1),
        (inet, stream, mptcp),
        (inet, dgram, 136),
        (inet6, 6, 33),
        (netlink, raw, 15),
        (packet, raw, 3),
        (alg, seqpacket, 0),
        (vsock, stream, 0),
        (vsock | dirt, stream, 0),
    ];
    let ask = |ring, sockets, (family, kind, protocol): (u64, u64, u64)| {
        ask(ring, &Options { sockets, ..options(ring) }, "socket", [family, kind, protocol, 0, 0, 0])
    };
    for ring in [Ring::R1, Ring::R2, Ring::R3] {
        for socket in allowed {
            assert_eq!(ask(ring, Sockets::Loopback, socket), OK, "{ring} {socket:?}");
            let only_unix = if socket.0 == unix { OK } else { EPERM };
            assert_eq!(ask(ring, Sockets::Unix, socket), only_unix, "{ring} {socket:?}");
            assert_eq!(ask(ring, Sockets::UnixPairs, socket), EPERM, "{ring} {socket:?}");
            let calls = if socket.0 == unix || socket == (inet, stream | cloexec, 6) { OK } else { EPERM };
            let calls = if socket == (inet | dirt, stream | dirt, dirt) { OK } else { calls };
            assert_eq!(ask(ring, Sockets::Calls, socket), calls, "{ring} {socket:?}");
        }
        for socket in refused {
            for sockets in [Sockets::Loopback, Sockets::Unix, Sockets::Calls, Sockets::UnixPairs] {
                assert_eq!(ask(ring, sockets, socket), EPERM, "{ring} {sockets:?} {socket:?}");
            }
        }
    }
    for socket in allowed.into_iter().chain(refused) {
        assert_eq!(ask(Ring::R0, Sockets::Any, socket), OK);
    }
}

#[test]
fn sockets_that_only_call_are_tcp_over_ipv4_and_answer_nobody() {
    let ask = |name, args| ask(Ring::R3, &Options { sockets: Sockets::Calls, ..options(Ring::R3) }, name, args);
    let socket = |family: u64, kind: u64, protocol: u64| ask("socket", [family, kind, protocol, 0, 0, 0]);
    // As Python, Node and Go make them, and AF_UNIX for the control socket.
    assert_eq!([socket(2, 0o2_000_001, 6), socket(2, 0o2_004_001, 0), socket(1, 0o2_000_001, 0)], [OK; 3]);
    for (family, kind, protocol) in
        [(10, 1, 6), (2, 2, 17), (2, 2, 0), (2, 3, 1), (2, 1, 262), (2, 5, 132), (16, 3, 0), (40, 1, 0)]
    {
        assert_eq!(socket(family, kind, protocol), EPERM, "{family} {kind} {protocol}");
    }
    for call in ["bind", "listen", "accept", "accept4"] {
        assert_eq!(ask(call, NONE), EPERM, "{call}");
    }
    let set = |level: u64, option: u64| ask("setsockopt", [3, level, option, 0, 0, 0]);
    // NODELAY, KEEPIDLE, USER_TIMEOUT; REUSEADDR, KEEPALIVE, RCVTIMEO.
    assert_eq!([set(6, 1), set(6, 4), set(6, 18), set(1, 2), set(1, 9), set(1, 20)], [OK; 6]);
    // ATTACH_FILTER, ATTACH_BPF, ZEROCOPY; TCP_ULP, FASTOPEN_CONNECT; IP options, netfilter's tables, IPv6, UDP.
    for (level, option) in [(1, 26), (1, 50), (1, 60), (6, 31), (6, 30), (0, 4), (0, 64), (41, 26), (17, 103)] {
        assert_eq!(set(level, option), EPERM, "{level} {option}");
    }
    for call in ["connect", "getsockopt", "getsockname", "getpeername", "shutdown", "sendto", "recvfrom", "poll"] {
        assert_eq!(ask(call, NONE), OK, "{call}");
    }
    // Without the choice R3 answers as ever.
    let options = options(Ring::R3);
    assert_eq!(super::promises::ask(Ring::R3, &options, "setsockopt", [3, 1, 26, 0, 0, 0]), OK);
    assert_eq!(super::promises::ask(Ring::R3, &options, "socket", [2, 1, 6, 0, 0, 0]), EPERM);
}

#[test]
fn with_pairs_alone_nobody_else_can_be_called() {
    let ask = |name, args| ask(Ring::R2, &Options { sockets: Sockets::UnixPairs, ..options(Ring::R2) }, name, args);
    let pair = |family: u64, kind: u64| ask("socketpair", [family, kind, 0, 0x7000, 0, 0]);
    assert_eq!([pair(1, 1), pair(1, 5), pair(1, 1 | 0o2_004_000)], [OK; 3]);
    assert_eq!([pair(1, 2), pair(1, 3), pair(1, 2 | 0o2_000_000), pair(30, 1), pair(1, 0)], [EPERM; 5]);
    for call in ["connect", "bind", "listen", "accept", "accept4"] {
        assert_eq!(ask(call, NONE), EPERM, "{call}");
    }
    assert_eq!(ask("sendmsg", NONE), OK);
}

#[test]
fn only_ring_zero_has_every_socket_family() {
    for ring in [Ring::R1, Ring::R2, Ring::R3] {
        let refused = Filters::for_ring(ring, &Options { sockets: Sockets::Any, ..options(ring) });
        assert!(matches!(refused, Err(Error::SocketsTooWide { .. })), "{ring}: {refused:?}");
    }
}

#[test]
fn no_file_gets_setuid_or_setgid_outside_ring_zero() {
    for bits in [0o4000, 0o2000, 0o6000] {
        let mode = bits | 0o755;
        for (call, args) in [
            ("chmod", [0, mode, 0, 0, 0, 0]),
            ("fchmod", [0, mode, 0, 0, 0, 0]),
            ("creat", [0, mode, 0, 0, 0, 0]),
            ("fchmodat", [0, 0, mode, 0, 0, 0]),
            ("fchmodat2", [0, 0, mode, 0, 0, 0]),
            ("open", [0, libc::O_CREAT as u64 | 1, mode, 0, 0, 0]),
            ("openat", [0, 0, libc::O_CREAT as u64 | 1, mode, 0, 0]),
            ("openat", [0, 0, libc::O_TMPFILE as u64 | 2, mode, 0, 0]),
        ] {
            in_each_ring(call, args, [OK, EPERM, EPERM, EPERM]);
        }
        let plain = u64::from(libc::S_IFREG);
        in_each_ring("mknod", [0, mode | plain, 0, 0, 0, 0], [OK, EPERM, EPERM, EPERM]);
        in_each_ring("mknodat", [0, 0, mode | plain, 0, 0, 0], [OK, EPERM, EPERM, EPERM]);
        // Without O_CREAT the mode is whatever the register held.
        in_each_ring("open", [0, 0, mode, 0, 0, 0], [OK; 4]);
        in_each_ring("openat", [0, 0, libc::O_DIRECTORY as u64, mode, 0, 0], [OK; 4]);
    }
    in_each_ring("openat", [0, 0, libc::O_CREAT as u64 | 1, 0o1777, 0, 0], [OK; 4]);
}

#[test]
fn device_nodes_are_not_made_and_fifos_are() {
    for (kind, answers) in [
        (libc::S_IFCHR, [OK, EPERM, EPERM, EPERM]),
        (libc::S_IFBLK, [OK, EPERM, EPERM, EPERM]),
        (libc::S_IFIFO, [OK, OK, OK, EPERM]),
        (libc::S_IFSOCK, [OK, OK, OK, EPERM]),
        (libc::S_IFREG, [OK, OK, OK, EPERM]),
    ] {
        in_each_ring("mknod", [0, u64::from(kind) | 0o644, 0, 0, 0, 0], answers);
        in_each_ring("mknodat", [0, 0, u64::from(kind) | 0o644, 0, 0, 0], answers);
    }
}

#[test]
fn oneself_can_be_changed_only_in_harmless_ways() {
    let first = |value: u64| [value, 0, 0, 0, 0, 0];
    in_each_ring("personality", first(0), [OK; 4]);
    in_each_ring("personality", first(0xffff_ffff), [OK; 4]);
    in_each_ring("personality", first(0x0040_0000), [OK, EPERM, EPERM, EPERM]);
    in_each_ring("prlimit64", first(0), [OK; 4]);
    in_each_ring("prlimit64", first(1), [OK, EPERM, EPERM, EPERM]);
    in_each_ring("seccomp", [1, 0, 0, 0, 0, 0], [OK, OK, OK, EPERM]);
    in_each_ring("seccomp", [1, 8, 0, 0, 0, 0], [OK, EPERM, EPERM, EPERM]);
    for set_name_or_vma in [15, 16, 38, 0x5356_4d41, 1, 4, 23, 42] {
        in_each_ring("prctl", first(set_name_or_vma), [OK; 4]);
    }
    in_each_ring("prctl", first(35), [OK, EPERM, EPERM, EPERM]);
    in_each_ring("prctl", first(59), [OK, OK, EPERM, EPERM]);
    in_each_ring("prctl", first(47), [OK, OK, OK, EPERM]);
    in_each_ring("prctl", first(5000), [OK, OK, EPERM, EPERM]);
}

#[test]
fn unknown_numbers_and_x32_look_missing_and_foreign_abis_kill() {
    for ring in Ring::ALL {
        let filters = Filters::for_ring(ring, &options(ring)).unwrap();
        for number in [337, 400, 423, 470, 471, 512, 547, 10_000, 0x4000_0000, 0x4000_0001, 0x4000_0206, u32::MAX] {
            assert_eq!(filters.decide(&Call::new(Arch::X86_64, number, NONE)), ENOSYS, "{ring} {number:#x}");
        }
        for audit_arch in [0x4000_0003, 0xc000_00b7, 0] {
            for number in [0, 1, 11, 60] {
                let call = Call { number, audit_arch, args: NONE };
                assert_eq!(filters.decide(&call), Verdict::KillProcess, "{ring} {call:x?}");
            }
        }
    }
}

#[test]
fn a_description_names_every_call_once_and_a_reason_for_each_refusal() {
    for ring in Ring::ALL {
        for options in all_options(ring) {
            let told = describe(ring, &options);
            let named: Vec<_> = told.allowed.iter().chain(&told.refused).flat_map(|group| &group.calls).collect();
            assert_eq!(named.len(), options.arch.calls().count());
            assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len());
            assert_eq!(told.refused_calls, told.refused.iter().map(|group| group.calls.len()).sum::<usize>());
            assert_eq!(told.allowed_calls + told.checked_calls + told.refused_calls, named.len());
            assert!(told.allowed.iter().all(|group| group.errno.is_none()));
            assert!(told.refused.iter().all(|group| group.errno.is_some() && !group.why.is_empty()));
            let policy = builtin::policy(ring, &Options { notify: Notify::Off, names: Names::Free, ..options });
            for (number, _) in policy.rules.iter().filter(|(_, rule)| matches!(rule, Rule::Checked(_))) {
                let name = options.arch.name(*number).unwrap();
                assert!(told.checked.iter().any(|line| line.calls.contains(&name)), "{ring} {name}");
                assert!(!describe::reasons(name, ring).is_empty());
            }
            assert!(serde_json::to_string(&told).is_ok());
        }
    }
}

#[test]
fn the_launchers_secret_is_not_printed() {
    let options = options(Ring::R3);
    let printed = format!("{options:?} {:?}", Filters::for_ring(Ring::R3, &options).unwrap());
    for part in ["1234", "9abc", &COOKIE.secret().to_string()] {
        assert!(!printed.to_lowercase().contains(part), "{printed}");
    }
}

#[test]
fn filters_survive_storage() {
    for ring in Ring::ALL {
        let filters = Filters::for_ring(ring, &options(ring)).unwrap();
        let text = serde_json::to_string(&filters).unwrap();
        assert_eq!(serde_json::from_str::<Filters>(&text).unwrap(), filters);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_less_privileged_ring_allows_nothing_that_a_more_privileged_one_refuses(
        registers in prop::collection::vec(
            prop::array::uniform6(prop_oneof![0u64..64, any::<u64>(), Just(0o4755u64), Just(u64::from(u32::MAX))]),
            10,
        ),
        arch in prop::sample::select(&Arch::ALL[..]),
        notify in prop::sample::select(&NOTIFY[..]),
        names in prop::sample::select(&NAMES[..]),
    ) {
        let policies = Ring::ALL.map(|ring| builtin::policy(ring, &Options { arch, notify, names, ..options(ring) }));
        for number in 0..480 {
            for &args in &registers {
                let call = Call::new(arch, number, args);
                // What the listener makes or only sees happens, as far as the ring is concerned.
                let allowed = policies.each_ref().map(|policy| {
                    let decision = policy.decide(&call);
                    decision == Decision::Allow
                        || matches!(decision, Decision::Notify(Notified::Creating | Notified::Observed))
                });
                // Allowed in a prefix of the rings only.
                prop_assert!(allowed.windows(2).all(|pair| pair[0] || !pair[1]), "{:x?} {:?}", call, allowed);
            }
        }
    }
}
