//! The agent gets a sliver of one CPU: slow answers, late heartbeats, time-outs.
//!
//! A quota, not a weight: a weight changes nothing on an idle machine, a quota acts whatever else runs. That it is written
//! proves nothing; the kernel's throttle count does.

use serde::{Deserialize, Serialize};

use super::{About, Fault, Risk, Seen, grew};
use crate::spec::Parameters;
use crate::target::{Act, Limit, Need, Observation};
use crate::unit::CpuShare;

/// See [`super::FaultKind::CpuSqueeze`].
pub const ABOUT: About = About {
    does: "lowers the CPU quota of the agent's tree",
    undo: "the quota that was there is written back; by the guardian if the supervisor dies",
    sign: "the kernel has throttled it in further periods",
    needs: &[Need::CpuQuota],
    risk: Risk::Delay,
    watch: "latency",
    parameters: &["cpu"],
};

/// What is left when the file names no share.
const DEFAULT_SHARE: CpuShare = CpuShare(100);

/// The fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSqueeze {
    /// What is left.
    pub cpu: CpuShare,
}

impl CpuSqueeze {
    /// 10 % of one CPU unless it says otherwise.
    pub fn new(parameters: &Parameters) -> Self {
        Self { cpu: parameters.cpu.unwrap_or(DEFAULT_SHARE) }
    }
}

impl Fault for CpuSqueeze {
    fn acts(&self) -> Vec<Act> {
        vec![Act::SetCpuQuota(self.cpu)]
    }

    fn refuse(&self, now: &Observation) -> Option<String> {
        match now.cpu_quota {
            Some(Limit::At(millis)) if millis <= u64::from(self.cpu.0) => {
                Some(format!("its quota is {}% of a CPU already, and {} would not be less", millis / 10, self.cpu))
            }
            Some(_) => None,
            None => Some("its present CPU quota can't be read".to_owned()),
        }
    }

    fn acted(&self, before: &Observation, now: &Observation) -> Seen {
        grew(before.cpu_throttled, now.cpu_throttled)
    }

    fn restored(&self, before: &Observation, now: &Observation) -> Seen {
        Seen::from(before.cpu_quota.zip(now.cpu_quota).map(|(before, now)| before == now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: CpuSqueeze = CpuSqueeze { cpu: CpuShare(100) };

    fn quota(limit: Limit) -> Observation {
        Observation { cpu_quota: Some(limit), ..Observation::default() }
    }

    #[test]
    fn a_quota_that_would_be_a_gift_is_refused() {
        assert!(FAULT.refuse(&quota(Limit::At(100))).is_some());
        assert!(FAULT.refuse(&quota(Limit::At(50))).is_some());
        assert!(FAULT.refuse(&quota(Limit::At(101))).is_none());
        assert!(FAULT.refuse(&quota(Limit::Unlimited)).is_none());
        assert!(FAULT.refuse(&Observation::default()).is_some());
    }

    #[test]
    fn a_quota_that_never_throttled_has_not_acted() {
        let at = |n| Observation { cpu_throttled: Some(n), ..quota(Limit::At(100)) };
        assert_eq!(FAULT.acted(&at(5), &at(5)), Seen::No);
        assert_eq!(FAULT.acted(&at(5), &at(6)), Seen::Yes);
    }

    #[test]
    fn only_the_very_quota_from_before_is_restored() {
        assert_eq!(FAULT.restored(&quota(Limit::Unlimited), &quota(Limit::At(100))), Seen::No);
        assert_eq!(FAULT.restored(&quota(Limit::Unlimited), &quota(Limit::Unlimited)), Seen::Yes);
    }
}
