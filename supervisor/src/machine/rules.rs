//! The supervision rules of one agent: what its file says about time limits, restarts and health, as the lifecycle needs it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::restart::Restart;

/// The supervision rules of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Restarts.
    pub restart: Restart,
    /// The longest run.
    pub run_timeout: Option<Duration>,
    /// How long a stop waits before it kills.
    pub stop_grace: Duration,
    /// Failed health checks in a row that end it.
    pub health_retries: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { restart: Restart::default(), run_timeout: None, stop_grace: Duration::from_secs(10), health_retries: 3 }
    }
}
