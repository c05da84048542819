//! What the supervisor, the launcher and an init say to each other. JSON in one packet; large requests travel in a memfd.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::{Host, Tree};
use crate::plan::{Plan, SystemTrees};

/// `argv[0]` of the launcher process.
pub(super) const LAUNCHER_NAME: &str = "agt-launcher";

/// Its one argument, if it has one: make processes by fork(2).
pub(super) const FORK_WORD: &str = "fork";

/// Plans that the launcher keeps: a plan travels once and is launched often.
pub(super) const SLOTS: u8 = 32;

/// Supervisor to launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// What does this host offer? Answered by [`Reply::Host`].
    Detect { id: u64 },
    /// Who owns these trees, and can they be id-mapped? Answered by [`Reply::Trees`].
    Inspect { id: u64, paths: Vec<PathBuf> },
    /// Keep a plan under a number, in place of the one that had it.
    Keep { slot: u8, plan: Box<Plan> },
    /// Start the plan kept in `slot`; descriptors: channel, stdin, stdout, stderr, then what `descriptors` says. Answered on
    /// the channel.
    Launch { slot: u8, from: From, descriptors: Descriptors },
    /// Prepare a launch of the plan kept in `slot`, up to where the agent's own streams and groups are needed, once nothing else
    /// is to be done; descriptor: the channel, answered with [`Word::Ready`], on which [`Go`] follows or an end of file.
    Prepare { slot: u8 },
}

/// What a launch may be made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum From {
    /// Everything is made for it.
    Nothing,
    /// The layer of its root that another launch of the plan has made.
    Layers,
}

/// Supervisor to an init that was prepared, on its channel: start the agent. Descriptors: stdin, stdout, stderr, then what
/// `descriptors` says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Go {
    pub(super) descriptors: Descriptors,
}

/// Which optional descriptors follow the four fixed ones of a launch.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Descriptors {
    /// The cgroup v2 directory to be born in (0 or 1).
    pub(super) cgroup: u8,
    /// cgroup v1 `tasks` files, and v2's `cgroup.procs` where nobody is born in a group, open for writing.
    pub(super) tasks: u8,
}

/// Launcher to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Of the request: an answer that comes too late is known by it.
    pub(super) id: u64,
    /// The answer.
    pub(super) reply: Reply,
}

/// What a request is answered with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To [`Request::Detect`].
    Host(Box<Host>, SystemTrees),
    /// To [`Request::Inspect`].
    Trees(Vec<Tree>),
    /// The request could not be carried out.
    Failed(String),
}

/// Init to supervisor, on the channel of one agent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The program was executed. Descriptors: init's pidfd, the agent's pidfd, the checker's socket if the plan has a check, that of
    /// the notices if its filter has a listener, the way into its network if the plan opens one, the TCP listeners in the plan's
    /// order.
    Started,
    /// From an init that is prepared: it waits for [`Go`].
    Ready,
    /// From an init that was prepared: what it was prepared from is no longer so, or it could not be prepared. Nothing was
    /// started and it has ended.
    Stale,
    /// A step of the launch failed; nothing runs.
    Failed(Failure),
    /// The agent's main process ended, and the tree with it.
    Exited(Usage),
}

/// Supervisor to checker, with two descriptors: standard input, and what is both standard output and error.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Ask {
    /// Counted by the supervisor.
    pub(super) id: u64,
    /// How long the check may take.
    pub(super) timeout_ms: u64,
}

/// Checker to init, once, and then to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum CheckWord {
    /// It is confined and waits.
    Ready,
    /// A step of its confinement failed; it has ended.
    Failed(Failure),
    /// A check has ended, and nothing of it is left.
    Ended {
        /// Of the ask.
        id: u64,
        /// How.
        end: CheckEnd,
    },
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CheckEnd {
    /// It exited.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
    /// Its time was over, and it was ended.
    TimedOut,
    /// It could not be started.
    NotStarted(Failure),
}

/// A launch's failing step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// What was being done.
    pub(super) step: String,
    /// The kernel's answer; 0 when it was not the kernel's.
    pub(super) errno: i32,
}

impl Failure {
    pub(super) fn new(step: impl Into<String>, error: &std::io::Error) -> Failure {
        Failure { step: step.into(), errno: error.raw_os_error().unwrap_or(0) }
    }
}

/// How the main process ended and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The status of wait(2).
    pub status: i32,
    /// Microseconds of CPU in user mode, waited-for children included.
    pub user_us: u64,
    /// Microseconds of CPU in the kernel.
    pub system_us: u64,
    /// Largest resident set in KiB.
    pub max_rss_kib: u64,
}
