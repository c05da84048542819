//! Everything that can wake the supervisor: one closed enum, so that all causes of work can be read off in one place.

use std::sync::Arc;

use agt_rings::cgroup::{Group, Usage};
use agt_rings::launch::{Exit, Running};
use agt_rings::plan::Plan;
use tokio::sync::oneshot;

use super::audience::{Tenure, Wish};
use super::definition::Definition;
use super::experimenting::Order;
use super::limiting::LimitBody;
use super::observing::{GovernedNumbers, Seen};
use super::sagas::SagaAsk;
use super::scene::Scene;
use super::status::{AgentStatus, KillSeen};
use super::streams::Wiring;
use crate::govern::ask::{Answer, Ask};
use crate::govern::report::{Reply, Report};
use crate::machine::lifecycle::{Conclusion, Timer};

/// A cause of work.
#[derive(Debug)]
pub enum Event {
    /// An agent's timer fired.
    Timer(Whose, Timer),
    /// A launch has ended, well or badly.
    Launched(Whose, Box<Result<Launched, NotLaunched>>),
    /// An agent's main process ended and its tree was verified gone.
    Exited(Whose, Box<Gone>),
    /// A kill has done its work.
    Killed(Whose, KillSeen),
    /// A health check has ended; the error is ours, not the agent's.
    Checked(Whose, Box<std::io::Result<super::health::Looked>>),
    /// An operator or the program asks.
    Request(Request),
    /// An agent says something on its control socket.
    Said(Whose, Report, oneshot::Sender<Reply>),
    /// The kernel says that a limit may have been met.
    LimitMet(Whose),
    /// What an agent was denied, or that nobody will tell that any more.
    Noticed(Whose, super::noticing::Heard),
    /// Limits that an operator set have reached the kernel, or not.
    Limited(Box<super::limiting::Limited>),
    /// Time to look at budgets.
    Tick,
    /// What passed the gateway, or was not let through.
    Passed(Box<super::ways::Gathered>),
    /// Work beside the agents is over: the end may have waited for it.
    Released,
    /// The watchdog was ended by somebody else.
    WatchdogGone,
    /// The launcher was, and with it every agent.
    LauncherGone,
}

/// Which launch of which agent an event is about: events of an earlier life are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The agent.
    pub agent: String,
    /// Which launch, counted from 1.
    pub life: u64,
}

/// What a launch made.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub running: Running,
    /// Its cgroup.
    pub group: Option<Arc<Group>>,
    /// What was performed.
    pub plan: Plan,
}

/// Why a launch failed.
#[derive(Debug)]
pub struct NotLaunched {
    /// In words, for people.
    pub error: String,
    /// The exit code for it.
    pub code: u8,
}

/// How a tree ended.
#[derive(Debug)]
pub struct Gone {
    /// What its main process said.
    pub exit: Exit,
    /// The kernel counted an OOM kill in its group.
    pub out_of_memory: OutOfMemory,
    /// The last numbers of its group.
    pub usage: Option<Usage>,
}

/// Whether the memory limit ended something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfMemory {
    /// It did.
    Seen,
    /// It did not, or nobody counts here.
    NotSeen,
}

