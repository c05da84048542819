//! The first process of an agent's namespaces: builds the view, starts the agent, reaps, reports, and takes the tree along.
//!
//! It stays what it was forked as: no exec, so it needs no program in the agent's view. Once the agent runs it holds no
//! capability, can't be traced, and waits for three things only: a child that ended, a supervisor that is gone, or one that asks
//! for a socket of the agent's network ([`super::entrance`]).

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::attendant::{Attendant, Door};
use super::child::{self, For, Prepared};
use super::entrance::{Asked, Maker};
use super::given::Given;
use super::lent::MADE_BY_LAUNCHER;
use super::oom::Score;
use super::protocol::{Failure, From, Usage, Word};
use super::ready::{self, Told};
use super::root::{Basis, Ground};
use super::server::tell;
use super::{checker, rules};
use crate::capability::Capabilities;
use crate::plan::{LeftOut, Plan};
use crate::spec::Terminal;
use crate::sys::{fdpass, mount, net, process};

/// File watchers of an agent in a user namespace: half of what a user usually has.
const INOTIFY_INSTANCES_MAX: u32 = 64;
/// Files that they watch together; a large project has some ten thousand folders.
const INOTIFY_WATCHES_MAX: u32 = 65_536;

/// What ps(1) shows of it: 15 bytes at most.
const INIT_NAME: &std::ffi::CStr = c"agt-init";

/// Runs as the init; never returns.
pub(super) fn run(plan: &Plan, given: &mut Given) -> ! {
    if let Err(failure) = live(plan, given) {
        tell(given.channel.as_fd(), &Word::Failed(failure));
    }
    // SAFETY: ends the process without running the launcher's exit handlers; in a PID namespace the kernel ends the rest.
    unsafe { libc::_exit(0) }
}

/// What an init has made before anything of its agent is there.
struct Made {
    basis: Basis,
    listeners: Vec<TcpListener>,
    landlock: Option<OwnedFd>,
    signals: SignalFd,
    score: Score,
}

fn live(plan: &Plan, given: &mut Given) -> Result<(), Failure> {
    if given.wiring.is_none() {
        // It waits for long: with a copy of another's channel, or of the launcher's own, it would hide that one's end.
        process::close_all_but(&mut given.numbers())
            .and_then(|()| replace_with_nothing(0))
            .map_err(|e| Failure::new("let go of what belongs to others", &e))?;
    }
    let made = make(plan, given);
    let (made, wiring, door) = match (given.wiring.take(), given.mounts.take()) {
        (Some(wiring), _) => (made?, wiring, Door::open(plan)?),
        (None, Some(mounts)) => {
            // Why it could not be made is told by the launch that is then made without it.
            let Ok(made) = made else {
                tell(given.channel.as_fd(), &Word::Stale);
                return Ok(());
            };
            let door = Door::open(plan)?
                .map(|door| door.attend_later(plan, made.landlock.as_ref(), given.birth))
                .transpose()?;
            match ready::wait(given, &mounts, &made.basis)? {
                Told::Go(wiring) => (made, wiring, door),
                Told::Over => return Ok(()),
            }
        }
        (None, None) => return Ok(()),
    };
    let Made { listeners, landlock, signals, score, .. } = made;
    let mut prepared = Prepared::new(plan, &For::Agent(&wiring), landlock.as_ref(), given.birth)?;
    let outside = door.as_ref().map(Door::outside);
    prepared.listen(outside);
    score.raise().map_err(|e| Failure::new("raise oom_score_adj", &e))?;
    // Before the agent: so it is confined and sealed by the time anybody could look at it.
    let checker = checker::start(plan, &prepared, landlock.as_ref(), given.birth, outside)?;
    let agent = child::start(&prepared)?;
    score.put_back().map_err(|e| Failure::new("put oom_score_adj back", &e))?;
    let maker = announce(given, plan, &agent, checker, door.as_ref().map(Door::notices), listeners)?;
    // After the program was executed, unless it waits already: calls that need it wait for it.
    let attendant =
        door.map(|door| door.attend(plan, &prepared, landlock.as_ref(), &wiring, given.birth)).transpose()?;
    // What was built for the launch (the agent's environment among it) is not kept beside a running agent; which groups the
    // agent joins is decided, and the way into them is closed; its streams are let go of, so that their ends are seen.
    drop((prepared, landlock, wiring));
    let beside = Beside { attendant: attendant.as_ref(), maker: maker.as_ref() };
    settle(given, plan, &signals, &agent, &beside)?;
    watch(given, &agent, &beside, &signals, plan.namespaces & libc::CLONE_NEWPID != 0)
}

