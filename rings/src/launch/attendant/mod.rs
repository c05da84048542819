//! The attendant: the process beside an agent that answers for its filter.
//!
//! A filter can leave a call to a listener ([`crate::seccomp::Options`]); the attendant holds it. It is forked by the init and confined
//! with the agent's own steps (uid, groups, capabilities, cgroup), but for two things. It has no Landlock domain, because from
//! within one nobody may look into a process of another, and it must read the paths that calls point to. And where Yama lets
//! only parents look into their children, or it answers for names, it keeps CAP_SYS_PTRACE, which reaches no further than its PID
//! and user namespace.
//! It is not dumpable, so the agent, whose uid it has, can't look into it. The agent can stop or end it: then its refused and
//! creating calls wait, or answer ENOSYS for ever. Nothing is allowed by that, and the supervisor sees the socket close.
//!
//! A prepared init has one that waits as it does, and joins the agent's groups when the first call comes in; any other launch
//! forks it once the program was executed. Either way it stands in no launch's way. The listener is made where the filter is
//! loaded, in the agent's child (and in those of its checks), and sent from there over a socket that the exec closes; nobody else
//! ever has it.

mod answer;
mod hearer;
mod pending;
mod seen;
mod teller;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

pub(super) use self::answer::{Answer, Caller, Request};
use self::hearer::Hearer;
use self::pending::Pending;
use self::teller::{OF_LEARNING, OF_REFUSALS, Teller};
use super::child::{self, For, Prepared};
use super::given::Wiring;
use super::init::replace_with_nothing;
use super::naming::Naming;
use super::protocol::Failure;
use crate::capability::Capabilities;
use crate::plan::{LeftOut, Plan};
use crate::seccomp::{Notify, Options};
use crate::sys::birth::{self, Birth, Cloned};
use crate::sys::fdpass;
use crate::sys::notify::Listener;
use crate::sys::process;

/// Listeners at once: the agent's, and those of its checks, which run one at a time but may leave something behind for a moment.
const LISTENERS_MAX: usize = 16;
/// How long an agent's end waits for the last notices.
const LAST_NOTICES_MS: u16 = 100;
/// The same after a run to learn from, whose notices are all that it is for.
const LAST_LEARNT_MS: u16 = 5000;
/// Attempts to fork it into a group whose task limit an agent has just reached.
const FORKS_MAX: usize = 3;

/// What `ps` shows of it.
const NAME: &std::ffi::CStr = c"agt-attendant";

/// What an attendant and its agent are connected by: the socket that listeners go in by, and the one that notices leave by.
pub(super) struct Door {
    /// Where the agent's child sends its listener to.
    outside: OwnedFd,
    /// The supervisor's end of the notices.
    notices: OwnedFd,
    pending: Pending,
    notify: Notify,
    state: State,
}

/// Whether the attendant is there.
enum State {
    /// Its ends of the two sockets wait for it.
    Open { inside: OwnedFd, telling: OwnedFd, options: Box<Options> },
    /// It was forked ahead, and does not know the agent's groups yet.
    Waiting(OwnedFd),
}

/// A running attendant, from the init's side.
pub(super) struct Attendant {
    pidfd: OwnedFd,
    outside: OwnedFd,
    pending: Pending,
    learns: bool,
}

/// What the attendant itself has.
struct Post {
    inside: OwnedFd,
    telling: OwnedFd,
    pending: Pending,
    options: Options,
}

/// The word to an attendant that was forked ahead; descriptors: the files by which it joins the agent's groups.
const GROUPS: &[u8] = b"groups";

impl Door {
    /// `None` for a plan whose filter asks nobody.
    pub(super) fn open(plan: &Plan) -> Result<Option<Door>, Failure> {
        let failed = |e: io::Error| Failure::new("make the attendant's sockets", &e);
        let Some(options) = plan.listens() else { return Ok(None) };
        let (outside, inside) = fdpass::pair().map_err(failed)?;
        let (notices, telling) = fdpass::pair().map_err(failed)?;
        let pending = Pending::new().map_err(failed)?;
        let state = State::Open { inside, telling, options: Box::new(*options) };
        Ok(Some(Door { outside, notices, pending, notify: plan.notify, state }))
    }

    pub(super) fn outside(&self) -> RawFd {
        self.outside.as_raw_fd()
    }

    pub(super) fn notices(&self) -> RawFd {
        self.notices.as_raw_fd()
    }

    /// Forks the attendant of a launch that is prepared: it waits.
    pub(super) fn attend_later(
        mut self,
        plan: &Plan,
        landlock: Option<&OwnedFd>,
        birth: Birth,
    ) -> Result<Door, Failure> {
        let State::Open { inside, telling, options } = self.state else { return Ok(self) };
        let agent = Prepared::new(plan, &For::Shedding, landlock, birth)?;
        let post = Post { inside, telling, pending: self.pending.clone(), options: *options };
        self.state = State::Waiting(fork(post, plan, &agent, landlock, birth)?);
        Ok(self)
    }

