//! One agent under the governor: its SLO engine, trust, breaker, marks. Pure: time comes in, verdicts and states go out.

use std::collections::BTreeMap;

use agt_rings::Ring;
use agt_sre::breaker::{Breaker, BreakerSettings, BreakerState, CallWindow, Jitter, Permit, Refused};
use agt_sre::burn::LookBack;
use agt_sre::engine::{Engine, SloStatus, Verdict};
use agt_sre::remedy;
use agt_sre::sli::Sli;
use agt_sre::slo::Slo;
use agt_sre::spec::{Share, SloSpec, default_safety};
use agt_sre::time::Timestamp;
use agt_sre::trust::{Changed, Score, Trust, TrustPolicy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

use super::attestation::{Attestation, Subject};
use super::stored::{self, Demoted, Killed, PartError, Parts, StoredSlo};
use crate::config::plan::Identity;

/// How often an agent's runs are judged: the defaults of the breaker over ten minutes, with one probe, because a probe is a
/// whole run.
fn breaker_settings() -> BreakerSettings {
    BreakerSettings { window: CallWindow::Time(Duration::from_secs(600)), probes: 1, ..BreakerSettings::default() }
}

/// What `ps` shows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GovernedStatus {
    /// The trust score.
    pub trust: u16,
    /// The range it lies in.
    pub tier: String,
    /// The SLO with the least budget left, as a share; `None` = no data.
    pub least_budget: Option<LeastBudget>,
    /// The fastest burn over one hour (scaled with the period); `None` = no data.
    pub burn_1h: Option<f64>,
    /// `closed`, `open`, `half-open`, ...
    pub breaker: String,
    /// Seconds until an open breaker lets a probe through.
    pub breaker_open_s: Option<u64>,
    /// The ring from which an SLO has demoted it.
    pub demoted_from: Option<Ring>,
}

/// The SLO with the least budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeastBudget {
    /// Its name.
    pub slo: String,
    /// What is left, 0..=1.
    pub left_ratio: f64,
}

/// What the present life has shown so far; not kept over a restart.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) permit: Option<Permit>,
    pub(super) tasks: BTreeMap<String, Timestamp>,
    pub(super) ended: u32,
    pub(super) minute: Timestamp,
}

/// One agent.
#[derive(Debug)]
pub struct Governed {
    /// Whose all this is.
    pub identity: Identity,
    specs: Vec<SloSpec>,
    pub(super) engine: Engine,
    pub(super) trust: Trust,
    pub(super) breaker: Breaker,
    /// A demotion in force.
    pub demoted: Option<Demoted>,
    /// The mark of the kill switch.
    pub killed: Option<Killed>,
    /// The last attestation.
    pub attestation: Option<Attestation>,
    /// What was to be started last.
    pub subject: Option<Subject>,
    /// When it was quarantined.
    pub quarantined: Option<Timestamp>,
    /// Whose doing a death at the memory limit is.
    pub memory: Memory,
    pub(super) life: Life,
    /// Whether there is news for the store.
    pub news: News,
}

/// Who fills the memory of an agent up to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The agent.
    Own,
    /// An experiment: that death says nothing about the agent.
    Pressed,
}

/// Whether something is not stored yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// All is stored.
    None,
    /// Something changed.
    Some,
}

/// The SLOs of an agent: those of its file, and the default for safety if it names none.
///
/// # Errors
/// What doesn't pass the checks of the SLO engine.
pub fn slos(agent: &str, specs: &[SloSpec]) -> Result<Vec<Slo>, PartError> {
    let mut slos = agt_sre::spec::resolve(specs).map_err(|errors| PartError::Slos {
        agent: agent.to_owned(),
        problem: errors.first().map_or_else(String::new, ToString::to_string),
    })?;
    if slos.iter().any(|slo| slo.sli() == Sli::Safety) || slos.len() >= agt_sre::slo::MOST_SLOS {
        return Ok(slos);
    }
    let taken = slos.iter().any(|slo| slo.name().as_str() == "safety");
    let default = if taken { renamed_safety() } else { default_safety() };
    slos.push(default);
    Ok(slos)
}

