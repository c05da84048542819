//! What this host offers: facts, found once by the launcher in a throw-away child that really tries each thing.
//!
//! A kernel's configuration, its sysctls, an LSM and a container's own filter all have a say in whether a namespace can be
//! made. Only trying tells, so nothing here is read from a configuration.

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::cgroup;

/// Whose power the supervisor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Privilege {
    /// uid 0 with the capabilities that a launch needs.
    Root,
    /// An ordinary user; namespaces come through a user namespace.
    User {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Whether something works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "works")]
pub enum Support {
    /// It was tried and works.
    Yes,
    /// It was tried and refused.
    No {
        /// The step that failed and the kernel's answer.
        reason: String,
    },
}

impl Support {
    /// Whether it works.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        matches!(self, Support::Yes)
    }

    /// The reason when it does not.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Support::Yes => None,
            Support::No { reason } => Some(reason),
        }
    }
}

/// How the launcher makes processes here. Both ways take the same steps and give the same confinement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "path")]
pub enum LaunchPath {
    /// clone3(2): born in its control group, with a pidfd, in its parent's memory until it executes.
    #[default]
    Clone3,
    /// fork(2) and execve(2): slower, and needs nothing that is new.
    Fork {
        /// Why not the other: the call that failed and the kernel's answer, or that it was asked for.
        because: String,
    },
}

/// Which cgroup controllers can limit an agent here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controllers {
    /// Memory can be capped.
    pub memory: Support,
    /// CPU time can be capped.
    pub cpu: Support,
    /// Tasks can be capped.
    pub tasks: Support,
    /// Membership and a kill that nothing escapes.
    pub kill: Support,
    /// In words: `v2`, `v1 hybrid`, `v1`, `none`.
    pub layout: String,
}

impl Controllers {
    /// No usable cgroup at all, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Controllers {
        let no = || Support::No { reason: reason.to_owned() };
        Controllers { memory: no(), cpu: no(), tasks: no(), kill: no(), layout: "none".to_owned() }
    }

    /// With what systemd said when it was asked for a better group: where something is missing, that is part of the reason.
    #[must_use]
    pub fn with(mut self, asked: &cgroup::scope::Asked) -> Controllers {
        let Some(words) = asked.in_words() else { return self };
        for support in [&mut self.memory, &mut self.cpu, &mut self.tasks, &mut self.kill] {
            if let Support::No { reason } = support {
                *reason = format!("{reason}; {words}");
            }
        }
        self
    }

    /// What an opened base can keep, each missing controller with the base's reason. Open the base *before* the launcher is
    /// started: the launcher is then born in the group that the base moved this process to.
    #[must_use]
    pub fn from_base(layout: &cgroup::Layout, base: &cgroup::Base) -> Controllers {
        let support = |controller: cgroup::Controller| {
            if base.keeps(controller) {
                return Support::Yes;
            }
            let gap = base.gaps().iter().find(|gap| gap.controller == controller);
            let reason = gap.map_or_else(|| format!("no {controller} controller here"), |gap| gap.reason.to_string());
            Support::No { reason }
        };
        let layout = match layout.kind() {
            cgroup::Kind::Unified => "v2",
            cgroup::Kind::Hybrid => "v1 hybrid",
            cgroup::Kind::Legacy => "v1",
        };
        Controllers {
            memory: support(cgroup::Controller::Memory),
            cpu: support(cgroup::Controller::Cpu),
            tasks: support(cgroup::Controller::Pids),
            // A base is what holds and ends agents: without that it does not open.
            kill: Support::Yes,
            layout: layout.to_owned(),
        }
    }
}

/// Everything that a plan needs to know about this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// The Landlock ABI; `None` where Landlock is absent or off.
    pub landlock_abi: Option<u32>,
    /// seccomp filters can be loaded.
    pub seccomp: Support,
    /// A process beside an agent can answer for its filter, and read what its calls point to. Needed where names that don't exist
    /// yet are kept from an agent; without it refused calls are refused all the same, and nobody hears of them.
    pub notify: Support,
    /// Whose power the supervisor has.
    pub privilege: Privilege,
    /// Mount, PID, IPC, UTS and network namespaces, a fresh /proc and a new root: all of them together.
    pub namespaces: Support,
    /// cgroup limits.
    pub controllers: Controllers,
    /// How processes are made.
    pub launch: LaunchPath,
    /// What the launcher itself holds on this host, and could therefore leave to an agent.
    pub capabilities: Capabilities,
    /// uids from [`crate::builtin::OWN_ID_BASE`] on exist here (a container may map only some).
    pub own_ids: Support,
    /// What the launcher's own groups open on this host. Empty for a root launcher, whose agents have no groups of its.
    #[serde(default)]
    pub groups: Vec<GroupOpens>,
}

#[cfg(test)]
impl Host {
    /// A host that has everything that a kernel of today offers, for tests that take something away.
    pub(crate) fn of_today(privilege: Privilege) -> Host {
        let yes = || Support::Yes;
        Host {
            kernel: "6.18".to_owned(),
            landlock_abi: Some(7),
            seccomp: yes(),
            notify: yes(),
            privilege,
            namespaces: yes(),
            controllers: Controllers { memory: yes(), cpu: yes(), tasks: yes(), kill: yes(), layout: "v2".to_owned() },
            launch: LaunchPath::default(),
            capabilities: Capabilities::NONE,
            own_ids: yes(),
            groups: Vec::new(),
        }
    }
}

/// Something that a group of the launcher's opens and that neither its uid nor everybody's bits do. Inside a user namespace no
/// group can be dropped (user_namespaces(7): setgroups is denied before gid_map is written by an unprivileged process), so an
/// agent keeps this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOpens {
    /// The group's id.
    pub gid: u32,
    /// Its name in /etc/group, where it has one.
    pub name: Option<String>,
    /// What it opens.
    pub path: std::path::PathBuf,
    /// What that is.
    pub kind: OpenedKind,
}

/// What a group opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenedKind {
    /// A character or block device.
    Device,
    /// A unix socket that some process serves.
    Socket,
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A folder that was not looked into, because of a bound: what it holds is not known.
    Unknown,
}

impl OpenedKind {
    /// As messages name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            OpenedKind::Device => "device",
            OpenedKind::Socket => "socket",
            OpenedKind::Folder => "folder",
            OpenedKind::File => "file",
            OpenedKind::Unknown => "folder (not looked through)",
        }
    }
}

/// What the launcher found out about one tree of a spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The tree, as the spec names it.
    pub path: std::path::PathBuf,
    /// Its owner on disk.
    pub uid: u32,
    /// Its group on disk.
    pub gid: u32,
    /// Whether an id-mapped mount of it works.
    pub id_map: Support,
    /// The file system's name, for messages.
    pub filesystem: String,
}