/// Makes everything that needs neither the agent's streams nor its groups.
fn make(plan: &Plan, given: &mut Given) -> Result<Made, Failure> {
    let failed = |step: &'static str| move |e: std::io::Error| Failure::new(step, &e);
    process::set_parent_death_signal(libc::SIGKILL).map_err(failed("ask for the parent death signal"))?;
    process::set_name(INIT_NAME).map_err(failed("take a name"))?;
    if is_readable(given.launcher.as_fd()) {
        return Err(Failure { step: "see the launcher alive".to_owned(), errno: 0 });
    }
    nix::unistd::setsid().map_err(|e| Failure::new("setsid", &e.into()))?;
    if let Some(gate) = given.go.take() {
        let mut go = [0u8; 1];
        match nix::unistd::read(&gate, &mut go) {
            Ok(1) => {}
            _ => return Err(Failure { step: "wait for the id map".to_owned(), errno: 0 }),
        }
    }
    let score = Score::open(given.help.as_ref()).map_err(failed("read oom_score_adj"))?;
    limit_watches(plan).map_err(failed("limit the file watches"))?;
    let wired = given.wiring.as_ref().filter(|_| plan.terminal == Terminal::Controlling);
    let terminal = wired.map(|wiring| wiring.streams[0].as_fd());
    let ground = match &given.help {
        Some(help) => {
            let offer = (help.from == From::Layers).then(|| help.socket.as_fd());
            Ground::Host { host: &help.host, kept: help.kept.as_deref(), offer }
        }
        None => Ground::Own,
    };
    let basis = super::root::enter(&plan.root, plan.ids, &given.maps, terminal, &ground)?;
    if plan.leaves_out(LeftOut::NoNewPrivileges) {
        mount::allow_set_id(std::path::Path::new("/")).map_err(failed("let set-id programs be"))?;
    }
    given.maps.clear();
    if plan.namespaces & libc::CLONE_NEWUTS != 0 {
        nix::unistd::sethostname(&plan.name).map_err(|e| Failure::new("set the host name", &e.into()))?;
    }
    if plan.namespaces & libc::CLONE_NEWPID == 0 {
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map_err(failed("become a subreaper"))?;
    }
    // The agent's child and we ourselves drop the rest and look: here it is done while the launcher is at work.
    process::drop_bounding_set_but(plan.capabilities)
        .or_else(ignore_eperm)
        .map_err(failed("lower the init's bounding set"))?;
    let landlock = rules::landlock(plan)?;
    let signals = child_signals()?;
    namespaces(plan, given)?;
    let listeners = listen(plan)?;
    Ok(Made { basis, listeners, landlock, signals, score })
}

/// In a user namespace file watches are also counted for the user who started it: without a limit of its own an agent takes
/// all that the user has. Such a limit belongs to the user namespace in which it is written.
fn limit_watches(plan: &Plan) -> std::io::Result<()> {
    if plan.user_namespace.is_none() || !in_namespace_of_one()? {
        return Ok(());
    }
    for (name, most) in [("max_inotify_instances", INOTIFY_INSTANCES_MAX), ("max_inotify_watches", INOTIFY_WATCHES_MAX)]
    {
        let path = format!("/proc/sys/user/{name}");
        match fs::write(&path, most.to_string()) {
            // A kernel without inotify, or a /proc that can't be written: the user's own limit holds.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EROFS | libc::EACCES | libc::EPERM)) => {}
            written => written?,
        }
    }
    Ok(())
}

/// Whether we are in a user namespace that maps one single uid, as ours do: the host's maps all of them.
fn in_namespace_of_one() -> std::io::Result<bool> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let mut lines = map.lines();
    let count = lines.next().and_then(|line| line.split_whitespace().nth(2));
    Ok(count == Some("1") && lines.next().is_none())
}

