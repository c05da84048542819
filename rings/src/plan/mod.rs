//! Spec + host = plan, or the list of what is missing. Pure: the heart of the crate.
//!
//! A plan is compiled once and launched as often as needed; it holds nothing that a launch would still have to decide. The
//! launcher performs it step by step and any step that fails ends the launch.

mod control;
mod groups;
mod heard;
#[cfg(test)]
mod identity_tests;
mod left_out;
mod mounts;
mod nested;
mod network;
mod protections;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::builtin::{self, View};
use crate::capability::Capabilities;
use crate::host::{Host, Privilege, Tree};
use crate::report::{Enforced, Gap, Report, in_words};
use crate::ring::Ring;
use crate::seccomp::{self, ExecCookie, Nested};
use crate::spec::{Enforcement, Inbound, Listen, Spec, Terminal, User};

pub use self::control::CONTROL;
pub use self::left_out::LeftOut;
pub use self::mounts::{Execute, Marks, ProcView};
pub use self::network::Tcp;
use self::protections::capabilities;

/// How the agent's file system view comes to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// No mount namespace: only Landlock stands between (best effort).
    Unchanged,
    /// The host's tree in a mount namespace of its own, with some trees covered by empty ones.
    Host {
        /// Trees that are covered.
        hide: Vec<PathBuf>,
        /// The one folder that is shown in spite of it: that of this agent's control socket.
        show: Option<PathBuf>,
    },
    /// A new root on a tmpfs.
    Built {
        /// What is mounted, parents first.
        mounts: Vec<Mount>,
        /// The tmpfs's size in bytes.
        bytes: u64,
    },
}

/// One entry of a built root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// A host path at the same path inside.
    Bind {
        /// The path, links resolved.
        source: PathBuf,
        /// Where it appears.
        target: PathBuf,
        /// Read-only or writable.
        access: crate::spec::Access,
        /// On-disk owner and group that appear as the agent's.
        id_map: Option<(u32, u32)>,
    },
    /// A host directory at the same path inside, whose changes go elsewhere (overlayfs).
    Overlay {
        /// The directory, links resolved; never written.
        target: PathBuf,
        /// Where the changes go: gets `upper` and `work` below it.
        scratch: PathBuf,
        /// On-disk owner and group of the directory that appear as the agent's.
        id_map: Option<(u32, u32)>,
        /// Which extended attributes the kernel may use for it.
        marks: Marks,
    },
    /// A device node of the host.
    Device {
        /// The node.
        path: PathBuf,
    },
    /// A writable directory of the tmpfs itself, owned by the agent.
    Private {
        /// Where.
        target: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Whether what is written there can be run.
        execute: Execute,
    },
    /// A symbolic link.
    Link {
        /// Where.
        target: PathBuf,
        /// What it points to.
        to: PathBuf,
    },
    /// A small file with fixed content.
    File {
        /// Where.
        target: PathBuf,
        /// Its text.
        content: String,
    },
    /// A fresh /proc of the PID namespace.
    Proc {
        /// As what it is shown.
        view: ProcView,
    },
    /// A fresh /dev/pts.
    Terminals,
    /// A directory mounted onto itself: a mount point can't be renamed away, and what is protected below it with it.
    Pin {
        /// The directory.
        target: PathBuf,
    },
    /// An existing name inside a writable tree, made read-only.
    Protect {
        /// The name.
        target: PathBuf,
    },
    /// An existing directory covered by an empty one, or a file by an empty one.
    Hide {
        /// The name.
        target: PathBuf,
    },
}

/// Which Landlock rules are loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// The ABI that the rules were chosen for.
    pub abi: u32,
    /// Trees, with what may be done below them.
    pub rules: Vec<(PathBuf, crate::spec::Access)>,
    /// What may be done by TCP (ABI 4).
    pub tcp: Tcp,
}

