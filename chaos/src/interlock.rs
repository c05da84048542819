//! What must be so before anything is done to an agent; the reasons why not, all at once.
//!
//! What can't be told counts against the experiment: unknown is never allowed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use crate::plan::Plan;
use crate::target::{Environment, Missing, Observation, Process, Reading, Source};

/// Why an experiment wasn't begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// The host or the supervisor lacks the mechanism.
    HostLacks(Missing),
    /// The agent didn't opt in to this fault.
    NotOptedIn {
        /// The fault.
        fault: FaultKind,
    },
    /// The environment is production, or the operator's file names none.
    Production,
    /// An incident is open, or nobody can say whether one is.
    Incident {
        /// `false`: it can't be told.
        known: bool,
    },
    /// Too little of an error budget is left, or it isn't known.
    Budget {
        /// The SLO.
        slo: String,
        /// What is left; `None`: no data.
        left: Option<f64>,
        /// What has to be left.
        needed: f64,
    },
    /// Another experiment is on its way.
    OtherExperiment {
        /// Its name.
        name: String,
    },
    /// The agent doesn't run.
    NotRunning {
        /// What it does; `None`: it can't be told.
        process: Option<Process>,
    },
    /// A condition names something that doesn't exist.
    UnknownName {
        /// What was named.
        source: Source,
        /// What there is.
        known: Vec<String>,
    },
    /// It would be no fault on this agent now.
    NoFault {
        /// Why.
        reason: String,
    },
    /// The agent wasn't steady before anything was done.
    NotSteady {
        /// The condition that didn't hold.
        check: String,
        /// The reading.
        value: f64,
    },
    /// The target couldn't be observed or refused to prepare.
    Target {
        /// Why.
        reason: String,
    },
    /// The way back could not be made durable.
    NotJournaled {
        /// Why.
        reason: String,
    },
    /// No guardian could be armed.
    NoGuardian {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::HostLacks(Missing { need, reason }) => {
                write!(f, "it needs {}, which is missing here: {reason}", need.describe())
            }
            Refusal::NotOptedIn { fault } => write!(f, "the agent has not opted in to {fault}"),
            Refusal::Production => f.write_str("the environment is production (the operator's file names no other)"),
            Refusal::Incident { known: true } => f.write_str("an incident is open on the agent"),
            Refusal::Incident { known: false } => f.write_str("it can't be told whether an incident is open"),
            Refusal::Budget { slo, left: Some(left), needed } => {
                write!(f, "{:.1} % of the budget of {slo} is left, {:.1} % is needed", left * 100.0, needed * 100.0)
            }
            Refusal::Budget { slo, left: None, .. } => write!(f, "no data on the budget of {slo}"),
            Refusal::OtherExperiment { name } => write!(f, "another experiment is on its way: {name}"),
            Refusal::NotRunning { process: Some(process) } => {
                write!(f, "the agent doesn't run ({})", format!("{process:?}").to_lowercase())
            }
            Refusal::NotRunning { process: None } => f.write_str("it can't be told whether the agent runs"),
            Refusal::UnknownName { source, known } if known.is_empty() => {
                write!(f, "there is no {source}, nor any of its kind")
            }
            Refusal::UnknownName { source, known } => {
                write!(f, "there is no {source}; there are: {}", known.join(", "))
            }
            Refusal::NoFault { reason } => write!(f, "it would be no fault: {reason}"),
            Refusal::NotSteady { check, value } => {
                write!(f, "the agent isn't steady before anything is done: {check} doesn't hold, it is {value:.4}")
            }
            Refusal::Target { reason } => write!(f, "the agent can't be prepared: {reason}"),
            Refusal::NotJournaled { reason } => write!(f, "the way back could not be recorded: {reason}"),
            Refusal::NoGuardian { reason } => write!(f, "no guardian could be armed: {reason}"),
        }
    }
}

