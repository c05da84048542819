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
//!       - { on: budget, below: 50%, action: throttle }
//!       - { on: page, action: demote }
//!       - { on: trip, action: kill }
//! ```
//!
//! The types take what is well formed and leave out what is not given; whether values make sense is checked in one
//! pass that reports everything wrong at once. Unknown keys are refused: no misspelling may loosen an objective.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Problem, SpecError};
use crate::ratio::{Objective, Ratio};
use crate::remedy::{Action, Remedy, Trigger};
use crate::sli::{Sli, Threshold};
use crate::slo::{self, Slo, SloName, Trips};

/// The most `high` events that a trip may wait for.
const MOST_HIGH: u32 = 1_000;
/// Shortest time over which `high` events are counted.
const SHORTEST_TRIP_WINDOW: Duration = Duration::from_secs(1);
/// Longest time over which `high` events are counted.
const LONGEST_TRIP_WINDOW: Duration = Duration::from_secs(30 * 86_400);

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
    #[schemars(with = "Option<String>")]
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
    #[schemars(with = "String")]
    pub window: Duration,
}

impl Default for TripsSpec {
    fn default() -> Self {
        let Trips { high, window } = Trips::default();
        Self { high, window }
    }
}

/// A share as written: `0.995` or `99.5%`. Its range is checked later, together with everything else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as 0.995 or 99.5%")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Share, E> {
                Ok(Share(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Share, E> {
                Ok(Share(value as f64))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Share, E> {
                Ok(Share(value as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
                number
                    .map(|percent| Share(percent / 100.0))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A share: a number from 0 to 1 or percent, such as 0.995 or 99.5%.",
            "anyOf": [
                { "type": "number", "minimum": 0, "maximum": 1 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? *%$" },
            ],
        })
    }
}

/// A threshold as written: a duration or a number. Which of them fits is checked later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// `2s`, `1m30s`.
    Duration(Duration),
    /// `0.05`.
    Number(f64),
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Duration(duration) => humantime_serde::serialize(duration, serializer),
            Self::Number(number) => serializer.serialize_f64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 2s, or a number")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Limit, E> {
                Ok(Limit::Number(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Limit, E> {
                Ok(Limit::Number(value as f64))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Limit, E> {
                Ok(Limit::Number(value as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                let duration = humantime_serde::re::humantime::parse_duration(text);
                duration.map(Limit::Duration).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Latency: a duration such as 2s. Cost: US dollars such as 0.05. Throughput: the least number.",
            "anyOf": [{ "type": "number", "exclusiveMinimum": 0 }, { "type": "string" }],
        })
    }
}

/// Checks the SLOs of one agent. Reports everything that is wrong with any of them.
pub fn resolve(specs: &[SloSpec]) -> Result<Vec<Slo>, Vec<SpecError>> {
    let mut errors = Vec::new();
    let mut slos = Vec::new();
    if specs.len() > slo::MOST_SLOS {
        let problem = Problem::TooMany { count: specs.len(), limit: slo::MOST_SLOS };
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

/// One SLO on its way through the checks.
struct Check<'a> {
    spec: &'a SloSpec,
    index: usize,
    errors: &'a mut Vec<SpecError>,
}

impl Check<'_> {
    fn refuse(&mut self, field: &str, problem: Problem) {
        let path = format!("{}.{field}", self.index);
        self.errors.push(SpecError { path, slo: self.spec.name.clone(), problem });
    }

    /// Every check runs, whether an earlier one failed or not.
    fn slo(&mut self) -> Option<Slo> {
        let spec = self.spec;
        let name = SloName::new(&spec.name);
        if name.is_none() {
            self.refuse("name", Problem::Name(spec.name.clone()));
        }
        let objective = Ratio::new(spec.objective.0).and_then(Objective::new);
        if objective.is_none() {
            self.refuse("objective", Problem::Objective(spec.objective.0));
        }
        let period = spec.period.unwrap_or(slo::DEFAULT_PERIOD);
        self.in_range("period", period, slo::SHORTEST_PERIOD, slo::LONGEST_PERIOD);
        let minimum_events = spec.minimum_events.unwrap_or(slo::DEFAULT_MINIMUM_EVENTS);
        self.in_count("minimum_events", minimum_events, 1, slo::MOST_MINIMUM_EVENTS);
        let threshold = self.threshold();
        let trips = self.trips();
        let remedies = self.remedies();
        Some(Slo {
            name: name?,
            sli: spec.sli,
            objective: objective?,
            period,
            threshold,
            minimum_events,
            remedies,
            trips,
        })
    }

    fn in_range(&mut self, field: &str, value: Duration, least: Duration, most: Duration) {
        if !(least..=most).contains(&value) {
            self.refuse(field, Problem::Duration { value, least, most });
        }
    }

    fn in_count(&mut self, field: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.refuse(field, Problem::Count { value, least, most });
        }
    }

    fn threshold(&mut self) -> Option<Threshold> {
        let sli = self.spec.sli;
        let example = match sli {
            Sli::Latency => "`threshold: 2s`",
            Sli::Cost => "`threshold: 0.05` (US dollars)",
            Sli::Throughput => "`threshold: 10`",
            _ => {
                if self.spec.threshold.is_some() {
                    self.refuse("threshold", Problem::ThresholdUnused(sli));
                }
                return None;
            }
        };
        let Some(written) = self.spec.threshold else {
            // A latency or cost without a limit can't be judged; tasks can be counted without a pace.
            if sli != Sli::Throughput {
                self.refuse("threshold", Problem::ThresholdMissing { sli, example });
            }
            return None;
        };
        let (threshold, value) = match (sli, written) {
            (Sli::Latency, Limit::Duration(limit)) => {
                (Threshold::AtMostSeconds(limit.as_secs_f64()), limit.as_secs_f64())
            }
            (Sli::Cost, Limit::Number(limit)) => (Threshold::AtMostUsd(limit), limit),
            (Sli::Throughput, Limit::Number(limit)) => (Threshold::AtLeast(limit), limit),
            _ => {
                self.refuse("threshold", Problem::ThresholdKind { sli, example });
                return None;
            }
        };
        if !(value.is_finite() && value > 0.0) {
            self.refuse("threshold", Problem::ThresholdValue(value));
        }
        Some(threshold)
    }

    fn trips(&mut self) -> Option<Trips> {
        let sli = self.spec.sli;
        if sli != Sli::Safety {
            if self.spec.trips.is_some() {
                self.refuse("trips", Problem::TripsUnused(sli));
            }
            return None;
        }
        let TripsSpec { high, window } = self.spec.trips.clone().unwrap_or_default();
        self.in_count("trips.high", u64::from(high), 1, u64::from(MOST_HIGH));
        self.in_range("trips.window", window, SHORTEST_TRIP_WINDOW, LONGEST_TRIP_WINDOW);
        Some(Trips { high, window })
    }

    fn remedies(&mut self) -> Vec<Remedy> {
        let sli = self.spec.sli;
        let Some(written) = &self.spec.remedies else {
            return Remedy::defaults(sli);
        };
        let mut remedies: Vec<Remedy> = Vec::new();
        for (index, line) in written.iter().enumerate() {
            let Some(remedy) = self.remedy(index, line) else { continue };
            if remedies.contains(&remedy) {
                self.refuse(&format!("remedies.{index}"), Problem::RemedyTwice);
            }
            remedies.push(remedy);
        }
        if sli == Sli::Safety && !remedies.iter().any(|remedy| remedy.on == Trigger::Trip) {
            remedies.push(Remedy::TRIP);
        }
        remedies
    }

    fn remedy(&mut self, index: usize, line: &RemedySpec) -> Option<Remedy> {
        let below_path = format!("remedies.{index}.below");
        if line.on != On::Budget && line.below.is_some() {
            self.refuse(&below_path, Problem::BelowUnused);
        }
        let on = match line.on {
            On::Ticket => Trigger::Ticket,
            On::Page => Trigger::Page,
            On::Exhausted => Trigger::Exhausted,
            On::Trip => {
                if self.spec.sli != Sli::Safety {
                    self.refuse(&format!("remedies.{index}.on"), Problem::TripsUnused(self.spec.sli));
                }
                Trigger::Trip
            }
            On::Budget => {
                let Some(Share(below)) = line.below else {
                    self.refuse(&below_path, Problem::BelowMissing);
                    return None;
                };
                let Some(below_ratio) = Ratio::new(below).filter(|ratio| *ratio > Ratio::ZERO) else {
                    self.refuse(&below_path, Problem::Share(below));
                    return None;
                };
                Trigger::Budget(below_ratio)
            }
        };
        Some(Remedy { on, action: line.action })
    }
}

#[cfg(test)]
mod tests;
