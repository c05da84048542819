//! Where the loop and the governor meet: rings at launch, evidence in. What verdicts then do is in [`super::remedies`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agt_rings::Ring;
use agt_rings::plan::Plan;
use agt_sre::breaker::Jitter;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::agent::Agent;
use super::audience::{Audience, Line, say_to};
use super::availability;
use super::definition::Definition;
use super::event::{Event, Refusal, Whose};
use super::records;
use super::status::AgentStatus;
use super::{Supervisor, Talk};
use crate::audit::record::Action;
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
pub(super) const QUARANTINE_MOST: Duration = Duration::from_secs(300);

pub(super) const REMEDY: Action = Action::new("remedy");
pub(super) const DEMOTE: Action = Action::new("demote");
pub(super) const BREAKER_OPEN: Action = Action::new("breaker.open");

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
    agent.set_rate();
    let Some(listener) = agent.control.take() else { return };
    let own = nix::unistd::geteuid().as_raw();
    let served = socket::Served {
        whose: whose.clone(),
        uid: plan.ids.map_or(own, |ids| ids.uid),
        rate: Arc::clone(&agent.rate),
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
        let (subject, what) = (subject(definition).await, records::asked(plan.identity.uid, name));
        let taken = self.governor.take_up(&plan.identity, &plan.slos, subject, plan.ceiling, definition.vouching);
        let dropped = records::in_time(&self.store, what, taken).await?.map_err(refusal)?;
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
        status.models = self.ways.accounts.status(name);
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
        self.keep_denials();
        self.keep_models();
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
        // What is prepared for another life shows this very folder.
        let cleared = if never { std::fs::remove_dir_all(&folder) } else { socket::empty(&folder) };
        match cleared {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("warning: {}: {e}", folder.display());
            }
            _ => {}
        }
    }

    pub(super) async fn revive(&mut self, name: &str, by: u32, reason: &str) -> Result<(), Refusal> {
        let what = records::asked(by, name);
        let revived = records::in_time(&self.store, what, self.governor.revive(name, reason, by)).await?;
        revived.map(drop).map_err(refusal)
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
        let what = records::asked(by, ask.agent().unwrap_or_default());
        let answer = records::in_time(&self.store, what, self.governor.ask(ask, by)).await?.map_err(refusal)?;
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