/// What can be asked of the supervisor.
#[derive(Debug)]
pub enum Request {
    /// Take an agent up and start it.
    Add {
        /// The agent.
        definition: Box<Definition>,
        /// Its streams.
        wiring: Wiring,
        /// Told when it is dead for good (or could not be taken up).
        done: oneshot::Sender<Result<Conclusion, Refusal>>,
    },
    /// All agents, or one.
    Status {
        /// Its name; `None` for all.
        agent: Option<String>,
        /// The answer.
        answer: oneshot::Sender<Result<Vec<Seen>, Refusal>>,
    },
    /// The numbers of all agents, for metrics.
    Observe {
        /// The answer.
        answer: oneshot::Sender<(Vec<Seen>, Vec<GovernedNumbers>)>,
    },
    /// Change an agent's limits.
    Limit {
        /// What.
        body: LimitBody,
        /// Who asks.
        by: u32,
        /// The answer, once the kernel shows them.
        answer: oneshot::Sender<Result<Vec<AgentStatus>, Refusal>>,
    },
    /// What an experiment sees of one agent.
    Scene {
        /// Its name.
        agent: String,
        /// The answer.
        answer: oneshot::Sender<Result<Scene, Refusal>>,
    },
    /// Do the part of a fault that is no file of a cgroup.
    Experiment {
        /// The agent's name.
        agent: String,
        /// What.
        order: Order,
        /// The answer, once it is done.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Do something to an agent.
    Act {
        /// Its name; `None` for all.
        agent: Option<String>,
        /// What.
        act: Act,
        /// Who asks.
        by: u32,
        /// Why.
        reason: String,
        /// The answer, once it is done.
        answer: oneshot::Sender<Result<Vec<AgentStatus>, Refusal>>,
    },
    /// Something about sagas.
    Saga(SagaAsk),
    /// What whoever started an agent wants of it; nothing once it is dead or somebody else's.
    Wish {
        /// Its name.
        agent: String,
        /// Which start of it.
        tenure: Tenure,
        /// What.
        wish: Wish,
        /// Who asks.
        by: u32,
    },
    /// Whoever started this supervisor waits for nothing more: it ends with its last agent.
    Settle,
    /// Read or replace the loaded plans.
    Reload(super::reload::Ask),
    /// Ask the governor.
    Govern {
        /// What.
        ask: Ask,
        /// Who asks.
        by: u32,
        /// The answer.
        answer: oneshot::Sender<Result<Answer, Refusal>>,
    },
    /// Stop everything and end.
    Shutdown,
    /// End everything at once, and end.
    ShutdownNow,
}

/// What can be done to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Stop in order.
    Stop,
    /// End the tree, verified.
    Kill,
    /// Let it live again.
    Revive,
    /// Stop every task.
    Freeze,
    /// Let every task run.
    Thaw,
    /// Stop, then start.
    Restart,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such agent.
    #[error("no agent is called `{0}`")]
    Unknown(String),
    /// The name is taken by another identity.
    #[error("the name `{name}` belongs to {other}; `agt-supervise trust forget {name} --reason \"...\"` frees it")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        other: String,
    },
    /// It can't be done in this state.
    #[error("{0}")]
    NotNow(String),
    /// It was to be started and runs.
    #[error("{0} is already running\nhelp: agt-supervise restart {0}, or wait for its end")]
    AlreadyRuns(String),

    /// What gives power could not be recorded, so it was not given.
    #[error("the audit log can't be written, so nothing was started: {0}")]
    NotRecorded(String),
    /// The kill switch's mark is on it.
    #[error("it was killed ({reason})\nhelp: agt-supervise revive {name} --reason \"...\"")]
    Killed {
        /// The name.
        name: String,
        /// Why it was killed.
        reason: String,
    },
    /// Its circuit breaker is open.
    #[error("its circuit breaker is open{}\nhelp: agt-supervise slo {name} --explain", retry_text(*.retry_after_s))]
    BreakerOpen {
        /// The name.
        name: String,
        /// Seconds until a probe is let through; `None` while an operator holds it open.
        retry_after_s: Option<u64>,
    },
    /// Policy says no.
    #[error("{0}")]
    Policy(String),
    /// This host, or its kernel, can't do it.
    #[error("{0}")]
    HostCant(String),
    /// What the state store has of it can't be used.
    #[error("{0}")]
    BadState(String),
    /// The supervisor is ending.
    #[error("the supervisor is ending")]
    Ending,
}

fn retry_text(retry_after_s: Option<u64>) -> String {
    retry_after_s.map_or_else(String::new, |s| format!(": try again in {s} s"))
}
