//! What an attacker is told: where the decoys are. Nothing in it is secret, so it travels in the argument list.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The decoys, by path, number and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scene {
    /// Our own executable, as the attacker sees it.
    pub(super) program: PathBuf,
    /// A tree that nothing declares: `secret`, `dir/`.
    pub(super) outside: PathBuf,
    /// A tree of another owner that is shown as a program's installation: `secret.conf`, for its owner alone.
    pub(super) installed: PathBuf,
    /// A tree that is declared for reading: `file`, `dir/`.
    pub(super) readonly: PathBuf,
    /// The workdir: `file`, `agent.yaml`, `.git/hooks/`, `.git/config`, `.state/key`.
    pub(super) work: PathBuf,
    /// The supervisor's state: `key`.
    pub(super) state: PathBuf,
    /// A directory of its own, to write in.
    pub(super) own: PathBuf,
    /// HOME.
    pub(super) home: PathBuf,
    /// Where nothing can be run: shared memory.
    pub(super) shared: PathBuf,
    /// Where sockets of well-known services stand, outside.
    pub(super) services: PathBuf,
    /// The host's resolver, or an address that nobody has.
    pub(super) resolver: IpAddr,
    /// The file that names the program which the kernel runs as root when a v1 control group becomes empty.
    pub(super) release_agent: Option<PathBuf>,
    /// A pathname socket outside that somebody listens on, and one for datagrams beside it (`.dgram`).
    pub(super) socket: PathBuf,
    /// The name of an abstract socket that somebody listens on.
    pub(super) abstract_name: String,
    /// A port on the host's 127.0.0.1 that somebody listens on.
    pub(super) tcp: u16,
    /// The port of a model's route on 127.0.0.1.
    pub(super) model: u16,
    /// A port on the host's ::1 that somebody listens on, where the host has IPv6.
    pub(super) tcp6: Option<u16>,
    /// One on 127.0.0.1 for datagrams.
    pub(super) udp: u16,
    /// The same on 127.0.0.53, where a resolver could be.
    pub(super) stub: u16,
    /// An address of the host that is not loopback.
    pub(super) own_address: Option<IpAddr>,
    /// An interface of the host that is not loopback.
    pub(super) interface: Option<Interface>,
    /// The key of a System V segment, set and queue.
    pub(super) ipc_key: i32,
    /// The name of a POSIX queue.
    pub(super) queue: String,
    /// `outside/secret` by file handle.
    pub(super) handle: Option<Handle>,
    /// Files of a control group above the attacker's.
    pub(super) cgroup: Vec<PathBuf>,
    /// A process outside.
    pub(super) victim: Option<Victim>,
    /// Another agent's pid on the host.
    pub(super) neighbour: Option<i32>,
    /// The init of one's own namespace; outside, the victim stands in for it.
    pub(super) reaper: i32,
    /// Open files that the ring gives.
    pub(super) open_files: u64,
    /// After so many seconds it is ended by a signal.
    pub(super) seconds: u32,
}

/// An interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interface {
    /// Its name.
    pub(super) name: String,
    /// Its number.
    pub(super) index: u32,
}

/// A process outside, to be attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Victim {
    /// Its pid on the host.
    pub(super) pid: i32,
    /// Where its memory holds the mark.
    pub(super) address: usize,
}

/// A file handle of name_to_handle_at(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    /// Its type.
    pub(super) kind: i32,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}
