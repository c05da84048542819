//! Where the loop and the sagas meet: who is taken up, in which ring its steps run, what their ends say.
//!
//! A saga is driven beside the loop, as its steps are processes that no agent's life has. The loop keeps what only it may
//! decide: the governed entry of the saga's identity, and that the supervisor stays while a saga is driven.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agt_rings::Ring;
use agt_sre::engine::Verdict;
use agt_sre::remedy;
use agt_sre::sli::{Sample, Severity};
use tokio::sync::oneshot;

use super::event::{Refusal, Request};
use super::governing::{self, refusal};
use super::records;
use super::scene::{SagaScene, Scene, SceneGoverned};
use super::{Handle, Supervisor};
use crate::config::AgentPlan;
use crate::config::spec::Switch;
use crate::denials::Class;
use crate::denials::memory::Weighs;
use crate::govern::attestation::Subject;
use crate::govern::evidence::Weight;
use crate::govern::governor::Vouching;
use crate::machine::lifecycle::{Death, GaveUp, State};
use crate::sagas::steps::ProcessSteps;

/// What the sagas ask of the loop.
#[derive(Debug)]
pub enum SagaAsk {
    /// May it be driven? Makes its identity known to the governor.
    TakeUp {
        /// The saga.
        newcomer: Box<Newcomer>,
        /// The answer.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// The ring that trust and verdicts leave to a step.
    Ring {
        /// The saga's name.
        saga: String,
        /// The ring that its file asks for.
        ceiling: Ring,
        /// The answer.
        answer: oneshot::Sender<Ring>,
    },
    /// What the ends of its steps say.
    Evidence {
        /// The saga's name.
        saga: String,
        /// Where it stands now, in the engine's word.
        word: &'static str,
        /// For its indicators.
        samples: Vec<Sample>,
        /// What it did wrong, for its trust.
        violation: Option<Severity>,
    },
    /// One of its steps was denied something.
    Denied {
        /// The saga's name.
        saga: String,
        /// What.
        step: DeniedStep,
    },
    /// One is not driven any more: perhaps there is nothing left to stay for.
    Rested,
}

/// What a step was denied, as far as it is evidence.
#[derive(Debug, Clone, Copy)]
pub struct DeniedStep {
    /// What kind of thing.
    pub class: Class,
    /// How grave.
    pub severity: Severity,
    /// Whether it is an event for the safety SLO.
    pub weighs: Weighs,
    /// How often.
    pub times: u64,
}

/// A saga that asks to be driven.
#[derive(Debug)]
pub struct Newcomer {
    /// The plan of any of its commands: identity, SLOs and opt-ins are the same in all.
    pub plan: AgentPlan,
    /// The hash of the saga's plan.
    pub plan_hash: String,
    /// Whether it begins.
    pub begins: Begins,
}

/// Whether a saga begins or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// It begins: the kill switch's mark and an open breaker keep it from that.
    Anew,
    /// It goes on: what stands half done must be finished or undone, whatever its name has earned since.
    Again,
}

/// The sagas that are driven now, by name: while there are any, the supervisor stays.
#[derive(Debug, Clone, Default)]
pub struct Guests(Arc<Mutex<BTreeMap<String, usize>>>);

impl Guests {
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat.
    #[must_use]
    pub fn seat(&self, name: &str, handle: &Handle) -> Seat {
        *self.map().entry(name.to_owned()).or_default() += 1;
        Seat { guests: self.clone(), name: name.to_owned(), handle: handle.clone() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.map().values().sum()
    }

    fn has(&self, name: &str) -> bool {
        self.map().contains_key(name)
    }
}

/// A seat; given back when dropped, which the loop hears.
#[derive(Debug)]
pub struct Seat {
    guests: Guests,
    name: String,
    handle: Handle,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut map = self.guests.map();
        if let Some(count) = map.get_mut(&self.name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                map.remove(&self.name);
            }
        }
        drop(map);
        self.handle.send(Request::Saga(SagaAsk::Rested));
    }
}

