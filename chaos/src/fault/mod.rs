//! The faults: one file each, one small interface, and a reference fault that does nothing.
//!
//! A fault is pure data and judgement: which acts it consists of, what it needs, how an observation shows that it *acted*,
//! and how one shows that nothing of it is left. The doing is the target's, the undoing the journal's.

pub mod cpu_squeeze;
pub mod crash_at_step;
pub mod fd_exhaustion;
pub mod memory_pressure;
pub mod noop;
pub mod process_hang;
pub mod trust_manipulation;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::Problem;
use crate::spec::Parameters;
use crate::target::{Act, Need, Observation};

/// The faults by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Does nothing: shows what an experiment alone changes.
    Noop,
    /// The whole tree stands still.
    ProcessHang,
    /// Killed when a named saga step starts.
    CrashAtStep,
    /// Almost no CPU.
    CpuSqueeze,
    /// Memory runs out until the OOM killer acts.
    MemoryPressure,
    /// No further file can be opened.
    FdExhaustion,
    /// A lower trust score.
    TrustManipulation,
}

impl FaultKind {
    /// All of them, the reference fault first.
    pub const ALL: [FaultKind; 7] = [
        FaultKind::Noop,
        FaultKind::ProcessHang,
        FaultKind::CrashAtStep,
        FaultKind::CpuSqueeze,
        FaultKind::MemoryPressure,
        FaultKind::FdExhaustion,
        FaultKind::TrustManipulation,
    ];

    /// As written in a file.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Noop => "noop",
            FaultKind::ProcessHang => "process-hang",
            FaultKind::CrashAtStep => "crash-at-step",
            FaultKind::CpuSqueeze => "cpu-squeeze",
            FaultKind::MemoryPressure => "memory-pressure",
            FaultKind::FdExhaustion => "fd-exhaustion",
            FaultKind::TrustManipulation => "trust-manipulation",
        }
    }

    /// What a reader should know of it.
    pub fn about(self) -> &'static About {
        match self {
            FaultKind::Noop => &noop::ABOUT,
            FaultKind::ProcessHang => &process_hang::ABOUT,
            FaultKind::CrashAtStep => &crash_at_step::ABOUT,
            FaultKind::CpuSqueeze => &cpu_squeeze::ABOUT,
            FaultKind::MemoryPressure => &memory_pressure::ABOUT,
            FaultKind::FdExhaustion => &fd_exhaustion::ABOUT,
            FaultKind::TrustManipulation => &trust_manipulation::ABOUT,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a reader should know of a fault before using it.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// What it does to the agent.
    pub does: &'static str,
    /// How it is put right, also without the supervisor.
    pub undo: &'static str,
    /// What an observation must show for it to have acted.
    pub sign: &'static str,
    /// What host and supervisor must have, else it is refused.
    pub needs: &'static [Need],
    /// The worst that it leads to.
    pub risk: Risk,
    /// The SLI to watch.
    pub watch: &'static str,
    /// The parameters that it takes.
    pub parameters: &'static [&'static str],
}

/// The worst that a fault leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Nothing.
    None,
    /// The agent is slow or stands still, and goes on afterwards.
    Delay,
    /// Calls of the agent fail while it lasts; what it makes of that is its own.
    Errors,
    /// The agent is killed; what it hadn't written is lost.
    Kill,
}

/// What an observation says about a question with yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[must_use]
pub enum Seen {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// The observation lacks what it takes to tell.
    Unknown,
}

impl From<Option<bool>> for Seen {
    fn from(answer: Option<bool>) -> Self {
        match answer {
            Some(true) => Seen::Yes,
            Some(false) => Seen::No,
            None => Seen::Unknown,
        }
    }
}

impl Seen {
    /// The better founded of two looks at a thing that need only be seen once.
    pub fn once(self, later: Seen) -> Seen {
        match (self, later) {
            (Seen::Yes, _) | (_, Seen::Yes) => Seen::Yes,
            (Seen::No, _) | (_, Seen::No) => Seen::No,
            (Seen::Unknown, Seen::Unknown) => Seen::Unknown,
        }
    }
}

/// A fault with its parameters. `before` is always the last observation before the injection.
pub trait Fault {
    /// What is done, in order.
    fn acts(&self) -> Vec<Act>;

    /// Why it would not be a fault on this agent now: it would change nothing, or *give* something.
    fn refuse(&self, now: &Observation) -> Option<String>;

    /// Whether it can be seen to have acted.
    fn acted(&self, before: &Observation, now: &Observation) -> Seen;

    /// Whether nothing of it is left.
    fn restored(&self, before: &Observation, now: &Observation) -> Seen;
}

/// A fault that is ready to be injected: every parameter known and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ReadyFault {
    /// See [`noop`].
    Noop(noop::Noop),
    /// See [`process_hang`].
    ProcessHang(process_hang::ProcessHang),
    /// See [`crash_at_step`].
    CrashAtStep(crash_at_step::CrashAtStep),
    /// See [`cpu_squeeze`].
    CpuSqueeze(cpu_squeeze::CpuSqueeze),
    /// See [`memory_pressure`].
    MemoryPressure(memory_pressure::MemoryPressure),
    /// See [`fd_exhaustion`].
    FdExhaustion(fd_exhaustion::FdExhaustion),
    /// See [`trust_manipulation`].
    TrustManipulation(trust_manipulation::TrustManipulation),
}

