//! The health check of a plan: a program in the ring, or a knock at one of the agent's ports.

use std::ffi::OsString;
use std::path::PathBuf;

use agt_rings::spec::Check;
use serde::{Deserialize, Serialize};

use super::joined;
use crate::config::units::Span;

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPlan {
    /// How it is looked.
    #[serde(flatten)]
    pub look: Look,
    /// Time between checks.
    pub interval: Span,
    /// How long a check may take.
    pub timeout: Span,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// Time after the start in which failures don't count.
    pub start_period: Span,
}

/// How it is looked whether an agent is well. A command's keys stand where they always have, so that the hashes of such plans stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Look {
    /// A program, resolved like the agent's, that exits 0.
    Command {
        /// The program, links resolved, never a script.
        program: PathBuf,
        /// `argv`.
        argv: Vec<String>,
    },
    /// A port of the agent, asked from inside its network.
    Knock {
        /// The port.
        port: u16,
        /// What is asked for by HTTP; `None`: that it takes a connection is enough.
        http: Option<Ask>,
    },
}

/// An HTTP request that an agent that is well answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The path, with its query.
    pub path: String,
    /// The status of a good answer; `None`: 200 to 299.
    pub status: Option<u16>,
}

impl HealthPlan {
    /// What the launch makes ready to be started in the ring.
    pub(super) fn check(&self) -> Option<Check> {
        match &self.look {
            Look::Command { program, argv } => {
                Some(Check { program: program.clone(), argv: argv.iter().map(OsString::from).collect() })
            }
            Look::Knock { .. } => None,
        }
    }

    /// The agent's port that is knocked at.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.look {
            Look::Command { .. } => None,
            Look::Knock { port, .. } => Some(port),
        }
    }

    /// What is looked at, in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.look {
            Look::Command { argv, .. } => joined(argv),
            Look::Knock { port, http: None } => format!("its port {port} takes a connection"),
            Look::Knock { port, http: Some(Ask { path, status }) } => {
                let status = status.map_or_else(|| "2xx".to_owned(), |status| status.to_string());
                format!("GET {path} at its port {port} is answered {status}")
            }
        }
    }
}
