//! What operators do to agents: done, recorded with who, why and how it ended, answered.
//!
//! Stop, kill and freeze only take power: they act first and are noted right after. Restart, revive and thaw give power: they are in
//! the audit log, synced, before anything happens, and don't happen when they can't be recorded. An order for all leaves out those
//! whom it does not fit, does the rest, and says so.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::Supervisor;
use super::agent::STOP_WITHIN;
use super::audience::{Tenure, Wish};
use super::beside::beside;
use super::event::{Act, Refusal};
use super::records::{self, wall_ms};
use super::status::{AgentStatus, Frozen};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::govern::ask::Ask;
use crate::machine::lifecycle::{self, Death, State};

/// Where an order's answer goes.
pub(super) type Answer = oneshot::Sender<Result<Vec<AgentStatus>, Refusal>>;

/// An operator's order.
#[derive(Debug, Clone)]
struct Order {
    act: Act,
    by: u32,
    reason: String,
}

impl Order {
    fn action(&self) -> Action {
        match self.act {
            Act::Stop => records::STOP,
            Act::Kill => records::KILL,
            Act::Freeze => records::FREEZE,
            Act::Thaw => records::THAW,
            Act::Restart => records::RESTART,
            Act::Revive => records::REVIVE,
        }
    }

    fn record(&self, name: &str, outcome: Outcome) -> Record {
        let reason = self.reason.as_str();
        Record::new(wall_ms(), Actor::Operator(self.by), self.action(), outcome).agent(name).reason(reason)
    }
}

/// An answer that waits for deaths.
#[derive(Debug)]
pub(super) struct Owed {
    names: Vec<String>,
    alive: BTreeSet<String>,
    remarks: BTreeMap<String, String>,
    answer: Answer,
}

impl Supervisor {
    pub(super) async fn act(&mut self, agent: Option<&str>, act: Act, by: u32, reason: String, answer: Answer) {
        let names = match self.named(agent) {
            Ok(names) => names,
            Err(Refusal::Unknown(name)) if act == Act::Revive => {
                let revived = self.govern(Ask::Revive { agent: name, reason }, by).await;
                let _ = answer.send(revived.map(|_| Vec::new()));
                return;
            }
            Err(refusal) => {
                let _ = answer.send(Err(refusal));
                return;
            }
        };
        let order = Order { act, by, reason };
        let (mut alive, mut remarks) = (BTreeSet::new(), BTreeMap::new());
        for name in &names {
            let done = self.act_on(name, &order).await;
            if let Err(refusal) = &done {
                self.note_refused(name, &order, refusal);
            }
            match done {
                Ok(None) => {}
                Ok(Some(remark)) => drop(remarks.insert(name.clone(), remark)),
                // It does not fit this one; the others are not held up by that.
                Err(refusal @ (Refusal::NotNow(_) | Refusal::Unable(_) | Refusal::Killed { .. }))
                    if agent.is_none() =>
                {
                    let why = refusal.to_string();
                    remarks.insert(name.clone(), why.lines().next().unwrap_or_default().to_owned());
                }
                Err(refusal) => {
                    let _ = answer.send(Err(refusal));
                    return;
                }
            }
            let ends = matches!(act, Act::Stop | Act::Kill);
            if ends && self.agents.get(name).is_some_and(|agent| !agent.is_dead()) {
                alive.insert(name.clone());
            }
        }
        self.owed.push(Owed { names, alive, remarks, answer });
        self.pay();
    }

    /// One agent is dead for good: whoever waited for it may have waited for all.
    pub(super) fn pay_for(&mut self, name: &str) {
        self.owed.iter_mut().for_each(|owed| {
            owed.alive.remove(name);
        });
        self.pay();
    }

    /// One agent is dead, and about to be started again by a later order: whoever waited for its end is told that.
    pub(super) fn pay_overruled(&mut self, name: &str) {
        for owed in &mut self.owed {
            if owed.alive.remove(name) {
                owed.remarks.insert(name.to_owned(), "ended, and was started again by a later order".to_owned());
            }
        }
        self.pay();
    }

