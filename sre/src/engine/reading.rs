//! One look at an SLO: every window read once, and what follows from it.
//!
//! Verdicts, status and explanation all come from the same reading, so that what is explained is what was decided.

use super::Track;
use super::status::Status;
use super::trips::{LastTrip, TripState};
use crate::budget::{Budget, consumed, has_consumed, has_left_less_than, is_evidence};
use crate::burn::{Alert, LookBack, PAIRS, Pair, burn_rate};
use crate::ratio::{Ratio, number, percent};
use crate::remedy::Trigger;
use crate::sli::Counts;
use crate::slo::Slo;
use crate::time::{Timestamp, compact};

/// Less budget than this left is a warning.
pub(super) const WARNING_LEFT: Ratio = Ratio::percent(20);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) period: Counts,
    pub(super) look_backs: [Counts; LookBack::ALL.len()],
    pub(super) budget: Option<Budget>,
    pub(super) pairs: [bool; PAIRS.len()],
    pub(super) exhausted: bool,
    pub(super) trip: Option<LastTrip>,
    pub(super) trip_count: u64,
    pub(super) total_bad: u64,
    pub(super) status: Status,
}

impl Reading {
    pub(super) fn of(track: &Track, now: Timestamp) -> Self {
        let slo = &track.slo;
        let period = track.windows.sum(0, now);
        let look_backs = LookBack::ALL.map(|look_back| track.windows.sum(1 + look_back.index(), now));
        let pairs = PAIRS.map(|pair| {
            let (long, short) = (look_backs[pair.long.index()], look_backs[pair.short.index()]);
            pair.holds(long, short, slo.objective, slo.minimum_events)
        });
        let trips = track.trips.as_ref();
        let trip = trips.and_then(|trips| trips.active(now));
        let exhausted = is_evidence(period, slo.minimum_events) && has_consumed(period, slo.objective, Ratio::ONE);
        let mut reading = Self {
            period,
            look_backs,
            budget: Budget::of(period, slo.objective),
            pairs,
            exhausted,
            trip,
            trip_count: trips.map_or(0, |trips| trips.count),
            total_bad: track.windows.total().bad,
            status: Status::Unknown,
        };
        reading.status = reading.status(slo);
        reading
    }

    /// The worst that holds. `Unknown` gives way to anything bad, and to `Healthy` only on evidence that is not the
    /// agent's own word.
    fn status(&self, slo: &Slo) -> Status {
        if self.exhausted {
            Status::Exhausted
        } else if self.alert(Alert::Page) || self.trip.is_some() {
            Status::Critical
        } else if self.alert(Alert::Ticket) || self.budget_below(slo, WARNING_LEFT) {
            Status::Warning
        } else if self.period.witnessed() < slo.minimum_events {
            Status::Unknown
        } else {
            Status::Healthy
        }
    }

    pub(super) fn look_back(&self, look_back: LookBack) -> Counts {
        self.look_backs[look_back.index()]
    }

    pub(super) fn alert(&self, alert: Alert) -> bool {
        self.holding(alert).is_some()
    }

    fn holding(&self, alert: Alert) -> Option<Pair> {
        let found = PAIRS.iter().zip(self.pairs).find(|(pair, holds)| *holds && pair.alert == alert);
        found.map(|(pair, _)| *pair)
    }

    pub(super) fn budget_below(&self, slo: &Slo, share: Ratio) -> bool {
        is_evidence(self.period, slo.minimum_events) && has_left_less_than(self.period, slo.objective, share)
    }

    /// Whether at least `share` of the budget is left; with no events nothing of it is used.
    pub(super) fn budget_at_least(&self, slo: &Slo, share: Ratio) -> bool {
        !has_left_less_than(self.period, slo.objective, share)
    }

    /// Whether a trigger holds at this moment.
    pub(super) fn holds(&self, slo: &Slo, trigger: Trigger) -> bool {
        match trigger {
            Trigger::Ticket => self.alert(Alert::Ticket),
            Trigger::Page => self.alert(Alert::Page),
            Trigger::Budget(below) => self.budget_below(slo, below),
            Trigger::Exhausted => self.exhausted,
            Trigger::Trip => self.trip.is_some(),
        }
    }

    /// Why a trigger holds, with the numbers.
    pub(super) fn reason(&self, slo: &Slo, trips: Option<&TripState>, trigger: Trigger) -> String {
        match trigger {
            Trigger::Ticket => self.burn_reason(slo, Alert::Ticket),
            Trigger::Page => self.burn_reason(slo, Alert::Page),
            Trigger::Budget(below) => {
                let left = self.budget.map_or(1.0, |budget| budget.left_ratio);
                format!("{} of the error budget is left, below {below}: {}", percent(left), self.spent(slo))
            }
            Trigger::Exhausted => format!("the error budget is spent: {}", self.spent(slo)),
            // The last trip, also when it is no longer fresh: a verdict that comes late still says why.
            Trigger::Trip => trips.map_or_else(String::new, TripState::describe),
        }
    }

    fn spent(&self, slo: &Slo) -> String {
        let Counts { bad, claimed, .. } = self.period;
        let errors = self.period.error_ratio().unwrap_or(0.0);
        let consumed = consumed(self.period, slo.objective).unwrap_or(0.0);
        let own_word = if claimed > 0 { format!(" ({claimed} of them by its own report)") } else { String::new() };
        format!(
            "{bad} bad of {} in {}{own_word}, {} errors where {} are allowed = {} of the budget",
            self.period.valid(),
            compact(slo.period),
            percent(errors),
            slo.objective.allowed(),
            percent(consumed),
        )
    }

    fn burn_reason(&self, slo: &Slo, alert: Alert) -> String {
        let Some(pair) = self.holding(alert) else {
            return String::new();
        };
        let burn = |look_back| {
            let counts = self.look_back(look_back);
            let rate = burn_rate(counts, slo.objective).map_or_else(|| "nothing".to_owned(), number);
            let length = compact(look_back.scaled(slo.period));
            format!("{rate} over {length} ({} bad of {})", counts.bad, counts.valid())
        };
        format!(
            "the error budget burns at {} and {}, both over {}; {} errors are allowed",
            burn(pair.long),
            burn(pair.short),
            number(pair.over()),
            slo.objective.allowed(),
        )
    }
}