/// What the loop knows of the sagas.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    guests: Guests,
    steps: Option<Arc<ProcessSteps>>,
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    plan: AgentPlan,
    subject: Subject,
    word: Option<String>,
}

impl Hosting {
    pub(super) fn is_empty(&self) -> bool {
        self.guests.count() == 0
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.known.keys()
    }
}

impl Supervisor {
    /// Stays while these sagas are driven, and can end their steps.
    #[must_use]
    pub fn hosting(mut self, guests: Guests, steps: Arc<ProcessSteps>) -> Supervisor {
        self.hosting = Hosting { guests, steps: Some(steps), known: BTreeMap::new() };
        self
    }

    pub(super) async fn saga(&mut self, ask: SagaAsk) {
        match ask {
            SagaAsk::TakeUp { newcomer, answer } => {
                let taken = self.take_up_saga(*newcomer).await;
                let _ = answer.send(taken);
            }
            SagaAsk::Ring { saga, ceiling, answer } => {
                let _ = answer.send(self.saga_ring(&saga, ceiling));
            }
            SagaAsk::Evidence { saga, word, samples, violation } => {
                if let Some(known) = self.hosting.known.get_mut(&saga) {
                    known.word = Some(word.to_owned());
                }
                if samples.is_empty() && violation.is_none() {
                    return;
                }
                let now = self.governor.now();
                if let Some(governed) = self.governor.get_mut(&saga) {
                    governed.observe_saga(&samples, violation, now);
                    self.evaluate_saga(&saga).await;
                }
            }
            SagaAsk::Denied { saga, step } => {
                self.telemetry.denied(&saga, step.class, step.times);
                if self.weigh_denial(&saga, step.class, step.severity, step.weighs) == Weight::Heavy {
                    self.evaluate_saga(&saga).await;
                }
            }
            SagaAsk::Rested => {}
        }
    }

    async fn take_up_saga(&mut self, newcomer: Newcomer) -> Result<(), Refusal> {
        if self.is_ending() {
            return Err(Refusal::Ending);
        }
        let Newcomer { plan, plan_hash, begins } = newcomer;
        let name = plan.name().to_owned();
        let subject = Subject { plan: plan_hash, program: None };
        let vouching = if plan.vouch == Switch::On { Vouching::ByHand } else { Vouching::Nobody };
        let what = records::asked(plan.identity.uid, &name);
        let taken = self.governor.take_up(&plan.identity, &plan.slos, subject.clone(), plan.ceiling, vouching);
        let taken = records::in_time(&self.store, what, taken).await?;
        governing::tell_dropped(None, self.talk, &name, &taken.map_err(refusal)?);
        if begins == Begins::Anew {
            self.not_killed(&name)?;
            self.breaker_closed(&name)?;
        }
        self.hosting.known.insert(name, Known { plan, subject, word: None });
        Ok(())
    }

    pub(super) fn not_killed(&self, name: &str) -> Result<(), Refusal> {
        let Some(killed) = self.governor.get(name).and_then(|governed| governed.killed.as_ref()) else { return Ok(()) };
        Err(Refusal::Killed { name: name.to_owned(), reason: killed.reason.clone() })
    }

    fn saga_ring(&self, name: &str, ceiling: Ring) -> Ring {
        let known = self.hosting.known.get(name);
        let choice = known.and_then(|known| self.governor.choose(name, ceiling, &known.subject));
        let Some((choice, _)) = choice else { return Ring::R3 };
        if let Some(line) = choice.line(name, ceiling) {
            eprintln!("note: {line}");
        }
        choice.ring
    }

