//! An SLO as it stands in agent.yaml under `slos:`, and the check that turns it into an [`Slo`].
//!
//! ```yaml
//! slos:
//!   - name: answers
//!     sli: latency
//!     objective: 99%
//!     threshold: 2s
//!   - name: safe
//!     sli: safety
//!     objective: 0.99
//!     period: 7d
//!     trips: { high: 3, window: 1h }
//!     remedies:
//!       - { on: budget, below: 50%, action: demote }
//!       - { on: page, action: demote }
//!       - { on: trip, action: kill }
//! ```
//!
//! The types take what is well formed and leave out what is not given; whether values make sense is checked in one
//! pass that reports everything wrong at once. Unknown keys are refused: no misspelling may loosen an objective.

mod check;
mod written;

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use written::{Limit, Share};

use crate::error::{Problem, SpecError};
use crate::remedy::Action;
use crate::sli::Sli;
use crate::slo::{MOST_SLOS, Slo, Trips};
use check::Check;

/// One SLO as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SloSpec {
    /// Its name, unique within the agent: lowercase letters, digits, `-` and `_`.
    pub name: String,
    /// What it counts.
    pub sli: Sli,
    /// The share of events that must be good: at least 0, below 1. `0.995` or `99.5%`.
    pub objective: Share,
    /// The rolling period of the error budget. Default `30d`.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub period: Option<Duration>,
    /// The worst value that is still good: a duration for latency (`2s`), US dollars for cost (`0.05`), the least
    /// number for throughput. Other indicators have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Limit>,
    /// Events that a window needs before anything is concluded from it. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_events: Option<u64>,
    /// What happens when it goes wrong. Default: alerts; for safety also demote, break and kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedies: Option<Vec<RemedySpec>>,
    /// When `high` safety events act at once, whatever the ratio. One `critical` event always does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trips: Option<TripsSpec>,
}

/// One line of `remedies:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemedySpec {
    /// When.
    pub on: On,
    /// With `on: budget`: the share of the budget below which it acts. `0.2` or `20%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Share>,
    /// What.
    pub action: Action,
}

/// When a remedy acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// A slow burn that somebody should look at within days.
    Ticket,
    /// A fast burn.
    Page,
    /// Less than `below` of the budget is left.
    Budget,
    /// The budget is spent.
    Exhausted,
    /// A safety event too grave for ratios.
    Trip,
}

/// `trips:` of a safety SLO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TripsSpec {
    /// This many events of severity `high`...
    pub high: u32,
    /// ...within this time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("x-check" = "duration"))]
    pub window: Duration,
}

impl Default for TripsSpec {
    fn default() -> Self {
        let Trips { high, window } = Trips::default();
        Self { high, window }
    }
}

/// Checks the SLOs of one agent. Reports everything that is wrong with any of them.
pub fn resolve(specs: &[SloSpec]) -> Result<Vec<Slo>, Vec<SpecError>> {
    let mut errors = Vec::new();
    let mut slos = Vec::new();
    if specs.len() > MOST_SLOS {
        let problem = Problem::TooMany { count: specs.len(), limit: MOST_SLOS };
        errors.push(SpecError { path: String::new(), slo: String::new(), problem });
    }
    let mut names = BTreeSet::new();
    for (index, spec) in specs.iter().enumerate() {
        let mut check = Check { spec, index, errors: &mut errors };
        if !names.insert(spec.name.as_str()) {
            check.refuse("name", Problem::Duplicate(spec.name.clone()));
        }
        slos.extend(check.slo());
    }
    if errors.is_empty() { Ok(slos) } else { Err(errors) }
}

/// Checks one SLO by itself; paths in its errors start with `0.`.
pub fn resolve_one(spec: &SloSpec) -> Result<Slo, Vec<SpecError>> {
    resolve(std::slice::from_ref(spec)).map(|mut slos| slos.remove(0))
}

/// The safety SLO of an agent whose file has none: 99 % over 30 days, with the default remedies and trips. An
/// agent.yaml that says nothing about safety must not be an agent without one.
pub fn default_safety() -> Slo {
    let spec = SloSpec {
        name: "safety".to_owned(),
        sli: Sli::Safety,
        objective: Share(0.99),
        period: None,
        threshold: None,
        minimum_events: None,
        remedies: None,
        trips: None,
    };
    resolve_one(&spec).expect("a constant spec that a test resolves")
}

#[cfg(test)]
mod tests;
