//! The arithmetic behind a state, step by step, for `slo --explain`.
//!
//! Each step has the formula with the numbers put in, so that a reader can check it with a pocket calculator. The
//! numbers come from the same [`Reading`] that decides.

use serde::Serialize;

use super::Track;
use super::reading::{Reading, WARNING_LEFT};
use super::remedies::RemedyState;
use super::status::Status;
use super::trips::TripState;
use crate::budget::is_evidence;
use crate::burn::{Alert, LookBack, PAIRS, Pair, burn_rate};
use crate::ratio::{Ratio, number, percent};
use crate::sli::Counts;
use crate::slo::{Slo, SloName};
use crate::time::{Timestamp, compact};

/// One line of arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What is worked out: `burn 1h`.
    pub what: String,
    /// How, with the numbers put in: `(5 / 100) / 0.005`.
    pub formula: String,
    /// What comes out; none without data, and for steps that give no number.
    pub value: Option<f64>,
    /// The result in words: `10`, `no data`, `holds`.
    pub result: String,
}

/// How an SLO came to its state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Which SLO.
    pub slo: SloName,
    /// Its state.
    pub status: Status,
    /// The way there.
    pub steps: Vec<Step>,
}

impl Explanation {
    pub(super) fn of(track: &Track, now: Timestamp) -> Self {
        let slo = &track.slo;
        let reading = Reading::of(track, now);
        let mut steps = vec![allowed(slo), errors(slo, &reading), budget(slo, &reading)];
        steps.extend(LookBack::ALL.map(|look_back| burn(slo, &reading, look_back)));
        steps.extend(PAIRS.iter().zip(reading.pairs).map(|(pair, holds)| alert(slo, &reading, *pair, holds)));
        if let Some(trips) = &track.trips {
            steps.push(trip(trips, &reading));
        }
        steps.extend(track.remedies.iter().map(|state| remedy(slo, state, &reading)));
        steps.push(verdict(slo, &reading));
        Self { slo: slo.name.clone(), status: reading.status, steps }
    }
}

fn step(what: impl Into<String>, formula: String, value: Option<f64>, result: String) -> Step {
    Step { what: what.into(), formula, value, result }
}

fn yes_no(holds: bool) -> String {
    if holds { "holds" } else { "does not hold" }.to_owned()
}

fn fraction(counts: Counts) -> String {
    format!("{} bad / {} valid", counts.bad, counts.valid())
}

fn allowed(slo: &Slo) -> Step {
    let allowed = slo.objective.allowed();
    let formula = format!("1 - {}", slo.objective.as_f64());
    step("allowed error ratio", formula, Some(allowed.as_f64()), allowed.to_string())
}

fn errors(slo: &Slo, reading: &Reading) -> Step {
    let ratio = reading.period.error_ratio();
    let result = ratio.map_or_else(|| "no data".to_owned(), percent);
    let mut formula = format!("{} in {}", fraction(reading.period), compact(slo.period));
    if reading.period.claimed > 0 {
        formula.push_str(&format!(", {} bad by its own report", reading.period.claimed));
    }
    step("error ratio", formula, ratio, result)
}

fn budget(slo: &Slo, reading: &Reading) -> Step {
    let formula = format!("1 - ({}) / {}", fraction(reading.period), slo.objective.allowed().as_f64());
    let Some(budget) = reading.budget else {
        return step("budget left", formula, None, "no data".to_owned());
    };
    let result = if budget.consumed_ratio > 1.0 {
        format!("0 %: {} of the budget is spent", percent(budget.consumed_ratio))
    } else {
        percent(budget.left_ratio)
    };
    step("budget left", formula, Some(budget.left_ratio), result)
}

fn burn(slo: &Slo, reading: &Reading, look_back: LookBack) -> Step {
    let counts = reading.look_back(look_back);
    let rate = burn_rate(counts, slo.objective);
    let length = look_back.scaled(slo.period);
    let scaled = if length == look_back.nominal() { String::new() } else { format!(" in {}", compact(length)) };
    let formula = format!("({}{scaled}) / {}", fraction(counts), slo.objective.allowed().as_f64());
    step(format!("burn {look_back}"), formula, rate, rate.map_or_else(|| "no data".to_owned(), number))
}

fn alert(slo: &Slo, reading: &Reading, pair: Pair, holds: bool) -> Step {
    let over = number(pair.over());
    let formula = format!("burn {} > {over} and burn {} > {over}", pair.long, pair.short);
    let long = reading.look_back(pair.long);
    let result = if !pair.can_hold(slo.objective) {
        format!("can't hold: at {} no burn exceeds {}", slo.objective, number(1.0 / slo.objective.allowed().as_f64()))
    } else if !is_evidence(long, slo.minimum_events) {
        format!("{}: {}", yes_no(holds), too_few(slo, long))
    } else {
        yes_no(holds)
    };
    step(pair.alert.as_str(), formula, None, result)
}

fn too_few(slo: &Slo, counts: Counts) -> String {
    let Counts { bad, .. } = counts;
    let least_bad = crate::budget::LEAST_BAD.min(slo.minimum_events);
    format!("{} events, {bad} bad; it takes {} and {least_bad}", counts.valid(), slo.minimum_events)
}

fn trip(trips: &TripState, reading: &Reading) -> Step {
    let formula = format!("1 critical event, or {} high within {}", trips.rule.high, compact(trips.rule.window));
    let result = if reading.trip.is_some() { format!("tripped: {}", trips.describe()) } else { yes_no(false) };
    step("trip", formula, Some(reading.trip_count as f64), result)
}

fn remedy(slo: &Slo, state: &RemedyState, reading: &Reading) -> Step {
    let bound = state.memory.since.is_some();
    let result = match (bound, reading.holds(slo, state.remedy.on)) {
        (true, true) => "in force".to_owned(),
        (true, false) => {
            format!("in force until quiet for {} and the budget has recovered", compact(RemedyState::hold(slo)))
        }
        (false, true) => "due".to_owned(),
        (false, false) => "not called for".to_owned(),
    };
    step(format!("remedy {}", state.remedy.action), format!("on {}", state.remedy.on), None, result)
}

fn verdict(slo: &Slo, reading: &Reading) -> Step {
    let formula = match reading.status {
        Status::Exhausted => format!("budget consumed >= {}", Ratio::ONE),
        Status::Critical if reading.trip.is_some() => "a trip is fresh".to_owned(),
        Status::Critical => format!("a {} alert holds", Alert::Page.as_str()),
        Status::Warning if reading.alert(Alert::Ticket) => format!("a {} alert holds", Alert::Ticket.as_str()),
        Status::Warning => format!("budget left < {WARNING_LEFT}"),
        Status::Unknown => format!(
            "{} events that are not only its own report, fewer than {}",
            reading.period.witnessed(),
            slo.minimum_events
        ),
        Status::Healthy => "nothing above holds".to_owned(),
    };
    step("status", formula, None, reading.status.to_string())
}
