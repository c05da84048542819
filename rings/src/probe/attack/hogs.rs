//! Hogs, each with a bound of its own not far above the limit that should stop it, and trees that outlive their root.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, fork, setsid};

use super::{Answer, Attack, D, N, Need, Ready, Squeeze, Stopped, attack};
use crate::probe::Layer::{Cgroup, MountNamespace, Pid, Rlimit, Seccomp};
use crate::probe::scene::Scene;

/// Tasks that a task hog is given, its init among them.
pub(in crate::probe) const TASKS_GIVEN: u32 = 40;
/// Tasks at which it stops by itself.
const TASKS_ASKED: usize = 120;
/// Bytes that a memory hog is given.
pub(in crate::probe) const MEMORY_GIVEN: u64 = 48 << 20;
/// Bytes at which it stops by itself.
const MEMORY_ASKED: usize = 112 << 20;
/// Bytes that the private directories of a disk hog hold.
pub(in crate::probe) const DISK_GIVEN: u64 = 16 << 20;
/// Bytes at which it stops by itself.
const DISK_ASKED: usize = 24 << 20;
/// Connections at which it stops, below every ring's limit of open files; each takes more than 256 KiB unread.
const CONNECTIONS_MAX: usize = 450;
/// Loopback needs microseconds; a starved kernel drops the packets.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Thousandths of a CPU that a CPU hog is given.
pub(in crate::probe) const CPU_MILLIS_GIVEN: u32 = 50;
/// How long it works, and the share of a CPU that means nobody held it back.
const CPU_WALL: Duration = Duration::from_secs(1);
const CPU_SHARE: f64 = 0.12;
/// Descriptors asked for above what the ring gives.
const FILES_MORE: u64 = 16;

const STARVE: &str = "to starve everything else on the machine";

pub(super) const ATTACKS: &[Attack] = &[
    attack("thread-bomb", "start 120 threads where 40 tasks are given", STARVE, threads)
        .by(&[Cgroup])
        .squeezed(Squeeze::Tasks),
    attack("fork-bomb", "fork 120 times where 40 tasks are given", STARVE, forks)
        .by(&[Cgroup, Seccomp])
        .squeezed(Squeeze::Tasks),
    attack("memory-hog", "use 112 MiB where 48 MiB are given", STARVE, memory).by(&[Cgroup]).squeezed(Squeeze::Memory),
    attack("memory-hog-files", "the same by files in its private directory", STARVE, files)
        .by(&[Cgroup])
        .squeezed(Squeeze::Memory),
    attack("memory-hog-sockets", "keep the same in TCP connections to itself that nobody reads", STARVE, sockets)
        .by(&[Cgroup, Seccomp])
        .squeezed(Squeeze::Memory),
    attack("cpu-hog", "use more than 12 % of a CPU where 5 % are given", STARVE, cpu)
        .by(&[Cgroup])
        .squeezed(Squeeze::Cpu),
    attack("disk-hog", "write 24 MiB where its private directories have 16 MiB of room", STARVE, disk)
        .by(&[MountNamespace])
        .squeezed(Squeeze::Disk),
    attack("descriptor-hog", "open more files than the ring gives", STARVE, descriptors)
        .by(&[Rlimit])
        .with(&[Need::OpenFiles]),
    attack("descriptor-limit-raise", "raise its limit of open files above what the ring gives", STARVE, |s| {
        let more = s.open_files + 1;
        Ok(setrlimit(Resource::RLIMIT_NOFILE, more, more)?)
    })
    .by(&[Rlimit])
    .with(&[Need::OpenFiles]),
    attack(
        "exec-descriptor",
        "take the number of the descriptor by which its program was executed",
        "the launch's own exec, for another program",
        |_| {
            // SAFETY: numbers only; the copy goes with this process.
            let fd = unsafe { libc::dup2(0, crate::builtin::EXEC_FD as i32) };
            if fd < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
        },
    )
    .rings([N, N, N, D])
    .by(&[Rlimit]),
    attack(
        "core-limit-raise",
        "raise the limit of core dumps",
        "the host's core handler, started as root with its memory as input",
        |_| Ok(setrlimit(Resource::RLIMIT_CORE, 1 << 20, 1 << 20)?),
    )
    .rings([D; 4])
    .by(&[Rlimit]),
    attack(
        "survivor",
        "outlive its own end by a double fork and setsid",
        "to be there when nobody looks any more",
        survivor,
    )
    .rings([D; 4])
    .by(&[Pid, Cgroup, Seccomp])
    .with(&[Need::Survivor]),
];

fn threads(scene: &Scene) -> Answer {
    let _unused = scene;
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let mut started = Vec::new();
    let mut refused = None;
    for _ in 0..TASKS_ASKED {
        let gate = Arc::clone(&gate);
        let wait = move || {
            let (open, changed) = &*gate;
            let guard = open.lock().unwrap_or_else(PoisonError::into_inner);
            drop(changed.wait_while(guard, |open| !*open));
        };
        match std::thread::Builder::new().stack_size(64 * 1024).spawn(wait) {
            Ok(thread) => started.push(thread),
            Err(e) => {
                refused = Some(e);
                break;
            }
        }
    }
    *gate.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    gate.1.notify_all();
    for thread in started {
        // They only wait: none of them panics.
        let _ended = thread.join();
    }
    refused.map_or(Ok(()), |e| Err(e.into()))
}

