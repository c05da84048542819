//! A circuit breaker: stops giving work to an agent that fails, and finds out by itself whether it has recovered.
//!
//! ```text
//!                 rates over their limits, or `trip`
//!      Closed ------------------------------------------> Open
//!        ^                                                 | the interval is over: by time alone
//!        | enough probes within the limits                 v
//!        +--------------------------------------------- HalfOpen
//!                                                          | too many probes bad, or one never came back
//!                                                          +--> Open again, for longer
//! ```
//!
//! The state is a function of what was recorded and of `now`: an open breaker becomes half-open because time passes,
//! not because somebody calls it. Failure rate and slow-call rate have limits of their own (resilience4j); intervals
//! back off and are jittered, so that a fleet does not come back in step. Every change of state starts a new
//! *generation*: a call let through before the change is no evidence about what came after it, and its result is
//! ignored.
//!
//! A closed breaker lets a call pass by looking at one plain field; there is no lock and no atomic on that way.

mod calls;
mod permit;
mod settings;
mod snapshot;

use std::time::Duration;

use serde::Serialize;

pub use calls::{CallOutcome, Rates};
pub use permit::Permit;
pub use settings::{BreakerSettings, CallWindow, EjectionCap, SlowCalls};
pub use snapshot::BreakerSnapshot;

use crate::error::Error;
use crate::time::{Clock, Timestamp};
use calls::{Call, Calls};
use permit::Slots;

/// A random share from 0 to 1, drawn by the caller, that spreads open intervals of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Jitter(f64);

impl Jitter {
    /// No jitter: the shortest interval.
    pub const NONE: Self = Self(0.0);

    /// A share; what is not a number from 0 to 1 is clamped into it.
    pub fn new(share: f64) -> Self {
        Self(if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) })
    }

    /// The share.
    pub fn as_f64(self) -> f64 {
        self.0
    }
}

/// What a breaker does with a call that asks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum BreakerState {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until then.
    Open {
        /// When it becomes half-open.
        until: Timestamp,
    },
    /// A bounded number of calls pass as probes.
    HalfOpen,
    /// An operator has opened it: calls are refused until an operator closes it.
    ForcedOpen,
    /// An operator has switched it off: calls pass, nothing is counted.
    Disabled,
}

impl BreakerState {
    /// The word used in output and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced-open",
            Self::Disabled => "disabled",
        }
    }
}

/// A call that may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub state: BreakerState,
    /// When to ask again; none while only an operator or a running probe can change the answer.
    pub retry_after: Option<Duration>,
}

/// What the result of a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an opening breaker is news for the audit log"]
pub enum Finished {
    /// It was counted; the state is as before.
    Counted,
    /// It belongs to an older generation, or the breaker is disabled or forced open: it was not counted.
    Ignored,
    /// It opened the breaker.
    Opened {
        /// When it becomes half-open.
        until: Timestamp,
    },
    /// It was the last probe needed: the breaker is closed.
    Closed,
}

#[derive(Debug, Clone)]
enum Phase {
    Closed { calls: Calls },
    Open { until: Timestamp },
    HalfOpen { slots: Slots, results: Rates, last_probe: Timestamp },
    ForcedOpen,
    Disabled,
}

/// A circuit breaker for one agent or one of its dependencies.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    clock: Clock,
    phase: Phase,
    generation: u64,
    /// Openings in a row, for the backoff.
    streak: u32,
    /// When it last closed after having been open, and how long it had been.
    closed_after: Option<(Timestamp, Duration)>,
    /// The jitter last drawn, for a reopening that nobody's result causes.
    jitter: Jitter,
    opened_total: u64,
    ignored_total: u64,
}