/// How the program is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// By path; the agent may execute more.
    Path,
    /// By a descriptor that can never exist again.
    Once,
}

/// The credentials of the agent, changed by a supervisor that is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A launch, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The agent's name.
    pub name: String,
    /// The ring.
    pub ring: Ring,
    /// Flags of clone(2) for the namespaces.
    pub namespaces: i32,
    /// Where a user namespace is made: the one uid and gid that it maps.
    pub user_namespace: Option<Ids>,
    /// The file system view.
    pub root: Root,
    /// The uid and gid that a root supervisor changes to; `None` keeps its own.
    pub ids: Option<Ids>,
    /// The capabilities that it has, exactly; none but in R0.
    pub capabilities: Capabilities,
    /// Open files, soft and hard.
    pub open_files: u64,
    /// Landlock rules, where the kernel has it.
    pub landlock: Option<Landlock>,
    /// seccomp filters in load order; `None` where there is no seccomp.
    pub filters: Option<seccomp::Filters>,
    /// What they were made from, and so what whoever listens to them must know.
    #[serde(default)]
    pub filter_options: Option<seccomp::Options>,
    /// What the attendant beside the agent hears of, and tells.
    #[serde(default)]
    pub notify: seccomp::Notify,
    /// The names that the attendant keeps from it; `None` where its creating calls go to the kernel.
    #[serde(default)]
    pub names: Option<crate::names::Rules>,
    /// How the program starts.
    pub start: Start,
    /// The secret by which the filters know the launcher's own exec.
    pub exec_cookie: ExecCookie,
    /// The program.
    pub program: PathBuf,
    /// Its arguments, its own name first.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub workdir: PathBuf,
    /// Listeners inside its network namespace.
    pub listen: Vec<Listen>,
    /// Whether the init makes sockets in it for the supervisor: only in a network of the agent's own.
    #[serde(default)]
    pub inbound: Inbound,
    /// Whether descriptor 0 becomes its controlling terminal.
    pub terminal: Terminal,
    /// What can be started beside it to see whether it is well.
    pub check: Option<crate::spec::Check>,
    /// Its cgroup limits, for the one who makes the group.
    pub limits: crate::spec::Limits,
    /// A step that the launch leaves out, for a probe that shows what rests on it: never in a plan from [`compile`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// What all of this enforces.
    pub report: Report,
}

/// The host can't enforce the ring as specified: nothing is launched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ring} can't be enforced here: {}", list(.gaps))]
pub struct Refused {
    /// The ring asked for.
    pub ring: Ring,
    /// What is missing; never empty.
    pub gaps: Vec<Gap>,
}

fn list(gaps: &[Gap]) -> String {
    let parts: Vec<String> = in_words(gaps).into_iter().map(|words| format!("protection {words}")).collect();
    parts.join("; ")
}

const ALL_NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
const HOST_NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID;

