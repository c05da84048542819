//! What a launcher does for inits as root: namespaces that it makes itself, one pair ahead where launches follow each other and else
//! while the init builds its root, which takes as long.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::root::HostView;
use crate::plan::Plan;
use crate::sys::{net, process};

const NETWORK: &str = "/proc/self/ns/net";
const IPC: &str = "/proc/self/ns/ipc";

pub(super) struct HostSide {
    pub(super) view: Rc<HostView>,
    pub(super) mounts: File,
    network: OwnedFd,
    ipc: OwnedFd,
    /// Namespaces for the next launch, in which nothing has been yet: making them takes as long as an init's mounts.
    spare: Option<[OwnedFd; 2]>,
    /// Whether the last launch was one that may have them.
    uses_spares: bool,
}

impl HostSide {
    /// The host as it is now, and the way back to our own namespaces.
    pub(super) fn open(mounts: &str) -> io::Result<HostSide> {
        Ok(HostSide {
            view: Rc::new(HostView::open()?),
            mounts: File::open(mounts)?,
            network: File::open(NETWORK)?.into(),
            ipc: File::open(IPC)?.into(),
            spare: None,
            uses_spares: false,
        })
    }

    pub(super) fn wants_spare(&self) -> bool {
        self.uses_spares && self.spare.is_none()
    }

    /// Makes the spare namespaces, while there is nothing else to do.
    pub(super) fn lay_by(&mut self) {
        if self.wants_spare() {
            self.spare = make_namespaces(self).ok();
            // A host that has no room for them now is not asked again and again.
            self.uses_spares = self.spare.is_some();
        }
    }
}

/// The namespaces that the launcher makes for an init.
pub(super) const MADE_BY_LAUNCHER: libc::c_int = libc::CLONE_NEWNET | libc::CLONE_NEWIPC;

/// Whether an init has the namespaces that were laid by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// Somebody waits for it.
    Wanted,
    /// There is time to make its own, or it is to have nothing that was made before.
    Left,
}

/// Gives an init its network namespace, of which nothing is up but the loopback, and its IPC namespace, while it builds its root.
pub(super) fn help(plan: &Plan, home: &mut HostSide, spare: Spare) -> io::Result<[OwnedFd; 2]> {
    if plan.namespaces & MADE_BY_LAUNCHER != MADE_BY_LAUNCHER {
        return Err(io::ErrorKind::Unsupported.into());
    }
    if spare == Spare::Left {
        return make_namespaces(home);
    }
    home.uses_spares = true;
    home.spare.take().map_or_else(|| make_namespaces(home), Ok)
}

fn make_namespaces(home: &HostSide) -> io::Result<[OwnedFd; 2]> {
    process::unshare(MADE_BY_LAUNCHER)?;
    let open = |path| File::open(path).map(OwnedFd::from);
    let made = net::loopback_up().and_then(|()| Ok([open(NETWORK)?, open(IPC)?]));
    // Nothing may ever be started from the wrong namespaces: there is no going on from here.
    process::enter_namespace(home.network.as_fd(), libc::CLONE_NEWNET)
        .expect("the way back to our own network is open");
    process::enter_namespace(home.ipc.as_fd(), libc::CLONE_NEWIPC).expect("the way back to our own IPC is open");
    made
}