/// The namespaces that were not made with the init.
fn namespaces(plan: &Plan, given: &Given) -> Result<(), Failure> {
    let failed = |step: &'static str| move |e: std::io::Error| Failure::new(step, &e);
    let Some(help) = &given.help else {
        return if plan.namespaces & libc::CLONE_NEWNET == 0 {
            Ok(())
        } else {
            net::loopback_up().map_err(failed("bring up loopback"))
        };
    };
    let made = fdpass::receive(help.socket.as_fd()).map_err(failed("hear the launcher"))?;
    let mut made = made.into_iter().flat_map(|(_, fds)| fds);
    if let (Some(network), Some(ipc)) = (made.next(), made.next()) {
        process::enter_namespace(network.as_fd(), libc::CLONE_NEWNET).map_err(failed("enter the network namespace"))?;
        return process::enter_namespace(ipc.as_fd(), libc::CLONE_NEWIPC).map_err(failed("enter the IPC namespace"));
    }
    let missing = plan.namespaces & MADE_BY_LAUNCHER;
    process::unshare(missing).map_err(failed("make the network and IPC namespaces"))?;
    if missing & libc::CLONE_NEWNET == 0 {
        return Ok(());
    }
    net::loopback_up().map_err(failed("bring up loopback"))
}

fn listen(plan: &Plan) -> Result<Vec<TcpListener>, Failure> {
    if plan.namespaces & libc::CLONE_NEWNET == 0 {
        return Ok(Vec::new());
    }
    plan.listen
        .iter()
        .map(|listen| {
            TcpListener::bind(listen.address)
                .map_err(|e| Failure::new(format!("listen at {} inside the ring", listen.address), &e))
        })
        .collect()
}

fn child_signals() -> Result<SignalFd, Failure> {
    let failed = |e: nix::errno::Errno| Failure::new("watch for ended children", &e.into());
    // The launcher ignores SIGCHLD so that the kernel reaps its inits; an init wants to know.
    // SAFETY: the default disposition runs no code of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map_err(failed)?;
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// Tells the start; our end of the way into the agent's network, if there is one.
fn announce(
    given: &Given,
    plan: &Plan,
    agent: &child::Agent,
    checker: Option<OwnedFd>,
    notices: Option<RawFd>,
    listeners: Vec<TcpListener>,
) -> Result<Option<Maker>, Failure> {
    let failed = |e: std::io::Error| Failure::new("report the start", &e);
    // The agent runs already, and has no copy.
    let (maker, theirs) = Maker::of(plan).map_err(failed)?.unzip();
    let ourselves = process::pidfd_open(nix::unistd::getpid().as_raw()).map_err(failed)?;
    let mut fds: Vec<RawFd> = vec![ourselves.as_raw_fd(), agent.pidfd.as_raw_fd()];
    fds.extend(checker.iter().map(AsRawFd::as_raw_fd));
    fds.extend(notices);
    fds.extend(theirs.iter().map(AsRawFd::as_raw_fd));
    fds.extend(listeners.iter().map(AsRawFd::as_raw_fd));
    let bytes = serde_json::to_vec(&Word::Started).map_err(|e| failed(e.into()))?;
    fdpass::send(given.channel.as_fd(), &bytes, &fds).map_err(failed)?;
    Ok(maker)
}

/// What an init has beside its agent.
struct Beside<'a> {
    attendant: Option<&'a Attendant>,
    maker: Option<&'a Maker>,
}

/// Gives up everything that only the launch needed: descriptors, capabilities, dumpability.
fn settle(
    given: &Given,
    plan: &Plan,
    signals: &SignalFd,
    agent: &child::Agent,
    beside: &Beside<'_>,
) -> Result<(), Failure> {
    let failed = |step: &'static str| move |e: std::io::Error| Failure::new(step, &e);
    // First: where the agent has our uid, it could look into us from the moment at which we have no more capabilities than it.
    let dumpable =
        if plan.leaves_out(LeftOut::NonDumpable) { process::set_dumpable() } else { process::set_non_dumpable() };
    dumpable.map_err(failed("become non-dumpable"))?;
    for number in 0..3 {
        replace_with_nothing(number).map_err(failed("let go of the launcher's streams"))?;
    }
    // All that came with the fork: the host's root, what is kept for other launches. Nobody unwinds here, so who owned one of
    // these numbers never closes it again.
    let mut kept =
        vec![given.channel.as_raw_fd(), given.launcher.as_raw_fd(), signals.as_raw_fd(), agent.pidfd.as_raw_fd()];
    kept.extend(beside.attendant.map(Attendant::descriptors).into_iter().flatten());
    kept.extend(beside.maker.map(|maker| maker.as_fd().as_raw_fd()));
    process::close_all_but(&mut kept).map_err(failed("let go of the launcher's descriptors"))?;
    process::drop_bounding_set_but(Capabilities::NONE)
        .or_else(ignore_eperm)
        .map_err(failed("empty the init's bounding set"))?;
    // Without a PID namespace it ends the tree by signals, and the tree has another uid than it.
    let ends_others = plan.ids.is_some() && plan.namespaces & libc::CLONE_NEWPID == 0;
    let keep = Capabilities::from_mask(if ends_others { 1 << process::CAP_KILL } else { 0 });
    process::drop_capabilities_but(keep).map_err(failed("drop the init's capabilities"))?;
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(failed("set no_new_privs"))?;
    process::set_parent_death_signal(libc::SIGKILL).map_err(failed("ask for the parent death signal again"))
}

