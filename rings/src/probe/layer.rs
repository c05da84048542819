//! The layers of a ring, by name; and a ring without one of them, to see what rests on that layer alone.
//!
//! A layer is only known to hold something when its absence lets that through: a denial alone could always be another layer's.
//! So the probe can leave one out, in its own agents and for decoys as ever, which is less than any control has, that runs
//! without all of them. What `run` launches has no such way: a plan that is compiled leaves nothing out, and the steps of the
//! launch itself can be left out in a debug build only ([`LeftOut`]).

use std::fmt;
use std::str::FromStr;

use super::attack::MARK;
use super::attack::inherit::VARIABLE;
use crate::capability::Capabilities;
use crate::host::Host;
use crate::plan::{Execute, LeftOut, Mount, Plan, Root};
use crate::spec::Access;

/// What stops an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// A view of its own: what is not listed is not there.
    MountNamespace,
    /// What is shown can't be changed.
    ReadOnlyMount,
    /// What is written in private directories can't be run.
    NoExecMount,
    /// Rules on paths, on processes outside one's own domain, on abstract sockets.
    Landlock,
    /// System calls by number and argument.
    Seccomp,
    /// Calls that can make a name are answered by somebody who looks at it.
    Names,
    /// Processes outside have no number.
    Pid,
    /// No way to the host's network.
    Network,
    /// System V IPC and POSIX queues of one's own.
    Ipc,
    /// A uid that owns nothing else.
    Uid,
    /// Empty capability sets, the bounding set among them.
    Capabilities,
    /// Nothing is gained by an exec; with it goes nosuid, which says the same of mounts.
    NoNewPrivileges,
    /// The init can't be looked into.
    NonDumpable,
    /// Memory, CPU and tasks.
    Cgroup,
    /// Open files and core dumps.
    Rlimit,
    /// Neither descriptors nor environment of whoever started the supervisor.
    CleanStart,
}

impl Layer {
    /// All of them.
    pub const ALL: [Layer; 16] = [
        Layer::MountNamespace,
        Layer::ReadOnlyMount,
        Layer::NoExecMount,
        Layer::Landlock,
        Layer::Seccomp,
        Layer::Names,
        Layer::Pid,
        Layer::Network,
        Layer::Ipc,
        Layer::Uid,
        Layer::Capabilities,
        Layer::NoNewPrivileges,
        Layer::NonDumpable,
        Layer::Cgroup,
        Layer::Rlimit,
        Layer::CleanStart,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Layer::MountNamespace => "mount namespace",
            Layer::ReadOnlyMount => "read-only mount",
            Layer::NoExecMount => "noexec mount",
            Layer::Landlock => "Landlock",
            Layer::Seccomp => "seccomp",
            Layer::Names => "name rules",
            Layer::Pid => "PID namespace",
            Layer::Network => "network namespace",
            Layer::Ipc => "IPC namespace",
            Layer::Uid => "uid",
            Layer::Capabilities => "no capabilities",
            Layer::NoNewPrivileges => "no_new_privs",
            Layer::NonDumpable => "non-dumpable init",
            Layer::Cgroup => "cgroup",
            Layer::Rlimit => "rlimit",
            Layer::CleanStart => "clean start",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown layer `{given}`: layers are {}", Layer::ALL.map(Layer::name).join(", "))]
pub struct UnknownLayer {
    /// The text.
    pub given: String,
}

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(text: &str) -> Result<Layer, UnknownLayer> {
        let known = Layer::ALL.into_iter().find(|layer| layer.name() == text);
        known.ok_or_else(|| UnknownLayer { given: text.to_owned() })
    }
}

/// Takes a layer out of a plan of the probe's own. A control group is not in a plan: who launches leaves it out.
pub(super) fn take_out(plan: &mut Plan, layer: Layer, host: &Host) {
    match layer {
        Layer::MountNamespace => {
            plan.namespaces &= !libc::CLONE_NEWNS;
            plan.root = Root::Unchanged;
        }
        Layer::ReadOnlyMount => {
            if let Root::Built { mounts, .. } = &mut plan.root {
                mounts.retain(|mount| !matches!(mount, Mount::Protect { .. }));
                for mount in mounts {
                    if let Mount::Bind { access, .. } = mount {
                        *access = Access::Write;
                    }
                }
            }
        }
        Layer::NoExecMount => {
            if let Root::Built { mounts, .. } = &mut plan.root {
                for mount in mounts {
                    if let Mount::Private { execute, .. } = mount {
                        *execute = Execute::Allowed;
                    }
                }
            }
        }
        Layer::Landlock => plan.landlock = None,
        Layer::Seccomp => plan.filters = None,
        Layer::Names => plan.let_names_be(),
        Layer::Pid => plan.namespaces &= !libc::CLONE_NEWPID,
        Layer::Network => {
            plan.namespaces &= !libc::CLONE_NEWNET;
            // There is no place for them.
            plan.listen.clear();
        }
        Layer::Ipc => plan.namespaces &= !libc::CLONE_NEWIPC,
        Layer::Uid => plan.ids = None,
        Layer::Capabilities => plan.capabilities = Capabilities::from_mask(host.capabilities.mask()),
        Layer::NoNewPrivileges => {
            // The kernel takes neither from a process that has no capability and could still gain one.
            (plan.landlock, plan.filters) = (None, None);
            plan.left_out = Some(LeftOut::NoNewPrivileges);
        }
        Layer::NonDumpable => plan.left_out = Some(LeftOut::NonDumpable),
        Layer::Rlimit => plan.left_out = Some(LeftOut::Limits),
        Layer::CleanStart => {
            plan.left_out = Some(LeftOut::Descriptors);
            plan.env.push((VARIABLE.into(), MARK.into()));
        }
        Layer::Cgroup => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_layer_is_found_by_its_name_and_nothing_else_is() {
        for layer in Layer::ALL {
            assert_eq!(layer.name().parse::<Layer>().unwrap(), layer);
        }
        assert!("everything".parse::<Layer>().unwrap_err().to_string().contains("seccomp"));
    }
}
