//! What operators may ask the governor, and its answers: the same words over the operator socket and, when no supervisor runs,
//! straight on the state store.

use agt_rings::Ring;
use agt_sre::spec::SloSpec;
use agt_sre::trust::Score;
use serde::{Deserialize, Serialize};

use super::attestation::Subject;
use super::governed::Governed;
use super::stored::Killed;
use crate::config::plan::Identity;
use agt_sre::time::Timestamp;

/// Everything that can be asked of all agents: POST.
pub const GOVERN: &str = "/v1/govern";

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// The SLOs of one agent or all.
    Slo {
        /// Its name.
        agent: Option<String>,
    },
    /// The trust of one agent or all.
    Trust {
        /// Its name.
        agent: Option<String>,
    },
    /// Set a score and baseline.
    SetTrust {
        /// Its name.
        agent: String,
        /// 0 to 1000.
        score: Score,
        /// Why.
        reason: String,
        /// What its file says, when that was named: so it can be known before it first runs.
        #[serde(default)]
        file: Option<Box<Introduced>>,
    },
    /// Forget an identity with all it has earned and spent.
    Forget {
        /// Its name.
        agent: String,
        /// Why.
        reason: String,
    },
    /// Attest the plan and program that were to be started last.
    Attest {
        /// Its name.
        agent: String,
        /// Why.
        reason: String,
        /// For how long, in seconds.
        ttl_s: u64,
        /// As in [`Ask::SetTrust`]; then it is this very plan that is attested.
        #[serde(default)]
        file: Option<Box<Introduced>>,
    },
    /// Let a killed agent live again.
    Revive {
        /// Its name.
        agent: String,
        /// Why.
        reason: String,
    },
}

impl Ask {
    /// The agent that it is about, unless it is about all.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        match self {
            Ask::Slo { agent } | Ask::Trust { agent } => agent.as_deref(),
            Ask::SetTrust { agent, .. }
            | Ask::Forget { agent, .. }
            | Ask::Attest { agent, .. }
            | Ask::Revive { agent, .. } => Some(agent),
        }
    }
}

/// An agent as its file makes it known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introduced {
    /// Its name and its file. The uid is that of whoever will start it: the supervisor's.
    pub identity: Identity,
    /// Its service level objectives.
    pub slos: Vec<SloSpec>,
    /// Its plan and, for R0, its program.
    pub subject: Subject,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Ask::Slo`].
    Slos(Vec<AgentSlos>),
    /// To everything about trust, as it is now.
    Trust(Vec<TrustView>),
    /// It is done.
    Done(String),
}

/// The SLOs of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSlos {
    /// Its name.
    pub agent: String,
    /// Each SLO.
    pub slos: Vec<SloView>,
}

/// One SLO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloView {
    /// Its name.
    pub slo: String,
    /// What it counts.
    pub sli: String,
    /// healthy, unknown, warning, critical, exhausted.
    pub status: String,
    /// The share that must be good.
    pub objective: f64,
    /// The rolling period in seconds.
    pub period_seconds: f64,
    /// Share of bad events; `null` = no data.
    pub error_ratio: Option<f64>,
    /// Share of the budget left; `null` = no data.
    pub budget_left_ratio: Option<f64>,
    /// Burn rates.
    pub burn: Vec<BurnView>,
    /// Good events in the period.
    pub good: u64,
    /// Bad events in the period.
    pub bad: u64,
    /// Those of `bad` that are only the agent's own word.
    pub self_reported_bad: u64,
    /// Remedies in force, gravest first.
    pub in_force: Vec<String>,
    /// The arithmetic, step by step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explain: Vec<StepView>,
}

/// A burn rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BurnView {
    /// The look-back by its name for 30 days.
    pub look_back: String,
    /// Its length for this period.
    pub seconds: f64,
    /// The rate; `null` = no data.
    pub rate: Option<f64>,
}

/// A line of arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// What.
    pub what: String,
    /// How.
    pub formula: String,
    /// What comes out.
    pub result: String,
}

/// The trust in one identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrustView {
    /// Its name.
    pub agent: String,
    /// The uid that started it.
    pub uid: u32,
    /// Its file, script or program.
    pub source: std::path::PathBuf,
    /// 0 to 1000: the one that counts.
    pub score: u16,
    /// The agent's own, while an experiment lets a lower one count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_score: Option<u16>,
    /// The name of that range.
    pub tier: String,
    /// What silence decays towards.
    pub baseline: u16,
    /// The most privileged ring that the score reaches.
    pub ring: Ring,
    /// Successes that somebody else than the agent has seen.
    pub successes: u64,
    /// Violations.
    pub violations: u64,
    /// Successes by its own word, which changed nothing.
    pub own_praise: u64,
    /// Until when an attestation holds, in milliseconds since the epoch, whether or not its plan is still the same.
    pub attested_until_ms: Option<i64>,
    /// The mark of the kill switch.
    pub killed: Option<Killed>,
}

/// The SLOs of an agent, arithmetic included.
#[must_use]
pub fn slos_of(governed: &Governed, now: Timestamp) -> AgentSlos {
    let view = |status: agt_sre::engine::SloStatus| {
        let explanation = governed.engine().explain(status.slo.as_str(), now);
        let steps = explanation.map(|explanation| explanation.steps).unwrap_or_default();
        SloView {
            slo: status.slo.to_string(),
            sli: status.sli.as_str().to_owned(),
            status: status.status.as_str().to_owned(),
            objective: status.objective.as_f64(),
            period_seconds: status.period_seconds,
            error_ratio: status.error_ratio,
            budget_left_ratio: status.budget_left(),
            burn: status
                .burn
                .iter()
                .map(|burn| BurnView {
                    look_back: burn.look_back.as_str().to_owned(),
                    seconds: burn.seconds,
                    rate: burn.rate,
                })
                .collect(),
            good: status.events.good,
            bad: status.events.bad,
            self_reported_bad: status.events.self_reported_bad,
            in_force: status.in_force.iter().map(|action| action.as_str().to_owned()).collect(),
            explain: steps
                .into_iter()
                .map(|step| StepView { what: step.what, formula: step.formula, result: step.result })
                .collect(),
        }
    };
    AgentSlos { agent: governed.identity.name.clone(), slos: governed.slo_status(now).into_iter().map(view).collect() }
}

/// The trust in an agent.
#[must_use]
pub fn trust_of(governed: &Governed, now: Timestamp) -> TrustView {
    let trust = governed.trust();
    let score = trust.score(now);
    TrustView {
        agent: governed.identity.name.clone(),
        uid: governed.identity.uid,
        source: governed.identity.source.clone(),
        score: score.get(),
        own_score: trust.own_score(now).map(|score| score.get()),
        tier: score.tier().as_str().to_owned(),
        baseline: trust.baseline().get(),
        ring: super::ring::of_score(score),
        successes: trust.successes(),
        violations: trust.violations(),
        own_praise: trust.own_praise(),
        attested_until_ms: governed.attestation.as_ref().map(|attestation| attestation.until_ms),
        killed: governed.killed.clone(),
    }
}
