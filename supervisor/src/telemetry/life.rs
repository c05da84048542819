//! The counters of one agent, over all its lives.
//!
//! Each life has a cgroup of its own, whose numbers begin at 0 and go with it. Counters must not go back, so finished lives are
//! added up; and readings of one life are only ever taken upwards, because a scrape's reading may arrive after a later one.

use std::time::Instant;

use agt_rings::cgroup::{Pressure, Usage};
use metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::counter;
use super::names::{AGENT_CHECKS, AGENT_DEATHS, AGENT_RESTARTS, DENIALS};
use super::state::CAUSES;
use crate::denials::Class;
use crate::machine::health::Passed;
use crate::machine::limit_events::Limit;

/// What grows over an agent's lives. `None`: this host does not count it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used([Option<u64>; Counted::ALL.len()]);

/// One of the kernel's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    CpuUsec,
    ThrottledUsec,
    Periods,
    Hits(Limit),
    CpuSome,
    CpuFull,
    MemorySome,
    MemoryFull,
    IoSome,
    IoFull,
    ReadBytes,
    WrittenBytes,
    Reads,
    Writes,
}

impl Counted {
    pub(super) const ALL: [Counted; 18] = [
        Counted::CpuUsec,
        Counted::ThrottledUsec,
        Counted::Periods,
        Counted::Hits(Limit::OomKill),
        Counted::Hits(Limit::Memory),
        Counted::Hits(Limit::MemoryHigh),
        Counted::Hits(Limit::Tasks),
        Counted::Hits(Limit::Cpu),
        Counted::CpuSome,
        Counted::CpuFull,
        Counted::MemorySome,
        Counted::MemoryFull,
        Counted::IoSome,
        Counted::IoFull,
        Counted::ReadBytes,
        Counted::WrittenBytes,
        Counted::Reads,
        Counted::Writes,
    ];

    fn of(self, usage: &Usage) -> Option<u64> {
        let pressure = &usage.pressure;
        let some = |pressure: Option<Pressure>| pressure.map(|pressure| pressure.some.total_usec);
        let full = |pressure: Option<Pressure>| pressure?.full.map(|full| full.total_usec);
        match self {
            Counted::CpuUsec => usage.cpu_usec,
            Counted::ThrottledUsec => usage.cpu_throttled_usec,
            Counted::Periods => usage.cpu_periods,
            Counted::Hits(limit) => limit.count(&usage.hits()),
            Counted::CpuSome => some(pressure.cpu),
            Counted::CpuFull => full(pressure.cpu),
            Counted::MemorySome => some(pressure.memory),
            Counted::MemoryFull => full(pressure.memory),
            Counted::IoSome => some(pressure.io),
            Counted::IoFull => full(pressure.io),
            Counted::ReadBytes => usage.io.map(|io| io.read_bytes),
            Counted::WrittenBytes => usage.io.map(|io| io.written_bytes),
            Counted::Reads => usage.io.map(|io| io.reads),
            Counted::Writes => usage.io.map(|io| io.writes),
        }
    }
}

impl Used {
    fn of(usage: &Usage) -> Used {
        Used(Counted::ALL.map(|counted| counted.of(usage)))
    }

    pub(super) fn get(&self, counted: Counted) -> Option<u64> {
        let index = Counted::ALL.iter().position(|other| *other == counted)?;
        self.0[index]
    }

    fn with(mut self, other: Used, join: fn(u64, u64) -> u64) -> Used {
        for (one, other) in self.0.iter_mut().zip(other.0) {
            *one = match (*one, other) {
                (Some(a), Some(b)) => Some(join(a, b)),
                (one, other) => one.or(other),
            };
        }
        self
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
    denials: [Counter; Class::ALL.len()],
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
        let denials = Class::ALL.map(|class| counter(recorder, &DENIALS, &[("agent", agent), ("class", class.word())]));
        let (past, present) = (Used::default(), Used::default());
        Life { alive: Alive::No, deaths, restarts, checks, denials, past, present, number: 0 }
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

    pub(super) fn denied(&mut self, class: Class, times: u64) {
        self.denials[class as usize].increment(times);
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