    fn pay(&mut self) {
        for owed in self.owed.extract_if(.., |owed| owed.alive.is_empty()).collect::<Vec<_>>() {
            let mut statuses = self.statuses(&owed.names);
            for status in &mut statuses {
                status.remark = owed.remarks.get(&status.name).cloned();
            }
            let _ = owed.answer.send(Ok(statuses));
        }
    }

    /// Does it to one agent; what there is to remark when nothing, or not the usual, was to be done.
    async fn act_on(&mut self, name: &str, order: &Order) -> Result<Option<String>, Refusal> {
        match order.act {
            Act::Stop => Ok(self.stop(name, order).await),
            Act::Kill => Ok(self.kill(name, order).await),
            Act::Restart => self.restart(name, order).await,
            Act::Revive => self.revive_dead(name, order).await,
            Act::Freeze => self.freeze(name, order).await,
            Act::Thaw => self.thaw(name, order).await,
        }
    }

    async fn stop(&mut self, name: &str, order: &Order) -> Option<String> {
        let agent = self.agents.get_mut(name)?;
        if agent.is_dead() {
            self.note(order.record(name, Outcome::Noted).detail("found", "nothing ran"));
            return Some("nothing of it runs".to_owned());
        }
        agent.not_again();
        self.step(name, lifecycle::Event::Stop).await;
        self.note(order.record(name, Outcome::Done));
        None
    }

    async fn kill(&mut self, name: &str, order: &Order) -> Option<String> {
        let reason = if order.reason.is_empty() { "manual" } else { &order.reason }.to_owned();
        let order = Order { reason: reason.clone(), ..order.clone() };
        let before = self.killed_for(name);
        let agent = self.agents.get_mut(name)?;
        let ran = !agent.is_dead();
        agent.not_again();
        // The kill first: the mark is noted while the tree is already dying.
        self.step(name, lifecycle::Event::Kill { reason: reason.clone() }).await;
        if ran || before.is_none() {
            self.governor.mark_killed(name, &reason);
        }
        if ran {
            self.note(order.record(name, Outcome::Done));
            return None;
        }
        self.note(order.record(name, Outcome::Noted).detail("found", "nothing ran"));
        Some(match before {
            Some(reason) => format!("nothing of it runs: it was killed before ({reason})"),
            None => "nothing of it ran; it stays dead from now on".to_owned(),
        })
    }

    /// Why it is marked as killed.
    fn killed_for(&self, name: &str) -> Option<String> {
        let marked = self.governor.get(name).and_then(|governed| governed.killed.as_ref());
        let state = self.agents.get(name).map(|agent| agent.life.state());
        match (marked, state) {
            (Some(killed), _) => Some(killed.reason.clone()),
            (
                None,
                Some(
                    State::Killing { death: Death::Killed { reason } }
                    | State::Ended { death: Death::Killed { reason }, .. },
                ),
            ) => Some(reason.clone()),
            _ => None,
        }
    }

