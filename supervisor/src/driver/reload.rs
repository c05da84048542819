//! The loop's part of a reload: which plans are loaded, and taking others in their place.

use tokio::sync::oneshot;

use super::Supervisor;
use super::agent::Again;
use super::definition::Definition;
use super::event::{Refusal, Request};
use super::governing;
use super::handle::Handle;
use super::records::{self, wall_ms};
use super::streams;
use super::streams::Wiring;
use super::ways;
use crate::audit::record::{Actor, Outcome, Record};
use crate::config::{self, AgentPlan};
use crate::machine::lifecycle::{self, State};
use crate::reloading::{ACTION, Origin};
use crate::store::request::Commit;

/// Most changed keys that one record names.
const NAMED_MAX: usize = 100;

/// A loaded plan.
#[derive(Debug)]
pub struct Known {
    /// The plan.
    pub plan: AgentPlan,
    /// Its hash.
    pub plan_hash: String,
    /// Where it came from; `None` for a command line.
    pub origin: Option<Origin>,
    /// Whether a process of it runs.
    pub life: Life,
    /// Whether an operator has attested this very plan.
    pub attested: bool,
}

/// Whether an agent has a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It has one, or is getting one.
    Runs,
    /// It has none.
    Dead,
}

/// What becomes of the process of a plan that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// It is stopped in order, and the new plan is started.
    Restarted,
    /// It is not touched.
    Left,
}

/// One thing to be done.
#[derive(Debug)]
pub enum Edit {
    /// A known agent gets another plan.
    Change {
        /// The plan.
        plan: Box<AgentPlan>,
        /// The hash of the one that it is to replace.
        from: String,
        /// What becomes of its process.
        process: Process,
    },
    /// An agent is taken up.
    Start(Box<Definition>),
    /// An agent is stopped and forgotten.
    Stop(String),
}

impl Edit {
    fn agent(&self) -> &str {
        match self {
            Edit::Change { plan, .. } => plan.name(),
            Edit::Start(definition) => definition.name(),
            Edit::Stop(name) => name,
        }
    }
}

/// What the program asks for.
#[derive(Debug)]
pub enum Ask {
    /// The loaded plans: of one agent, or of all.
    Plans(Option<String>, oneshot::Sender<Result<Vec<Known>, Refusal>>),
    /// Do this, for this uid and this reason.
    Do(Vec<Edit>, u32, String, oneshot::Sender<Result<(), Refusal>>),
}

impl Handle {
    /// The loaded plans of one agent or of all.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn plans(&self, agent: Option<String>) -> Result<Vec<Known>, Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Reload(Ask::Plans(agent, answer)));
        hears.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Replaces plans. Answers once it is recorded and begun; restarts go on after that.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was done then.
    pub async fn reload(&self, edits: Vec<Edit>, by: u32, reason: String) -> Result<(), Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Reload(Ask::Do(edits, by, reason, answer)));
        hears.await.unwrap_or(Err(Refusal::Ending))
    }
}

impl Supervisor {
    pub(super) async fn reload(&mut self, ask: Ask) {
        match ask {
            Ask::Plans(agent, answer) => {
                let names = self.named(agent.as_deref());
                let _ = answer.send(names.map(|names| names.iter().filter_map(|name| self.plan_of(name)).collect()));
            }
            Ask::Do(edits, by, reason, answer) => {
                let _ = answer.send(self.edit(edits, by, &reason).await);
            }
        }
    }

    fn plan_of(&self, name: &str) -> Option<Known> {
        let agent = self.agents.get(name)?;
        let dead = agent.is_dead() || matches!(agent.life.state(), State::Backoff { .. });
        let attestation = self.governor.get(name).and_then(|governed| governed.attestation.as_ref());
        let plan_hash = agent.definition.plan_hash.clone();
        Some(Known {
            plan: agent.definition.plan.clone(),
            attested: attestation.is_some_and(|made| made.subject.plan == plan_hash && made.until_ms > wall_ms()),
            plan_hash,
            origin: agent.definition.origin.clone(),
            life: if dead { Life::Dead } else { Life::Runs },
        })
    }

