//! The counters of one agent, over all its lives.
//!
//! Each life has a cgroup of its own, whose numbers begin at 0 and go with it. Counters must not go back, so finished lives are
//! added up; and readings of one life are only ever taken upwards, because a scrape's reading may arrive after a later one.

use std::time::Instant;

use agt_rings::cgroup::Usage;
use metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::counter;
use super::names::{AGENT_CHECKS, AGENT_DEATHS, AGENT_RESTARTS};
use super::state::CAUSES;
use crate::machine::health::Passed;

/// What an agent has used. `None`: this host does not count it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) cpu_usec: Option<u64>,
    pub(super) throttled_usec: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    pub(super) task_refusals: Option<u64>,
}

impl Used {
    fn of(usage: &Usage) -> Used {
        Used {
            cpu_usec: usage.cpu_usec,
            throttled_usec: usage.cpu_throttled_usec,
            oom_kills: usage.oom_kills,
            task_refusals: usage.tasks_limit_hits,
        }
    }

    fn with(self, other: Used, join: fn(u64, u64) -> u64) -> Used {
        let both = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(join(a, b)),
            (one, other) => one.or(other),
        };
        Used {
            cpu_usec: both(self.cpu_usec, other.cpu_usec),
            throttled_usec: both(self.throttled_usec, other.throttled_usec),
            oom_kills: both(self.oom_kills, other.oom_kills),
            task_refusals: both(self.task_refusals, other.task_refusals),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alive {
    No,
    /// Launched, not yet executed.
    Since(Instant),
    Yes,
}

/// One agent.
pub(super) struct Life {
    alive: Alive,
    deaths: Vec<(&'static str, Counter)>,
    pub(super) restarts: Counter,
    checks: [Counter; 2],
    past: Used,
    present: Used,
    number: u64,
}

impl Life {
    pub(super) fn new(recorder: &PrometheusRecorder, agent: &str) -> Life {
        let deaths = CAUSES
            .iter()
            .map(|cause| (*cause, counter(recorder, &AGENT_DEATHS, &[("agent", agent), ("cause", cause)])))
            .collect();
        let restarts = counter(recorder, &AGENT_RESTARTS, &[("agent", agent)]);
        let checks =
            ["good", "bad"].map(|outcome| counter(recorder, &AGENT_CHECKS, &[("agent", agent), ("outcome", outcome)]));
        Life { alive: Alive::No, deaths, restarts, checks, past: Used::default(), present: Used::default(), number: 0 }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.alive = Alive::Since(now);
    }

    /// It runs; answers when its launch began.
    pub(super) fn started(&mut self) -> Option<Instant> {
        match std::mem::replace(&mut self.alive, Alive::Yes) {
            Alive::Since(began) => Some(began),
            Alive::No | Alive::Yes => None,
        }
    }

    pub(super) fn checked(&mut self, passed: Passed) {
        self.checks[usize::from(passed == Passed::No)].increment(1);
    }

    pub(super) fn end(&mut self, cause: &'static str) {
        if std::mem::replace(&mut self.alive, Alive::No) == Alive::No {
            return;
        }
        if let Some((_, counter)) = self.deaths.iter().find(|(known, _)| *known == cause) {
            counter.increment(1);
        }
    }

    /// Takes a reading of life `number`; one of an earlier life comes too late to be told apart from what was added up.
    pub(super) fn observe(&mut self, number: u64, usage: &Usage) {
        if number < self.number {
            return;
        }
        if number > self.number {
            self.past = self.used();
            self.present = Used::default();
            self.number = number;
        }
        self.present = self.present.with(Used::of(usage), u64::max);
    }

    pub(super) fn used(&self) -> Used {
        self.past.with(self.present, u64::saturating_add)
    }
}