fn forks(scene: &Scene) -> Answer {
    let _unused = scene;
    // The children end when the write end closes: with us, whatever becomes of us.
    let (read, write) = nix::unistd::pipe().ready("make a pipe")?;
    let mut refused = None;
    let mut children = Vec::new();
    for _ in 0..TASKS_ASKED {
        // SAFETY: single-threaded; the child makes system calls only.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop(write);
                let mut nothing = [0u8; 1];
                let _end = nix::unistd::read(read.as_fd(), &mut nothing);
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(0) }
            }
            Ok(ForkResult::Parent { child }) => children.push(child),
            Err(e) => {
                refused = Some(e);
                break;
            }
        }
    }
    drop(write);
    for child in children {
        let _reaped = nix::sys::wait::waitpid(child, None);
    }
    refused.map_or(Ok(()), |e| Err(e.into()))
}

fn memory(scene: &Scene) -> Answer {
    let _unused = scene;
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while taken.len() < MEMORY_ASKED >> 20 {
        // Written to, so that the pages are really there.
        taken.push(vec![taken.len() as u8 | 1; 1 << 20]);
    }
    let sum: usize = taken.iter().map(|block| usize::from(block[0])).sum();
    if sum > 0 { Ok(()) } else { Err(Stopped::Nothing("the memory is empty".to_owned())) }
}

fn files(scene: &Scene) -> Answer {
    let path = scene.own.join("hog");
    let mut file = std::fs::File::create(&path).ready("make a file of our own")?;
    // Nameless at once: nothing is left behind, however this ends.
    std::fs::remove_file(&path).ready("remove its name")?;
    let block = vec![1u8; 1 << 20];
    for _ in 0..MEMORY_ASKED >> 20 {
        std::io::Write::write_all(&mut file, &block)?;
    }
    Ok(())
}

fn disk(scene: &Scene) -> Answer {
    let mut file = std::fs::File::create(scene.own.join("hog")).ready("make a file of our own")?;
    let block = vec![1u8; 1 << 20];
    for _ in 0..DISK_ASKED >> 20 {
        file.write_all(&block)?;
    }
    Ok(())
}

fn sockets(scene: &Scene) -> Answer {
    let _unused = scene;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr().ready("find our own port")?;
    let block = vec![1u8; 1 << 16];
    let (mut held, mut kept) = (0, Vec::new());
    while held < MEMORY_ASKED && kept.len() < CONNECTIONS_MAX {
        let mut ours = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
        let (theirs, _) = listener.accept()?;
        ours.set_nonblocking(true).ready("make it non-blocking")?;
        // Until the kernel takes no more: what it took waits in its memory.
        while let Ok(sent) = ours.write(&block) {
            held += sent;
        }
        kept.push((ours, theirs));
    }
    if held >= MEMORY_ASKED {
        Ok(())
    } else {
        Err(Stopped::Nothing(format!("{} MiB in {} connections", held >> 20, kept.len())))
    }
}

fn cpu(scene: &Scene) -> Answer {
    let _unused = scene;
    let start = Instant::now();
    let before = cpu_time()?;
    let mut sum = 0u64;
    while start.elapsed() < CPU_WALL {
        sum = std::hint::black_box(sum.wrapping_add(1));
    }
    let share = (cpu_time()? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    if share > CPU_SHARE { Ok(()) } else { Err(Stopped::Nothing(format!("{:.0} % of a CPU", share * 100.0))) }
}

fn cpu_time() -> Result<Duration, Stopped> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    let ret = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    if ret < 0 {
        return Err(std::io::Error::last_os_error()).ready("read our CPU time");
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

fn descriptors(scene: &Scene) -> Answer {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ready("read our limit")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ready("use our limit to the full")?;
    let mut open = Vec::new();
    while open.len() as u64 <= scene.open_files + FILES_MORE {
        open.push(std::fs::File::open("/dev/null")?);
    }
    Ok(())
}

/// The grandchild holds our output open and ends with our input, which the probe closes when it has looked.
fn survivor(scene: &Scene) -> Answer {
    let _unused = scene;
    let (mut there, ready) = std::io::pipe().ready("make a pipe")?;
    // SAFETY: single-threaded; the children make system calls only.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(ready);
            let _reaped = nix::sys::wait::waitpid(child, None);
            let mut word = [0u8; 1];
            there.read_exact(&mut word).map_err(|_| Stopped::Errno(Errno::EAGAIN as i32))
        }
        ForkResult::Child => {
            let _leads = setsid();
            // SAFETY: as above.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                let _told = nix::unistd::write(&ready, b"r");
                drop(ready);
                let mut nothing = [0u8; 1];
                let _end = nix::unistd::read(std::io::stdin(), &mut nothing);
            }
            // SAFETY: ends this child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
    }
}

const _: () = assert!(TASKS_ASKED > TASKS_GIVEN as usize && MEMORY_ASKED as u64 > MEMORY_GIVEN);