    /// All of it or, where one part can't be, nothing: durable first, because a new plan can give power.
    async fn edit(&mut self, edits: Vec<Edit>, by: u32, reason: &str) -> Result<(), Refusal> {
        if self.is_ending() {
            return Err(Refusal::Ending);
        }
        let mut commit = Commit::new();
        for edit in &edits {
            commit = commit.audit(self.record_of(edit, by, reason)?);
        }
        let what = records::asked(by, edits.first().map_or("", Edit::agent));
        let recorded = records::in_time(&self.store, what, self.store.commit(commit)).await?;
        recorded.map_err(|e| records::not_recorded(&e))?;
        for edit in edits {
            match edit {
                Edit::Change { plan, process, .. } => self.change(*plan, process).await,
                Edit::Stop(name) => self.retire(&name).await,
                Edit::Start(definition) => {
                    let name = definition.name().to_owned();
                    let (done, mut hears) = oneshot::channel();
                    self.add(*definition, Wiring::Log, done).await;
                    // Refused at once (killed before, breaker open): the files are as they are, so the rest goes on.
                    if let Ok(Err(refusal)) = hears.try_recv() {
                        eprintln!("error: {name} was not started: {refusal}");
                    }
                }
            }
        }
        Ok(())
    }

    fn record_of(&self, edit: &Edit, by: u32, reason: &str) -> Result<Record, Refusal> {
        let meanwhile = || Refusal::NotNow(format!("{} has changed since the files were read", edit.agent()));
        let known = self.agents.get(edit.agent());
        let record =
            Record::new(wall_ms(), Actor::Operator(by), ACTION, Outcome::Allowed).agent(edit.agent()).reason(reason);
        match (edit, known) {
            (Edit::Start(definition), None) => {
                Ok(record.detail("what", "start").detail("plan", definition.plan_hash.as_str()))
            }
            (Edit::Stop(_), Some(_)) => Ok(record.detail("what", "stop")),
            (Edit::Change { plan, from, process }, Some(known)) if known.definition.plan_hash == *from => {
                let changes = config::diff(&known.definition.plan, plan);
                let mut keys: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
                keys.dedup();
                keys.truncate(NAMED_MAX);
                Ok(record
                    .detail("what", if *process == Process::Restarted { "restart" } else { "adopt" })
                    .detail("old_plan", from.as_str())
                    .detail("plan", plan.hash().to_string())
                    .detail("keys", keys.join(", ")))
            }
            _ => Err(meanwhile()),
        }
    }

    async fn change(&mut self, plan: AgentPlan, process: Process) {
        let name = plan.name().to_owned();
        let Some(old) = self.agents.get(&name).map(|agent| agent.definition.clone()) else { return };
        let new = Definition::new(plan);
        let definition = Definition { plan: new.plan, plan_hash: new.plan_hash, ..old };
        let subject = governing::subject(&definition).await;
        let now = self.governor.now();
        if let Some(governed) = self.governor.get_mut(&name) {
            match governed.take_specs(&definition.plan.slos, subject, now) {
                Ok(dropped) => governing::tell_dropped(definition.audience.as_ref(), self.talk, &name, &dropped),
                Err(e) => eprintln!("error: {name}: its SLOs stay as they were: {e}"),
            }
        }
        self.drop_limits_by_hand(&name, &definition.plan, process);
        let Some(agent) = self.agents.get_mut(&name) else { return };
        agent.life.set_rules(definition.rules());
        agent.definition = definition;
        // What is taken is taken at once, also from a process that is about to be stopped in order.
        ways::renew(agent);
        // Routes may be new to it: what it spent before counts all the same.
        self.recall_models(&name).await;
        self.renew_models(&name);
        let Some(agent) = self.agents.get_mut(&name) else { return };
        let runs = matches!(agent.life.state(), State::Running { .. } | State::Starting);
        if runs && process == Process::Restarted {
            agent.start_again();
            self.step(&name, lifecycle::Event::Stop).await;
        }
    }

    async fn retire(&mut self, name: &str) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.again = Again::Never;
        self.step(name, lifecycle::Event::Stop).await;
    }

    /// Forgets agents whose files are gone, once they are dead. What the governor has of them stays.
    pub(super) fn forget_retired(&mut self) {
        let over = |agent: &super::Agent| agent.again == Again::Never && agent.is_dead();
        let names: Vec<String> =
            self.agents.iter().filter(|(_, agent)| over(agent)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(mut agent) = self.agents.remove(&name) {
                // Its last words are still on their way to its log.
                tokio::spawn(async move { streams::last_words(vec![&mut agent.pumps]).await });
            }
        }
    }
}
