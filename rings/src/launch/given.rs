//! What an init has from the launcher when it is forked, and from the supervisor when its agent is started.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::protocol::{Descriptors, From};
use super::root::{HostView, Kept};
use crate::sys::birth::Birth;

/// Everything an init was given.
pub(super) struct Given {
    pub(super) channel: OwnedFd,
    /// `None`: it is prepared ahead, and is told later.
    pub(super) wiring: Option<Wiring>,
    /// For one that is prepared ahead: the mounts of the host, watched since before its view is made.
    pub(super) mounts: Option<File>,
    /// For each on-disk (uid, gid) that is mapped: a user namespace with that map.
    pub(super) maps: Vec<((u32, u32), Rc<OwnedFd>)>,
    /// How it makes processes.
    pub(super) birth: Birth,
    /// Readable once the launcher is dead.
    pub(super) launcher: OwnedFd,
    /// Closed by the launcher once the user namespace is mapped.
    pub(super) go: Option<OwnedFd>,
    /// What a launcher that is root does for it meanwhile.
    pub(super) help: Option<Help>,
}

/// What connects an agent with the world that it was started by.
pub(super) struct Wiring {
    pub(super) streams: [OwnedFd; 3],
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) tasks: Vec<OwnedFd>,
}

/// An init's end of what the launcher does beside it.
pub(super) struct Help {
    /// The network namespace comes here, and the kept layer goes here; an end of file means: make it yourself.
    pub(super) socket: OwnedFd,
    pub(super) kept: Option<Rc<Kept>>,
    /// Whether a layer that it makes is wanted.
    pub(super) from: From,
    pub(super) host: Rc<HostView>,
}

impl Given {
    /// The descriptors that an init works with.
    pub(super) fn numbers(&self) -> Vec<RawFd> {
        let own = [Some(&self.channel), Some(&self.launcher), self.go.as_ref()];
        let mut all: Vec<RawFd> = own.into_iter().flatten().map(AsRawFd::as_raw_fd).collect();
        all.extend(self.maps.iter().map(|(_, map)| map.as_raw_fd()));
        all.extend(self.mounts.iter().map(AsRawFd::as_raw_fd));
        if let Some(wiring) = &self.wiring {
            all.extend(wiring.streams.iter().chain(&wiring.cgroup).chain(&wiring.tasks).map(AsRawFd::as_raw_fd));
        }
        if let Some(help) = &self.help {
            all.extend([&help.socket, &help.host.root, &help.host.proc].map(AsRawFd::as_raw_fd));
            all.extend(help.kept.iter().map(|kept| kept.number()));
        }
        all
    }
}

impl Wiring {
    /// Sorts out the descriptors of a request.
    pub(super) fn new(descriptors: Descriptors, fds: impl ExactSizeIterator<Item = OwnedFd>) -> Option<Wiring> {
        let expected = 3 + usize::from(descriptors.cgroup) + usize::from(descriptors.tasks);
        if fds.len() != expected {
            return None;
        }
        let mut fds = fds;
        let streams = [fds.next()?, fds.next()?, fds.next()?];
        let cgroup = if descriptors.cgroup == 1 { fds.next() } else { None };
        Some(Wiring { streams, cgroup, tasks: fds.collect() })
    }
}
