//! What ordinary agents do all day: a ring that refuses it is as wrong as one that lets an attack through.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use super::{A, Answer, Attack, N, Ready, Stopped, allowed, open, raw};
use crate::probe::scene::Scene;

pub(super) const ACTS: &[Attack] = &[
    allowed("read-system", "read the system's programs and libraries", |_| {
        let tree =
            ["/usr", "/bin"].iter().map(Path::new).find(|path| path.is_dir()).ok_or("no /usr").ready("find one")?;
        if fs::read_dir(tree)?.next().is_some() { Ok(()) } else { Err(Stopped::Nothing("it is empty".to_owned())) }
    }),
    allowed("read-declared", "read a file declared for reading", |s| Ok(fs::read(s.readonly.join("file")).map(drop)?)),
    allowed("read-workdir", "read the workdir and one's own agent.yaml", |s| {
        fs::read(s.work.join("agent.yaml"))?;
        Ok(fs::read(s.work.join("file")).map(drop)?)
    }),
    allowed("write-workdir", "create, rename, link, chmod and remove files in the workdir", |s| work_with(&s.work))
        .rings([A, A, A, N]),
    allowed("own-repository", "make a repository of its own, with hooks and configuration", |s| {
        let git = s.work.join("a/.git");
        fs::create_dir_all(git.join("hooks"))?;
        fs::write(git.join("config.lock"), "[core]\n")?;
        fs::rename(git.join("config.lock"), git.join("config"))?;
        Ok(fs::write(git.join("hooks/pre-commit"), "#!/bin/sh\n")?)
    })
    .rings([A, A, A, N]),
    allowed("write-home", "the same in HOME", |s| work_with(&s.home)),
    allowed("write-tmp", "the same in the private /tmp", |s| work_with(&s.own)),
    allowed("threads", "start threads and wait for them", |_| {
        let threads: Vec<_> = (0..4).map(|n| std::thread::Builder::new().spawn(move || n)).collect::<Result<_, _>>()?;
        let sum: i32 = threads.into_iter().filter_map(|thread| thread.join().ok()).sum();
        if sum == 6 { Ok(()) } else { Err(Stopped::Nothing(format!("the sum is {sum}"))) }
    }),
    allowed("random", "get random bytes", |_| {
        let mut bytes = [0u8; 16];
        // SAFETY: the kernel writes 16 bytes.
        unsafe { raw(libc::SYS_getrandom, [bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0, 0]) }.map(drop)
    }),
    allowed("proc-self", "read /proc/self/status, /proc/self/maps, /proc/meminfo, /proc/cpuinfo", |_| {
        for path in ["/proc/self/status", "/proc/self/maps", "/proc/meminfo", "/proc/cpuinfo"] {
            if fs::read(path)?.is_empty() {
                return Err(Stopped::Nothing(format!("{path} is empty")));
            }
        }
        Ok(())
    }),
    allowed("database", "what SQLite does: lock, write at an offset, map shared, sync, truncate", database),
    allowed("terminal", "open a terminal of its own", |_| {
        let master = open(Path::new("/dev/ptmx"), OFlag::O_RDWR | OFlag::O_NOCTTY)?;
        let mut number: libc::c_uint = 0;
        // SAFETY: TIOCGPTN writes one unsigned int.
        let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
        if ret < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
    }),
    allowed("devices", "use /dev/null, /dev/zero and /dev/urandom", |_| {
        OpenOptions::new().write(true).open("/dev/null")?.write_all(b"x")?;
        let mut bytes = [1u8; 8];
        File::open("/dev/zero")?.read_exact(&mut bytes)?;
        Ok(File::open("/dev/urandom")?.read_exact(&mut bytes)?)
    }),
    allowed("jit", "map memory writable and executable (Node, Bun)", |_| {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let nowhere = -1isize as usize;
        // SAFETY: a new anonymous mapping, which goes with this process.
        unsafe { raw(libc::SYS_mmap, [0, 4096, protection as usize, flags as usize, nowhere, 0]) }.map(drop)
    }),
    allowed("socket-pair", "talk to oneself through a socket pair", |_| {
        let (mut one, mut other) = UnixStream::pair()?;
        one.write_all(b"x")?;
        let mut byte = [0u8; 1];
        Ok(other.read_exact(&mut byte)?)
    }),
    allowed("unix-socket-own", "listen and connect on a unix socket of its own", |s| {
        let path = s.own.join("s");
        let _listener = UnixListener::bind(&path)?;
        Ok(UnixStream::connect(&path).map(drop)?)
    }),
    allowed("loopback", "listen and connect on its own loopback", |_| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(TcpStream::connect(listener.local_addr()?).map(drop)?)
    })
    .rings([A, A, A, N]),
    allowed("loopback-v6", "the same by IPv6", |_| {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?;
        Ok(TcpStream::connect(listener.local_addr()?).map(drop)?)
    })
    .rings([A, A, A, N]),
    allowed("loopback-datagram", "send a datagram to itself on its own loopback", |_| {
        let (one, other) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        one.send_to(b"x", other.local_addr()?)?;
        let mut byte = [0u8; 1];
        Ok(other.recv(&mut byte).map(drop)?)
    })
    .rings([A, A, A, N]),
    allowed("loopback-listed", "find the loopback interface by netlink (what getifaddrs does)", |_| {
        super::netlink::finds("lo")
    })
    .rings([A, A, A, N]),
    allowed("child", "start a program and read what it prints", |s| {
        let child = std::process::Command::new(&s.program);
        let output = named(child).arg(super::stand::SAY_OK).output()?;
        if output.stdout.is_empty() { Err(Stopped::Nothing("it printed nothing".to_owned())) } else { Ok(()) }
    })
    .rings([A, A, A, N]),
    allowed("signals", "handle a signal of its own", |_| {
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler code.
        unsafe { sigaction(Signal::SIGUSR1, &ignore) }?;
        Ok(raise(Signal::SIGUSR1)?)
    }),
    allowed("event-loop", "epoll, eventfd and a timer", |_| {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
        use nix::sys::eventfd::EventFd;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EventFd::from_value(1)?;
        epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        let mut events = [EpollEvent::empty()];
        let ready = epoll.wait(&mut events, EpollTimeout::ZERO)?;
        if ready == 1 { Ok(()) } else { Err(Stopped::Nothing("no event came".to_owned())) }
    }),
    allowed("fifo", "make a named pipe in its private directory", |s| {
        Ok(nix::unistd::mkfifo(&s.own.join("fifo"), nix::sys::stat::Mode::S_IRWXU)?)
    })
    .rings([A, A, A, N]),
    allowed("watch-own", "watch its own directory", |s| super::files::watch_directory(&s.own)),
];

