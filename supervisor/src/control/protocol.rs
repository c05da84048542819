//! What goes over the operator socket: paths, bodies, answers.

use serde::{Deserialize, Serialize};

use crate::driver::event::Act;
use crate::driver::status::AgentStatus;
use crate::driver::total::TotalStatus;

/// All agents: GET.
pub const AGENTS: &str = "/v1/agents";
/// Something done to an agent or to all: POST.
pub const ACT: &str = "/v1/act";
/// The supervisor itself: GET.
pub const SUPERVISOR: &str = "/v1/supervisor";

/// The body of [`ACT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActBody {
    /// The agent; `None` for all.
    pub agent: Option<String>,
    /// What to do.
    pub act: ActWord,
    /// Why; kept in the audit log.
    #[serde(default)]
    pub reason: String,
}

/// [`Act`] in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActWord {
    /// Stop in order.
    Stop,
    /// End the tree.
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

impl From<ActWord> for Act {
    fn from(word: ActWord) -> Act {
        match word {
            ActWord::Stop => Act::Stop,
            ActWord::Kill => Act::Kill,
            ActWord::Revive => Act::Revive,
            ActWord::Freeze => Act::Freeze,
            ActWord::Thaw => Act::Thaw,
            ActWord::Restart => Act::Restart,
        }
    }
}

/// Agents, as asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Agents {
    /// One entry each.
    pub agents: Vec<AgentStatus>,
    /// Who supervises them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<About>,
    /// All of them together, where they have cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<TotalStatus>,
}

/// The supervisor itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Where Prometheus finds it, when it serves metrics.
    pub metrics: Option<String>,
    /// The folder that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<std::path::PathBuf>,
}

/// An answer that is a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, in words.
    pub error: String,
    /// The exit code for the command that asked.
    pub exit_code: u8,
}
