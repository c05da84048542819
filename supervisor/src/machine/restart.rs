//! When a dead agent is started again: exponential backoff with jitter, a ceiling, and an end.
//!
//! Jitter (a uniform draw over a part of the exponential step) spreads the restarts of many agents that died of one
//! cause; the draw is an argument, so that this stays pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The shortest delay.
const FLOOR: Duration = Duration::from_millis(50);

/// Which deaths are followed by a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// None.
    #[default]
    Never,
    /// Those that are failures.
    OnFailure,
    /// All but a stop or a kill that was asked for.
    Always,
}

/// The whole rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// Which deaths.
    pub policy: Policy,
    /// The first delay's upper bound.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
    /// Which part of a delay is drawn at random, 0..=1.
    pub jitter: f64,
    /// Restarts allowed inside one window; one more gives up.
    pub attempts: u32,
    /// The window: an agent that lived this long has its count forgiven.
    pub window: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Restart {
            policy: Policy::Never,
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            jitter: 0.75,
            attempts: 5,
            window: Duration::from_secs(600),
        }
    }
}

impl Restart {
    /// The delay before restart number `attempt` (from 1). `draw` is uniform in 0..1.
    #[must_use]
    pub fn delay(&self, attempt: u32, draw: f64) -> Duration {
        let doubled = 2f64.powi(attempt.saturating_sub(1).min(30).cast_signed());
        let step = (self.initial.as_secs_f64() * doubled).min(self.max.as_secs_f64());
        let jittered = step * (1.0 - self.jitter.clamp(0.0, 1.0) * (1.0 - draw.clamp(0.0, 1.0)));
        // Never zero: an agent that dies at once must not spin the supervisor.
        let jittered = jittered.max(FLOOR.as_secs_f64());
        Duration::from_secs_f64(jittered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_grows_to_the_ceiling_and_is_never_zero() {
        let restart = Restart::default();
        assert!(restart.delay(1, 0.0) > Duration::ZERO);
        assert_eq!(restart.delay(1, 1.0), Duration::from_secs(1));
        assert_eq!(restart.delay(3, 1.0), Duration::from_secs(4));
        assert_eq!(restart.delay(40, 1.0), restart.max);
        assert!(restart.delay(40, 0.0) <= restart.max);
    }
}