/// The default for an agent that calls another SLO `safety`.
fn renamed_safety() -> Slo {
    let spec = SloSpec {
        name: "default-safety".to_owned(),
        sli: Sli::Safety,
        objective: Share(0.99),
        period: None,
        threshold: None,
        minimum_events: None,
        remedies: None,
        trips: None,
    };
    agt_sre::spec::resolve_one(&spec).expect("the default with another name is as sound as the default")
}

impl Governed {
    /// An identity seen for the first time.
    ///
    /// # Errors
    /// SLOs that don't pass.
    pub fn first(identity: Identity, specs: Vec<SloSpec>, score: Score, now: Timestamp) -> Result<Governed, PartError> {
        let name = identity.name.clone();
        let unusable = |kind| {
            let agent = name.clone();
            move |source| PartError::Unusable { agent, kind, source }
        };
        let engine = Engine::new(slos(&name, &specs)?).map_err(unusable(stored::SLO))?;
        let trust = Trust::new(score, TrustPolicy::default(), now).map_err(unusable(stored::TRUST))?;
        let breaker = Breaker::new(breaker_settings()).map_err(unusable(stored::BREAKER))?;
        Ok(Governed {
            identity,
            specs,
            engine,
            trust,
            breaker,
            demoted: None,
            killed: None,
            attestation: None,
            subject: None,
            quarantined: None,
            memory: Memory::Own,
            life: Life { permit: None, tasks: BTreeMap::new(), ended: 0, minute: now },
            news: News::Some,
        })
    }

    /// What the store has; `None` for a name it doesn't know.
    ///
    /// # Errors
    /// A part that can't be used: nothing is loaded in part.
    pub fn load(name: &str, parts: &Parts, now: Timestamp) -> Result<Option<Governed>, PartError> {
        let Some(identity) = parts.read::<Identity>(name, stored::IDENTITY)? else { return Ok(None) };
        let slo: Option<StoredSlo> = parts.read(name, stored::SLO)?;
        let specs = slo.as_ref().map_or_else(Vec::new, |slo| slo.specs.clone());
        let mut governed = Governed::first(identity, specs.clone(), Score::UNKNOWN, now)?;
        let unusable = |kind| move |source| PartError::Unusable { agent: name.to_owned(), kind, source };
        if let Some(slo) = slo {
            let restored = Engine::restore(slos(name, &specs)?, &slo.snapshot, now).map_err(unusable(stored::SLO))?;
            governed.engine = restored.engine;
            governed.demoted = slo.demoted;
        }
        if let Some(snapshot) = parts.trust(name)? {
            governed.trust = Trust::restore(TrustPolicy::default(), &snapshot, now).map_err(unusable(stored::TRUST))?;
        }
        if let Some(snapshot) = parts.breaker(name)? {
            governed.breaker =
                Breaker::restore(breaker_settings(), &snapshot, now).map_err(unusable(stored::BREAKER))?;
        }
        governed.killed = parts.read(name, stored::KILLED)?;
        governed.attestation = parts.read(name, stored::ATTESTATION)?;
        governed.subject = parts.read(name, stored::SUBJECT)?;
        governed.news = News::None;
        Ok(Some(governed))
    }

    /// Takes over the SLOs of a (perhaps edited) file. What SLOs of the same name and indicator have counted stays. Returns the
    /// names whose history found no place.
    ///
    /// # Errors
    /// SLOs that don't pass.
    pub fn adopt(&mut self, specs: &[SloSpec], subject: Subject, now: Timestamp) -> Result<Vec<String>, PartError> {
        self.life = Life { permit: None, tasks: BTreeMap::new(), ended: 0, minute: now };
        self.take_specs(specs, subject, now)
    }

