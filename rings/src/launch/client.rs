//! The supervisor's side: one launcher process, one channel per agent.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::check::Checker;
use super::held::Process;
use super::protocol::{Descriptors, LAUNCHER_NAME, Reply, Request, SLOTS, Usage, Word};
use super::streams::{Stream, Streams};
use super::talk::Talk;
use crate::cgroup;
use crate::host::{Controllers, Host, Tree};
use crate::plan::{self, Plan, Refused, SystemTrees};
use crate::seccomp::ExecCookie;
use crate::spec::Spec;
use crate::sys::{fdpass, process};

/// How long a launch may take before it is given up and ended. A launch takes milliseconds; this bounds a hung filesystem.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a launch failed. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher process could not be started or is gone.
    #[error("the launcher process can't be reached ({doing})")]
    Launcher {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step inside the launch failed.
    #[error("launch step `{step}` failed")]
    Step {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A standard stream would open more than bytes.
    #[error("{stream} is {kind}: inside the ring it would be a way out of it")]
    Unfit {
        /// Which.
        stream: Stream,
        /// What it is.
        kind: &'static str,
    },
    /// The init ended before it said anything.
    #[error("the launch ended without a word: killed, or out of memory in its own limits")]
    Silent,
    /// It took longer than the bound.
    #[error("the launch did not finish within {} s", LAUNCH_TIMEOUT.as_secs())]
    Timeout,
}

/// A running agent, known by descriptors and never by a number that could be recycled.
#[derive(Debug)]
pub struct Running {
    channel: OwnedFd,
    init: OwnedFd,
    agent: OwnedFd,
    listeners: Vec<TcpListener>,
    checker: Option<Checker>,
    pid: i32,
    nested: bool,
}

/// How an agent's main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself or by a signal; the usage holds the status of wait(2).
    Ended(Usage),
    /// The whole tree was ended from outside, init included (kill, memory limit, launcher's death): no status exists.
    Taken,
}

impl Running {
    /// The agent's pid on the host.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The channel: readable when the exit can be read with [`Running::read_exit`].
    #[must_use]
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// The pidfd of the init: readable once everything in the namespace is gone.
    #[must_use]
    pub fn init(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// Takes the listeners made inside the agent's network namespace, in the plan's order.
    pub fn take_listeners(&mut self) -> Vec<TcpListener> {
        std::mem::take(&mut self.listeners)
    }

    /// Takes the way to have the plan's check run beside the agent; `None` if it has none.
    pub fn take_checker(&mut self) -> Option<Checker> {
        self.checker.take()
    }

    /// Sends a signal to the agent's main process.
    ///
    /// # Errors
    /// ESRCH once it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        process::pidfd_send_signal(self.agent.as_fd(), signal)
    }

    /// Ends the init with SIGKILL: in a PID namespace the kernel then ends the whole tree.
    ///
    /// # Errors
    /// ESRCH once it has ended.
    pub fn kill_init(&self) -> io::Result<()> {
        process::pidfd_send_signal(self.init.as_fd(), libc::SIGKILL)
    }

    /// Whether the init is one of a PID namespace, so that nothing of the tree outlives it.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.nested
    }

    /// Blocks until the init has ended: with it, in a PID namespace, the whole tree.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait_gone(&self, timeout: Duration) -> io::Result<bool> {
        readable(self.init.as_fd(), timeout)
    }

    /// Reads how the agent ended; blocks until it has.
    ///
    /// # Errors
    /// A malformed word, or what recvmsg(2) says.
    pub fn read_exit(&self) -> io::Result<Exit> {
        match fdpass::receive(self.channel.as_fd())? {
            None => Ok(Exit::Taken),
            Some((bytes, _)) => match serde_json::from_slice(&bytes)? {
                Word::Exited(usage) => Ok(Exit::Ended(usage)),
                word => Err(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected word {word:?}"))),
            },
        }
    }
}

/// The launcher process.
#[derive(Debug)]
pub struct Launcher {
    talk: Mutex<Talk>,
    process: Process,
    host: Host,
    system: SystemTrees,
    cookie: ExecCookie,
    kept: Mutex<Kept>,
}

/// Which plans the launcher has.
#[derive(Debug, Default)]
struct Kept {
    plans: Vec<Option<Plan>>,
    next: u8,
}

