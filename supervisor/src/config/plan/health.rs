//! The health check of a plan.

use std::ffi::OsString;
use std::path::PathBuf;

use agt_rings::spec::Check;
use serde::{Deserialize, Serialize};

use crate::config::units::Span;

/// A health check, resolved like the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPlan {
    /// The program, links resolved, never a script.
    pub program: PathBuf,
    /// `argv`.
    pub argv: Vec<String>,
    /// Time between checks.
    pub interval: Span,
    /// How long a check may take.
    pub timeout: Span,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// Time after the start in which failures don't count.
    pub start_period: Span,
}

impl HealthPlan {
    /// What the launch makes ready to be started in the ring.
    pub(super) fn check(&self) -> Check {
        Check { program: self.program.clone(), argv: self.argv.iter().map(OsString::from).collect() }
    }
}
