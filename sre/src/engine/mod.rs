//! The SLOs of one agent at work: samples in, verdicts out.
//!
//! [`Engine::record`] counts a sample in constant time, [`Engine::evaluate`] reads a fixed number of windows for each
//! SLO and says what has *begun* to hold since it was last asked: one verdict on entering, none on every tick. The
//! caller evaluates on a timer of a few seconds, and at once when [`Recorded::Tripped`] comes back. What is still in
//! force, and so still binds the caller (a demotion that has not been lifted), is [`Engine::in_force`].

mod explain;
mod reading;
mod remedies;
mod snapshot;
mod status;
mod trips;

use serde::Serialize;

pub use explain::{Explanation, Step};
pub use remedies::InForce;
pub use snapshot::{DropReason, Dropped, EngineSnapshot, Restored};
pub use status::{AlertState, BurnReading, Events, SloStatus, Status};
pub use trips::TripCause;

use crate::error::Error;
use crate::remedy::{Action, Trigger};
use crate::sli::{ClassId, Counts, Judged, Rejection, Sample, Severity, Sli, judge};
use crate::slo::{MOST_SLOS, SAFETY_GOOD_PER_MINUTE, Slo, SloName};
use crate::time::{Clock, Timestamp};
use crate::window::Windows;

use reading::Reading;
use remedies::RemedyState;
use trips::TripState;

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a trip asks for `evaluate` at once"]
pub enum Recorded {
    /// At least one SLO counted it.
    Counted,
    /// It was counted and trips a safety SLO: call [`Engine::evaluate`] now, not at the next tick.
    Tripped,
    /// No SLO counted it. The reason is counted.
    Rejected(Rejection),
}

/// Something that an SLO asks for, said once, when its trigger begins to hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[must_use = "a verdict that nobody carries out protects nobody"]
pub struct Verdict {
    /// Which SLO.
    pub slo: SloName,
    /// What it counts.
    pub sli: Sli,
    /// Its state at this moment.
    pub status: Status,
    /// What has begun to hold.
    pub on: Trigger,
    /// What is asked for.
    pub action: Action,
    /// The time it was found, in the engine's own monotonic reckoning.
    pub at: Timestamp,
    /// Why, with the numbers.
    pub reason: String,
}

/// How many samples were refused, by reason, and how often the clock ran backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals {
    by_reason: [u64; Rejection::ALL.len()],
}

impl Refusals {
    /// Samples that an SLO refused for this reason.
    pub fn of(&self, reason: Rejection) -> u64 {
        self.by_reason[reason.index()]
    }

    /// Every reason with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Rejection, u64)> {
        Rejection::ALL.into_iter().zip(self.by_reason)
    }

    fn count(&mut self, reason: Rejection) {
        let counter = &mut self.by_reason[reason.index()];
        *counter = counter.saturating_add(1);
    }
}

/// One SLO with all it has counted.
#[derive(Debug, Clone, PartialEq)]
struct Track {
    slo: Slo,
    windows: Windows<Counts>,
    last_event: Option<Timestamp>,
    caps: Caps,
    trips: Option<TripState>,
    remedies: Vec<RemedyState>,
}

impl Track {
    fn new(slo: Slo) -> Self {
        Self {
            windows: Windows::new(slo.window_lengths()),
            last_event: None,
            caps: Caps::default(),
            trips: slo.trips.map(TripState::new),
            remedies: slo.remedies.iter().map(|remedy| RemedyState::new(*remedy)).collect(),
            slo,
        }
    }

    /// Counts one sample; whether it trips.
    fn record(&mut self, sample: &Sample, now: Timestamp) -> Result<Trip, Rejection> {
        let judged = judge(sample, self.slo.threshold)?;
        let safety = sample.sli == Sli::Safety;
        let own_word = sample.evidence == crate::sli::Evidence::SelfReported;
        let counted = match judged {
            Judged::Good => {
                if safety && !self.caps.admit(sample.class, now) {
                    return Err(Rejection::RateCapped);
                }
                Counts { good: 1, bad: 0, claimed: 0 }
            }
            Judged::Bad => Counts { good: 0, bad: 1, claimed: u64::from(own_word) },
        };
        self.windows.add(now, counted);
        self.last_event = Some(now);
        match (&mut self.trips, judged) {
            (Some(trips), Judged::Bad) => Ok(trips.bad_event(sample.severity, now)),
            _ => Ok(Trip::No),
        }
    }
}

/// Whether a bad event tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trip {
    Yes,
    No,
}

/// Good safety events counted per kind in the current minute.
#[derive(Debug, Clone, PartialEq)]
struct Caps {
    minute: u64,
    counted: [u32; ClassId::COUNT],
}

impl Default for Caps {
    fn default() -> Self {
        Self { minute: 0, counted: [0; ClassId::COUNT] }
    }
}

impl Caps {
    fn admit(&mut self, class: ClassId, now: Timestamp) -> bool {
        let minute = now.as_millis() / 60_000;
        if minute != self.minute {
            *self = Self { minute, ..Self::default() };
        }
        let counted = &mut self.counted[class.index()];
        let admitted = *counted < SAFETY_GOOD_PER_MINUTE;
        *counted += u32::from(admitted);
        admitted
    }
}

/// The SLOs of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Engine {
    clock: Clock,
    tracks: Vec<Track>,
    /// Positions in `tracks` by indicator, so that a sample visits only the SLOs that count it.
    by_sli: [Vec<usize>; Sli::ALL.len()],
    refusals: Refusals,
}

