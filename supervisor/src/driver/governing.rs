//! Where the loop and the governor meet: rings at launch, evidence in, remedies performed.
//!
//! A remedy only takes power, so it acts at once and is noted right after; the store's mark of a kill is handed over without
//! waiting for the disk.

use std::path::PathBuf;
use std::time::Duration;

use agt_rings::Ring;
use agt_rings::plan::Plan;
use agt_sre::breaker::Jitter;
use agt_sre::engine::Verdict;
use agt_sre::remedy;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::agent::Agent;
use super::audience::{Audience, Line, say_to};
use super::availability;
use super::definition::Definition;
use super::event::{Event, Refusal, Whose};
use super::records::{self, wall_ms};
use super::status::{AgentStatus, Frozen};
use super::{Supervisor, Talk};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::spec::RestartPolicy;
use crate::exit;
use crate::govern::ask::{Answer, Ask};
use crate::govern::attestation::Subject;
use crate::govern::evidence::{ExitCounts, Weight};
use crate::govern::governor::GovernError;
use crate::govern::report::{Reply, Report};
use crate::govern::socket;
use crate::machine::lifecycle::{self, Death, State};

/// The variable that names an agent's control socket.
pub(super) const SOCKET_VARIABLE: &str = "AGT_SOCKET";
/// How often budgets are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two hand-overs of news to the store.
const STORE_EVERY: u64 = 2;
/// The longest quarantine: then the kill switch ends it.
const QUARANTINE_MOST: Duration = Duration::from_secs(300);

const REMEDY: Action = Action::new("remedy");
pub(super) const DEMOTE: Action = Action::new("demote");
const BREAKER_OPEN: Action = Action::new("breaker.open");

/// Wakes the loop once a second. A loop that is late gets one tick, not those it missed.
pub(super) fn tick(events: mpsc::UnboundedSender<Event>) -> AbortHandle {
    let task = tokio::spawn(async move {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            if events.send(Event::Tick).is_err() {
                return;
            }
        }
    });
    task.abort_handle()
}

/// Serves the control socket of a life that has begun.
pub(super) fn serve(agent: &mut Agent, whose: &Whose, plan: &Plan, events: &mpsc::UnboundedSender<Event>) {
    let Some(listener) = agent.control.take() else { return };
    let own = nix::unistd::geteuid().as_raw();
    let served = socket::Served {
        whose: whose.clone(),
        uid: plan.ids.map_or(own, |ids| ids.uid),
        per_minute: socket::lines_per_minute(plan.ring),
        events: events.clone(),
    };
    socket::serve(listener, served, &mut agent.served);
}

/// The exit code of a launch that the governor refuses.
pub(super) fn launch_code(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::BreakerOpen { .. } => exit::TRY_AGAIN,
        Refusal::Killed { .. } => exit::KILLED,
        _ => exit::REFUSED,
    }
}

pub(super) fn refusal(error: GovernError) -> Refusal {
    let in_full = |error: &dyn std::error::Error| super::launching::in_full(error);
    match error {
        GovernError::Unknown(name) => Refusal::Unknown(name),
        GovernError::NameTaken { name, other } => Refusal::NameTaken { name, other },
        GovernError::NotNow(text) => Refusal::NotNow(text),
        GovernError::State(e) => Refusal::BadState(in_full(&e)),
        GovernError::Store(e) => records::not_recorded(&e),
    }
}

impl Supervisor {
    /// Makes a new agent known to the governor, and refuses one that must not start.
    pub(super) async fn take_up(&mut self, definition: &Definition) -> Result<(), Refusal> {
        let name = definition.name();
        let plan = &definition.plan;
        let dropped = self
            .governor
            .take_up(&plan.identity, &plan.slos, subject(definition).await, plan.ceiling, definition.vouching)
            .await
            .map_err(refusal)?;
        tell_dropped(definition.audience.as_ref(), self.talk, name, &dropped);
        self.not_killed(name)?;
        self.breaker_closed(name)
    }

    pub(super) fn breaker_closed(&self, name: &str) -> Result<(), Refusal> {
        let Some(wait) = self.governor.refuses_for(name) else { return Ok(()) };
        let retry_after_s = (wait < Duration::MAX).then(|| wait.as_secs().max(1));
        Err(Refusal::BreakerOpen { name: name.to_owned(), retry_after_s })
    }

