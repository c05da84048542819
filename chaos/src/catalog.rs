//! The templates of `chaos list`, as data: a fault with parameters that make sense, and the SLI to watch.
//!
//! Every fault has a template of its own name; the others are the same fault at another strength.

use serde::Serialize;

use crate::fault::{About, FaultKind};
use crate::spec::Parameters;
use crate::unit::{Bytes, CpuShare};

/// A fault ready to be named in a file.
#[derive(Debug, Clone, Serialize)]
pub struct Template {
    /// As written after `template:`.
    pub name: &'static str,
    /// The fault.
    pub fault: FaultKind,
    /// What one finds out with it.
    pub question: &'static str,
    /// The parameters that it brings along.
    #[serde(rename = "parameters")]
    defaults: Defaults,
}

/// [`Parameters`] that can stand in a constant.
#[derive(Debug, Clone, Copy, Serialize)]
struct Defaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<CpuShare>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headroom: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<u16>,
}

const NONE: Defaults = Defaults { step: None, cpu: None, memory: None, rate: None, headroom: None, score: None };
/// The name in the template of `crash-at-step` that a file has to replace by one of its own saga's.
const STEP_TO_NAME: &str = "name-of-the-step";

/// All templates, the reference fault first.
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "noop",
        fault: FaultKind::Noop,
        question: "Is the agent steady while it is only watched?",
        defaults: NONE,
    },
    Template {
        name: "process-hang",
        fault: FaultKind::ProcessHang,
        question: "Is an agent that neither answers nor ends noticed, and does its work go on afterwards?",
        defaults: NONE,
    },
    Template {
        name: "crash-at-step",
        fault: FaultKind::CrashAtStep,
        question: "Does the saga finish or undo itself when the agent dies at this step?",
        defaults: Defaults { step: Some(STEP_TO_NAME), ..NONE },
    },
    Template {
        name: "cpu-squeeze",
        fault: FaultKind::CpuSqueeze,
        question: "What breaks when everything takes many times as long?",
        defaults: Defaults { cpu: Some(CpuShare(100)), ..NONE },
    },
    Template {
        name: "cpu-starvation",
        fault: FaultKind::CpuSqueeze,
        question: "Do health checks and time-outs hold when next to no CPU is left?",
        defaults: Defaults { cpu: Some(CpuShare(10)), ..NONE },
    },
    Template {
        name: "memory-pressure",
        fault: FaultKind::MemoryPressure,
        question: "Is a death by memory told apart, and does the agent come back?",
        defaults: Defaults { rate: Some(Bytes(64 << 20)), ..NONE },
    },
    Template {
        name: "fd-exhaustion",
        fault: FaultKind::FdExhaustion,
        question: "Does the agent report failures when it can open nothing, rather than pretend?",
        defaults: Defaults { headroom: Some(0), ..NONE },
    },
    Template {
        name: "trust-manipulation",
        fault: FaultKind::TrustManipulation,
        question: "Is the agent demoted at once, and does it cope with fewer rights?",
        defaults: Defaults { score: Some(300), ..NONE },
    },
];

/// The template of that name.
pub fn find(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name)
}

/// The template that has the fault's own name.
pub fn template_of(fault: FaultKind) -> &'static Template {
    find(fault.name()).expect("a test holds that every fault has a template of its name")
}

impl Template {
    /// What the fault does, needs and risks.
    pub fn about(&self) -> &'static About {
        self.fault.about()
    }

    /// The parameters that it brings along.
    pub fn parameters(&self) -> Parameters {
        let Defaults { step, cpu, memory, rate, headroom, score } = self.defaults;
        Parameters { step: step.map(str::to_owned), cpu, memory, rate, headroom, score }
    }

    /// The same, each one replaced by the file's where the file gives one. A name that only the file can know is not
    /// brought along.
    pub fn parameters_with(&self, own: &Parameters) -> Parameters {
        let brought = self.parameters();
        Parameters {
            step: own.step.clone(),
            cpu: own.cpu.or(brought.cpu),
            memory: own.memory.or(brought.memory),
            rate: own.rate.or(brought.rate),
            headroom: own.headroom.or(brought.headroom),
            score: own.score.or(brought.score),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::ReadyFault;
    use crate::plan::{Plan, tests::spec};
    use crate::spec::Spec;

    #[test]
    fn every_fault_has_a_template_of_its_name() {
        for kind in FaultKind::ALL {
            assert_eq!(template_of(kind).fault, kind);
        }
    }

    #[test]
    fn every_template_can_be_built_and_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = TEMPLATES.iter().map(|template| template.name).collect();
        assert_eq!(names.len(), TEMPLATES.len());
        for template in TEMPLATES {
            assert!(ReadyFault::new(template.fault, &template.parameters()).is_ok(), "{}", template.name);
        }
    }

    #[test]
    fn the_step_must_come_from_the_file() {
        let mut asked = Spec { fault: None, template: Some("crash-at-step".into()), ..spec() };
        assert_eq!(Plan::resolve(&asked).unwrap_err()[0].path, "parameters.step");
        asked.parameters.step = Some("pay".into());
        assert!(Plan::resolve(&asked).is_ok());
    }
}
