//! From what the supervisor knows of an agent to what an experiment can read. What isn't known stays unknown.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use agt_chaos::kernel;
use agt_chaos::target::{Environment, Observation, OptIn, Process};
use agt_rings::cgroup::Group;
use agt_sre::breaker::BreakerState;
use agt_sre::engine::{AlertState, SloStatus};
use agt_sre::sli::Sli;

use super::memory::MemoryGroup;
use super::places::{self, Quota};
use crate::config::spec;
use crate::driver::scene::SceneGoverned;
use crate::machine::lifecycle::State;

/// Looks that are kept; an experiment of two hours at the fastest pace stays below.
const LOOKS_MAX: usize = 8192;

/// One look at the agent, for SLIs over a few seconds.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) up: bool,
    /// Good and bad events ever counted, by indicator.
    pub(super) totals: BTreeMap<&'static str, (u64, u64)>,
}

/// The looks of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Looks(VecDeque<Look>);

impl Looks {
    /// Notes a look and gives the SLIs over `look_back`: those that `named` knows, and availability.
    pub(super) fn slis(
        &mut self,
        look: Look,
        look_back: Duration,
        named: impl IntoIterator<Item = Sli>,
    ) -> BTreeMap<String, Option<f64>> {
        let looks = &mut self.0;
        let now = look.at;
        looks.push_back(look);
        while looks.len() > LOOKS_MAX || looks.front().is_some_and(|first| now.duration_since(first.at) > look_back) {
            looks.pop_front();
        }
        let mut slis: BTreeMap<String, Option<f64>> =
            named.into_iter().map(|sli| (sli.as_str().to_owned(), None)).collect();
        let (Some(first), Some(last)) = (looks.front(), looks.back()) else { return slis };
        for (sli, (good, bad)) in &last.totals {
            let before = first.totals.get(sli).copied().unwrap_or_default();
            let (good, bad) = (good.saturating_sub(before.0), bad.saturating_sub(before.1));
            slis.insert((*sli).to_owned(), ratio(good, good + bad));
        }
        // The supervisor's own look counts for this one: a frozen agent has a process, and is not up.
        let up = looks.iter().filter(|look| look.up).count() as u64;
        slis.insert(Sli::Availability.as_str().to_owned(), ratio(up, looks.len() as u64));
        slis
    }
}

fn ratio(good: u64, valid: u64) -> Option<f64> {
    (valid > 0).then(|| good as f64 / valid as f64)
}

pub(super) fn process_of(state: &State, killed: bool) -> Process {
    match state {
        State::Running { .. } => Process::Alive,
        State::Starting | State::Backoff { .. } => Process::Restarting,
        _ if killed => Process::Killed,
        State::Idle | State::Stopping { .. } | State::Killing { .. } | State::Ended { .. } => Process::Dead,
    }
}

pub(super) fn opt_in(chaos: &spec::ChaosSpec) -> OptIn {
    if !chaos.opt_in {
        return OptIn::No;
    }
    if chaos.faults.is_empty() {
        return OptIn::Any;
    }
    let known = agt_chaos::fault::FaultKind::ALL.into_iter();
    OptIn::Only(known.filter(|kind| chaos.faults.iter().any(|name| name == kind.name())).collect())
}

pub(super) fn environment(environment: spec::Environment) -> Environment {
    match environment {
        spec::Environment::Production => Environment::Production,
        spec::Environment::Staging => Environment::Staging,
        spec::Environment::Dev => Environment::Dev,
    }
}

pub(super) fn incident(governed: &SceneGoverned) -> bool {
    governed.quarantined
        || !matches!(governed.breaker, BreakerState::Closed | BreakerState::Disabled)
        || governed.slos.iter().any(|slo| slo.page == AlertState::Firing)
}

/// What is left of a budget. One of which no event has been counted is whole: that is known, not guessed.
pub(super) fn budget_left(slo: &SloStatus) -> Option<f64> {
    if is_uncounted(slo) { Some(1.0) } else { slo.budget_left() }
}

/// Whether no event has been counted in its window.
pub(super) fn is_uncounted(slo: &SloStatus) -> bool {
    slo.events.good == 0 && slo.events.bad == 0
}

pub(super) fn totals(slos: &[SloStatus]) -> BTreeMap<&'static str, (u64, u64)> {
    let mut totals = BTreeMap::new();
    for slo in slos {
        // Two SLOs of one indicator have their own thresholds: the stricter view, which has more bad events, counts.
        let entry = totals.entry(slo.sli.as_str()).or_insert((0, 0));
        if slo.events_total.bad >= entry.1 {
            *entry = (slo.events_total.good, slo.events_total.bad);
        }
    }
    totals
}

