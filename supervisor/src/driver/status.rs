//! What `ps`, `status` and `--status-file` show of an agent.

pub mod metered;

use agt_rings::cgroup::Usage;
use agt_rings::report::Report;
use agt_rings::ring::Ring;
use serde::{Deserialize, Serialize};

use self::metered::{ModelsStatus, RequestsStatus};
use super::limiting::LimitsStatus;
use crate::govern::governed::GovernedStatus;
use crate::machine::lifecycle::{Death, State};
use crate::repositories::Found;

/// One agent, now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// Which of its lives this is: launches so far.
    pub life: u64,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: State,
    /// Its effective ring.
    pub ring: Ring,
    /// The most privileged ring that it can reach.
    pub ceiling: Ring,
    /// What is enforced; `None` before the first launch.
    pub report: Option<Report>,
    /// What stays read-only inside what it may write: the names that existed at its last launch.
    #[serde(default)]
    pub protected: Vec<std::path::PathBuf>,
    /// Its main process on the host.
    pub pid: Option<i32>,
    /// Milliseconds since it was last started, while it runs.
    pub up_ms: Option<u64>,
    /// Restarts in the present window.
    pub restarts: u32,
    /// What it died of last.
    pub last_death: Option<Death>,
    /// The exit code of `run` for that.
    pub exit_code: Option<u8>,
    /// What it uses, while it runs in a cgroup.
    pub usage: Option<Usage>,
    /// Memory limit in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Its limits: which hold, and why.
    #[serde(default)]
    pub limits: LimitsStatus,
    /// Ports that it shows to the host: where they are listened at, while it lives or is about to live again.
    #[serde(default)]
    pub ports: Vec<PortSeen>,
    /// Its requests, by whatever way they came.
    #[serde(default)]
    pub requests: RequestsStatus,
    /// Its model calls and what they cost; `null` for an agent without model routes.
    #[serde(default)]
    pub models: Option<ModelsStatus>,
    /// Its log; `null` while there is none (an agent with `stdio: raw` writes to its caller).
    pub log: Option<std::path::PathBuf>,
    /// Who holds all its tasks; `null` while they may run.
    #[serde(default)]
    pub frozen: Option<Frozen>,
    /// In an answer to an order: why there was nothing, or not the usual, to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// What the kill switch last did to it.
    pub kill: Option<KillSeen>,
    /// Trust, budget, burn and breaker.
    #[serde(default)]
    pub governed: Option<GovernedStatus>,
    /// Its health; `None` if it has no health check.
    #[serde(default)]
    pub health: Option<HealthStatus>,
    /// Repositories that came to be in its last life, with what git would run in them.
    #[serde(default)]
    pub made: Found,
}

/// Who holds an agent's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frozen {
    /// An operator.
    Operator,
    /// A quarantine, by the remedy of an SLO.
    Quarantine,
    /// The kernel says that they stand still, and no order of ours did it: an experiment, or somebody at the freezer.
    Other,
}

impl Frozen {
    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Frozen::Operator => "operator",
            Frozen::Quarantine => "quarantine",
            Frozen::Other => "an experiment or another hand",
        }
    }
}

/// A port of an agent, shown to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSeen {
    /// Where the supervisor listens.
    pub listen: std::net::SocketAddr,
    /// The agent's own port.
    pub port: u16,
}

/// Where an agent's health stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    /// Of the present life, or of the last one.
    pub state: HealthState,
    /// Failures in a row that count.
    pub failures: u32,
    /// As many in a row make it unhealthy.
    pub retries: u32,
    /// The last check.
    pub last: Option<CheckSeen>,
    /// The last one that did not pass, in this life or an earlier one.
    pub last_failure: Option<CheckSeen>,
}

/// In a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// It does not run: there is nothing to check.
    Down,
    /// No check has passed yet.
    Starting,
    /// The last check that counts passed.
    Healthy,
    /// Checks fail, but not often enough to end it.
    Failing,
    /// Too many failed: it is being ended, or was ended for it.
    Unhealthy,
}

impl HealthState {
    /// The word that tables and metrics use.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            HealthState::Down => "down",
            HealthState::Starting => "starting",
            HealthState::Healthy => "healthy",
            HealthState::Failing => "failing",
            HealthState::Unhealthy => "unhealthy",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSeen {
    /// Milliseconds since the epoch when it had ended.
    pub at_ms: i64,
    /// How it ended, in words: `passed`, `exited 1`, `took longer than 5s and was ended`.
    pub result: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The last of what it printed, at most 4 KiB.
    pub output: String,
    /// Bytes of output before that, which were not kept.
    pub output_dropped: u64,
}

/// What a kill did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KillSeen {
    /// Processes ended; `null` without a cgroup, where nobody counts them.
    pub processes: Option<usize>,
    /// Microseconds from the trigger until nothing was left; `null` when that was not verified.
    pub took_us: Option<u64>,
    /// The cgroup was seen empty; without one: the end of the PID namespace was seen.
    pub verified_empty: bool,
}