/// Makes a plan. `trees` are the facts about each tree in `spec.files`.
///
/// `cookie` is the supervisor's secret for its own exec.
///
/// # Errors
/// [`Refused`] with every gap when the spec asks for `required` enforcement and the host can't give it; whatever it asks for
/// when `trees` lacks one of its files: what is not known of a tree must not be taken for "no map needed".
pub fn compile(
    spec: &Spec,
    host: &Host,
    trees: &[Tree],
    system: &SystemTrees,
    cookie: ExecCookie,
) -> Result<Plan, Refused> {
    if let Some(gap) = protections::unknown(spec, trees) {
        return Err(Refused { ring: spec.ring, gaps: vec![gap] });
    }
    let definition = builtin::definition(spec.ring);
    let namespaced = host.namespaces.is_yes();
    let namespaces = match (namespaced, definition.view) {
        (false, _) => 0,
        (true, View::Host) => HOST_NAMESPACES,
        (true, View::Built) => ALL_NAMESPACES,
    };
    let user_namespace = match host.privilege {
        Privilege::User { uid, gid } if namespaced => Some(Ids { uid, gid }),
        _ => None,
    };
    let ids = identity(spec, host, trees);
    let root = match (namespaced, definition.view) {
        (false, _) => Root::Unchanged,
        (true, View::Host) => Root::Host { hide: spec.hide.clone(), show: None },
        (true, View::Built) => Root::Built {
            mounts: mounts::built(
                spec,
                (definition, nested::given(spec, host)),
                ids,
                ids.or(user_namespace).unwrap_or(Ids { uid: 0, gid: 0 }),
                trees,
                system,
            ),
            bytes: definition.private_bytes,
        },
    };
    let landlock = landlock(spec, host, definition, &root, system);
    let names = heard::names(spec, host);
    let options = || heard::filter_options(spec, names, host, cookie);
    let filter_options = host.seccomp.is_yes().then(options).flatten();
    let filters = filter_options.and_then(|options| seccomp::Filters::for_ring(spec.ring, &options).ok());
    let facts = protections::Facts {
        spec,
        host,
        trees,
        ids,
        root: &root,
        landlock: landlock.as_ref(),
        filters: filters.is_some(),
        heard: filter_options.is_some_and(|options| options.need_listener()),
    };
    let (enforced, gaps): (Vec<Enforced>, Vec<Gap>) = protections::judge(definition, &facts);
    if !gaps.is_empty() && spec.enforcement == Enforcement::Required {
        return Err(Refused { ring: spec.ring, gaps });
    }
    Ok(Plan {
        name: spec.name.clone(),
        ring: spec.ring,
        namespaces,
        user_namespace,
        env: environment(spec, &root),
        root,
        ids,
        capabilities: capabilities(spec, host),
        open_files: open_files(spec, definition),
        landlock,
        filters,
        filter_options,
        notify: filter_options.map(|options| options.notify).unwrap_or_default(),
        names: names.cloned(),
        start: if spec.ring == Ring::R3 { Start::Once } else { Start::Path },
        exec_cookie: cookie,
        program: spec.program.clone(),
        argv: spec.argv.clone(),
        workdir: spec.workdir.clone(),
        listen: network::listen(spec, host),
        inbound: inbound(spec, namespaces),
        terminal: spec.terminal,
        check: spec.check.clone(),
        limits: spec.limits,
        left_out: None,
        report: Report { ring: spec.ring, enforced, launch: host.launch.clone(), gaps },
    })
}

/// R3 has no network to listen in. Where the agent has the host's, a socket would lead to the host's own ports.
fn inbound(spec: &Spec, namespaces: i32) -> Inbound {
    match spec.ring {
        Ring::R1 | Ring::R2 if namespaces & libc::CLONE_NEWNET != 0 => spec.inbound,
        _ => Inbound::Closed,
    }
}

/// The open-file limit. In R3 it stays at or below the number from which the program is executed: a descriptor of that number
/// must stay out of reach.
fn open_files(spec: &Spec, definition: &builtin::Definition) -> u64 {
    let wanted = spec.open_files.map_or(definition.open_files, u64::from);
    if spec.ring == Ring::R3 { wanted.min(u64::from(builtin::EXEC_FD)) } else { wanted }
}

/// Whose uid a root supervisor gives the agent.
fn identity(spec: &Spec, host: &Host, trees: &[Tree]) -> Option<Ids> {
    if host.privilege != Privilege::Root {
        return None;
    }
    match spec.user {
        User::Fixed { uid, gid } => Some(Ids { uid, gid: group(uid, gid, spec) }),
        User::Own if spec.ring == Ring::R0 => None,
        User::Own => {
            // Where a writable tree's file system has no id-mapped mounts, only its owner can write there; but never as root.
            let unmapped = spec
                .files
                .iter()
                .filter(|rule| rule.access == crate::spec::Access::Write)
                .filter_map(|rule| trees.iter().find(|tree| tree.path == rule.path))
                .find(|tree| !tree.id_map.is_yes() && tree.uid != 0);
            Some(unmapped.map_or(Ids { uid: spec.own_id, gid: spec.own_id }, |tree| Ids {
                uid: tree.uid,
                gid: group(tree.uid, tree.gid, spec),
            }))
        }
    }
}

