//! The attacks and the allowed acts: what is asked of the kernel, as code that runs in a ring and, as its own control, outside.
//!
//! Why a table of functions: the same code runs confined and unconfined, so a denial can only come from the ring. No attack
//! does harm when it succeeds: it aims at decoys, passes arguments that the kernel refuses after its permission check, or
//! stops at a bound of its own. Each says which errnos lie *behind* that check (`past`): to get one of them is to get through.

mod acts;
mod attendants;
mod checks;
mod config;
mod declared;
pub(super) mod egress;
mod exec;
mod files;
pub(super) mod hogs;
pub(super) mod inherit;
pub(super) mod ipc;
mod kernel;
mod later;
mod machine;
mod models;
mod namespaces;
mod netlink;
mod privileges;
mod processes;
pub(super) mod services;
mod sockets;
pub(super) mod stand;

use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::scene::Scene;
use super::{Expected, Layer};
use crate::spec::ModelAccess;

/// What every decoy secret holds: nothing else on a host does.
pub(super) const MARK: &str = "agt-probe decoy: nothing of value";

/// How an attack ended short of success.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The kernel's answer.
    Errno(i32),
    /// The kernel said yes and gave nothing (an empty mask, an ignored signal, a setuid bit without effect).
    Nothing(String),
    /// It could not be tried: a step before the attack itself failed.
    Setup(String),
}

/// What an attack returns.
pub(super) type Answer = Result<(), Stopped>;

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        error.raw_os_error().map_or_else(|| Stopped::Nothing(error.to_string()), Stopped::Errno)
    }
}

impl From<Errno> for Stopped {
    fn from(errno: Errno) -> Stopped {
        Stopped::Errno(errno as i32)
    }
}

/// Marks a step that must succeed before the attack can be tried: its failure shows nothing about the ring.
trait Ready<T> {
    fn ready(self, step: &str) -> Result<T, Stopped>;
}

impl<T, E: fmt::Display> Ready<T> for Result<T, E> {
    fn ready(self, step: &str) -> Result<T, Stopped> {
        self.map_err(|e| Stopped::Setup(format!("{step}: {e}")))
    }
}

/// What a run needs to have standing beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A process of the same user outside, with a secret in its memory and environment.
    Victim,
    /// Another agent in the same ring, of the same uid, with a secret in its HOME.
    Neighbour,
    /// Its own health check, running beside it in the ring.
    Check,
    /// The process that answers for its filter.
    Attendant,
    /// The number of open files that the ring gives.
    OpenFiles,
    /// Landlock's scope for signals (ABI 6).
    SignalScope,
    /// A protocol that is loaded already: to ask for it otherwise would load a kernel module.
    Protocol(&'static str),
    /// A datagram decoy must have got it, with the attack's name in it: the call itself says yes also in an empty network.
    Datagram,
    /// A device that is there already: to open it otherwise could load a kernel module.
    Device(&'static str),
    /// Somebody must hold the output open after the end.
    Survivor,
    /// R3 with access to models: a listener in its network that is answered.
    Models,
    /// The agent must have a uid of its own: as an ordinary user it has the files of its user.
    OwnUid,
}

/// A limit far below the ring's own, so that a hog is stopped early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Squeeze {
    /// The ring's limits.
    None,
    /// [`hogs::TASKS_GIVEN`] tasks.
    Tasks,
    /// [`hogs::MEMORY_GIVEN`] bytes.
    Memory,
    /// [`hogs::CPU_MILLIS_GIVEN`] of a CPU.
    Cpu,
    /// [`hogs::DISK_GIVEN`] bytes in the private directories.
    Disk,
}

/// One attack or allowed act.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attack {
    /// Its name: lower case, hyphens, unique.
    pub(super) name: &'static str,
    /// What is asked, in one line.
    pub(super) asked: &'static str,
    /// What a success would give the attacker; empty for an allowed act.
    pub(super) gain: &'static str,
    /// What each ring should answer; `None`: the ring promises nothing about it.
    pub(super) expected: [Option<Expected>; 4],
    /// The layers that should stop it.
    pub(super) layers: &'static [Layer],
    /// Errnos that lie behind the permission check.
    pub(super) past: &'static [Errno],
    /// What must stand beside it.
    pub(super) needs: &'static [Need],
    /// Which limit is lowered for it.
    pub(super) squeeze: Squeeze,
    /// The code.
    pub(super) act: fn(&Scene) -> Answer,
}

const D: Option<Expected> = Some(Expected::Denied);
const A: Option<Expected> = Some(Expected::Allowed);
const N: Option<Expected> = None;

/// An attack that R1, R2 and R3 deny and R0 promises nothing about.
const fn attack(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    Attack {
        name,
        asked,
        gain,
        expected: [N, D, D, D],
        layers: &[],
        past: &[],
        needs: &[],
        squeeze: Squeeze::None,
        act,
    }
}

