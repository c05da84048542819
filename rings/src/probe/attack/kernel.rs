//! System calls that are refused by number or by argument: kernel code, keys, tracing, odd ABIs, terminals.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{A, Answer, Attack, D, Ready, Stopped, attack, open, raw};
use crate::probe::Layer::{Capabilities, Seccomp};
use crate::probe::scene::Scene;

const CODE: &str = "code of its own in the kernel";
const KEYS: &str = "keys bound to the user and not to files: disk, network and mail passwords";
const SURFACE: &str = "a tool that kernel exploits are built with";

pub(super) const ATTACKS: &[Attack] = &[
    number("bpf", "load a BPF map of four bytes", CODE, bpf),
    number("io-uring", "make an io_uring", "system calls that no filter sees", |_| {
        let mut params = [0u32; 30];
        // SAFETY: io_uring_params is 120 bytes; the ring that a success makes goes with this process.
        unsafe { raw(libc::SYS_io_uring_setup, [1, params.as_mut_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
    }),
    number("keyctl", "ask for the session keyring", KEYS, |_| {
        // KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, don't create.
        // SAFETY: numbers only.
        unsafe { raw(libc::SYS_keyctl, [0, -3isize as usize, 0, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::ENOKEY]),
    number("add-key", "add a key to its own process keyring", KEYS, |_| {
        let (kind, name, value) = (c"user".as_ptr() as usize, c"agt-probe".as_ptr() as usize, b"x".as_ptr() as usize);
        // SAFETY: two NUL-terminated strings and one byte; a process keyring ends with its process.
        unsafe { raw(libc::SYS_add_key, [kind, name, value, 1, -2isize as usize, 0]) }.map(drop)
    }),
    number("request-key", "look for a key that does not exist (no upcall)", KEYS, |_| {
        let (kind, name) = (c"user".as_ptr() as usize, c"agt-probe-none".as_ptr() as usize);
        // SAFETY: two NUL-terminated strings; without callout data nothing is started.
        unsafe { raw(libc::SYS_request_key, [kind, name, 0, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::ENOKEY]),
    // More segments than any kernel takes and unknown flags: EINVAL, after the permission check.
    number("kexec", "load another kernel (kexec_load with invalid arguments)", CODE, |_| {
        // SAFETY: numbers only; the null list is never looked at.
        unsafe { raw(libc::SYS_kexec_load, [0, 1 << 20, 0, 0xffff, 0, 0]) }.map(drop)
    })
    .past(&[Errno::EINVAL]),
    // An image of no bytes: ENOEXEC, after the permission check.
    number("init-module", "load a kernel module of no bytes", CODE, |_| {
        // SAFETY: an empty image at null is never read.
        unsafe { raw(libc::SYS_init_module, [0, 0, c"".as_ptr() as usize, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::ENOEXEC, Errno::EFAULT]),
    attack("userfaultfd", "handle page faults of its own (userfaultfd)", SURFACE, |_| {
        // SAFETY: flags only; UFFD_USER_MODE_ONLY.
        unsafe { raw(libc::SYS_userfaultfd, [1 | libc::O_CLOEXEC as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .by(&[Seccomp]),
    attack("perf", "count its own context switches (perf_event_open)", SURFACE, perf).by(&[Seccomp]),
    attack("fanotify", "watch files by fanotify", "to see and hold up file accesses", |_| {
        // FAN_CLASS_NOTIF | FAN_REPORT_FID: what an ordinary user may have.
        // SAFETY: numbers only.
        unsafe { raw(libc::SYS_fanotify_init, [0x200, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .by(&[Seccomp]),
    attack(
        "seccomp-listener",
        "install a seccomp listener of its own",
        "to answer in the supervisor's place",
        listener,
    )
    .by(&[Seccomp]),
    attack(
        "personality",
        "make all readable memory executable (personality)",
        "older, weaker memory protection",
        |_| {
            // SAFETY: a number; it concerns this process alone.
            unsafe { raw(libc::SYS_personality, [libc::READ_IMPLIES_EXEC as usize, 0, 0, 0, 0, 0]) }.map(drop)
        },
    )
    .by(&[Seccomp]),
    attack("kcmp", "compare kernel objects of processes (kcmp)", "kernel addresses", |_| {
        let pid = nix::unistd::getpid().as_raw() as usize;
        // SAFETY: numbers only.
        unsafe { raw(libc::SYS_kcmp, [pid, pid, 0, 0, 0, 0]) }.map(drop)
    })
    .by(&[Seccomp]),
    attack("ptrace-traceme", "ask to be traced (PTRACE_TRACEME)", SURFACE, |_| {
        // SAFETY: numbers only; the parent knows nothing of it and this process never stops.
        unsafe { raw(libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .by(&[Seccomp]),
    attack(
        "set-id-file",
        "make a setuid file in its own directory",
        "the user's uid for whoever runs that file",
        |s| {
            use std::os::unix::fs::PermissionsExt;
            let path = s.own.join("setuid");
            std::fs::write(&path, b"").ready("make a file of our own")?;
            Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755))?)
        },
    )
    .by(&[Seccomp]),
    number("device-node", "make a device node in its own directory", "the disk behind that number", |s| {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        // The null device.
        Ok(mknod(&s.own.join("node"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3))?)
    }),
    attack("aio", "make a kernel AIO context of one event", "to empty the pool that all databases here share", |_| {
        let mut context = 0usize;
        // SAFETY: the kernel writes one word; the context ends with this process.
        unsafe { raw(libc::SYS_io_setup, [1, (&raw mut context) as usize, 0, 0, 0, 0]) }.map(drop)
    })
    .by(&[Seccomp]),
    attack("lease", "take a lease on a file of its own (F_SETLEASE)", "to hold up everybody who opens a file", |s| {
        let file = std::fs::File::create(s.own.join("leased")).ready("make a file of our own")?;
        // SAFETY: numbers only; the lease ends with the descriptor.
        unsafe { raw(libc::SYS_fcntl, [file.as_raw_fd() as usize, 1024, libc::F_WRLCK as usize, 0, 0, 0]) }.map(drop)
    })
    .by(&[Seccomp]),
    attack("directory-notice", "ask for notices of a directory (F_NOTIFY)", "to learn what others do there", |s| {
        let directory = open(&s.own, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        // DN_RENAME once: the signal SIGIO comes at a rename there, and none happens.
        // SAFETY: numbers only; the notice ends with the descriptor.
        unsafe { raw(libc::SYS_fcntl, [directory.as_raw_fd() as usize, 1026, 0x10, 0, 0, 0]) }.map(drop)
    })
    .by(&[Seccomp]),
    number("rename-whiteout", "leave a whiteout device behind at a rename", "a device node", |s| {
        let (from, to) = (s.own.join("from"), s.own.join("to"));
        std::fs::write(&from, b"").ready("make a file of our own")?;
        let text =
            |path: &Path| std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).ready("a path without NUL");
        let (from, to) = (text(&from)?, text(&to)?);
        let here = libc::AT_FDCWD as usize;
        // SAFETY: two NUL-terminated strings that outlive the call.
        unsafe { raw(libc::SYS_renameat2, [here, from.as_ptr() as usize, here, to.as_ptr() as usize, 4, 0]) }.map(drop)
    })
    .by(&[Seccomp])
    .rings([A, D, D, D]),
    number("tiocsti", "type into a terminal (TIOCSTI; one of its own)", "commands in the operator's shell", tiocsti)
        .by(&[Seccomp])
        .rings([D; 4]),
    #[cfg(target_arch = "x86_64")]
    number(
        "int-0x80",
        "call the kernel by its 32-bit entry (int 0x80)",
        "calls whose numbers the filter misreads",
        |_| int_0x80(),
    )
    .by(&[Seccomp]),
    #[cfg(target_arch = "x86_64")]
    number("x32", "call the kernel by an x32 number", "calls whose numbers the filter misreads", |_| {
        // SAFETY: getpid of the x32 table; takes nothing.
        unsafe { raw(0x4000_0000 + libc::SYS_getpid, [0; 6]) }.map(drop)
    })
    .by(&[Seccomp]),
];

/// Refused in every ring: by the filter, and behind it by missing capabilities.
const fn number(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([D; 4]).by(&[Seccomp, Capabilities])
}

fn bpf(scene: &Scene) -> Answer {
    let _unused = scene;
    // BPF_MAP_CREATE of an array: type 2, key 4 bytes, value 4 bytes, one entry.
    let mut attributes = [0u32; 32];
    attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
    // SAFETY: a bpf_attr of the size given, the rest zero; the map goes with its descriptor.
    unsafe { raw(libc::SYS_bpf, [0, attributes.as_ptr() as usize, size_of_val(&attributes), 0, 0, 0]) }.map(drop)
}

fn perf(scene: &Scene) -> Answer {
    let _unused = scene;
    // perf_event_attr, version 0 (64 bytes): type software, config context switches, exclude_kernel and exclude_hv.
    let mut attributes = [0u64; 8];
    attributes[0] = 1 | (64 << 32);
    attributes[1] = 3;
    attributes[5] = (1 << 5) | (1 << 6);
    let anywhere = -1isize as usize;
    // SAFETY: an attribute structure of the size that it says; the counter goes with its descriptor.
    unsafe { raw(libc::SYS_perf_event_open, [attributes.as_ptr() as usize, 0, anywhere, anywhere, 8, 0]) }.map(drop)
}

fn listener(scene: &Scene) -> Answer {
    let _unused = scene;
    // Not a privilege: without it the kernel refuses filters for another reason.
    crate::sys::process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).ready("set no_new_privs")?;
    let allow = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: allow.as_ptr().cast_mut() };
    // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER.
    // SAFETY: a program of one instruction that allows everything, for this process alone.
    unsafe { raw(libc::SYS_seccomp, [1, 8, (&raw const program) as usize, 0, 0, 0]) }.map(drop)
}

/// A terminal of one's own, made the controlling one where the session has none, and one byte typed into it.
fn tiocsti(scene: &Scene) -> Answer {
    let _unused = scene;
    let setup = |stopped: Stopped| Stopped::Setup(format!("make a terminal: {stopped:?}"));
    let master = open(Path::new("/dev/ptmx"), OFlag::O_RDWR | OFlag::O_NOCTTY).map_err(setup)?;
    // Never closed by us: the hang-up would end this process before it has said how it went.
    let master = std::mem::ManuallyDrop::new(master);
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) } < 0 {
        return Err(setup(std::io::Error::last_os_error().into()));
    }
    // SAFETY: TIOCGPTPEER takes open flags and makes a new descriptor.
    let peer = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY) };
    if peer < 0 {
        return Err(setup(std::io::Error::last_os_error().into()));
    }
    // SAFETY: a new descriptor of ours.
    let peer = unsafe { OwnedFd::from_raw_fd(peer) };
    // An agent leads a session already; a control does only after this.
    let _already = nix::unistd::setsid();
    // SAFETY: numbers only. Where it fails, typing needs a capability instead.
    let _without = unsafe { libc::ioctl(peer.as_raw_fd(), libc::TIOCSCTTY, 0) };
    let byte = b'x';
    // SAFETY: TIOCSTI reads one byte.
    let ret = unsafe { libc::ioctl(peer.as_raw_fd(), libc::TIOCSTI, &raw const byte) };
    if ret < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}

/// getpid (20 in the 32-bit table).
#[cfg(target_arch = "x86_64")]
fn int_0x80() -> Answer {
    let mut number: i64 = 20;
    // SAFETY: getpid takes and changes nothing; the entry may clear r8 to r11, which are given up.
    unsafe {
        std::arch::asm!("int 0x80", inout("rax") number, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    match i32::try_from(number) {
        Ok(pid) if pid > 0 => Ok(()),
        Ok(errno) => Err(Stopped::Errno(-errno)),
        Err(_) => Err(Stopped::Nothing(format!("int 0x80 gave {number}"))),
    }
}
