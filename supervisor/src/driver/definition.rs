//! One agent as the driver runs it: the launch, the rules, and what is around it. Made from a resolved configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agt_rings::spec::Spec;
use serde::{Deserialize, Serialize};

use super::logfile::LogLimits;
use crate::machine::lifecycle::Rules;

/// A forward out of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where the agent connects, inside its namespace.
    pub listen: SocketAddr,
    /// Where that goes.
    pub target: String,
}

/// A health check: a command run inside the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command, its program's absolute path first.
    pub command: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Failures are forgiven this long after a start.
    pub start_period: Duration,
}

/// Everything about one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// What is launched. Its ring is the ceiling; the effective ring may be lower.
    pub spec: Spec,
    /// How it is supervised.
    pub rules: Rules,
    /// Its ways out.
    pub forwards: Vec<Forward>,
    /// Its health check.
    pub health: Option<HealthCheck>,
    /// Its log's ceiling.
    pub log: LogLimits,
    /// Where its final state is written as JSON.
    pub status_file: Option<PathBuf>,
    /// The file that it comes from; part of its identity.
    pub source: Option<PathBuf>,
    /// Who started it.
    pub uid: u32,
    /// SHA-256 of the resolved plan, in hex.
    pub plan_hash: String,
}

impl Definition {
    /// The agent's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}