impl Breaker {
    /// A closed breaker. Fails on settings under which it could never open or never close.
    pub fn new(settings: BreakerSettings) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self {
            phase: Phase::Closed { calls: Calls::new(&settings.window) },
            settings,
            clock: Clock::default(),
            generation: 0,
            streak: 0,
            closed_after: None,
            jitter: Jitter::NONE,
            opened_total: 0,
            ignored_total: 0,
        })
    }

    /// Its state at `now`. Changes nothing.
    pub fn state(&self, now: Timestamp) -> BreakerState {
        match &self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if self.clock.peek(now) >= *until => BreakerState::HalfOpen,
            Phase::Open { until } => BreakerState::Open { until: *until },
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
            Phase::ForcedOpen => BreakerState::ForcedOpen,
            Phase::Disabled => BreakerState::Disabled,
        }
    }

    /// Asks to make a call. The permit goes to [`Breaker::finish`] with the result; a permit that is dropped gives its
    /// slot back and counts for nothing.
    #[inline]
    pub fn acquire(&mut self, now: Timestamp) -> Result<Permit, Refused> {
        match self.phase {
            Phase::Closed { .. } | Phase::Disabled => Ok(Permit::plain(self.generation)),
            _ => self.acquire_probe(now),
        }
    }

    fn acquire_probe(&mut self, now: Timestamp) -> Result<Permit, Refused> {
        let now = self.clock.observe(now);
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(Refused { state: BreakerState::Open { until }, retry_after: Some(until.since(now)) });
            }
            self.generation += 1;
            self.phase = Phase::HalfOpen { slots: Slots::default(), results: Rates::default(), last_probe: now };
        }
        let Phase::HalfOpen { slots, results, last_probe } = &mut self.phase else {
            return Err(Refused { state: self.state(now), retry_after: None });
        };
        let free =
            self.settings.probes.saturating_sub(slots.taken()) > u32::try_from(results.calls).unwrap_or(u32::MAX);
        if free {
            *last_probe = now;
            return Ok(Permit::probe(self.generation, slots));
        }
        let patience = last_probe.plus(self.settings.probe_timeout);
        if now < patience {
            return Err(Refused { state: BreakerState::HalfOpen, retry_after: Some(patience.since(now)) });
        }
        // All slots are out and the last of them for too long: whoever holds them hangs, which is an answer.
        let until = self.open(now, self.jitter);
        Err(Refused { state: BreakerState::Open { until }, retry_after: Some(until.since(now)) })
    }

    /// Reports how a call went. `took` is judged against the slow-call limit; `jitter` is used if this opens it.
    pub fn finish(
        &mut self,
        permit: Permit,
        outcome: CallOutcome,
        took: Duration,
        now: Timestamp,
        jitter: Jitter,
    ) -> Finished {
        let now = self.clock.observe(now);
        self.jitter = jitter;
        if permit.generation() != self.generation {
            self.ignored_total = self.ignored_total.saturating_add(1);
            return Finished::Ignored;
        }
        let call = Call { outcome, slow: self.settings.is_slow(took) };
        match &mut self.phase {
            Phase::Closed { calls } => {
                calls.add(call, now);
                let rates = calls.rates(now);
                if rates.calls >= u64::from(self.settings.minimum_calls) && self.settings.are_over(rates) {
                    return Finished::Opened { until: self.open(now, jitter) };
                }
                Finished::Counted
            }
            Phase::HalfOpen { results, .. } => {
                results.add(call);
                let results = *results;
                self.judge_probes(results, now, jitter)
            }
            // A disabled breaker counts nothing; the other two have generations that no permit carries.
            Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => Finished::Ignored,
        }
    }

    /// Opens as soon as the probes can't come out well any more, closes when all of them are in.
    fn judge_probes(&mut self, results: Rates, now: Timestamp, jitter: Jitter) -> Finished {
        let probes = u64::from(self.settings.probes);
        let all_else_well = Rates { calls: probes, ..results };
        if self.settings.are_over(all_else_well) {
            return Finished::Opened { until: self.open(now, jitter) };
        }
        if results.calls < probes {
            return Finished::Counted;
        }
        let was_open = self.settings.interval(self.streak, Jitter::NONE);
        self.closed_after = Some((now, was_open));
        self.close();
        Finished::Closed
    }

    /// Opens it at once, whatever was counted: an SLO asks for it. Returns when it will let a probe through; `None`
    /// if an operator has forced it open or disabled it, which stands above this.
    pub fn trip(&mut self, now: Timestamp, jitter: Jitter) -> Option<Timestamp> {
        let now = self.clock.observe(now);
        self.jitter = jitter;
        match self.phase {
            Phase::ForcedOpen | Phase::Disabled => None,
            // What is open already stays open at least as long as it would have.
            Phase::Open { until: before } => {
                let until = self.open(now, jitter).max(before);
                self.phase = Phase::Open { until };
                Some(until)
            }
            _ => Some(self.open(now, jitter)),
        }
    }

    fn open(&mut self, now: Timestamp, jitter: Jitter) -> Timestamp {
        // Closed for less long than it had been open: the recovery was none, and the backoff goes on.
        let relapsed = self.closed_after.is_none_or(|(closed, was_open)| now.since(closed) < was_open);
        self.streak = if relapsed { self.streak.saturating_add(1) } else { 1 };
        self.closed_after = None;
        self.generation += 1;
        self.opened_total = self.opened_total.saturating_add(1);
        let until = now.plus(self.settings.interval(self.streak, jitter));
        self.phase = Phase::Open { until };
        until
    }

    fn close(&mut self) {
        self.generation += 1;
        self.phase = Phase::Closed { calls: Calls::new(&self.settings.window) };
    }

    /// An operator refuses all calls until [`Breaker::reset`].
    pub fn force_open(&mut self) {
        self.generation += 1;
        self.phase = Phase::ForcedOpen;
    }

    /// An operator lets all calls pass uncounted until [`Breaker::reset`].
    pub fn disable(&mut self) {
        self.generation += 1;
        self.phase = Phase::Disabled;
    }

    /// An operator closes it: nothing counted, no backoff.
    pub fn reset(&mut self) {
        self.streak = 0;
        self.closed_after = None;
        self.close();
    }

    /// What the closed breaker's window, or the half-open one's probes, have counted at `now`.
    pub fn rates(&self, now: Timestamp) -> Rates {
        match &self.phase {
            Phase::Closed { calls } => calls.rates(self.clock.peek(now)),
            Phase::HalfOpen { results, .. } => *results,
            Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => Rates::default(),
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &BreakerSettings {
        &self.settings
    }

    /// How often it has opened.
    pub fn opened_total(&self) -> u64 {
        self.opened_total
    }

    /// Results that came too late to count.
    pub fn ignored_total(&self) -> u64 {
        self.ignored_total
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