impl Launcher {
    /// Starts the launcher from our own executable (whose `main` must begin with [`super::become_launcher_if_asked`]) and
    /// asks it what this host offers.
    ///
    /// # Errors
    /// When the process can't be started or does not answer.
    pub fn start(controllers: Controllers) -> Result<Launcher, LaunchError> {
        let at = |doing| move |source| LaunchError::Launcher { doing, source };
        let (ours, theirs) = fdpass::pair().map_err(at("making its socket"))?;
        let talk = Talk::new(ours, LAUNCH_TIMEOUT).map_err(at("making its socket"))?;
        let child = Command::new("/proc/self/exe")
            .arg0(LAUNCHER_NAME)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .current_dir("/")
            .spawn()
            .map_err(at("starting it"))?;
        let process = Process::hold(child).map_err(at("getting hold of it"))?;
        // Let go of before the process is, wherever this fails: it is what the process ends for.
        let mut talk = talk;
        let reply = talk.ask(|id| Request::Detect { id }).map_err(at("asking what this host offers"))?;
        let Reply::Host(mut host, system) = reply else {
            return Err(at("asking what this host offers")(unexpected(&reply)));
        };
        host.controllers = controllers;
        let cookie = ExecCookie::new(random().map_err(at("asking for random bits"))?);
        Ok(Launcher { talk: Mutex::new(talk), process, host: *host, system, cookie, kept: Mutex::default() })
    }

    /// A descriptor that is readable once the launcher is gone, and with it every agent that it started.
    #[must_use]
    pub fn gone(&self) -> BorrowedFd<'_> {
        self.process.gone()
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        readable(self.gone(), Duration::ZERO).unwrap_or(true)
    }

    /// What this host offers.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The launcher's pid: it belongs to the supervisor's own cgroup.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Makes a plan for this host.
    ///
    /// # Errors
    /// `Ok(Err(refused))` when the host can't enforce the ring as asked for.
    pub fn compile(&self, spec: &Spec) -> Result<Result<Plan, Refused>, LaunchError> {
        let paths: Vec<PathBuf> = spec.files.iter().map(|rule| rule.path.clone()).collect();
        let trees = self.inspect(&paths)?;
        Ok(plan::compile(spec, &self.host, &trees, &self.system, self.cookie))
    }

    /// Who owns these trees, on which file systems, and whether they can be id-mapped; in the order of `paths`.
    ///
    /// # Errors
    /// When one of them can't be looked at.
    pub fn inspect(&self, paths: &[PathBuf]) -> Result<Vec<Tree>, LaunchError> {
        let at = |source| LaunchError::Launcher { doing: "looking at the files of the agent", source };
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = talk.ask(|id| Request::Inspect { id, paths: paths.to_vec() }).map_err(at)?;
        drop(talk);
        match reply {
            Reply::Trees(trees) if trees.iter().map(|tree| &tree.path).eq(paths) => Ok(trees),
            other => Err(at(unexpected(&other))),
        }
    }

    /// The slot that holds a plan, which is handed over if it is new. The caller holds the socket's lock, so the slot can't be
    /// given to another plan before the launch is asked for.
    fn keep(&self, socket: BorrowedFd<'_>, plan: &Plan) -> io::Result<u8> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = kept.plans.iter().position(|known| known.as_ref() == Some(plan)) {
            return Ok(u8::try_from(slot).expect("slots fit a byte"));
        }
        let slot = kept.next;
        kept.next = (slot + 1) % SLOTS;
        send(socket, &Request::Keep { slot, plan: Box::new(plan.clone()) }, &[])?;
        let index = usize::from(slot);
        if kept.plans.len() <= index {
            kept.plans.resize(index + 1, None);
        }
        kept.plans[index] = Some(plan.clone());
        Ok(slot)
    }

    /// Launches a plan into a cgroup. Blocks until the program was executed (milliseconds) or the launch has failed.
    ///
    /// # Errors
    /// The failing step; nothing is left running then.
    pub fn launch(&self, plan: &Plan, streams: &Streams, join: &cgroup::Join) -> Result<Running, LaunchError> {
        let at = |doing| move |source| LaunchError::Launcher { doing, source };
        if let Some((stream, kind)) = streams.unfit().map_err(at("looking at the standard streams"))? {
            return Err(LaunchError::Unfit { stream, kind });
        }
        let (ours, theirs) = fdpass::pair().map_err(at("making the agent's channel"))?;
        let mut fds: Vec<RawFd> =
            vec![theirs.as_raw_fd(), streams.stdin.as_raw_fd(), streams.stdout.as_raw_fd(), streams.stderr.as_raw_fd()];
        fds.extend(join.into_cgroup.iter().map(AsRawFd::as_raw_fd));
        fds.extend(join.tasks.iter().map(AsRawFd::as_raw_fd));
        let descriptors = Descriptors {
            cgroup: u8::from(join.into_cgroup.is_some()),
            tasks: u8::try_from(join.tasks.len()).expect("a handful of controllers"),
        };
        {
            let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = self.keep(talk.socket(), plan).map_err(at("handing over the plan"))?;
            send(talk.socket(), &Request::Launch { slot, descriptors }, &fds).map_err(at("asking for a launch"))?;
        }
        drop(theirs);
        await_start(ours, plan)
    }
}