    /// Whether a restart has to wait for the breaker; the timer is armed again then.
    pub(super) fn waits_for_breaker(&mut self, whose: &Whose) -> bool {
        let Some(wait) = self.governor.refuses_for(&whose.agent) else { return false };
        let events = self.events.clone();
        let Some(agent) = self.agents.get_mut(&whose.agent).filter(|agent| agent.launches == whose.life) else {
            return false;
        };
        if !matches!(agent.life.state(), State::Backoff { .. }) {
            return false;
        }
        // One held open by an operator is asked again now and then.
        let wait = wait.clamp(Duration::from_millis(50), Duration::from_secs(60));
        agent.arm(lifecycle::Timer::Backoff, wait, &events);
        let (name, wait) = (&whose.agent, wait.as_secs());
        let text = format!("warning: {name}: its circuit breaker is open; it is started again in {wait} s");
        self.say(name, Line::Matter, text);
        true
    }

    /// The effective ring of the launch that follows, and the breaker's leave for it.
    pub(super) async fn set_ring(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(agent) = self.agents.get(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        let ceiling = agent.definition.plan.ceiling;
        let subject = subject(&agent.definition).await;
        let Some((choice, _)) = self.governor.choose(name, ceiling, &subject) else {
            return Err(Refusal::Unknown(name.to_owned()));
        };
        let requests = &agent.definition.plan.needs_attestation;
        if choice.ring != Ring::R0
            && let Some(first) = requests.first()
        {
            let why = choice.line(name, ceiling).unwrap_or_default();
            return Err(Refusal::Policy(format!("{}\nhelp: the attestation of R0 is that line; {why}", first.message)));
        }
        let now = self.governor.now();
        if let Some(governed) = self.governor.get_mut(name)
            && let Err(refused) = governed.admit(now)
        {
            let retry_after_s = refused.retry_after.map(|wait| wait.as_secs().max(1));
            return Err(Refusal::BreakerOpen { name: name.to_owned(), retry_after_s });
        }
        let Some(agent) = self.agents.get_mut(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        agent.ring = choice.ring;
        if let Some(line) = choice.line(name, ceiling) {
            self.say(name, Line::Course, format!("note: {line}"));
        }
        Ok(())
    }

    /// Makes the agent's control socket; without one it can't speak, which is no reason not to start it.
    pub(super) fn open_control(&mut self, name: &str) -> Option<PathBuf> {
        let folder = self.dirs.agent_socket_folder(name);
        let agent = self.agents.get_mut(name)?;
        agent.control = None;
        match socket::bind(&folder) {
            Ok(listener) => {
                agent.control = Some(listener);
                Some(folder)
            }
            Err(e) => {
                self.say(name, Line::Matter, format!("warning: {name} has no control socket: {e}"));
                None
            }
        }
    }

    pub(super) fn score_of(&self, name: &str) -> u32 {
        let now = self.governor.now();
        self.governor.get(name).map_or(0, |governed| u32::from(governed.trust().score(now).get()))
    }

    pub(super) fn status_of(&self, name: &str) -> Option<AgentStatus> {
        let mut status = self.agents.get(name)?.status();
        status.governed = self.governor.get(name).map(|governed| governed.status(self.governor.now()));
        Some(status)
    }

    /// A look at every agent: evidence of its process, then what its SLOs ask for.
    pub(super) async fn tick(&mut self) {
        let now = self.governor.now();
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            let Some(agent) = self.agents.get(&name) else { continue };
            let seen = availability::look(agent);
            let Some(governed) = self.governor.get_mut(&name) else { continue };
            let frozen = governed.quarantined;
            if let Some(seen) = seen.filter(|_| frozen.is_none()) {
                governed.observe_up(seen, now);
            }
            if frozen.is_some_and(|since| now.since(since) >= QUARANTINE_MOST) {
                let most = QUARANTINE_MOST.as_secs();
                self.say(&name, Line::Matter, format!("warning: {name}: nobody ended its quarantine within {most} s"));
                self.kill_for(&name, "quarantine_timeout").await;
                continue;
            }
            self.evaluate(&name).await;
        }
        self.look_at_limits();
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(STORE_EVERY) {
            self.governor.note_all();
        }
    }

    /// Takes an agent's word for what it may say.
    pub(super) async fn said(&mut self, whose: &Whose, report: Report, answer: oneshot::Sender<Reply>) {
        let name = &whose.agent;
        if self.agents.get(name).is_none_or(|agent| agent.launches != whose.life) {
            return;
        }
        let now = self.governor.now();
        let Some(governed) = self.governor.get_mut(name) else { return };
        let (reply, weight) = governed.hear(report, now);
        if weight == Weight::Heavy {
            self.evaluate(name).await;
        }
        // Last: what its word costs it has been taken before it can go on. It may be dead by now, and hear nothing.
        let _ = answer.send(reply);
    }

    async fn evaluate(&mut self, name: &str) {
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

    async fn kill_for(&mut self, name: &str, reason: &str) {
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
            "Demoted from {from} to {to} at {}: {changed}.\nIt is restarted in {to}, and returns at a start after the budget has recovered: agt-supervise slo {name} --explain",
            records::clock()
        );
        self.say(name, Line::Matter, text);
        self.note_taking(name, DEMOTE, &format!("{from} to {to}: {}", verdict.slo));
        let Some(agent) = self.agents.get_mut(name) else { return };
        if matches!(agent.life.state(), State::Running { .. } | State::Starting | State::Stopping { .. }) {
            agent.start_again();
            // Twice: power is taken at once, so there is no grace in the ring that it has lost.
            self.step(name, lifecycle::Event::Stop).await;
            self.step(name, lifecycle::Event::Stop).await;
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

    /// Evidence from a death.
    pub(super) fn note_death(&mut self, name: &str, death: &Death) {
        let Some(agent) = self.agents.get(name) else { return };
        let never = agent.definition.plan.restart.policy == RestartPolicy::Never;
        let counts = if never { ExitCounts::AsAnswer } else { ExitCounts::AsFailure };
        let now = self.governor.now();
        let Some(governed) = self.governor.get_mut(name) else { return };
        governed.quarantined = None;
        if let Some(until) = governed.died(death, counts, now, Jitter::new(rand::random())) {
            let wait = until.since(now).as_secs();
            let text = format!("warning: {name} fails too often: its circuit breaker is open for {wait} s");
            self.say(name, Line::Matter, text);
            self.note_taking(name, BREAKER_OPEN, "its runs fail");
        }
        let folder = self.dirs.agent_socket_folder(name);
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("warning: {}: {e}", folder.display());
            }
            _ => {}
        }
    }

    pub(super) async fn revive(&mut self, name: &str, by: u32, reason: &str) -> Result<(), Refusal> {
        self.governor.revive(name, reason, by).await.map(drop).map_err(refusal)
    }

    pub(super) async fn govern(&mut self, ask: Ask, by: u32) -> Result<Answer, Refusal> {
        if let Ask::Forget { agent, .. } = &ask
            && self.agents.get(agent).is_some_and(|agent| !agent.is_dead())
        {
            return Err(Refusal::NotNow(format!("{agent} is running: stop it first")));
        }
        let forgotten = match &ask {
            Ask::Forget { agent, .. } => Some(agent.clone()),
            _ => None,
        };
        let answer = self.governor.ask(ask, by).await.map_err(refusal)?;
        if let Some(name) = forgotten {
            // Another file may have the name from now on.
            self.agents.remove(&name);
        }
        Ok(answer)
    }
}

pub(super) fn tell_dropped(audience: Option<&Audience>, talk: Talk, name: &str, dropped: &[String]) {
    for slo in dropped {
        let text = format!("warning: {name}: its SLO {slo} is gone from its file, and what it had counted with it");
        say_to(audience, talk, Line::Matter, text);
    }
}

/// What an attestation would be about. Only R0 needs one, so only there the program is read.
pub(super) async fn subject(definition: &Definition) -> Subject {
    let plan = definition.plan.clone();
    let program = if plan.ceiling == Ring::R0 {
        let hashed = tokio::task::spawn_blocking(move || plan.program_hash()).await;
        hashed.ok().and_then(Result::ok).map(|hash| hash.to_string())
    } else {
        None
    };
    Subject { plan: definition.plan_hash.clone(), program }
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
    let hosts = |ring: Ring| plan.forwards_at(ring).len();
    if hosts(from) != hosts(to) {
        parts.push(format!("{} hosts -> {}", hosts(from), hosts(to)));
    }
    if parts.is_empty() { format!("the protections of {to}") } else { parts.join(", ") }
}
