//! What an engine keeps over a restart.
//!
//! A restart must not wash a budget clean, nor must an edited agent.yaml: an SLO that keeps its name and indicator
//! keeps its history, whatever happens to its objective, threshold or period. Only the buckets that counted something
//! are kept, so a quiet SLO is a few hundred bytes. A snapshot may have been damaged on disk: what no run can have
//! written is refused as a whole, never loaded in part.

use serde::{Deserialize, Serialize};

use super::remedies::Memory;
use super::trips::{LastTrip, TripState};
use super::{Engine, Track};
use crate::burn::LookBack;
use crate::error::Error;
use crate::remedy::Trigger;
use crate::sli::{Counts, Rejection, Sli};
use crate::slo::{MOST_SLOS, Slo, SloName};
use crate::time::{Clock, Timestamp};
use crate::window::{Bucket, buckets_are_sound};

/// The version that this build writes and reads.
const VERSION: u32 = 1;
const WHAT: &str = "SLO";
/// Windows of a track: the period and every look-back.
const WINDOWS: usize = 1 + LookBack::ALL.len();

/// An engine's memory, to be stored and given to [`Engine::restore`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSnapshot {
    version: u32,
    clock: Clock,
    refusals: Vec<(Rejection, u64)>,
    slos: Vec<TrackSnapshot>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrackSnapshot {
    name: SloName,
    sli: Sli,
    period_ms: u64,
    total: Counts,
    last_event: Option<Timestamp>,
    /// Per window, the period first, then the look-backs by length.
    windows: Vec<Vec<Bucket<Counts>>>,
    high: Vec<Timestamp>,
    last_trip: Option<LastTrip>,
    trip_count: u64,
    remedies: Vec<RemedySnapshot>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemedySnapshot {
    /// Trigger and action in words: a remedy that the file no longer has lets go.
    remedy: String,
    memory: Memory,
}

/// Why an SLO's history was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// No SLO has this name any more.
    Gone,
    /// The SLO of this name counts something else now.
    OtherSli,
}

/// An SLO whose history was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Its name in the snapshot.
    pub slo: SloName,
    /// Why.
    pub reason: DropReason,
}

/// A restored engine, and what of the snapshot it could not use.
#[derive(Debug, Clone)]
#[must_use]
pub struct Restored {
    /// The engine.
    pub engine: Engine,
    /// Histories that no SLO took. Worth a line in the log: a renamed SLO starts with a whole budget.
    pub dropped: Vec<Dropped>,
}

impl Engine {
    /// All that must outlive a restart.
    pub fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot {
            version: VERSION,
            clock: self.clock,
            refusals: self.refusals.iter().filter(|(_, count)| *count > 0).collect(),
            slos: self.tracks.iter().map(TrackSnapshot::of).collect(),
        }
    }

    /// An engine for `slos` that goes on where the snapshot ended. A clock that has been set back since is absorbed:
    /// nothing gets younger or older by it. Fails on a snapshot of another version and on one that no run can have
    /// written.
    pub fn restore(slos: Vec<Slo>, snapshot: &EngineSnapshot, now: Timestamp) -> Result<Restored, Error> {
        if snapshot.version != VERSION {
            return Err(Error::SnapshotVersion { what: WHAT, found: snapshot.version, supported: VERSION });
        }
        if snapshot.slos.len() > MOST_SLOS {
            return Err(damaged("more SLOs than an agent can have"));
        }
        let mut engine = Self::new(slos)?;
        engine.clock = snapshot.clock;
        for (reason, count) in &snapshot.refusals {
            engine.refusals.by_reason[reason.index()] = *count;
        }
        let mut dropped = Vec::new();
        for (index, saved) in snapshot.slos.iter().enumerate() {
            if snapshot.slos[..index].iter().any(|earlier| earlier.name == saved.name) {
                return Err(damaged("two SLOs of one name"));
            }
            saved.check(snapshot.clock.last())?;
            let track = engine.tracks.iter_mut().find(|track| track.slo.name == saved.name);
            match track {
                None => dropped.push(Dropped { slo: saved.name.clone(), reason: DropReason::Gone }),
                Some(track) if track.slo.sli != saved.sli => {
                    dropped.push(Dropped { slo: saved.name.clone(), reason: DropReason::OtherSli });
                }
                Some(track) => saved.load_into(track),
            }
        }
        engine.clock.observe(now);
        Ok(Restored { engine, dropped })
    }
}

