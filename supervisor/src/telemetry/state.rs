//! The closed sets of words that label states, and the words for what the supervisor's own types say.

use agt_rings::Ring;

use crate::driver::status::Frozen;
use crate::machine::lifecycle::{GaveUp, State};

/// States of an agent. `gave_up` is its own: an operator must look, where `ended` is often meant.
pub const AGENT_STATES: [&str; 9] =
    ["idle", "starting", "running", "frozen", "stopping", "killing", "backoff", "ended", "gave_up"];
/// Where a health check stands, as `HealthState::word` has it.
pub const HEALTH_STATES: [&str; 5] = ["down", "starting", "healthy", "failing", "unhealthy"];
/// Limits that can be met, as `Limit::word` has them.
pub const LIMITS: [&str; 5] = ["oom_kill", "memory", "memory_high", "tasks", "cpu"];
/// Rings.
pub const RINGS: [&str; 4] = ["0", "1", "2", "3"];
/// How much of a ring is enforced.
pub const EXTENTS: [&str; 2] = ["full", "partial"];
/// Causes of death, as `Death::word` has them.
pub const CAUSES: [&str; 9] =
    ["exit", "signal", "memory_limit", "time_limit", "unhealthy", "killed", "stopped", "launch_failed", "taken"];
/// States of an SLO, best first.
pub const SLO_STATUSES: [&str; 5] = ["healthy", "unknown", "warning", "critical", "exhausted"];
/// States of a circuit breaker.
pub const BREAKER_STATES: [&str; 5] = ["closed", "open", "half-open", "forced-open", "disabled"];

/// The word for an agent's state.
#[must_use]
pub(super) fn agent_state(state: &State, frozen: Option<Frozen>) -> &'static str {
    match state {
        State::Running { .. } if frozen.is_some() => "frozen",
        State::Idle => "idle",
        State::Starting => "starting",
        State::Running { .. } => "running",
        State::Stopping { .. } => "stopping",
        State::Killing { .. } => "killing",
        State::Backoff { .. } => "backoff",
        State::Ended { gave_up: GaveUp::No, .. } => "ended",
        State::Ended { gave_up: GaveUp::Yes, .. } => "gave_up",
    }
}

/// The word for a ring.
#[must_use]
pub(super) fn ring(ring: Ring) -> &'static str {
    RINGS[usize::from(ring.number())]
}
