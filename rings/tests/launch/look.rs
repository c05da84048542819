//! What a process can see and do of itself and around it: printed by an agent, compared by whoever launched it.
//!
//! One program for every ring, so it starts nothing: in R3 there are only threads.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `argv[0]` of a process that looks.
pub(crate) const NAME: &str = "agt-test-look";
/// The last line of a look.
pub(crate) const END: &str = "== looked ==";

/// How this process was started with SIGPIPE, which the runtime of a Rust program ignores before its `main`.
static BROKEN_PIPE: AtomicUsize = AtomicUsize::new(usize::MAX);

extern "C" fn before_the_runtime() {
    // SAFETY: sigaction is plain old data, and only read into here.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut now);
        BROKEN_PIPE.store(now.sa_sigaction, Ordering::Relaxed);
    }
}

// SAFETY: called once by the dynamic linker, before there is a thread; it needs nothing of the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = before_the_runtime;

/// Looks, waits for the end of its input, and ends, where this process was started for that.
pub(crate) fn look_if_asked() {
    if std::env::args().next().as_deref() != Some(NAME) {
        return;
    }
    let mut out = String::new();
    looked(&mut out);
    out.push_str(END);
    out.push('\n');
    std::io::stdout().write_all(out.as_bytes()).unwrap();
    // Looked at from outside meanwhile.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

fn looked(out: &mut String) {
    let mut say = |what: &str, value: &dyn Display| out.push_str(&format!("{what}: {value}\n"));
    // Its number says who was forked before it: an attendant that waited was.
    let own = std::process::id().to_string();
    for line in read("/proc/self/status").lines().filter(|line| is_of_a_launch(line)) {
        let number = |word: &str| if word == own { "own".to_owned() } else { word.to_owned() };
        let line = match line.split_once('\t') {
            Some((key, values)) if key.starts_with("NS") => {
                format!("{key} {}", values.split('\t').map(number).collect::<Vec<_>>().join(" "))
            }
            _ => line.to_owned(),
        };
        say("status", &line);
    }
    for file in ["limits", "oom_score_adj", "coredump_filter", "timerslack_ns", "personality", "loginuid", "sessionid"]
    {
        for line in read(&format!("/proc/self/{file}")).lines() {
            say(file, &line);
        }
    }
    for line in mounts(&read("/proc/self/mountinfo")) {
        say("mount", &line);
    }
    let mut fds: Vec<String> = names("/proc/self/fd")
        .iter()
        .map(|fd| {
            let info = read(&format!("/proc/self/fdinfo/{fd}"));
            let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or("").to_owned();
            format!("{fd} {} {flags}", kind_of_link(&format!("/proc/self/fd/{fd}")))
        })
        .collect();
    fds.sort();
    fds.iter().for_each(|fd| say("descriptor", fd));
    for name in ["/", "/tmp", "/home/agent", "/run", "/dev", "/dev/shm", "/etc", "/proc/sys/kernel", "."] {
        let listed = names(name).len();
        let seen = fs::metadata(name).map(|m| format!("{:o} {} {}", m.mode(), m.uid(), m.gid()));
        say("folder", &format!("{name} {} {}", worded(seen), if name == "/tmp" { 0 } else { listed }));
    }
    say("broken pipe", &BROKEN_PIPE.load(Ordering::Relaxed));
    calls(&mut say);
    acts(&mut say);
    let mut env: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    env.sort();
    env.iter().for_each(|variable| say("env", variable));
    say("workdir", &worded(std::env::current_dir().map(|dir| dir.display().to_string())));
}

fn is_of_a_launch(line: &str) -> bool {
    const KEYS: [&str; 24] = [
        "Name",
        "Umask",
        "TracerPid",
        "Uid",
        "Gid",
        "Groups",
        "NStgid",
        "NSpid",
        "NSpgid",
        "NSsid",
        "Kthread",
        "CoreDumping",
        "Threads",
        "SigPnd",
        "ShdPnd",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
    ];
    let key = line.split(':').next().unwrap_or_default();
    KEYS.contains(&key) || key.starts_with("Seccomp") || key.starts_with("Spec") || key.starts_with("Cpus_allowed")
}

/// Mounts without their numbers.
fn mounts(text: &str) -> Vec<String> {
    let without_numbers = |line: &str| line.split(' ').skip(3).collect::<Vec<_>>().join(" ");
    let mut mounts: Vec<String> = text.lines().map(without_numbers).collect();
    // The kernel lists them by when they were made, which is what differs.
    mounts.sort();
    mounts
}

/// Calls that only ask.
fn calls(say: &mut impl FnMut(&str, &dyn Display)) {
    let ask = |ret: i64| if ret < 0 { std::io::Error::last_os_error().to_string() } else { ret.to_string() };
    // SAFETY: numbers only, in this and all below.
    let prctl = |option: i32, number: u64| ask(unsafe { libc::prctl(option, number, 0, 0, 0) }.into());
    for (name, option) in [
        ("dumpable", libc::PR_GET_DUMPABLE),
        ("keepcaps", libc::PR_GET_KEEPCAPS),
        ("securebits", libc::PR_GET_SECUREBITS),
        ("no_new_privs", libc::PR_GET_NO_NEW_PRIVS),
        ("timerslack", libc::PR_GET_TIMERSLACK),
        ("thp", libc::PR_GET_THP_DISABLE),
    ] {
        say(name, &prctl(option, 0));
    }
    let (mut signal, mut subreaper) = (-1i32, -1i32);
    // SAFETY: each writes one int.
    unsafe {
        libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal);
        libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut subreaper);
    }
    say("parent death signal", &signal);
    say("subreaper", &subreaper);
    let bounding: Vec<String> = (0..42).map(|number| prctl(libc::PR_CAPBSET_READ, number)).collect();
    say("bounding", &bounding.join(" "));
    // SAFETY: numbers only.
    unsafe {
        say("personality", &ask(libc::syscall(libc::SYS_personality, 0xffff_ffff_u64)));
        say("small pid", &(libc::getpid() < 9));
        say("parent", &libc::getppid());
        say("leads its session", &(libc::getsid(0) == libc::getpid()));
        say("leads its group", &(libc::getpgrp() == libc::getpid()));
        say("nice", &libc::getpriority(libc::PRIO_PROCESS, 0));
        say("policy", &ask(libc::sched_getscheduler(0).into()));
        say("signals init", &ask(libc::kill(1, 0).into()));
        say(
            "mounts",
            &ask(libc::mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()).into()),
        );
        say("unshares", &ask(libc::unshare(libc::CLONE_NEWUSER).into()));
        say("asks for root", &ask(libc::syscall(libc::SYS_setuid, 0)));
        say("clone3", &ask(libc::syscall(libc::SYS_clone3, 0, 0)));
        say("traces init", &ask(libc::ptrace(libc::PTRACE_SEIZE, 1, 0, 0)));
    }
}

