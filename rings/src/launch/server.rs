//! The launcher process: reads requests, clones inits, and does nothing else.
//!
//! As root it does two things for an init: it makes the network and IPC namespaces ([`lent`](super::lent)), and it keeps the layer of
//! the root that is the same at each launch. That is dropped as soon as anything is mounted or unmounted on the host, and nothing is kept that an agent has been in.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::ahead::READY_MAX;
use super::client::By;
use super::given::{Given, Help, Wiring};
use super::lent::{self, HostSide, MADE_BY_LAUNCHER, Spare};
use super::protocol::{Answer, Descriptors, FORK_WORD, Failure, From, LAUNCHER_NAME, Reply, Request, Word};
use super::root::Kept;
use super::{detect, init, payload};
use crate::host::Privilege;
use crate::plan::{Ids, Plan, Root};
use crate::sys::birth::{self, Birth, Cloned};
use crate::sys::{fdpass, process};

/// Becomes the launcher when this process was started as one. Must be the first thing in `main`: the process must still be
/// single-threaded. Returns at once in every other process.
pub fn become_launcher_if_asked() {
    let is_launcher = std::env::args_os().next().is_some_and(|name| name.as_bytes() == LAUNCHER_NAME.as_bytes());
    if !is_launcher {
        return;
    }
    let code = match serve() {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("agt-launcher: {e}");
            70
        }
    };
    std::process::exit(code);
}

fn serve() -> io::Result<()> {
    // An exec of /proc/self/exe leaves `exe` there, which tells nobody anything.
    process::set_name(c"agt-launcher")?;
    // Roots are made of folders that other uids walk through, and agents start alike whoever starts the supervisor.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // A Ctrl-C at the terminal is the supervisor's to interpret.
    nix::unistd::setsid()?;
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::SA_NOCLDWAIT, SigSet::empty());
    // SAFETY: no handler code; ended inits are reaped by the kernel.
    unsafe { sigaction(Signal::SIGCHLD, &ignore) }?;
    let asked_for =
        if std::env::args_os().nth(1).is_some_and(|word| word == FORK_WORD) { By::Fork } else { By::WhatWorks };
    let (birth, path) = detect::launch_path(asked_for);
    let privilege = detect::privilege();
    if privilege == Privilege::Root {
        // An unprivileged launcher must stay dumpable: the kernel lets nobody write the id maps of its children else.
        process::set_non_dumpable()?;
    }
    // Attendants are forks of forks of ours: each makes a policy, and finds what that needs read already.
    crate::seccomp::read_tables();
    let socket = std::io::stdin();
    let socket = socket.as_fd();
    let ourselves = process::pidfd_open(nix::unistd::getpid().as_raw())?;
    let mut bench = Bench { ourselves, birth, maps: KnownMaps::new(birth), host: None };
    if privilege == Privilege::Root {
        bench.host = Some(HostSide::open(MOUNTS)?);
    }
    let mut slots: Vec<Slot> = Vec::new();
    let mut wanted = VecDeque::new();
    loop {
        match bench.wait(socket, &wanted)? {
            Woken::Request => {}
            Woken::Mounts => {
                slots.iter_mut().for_each(Slot::forget);
                continue;
            }
            Woken::Idle => {
                if let Some((slot, channel)) = wanted.pop_front() {
                    prepare(slots.get_mut(usize::from(slot)), channel, &mut bench);
                } else if let Some(host) = &mut bench.host {
                    host.lay_by();
                }
                continue;
            }
        }
        let Some((bytes, fds)) = fdpass::receive(socket)? else { return Ok(()) };
        let (request, fds) = payload::read(bytes, fds)?;
        match serde_json::from_slice(&request)? {
            Request::Detect { id } => {
                let (host, system) = detect::host(privilege, birth, path.clone());
                payload::send(socket, &Answer { id, reply: Reply::Host(Box::new(host), system) }, &[])?;
            }
            Request::Inspect { id, paths } => {
                let trees: Result<Vec<_>, String> =
                    paths.iter().map(|path| detect::tree(path, privilege, &mut bench.maps)).collect();
                payload::send(socket, &Answer { id, reply: trees.map_or_else(Reply::Failed, Reply::Trees) }, &[])?;
            }
            Request::Keep { slot, plan } => {
                let index = usize::from(slot);
                if slots.len() <= index {
                    slots.resize_with(index + 1, Slot::default);
                }
                slots[index] = Slot { plan: Some(plan), ..Slot::default() };
            }
            // A slot that was never filled, or other descriptors than were announced: all are dropped, which the supervisor sees
            // as an end of file.
            Request::Launch { slot, from, descriptors } => {
                let Some(slot) = slots.get_mut(usize::from(slot)) else { continue };
                launch(slot, from, Given::for_launch(descriptors, fds, &bench), &mut bench);
            }
            Request::Prepare { slot } => {
                // Of too many the oldest goes, as it does with the supervisor.
                wanted.extend(fds.into_iter().next().map(|channel| (slot, channel)));
                wanted.drain(..wanted.len().saturating_sub(READY_MAX));
            }
        }
    }
}