/// Everything that speaks against beginning (and, asked again right before the injection, against injecting).
#[must_use]
pub fn check(plan: &Plan, now: &Observation) -> Vec<Refusal> {
    let mut refusals = standing(plan, now);
    match now.incident_open {
        Some(false) => {}
        open => refusals.push(Refusal::Incident { known: open.is_some() }),
    }
    let needed = plan.max_budget_burn.unwrap_or(0.0);
    for (slo, left) in &now.budgets {
        if !left.is_some_and(|left| left > 0.0 && left >= needed) {
            refusals.push(Refusal::Budget { slo: slo.clone(), left: *left, needed });
        }
    }
    if now.process != Some(Process::Alive) {
        refusals.push(Refusal::NotRunning { process: now.process });
    }
    for check in plan.steady_state.iter().chain(&plan.abort) {
        if now.read(&check.source) == Reading::UnknownName {
            let known = now.names_like(&check.source);
            let refusal = Refusal::UnknownName { source: check.source.clone(), known };
            if !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
    }
    if let Some(reason) = plan.fault.refuse(now) {
        refusals.push(Refusal::NoFault { reason });
    }
    refusals
}

/// The part that must go on holding while the experiment runs: leave to do it at all. (An incident, a spent budget or a
/// dead process may be what the fault is for.)
#[must_use]
pub fn standing(plan: &Plan, now: &Observation) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if !now.opt_in.allows(plan.fault_kind()) {
        refusals.push(Refusal::NotOptedIn { fault: plan.fault_kind() });
    }
    if now.environment == Environment::Production {
        refusals.push(Refusal::Production);
    }
    if let Some(name) = &now.other_experiment {
        refusals.push(Refusal::OtherExperiment { name: name.clone() });
    }
    refusals
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::plan::tests::spec;
    use crate::target::{Limit, OptIn};

    /// An agent on which every fault may be tried.
    pub(crate) fn willing() -> Observation {
        Observation {
            environment: Environment::Dev,
            opt_in: OptIn::Any,
            other_experiment: None,
            incident_open: Some(false),
            process: Some(Process::Alive),
            restarts: Some(0),
            frozen: Some(false),
            cpu_quota: Some(Limit::At(1000)),
            cpu_throttled: Some(0),
            memory_limit: Some(Limit::At(1 << 30)),
            memory_usage: Some(1 << 20),
            oom_kills: Some(0),
            fd_soft_limit: Some(1024),
            fd_room: Some(1000),
            trust: Some(700),
            trust_replaced: Some(false),
            crash_armed: Some(false),
            step_crashes: Some(0),
            safety_violations: Some(0),
            slis: BTreeMap::from([("availability".into(), Some(1.0))]),
            budgets: BTreeMap::from([("availability".into(), Some(0.8))]),
            uncounted: std::collections::BTreeSet::new(),
            metrics: BTreeMap::new(),
            happened: Vec::new(),
        }
    }

    fn refusals(change: impl FnOnce(&mut Observation)) -> Vec<Refusal> {
        let mut now = willing();
        change(&mut now);
        check(&Plan::resolve(&spec()).unwrap(), &now)
    }

    #[test]
    fn a_willing_agent_is_not_refused() {
        assert_eq!(refusals(|_| {}), []);
    }

    #[test]
    fn each_interlock_refuses_alone() {
        let hang = FaultKind::ProcessHang;
        assert_eq!(refusals(|now| now.opt_in = OptIn::No), [Refusal::NotOptedIn { fault: hang }]);
        let other = OptIn::Only(BTreeSet::from([FaultKind::CpuSqueeze]));
        assert_eq!(refusals(|now| now.opt_in = other), [Refusal::NotOptedIn { fault: hang }]);
        assert_eq!(refusals(|now| now.environment = Environment::Production), [Refusal::Production]);
        assert_eq!(refusals(|now| now.incident_open = Some(true)), [Refusal::Incident { known: true }]);
        assert_eq!(refusals(|now| now.incident_open = None), [Refusal::Incident { known: false }]);
        let other = || Some("squeeze".to_owned());
        assert_eq!(
            refusals(|now| now.other_experiment = other()),
            [Refusal::OtherExperiment { name: other().unwrap() }]
        );
        for process in [None, Some(Process::Dead), Some(Process::Restarting), Some(Process::Killed)] {
            assert_eq!(refusals(|now| now.process = process), [Refusal::NotRunning { process }]);
        }
        for left in [None, Some(0.0), Some(-0.5), Some(f64::NAN)] {
            let found = refusals(|now| now.budgets = BTreeMap::from([("availability".into(), left)]));
            assert!(matches!(&found[..], [Refusal::Budget { .. }]), "{left:?}: {found:?}");
        }
        assert!(matches!(refusals(|now| now.frozen = Some(true))[..], [Refusal::NoFault { .. }]));
        assert!(matches!(refusals(|now| now.slis.clear())[..], [Refusal::UnknownName { .. }]));
    }

    #[test]
    fn a_budget_must_hold_the_burn_that_is_allowed() {
        let mut asked = spec();
        asked.blast_radius.max_budget_burn = Some(0.9);
        let found = check(&Plan::resolve(&asked).unwrap(), &willing());
        assert!(matches!(found[..], [Refusal::Budget { .. }]), "{found:?}");
    }

    #[test]
    fn nothing_known_means_every_reason_at_once() {
        let found = check(&Plan::resolve(&spec()).unwrap(), &Observation::default());
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn an_unknown_name_is_told_apart_from_no_data() {
        assert_eq!(refusals(|now| now.slis = BTreeMap::from([("availability".into(), None)])), []);
        let mut asked = spec();
        asked.steady_state[0].sli = Some("availabilty".into());
        let found = check(&Plan::resolve(&asked).unwrap(), &willing());
        assert!(found[0].to_string().contains("there are: availability"), "{}", found[0]);
    }
}