    /// Has an attendant for an agent that was started with this door.
    pub(super) fn attend(
        self,
        plan: &Plan,
        agent: &Prepared,
        landlock: Option<&OwnedFd>,
        wiring: &Wiring,
        birth: Birth,
    ) -> Result<Attendant, Failure> {
        let pidfd = match self.state {
            State::Open { inside, telling, options } => {
                let post = Post { inside, telling, pending: self.pending.clone(), options: *options };
                fork(post, plan, agent, landlock, birth)?
            }
            State::Waiting(pidfd) => {
                let files = groups(wiring).map_err(|e| Failure::new("open the agent's group for its attendant", &e))?;
                let fds: Vec<RawFd> = files.iter().chain(&wiring.tasks).map(AsRawFd::as_raw_fd).collect();
                fdpass::send(self.outside.as_fd(), GROUPS, &fds)
                    .map_err(|e| Failure::new("tell the attendant the agent's groups", &e))?;
                pidfd
            }
        };
        let learns = self.notify == Notify::Learn;
        Ok(Attendant { pidfd, outside: self.outside, pending: self.pending, learns })
    }
}

/// The file by which one joins the agent's cgroup v2: for whoever is not born into it.
fn groups(wiring: &Wiring) -> io::Result<Option<OwnedFd>> {
    let Some(cgroup) = &wiring.cgroup else { return Ok(None) };
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    Ok(Some(nix::fcntl::openat(cgroup, "cgroup.procs", flags, nix::sys::stat::Mode::empty())?))
}

fn fork(
    post: Post,
    plan: &Plan,
    agent: &Prepared,
    landlock: Option<&OwnedFd>,
    birth: Birth,
) -> Result<OwnedFd, Failure> {
    let mut left = FORKS_MAX;
    loop {
        // SAFETY: an init is single-threaded: it was forked by a single-threaded launcher and starts no thread.
        match unsafe { birth::fork_into(birth, 0, agent.cgroup()) } {
            // The agent may have filled its group already.
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && left > 0 => left -= 1,
            Err(e) => return Err(Failure::new("fork the attendant", &e)),
            Ok(Cloned::Child) => live(post, plan, agent, landlock),
            Ok(Cloned::Parent { pidfd, .. }) => return Ok(pidfd),
        }
    }
}

impl Attendant {
    /// What the init keeps open for it.
    pub(super) fn descriptors(&self) -> [RawFd; 2] {
        [self.pidfd.as_raw_fd(), self.outside.as_raw_fd()]
    }

    /// The agent has ended: lets the attendant tell what it still has to tell, and waits for that, not for long.
    pub(super) fn finish(&self) {
        if !self.learns && !self.pending.get() {
            return;
        }
        // Of the socket itself, whoever else has a descriptor for it: the attendant sees its end, tells the rest, and ends.
        if shutdown(self.outside.as_raw_fd(), Shutdown::Write).is_err() {
            return;
        }
        let wait = if self.learns { LAST_LEARNT_MS } else { LAST_NOTICES_MS };
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        // Interrupted or over: what was not told by now is not told.
        let _ = poll(&mut fds, PollTimeout::from(wait));
    }
}

/// The attendant's whole life.
fn live(post: Post, plan: &Plan, agent: &Prepared, landlock: Option<&OwnedFd>) -> ! {
    if let Ok(names) = confine(&post, plan, agent, landlock) {
        serve(post, plan, names);
    }
    // SAFETY: ends the process without running the exit handlers of the launcher, whose copy it is.
    unsafe { libc::_exit(0) }
}

/// Gives up what the agent does not have, and what it must not share.
fn confine(
    post: &Post,
    plan: &Plan,
    agent: &Prepared,
    landlock: Option<&OwnedFd>,
) -> io::Result<Option<Box<dyn Answer>>> {
    // First: the agent runs already, and has this uid in a moment.
    process::set_non_dumpable()?;
    process::set_name(NAME)?;
    // Programs that keep secrets (ssh-agent) make themselves non-dumpable, and make names all the same. Without a PID namespace
    // of its own it would reach the host's processes.
    let wanted = (yama_wants_a_capability() || plan.names.is_some()) && plan.namespaces & libc::CLONE_NEWPID != 0;
    let keep = if wanted && process::permitted_capabilities()?.has(process::CAP_SYS_PTRACE) {
        Capabilities::from_mask(1 << process::CAP_SYS_PTRACE)
    } else {
        Capabilities::NONE
    };
    // SAFETY: this process has one thread, which alone has its memory.
    let shed = unsafe { child::join_groups(agent).and_then(|()| child::shed_all_but(agent, keep)) };
    shed.map_err(|_| io::Error::last_os_error())?;
    // Again: a change of uid sets it anew.
    if plan.leaves_out(LeftOut::NonDumpable) { process::set_dumpable() } else { process::set_non_dumpable() }?;
    for number in 0..3 {
        replace_with_nothing(number)?;
    }
    let mut kept = vec![post.inside.as_raw_fd(), post.telling.as_raw_fd()];
    kept.extend(landlock.map(AsRawFd::as_raw_fd));
    process::close_all_but(&mut kept)?;
    names(plan, landlock.map(AsFd::as_fd))
}

