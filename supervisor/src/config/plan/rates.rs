//! Requests a minute at each ring.
//!
//! The built-in ones are left out of the text of a plan that is hashed, so that attestations of plans that say nothing of them stay
//! true; what is shown to people has them.

use agt_rings::Ring;
use serde::{Deserialize, Serialize};

use super::AgentPlan;

/// Requests a minute at each ring, R0 first; `None`: as many as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRates(pub [Option<u32>; 4]);

/// Requests a minute on the control socket of an agent that has no limit: what the supervisor lets itself be asked.
const SOCKET_MOST: u32 = 1000;

/// What a ring gives without a line of anybody.
pub const BUILT_IN: RingRates = RingRates([None, Some(1000), Some(100), Some(10)]);

impl Default for RingRates {
    fn default() -> Self {
        BUILT_IN
    }
}

impl RingRates {
    /// At one ring.
    #[must_use]
    pub fn at(&self, ring: Ring) -> Option<u32> {
        self.0[usize::from(ring.number())]
    }

    pub(super) fn is_built_in(&self) -> bool {
        *self == BUILT_IN
    }
}

impl AgentPlan {
    /// Requests a minute in this ring, through the gateway and on its control socket together.
    #[must_use]
    pub fn requests_per_minute_at(&self, ring: Ring) -> Option<u32> {
        self.ring_requests_per_minute.at(ring)
    }

    /// The same with the bound that holds where there is none: in R0 the control socket is all that passes the supervisor.
    #[must_use]
    pub fn most_requests_at(&self, ring: Ring) -> u32 {
        self.requests_per_minute_at(ring).unwrap_or(SOCKET_MOST)
    }

    /// The same in words, for one line.
    #[must_use]
    pub fn requests_in_words(&self, ring: Ring) -> String {
        let most = self.most_requests_at(ring);
        match ring {
            Ring::R0 => format!("{most} a minute on its control socket"),
            Ring::R1 | Ring::R2 | Ring::R3 => {
                format!("{most} a minute, through the gateway and on its control socket together")
            }
        }
    }
}