    /// The same for one whose process runs on: what its life has shown so far still counts.
    ///
    /// # Errors
    /// As [`Governed::adopt`].
    pub fn take_specs(
        &mut self,
        specs: &[SloSpec],
        subject: Subject,
        now: Timestamp,
    ) -> Result<Vec<String>, PartError> {
        self.subject = Some(subject);
        self.news = News::Some;
        if self.specs == specs {
            return Ok(Vec::new());
        }
        let name = self.identity.name.clone();
        let restored = Engine::restore(slos(&name, specs)?, &self.engine.snapshot(), now)
            .map_err(|source| PartError::Unusable { agent: name, kind: stored::SLO, source })?;
        self.engine = restored.engine;
        self.specs = specs.to_vec();
        Ok(restored.dropped.iter().map(|dropped| dropped.slo.to_string()).collect())
    }

    /// Every part as the store keeps it; `None` = to be removed.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, Option<Value>); 7] {
        fn value<T: Serialize>(part: &T) -> Value {
            serde_json::to_value(part).expect("plain data")
        }
        let slo =
            StoredSlo { specs: self.specs.clone(), snapshot: self.engine.snapshot(), demoted: self.demoted.clone() };
        [
            (stored::IDENTITY, Some(value(&self.identity))),
            (stored::SLO, Some(value(&slo))),
            (stored::TRUST, Some(value(&self.trust.snapshot()))),
            (stored::BREAKER, Some(value(&self.breaker.snapshot()))),
            (stored::KILLED, self.killed.as_ref().map(value)),
            (stored::ATTESTATION, self.attestation.as_ref().map(value)),
            (stored::SUBJECT, self.subject.as_ref().map(value)),
        ]
    }

    /// The trust.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The SLOs.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// An operator sets the score.
    pub fn set_trust(&mut self, score: Score, now: Timestamp) -> Changed {
        self.news = News::Some;
        self.trust.set(score, now)
    }

    /// An experiment lets a lower score count: not news, because it is never stored.
    pub fn lower_trust(&mut self, to: Score, now: Timestamp) -> Changed {
        self.trust.lower(to, now)
    }

    /// The agent's own score counts again.
    pub fn give_trust_back(&mut self, now: Timestamp) -> Changed {
        self.trust.give_back(now)
    }

    /// Takes a decision back that could not be recorded.
    pub fn put_trust(&mut self, trust: Trust) {
        self.trust = trust;
    }

    /// An operator revives it: the mark goes, remedies wait for new bad events, the breaker is closed.
    pub fn revive(&mut self) -> Option<Killed> {
        self.news = News::Some;
        self.engine.rearm();
        self.breaker.reset();
        self.demoted = None;
        self.quarantined = None;
        self.killed.take()
    }

    /// Puts the kill switch's mark.
    pub fn mark_killed(&mut self, reason: &str, at_ms: i64) {
        self.news = News::Some;
        self.killed = Some(Killed { reason: reason.to_owned(), at_ms });
    }

    /// Asks the breaker for a launch; the permit is kept until the death.
    ///
    /// # Errors
    /// It is open.
    pub fn admit(&mut self, now: Timestamp) -> Result<(), Refused> {
        self.life.permit = None;
        self.life.permit = Some(self.breaker.acquire(now)?);
        Ok(())
    }

    /// The breaker, without asking for anything.
    #[must_use]
    pub fn breaker_state(&self, now: Timestamp) -> BreakerState {
        self.breaker.state(now)
    }

    /// Opens the breaker; `None` if an operator's word stands above.
    pub fn trip(&mut self, now: Timestamp, jitter: Jitter) -> Option<Timestamp> {
        self.news = News::Some;
        self.breaker.trip(now, jitter)
    }

    /// Notes a demotion from `from`; `None` when there is no lower ring.
    pub fn demote(&mut self, from: Ring, slo: &str, at_ms: i64) -> Option<Ring> {
        let to = super::ring::below(from)?;
        self.news = News::Some;
        self.demoted = Some(Demoted { to, from, slo: slo.to_owned(), at_ms });
        Some(to)
    }

    /// Lets a demotion go whose remedy is no longer in force.
    pub fn settle(&mut self, now: Timestamp) -> Vec<Verdict> {
        let verdicts = self.engine.evaluate(now);
        let demotes = |held: &agt_sre::engine::InForce| held.action == remedy::Action::Demote;
        let bound = self.engine.in_force().iter().any(demotes);
        if self.demoted.is_some() && !bound {
            self.demoted = None;
            self.news = News::Some;
        }
        if !verdicts.is_empty() {
            self.news = News::Some;
        }
        verdicts
    }

    /// The state of every SLO.
    #[must_use]
    pub fn slo_status(&self, now: Timestamp) -> Vec<SloStatus> {
        self.engine.status(now)
    }

    /// For `ps`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> GovernedStatus {
        let score = self.trust.score(now);
        let slos = self.engine.status(now);
        let least = slos
            .iter()
            .filter_map(|slo| Some((slo.slo.as_str(), slo.budget_left()?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(slo, left_ratio)| LeastBudget { slo: slo.to_owned(), left_ratio });
        let burn_1h = slos.iter().filter_map(|slo| slo.burn_over(LookBack::H1)).max_by(f64::total_cmp);
        let state = self.breaker.state(now);
        let breaker_open_s = match state {
            BreakerState::Open { until } => Some(until.since(now).as_secs().max(1)),
            _ => None,
        };
        GovernedStatus {
            trust: score.get(),
            tier: score.tier().as_str().to_owned(),
            least_budget: least,
            burn_1h,
            breaker: state.as_str().to_owned(),
            breaker_open_s,
            demoted_from: self.demoted.as_ref().map(|demoted| demoted.from),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use agt_sre::remedy::Action;
    use agt_sre::sli::{Outcome, Severity};
    use proptest::prelude::*;

    use super::super::evidence::ExitCounts;
    use super::super::report::{self, Report};
    use super::*;
    use crate::machine::lifecycle::Death;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn specs() -> Vec<SloSpec> {
        let text = r#"[
            {"name": "answers", "sli": "correctness", "objective": 0.9, "period": "1h", "minimum_events": 3,
             "remedies": [{"on": "exhausted", "action": "demote"}]},
            {"name": "cheap", "sli": "cost", "objective": 0.5, "threshold": 0.1, "minimum_events": 1},
            {"name": "busy", "sli": "throughput", "objective": 0.5, "threshold": 2, "minimum_events": 1},
            {"name": "up", "sli": "availability", "objective": 0.5, "minimum_events": 1}
        ]"#;
        serde_json::from_str(text).unwrap()
    }

    fn governed() -> Governed {
        let identity = Identity { name: "a".to_owned(), uid: 7, source: PathBuf::from("/a.yaml") };
        Governed::first(identity, specs(), Score::VOUCHED, at(0)).unwrap()
    }

    fn end(outcome: report::Outcome, cost_usd: Option<f64>) -> Report {
        Report::End { id: "t".to_owned(), outcome, about: Sli::Correctness, cost_usd, latency_s: None }
    }

    fn counts(governed: &Governed, slo: &str, now: Timestamp) -> (u64, u64) {
        let status = governed.slo_status(now).into_iter().find(|status| status.slo.as_str() == slo).unwrap();
        (status.events.good, status.events.bad)
    }

    #[test]
    fn an_agent_without_a_safety_slo_gets_one_whatever_its_others_are_called() {
        assert!(governed().engine().slos().any(|slo| slo.sli() == Sli::Safety && slo.name().as_str() == "safety"));
        let mut named = specs();
        named[0].name = "safety".to_owned();
        let slos = slos("a", &named).unwrap();
        assert!(slos.iter().any(|slo| slo.sli() == Sli::Safety && slo.name().as_str() == "default-safety"));
    }

    #[test]
    fn cost_counts_when_it_is_too_high_and_never_when_it_is_low() {
        let mut governed = governed();
        let _ = governed.hear(end(report::Outcome::Ok, Some(0.05)), at(1));
        assert_eq!(counts(&governed, "cheap", at(1)), (0, 0));
        let _ = governed.hear(end(report::Outcome::Ok, Some(0.5)), at(2));
        assert_eq!(counts(&governed, "cheap", at(2)), (0, 1));
    }

    #[test]
    fn throughput_with_a_pace_is_judged_by_the_minute() {
        let mut governed = governed();
        for _ in 0..3 {
            let _ = governed.hear(end(report::Outcome::Ok, None), at(10));
        }
        governed.observe_up(Outcome::Good, at(59));
        assert_eq!(counts(&governed, "busy", at(59)), (0, 0));
        governed.observe_up(Outcome::Good, at(60));
        assert_eq!(counts(&governed, "busy", at(60)), (1, 0));
        governed.observe_up(Outcome::Good, at(120));
        assert_eq!(counts(&governed, "busy", at(120)), (1, 1));
    }

    #[test]
    fn failures_open_the_breaker_but_answers_do_not() {
        let crash = |counts| {
            let mut governed = governed();
            (0..10)
                .find_map(|n| {
                    governed.admit(at(n)).unwrap();
                    governed.died(&Death::Exit { code: 1 }, counts, at(n), Jitter::NONE)
                })
                .is_some()
        };
        assert!(crash(ExitCounts::AsFailure));
        assert!(!crash(ExitCounts::AsAnswer));
    }

    #[test]
    fn limits_that_it_ran_into_cost_trust_and_a_clean_exit_earns_none() {
        let mut governed = governed();
        let _ = governed.died(&Death::Exit { code: 0 }, ExitCounts::AsAnswer, at(1), Jitter::NONE);
        assert_eq!(governed.trust().score(at(1)), Score::VOUCHED);
        let _ = governed.died(&Death::MemoryLimit, ExitCounts::AsAnswer, at(1), Jitter::NONE);
        assert_eq!(governed.trust().score(at(1)).get(), 690);
    }

    #[test]
    fn a_memory_limit_that_an_experiment_has_filled_costs_no_trust_once() {
        let mut governed = governed();
        governed.memory = Memory::Pressed;
        let _ = governed.died(&Death::MemoryLimit, ExitCounts::AsAnswer, at(1), Jitter::NONE);
        assert_eq!((governed.trust().score(at(1)), governed.trust().violations()), (Score::VOUCHED, 0));
        assert_eq!(counts(&governed, "up", at(1)), (0, 1), "it was down all the same");
        let _ = governed.died(&Death::MemoryLimit, ExitCounts::AsAnswer, at(2), Jitter::NONE);
        assert_eq!(governed.trust().violations(), 1, "the next death is its own");
    }

    #[test]
    fn an_attempt_to_escape_trips_at_once_and_three_grave_ones_in_an_hour_do() {
        let class = agt_sre::sli::ClassId::new(1).unwrap();
        let trips = |events: &[(Severity, u64)]| {
            let mut governed = governed();
            for (severity, seconds) in events {
                let _ = governed.observe_denial(class, *severity, at(*seconds));
            }
            let last = at(events.last().unwrap().1);
            let kills = governed.settle(last).iter().any(|verdict| verdict.action == Action::Kill);
            (kills, governed.trust().score(last) < Score::VOUCHED)
        };
        assert_eq!(trips(&[(Severity::Critical, 1)]), (true, true));
        assert_eq!(trips(&[(Severity::High, 1), (Severity::High, 2)]), (false, false));
        assert!(trips(&[(Severity::High, 1), (Severity::High, 2), (Severity::High, 3)]).0);
        assert!(!trips(&[(Severity::High, 1), (Severity::High, 2), (Severity::High, 4_000)]).0);
    }

    #[test]
    fn a_lowered_score_reaches_no_store() {
        let mut before = governed();
        let _ = before.lower_trust(Score::new(100).unwrap(), at(1));
        assert_eq!(before.trust().score(at(1)).get(), 100);
        let parts = before.parts().into_iter().filter_map(|(kind, value)| Some((kind.to_owned(), value?)));
        let after = Governed::load("a", &Parts(parts.collect()), at(2)).unwrap().unwrap();
        assert_eq!(after.trust().score(at(2)), Score::VOUCHED);
    }

    #[test]
    fn everything_survives_the_store() {
        let mut before = governed();
        for _ in 0..4 {
            let _ = before.hear(end(report::Outcome::Bad, None), at(5));
        }
        let verdicts = before.settle(at(6));
        assert!(verdicts.iter().any(|verdict| verdict.action == Action::Demote));
        assert_eq!(before.demote(Ring::R2, "answers", 1), Some(Ring::R3));
        before.mark_killed("manual", 2);
        let _ = before.trip(at(6), Jitter::NONE);
        let _ = before.set_trust(Score::new(321).unwrap(), at(6));
        let parts = before.parts().into_iter().filter_map(|(kind, value)| Some((kind.to_owned(), value?)));
        let after = Governed::load("a", &Parts(parts.collect()), at(7)).unwrap().unwrap();
        assert_eq!(after.slo_status(at(7)), before.slo_status(at(7)));
        assert_eq!(after.trust().score(at(7)), before.trust().score(at(7)));
        assert_eq!(after.breaker_state(at(7)), before.breaker_state(at(7)));
        assert_eq!((&after.demoted, &after.killed), (&before.demoted, &before.killed));
        assert_eq!(after.identity, before.identity);
    }

    #[test]
    fn a_damaged_part_names_itself() {
        let mut parts = Parts::default();
        for (kind, value) in governed().parts() {
            if let Some(value) = value {
                parts.0.insert(kind.to_owned(), value);
            }
        }
        parts.0.insert(stored::TRUST.to_owned(), serde_json::json!({"points": "many"}));
        let error = Governed::load("a", &parts, at(1)).unwrap_err();
        assert_eq!(error.to_string(), "the stored trust of a can't be read");
    }

    #[test]
    fn a_revival_keeps_the_count_and_waits_for_news() {
        let mut governed = governed();
        for _ in 0..4 {
            let _ = governed.hear(end(report::Outcome::Bad, None), at(5));
        }
        assert!(!governed.settle(at(6)).is_empty());
        governed.mark_killed("budget_exhausted", 1);
        assert!(governed.revive().is_some());
        assert!(governed.settle(at(7)).is_empty());
        assert_eq!(counts(&governed, "answers", at(7)), (0, 4));
        let _ = governed.hear(end(report::Outcome::Bad, None), at(8));
        assert!(!governed.settle(at(8)).is_empty());
    }

    proptest! {
        #[test]
        fn what_an_agent_says_never_raises_its_trust_or_a_budget(
            words in prop::collection::vec((any::<bool>(), prop::option::of(0.0f64..1.0)), 0..60),
        ) {
            let mut governed = governed();
            let mut score = governed.trust().score(at(0));
            for (good, cost) in words {
                let outcome = if good { report::Outcome::Ok } else { report::Outcome::Bad };
                let _ = governed.hear(end(outcome, cost), at(1));
                let now = governed.trust().score(at(1));
                prop_assert!(now <= score);
                score = now;
            }
            prop_assert_eq!(counts(&governed, "answers", at(1)).0, 0);
            prop_assert_eq!(counts(&governed, "cheap", at(1)).0, 0);
        }
    }
}
