//! All agents under the governor, and the store behind them.
//!
//! Owned by the driver's loop; without a supervisor the command line makes one on the store that it has locked, so that an order
//! means the same either way. What gives power (vouching, a higher score, an attestation, a revival) is durable together with
//! its audit record before it counts; everything else is stored within a few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agt_rings::Ring;
use agt_sre::breaker::{BreakerState, EjectionCap, Jitter};
use agt_sre::spec::SloSpec;
use agt_sre::time::Timestamp;
use agt_sre::trust::Score;

use super::ask::{Answer, Ask, slos_of, trust_of};
use super::attestation::{self, Subject};
use super::governed::{Governed, News};
use super::ring::{Choice, Inputs, choose};
use super::stored::{self, PartError, Parts};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::plan::Identity;
use crate::store::{Admission, Commit, Store, StoreError};

const VOUCH: Action = Action::new("vouch");
const TRUST_FORGET: Action = Action::new("trust.forget");
const REVIVE: Action = Action::new("revive");

/// Who started an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouching {
    /// An operator, by hand: an unknown identity starts with 700.
    ByHand,
    /// Nobody vouches: it starts with 500.
    Nobody,
}

/// Why the governor says no.
#[derive(Debug, thiserror::Error)]
pub enum GovernError {
    /// Nobody of that name.
    #[error("no agent is called `{0}`: it is known after its first `run`, or by its file (`trust set FILE.yaml ...`)")]
    Unknown(String),
    /// Another identity has the name.
    #[error("the name `{name}` belongs to {other}; `agt-supervise trust forget {name} --reason \"...\"` frees it")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        other: String,
    },
    /// What is asked makes no sense now.
    #[error("{0}")]
    NotNow(String),
    /// A part of its state can't be used.
    #[error(transparent)]
    State(#[from] PartError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The governor.
#[derive(Debug)]
pub struct Governor {
    pub(super) store: Store,
    pub(super) agents: BTreeMap<String, Governed>,
    wall: Timestamp,
    began: Instant,
}

/// Milliseconds since the epoch, for records; a clock before 1970 counts as 0.
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Governor {
    /// A governor on an open store.
    #[must_use]
    pub fn new(store: Store) -> Governor {
        let wall = Timestamp::from_millis(u64::try_from(wall_ms()).unwrap_or(0));
        Governor { store, agents: BTreeMap::new(), wall, began: Instant::now() }
    }

    /// The time: the wall clock at the start, a monotonic one since.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::anchored(self.wall, self.began.elapsed())
    }

    /// An agent that was taken up.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Governed> {
        self.agents.get(name)
    }

    /// An agent that was taken up, to be told something.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Governed> {
        self.agents.get_mut(name)
    }

    /// Makes an agent known, from memory or the store, else as new.
    ///
    /// # Errors
    /// Another identity has the name; a state that can't be used; a vouching that can't be recorded.
    pub async fn take_up(
        &mut self,
        identity: &Identity,
        specs: &[SloSpec],
        subject: Subject,
        ceiling: Ring,
        vouching: Vouching,
    ) -> Result<Vec<String>, GovernError> {
        let name = identity.name.as_str();
        let now = self.now();
        self.load(name).await?;
        if let Some(known) = self.agents.get_mut(name) {
            if known.identity != *identity {
                let other = known.identity.source.display().to_string();
                return Err(GovernError::NameTaken { name: name.to_owned(), other });
            }
            return Ok(known.adopt(specs, subject, now)?);
        }
        let vouched = vouching == Vouching::ByHand && matches!(ceiling, Ring::R2 | Ring::R3);
        let score = if vouched { Score::VOUCHED } else { Score::UNKNOWN };
        let mut governed = Governed::first(identity.clone(), specs.to_vec(), score, now)?;
        governed.subject = Some(subject);
        if vouched {
            let record = Record::new(wall_ms(), Actor::Operator(identity.uid), VOUCH, Outcome::Allowed)
                .agent(name)
                .reason("the first start by hand")
                .detail("score", u32::from(score.get()));
            self.store.commit(commit_of(&governed).audit(record)).await?;
            governed.news = News::None;
        }
        self.agents.insert(name.to_owned(), governed);
        Ok(Vec::new())
    }

    pub(super) async fn load(&mut self, name: &str) -> Result<(), GovernError> {
        if self.agents.contains_key(name) {
            return Ok(());
        }
        let asked = name.to_owned();
        let parts = self
            .store
            .read(move |reader| {
                let mut parts = Parts::default();
                for kind in stored::KINDS {
                    if let Some(state) = reader.state(&asked, kind)? {
                        parts.0.insert(kind.to_owned(), state.value);
                    }
                }
                Ok(parts)
            })
            .await?;
        if let Some(governed) = Governed::load(name, &parts, self.now())? {
            self.agents.insert(name.to_owned(), governed);
        }
        Ok(())
    }

    /// The ring for a launch.
    #[must_use]
    pub fn choose(&self, name: &str, ceiling: Ring, subject: &Subject) -> Option<(Choice, Score)> {
        let governed = self.agents.get(name)?;
        let score = governed.trust().score(self.now());
        let choice = choose(&Inputs {
            ceiling,
            score,
            attested: attestation::judge(governed.attestation.as_ref(), subject, wall_ms()),
            demoted: governed.demoted.as_ref().map(|demoted| (demoted.to, demoted.slo.clone())),
        });
        Some((choice, score))
    }

    /// Opens an agent's breaker, unless too many are open already. The first `Err` value counts the open ones.
    ///
    /// # Errors
    /// How many are open of how many.
    pub fn trip(&mut self, name: &str, jitter: f64) -> Result<Option<Timestamp>, (usize, usize)> {
        let now = self.now();
        let is_out = |governed: &Governed| {
            matches!(governed.breaker_state(now), BreakerState::Open { .. } | BreakerState::ForcedOpen)
        };
        let others = self.agents.iter().filter(|(other, governed)| other.as_str() != name && is_out(governed)).count();
        if !EjectionCap::default().allows_one_more(others, self.agents.len()) {
            return Err((others, self.agents.len()));
        }
        Ok(self.agents.get_mut(name).and_then(|governed| governed.trip(now, Jitter::new(jitter))))
    }

    /// Puts the kill switch's mark: noted at once, never waited for.
    pub fn mark_killed(&mut self, name: &str, reason: &str) {
        let at_ms = wall_ms();
        if let Some(governed) = self.agents.get_mut(name) {
            governed.mark_killed(reason, at_ms);
            self.note(name);
        }
    }

    /// Demotes; `None` when there is no lower ring.
    pub fn demote(&mut self, name: &str, from: Ring, slo: &str) -> Option<Ring> {
        let to = self.agents.get_mut(name)?.demote(from, slo, wall_ms());
        self.note(name);
        to
    }

    /// Hands an agent's news to the store without waiting.
    fn note(&mut self, name: &str) {
        let Some(governed) = self.agents.get_mut(name) else { return };
        if governed.news == News::Some && self.store.note(commit_of(governed)) == Admission::Queued {
            governed.news = News::None;
        }
    }

    /// Hands all news to the store without waiting: to be called every few seconds.
    pub fn note_all(&mut self) {
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            self.note(&name);
        }
    }

    /// Stores all news and waits for it: for a clean end.
    ///
    /// # Errors
    /// What kept it from the disk.
    pub async fn flush(&mut self) -> Result<(), StoreError> {
        for governed in self.agents.values_mut().filter(|governed| governed.news == News::Some) {
            self.store.commit(commit_of(governed)).await?;
            governed.news = News::None;
        }
        Ok(())
    }

    /// Answers an operator.
    ///
    /// # Errors
    /// [`GovernError`].
    pub async fn ask(&mut self, ask: Ask, by: u32) -> Result<Answer, GovernError> {
        match ask {
            Ask::Slo { agent } => {
                let names = self.names(agent).await?;
                let now = self.now();
                Ok(Answer::Slos(names.iter().filter_map(|n| self.agents.get(n)).map(|g| slos_of(g, now)).collect()))
            }
            Ask::Trust { agent } => {
                let names = self.names(agent).await?;
                let now = self.now();
                Ok(Answer::Trust(names.iter().filter_map(|n| self.agents.get(n)).map(|g| trust_of(g, now)).collect()))
            }
            Ask::SetTrust { agent, score, reason, file } => {
                self.set_trust(&agent, score, &reason, file.as_deref(), by).await
            }
            Ask::Forget { agent, reason } => self.forget(&agent, &reason, by).await,
            Ask::Attest { agent, reason, ttl_s, file } => {
                self.attest(&agent, &reason, ttl_s, file.as_deref(), by).await
            }
            Ask::Revive { agent, reason } => match self.revive(&agent, &reason, by).await? {
                true => Ok(Answer::Done(format!("{agent}  may live again: `run` starts it"))),
                false => Err(GovernError::NotNow(format!("{agent} was not killed"))),
            },
        }
    }

    async fn names(&mut self, agent: Option<String>) -> Result<Vec<String>, GovernError> {
        let names = match agent {
            Some(name) => vec![name],
            None => self.store.list_states(stored::IDENTITY).await?.into_iter().map(|state| state.agent).collect(),
        };
        for name in &names {
            self.known(name).await?;
        }
        Ok(names)
    }

    pub(super) async fn known(&mut self, name: &str) -> Result<&mut Governed, GovernError> {
        self.load(name).await?;
        self.agents.get_mut(name).ok_or_else(|| GovernError::Unknown(name.to_owned()))
    }

    /// Makes a change durable together with its record.
    pub(super) async fn durable(&mut self, name: &str, record: Record) -> Result<(), GovernError> {
        let Some(governed) = self.agents.get_mut(name) else { return Err(GovernError::Unknown(name.to_owned())) };
        self.store.commit(commit_of(governed).audit(record)).await?;
        governed.news = News::None;
        Ok(())
    }

    async fn forget(&mut self, name: &str, reason: &str, by: u32) -> Result<Answer, GovernError> {
        if self.known(name).await?.killed.is_some() {
            let help = format!("{name} was killed; `agt-supervise revive {name} --reason \"...\"` comes first");
            return Err(GovernError::NotNow(help));
        }
        let record =
            Record::new(wall_ms(), Actor::Operator(by), TRUST_FORGET, Outcome::Allowed).agent(name).reason(reason);
        self.store.commit(Commit::new().forget_agent(name).audit(record)).await?;
        self.agents.remove(name);
        Ok(Answer::Done(format!("{name}  is forgotten: the next start under this name is its first")))
    }

    /// Takes the kill switch's mark away, durably. Whether there was one.
    ///
    /// # Errors
    /// Nobody of that name; a record that can't be written.
    pub async fn revive(&mut self, name: &str, reason: &str, by: u32) -> Result<bool, GovernError> {
        let mark = self.known(name).await?.killed.clone();
        let record = |outcome| Record::new(wall_ms(), Actor::Operator(by), REVIVE, outcome).agent(name).reason(reason);
        let Some(mark) = mark else {
            // Nothing is given, so the record waits for nobody.
            let _ = self.store.append_audit_nowait(record(Outcome::Failed).detail("why", "it was not killed"));
            return Ok(false);
        };
        let record = record(Outcome::Allowed).detail("killed", mark.reason.as_str());
        // Recorded before the mark goes: a revival that can't be written leaves the agent dead.
        self.store.commit(Commit::new().audit(record).delete_state(name, stored::KILLED)).await?;
        if let Some(governed) = self.agents.get_mut(name) {
            let _ = governed.revive();
        }
        self.flush().await?;
        Ok(true)
    }

    /// How long an open breaker still refuses.
    #[must_use]
    pub fn refuses_for(&self, name: &str) -> Option<Duration> {
        let now = self.now();
        match self.agents.get(name)?.breaker_state(now) {
            BreakerState::Open { until } => Some(until.since(now)),
            BreakerState::ForcedOpen => Some(Duration::MAX),
            _ => None,
        }
    }
}

pub(super) fn commit_of(governed: &Governed) -> Commit {
    let (name, now) = (governed.identity.name.as_str(), wall_ms());
    governed.parts().into_iter().fold(Commit::new(), |commit, (kind, value)| match value {
        Some(value) => commit.put_state(name, kind, value, now),
        None => commit.delete_state(name, kind),
    })
}
