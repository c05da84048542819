//! The launcher process: reads requests, clones inits, and does nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::client::{read_payload, send};
use super::protocol::{Answer, Descriptors, Failure, LAUNCHER_NAME, Reply, Request, Word};
use super::{detect, init};
use crate::host::Privilege;
use crate::plan::{Ids, Plan};
use crate::sys::fdpass;
use crate::sys::process::{self, Cloned};

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
    let privilege = detect::privilege();
    if privilege == Privilege::Root {
        // An unprivileged launcher must stay dumpable: the kernel lets nobody write the id maps of its children else.
        process::set_non_dumpable()?;
    }
    let socket = std::io::stdin();
    let socket = socket.as_fd();
    let ourselves = process::pidfd_open(nix::unistd::getpid().as_raw())?;
    let mut maps = KnownMaps::default();
    let mut plans: Vec<Option<Box<Plan>>> = Vec::new();
    while let Some((_, fds)) = fdpass::receive(socket)? {
        let mut fds = fds.into_iter();
        let payload = fds.next().into_iter().collect();
        match serde_json::from_slice(&read_payload(payload)?)? {
            Request::Detect { id } => {
                let (host, system) = detect::host(privilege);
                send(socket, &Answer { id, reply: Reply::Host(Box::new(host), system) }, &[])?;
            }
            Request::Inspect { id, paths } => {
                let trees: Result<Vec<_>, String> = paths.iter().map(|path| detect::tree(path, privilege)).collect();
                send(socket, &Answer { id, reply: trees.map_or_else(Reply::Failed, Reply::Trees) }, &[])?;
            }
            Request::Keep { slot, plan } => {
                let index = usize::from(slot);
                if plans.len() <= index {
                    plans.resize_with(index + 1, || None);
                }
                plans[index] = Some(plan);
            }
            Request::Launch { slot, descriptors } => {
                // A slot that was never filled: the descriptors are dropped, which the supervisor sees as an end of file.
                let Some(Some(plan)) = plans.get(usize::from(slot)) else { continue };
                launch(plan, descriptors, fds.collect(), ourselves.as_fd(), &mut maps);
            }
        }
    }
    Ok(())
}

/// Id maps are kept: making one costs a process, and an agent needs the same one at each launch.
#[derive(Default)]
struct KnownMaps(Vec<(MapKey, Rc<OwnedFd>)>);

/// The on-disk (uid, gid) and the agent's.
type MapKey = ((u32, u32), (u32, u32));

/// Each holds a descriptor and a user namespace.
const KNOWN_MAPS_MAX: usize = 256;

impl KnownMaps {
    fn get(&mut self, on_disk: (u32, u32), agent: (u32, u32)) -> io::Result<Rc<OwnedFd>> {
        if let Some((_, known)) = self.0.iter().find(|(key, _)| *key == (on_disk, agent)) {
            return Ok(Rc::clone(known));
        }
        if self.0.len() >= KNOWN_MAPS_MAX {
            self.0.remove(0);
        }
        let made = Rc::new(detect::user_namespace(on_disk, agent)?);
        self.0.push(((on_disk, agent), Rc::clone(&made)));
        Ok(made)
    }
}

/// Everything an init was given.
pub(super) struct Given {
    pub(super) channel: OwnedFd,
    pub(super) streams: [OwnedFd; 3],
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) tasks: Vec<OwnedFd>,
    /// For each on-disk (uid, gid) that is mapped: a user namespace with that map.
    pub(super) maps: Vec<((u32, u32), Rc<OwnedFd>)>,
    /// Readable once the launcher is dead.
    pub(super) launcher: OwnedFd,
    /// Closed by the launcher once the user namespace is mapped.
    pub(super) go: Option<OwnedFd>,
}

fn sort_out(descriptors: Descriptors, fds: Vec<OwnedFd>, launcher: BorrowedFd<'_>) -> Option<Given> {
    let expected = 4 + usize::from(descriptors.cgroup) + usize::from(descriptors.tasks);
    if fds.len() != expected {
        return None;
    }
    let mut fds = fds.into_iter();
    let channel = fds.next()?;
    let streams = [fds.next()?, fds.next()?, fds.next()?];
    let cgroup = if descriptors.cgroup == 1 { fds.next() } else { None };
    let launcher = launcher.try_clone_to_owned().ok()?;
    Some(Given { channel, streams, cgroup, tasks: fds.collect(), maps: Vec::new(), launcher, go: None })
}

fn launch(plan: &Plan, descriptors: Descriptors, fds: Vec<OwnedFd>, launcher: BorrowedFd<'_>, maps: &mut KnownMaps) {
    // Without a channel there is nobody to tell; dropping the descriptors tells the supervisor by end of file.
    let Some(mut given) = sort_out(descriptors, fds, launcher) else { return };
    let told = given.channel.try_clone();
    if let Err(failure) = clone_init(plan, &mut given, maps)
        && let Ok(channel) = told
    {
        tell(channel.as_fd(), &Word::Failed(failure));
    }
}

pub(super) fn tell(channel: BorrowedFd<'_>, word: &Word) {
    let bytes = serde_json::to_vec(word).expect("words are plain data");
    // A supervisor that is gone needs no word: its end of the channel is closed and the init ends for that reason.
    let _ = fdpass::send(channel, &bytes, &[]);
}

fn clone_init(plan: &Plan, given: &mut Given, maps: &mut KnownMaps) -> Result<(), Failure> {
    let failed = |step: &'static str| move |e: io::Error| Failure::new(step, &e);
    for owner in super::root::id_maps(plan) {
        let ids = plan.ids.unwrap_or(Ids { uid: 0, gid: 0 });
        let namespace = maps.get(owner, (ids.uid, ids.gid)).map_err(failed("make an id map"))?;
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
    // SAFETY: this process is single-threaded: it never starts a thread.
    let cloned = unsafe { process::fork_into(flags, None) };
    match cloned.map_err(failed("clone3 with the ring's namespaces"))? {
        Cloned::Child => {
            drop(gate);
            init::run(plan, given)
        }
        Cloned::Parent { pid, pidfd } => {
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