impl Engine {
    /// An engine that has counted nothing yet. Fails if two SLOs share a name or there are more than [`MOST_SLOS`].
    pub fn new(slos: Vec<Slo>) -> Result<Self, Error> {
        if slos.len() > MOST_SLOS {
            return Err(Error::TooManySlos { count: slos.len(), limit: MOST_SLOS });
        }
        let mut by_sli: [Vec<usize>; Sli::ALL.len()] = Default::default();
        for (position, slo) in slos.iter().enumerate() {
            if slos[..position].iter().any(|earlier| earlier.name == slo.name) {
                return Err(Error::DuplicateSlo(slo.name.to_string()));
            }
            by_sli[slo.sli.index()].push(position);
        }
        let tracks = slos.into_iter().map(Track::new).collect();
        Ok(Self { clock: Clock::default(), tracks, by_sli, refusals: Refusals::default() })
    }

    /// Counts a sample in every SLO of its indicator. O(1) for each of them.
    pub fn record(&mut self, sample: &Sample, now: Timestamp) -> Recorded {
        let now = self.clock.observe(now);
        let mut outcome = Recorded::Rejected(Rejection::NoSlo);
        for &position in &self.by_sli[sample.sli.index()] {
            match self.tracks[position].record(sample, now) {
                Ok(Trip::Yes) => outcome = Recorded::Tripped,
                Ok(Trip::No) => {
                    if outcome != Recorded::Tripped {
                        outcome = Recorded::Counted;
                    }
                }
                Err(reason) => {
                    self.refusals.count(reason);
                    if outcome == Recorded::Rejected(Rejection::NoSlo) {
                        outcome = Recorded::Rejected(reason);
                    }
                }
            }
        }
        if outcome == Recorded::Rejected(Rejection::NoSlo) {
            self.refusals.count(Rejection::NoSlo);
        }
        outcome
    }

    /// What has begun to hold since the last call: one verdict for each remedy whose trigger is new, gravest action
    /// first. A trip speaks again for every new trip.
    #[must_use = "a verdict that nobody carries out protects nobody"]
    pub fn evaluate(&mut self, now: Timestamp) -> Vec<Verdict> {
        let now = self.clock.observe(now);
        let mut verdicts = Vec::new();
        for track in &mut self.tracks {
            let reading = Reading::of(track, now);
            for state in &mut track.remedies {
                if state.step(&track.slo, &reading, now) {
                    verdicts.push(Verdict {
                        slo: track.slo.name.clone(),
                        sli: track.slo.sli,
                        status: reading.status,
                        on: state.remedy.on,
                        action: state.remedy.action,
                        at: now,
                        reason: reading.reason(&track.slo, track.trips.as_ref(), state.remedy.on),
                    });
                }
            }
        }
        verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.action));
        verdicts
    }

    /// Remedies that still bind, as of the last [`Engine::evaluate`]: a demotion or throttle lasts as long as it
    /// stands here.
    pub fn in_force(&self) -> Vec<InForce> {
        let of_track =
            |track: &Track| track.remedies.iter().filter_map(|state| state.in_force(&track.slo)).collect::<Vec<_>>();
        self.tracks.iter().flat_map(of_track).collect()
    }

    /// The state of every SLO, in the order they were given. Changes nothing.
    pub fn status(&self, now: Timestamp) -> Vec<SloStatus> {
        let now = self.clock.peek(now);
        self.tracks.iter().map(|track| SloStatus::of(track, now)).collect()
    }

    /// The arithmetic behind one SLO's state, step by step.
    pub fn explain(&self, slo: &str, now: Timestamp) -> Result<Explanation, Error> {
        let track = self.track(slo)?;
        Ok(Explanation::of(track, self.clock.peek(now)))
    }

    /// Lets every remedy in force go and act anew only on *new* bad events, as when an operator revives a killed
    /// agent. Nothing is forgotten: with the budget still spent, the first bad event brings the remedies back.
    pub fn rearm(&mut self) {
        for track in &mut self.tracks {
            let bad = track.windows.total().bad;
            track.remedies.iter_mut().for_each(|state| state.rearm(bad));
        }
    }

    /// Forgets all that one SLO has counted: its budget is whole, its state unknown. An operator's decision.
    pub fn reset(&mut self, slo: &str) -> Result<(), Error> {
        let position = self.position(slo)?;
        self.tracks[position] = Track::new(self.tracks[position].slo.clone());
        Ok(())
    }

    /// The SLOs, in the order they were given.
    pub fn slos(&self) -> impl Iterator<Item = &Slo> {
        self.tracks.iter().map(|track| &track.slo)
    }

    /// Samples refused, by reason.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// How often the caller's clock ran backwards and was held.
    pub fn clock_steps_back(&self) -> u64 {
        self.clock.stepped_back()
    }

    fn position(&self, slo: &str) -> Result<usize, Error> {
        let found = self.tracks.iter().position(|track| track.slo.name.as_str() == slo);
        found.ok_or_else(|| Error::UnknownSlo(slo.to_owned()))
    }

    fn track(&self, slo: &str) -> Result<&Track, Error> {
        self.position(slo).map(|position| &self.tracks[position])
    }
}

/// Whether a severity counts towards a trip at all.
fn is_trip_severity(severity: Severity) -> bool {
    severity >= Severity::High
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