/// Something that every ring allows.
const fn allowed(name: &'static str, asked: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    let mut allowed = attack(name, asked, "", act);
    allowed.expected = [A; 4];
    allowed
}

impl Attack {
    /// Whether R3 is given access to models for it.
    pub(super) fn models(&self) -> ModelAccess {
        if self.needs.contains(&Need::Models) { ModelAccess::Granted } else { ModelAccess::None }
    }

    const fn rings(mut self, expected: [Option<Expected>; 4]) -> Attack {
        self.expected = expected;
        self
    }

    const fn by(mut self, layers: &'static [Layer]) -> Attack {
        self.layers = layers;
        self
    }

    const fn past(mut self, past: &'static [Errno]) -> Attack {
        self.past = past;
        self
    }

    const fn with(mut self, needs: &'static [Need]) -> Attack {
        self.needs = needs;
        self
    }

    const fn squeezed(mut self, squeeze: Squeeze) -> Attack {
        self.squeeze = squeeze;
        self
    }
}

/// Every attack, then every act.
pub(super) fn all() -> impl Iterator<Item = &'static Attack> {
    let classes: [&'static [Attack]; 20] = [
        files::ATTACKS,
        declared::ATTACKS,
        config::ATTACKS,
        later::ATTACKS,
        processes::ATTACKS,
        checks::ATTACKS,
        attendants::ATTACKS,
        ipc::ATTACKS,
        sockets::ATTACKS,
        services::ATTACKS,
        egress::ATTACKS,
        netlink::ATTACKS,
        models::ATTACKS,
        namespaces::ATTACKS,
        kernel::ATTACKS,
        machine::ATTACKS,
        privileges::ATTACKS,
        exec::ATTACKS,
        inherit::ATTACKS,
        hogs::ATTACKS,
    ];
    classes.into_iter().flatten().chain(acts::ACTS)
}

/// What is after a way out of the network, or somebody on the host who has one.
#[cfg(test)]
pub(super) fn network() -> impl Iterator<Item = &'static Attack> {
    [sockets::ATTACKS, services::ATTACKS, egress::ATTACKS, netlink::ATTACKS, models::ATTACKS].into_iter().flatten()
}

/// What the table says of an attack that came to no end.
const LATE: &str = "no end in time";

/// How an attack ended, as it travels from the ring to the probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Got {
    /// It succeeded.
    Ok,
    /// The kernel refused.
    Errno(i32),
    /// The attacker was ended.
    Signal(i32),
    /// The call succeeded and gave nothing.
    Nothing(String),
    /// It could not be tried.
    Setup(String),
    /// It ended without a word.
    Silent(String),
    /// It was still at it when its time was over: the machine was too busy, or something never answers. Nobody has refused it.
    Late,
}

impl Got {
    /// In a table: `ok`, an errno's or a signal's name, or words.
    pub(super) fn words(&self) -> String {
        match self {
            Got::Ok => "ok".to_owned(),
            Got::Errno(errno) => format!("{:?}", Errno::from_raw(*errno)),
            Got::Signal(signal) => nix::sys::signal::Signal::try_from(*signal)
                .map_or_else(|_| format!("signal {signal}"), |s| s.to_string()),
            Got::Nothing(text) => format!("nothing ({text})"),
            Got::Setup(text) => format!("not tried ({text})"),
            Got::Silent(text) => text.clone(),
            Got::Late => LATE.to_owned(),
        }
    }
}

impl From<Answer> for Got {
    fn from(answer: Answer) -> Got {
        match answer {
            Ok(()) => Got::Ok,
            Err(Stopped::Errno(errno)) => Got::Errno(errno),
            Err(Stopped::Nothing(text)) => Got::Nothing(text),
            Err(Stopped::Setup(text)) => Got::Setup(text),
        }
    }
}

/// A raw system call: the attacks need numbers that no library offers.
///
/// # Safety
/// Each argument must be what the kernel expects of this call, pointers valid for its reads and writes, or deliberately
/// invalid so that the kernel itself refuses them.
unsafe fn raw(number: libc::c_long, args: [usize; 6]) -> Result<libc::c_long, Stopped> {
    // SAFETY: passed on to the caller.
    let ret = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if ret < 0 { Err(io::Error::last_os_error().into()) } else { Ok(ret) }
}

/// Reads a file and looks for the decoy's mark: a mask may well be readable.
fn read_secret(path: &Path) -> Answer {
    let bytes = std::fs::read(path)?;
    if holds_mark(&bytes) { Ok(()) } else { Err(Stopped::Nothing("the file shows something else".to_owned())) }
}

fn holds_mark(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

fn open(path: &Path, flags: OFlag) -> Result<std::os::fd::OwnedFd, Stopped> {
    Ok(nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))?)
}

fn proc_path(pid: i32, file: &str) -> std::path::PathBuf {
    format!("/proc/{pid}/{file}").into()
}

/// The handle of a decoy, where its file system has handles.
pub(super) fn handle_of(path: &Path) -> Option<super::scene::Handle> {
    files::to_handle(path).ok()
}
