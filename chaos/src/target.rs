//! What a fault acts on, seen from here: acts as data, an observation, and the trait that the supervisor implements.
//!
//! This crate names what is to be done ([`Act`]) and never which cgroup or pid that is; the supervisor knows those. Acts
//! are data so that the experiment can be a pure machine, and preparing is apart from performing because the way back has
//! to be on disk before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::FaultKind;
use crate::interlock::Refusal;
use crate::spec::Comparison;
use crate::undo::{Undo, UndoEntry};
use crate::unit::{Bytes, CpuShare};

/// One thing done to the agent. All of them take away; none gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Freeze the agent's whole tree (cgroup freezer).
    Freeze,
    /// Set the CPU quota of the agent's tree.
    SetCpuQuota(CpuShare),
    /// Set the memory limit of the agent's tree.
    SetMemoryLimit(Bytes),
    /// Take memory inside the agent's own cgroup until its limit is reached and the OOM killer has acted, or the burst ends.
    /// Returns when the pressing has begun; whatever presses must die with the supervisor and with the undo.
    PressMemory {
        /// How fast.
        per_second: Bytes,
    },
    /// Lower the soft file limit of each process in the agent's tree until it can open only so many more.
    /// [`crate::fault::fd_exhaustion::soft_limit_for`] says which number that is.
    LimitFds {
        /// How many more files each may open.
        headroom: u32,
    },
    /// Kill the agent when the saga step of this name starts next. Returns when it is armed.
    CrashAtStep {
        /// The step.
        step: String,
    },
    /// Put a trust score in the place of the agent's own until it is undone.
    SetTrust(u16),
}

/// What a fault needs of the host and of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// A writable freezer: v1 `freezer`, v2 `cgroup.freeze`.
    Freezer,
    /// A writable CPU quota: v1 `cpu.cfs_quota_us`, v2 `cpu.max`, and its throttle count.
    CpuQuota,
    /// A writable memory limit and its OOM count: v1 `memory.oom_control`, v2 `memory.events`.
    MemoryLimit,
    /// Leave to change limits of the agent's processes: the same uid, CAP_SYS_RESOURCE over them, or CAP_SETUID.
    Prlimit,
    /// Sagas run here, and their steps are announced.
    SagaSteps,
    /// Trust scores are kept here.
    TrustScores,
}

impl Need {
    /// In words, for lists and refusals.
    pub fn describe(self) -> &'static str {
        match self {
            Need::Freezer => "a writable cgroup freezer",
            Need::CpuQuota => "a writable cgroup CPU quota",
            Need::MemoryLimit => "a writable cgroup memory limit with an OOM count",
            Need::Prlimit => "leave to change the file limit of the agent's processes",
            Need::SagaSteps => "a saga that runs here",
            Need::TrustScores => "trust scores",
        }
    }
}

/// A need that isn't met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is missing.
    pub need: Need,
    /// Why, with path and errno.
    pub reason: String,
}

/// Where the agent runs, as the operator's file says. Missing there means production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// No experiments.
    #[default]
    Production,
    /// Experiments may run.
    Staging,
    /// Experiments may run.
    Dev,
}

/// Whether the agent's owner and the operator let experiments touch it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptIn {
    /// No.
    #[default]
    No,
    /// Any fault.
    Any,
    /// These faults.
    Only(BTreeSet<FaultKind>),
}

impl OptIn {
    /// Whether this fault is allowed.
    pub fn allows(&self, fault: FaultKind) -> bool {
        match self {
            OptIn::No => false,
            OptIn::Any => true,
            OptIn::Only(faults) => faults.contains(&fault),
        }
    }
}

/// The state of the agent's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    /// It runs (frozen counts as running).
    Alive,
    /// It ended and a restart is due.
    Restarting,
    /// It ended.
    Dead,
    /// The kill switch ended it: experiments leave it alone.
    Killed,
}

/// A limit as the kernel knows it. Ordered: any number is less than none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// This much.
    At(u64),
    /// No limit.
    Unlimited,
}

/// What the supervisor sees of the agent now. `None` always means "can't be told", never zero and never healthy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Where it runs.
    pub environment: Environment,
    /// Whether it opted in.
    pub opt_in: OptIn,
    /// Another experiment that has been registered and hasn't ended, on any agent of this supervisor.
    pub other_experiment: Option<String>,
    /// Whether an incident (a firing page, an open breaker, a quarantine) is open on the agent.
    pub incident_open: Option<bool>,
    /// Its main process.
    pub process: Option<Process>,
    /// How often it was restarted, ever.
    pub restarts: Option<u64>,
    /// Whether its tree is frozen.
    pub frozen: Option<bool>,
    /// The CPU quota in thousandths of one CPU.
    pub cpu_quota: Option<Limit>,
    /// How many periods it was throttled in, ever.
    pub cpu_throttled: Option<u64>,
    /// The memory limit in bytes.
    pub memory_limit: Option<Limit>,
    /// Memory in use, in bytes.
    pub memory_usage: Option<u64>,
    /// How many OOM kills it has seen, ever: those of earlier lives, and of cgroups that are gone, included.
    pub oom_kills: Option<u64>,
    /// The lowest soft file limit among its processes.
    pub fd_soft_limit: Option<u64>,
    /// How many more files the process with the least room can open.
    pub fd_room: Option<u64>,
    /// Its trust score (0-1000), the one that decides now.
    pub trust: Option<u16>,
    /// Whether an experiment's score stands in the place of its own.
    pub trust_replaced: Option<bool>,
    /// Whether a crash is armed for a saga step.
    pub crash_armed: Option<bool>,
    /// How many armed crashes were carried out, ever.
    pub step_crashes: Option<u64>,
    /// Safety violations, ever.
    pub safety_violations: Option<u64>,
    /// Every SLI by name, over the look-back asked for: good / valid. A name that isn't here is unknown; `None` is no data.
    pub slis: BTreeMap<String, Option<f64>>,
    /// What is left of each SLO's error budget, 0 to 1.
    pub budgets: BTreeMap<String, Option<f64>>,
    /// Budgets of which no event has been counted yet: whole, and nobody knows what would burn them.
    pub uncounted: std::collections::BTreeSet<String>,
    /// Any further readings.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// What the target saw happen since its last observation, in words, for the timeline: who died, what was decided.
    pub happened: Vec<String>,
}