    async fn restart(&mut self, name: &str, order: &Order) -> Result<Option<String>, Refusal> {
        if self.is_ending() {
            return Err(Refusal::Ending);
        }
        if let Some(reason) = self.killed_for(name) {
            return Err(Refusal::Killed { name: name.to_owned(), reason });
        }
        // Before anything is stopped: what runs well is not taken down for a start that is refused.
        self.breaker_closed(name)?;
        self.durable(order.record(name, Outcome::Allowed)).await?;
        let Some(agent) = self.agents.get_mut(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        if agent.is_dead() {
            self.step(name, lifecycle::Event::Launch).await;
        } else {
            agent.start_again();
            self.step(name, lifecycle::Event::Stop).await;
        }
        Ok(None)
    }

    async fn revive_dead(&mut self, name: &str, order: &Order) -> Result<Option<String>, Refusal> {
        if self.is_ending() {
            return Err(Refusal::Ending);
        }
        let dead = self.agents.get(name).is_some_and(super::Agent::is_dead);
        match self.killed_for(name) {
            _ if !dead => return Err(Refusal::NotNow(format!("{name} is not dead"))),
            None => {
                let text = format!("{name} was not killed\nhelp: agt-supervise restart {name} --reason \"...\"");
                return Err(Refusal::NotNow(text));
            }
            Some(_) => {}
        }
        self.revive(name, order.by, &order.reason).await?;
        self.step(name, lifecycle::Event::Revive).await;
        Ok(None)
    }

    async fn freeze(&mut self, name: &str, order: &Order) -> Result<Option<String>, Refusal> {
        if let Some(by) = self.agents.get(name).and_then(|agent| agent.frozen) {
            self.note(order.record(name, Outcome::Noted).detail("found", "frozen already"));
            return Ok(Some(format!("is frozen already, by {}", by.word())));
        }
        self.set_frozen(name, Some(Frozen::Operator)).await?;
        self.note(order.record(name, Outcome::Done));
        Ok(None)
    }

    async fn thaw(&mut self, name: &str, order: &Order) -> Result<Option<String>, Refusal> {
        let Some(agent) = self.agents.get(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        let stands_still = agent.group.as_ref().is_some_and(|group| group.is_frozen().unwrap_or(true));
        if agent.frozen.is_none() && !stands_still {
            let what = if agent.running.is_some() { "is not frozen" } else { "does not run" };
            return Err(Refusal::NotNow(format!("{name} {what}")));
        }
        self.durable(order.record(name, Outcome::Allowed)).await?;
        self.set_frozen(name, None).await?;
        if let Some(governed) = self.governor.get_mut(name) {
            governed.quarantined = None;
        }
        Ok(None)
    }

    /// Stops every task of an agent, or lets them run. Whoever asks records it.
    pub(super) async fn set_frozen(&mut self, name: &str, frozen: Option<Frozen>) -> Result<(), Refusal> {
        let Some(agent) = self.agents.get(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        let Some(group) = agent.group.clone() else {
            if agent.running.is_none() {
                return Err(Refusal::NotNow(format!("{name} does not run")));
            }
            let why = "can't be frozen: this host gives it no cgroup\nhelp: `agt-supervise doctor` shows why";
            return Err(Refusal::Unable(format!("{name} {why}")));
        };
        let changed = beside("agt-freeze", move || match frozen {
            Some(_) => group.freeze(STOP_WITHIN),
            None => group.thaw(STOP_WITHIN),
        });
        match changed.await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(Refusal::NotNow(format!("{name}: {}", super::launching::in_full(&e)))),
            Err(e) => return Err(Refusal::NotNow(format!("{name}: {e}"))),
        }
        if let Some(agent) = self.agents.get_mut(name) {
            agent.frozen = frozen;
        }
        Ok(())
    }

    /// What whoever started an agent wants of it, as long as it is still theirs.
    pub(super) async fn wish(&mut self, name: &str, tenure: Tenure, wish: Wish, by: u32) {
        let theirs = self.agents.get_mut(name).filter(|agent| agent.tenure == tenure && agent.done.is_some());
        let Some(agent) = theirs else { return };
        agent.not_again();
        self.step(name, lifecycle::Event::Stop).await;
        if wish == Wish::End {
            // A stop during a stop ends its grace.
            self.step(name, lifecycle::Event::Stop).await;
        }
        let reason = match wish {
            Wish::Stop => "its `run` was told to stop, or went away",
            Wish::End => "its `run` was told to stop twice",
        };
        self.note(Order { act: Act::Stop, by, reason: reason.to_owned() }.record(name, Outcome::Done));
    }

    fn note_refused(&self, name: &str, order: &Order, refusal: &Refusal) {
        let outcome = match refusal {
            // What can't be recorded can't be recorded.
            Refusal::NotRecorded(_) => return,
            Refusal::NotNow(_) | Refusal::Unable(_) => Outcome::Failed,
            _ => Outcome::Denied,
        };
        let why = refusal.to_string();
        self.note(order.record(name, outcome).detail("why", why.lines().next().unwrap_or_default()));
    }
}