/// The mounts of the host, as this process sees them: poll(2) tells of each change since the descriptor was opened.
const MOUNTS: &str = "/proc/self/mountinfo";
/// What each launch needs of the launcher.
struct Bench {
    ourselves: OwnedFd,
    birth: Birth,
    maps: KnownMaps,
    /// As root only: otherwise each agent's namespaces belong to a user namespace of its own, and nothing can be shared.
    host: Option<HostSide>,
}

impl Bench {
    /// Waits for a request; whether mounts of the host have changed since the last time. They are told of at once, so that
    /// nothing keeps a disk busy that somebody has unmounted.
    fn wait(&self, socket: BorrowedFd<'_>, wanted: &VecDeque<Wanted>) -> io::Result<Woken> {
        let Some(host) = &self.host else { return Ok(Woken::Request) };
        let idle = wanted.is_empty() && !host.wants_spare();
        let timeout = if idle { PollTimeout::NONE } else { PollTimeout::from(PREPARE_AFTER_MS) };
        let mut fds = [PollFd::new(socket, PollFlags::POLLIN), PollFd::new(host.mounts.as_fd(), PollFlags::POLLPRI)];
        loop {
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(Woken::Idle),
                Ok(_) if changed(&fds[1]) => return Ok(Woken::Mounts),
                Ok(_) => return Ok(Woken::Request),
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// For an init that is prepared ahead: the mounts of the host, watched from now on.
    fn watched_mounts(&self, slot: &mut Slot) -> io::Result<Option<File>> {
        let Some(host) = &self.host else { return Ok(None) };
        let watched = File::open(MOUNTS)?;
        // A change between the last look and the opening: what is kept is from before it.
        let mut fds = [PollFd::new(host.mounts.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::ZERO)?;
        if changed(&fds[0]) {
            slot.forget();
        }
        Ok(Some(watched))
    }
}

/// What a wait has ended with.
enum Woken {
    Request,
    Mounts,
    /// Nothing has happened for a while.
    Idle,
}

/// An init to be prepared: its plan's slot, and its channel.
type Wanted = (u8, OwnedFd);

/// An agent that was just started is left alone with the processors for so long before the next launch is prepared.
const PREPARE_AFTER_MS: u8 = 10;

/// Prepares an init for the next launch of a plan. Whatever prevents it closes the channel, and that launch makes its own.
fn prepare(slot: Option<&mut Slot>, channel: OwnedFd, bench: &mut Bench) {
    let Some(slot) = slot else { return };
    let given = Given::for_later(channel, bench, slot);
    launch(slot, From::Layers, given, bench);
}

/// Whether poll(2) reported a change of the mounts.
pub(super) fn changed(mounts: &PollFd<'_>) -> bool {
    mounts.revents().is_some_and(|events| events.intersects(PollFlags::POLLPRI | PollFlags::POLLERR))
}

/// A plan, and what is kept for it.
#[derive(Default)]
struct Slot {
    plan: Option<Box<Plan>>,
    /// The layer of its root that is the same at each launch.
    kept: Option<Rc<Kept>>,
    /// The latest launch, which offers one here if it has to make one: the first, and each that finds the kept one untrue.
    offered: Option<OwnedFd>,
}

impl Slot {
    fn forget(&mut self) {
        (self.kept, self.offered) = (None, None);
    }

    /// The layer, if it is there by now.
    fn kept(&mut self) -> Option<Rc<Kept>> {
        if let Some(from) = &self.offered {
            match Kept::take(from.as_fd()) {
                Ok(Some(kept)) => (self.kept, self.offered) = (Some(Rc::new(kept)), None),
                Ok(None) => {}
                // That launch has failed, or had no need to make one.
                Err(_) => self.offered = None,
            }
        }
        self.kept.clone()
    }
}

/// Id maps are kept: making one costs a process, and an agent needs the same one at each launch.
pub(super) struct KnownMaps {
    birth: Birth,
    known: Vec<(MapKey, Rc<OwnedFd>)>,
}

/// The on-disk (uid, gid) and the agent's.
type MapKey = ((u32, u32), (u32, u32));

/// Each holds a descriptor and a user namespace.
const KNOWN_MAPS_MAX: usize = 256;

impl KnownMaps {
    fn new(birth: Birth) -> KnownMaps {
        KnownMaps { birth, known: Vec::new() }
    }

    pub(super) fn get(&mut self, on_disk: (u32, u32), agent: (u32, u32)) -> io::Result<Rc<OwnedFd>> {
        if let Some((_, known)) = self.known.iter().find(|(key, _)| *key == (on_disk, agent)) {
            return Ok(Rc::clone(known));
        }
        if self.known.len() >= KNOWN_MAPS_MAX {
            self.known.remove(0);
        }
        let made = Rc::new(detect::user_namespace(self.birth, on_disk, agent)?);
        self.known.push(((on_disk, agent), Rc::clone(&made)));
        Ok(made)
    }
}

impl Given {
    fn for_launch(descriptors: Descriptors, fds: Vec<OwnedFd>, bench: &Bench) -> Option<Given> {
        let mut fds = fds.into_iter();
        let channel = fds.next()?;
        Given::new(channel, Some(Wiring::new(descriptors, fds)?), None, bench)
    }

    /// `None` also where nothing can be prepared.
    fn for_later(channel: OwnedFd, bench: &Bench, slot: &mut Slot) -> Option<Given> {
        let mounts = bench.watched_mounts(slot).ok()??;
        Given::new(channel, None, Some(mounts), bench)
    }

    fn new(channel: OwnedFd, wiring: Option<Wiring>, mounts: Option<File>, bench: &Bench) -> Option<Given> {
        let launcher = bench.ourselves.try_clone().ok()?;
        Some(Given { channel, wiring, mounts, maps: Vec::new(), birth: bench.birth, launcher, go: None, help: None })
    }
}

fn launch(slot: &mut Slot, from: From, given: Option<Given>, bench: &mut Bench) {
    // Without a plan or a channel there is nobody to tell; dropping the descriptors tells the supervisor by end of file.
    let (Some(mut given), Some(plan)) = (given, slot.plan.take()) else { return };
    let told = given.channel.try_clone();
    if let Err(failure) = clone_init(&plan, slot, from, &mut given, bench)
        && let Ok(channel) = told
    {
        tell(channel.as_fd(), &Word::Failed(failure));
    }
    slot.plan = Some(plan);
}

pub(super) fn tell(channel: BorrowedFd<'_>, word: &Word) {
    let bytes = serde_json::to_vec(word).expect("words are plain data");
    // A supervisor that is gone needs no word: its end of the channel is closed and the init ends for that reason.
    let _ = fdpass::send(channel, &bytes, &[]);
}

fn clone_init(plan: &Plan, slot: &mut Slot, from: From, given: &mut Given, bench: &mut Bench) -> Result<(), Failure> {
    let failed = |step: &'static str| move |e: io::Error| Failure::new(step, &e);
    for owner in super::root::id_maps(plan) {
        let ids = plan.ids.unwrap_or(Ids { uid: 0, gid: 0 });
        let namespace = bench.maps.get(owner, (ids.uid, ids.gid)).map_err(failed("make an id map"))?;
        given.maps.push((owner, namespace));
    }
    let mut flags = plan.namespaces;
    let mut gate = None;
    if plan.user_namespace.is_some() {
        flags |= libc::CLONE_NEWUSER;
        let (read, write) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Failure::new("make a pipe", &e.into()))?;
        given.go = Some(read);
        gate = Some(write);
    }
    let mut helping = None;
    if let Some(host) = bench.host.as_mut().filter(|_| matches!(plan.root, Root::Built { .. })) {
        let (ours, theirs) = fdpass::pair().map_err(failed("make a socket to the init"))?;
        let kept = if from == From::Layers { slot.kept() } else { None };
        given.help = Some(Help { socket: theirs, kept, from, host: Rc::clone(&host.view) });
        helping = Some((ours, host));
        flags &= !(MADE_BY_LAUNCHER | libc::CLONE_NEWNS);
    }
    // SAFETY: this process is single-threaded: it never starts a thread.
    let cloned = unsafe { birth::fork_into(bench.birth, flags, None) };
    match cloned.map_err(failed("clone with the ring's namespaces"))? {
        Cloned::Child => {
            drop((gate, helping));
            init::run(plan, given)
        }
        Cloned::Parent { pid, pidfd } => {
            if let Some((socket, host)) = helping {
                // An init that has ended needs no help; what fails here the init does itself, and reports.
                let now = if from == From::Layers && given.wiring.is_some() { Spare::Wanted } else { Spare::Left };
                if let Ok(made) = lent::help(plan, host, now) {
                    let _ = fdpass::send(socket.as_fd(), b"n", &made.each_ref().map(AsRawFd::as_raw_fd));
                }
                await_layer(slot, from, socket);
            }
            if let Some(ids) = plan.user_namespace
                && let Err(e) = detect::write_id_maps(pid, (ids.uid, ids.uid), (ids.gid, ids.gid))
            {
                let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                return Err(Failure::new("map the user namespace", &e));
            }
            if let Some(gate) = &gate {
                nix::unistd::write(gate, b"g").map_err(|e| Failure::new("open the gate of the init", &e.into()))?;
            }
            Ok(())
        }
    }
}

/// Waits for the layer that an init makes, if one is wanted and nobody is making it already.
fn await_layer(slot: &mut Slot, from: From, socket: OwnedFd) {
    if from == From::Layers && slot.offered.is_none() {
        // An init that waits for our word gets an end of file if there is none: our end can still read.
        let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        slot.offered = Some(socket);
    }
}