    /// What its SLOs ask for. A saga has no process of its own: what is ended are its steps, and what is lowered is their ring.
    async fn evaluate_saga(&mut self, name: &str) {
        let now = self.governor.now();
        let Some(governed) = self.governor.get_mut(name) else { return };
        let verdicts = governed.settle(now);
        self.tell(name, &verdicts);
        for Verdict { action, on, slo, .. } in &verdicts {
            match action {
                remedy::Action::Alert | remedy::Action::Throttle => {}
                remedy::Action::Demote => {
                    if let Some(to) = self.governor.demote(name, Ring::R2, slo.as_str()) {
                        eprintln!("Demoted to {to}: the next steps of {name} run in it.");
                        self.note_taking(name, governing::DEMOTE, slo.as_str());
                    }
                }
                remedy::Action::Break => {
                    self.open_breaker(name, slo.as_str());
                }
                remedy::Action::Quarantine | remedy::Action::Kill => {
                    let trip = *on == remedy::Trigger::Trip;
                    self.strike_saga(name, if trip { "ring_breach" } else { "budget_exhausted" });
                }
            }
        }
    }

    /// The kill switch for all steps of a saga's name; it starts no saga until it is revived.
    fn strike_saga(&mut self, name: &str, reason: &'static str) {
        if let Some(steps) = &self.hosting.steps {
            for run in steps.live().of_name(name) {
                tokio::spawn(async move {
                    if let Err(e) = run.strike(reason).await {
                        eprintln!("error: {}: the kill could not be verified: {e}", run.name());
                    }
                });
            }
        }
        self.governor.mark_killed(name, reason);
        self.note_taking(name, super::records::KILL, reason);
    }

    /// What an experiment sees of a saga's name.
    pub(super) fn saga_scene(&self, name: &str) -> Option<Scene> {
        let known = self.hosting.known.get(name)?;
        let driven = self.hosting.guests.has(name);
        let state = if driven {
            State::Running { since: 0, unhealthy: 0 }
        } else {
            State::Ended { death: Death::Exit { code: 0 }, gave_up: GaveUp::No }
        };
        Some(Scene {
            state,
            launches: 1,
            last_death: None,
            oom_kills_before: 0,
            group: None,
            chaos: known.plan.chaos.clone(),
            environment: known.plan.environment,
            governed: self.scene_governed(name),
            saga: self
                .hosting
                .steps
                .as_ref()
                .map(|steps| SagaScene { ambush: steps.ambush().clone(), word: known.word.clone() }),
        })
    }

    pub(super) fn scene_governed(&self, name: &str) -> Option<SceneGoverned> {
        let now = self.governor.now();
        self.governor.get(name).map(|governed| SceneGoverned {
            trust: governed.trust().score(now).get(),
            trust_lowered: governed.trust().own_score(now).is_some(),
            ring: self.agents.get(name).and_then(|agent| {
                let (choice, _) =
                    self.governor.choose(name, agent.definition.plan.ceiling, governed.subject.as_ref()?)?;
                Some(choice.ring)
            }),
            violations: governed.trust().violations(),
            slos: governed.slo_status(now),
            breaker: governed.breaker_state(now),
            quarantined: governed.quarantined.is_some(),
            killed: governed.killed.is_some(),
        })
    }
}

impl Handle {
    /// Asks whether a saga may be driven.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn take_up_saga(&self, newcomer: Newcomer) -> Result<(), Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Saga(SagaAsk::TakeUp { newcomer: Box::new(newcomer), answer }));
        hears.await.unwrap_or(Err(Refusal::Ending))
    }

    /// The ring of a saga's step.
    ///
    /// # Errors
    /// [`Refusal::Ending`].
    pub async fn saga_ring(&self, saga: &str, ceiling: Ring) -> Result<Ring, Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Saga(SagaAsk::Ring { saga: saga.to_owned(), ceiling, answer }));
        hears.await.map_err(|_| Refusal::Ending)
    }

    /// Tells where a saga stands and what the ends of its steps say; a supervisor that has ended hears no more.
    pub fn saga_evidence(&self, saga: &str, word: &'static str, samples: Vec<Sample>, violation: Option<Severity>) {
        self.send(Request::Saga(SagaAsk::Evidence { saga: saga.to_owned(), word, samples, violation }));
    }

    /// Tells what a step was denied.
    pub fn saga_denied(&self, saga: &str, step: DeniedStep) {
        self.send(Request::Saga(SagaAsk::Denied { saga: saga.to_owned(), step }));
    }
}