fn named(mut command: std::process::Command) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    command.arg0(crate::probe::ATTACK_NAME);
    command
}

fn work_with(dir: &Path) -> Answer {
    let path = |name: &str| -> PathBuf { dir.join(name) };
    fs::create_dir(path("act.d"))?;
    fs::write(path("act"), b"one")?;
    fs::rename(path("act"), path("act.d/two"))?;
    fs::hard_link(path("act.d/two"), path("act.d/three"))?;
    symlink("two", path("act.d/four"))?;
    fs::set_permissions(path("act.d/two"), fs::Permissions::from_mode(0o700))?;
    if fs::read(path("act.d/four"))? != b"one" {
        return Err(Stopped::Nothing("it holds something else".to_owned()));
    }
    Ok(fs::remove_dir_all(path("act.d"))?)
}

fn database(scene: &Scene) -> Answer {
    let path = scene.own.join("db");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let mut locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
    locked.seek(SeekFrom::Start(4096))?;
    locked.write_all(&[7u8; 4096])?;
    // The byte-range locks that SQLite really takes.
    let range = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&*locked, nix::fcntl::FcntlArg::F_SETLK(&range))?;
    let (protection, fd) = ((libc::PROT_READ | libc::PROT_WRITE) as usize, locked.as_raw_fd() as usize);
    // SAFETY: a shared mapping of a file that is long enough; it goes with this process.
    let at = unsafe { raw(libc::SYS_mmap, [0, 8192, protection, libc::MAP_SHARED as usize, fd, 0]) }?;
    // SAFETY: the second page of the mapping, written above.
    let byte = unsafe { std::ptr::read_volatile((at as usize + 4096) as *const u8) };
    locked.sync_all()?;
    locked.sync_data()?;
    locked.set_len(4096)?;
    fs::remove_file(&path)?;
    if byte == 7 { Ok(()) } else { Err(Stopped::Nothing("the mapping shows something else".to_owned())) }
}
