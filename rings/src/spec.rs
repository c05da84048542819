//! What a launch is asked for: resolved, absolute, already checked against the operator's file. Serde only, no syscalls.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::builtin;
use crate::capability::Capabilities;
use crate::report::Gap;
use crate::ring::Ring;
use crate::seccomp::Nested;

/// What happens when this host can't enforce a protection of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// The launch is refused with the list of what is missing.
    #[default]
    Required,
    /// The launch goes on and the report says what was left out. An explicit opt-out.
    BestEffort,
}

/// How much of a tree is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read and execute.
    Read,
    /// Read, execute, create, change, remove.
    Write,
}

/// One tree or file that the agent may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRule {
    /// Absolute, links resolved.
    pub path: PathBuf,
    /// What may be done below it.
    pub access: Access,
}

/// Whose uid the agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum User {
    /// A uid that nobody else has, when the supervisor is root; else the supervisor's own.
    #[default]
    Own,
    /// This uid and gid (needs a line in the operator's file).
    Fixed {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

/// Resource limits, kept by cgroups. `None` = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory, swap included.
    pub memory_bytes: Option<u64>,
    /// Thousandths of one CPU: 1000 is one full CPU.
    pub cpu_millis: Option<u32>,
    /// Tasks: processes and threads together.
    pub tasks: Option<u32>,
}

/// A listener inside the agent's network namespace that the supervisor serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// A loopback address inside the namespace.
    pub address: SocketAddr,
}

/// Whether an agent in R3, which has no network, keeps the listeners that are asked for and may call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelAccess {
    /// It has none of them.
    #[default]
    None,
    /// It has them, for calls to models: an operator's decision, without effect in every other ring. There has to be a network
    /// namespace of its own.
    Granted,
}

/// Whether the supervisor can connect to the agent's own ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inbound {
    /// Nobody outside can.
    #[default]
    Closed,
    /// It can, in a network of the agent's own: R1 and R2.
    Open,
}

/// A launch, as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The agent's name: names its cgroup and its host name.
    pub name: String,
    /// The effective ring.
    pub ring: Ring,
    /// Refuse or go on where the host falls short.
    pub enforcement: Enforcement,
    /// The program to start, links resolved; never a script.
    pub program: PathBuf,
    /// `argv`, the program's own name first.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub workdir: PathBuf,
    /// What it may read and write besides the ring's own system paths.
    pub files: Vec<FileRule>,
    /// Trees of `files` in which the agent counts as their owner, beside the writable ones and the workdir: what only the
    /// owner may read, it may read there. In every other tree it is a stranger.
    pub as_owner: Vec<PathBuf>,
    /// Where the workdir's changes go instead of into it: a folder of the caller's, on a file system with extended attributes.
    /// The agent sees the workdir with its own changes in it; what is on the disk stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// Existing names inside writable trees that stay read-only.
    pub protect: Vec<PathBuf>,
    /// What is known to be missing before the host is asked: never-writable names that are links, say. Gaps, as any other.
    pub gaps: Vec<Gap>,
    /// Other programs' sockets inside the visible trees: covered, because a read-only mount does not keep them from answering.
    pub sockets: Vec<PathBuf>,
    /// Which names it may not make inside its writable trees, in R1 and R2; `None`: whatever it may write, it may make.
    pub names: Option<crate::names::Rules>,
    /// Trees that no ring may see (the supervisor's state, sockets, keys).
    pub hide: Vec<PathBuf>,
    /// Listeners inside the network namespace.
    pub listen: Vec<Listen>,
    /// Whether R3 keeps them.
    #[serde(default)]
    pub models: ModelAccess,
    /// Whether there is a way into its network.
    #[serde(default)]
    pub inbound: Inbound,
    /// Resource limits.
    pub limits: Limits,
    /// Open files of each process; `None` = the ring's default.
    pub open_files: Option<u32>,
    /// Whose uid it has.
    pub user: User,
    /// The uid and gid for [`User::Own`] when the supervisor is root: nobody else's, the same for this agent at each launch.
    pub own_id: u32,
    /// Whether it may build sandboxes of its own: an operator's decision, ignored in R0 and R3.
    #[serde(default)]
    pub nested: Nested,
    /// What an operator leaves to it in R0; ignored in every other ring.
    pub capabilities: Capabilities,
    /// The standard streams' terminal becomes the agent's controlling terminal.
    pub terminal: Terminal,
    /// What can be started beside the agent, confined as it is, to see whether it is well.
    pub check: Option<Check>,
}

impl Spec {
    /// A program in its workdir and nothing granted: no file, no variable, no listener, the ring's own limits; required in full.
    #[must_use]
    pub fn new(name: &str, ring: Ring, program: impl Into<PathBuf>, workdir: impl Into<PathBuf>) -> Spec {
        let program = program.into();
        Spec {
            name: name.to_owned(),
            ring,
            enforcement: Enforcement::Required,
            argv: program.file_name().map(OsString::from).into_iter().collect(),
            program,
            env: Vec::new(),
            workdir: workdir.into(),
            files: Vec::new(),
            as_owner: Vec::new(),
            scratch: None,
            protect: Vec::new(),
            gaps: Vec::new(),
            sockets: Vec::new(),
            names: None,
            hide: Vec::new(),
            listen: Vec::new(),
            models: ModelAccess::None,
            inbound: Inbound::Closed,
            limits: builtin::definition(ring).limits,
            open_files: None,
            user: User::Own,
            own_id: builtin::OWN_ID_BASE,
            nested: Nested::Refused,
            capabilities: Capabilities::NONE,
            terminal: Terminal::None,
            check: None,
        }
    }
}

/// A health check's program. It has the agent's environment, workdir, files and limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The program, links resolved; never a script.
    pub program: PathBuf,
    /// `argv`, the program's own name first.
    pub argv: Vec<OsString>,
}

/// What the agent's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Terminal {
    /// Pipes, files, anything: no controlling terminal.
    #[default]
    None,
    /// Descriptor 0 is a terminal made for this agent.
    Controlling,
}
