//! The supervisor's side: one launcher process, one channel per agent.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::ahead::{Ahead, Ready};
use super::groups::{self, Look};
use super::held::Process;
use super::payload;
use super::protocol::{Descriptors, FORK_WORD, From, LAUNCHER_NAME, Reply, Request, SLOTS};
use super::running::{Handed, LAUNCH_TIMEOUT, LaunchError, Prepared, Running, await_start, readable, start_prepared};
use super::streams::Streams;
use super::talk::Talk;
use crate::cgroup;
use crate::host::{Controllers, GroupOpens, Host, LaunchPath, Privilege, Tree};
use crate::plan::{self, Plan, Refused, Root, SystemTrees};
use crate::ring::Ring;
use crate::seccomp::ExecCookie;
use crate::spec::{Spec, Terminal};
use crate::sys::fdpass;

/// The launcher process.
#[derive(Debug)]
pub struct Launcher {
    talk: Mutex<Talk>,
    process: Process,
    host: Host,
    system: SystemTrees,
    cookie: ExecCookie,
    /// What our groups open where only R1 looks.
    seen_by_r1: OnceLock<Vec<GroupOpens>>,
    kept: Mutex<Kept>,
}

/// Which way to make processes the launcher takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// The fastest that works here, found by trying.
    #[default]
    WhatWorks,
    /// fork(2) and execve(2), as on hosts where nothing else works: for tests that show it to be as tight.
    Fork,
}

/// Which plans the launcher has, and what waits for them.
#[derive(Debug, Default)]
struct Kept {
    plans: Vec<Option<Plan>>,
    next: u8,
    ahead: Ahead,
    ready: Ready,
}

impl Launcher {
    /// Starts the launcher from our own executable (whose `main` must begin with [`super::become_launcher_if_asked`]) and
    /// asks it what this host offers.
    ///
    /// # Errors
    /// When the process can't be started or does not answer.
    pub fn start(controllers: Controllers) -> Result<Launcher, LaunchError> {
        Launcher::start_by(By::WhatWorks, controllers)
    }

    /// The same, with a say in how processes are made.
    ///
    /// # Errors
    /// As [`Launcher::start`].
    pub fn start_by(by: By, controllers: Controllers) -> Result<Launcher, LaunchError> {
        let at = |doing| move |source| LaunchError::Launcher { doing, source };
        let (ours, theirs) = fdpass::pair().map_err(at("making its socket"))?;
        let talk = Talk::new(ours, LAUNCH_TIMEOUT).map_err(at("making its socket"))?;
        let child = Command::new("/proc/self/exe")
            .arg0(LAUNCHER_NAME)
            .args((by == By::Fork).then_some(FORK_WORD))
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
        Ok(Launcher {
            talk: Mutex::new(talk),
            process,
            host: *host,
            system,
            cookie,
            seen_by_r1: OnceLock::new(),
            kept: Mutex::default(),
        })
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
        if spec.ring != Ring::R1 || self.host.privilege == Privilege::Root {
            return Ok(plan::compile(spec, &self.host, &trees, &self.system, self.cookie));
        }
        // We are the launcher's user, with its groups: the larger look is taken here, and only for the ring that sees so much.
        let more = self.seen_by_r1.get_or_init(|| groups::opened(self.host.privilege, Look::R1));
        let mut host = self.host.clone();
        host.groups.extend(more.iter().cloned());
        Ok(plan::compile(spec, &host, &trees, &self.system, self.cookie))
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

    /// How much is prepared before a launch asks for it. What waits and is too much by now is let go.
    pub fn prepare(&self, ahead: Ahead) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.ahead = ahead;
        kept.ready.clear();
    }