/// What the kernel says of the group; what it doesn't say stays unknown.
pub(super) fn look_at(group: &Group, oom_kills_before: u64, now: &mut Observation) {
    now.frozen = group.is_frozen().ok();
    if let Ok(usage) = group.usage() {
        now.cpu_throttled = usage.cpu_throttled_periods;
        now.memory_usage = usage.memory_bytes;
        now.oom_kills = usage.oom_kills.map(|kills| kills.saturating_add(oom_kills_before));
    }
    now.cpu_quota = Quota::of(group.tree()).and_then(|quota| quota.limit().ok().flatten());
    now.memory_limit = MemoryGroup::of(group.tree()).and_then(|memory| memory.limit().ok().flatten());
    let room = places::procs(group.tree()).and_then(|procs| kernel::file_room(&procs).ok().flatten());
    now.fd_soft_limit = room.map(|room| room.soft);
    now.fd_room = room.map(|room| room.room);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use agt_chaos::fault::FaultKind;
    use agt_sre::engine::Engine;
    use agt_sre::sli::{Evidence, Outcome, Sample};
    use agt_sre::time::Timestamp;

    use super::*;
    use crate::machine::lifecycle::{Death, GaveUp};

    fn look(at: Instant, up: bool, totals: &[(&'static str, (u64, u64))]) -> Look {
        Look { at, up, totals: totals.iter().copied().collect() }
    }

    #[test]
    fn availability_is_the_share_of_looks_that_found_it_up_within_the_look_back() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        let second = |n: u64| start + Duration::from_secs(n);
        let back = Duration::from_secs(3);
        assert_eq!(looks.slis(look(second(0), true, &[]), back, [])["availability"], Some(1.0));
        for n in 1..=3 {
            looks.slis(look(second(n), false, &[]), back, []);
        }
        assert_eq!(looks.slis(look(second(3), false, &[]), back, [])["availability"], Some(0.2));
        assert_eq!(
            looks.slis(look(second(4), false, &[]), back, [])["availability"],
            Some(0.0),
            "the first is too old"
        );
    }

    #[test]
    fn an_indicator_without_events_in_the_look_back_has_no_data() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        let back = Duration::from_secs(3);
        let correctness = [("correctness", (5, 5))];
        let first = looks.slis(look(now, true, &correctness), back, [Sli::Correctness, Sli::Cost]);
        assert_eq!((first["correctness"], first["cost"]), (None, None), "what was counted before says nothing of now");
        let later = looks.slis(look(now, true, &[("correctness", (8, 6))]), back, [Sli::Correctness]);
        assert_eq!(later["correctness"], Some(0.75));
    }

    #[test]
    fn only_a_running_agent_is_alive_and_a_killed_one_is_left_alone() {
        let ended = State::Ended { death: Death::Exit { code: 0 }, gave_up: GaveUp::No };
        let backoff = State::Backoff { death: Death::MemoryLimit, attempt: 1 };
        assert_eq!(process_of(&State::Running { since: 0, unhealthy: 2 }, false), Process::Alive);
        assert_eq!(process_of(&backoff, false), Process::Restarting);
        assert_eq!(process_of(&State::Starting, false), Process::Restarting);
        assert_eq!(process_of(&ended, false), Process::Dead);
        assert_eq!(process_of(&ended, true), Process::Killed);
    }

    #[test]
    fn leave_without_a_list_is_leave_for_all_and_unknown_names_give_none() {
        let chaos = |opt_in: bool, faults: &[&str]| {
            let faults: Vec<String> = faults.iter().map(|name| (*name).to_owned()).collect();
            serde_json::from_value(serde_json::json!({"opt_in": opt_in, "faults": faults})).unwrap()
        };
        assert_eq!(opt_in(&chaos(false, &["process-hang"])), OptIn::No);
        assert_eq!(opt_in(&chaos(true, &[])), OptIn::Any);
        let only = OptIn::Only(BTreeSet::from([FaultKind::ProcessHang]));
        assert_eq!(opt_in(&chaos(true, &["process-hang", "no-such-fault"])), only);
    }

    fn governed() -> (Engine, Timestamp) {
        let specs: Vec<agt_sre::spec::SloSpec> = serde_json::from_value(serde_json::json!([
            {"name": "up", "sli": "availability", "objective": 0.5, "period": "1h", "minimum_events": 1}
        ]))
        .unwrap();
        (Engine::new(agt_sre::spec::resolve(&specs).unwrap()).unwrap(), Timestamp::from_millis(1_700_000_000_000))
    }

    fn scene(slos: Vec<SloStatus>) -> SceneGoverned {
        SceneGoverned {
            trust: 700,
            trust_lowered: false,
            ring: None,
            violations: 0,
            slos,
            breaker: BreakerState::Closed,
            quarantined: false,
            killed: false,
        }
    }

    #[test]
    fn an_untouched_budget_is_whole_and_a_spent_one_is_none() {
        let (mut engine, now) = governed();
        assert_eq!(budget_left(&engine.status(now)[0]), Some(1.0));
        for _ in 0..4 {
            let _ = engine.record(&Sample::new(Sli::Availability, Outcome::Bad, Evidence::Supervisor), now);
        }
        assert!(budget_left(&engine.status(now)[0]).unwrap() <= 0.0);
        assert_eq!(totals(&engine.status(now))["availability"], (0, 4));
    }

    #[test]
    fn an_open_breaker_a_quarantine_and_a_page_are_incidents() {
        let (mut engine, now) = governed();
        assert!(!incident(&scene(engine.status(now))));
        assert!(incident(&SceneGoverned { quarantined: true, ..scene(Vec::new()) }));
        let open = BreakerState::Open { until: now };
        assert!(incident(&SceneGoverned { breaker: open, ..scene(Vec::new()) }));
        assert!(!incident(&SceneGoverned { breaker: BreakerState::Disabled, ..scene(Vec::new()) }));
        for _ in 0..100 {
            let _ = engine.record(&Sample::new(Sli::Availability, Outcome::Bad, Evidence::Supervisor), now);
        }
        let _ = engine.evaluate(now);
        let paged = engine.status(now);
        assert_eq!(incident(&scene(paged.clone())), paged[0].page == AlertState::Firing);
    }
}