/// Where a condition's number comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An SLI.
    Sli(String),
    /// Any other reading.
    Metric(String),
    /// What is left of an error budget.
    Budget(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Sli(name) => write!(f, "SLI {name}"),
            Source::Metric(name) => write!(f, "metric {name}"),
            Source::Budget(name) => write!(f, "budget {name}"),
        }
    }
}

/// What an observation says about a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// This.
    Value(f64),
    /// The name is known, and there is no data.
    NoData,
    /// Nothing has that name.
    UnknownName,
}

impl Reading {
    /// The number, if there is one.
    pub fn value(self) -> Option<f64> {
        match self {
            Reading::Value(value) => Some(value),
            Reading::NoData | Reading::UnknownName => None,
        }
    }
}

impl Observation {
    /// The readings that every observation has under `metric:`.
    pub const METRICS: [&'static str; 8] = [
        "restarts",
        "cpu_throttled",
        "memory_usage_bytes",
        "oom_kills",
        "fd_room",
        "trust",
        "step_crashes",
        "safety_violations",
    ];

    /// The number that a source has now. A number that isn't finite is no data.
    pub fn read(&self, source: &Source) -> Reading {
        let found = match source {
            Source::Sli(name) => self.slis.get(name).copied(),
            Source::Budget(name) => self.budgets.get(name).copied(),
            Source::Metric(name) => self.metrics.get(name).copied().or_else(|| self.own_metric(name)),
        };
        match found {
            Some(Some(value)) if value.is_finite() => Reading::Value(value),
            Some(_) => Reading::NoData,
            None => Reading::UnknownName,
        }
    }

    fn own_metric(&self, name: &str) -> Option<Option<f64>> {
        // Counts beyond 2^53 lose their last digits as f64; none of these gets there.
        let number = |value: Option<u64>| Some(value.map(|v| v as f64));
        match name {
            "restarts" => number(self.restarts),
            "cpu_throttled" => number(self.cpu_throttled),
            "memory_usage_bytes" => number(self.memory_usage),
            "oom_kills" => number(self.oom_kills),
            "fd_room" => number(self.fd_room),
            "trust" => number(self.trust.map(u64::from)),
            "step_crashes" => number(self.step_crashes),
            "safety_violations" => number(self.safety_violations),
            _ => None,
        }
    }

    /// Every name of a source's kind, for a did-you-mean.
    pub fn names_like(&self, source: &Source) -> Vec<String> {
        match source {
            Source::Sli(_) => self.slis.keys().cloned().collect(),
            Source::Budget(_) => self.budgets.keys().cloned().collect(),
            Source::Metric(_) => {
                self.metrics.keys().cloned().chain(Self::METRICS.iter().map(|name| (*name).to_owned())).collect()
            }
        }
    }
}

impl Comparison {
    /// Whether `left` compares so with `right`.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::AtLeast => left >= right,
            Comparison::AtMost => left <= right,
            Comparison::Above => left > right,
            Comparison::Below => left < right,
        }
    }

    /// The usual sign.
    pub fn sign(self) -> &'static str {
        match self {
            Comparison::AtLeast => ">=",
            Comparison::AtMost => "<=",
            Comparison::Above => ">",
            Comparison::Below => "<",
        }
    }
}

/// Why a target did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It will not or can't: nothing was changed. Ends in a refusal.
    #[error("{0}")]
    Refused(Refusal),
    /// The kernel or the supervisor's state failed it; something may have been changed.
    #[error("{doing}")]
    Failed {
        /// What was being done, with path, pid and value.
        doing: String,
        /// The kernel's word.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// The agent under experiment, as the supervisor offers it.
///
/// Every future must be *cancel-safe*: a dropped future must not change anything afterwards. (Do the writes inside the
/// poll, not on a detached thread.) A fault that took effect after its undo would stay.
pub trait Target: Send + Sync {
    /// Which of these needs are not met, each with its reason. Changes nothing.
    fn missing(&self, needs: &[Need]) -> impl Future<Output = Vec<Missing>> + Send;

    /// What can be seen now. SLIs look back over `look_back`, a few seconds; budgets over their own window.
    fn observe(&self, look_back: Duration) -> impl Future<Output = Result<Observation, TargetError>> + Send;

    /// Checks that the acts can be done now and reads what it takes to undo them. Changes nothing. The entries are
    /// performed in the given order.
    fn prepare(&self, acts: &[Act]) -> impl Future<Output = Result<Vec<UndoEntry>, TargetError>> + Send;

    /// Does the acts, in order. The undo is durable and the guardian armed. Returns soon, not when the burst is over.
    fn perform(&self, acts: &[Act]) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Puts everything back and has looked that it is so. Must be idempotent. Kernel-level entries can be left to
    /// [`crate::replay::apply`]; whatever presses memory is ended here too.
    fn undo(&self, undo: &Undo) -> impl Future<Output = Result<(), TargetError>> + Send;
}