    /// How many prepared inits wait.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).ready.count()
    }

    /// The slot that holds a plan, which is handed over if it is new. The caller holds the socket's lock, so the slot can't be
    /// given to another plan before the launch is asked for.
    fn keep(&self, socket: BorrowedFd<'_>, kept: &mut Kept, plan: &Plan) -> io::Result<u8> {
        if let Some(slot) = kept.plans.iter().position(|known| known.as_ref() == Some(plan)) {
            return Ok(u8::try_from(slot).expect("slots fit a byte"));
        }
        let slot = kept.next;
        kept.next = (slot + 1) % SLOTS;
        payload::send(socket, &Request::Keep { slot, plan: Box::new(plan.clone()) }, &[])?;
        let index = usize::from(slot);
        if kept.plans.len() <= index {
            kept.plans.resize(index + 1, None);
        }
        kept.ready.forget(slot);
        // The agent's earlier plan is not launched again: what waits for it would wait for nothing.
        let earlier = kept.plans.iter().position(|known| known.as_ref().is_some_and(|known| known.name == plan.name));
        if let Some(earlier) = earlier.and_then(|slot| u8::try_from(slot).ok()) {
            kept.ready.forget(earlier);
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
        let mut fds = vec![streams.stdin.as_raw_fd(), streams.stdout.as_raw_fd(), streams.stderr.as_raw_fd()];
        // A child that can't be born in its group joins it as it does those of v1: by its first step.
        let (born, joined) = match self.host.launch {
            LaunchPath::Clone3 => (&join.into_cgroup, &None),
            LaunchPath::Fork { .. } => (&None, &join.procs),
        };
        fds.extend(born.iter().chain(&join.tasks).chain(joined).map(AsRawFd::as_raw_fd));
        let descriptors = Descriptors {
            cgroup: u8::from(born.is_some()),
            tasks: u8::try_from(join.tasks.len() + usize::from(joined.is_some())).expect("a handful of controllers"),
        };
        let handed = Handed { fds, descriptors };
        let (slot, prepared) = {
            let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = self.keep(talk.socket(), &mut kept, plan).map_err(at("handing over the plan"))?;
            (slot, kept.ready.take(slot))
        };
        let prepared = prepared.map(|channel| start_prepared(channel, &handed, plan));
        let running = match prepared {
            Some(Prepared::Done(result)) => result,
            Some(Prepared::Stale) | None => self.launch_anew(&handed, plan),
        }?;
        self.prepare_next(slot, plan);
        Ok(running)
    }

    fn launch_anew(&self, handed: &Handed, plan: &Plan) -> Result<Running, LaunchError> {
        let at = |doing| move |source| LaunchError::Launcher { doing, source };
        let (ours, theirs) = fdpass::pair().map_err(at("making the agent's channel"))?;
        let mut fds = vec![theirs.as_raw_fd()];
        fds.extend_from_slice(&handed.fds);
        {
            let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            // Again: without the lock the slot may have been given to another plan.
            let slot = self.keep(talk.socket(), &mut kept, plan).map_err(at("handing over the plan"))?;
            let from = if kept.ahead == Ahead::Nothing { From::Nothing } else { From::Layers };
            let request = Request::Launch { slot, from, descriptors: handed.descriptors };
            payload::send(talk.socket(), &request, &fds).map_err(at("asking for a launch"))?;
        }
        drop(theirs);
        await_start(ours, plan)
    }

    /// Has an init prepared for the plan's next launch. Nothing depends on it: what fails here is made at that launch.
    fn prepare_next(&self, slot: u8, plan: &Plan) {
        let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Ahead::Inits(most) = kept.ahead else { return };
        let known = kept.plans.get(usize::from(slot)).is_some_and(|known| known.as_ref() == Some(plan));
        if !known || !self.host.can_prepare(plan) || !kept.ready.launched(slot, most) {
            return;
        }
        let Ok((ours, theirs)) = fdpass::pair() else { return };
        if payload::send(talk.socket(), &Request::Prepare { slot }, &[theirs.as_raw_fd()]).is_ok() {
            kept.ready.keep(slot, ours, most);
        }
    }
}

impl Host {
    /// Whether an init can wait for a launch of this plan: in the host's own user namespace, with a root that is built, and
    /// without a terminal, which only a launch brings.
    fn can_prepare(&self, plan: &Plan) -> bool {
        self.privilege == Privilege::Root
            && plan.user_namespace.is_none()
            && matches!(plan.root, Root::Built { .. })
            && plan.terminal == Terminal::None
    }
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

impl Drop for Launcher {
    fn drop(&mut self) {
        // The end of the talk ends the launcher, and its death ends every init. Then `process` reaps it.
        self.talk.lock().unwrap_or_else(PoisonError::into_inner).hang_up();
    }
}