fn ignore_eperm(e: std::io::Error) -> std::io::Result<()> {
    // Without CAP_SETPCAP (no namespaces, no root) there is nothing in the set that no_new_privs does not already deny.
    if e.raw_os_error() == Some(libc::EPERM) { Ok(()) } else { Err(e) }
}

pub(super) fn replace_with_nothing(number: RawFd) -> std::io::Result<()> {
    let null = nix::sys::memfd::memfd_create(c"agt-nothing", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    // SAFETY: both numbers are open descriptors of this process; the target is replaced in one step.
    let ret = unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) };
    if ret < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until the agent ends or the supervisor is gone; makes the sockets that it is asked for meanwhile.
fn watch(
    given: &Given,
    agent: &child::Agent,
    beside: &Beside<'_>,
    signals: &SignalFd,
    has_namespace: bool,
) -> Result<(), Failure> {
    let failed = |e: nix::errno::Errno| Failure::new("watch the agent", &e.into());
    let mut maker = beside.maker;
    loop {
        let watched = [signals.as_fd(), given.channel.as_fd()].into_iter().chain(maker.map(AsFd::as_fd));
        let mut fds: Vec<_> = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
        let happened = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
        let supervisor_gone = happened(fds.get(1));
        if happened(fds.get(2)) {
            maker = maker.filter(|maker| maker.answer() == Asked::Still);
        }
        while signals.read_signal().map_err(failed)?.is_some() {}
        if let Some(usage) = reap(agent.pid)? {
            if let Some(attendant) = beside.attendant {
                attendant.finish();
            }
            if !has_namespace {
                end_descendants();
            }
            tell(given.channel.as_fd(), &Word::Exited(usage));
            return Ok(());
        }
        if supervisor_gone {
            if !has_namespace {
                end_descendants();
            }
            return Ok(());
        }
    }
}

/// Reaps everything that has ended; says so when the agent was among it.
fn reap(agent: i32) -> Result<Option<Usage>, Failure> {
    let mut ended = None;
    loop {
        let mut status = 0;
        // SAFETY: rusage is plain old data; all zeroes is a valid value.
        let mut used: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live locals.
        let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut used) };
        match pid {
            0 => return Ok(ended),
            -1 => {
                let error = std::io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::ECHILD) => return Ok(ended),
                    _ => return Err(Failure::new("reap", &error)),
                }
            }
            pid if pid == agent => {
                let micros = |t: libc::timeval| t.tv_sec.unsigned_abs() * 1_000_000 + t.tv_usec.unsigned_abs();
                ended = Some(Usage {
                    status,
                    user_us: micros(used.ru_utime),
                    system_us: micros(used.ru_stime),
                    max_rss_kib: used.ru_maxrss.unsigned_abs(),
                });
            }
            _ => {}
        }
    }
}

/// Without a PID namespace: as subreaper every orphan becomes our child, so killing children until there are none ends the tree. Without
/// a bound: who gave up would leave the rest to nobody, and each round ends whoever has been born since the last.
fn end_descendants() {
    let pid = nix::unistd::getpid();
    let children = format!("/proc/self/task/{pid}/children");
    while let Ok(text) = fs::read_to_string(&children) {
        let pids: Vec<i32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // A child of ours that we have not reaped: its number can't have been given to another.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = nix::sys::wait::waitpid(None, None);
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
}
