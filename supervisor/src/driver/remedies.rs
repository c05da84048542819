//! What the verdicts of budgets do to an agent: told and recorded, then done.
//!
//! All of it takes power, so it acts first and is noted right after; the store's mark of a kill is handed over without waiting
//! for the disk.

use agt_rings::Ring;
use agt_sre::engine::Verdict;
use agt_sre::remedy;

use super::Supervisor;
use super::audience::Line;
use super::definition::Definition;
use super::governing::{BREAKER_OPEN, DEMOTE, QUARANTINE_MOST, REMEDY};
use super::records::{self, wall_ms};
use super::status::Frozen;
use crate::audit::record::{Actor, Outcome, Record};
use crate::machine::lifecycle::{self, State};

impl Supervisor {
    pub(super) async fn evaluate(&mut self, name: &str) {
        let now = self.governor.now();
        let Some(governed) = self.governor.get_mut(name) else { return };
        let verdicts = governed.settle(now);
        let mut gone = false;
        self.tell(name, &verdicts);
        for verdict in &verdicts {
            // Gravest first: what is being ended needs no demotion.
            if gone && verdict.action > remedy::Action::Alert && verdict.action != remedy::Action::Break {
                continue;
            }
            match verdict.action {
                remedy::Action::Alert => {}
                remedy::Action::Throttle => self.say(
                    name,
                    Line::Matter,
                    format!("warning: {name} can't be throttled yet: requests are counted by the gateway. Give the SLO another remedy."),
                ),
                remedy::Action::Demote => self.demote(name, verdict).await,
                remedy::Action::Break => self.open_breaker(name, verdict.slo.as_str()),
                remedy::Action::Quarantine => self.quarantine(name, verdict).await,
                remedy::Action::Kill => {
                    gone = true;
                    let trip = verdict.on == remedy::Trigger::Trip;
                    self.kill_for(name, if trip { "ring_breach" } else { "budget_exhausted" }).await;
                }
            }
        }
    }

    /// Says each cause once, with everything that it calls for; records each remedy.
    pub(super) fn tell(&self, name: &str, verdicts: &[Verdict]) {
        let same = |a: &Verdict, b: &Verdict| a.slo == b.slo && a.reason == b.reason;
        for (index, verdict) in verdicts.iter().enumerate() {
            if !verdicts[..index].iter().any(|earlier| same(earlier, verdict)) {
                let all = verdicts.iter().filter(|other| same(other, verdict)).map(|other| other.action.as_str());
                let all = all.collect::<Vec<_>>().join(", ");
                let text = format!("warning: {name} / {}: {}. Remedy: {all}.", verdict.slo, verdict.reason);
                self.say(name, Line::Matter, text);
            }
            let record = Record::new(wall_ms(), Actor::Supervisor, REMEDY, Outcome::Noted)
                .agent(name)
                .reason(verdict.reason.as_str())
                .detail("slo", verdict.slo.as_str())
                .detail("on", verdict.on.to_string())
                .detail("do", verdict.action.as_str());
            let _ = self.store.append_audit_nowait(record);
        }
    }

    pub(super) async fn kill_for(&mut self, name: &str, reason: &str) {
        // The kill first: the mark is noted while the tree is already dying.
        self.step(name, lifecycle::Event::Kill { reason: reason.to_owned() }).await;
        self.governor.mark_killed(name, reason);
        self.note_taking(name, records::KILL, reason);
    }

