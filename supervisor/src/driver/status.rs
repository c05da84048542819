//! What `ps`, `status` and `--status-file` show of an agent.

use agt_rings::cgroup::Usage;
use agt_rings::report::Report;
use agt_rings::ring::Ring;
use serde::{Deserialize, Serialize};

use crate::govern::governed::GovernedStatus;
use crate::machine::lifecycle::{Death, State};

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
    /// Its log.
    pub log: std::path::PathBuf,
    /// What the kill switch last did to it.
    pub kill: Option<KillSeen>,
    /// Trust, budget, burn and breaker.
    #[serde(default)]
    pub governed: Option<GovernedStatus>,
}

/// What a kill did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KillSeen {
    /// Processes ended.
    pub processes: usize,
    /// Microseconds from the trigger until the cgroup was empty.
    pub took_us: u64,
    /// The cgroup was seen empty (without one: the init was seen dead).
    pub verified_empty: bool,
}
