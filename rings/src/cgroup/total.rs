//! Limits over all agents together, kept on the group that holds them all.
//!
//! Why there and not on our whole subtree: the supervisor must stay able to act when its agents have used up everything that they
//! may have. Why the CPU share matters to each agent too: v1 refuses a group more than the one above it has, where v2 simply takes
//! the smaller; so [`Base::create`] asks for the smaller on both.

use super::base::Base;
use super::error::Result;
use super::limits::{self, Absent};
use crate::spec::Limits;

impl Base {
    /// Limits all agents together, each limit read back; `None` takes one away that an earlier life set. To be called while no agent is there: v1 refuses
    /// a CPU limit below that of a group in it, and a memory limit below what is in use.
    ///
    /// # Errors
    /// [`super::Error::NoController`] where this host can't keep one, [`super::Error::LimitDidNotStick`], [`super::Error::Write`].
    pub fn limit_all(&mut self, limits: &Limits) -> Result<()> {
        let tree = self.agents().tree();
        // Taking away what nobody set could fail for reasons of its own (swap that can't be counted).
        let absent = if tree.limits_in_force()? == Limits::default() { Absent::IsUnlimited } else { Absent::Lift };
        limits::apply(tree, limits, absent, self.gaps())?;
        self.total = *limits;
        Ok(())
    }

    /// An agent's limits under those of all together.
    #[must_use]
    pub fn under_total(&self, limits: &Limits) -> Limits {
        Limits { cpu_millis: least(limits.cpu_millis, self.total.cpu_millis), ..*limits }
    }
}

/// The smaller one, where an agent has one: an agent without a quota is bound by the group above it.
fn least(own: Option<u32>, total: Option<u32>) -> Option<u32> {
    own.map(|own| total.map_or(own, |total| own.min(total)))
}
