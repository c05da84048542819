//! Memory runs out inside the agent's own cgroup until the kernel's OOM killer acts there, and nowhere else.
//!
//! Pressing inside the cgroup (at its own limit, or a lower one for the time being) keeps the host out of it. The agent's
//! memory in use is no proof; the cgroup's OOM kill count is.
//!
//! Who dies is the agent's: the process that takes the memory is ours, and an OOM kill of it would show nothing. So among the
//! agent's own processes the kernel chooses as it would had one of them grown ([`crate::kernel::prefer_for_oom`]); on cgroup v2
//! with `memory.oom.group` they die together. After one kill the pressing ends.

use serde::{Deserialize, Serialize};

use super::{About, Fault, Risk, Seen, grew};
use crate::plan::Problem;
use crate::spec::Parameters;
use crate::target::{Act, Limit, Need, Observation};
use crate::unit::Bytes;

/// See [`super::FaultKind::MemoryPressure`].
pub const ABOUT: About = About {
    does: "takes memory inside the agent's cgroup until the OOM killer acts there",
    undo: "what presses is ended, memory limit and oom_score_adj are put back; by the guardian if the supervisor dies",
    sign: "the kernel counts a further OOM kill in the agent's cgroup",
    needs: &[Need::MemoryLimit],
    risk: Risk::Kill,
    watch: "availability",
    parameters: &["memory", "rate"],
};

/// How fast memory is taken when the file doesn't say.
const DEFAULT_RATE: Bytes = Bytes(64 << 20);
/// A limit under this starves the pressing process itself before it can say anything.
const MEMORY_MIN: Bytes = Bytes(4 << 20);

/// The fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPressure {
    /// The limit meanwhile; `None`: the agent's own.
    pub memory: Option<Bytes>,
    /// How fast it is taken, per second.
    pub rate: Bytes,
}

impl MemoryPressure {
    /// 64 MiB per second against the agent's own limit unless it says otherwise.
    pub fn new(parameters: &Parameters) -> Result<Self, Problem> {
        let rate = parameters.rate.unwrap_or(DEFAULT_RATE);
        if rate.0 == 0 {
            return Err(Problem::new("parameters.rate", "nothing per second never fills anything"));
        }
        if parameters.memory.is_some_and(|memory| memory < MEMORY_MIN) {
            return Err(Problem::new(
                "parameters.memory",
                format!("a limit under {MEMORY_MIN} can't be pressed against"),
            ));
        }
        Ok(Self { memory: parameters.memory, rate })
    }
}

impl Fault for MemoryPressure {
    fn acts(&self) -> Vec<Act> {
        let lower = self.memory.map(Act::SetMemoryLimit);
        lower.into_iter().chain([Act::PressMemory { per_second: self.rate }]).collect()
    }

    fn refuse(&self, now: &Observation) -> Option<String> {
        match (now.memory_limit, self.memory) {
            (None, _) => Some("its present memory limit can't be read".to_owned()),
            (Some(Limit::Unlimited), None) => {
                Some("it has no memory limit: the OOM killer would act on the whole host; set `memory`".to_owned())
            }
            (Some(Limit::At(present)), Some(asked)) if asked.0 > present => {
                Some(format!("its limit is {} already, and {asked} would be more", Bytes(present)))
            }
            (Some(_), _) => None,
        }
    }

    fn acted(&self, before: &Observation, now: &Observation) -> Seen {
        grew(before.oom_kills, now.oom_kills)
    }

    fn restored(&self, before: &Observation, now: &Observation) -> Seen {
        Seen::from(before.memory_limit.zip(now.memory_limit).map(|(before, now)| before == now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limit: Limit) -> Observation {
        Observation { memory_limit: Some(limit), ..Observation::default() }
    }

    #[test]
    fn without_any_limit_the_host_would_be_pressed_so_it_is_refused() {
        let own = MemoryPressure { memory: None, rate: DEFAULT_RATE };
        assert!(own.refuse(&limit(Limit::Unlimited)).is_some());
        assert!(own.refuse(&limit(Limit::At(1 << 30))).is_none());
        assert!(own.refuse(&Observation::default()).is_some());
    }

    #[test]
    fn a_limit_that_would_be_raised_is_refused() {
        let lower = MemoryPressure { memory: Some(Bytes(64 << 20)), rate: DEFAULT_RATE };
        assert!(lower.refuse(&limit(Limit::At(32 << 20))).is_some());
        assert!(lower.refuse(&limit(Limit::Unlimited)).is_none());
        assert_eq!(lower.acts().len(), 2);
    }

    #[test]
    fn pressure_without_an_oom_kill_has_not_acted() {
        let fault = MemoryPressure { memory: None, rate: DEFAULT_RATE };
        let at = |n| Observation { oom_kills: Some(n), memory_usage: Some(u64::MAX), ..Observation::default() };
        assert_eq!(fault.acted(&at(0), &at(0)), Seen::No);
        assert_eq!(fault.acted(&at(0), &at(1)), Seen::Yes);
    }
}