/// Acts that one ring allows and another refuses: what rules on files, sockets and processes do.
fn acts(say: &mut impl FnMut(&str, &dyn Display)) {
    // Where a file may be moved to, then more places. An agent that sees the host's own folders leaves those alone.
    let given: Vec<String> = std::env::args().skip(1).collect();
    let Some((other, more)) = given.split_first() else { return };
    let own =
        ["/etc", "/usr", "/tmp", "/home/agent", "/dev/shm", "/run", ".", "/proc/self", "/sys", "/root", "/var/tmp"];
    let own = if other == "/tmp" { &own[..] } else { &["."] };
    for place in own.iter().copied().chain(more.iter().map(String::as_str)) {
        let [made, linked, moved] = [(place, ".looked"), (other.as_str(), ".linked"), (other.as_str(), ".moved")]
            .map(|(folder, name)| Path::new(folder).join(name));
        say(place, &format!("list {}", worded(fs::read_dir(place).map(|_| "ok"))));
        say(place, &format!("make {}", worded(File::create_new(&made).map(|_| "ok"))));
        say(place, &format!("link {}", worded(fs::hard_link(&made, &linked).map(|()| "ok"))));
        say(place, &format!("move {}", worded(fs::rename(&made, &moved).map(|()| "ok"))));
        for left in [&made, &linked, &moved] {
            let _ = fs::remove_file(left);
        }
    }
    for file in [
        "/etc/shadow",
        "/etc/passwd",
        "/proc/kcore",
        "/dev/mem",
        "/dev/null",
        "/dev/tty",
        "/proc/1/environ",
        "/proc/sysrq-trigger",
    ] {
        let open = |write: bool| {
            OpenOptions::new().read(!write).write(write).custom_flags(libc::O_NOCTTY).open(file).map(|_| "ok")
        };
        say(file, &format!("read {} write {}", worded(open(false)), worded(open(true))));
    }
    say("tcp", &worded(TcpStream::connect(("127.0.0.1", 9)).map(|_| "ok")));
    say("bind", &worded(TcpListener::bind(("127.0.0.1", 0)).map(|_| "ok")));
    say("udp", &worded(UdpSocket::bind(("127.0.0.1", 0)).map(|_| "ok")));
    let name = SocketAddr::from_abstract_name(b"agt-nobody").unwrap();
    say("abstract", &worded(UnixStream::connect_addr(&name).map(|_| "ok")));
    say("thread", &worded(std::thread::Builder::new().spawn(|| 7).map(|thread| thread.join().unwrap())));
    // In R3 it starts nothing, elsewhere it does.
    say("process", &worded(std::process::Command::new("/usr/bin/true").status()));
}

fn worded<T: Display>(result: std::io::Result<T>) -> String {
    result.map_or_else(|e| e.to_string(), |value| value.to_string())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| format!("{e}\n"))
}

fn names(path: &str) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// `pipe`, `socket`, `/dev/null`: a number in it differs from launch to launch.
pub(crate) fn kind_of_link(link: &str) -> String {
    let target = fs::read_link(link).map_or_else(|e| e.to_string(), |to| to.display().to_string());
    if target.starts_with("/proc/") {
        "/proc".to_owned()
    } else {
        target.split(":[").next().unwrap_or_default().to_owned()
    }
}
