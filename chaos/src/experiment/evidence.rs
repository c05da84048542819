//! What an experiment has seen so far, in constant space: sums per phase, not samples.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fault::{Fault, Seen};
use crate::plan::{Check, Plan};
use crate::target::Observation;

/// The readings of one phase, per steady-state condition. One missing reading makes the phase's value missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readings {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Line {
    sum: f64,
    count: u32,
    missing: u32,
    last: Option<f64>,
}

impl Readings {
    fn add(&mut self, checks: &[Check], now: Option<&Observation>) {
        self.lines.resize(checks.len(), Line::default());
        for (line, check) in self.lines.iter_mut().zip(checks) {
            line.last = now.and_then(|now| now.read(&check.source).value());
            match line.last {
                Some(value) => {
                    line.sum += value;
                    line.count += 1;
                }
                None => line.missing += 1,
            }
        }
    }

    /// The mean of condition `i`'s readings; `None` if there is none or one of them was missing.
    pub(crate) fn mean(&self, i: usize) -> Option<f64> {
        let line = self.lines.get(i).filter(|line| line.count > 0 && line.missing == 0)?;
        Some(line.sum / f64::from(line.count))
    }

    /// The last reading of condition `i`.
    pub(crate) fn last(&self, i: usize) -> Option<f64> {
        self.lines.get(i)?.last
    }
}

/// Which phase a reading belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Before,
    During,
    After,
}

/// What an experiment has seen so far.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// Before the fault.
    pub(crate) before: Readings,
    /// While it acts, and between its bursts.
    pub(crate) during: Readings,
    /// After the last undo.
    pub(crate) after: Readings,
    /// The very first observation.
    pub(crate) first: Option<Observation>,
    /// The latest one.
    pub(crate) last: Option<Observation>,
    /// The last one before the present burst.
    unharmed: Option<Observation>,
    /// The first injection.
    pub(crate) injected_at: Option<Duration>,
    /// The last undo.
    pub(crate) undone_at: Option<Duration>,
    detected_at: Option<Duration>,
    recovered_at: Option<Duration>,
    acted: Vec<Seen>,
    /// Whether nothing of the fault is to be seen, by the last observation since the last undo.
    pub(crate) restored: Seen,
}

impl Evidence {
    pub(crate) fn new() -> Self {
        Self {
            before: Readings::default(),
            during: Readings::default(),
            after: Readings::default(),
            first: None,
            last: None,
            unharmed: None,
            injected_at: None,
            undone_at: None,
            detected_at: None,
            recovered_at: None,
            acted: Vec::new(),
            restored: Seen::Unknown,
        }
    }

    /// The latest observation is the state to come back to.
    pub(crate) fn before_injection(&mut self) {
        self.unharmed = self.last.clone();
        self.acted.push(Seen::Unknown);
    }

    pub(crate) fn injected(&mut self, now: Duration) {
        self.injected_at.get_or_insert(now);
    }

    pub(crate) fn undone(&mut self, now: Duration) {
        self.undone_at = Some(now);
        self.recovered_at = None;
        self.restored = Seen::Unknown;
    }

    /// A reading for the steady state's table: only those count that don't look back into the phase before.
    pub(crate) fn add(&mut self, plan: &Plan, phase: Phase, now: Option<&Observation>) {
        let readings = match phase {
            Phase::Before => &mut self.before,
            Phase::During => &mut self.during,
            Phase::After => &mut self.after,
        };
        readings.add(&plan.steady_state, now);
    }

    /// Looks whether the fault acts. Returns `Yes` at the first sight of it in this burst.
    pub(crate) fn look_for_fault(&mut self, fault: &impl Fault, now: &Observation) -> Seen {
        let (Some(before), Some(acted)) = (&self.unharmed, self.acted.last_mut()) else { return Seen::Unknown };
        if *acted == Seen::Yes {
            return Seen::No;
        }
        *acted = acted.once(fault.acted(before, now));
        *acted
    }

    /// Looks whether an incident has been opened since the injection. `Yes` at the first sight of it.
    pub(crate) fn look_for_incident(&mut self, at: Duration, now: &Observation) -> Seen {
        if self.injected_at.is_none() || self.detected_at.is_some() {
            return Seen::No;
        }
        if now.incident_open == Some(true) {
            self.detected_at = Some(at);
        }
        Seen::from(now.incident_open)
    }

    /// Looks whether the steady state is back and nothing of the fault is left. `Yes` when it has just come back.
    pub(crate) fn look_for_recovery(&mut self, plan: &Plan, at: Duration, now: Option<&Observation>) -> Seen {
        self.restored = match (&self.unharmed, now) {
            (Some(before), Some(now)) => plan.fault.restored(before, now),
            _ => Seen::Unknown,
        };
        let steady = now.is_some_and(|now| {
            plan.steady_state
                .iter()
                .all(|check| now.read(&check.source).value().is_some_and(|value| check.holds(value)))
        });
        if !steady || self.restored != Seen::Yes {
            self.recovered_at = None;
            return Seen::No;
        }
        let news = self.recovered_at.is_none();
        self.recovered_at.get_or_insert(at);
        Seen::from(Some(news))
    }

    /// Whether the fault was seen in each of so many bursts.
    pub(crate) fn acted_everywhere(&self, bursts: usize) -> Seen {
        if self.acted.contains(&Seen::No) {
            Seen::No
        } else if self.acted.len() < bursts || self.acted.contains(&Seen::Unknown) {
            Seen::Unknown
        } else {
            Seen::Yes
        }
    }

    /// From the first injection until an incident was open.
    pub(crate) fn detection(&self) -> Option<Duration> {
        Some(self.detected_at?.saturating_sub(self.injected_at?))
    }

    /// From the last undo until the steady state was back.
    pub(crate) fn recovery(&self) -> Option<Duration> {
        Some(self.recovered_at?.saturating_sub(self.undone_at?))
    }

    /// Violations from the first to the last observation. A count that fell was reset: then nobody knows.
    pub(crate) fn safety_violations(&self) -> Option<u64> {
        let first = self.first.as_ref()?.safety_violations?;
        self.last.as_ref()?.safety_violations?.checked_sub(first)
    }

    /// How much of a budget is burned since the first observation.
    pub(crate) fn burned(&self, slo: &str) -> Option<f64> {
        let left = |now: &Option<Observation>| now.as_ref()?.budgets.get(slo).copied().flatten();
        Some((left(&self.first)? - left(&self.last)?).max(0.0))
    }

    /// The same for all budgets.
    pub(crate) fn budgets_burned(&self) -> BTreeMap<String, Option<f64>> {
        let slos = self.first.iter().flat_map(|first| first.budgets.keys());
        // Without one event there is nothing that could have burned: that is no data, not nothing burned.
        let counted = |slo: &str| self.last.as_ref().is_some_and(|last| !last.uncounted.contains(slo));
        slos.map(|slo| (slo.clone(), self.burned(slo).filter(|_| counted(slo)))).collect()
    }
}