/// Waits for the first word on the channel. Dropping the channel ends the init, so every error path leaves nothing behind.
fn await_start(channel: OwnedFd, plan: &Plan) -> Result<Running, LaunchError> {
    let at = |source| LaunchError::Launcher { doing: "waiting for the agent to start", source };
    if !readable(channel.as_fd(), LAUNCH_TIMEOUT).map_err(at)? {
        return Err(LaunchError::Timeout);
    }
    let Some((bytes, fds)) = fdpass::receive(channel.as_fd()).map_err(at)? else { return Err(LaunchError::Silent) };
    match serde_json::from_slice(&bytes).map_err(|e| at(e.into()))? {
        Word::Started => {
            let mut fds = fds.into_iter();
            let (Some(init), Some(agent)) = (fds.next(), fds.next()) else {
                return Err(at(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing")));
            };
            let checker = if plan.check.is_some() { fds.next().map(Checker::new) } else { None };
            let listeners: Vec<TcpListener> = fds.map(TcpListener::from).collect();
            if listeners.len() != plan.listen.len() || checker.is_some() != plan.check.is_some() {
                return Err(at(io::Error::new(io::ErrorKind::InvalidData, "listeners or the checker are missing")));
            }
            let pid = pid_of(agent.as_fd()).map_err(at)?;
            let nested = plan.namespaces & libc::CLONE_NEWPID != 0;
            Ok(Running { channel, init, agent, listeners, checker, pid, nested })
        }
        Word::Failed(failure) => {
            Err(LaunchError::Step { step: failure.step, source: io::Error::from_raw_os_error(failure.errno) })
        }
        Word::Exited(_) => Err(at(io::Error::new(io::ErrorKind::InvalidData, "it exited before it started"))),
    }
}

/// The host pid behind a pidfd: the kernel's own word (`Pid:` in fdinfo), -1 once the process was reaped.
fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Pid line in fdinfo"))
}

/// 64 random bits.
fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn unexpected(reply: &Reply) -> io::Error {
    match reply {
        Reply::Failed(reason) => io::Error::other(reason.clone()),
        _ => io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"),
    }
}

pub(super) fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut fds, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Puts a value into a memfd and sends it with the other descriptors behind it.
pub(super) fn send<T: serde::Serialize>(socket: BorrowedFd<'_>, value: &T, fds: &[RawFd]) -> io::Result<()> {
    let mut payload = File::from(memfd_create(c"agt-request", MFdFlags::MFD_CLOEXEC)?);
    payload.write_all(&serde_json::to_vec(value)?)?;
    payload.rewind()?;
    let mut all = vec![payload.as_raw_fd()];
    all.extend_from_slice(fds);
    fdpass::send(socket, b"m", &all)
}

/// Reads the memfd of a message.
pub(super) fn read_payload(fds: Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let Some(first) = fds.into_iter().next() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message without its payload"));
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut File::from(first), &mut bytes)?;
    Ok(bytes)
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The end of the talk ends the launcher, and its death ends every init. Then `process` reaps it.
        self.talk.lock().unwrap_or_else(PoisonError::into_inner).hang_up();
    }
}
