//! The check of one SLO: every rule looks at the spec, whether an earlier one has failed or not.

use std::time::Duration;

use super::{Limit, On, RemedySpec, Share, SloSpec, TripsSpec};
use crate::error::{Problem, SpecError};
use crate::ratio::{Objective, Ratio};
use crate::remedy::{Remedy, Trigger};
use crate::sli::{Sli, Threshold};
use crate::slo::{self, Slo, SloName, Trips};

/// The most `high` events that a trip may wait for.
const MOST_HIGH: u32 = 1_000;
/// Shortest time over which `high` events are counted.
const SHORTEST_TRIP_WINDOW: Duration = Duration::from_secs(1);
/// Longest time over which `high` events are counted.
const LONGEST_TRIP_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// One SLO on its way through the checks.
pub(super) struct Check<'a> {
    pub(super) spec: &'a SloSpec,
    /// Its place in the list, for paths.
    pub(super) index: usize,
    pub(super) errors: &'a mut Vec<SpecError>,
}

impl Check<'_> {
    pub(super) fn refuse(&mut self, field: &str, problem: Problem) {
        let path = format!("{}.{field}", self.index);
        self.errors.push(SpecError { path, slo: self.spec.name.clone(), problem });
    }

    pub(super) fn slo(&mut self) -> Option<Slo> {
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