/// Who answers calls that can make a name; `None` for a plan that leaves them to the kernel.
fn names(plan: &Plan, landlock: Option<BorrowedFd<'_>>) -> io::Result<Option<Box<dyn Answer>>> {
    let Some(rules) = &plan.names else { return Ok(None) };
    let landlock = landlock.map(|rules| rules.try_clone_to_owned()).transpose()?;
    Ok(Some(Box::new(Naming::new(rules.clone(), landlock))))
}

/// Whether looking into a process that is no child of ours takes a capability here.
fn yama_wants_a_capability() -> bool {
    std::fs::read("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| !scope.starts_with(b"0"))
}

/// Answers until the agent's end is told.
fn serve(post: Post, plan: &Plan, names: Option<Box<dyn Answer>>) {
    let Post { inside, telling, pending, options } = post;
    let bounds = if plan.notify == Notify::Learn { OF_LEARNING } else { OF_REFUSALS };
    let mut teller = Teller::new(telling, bounds, pending, Instant::now());
    let mut hearer: Option<Hearer> = None;
    let mut names = Some(names);
    let mut listeners: Vec<Rc<Listener>> = Vec::new();
    let mut groups: Vec<OwnedFd> = Vec::new();
    loop {
        let events = wait(&inside, &listeners, &teller);
        if events.door {
            match take(&inside) {
                Some(Taken::Groups(files)) => groups = files,
                Some(Taken::Listener(listener)) if listeners.len() < LISTENERS_MAX => {
                    listeners.push(Rc::new(listener));
                }
                Some(Taken::Listener(_)) => {}
                None => break,
            }
        }
        if events.is_asked() || hearer.is_some() {
            // From now on it works for the agent, and is paid by it.
            for group in groups.drain(..) {
                if nix::unistd::write(&group, b"0").is_err() {
                    return;
                }
            }
        }
        for (listener, event) in listeners.iter().zip(&events.listeners) {
            if event.contains(PollFlags::POLLIN)
                && let Ok(Some(waiting)) = listener.receive()
            {
                // Made when it is needed: few agents are ever refused anything.
                let hearer = hearer.get_or_insert_with(|| Hearer::new(plan.ring, options, names.take().flatten()));
                hearer.hear(listener, &waiting, &mut teller);
            }
        }
        // No task is left under that filter.
        let mut gone = events.listeners.iter().map(|event| event.intersects(PollFlags::POLLHUP | PollFlags::POLLERR));
        // One that has just come in has no event yet.
        listeners.retain(|_| !gone.next().unwrap_or(false));
        if events.room {
            teller.drain();
        }
        teller.turn(Instant::now());
    }
    teller.finish();
}

/// What a wait has ended with.
struct Events {
    door: bool,
    room: bool,
    listeners: Vec<PollFlags>,
}

impl Events {
    fn is_asked(&self) -> bool {
        self.listeners.iter().any(|event| event.contains(PollFlags::POLLIN))
    }
}

fn wait(inside: &OwnedFd, listeners: &[Rc<Listener>], teller: &Teller) -> Events {
    let room = if teller.is_stuck() { PollFlags::POLLOUT } else { PollFlags::empty() };
    let mut fds = vec![PollFd::new(inside.as_fd(), PollFlags::POLLIN), PollFd::new(teller.socket(), room)];
    // A socket without a reader is always ready with that news, which changes nothing here.
    let from = if room.is_empty() { fds.pop().map_or(1, |_| 1) } else { 2 };
    fds.extend(listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
    let timeout = teller.due().map_or(PollTimeout::NONE, |due| {
        let left = due.saturating_duration_since(Instant::now()) + std::time::Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    while poll(&mut fds, timeout) == Err(Errno::EINTR) {}
    let happened = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
    Events {
        door: !happened(&fds[0]).is_empty(),
        room: from == 2 && !happened(&fds[1]).is_empty(),
        listeners: fds[from..].iter().map(happened).collect(),
    }
}

/// What comes in by the door.
enum Taken {
    Listener(Listener),
    Groups(Vec<OwnedFd>),
}

/// The next; `None` once nothing more will come.
fn take(inside: &OwnedFd) -> Option<Taken> {
    let (word, fds) = fdpass::receive(inside.as_fd()).ok()??;
    if word == GROUPS {
        return Some(Taken::Groups(fds));
    }
    let listener = Listener::new(fds.into_iter().next()?);
    listener.take_turns();
    Some(Taken::Listener(listener))
}