    async fn demote(&mut self, name: &str, verdict: &Verdict) {
        let Some(agent) = self.agents.get(name) else { return };
        let from = agent.ring;
        let Some(to) = self.governor.demote(name, from, verdict.slo.as_str()) else {
            let text = format!("warning: {name} is in {from} already: there is no lower ring to demote it to");
            self.say(name, Line::Matter, text);
            return;
        };
        let changed = changes(&agent.definition, from, to);
        let text = format!(
            "Demoted from {from} to {to} at {}: {changed}.\nFrom now on it runs in {to}, and returns at a start after the budget has recovered: agt-supervise slo {name} --explain",
            records::clock()
        );
        self.say(name, Line::Matter, text);
        self.note_taking(name, DEMOTE, &format!("{from} to {to}: {}", verdict.slo));
        let Some(agent) = self.agents.get_mut(name) else { return };
        match agent.life.state() {
            State::Running { .. } | State::Starting => {
                agent.start_again();
                // What it has open does not wait for its processes to be gone.
                agent.way_out.iter().for_each(agt_gateway::live::Agent::cut);
                // Twice: power is taken at once, so there is no grace in the ring that it has lost.
                self.step(name, lifecycle::Event::Stop).await;
                self.step(name, lifecycle::Event::Stop).await;
            }
            // Whoever ends it has decided whether it comes back; what it says of itself must not.
            State::Stopping { .. } => self.step(name, lifecycle::Event::GraceOver).await,
            _ => {}
        }
    }

    pub(super) fn open_breaker(&mut self, name: &str, slo: &str) {
        let now = self.governor.now();
        match self.governor.trip(name, rand::random()) {
            Ok(Some(until)) => {
                let wait = until.since(now).as_secs();
                let text = format!("warning: {name}: its circuit breaker is open for {wait} s: no new work, no start");
                self.say(name, Line::Matter, text);
                self.note_taking(name, BREAKER_OPEN, slo);
            }
            Ok(None) => {}
            Err((open, of)) => self.say(
                name,
                Line::Matter,
                format!("warning: {name}: its circuit breaker stays closed: {open} of {of} agents are out already, so the fault is likely elsewhere"),
            ),
        }
    }

    async fn quarantine(&mut self, name: &str, verdict: &Verdict) {
        if self.set_frozen(name, Some(Frozen::Quarantine)).await.is_err() {
            self.say(name, Line::Matter, format!("warning: {name} can't be frozen here, so its quarantine is a kill"));
            self.kill_for(name, "budget_exhausted").await;
            return;
        }
        let now = self.governor.now();
        if let Some(governed) = self.governor.get_mut(name) {
            governed.quarantined = Some(now);
        }
        let text = format!(
            "warning: {name} is quarantined: frozen until `agt-supervise thaw {name} --reason \"...\"`; in {} s it is killed",
            QUARANTINE_MOST.as_secs()
        );
        self.say(name, Line::Matter, text);
        self.note_taking(name, records::FREEZE, &format!("quarantine by {}", verdict.slo));
    }
}

/// What a demotion changes, in the numbers that people know.
fn changes(definition: &Definition, from: Ring, to: Ring) -> String {
    let plan = &definition.plan;
    let (before, after) = (plan.limits_at(from), plan.limits_at(to));
    let mut parts = Vec::new();
    let percent = |millis: Option<u32>| millis.map_or("host".to_owned(), |millis| format!("{}%", millis / 10));
    if before.cpu_millis != after.cpu_millis {
        parts.push(format!("cpu {} -> {}", percent(before.cpu_millis), percent(after.cpu_millis)));
    }
    let mib = |bytes: Option<u64>| bytes.map_or("host".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    if before.memory_bytes != after.memory_bytes {
        parts.push(format!("memory {} -> {}", mib(before.memory_bytes), mib(after.memory_bytes)));
    }
    if to == Ring::R3 {
        parts.push("writes off".to_owned());
    }
    let routes = |ring: Ring| plan.models.routes_at(ring).len();
    if routes(from) != routes(to) {
        parts.push(format!("{} model routes -> {}", routes(from), routes(to)));
    }
    let hosts = |ring: Ring| plan.destinations_at(ring).len();
    if hosts(from) != hosts(to) {
        parts.push(format!("{} hosts -> {}", hosts(from), hosts(to)));
    }
    if parts.is_empty() { format!("the protections of {to}") } else { parts.join(", ") }
}
