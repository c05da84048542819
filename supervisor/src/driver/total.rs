//! All agents together: their limits as the kernel shows them, and what they use.

use agt_rings::cgroup::{Hits, Tree, Usage};
use agt_rings::spec::Limits;
use serde::{Deserialize, Serialize};

use crate::machine::limit_events::Limit;
use crate::telemetry::names;
use crate::telemetry::sample::Sample;
use crate::telemetry::{Source, pressure};

/// Where all agents together are counted and limited. Plain paths: it may outlive the groups, and finds nothing then.
#[derive(Debug, Clone)]
pub struct Total {
    tree: Tree,
}

/// All agents together, now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TotalStatus {
    /// The limits that the kernel shows; those of the operator's file.
    pub limits: Limits,
    /// What they use. Agents that are gone are in the times and peaks, as long as this supervisor runs.
    pub usage: Option<Usage>,
}

impl Total {
    pub(super) fn new(tree: Tree) -> Total {
        Total { tree }
    }

    /// Reads what the kernel shows now.
    #[must_use]
    pub fn read(&self) -> TotalStatus {
        TotalStatus { limits: self.limits(), usage: self.tree.usage().ok() }
    }

    /// The limits that the kernel shows now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.tree.limits_in_force().unwrap_or_default()
    }

    /// How often the limits over all were met, those of single agents left out.
    pub(super) fn hits(&self) -> Hits {
        self.tree.hits_here().unwrap_or_default()
    }
}

impl Source for Total {
    fn sample(&self, into: &mut Sample) {
        let TotalStatus { limits, usage } = self.read();
        let usage = usage.unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "bytes and counts stay far below 2^53")]
        let number = |value: Option<u64>| value.map(|value| value as f64);
        into.set_known(&names::TOTAL_MEMORY, &[], number(usage.memory_bytes));
        into.set_known(&names::TOTAL_MEMORY_LIMIT, &[], number(limits.memory_bytes));
        into.set_known(&names::TOTAL_TASKS, &[], number(usage.tasks));
        into.set_known(&names::TOTAL_TASKS_LIMIT, &[], number(limits.tasks.map(u64::from)));
        into.set_known(&names::TOTAL_CPU, &[], number(usage.cpu_usec).map(|usec| usec / 1e6));
        into.set_known(&names::TOTAL_CPU_LIMIT, &[], limits.cpu_millis.map(|millis| f64::from(millis) / 1000.0));
        let hits = self.hits();
        for limit in Limit::ALL {
            into.set_known(&names::TOTAL_LIMIT_HITS, &[("limit", limit.word())], number(limit.count(&hits)));
        }
        for (resource, kind, seconds) in pressure(&usage.pressure) {
            into.set(&names::TOTAL_PRESSURE, &[("resource", resource), ("kind", kind)], seconds);
        }
    }
}