/// Never the group of root for who is not root: files of the system's own are open to it. A group that nobody else has instead.
fn group(uid: u32, gid: u32, spec: &Spec) -> u32 {
    if uid != 0 && gid == 0 { spec.own_id } else { gid }
}

/// Rules by path inside the agent's own view. With a built root everything visible may be read; without one the rules are the
/// only wall, so they list each tree.
fn landlock(
    spec: &Spec,
    host: &Host,
    definition: &builtin::Definition,
    root: &Root,
    system: &SystemTrees,
) -> Option<Landlock> {
    let abi = host.landlock_abi?;
    // Who has Landlock's file rules can't mount: landlock(7).
    if definition.view == View::Host || nested::given(spec, host) == Nested::Allowed {
        return None;
    }
    let mut rules: Vec<(PathBuf, crate::spec::Access)> = Vec::new();
    let writable = ["/tmp", builtin::HOME, "/dev/shm", "/dev/pts", "/dev/ptmx"];
    let devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    match root {
        Root::Built { .. } => {
            rules.push((PathBuf::from("/"), crate::spec::Access::Read));
            rules.extend(writable.iter().chain(&devices).map(|path| (PathBuf::from(path), crate::spec::Access::Write)));
        }
        Root::Unchanged | Root::Host { .. } => {
            rules.extend(system.readable(definition).map(|path| (path, crate::spec::Access::Read)));
            rules.push((PathBuf::from("/proc"), crate::spec::Access::Read));
            rules.extend(devices.iter().map(|path| (PathBuf::from(path), crate::spec::Access::Write)));
            rules.extend(
                spec.files.iter().filter(|r| r.access == crate::spec::Access::Read).map(|r| (r.path.clone(), r.access)),
            );
        }
    }
    // R3 only reads what it declares for writing.
    let access = if spec.ring == Ring::R3 { crate::spec::Access::Read } else { crate::spec::Access::Write };
    let declared = spec.files.iter().filter(|r| r.access == crate::spec::Access::Write);
    rules.extend(declared.map(|r| (r.path.clone(), access)));
    Some(Landlock { abi, rules, tcp: network::tcp(spec, host, abi) })
}

/// HOME and the like point into the private directories: whatever the caller said about them.
fn environment(spec: &Spec, root: &Root) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = spec.env.clone();
    if matches!(root, Root::Built { .. }) {
        for (key, value) in [("HOME", builtin::HOME), ("TMPDIR", "/tmp"), ("USER", "agent"), ("LOGNAME", "agent")] {
            env.retain(|(name, _)| name != key);
            env.push((key.into(), value.into()));
        }
    }
    env
}

/// Which of the host's system paths exist, and which of them are links: found once by the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SystemTrees {
    /// Path, and what it is.
    pub entries: Vec<(PathBuf, SystemEntry)>,
}

/// What a system path is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemEntry {
    /// A directory or file, by its resolved path.
    Real(PathBuf),
    /// A small file: its content, so that a launch needs no mount for it.
    Small(String),
    /// A link to keep as a link.
    Link(PathBuf),
}

impl SystemTrees {
    fn readable<'a>(&'a self, definition: &'a builtin::Definition) -> impl Iterator<Item = PathBuf> + 'a {
        self.entries
            .iter()
            .filter_map(|(path, entry)| match entry {
                SystemEntry::Real(real) => Some(real.clone()),
                SystemEntry::Small(_) => Some(path.clone()),
                SystemEntry::Link(_) => None,
            })
            .filter(move |path| mounts::belongs(path, definition))
    }
}

#[cfg(test)]
mod tests;