fn damaged(problem: &'static str) -> Error {
    Error::SnapshotDamaged { what: WHAT, problem }
}

fn words(on: Trigger, action: crate::remedy::Action) -> String {
    format!("{on}: {action}")
}

impl TrackSnapshot {
    fn of(track: &Track) -> Self {
        let trips = track.trips.as_ref();
        Self {
            name: track.slo.name.clone(),
            sli: track.slo.sli,
            period_ms: crate::time::millis(track.slo.period),
            total: track.windows.total(),
            last_event: track.last_event,
            windows: (0..WINDOWS).map(|index| track.windows.buckets(index)).collect(),
            high: trips.map_or_else(Vec::new, |trips| trips.high.iter().copied().collect()),
            last_trip: trips.and_then(|trips| trips.last),
            trip_count: trips.map_or(0, |trips| trips.count),
            remedies: track
                .remedies
                .iter()
                .map(|state| RemedySnapshot {
                    remedy: words(state.remedy.on, state.remedy.action),
                    memory: state.memory,
                })
                .collect(),
        }
    }

    /// Refuses what no run can have written.
    fn check(&self, last: Timestamp) -> Result<(), Error> {
        if self.windows.len() != WINDOWS {
            return Err(damaged("an SLO lacks windows"));
        }
        if !self.windows.iter().all(|buckets| buckets_are_sound(buckets, self.total, last)) {
            return Err(damaged("buckets that are out of order, from the future, or more than the total"));
        }
        let times = self.high.iter().chain(&self.last_event).chain(self.last_trip.as_ref().map(|trip| &trip.at));
        let remembered = self.remedies.iter().flat_map(|saved| [saved.memory.since, saved.memory.quiet_since]);
        if times.copied().chain(remembered.flatten()).any(|time| time > last) || !self.high.is_sorted() {
            return Err(damaged("times that are out of order or from the future"));
        }
        Ok(())
    }

    fn load_into(&self, track: &mut Track) {
        let period_ms = crate::time::millis(track.slo.period);
        // After a change of period no window has the length it had. Each then takes the shortest old window that
        // covers it, so that the budget keeps all that the old period still remembers.
        let old = std::time::Duration::from_millis(self.period_ms);
        let lengths = |period, scaled: LookBack| crate::time::millis(scaled.scaled(period));
        let source = |index: usize| -> &[Bucket<Counts>] {
            if self.period_ms == period_ms || index == 0 {
                return &self.windows[index];
            }
            let needed = lengths(track.slo.period, LookBack::ALL[index - 1]);
            let covering = LookBack::ALL.into_iter().find(|old_look| lengths(old, *old_look) >= needed);
            &self.windows[covering.map_or(0, |look_back| 1 + look_back.index())]
        };
        track.windows.load(self.total, source);
        track.last_event = self.last_event;
        if let Some(trips) = &mut track.trips {
            *trips = TripState {
                rule: trips.rule,
                high: self.high.iter().copied().collect(),
                last: self.last_trip,
                count: self.trip_count,
            };
        }
        for state in &mut track.remedies {
            let wanted = words(state.remedy.on, state.remedy.action);
            match self.remedies.iter().find(|saved| saved.remedy == wanted) {
                Some(saved) => state.memory = saved.memory,
                // A remedy added since must not answer for trips of the past.
                None => state.memory.trips_seen = self.trip_count,
            }
        }
    }
}