impl ReadyFault {
    /// Builds the fault from parameters. Every parameter that it doesn't take is a problem, as is every one out of range.
    pub fn new(kind: FaultKind, parameters: &Parameters) -> Result<Self, Vec<Problem>> {
        let mut problems = strangers(kind, parameters);
        let made = match kind {
            FaultKind::Noop => Ok(ReadyFault::Noop(noop::Noop {})),
            FaultKind::ProcessHang => Ok(ReadyFault::ProcessHang(process_hang::ProcessHang {})),
            FaultKind::CrashAtStep => crash_at_step::CrashAtStep::new(parameters).map(ReadyFault::CrashAtStep),
            FaultKind::CpuSqueeze => Ok(ReadyFault::CpuSqueeze(cpu_squeeze::CpuSqueeze::new(parameters))),
            FaultKind::MemoryPressure => {
                memory_pressure::MemoryPressure::new(parameters).map(ReadyFault::MemoryPressure)
            }
            FaultKind::FdExhaustion => Ok(ReadyFault::FdExhaustion(fd_exhaustion::FdExhaustion::new(parameters))),
            FaultKind::TrustManipulation => {
                trust_manipulation::TrustManipulation::new(parameters).map(ReadyFault::TrustManipulation)
            }
        };
        match made {
            Ok(fault) if problems.is_empty() => Ok(fault),
            Ok(_) => Err(problems),
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }

    /// Which fault it is.
    pub fn kind(&self) -> FaultKind {
        match self {
            ReadyFault::Noop(_) => FaultKind::Noop,
            ReadyFault::ProcessHang(_) => FaultKind::ProcessHang,
            ReadyFault::CrashAtStep(_) => FaultKind::CrashAtStep,
            ReadyFault::CpuSqueeze(_) => FaultKind::CpuSqueeze,
            ReadyFault::MemoryPressure(_) => FaultKind::MemoryPressure,
            ReadyFault::FdExhaustion(_) => FaultKind::FdExhaustion,
            ReadyFault::TrustManipulation(_) => FaultKind::TrustManipulation,
        }
    }

    fn inner(&self) -> &dyn Fault {
        match self {
            ReadyFault::Noop(fault) => fault,
            ReadyFault::ProcessHang(fault) => fault,
            ReadyFault::CrashAtStep(fault) => fault,
            ReadyFault::CpuSqueeze(fault) => fault,
            ReadyFault::MemoryPressure(fault) => fault,
            ReadyFault::FdExhaustion(fault) => fault,
            ReadyFault::TrustManipulation(fault) => fault,
        }
    }
}

impl Fault for ReadyFault {
    fn acts(&self) -> Vec<Act> {
        self.inner().acts()
    }

    fn refuse(&self, now: &Observation) -> Option<String> {
        self.inner().refuse(now)
    }

    fn acted(&self, before: &Observation, now: &Observation) -> Seen {
        self.inner().acted(before, now)
    }

    fn restored(&self, before: &Observation, now: &Observation) -> Seen {
        self.inner().restored(before, now)
    }
}

/// Whether a count that only grows has grown.
fn grew(before: Option<u64>, now: Option<u64>) -> Seen {
    Seen::from(before.zip(now).map(|(before, now)| now > before))
}

/// The parameters that are set and belong to another fault.
fn strangers(kind: FaultKind, parameters: &Parameters) -> Vec<Problem> {
    let Parameters { step, cpu, memory, rate, headroom, score } = parameters;
    let set = [
        ("step", step.is_some()),
        ("cpu", cpu.is_some()),
        ("memory", memory.is_some()),
        ("rate", rate.is_some()),
        ("headroom", headroom.is_some()),
        ("score", score.is_some()),
    ];
    let own = kind.about().parameters;
    let takes = if own.is_empty() { "none".to_owned() } else { own.join(", ") };
    set.iter()
        .filter(|(name, is_set)| *is_set && !own.contains(name))
        .map(|(name, _)| {
            Problem::new(format!("parameters.{name}"), format!("{kind} has no parameter `{name}`"))
                .help(format!("parameters of {kind}: {takes}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::CpuShare;

    #[test]
    fn names_are_those_of_the_file() {
        for kind in FaultKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn a_parameter_of_another_fault_is_refused() {
        let parameters = Parameters { cpu: Some(CpuShare(100)), ..Parameters::default() };
        let problems = ReadyFault::new(FaultKind::ProcessHang, &parameters).unwrap_err();
        assert_eq!(problems[0].path, "parameters.cpu");
        assert!(ReadyFault::new(FaultKind::CpuSqueeze, &parameters).is_ok());
    }

    #[test]
    fn only_the_reference_fault_does_nothing() {
        for kind in FaultKind::ALL {
            let parameters = crate::catalog::template_of(kind).parameters();
            let fault = ReadyFault::new(kind, &parameters).unwrap();
            assert_eq!(fault.kind(), kind);
            assert_eq!(fault.acts().is_empty(), kind == FaultKind::Noop, "{kind}");
            assert_eq!(kind.about().needs.is_empty(), kind == FaultKind::Noop, "{kind}");
        }
    }

    #[test]
    fn an_empty_observation_proves_nothing() {
        let nothing = Observation::default();
        for kind in FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Noop) {
            let fault = ReadyFault::new(kind, &crate::catalog::template_of(kind).parameters()).unwrap();
            assert_eq!(fault.acted(&nothing, &nothing), Seen::Unknown, "{kind}");
            assert_eq!(fault.restored(&nothing, &nothing), Seen::Unknown, "{kind}");
        }
    }
}
