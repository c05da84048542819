//! Health checks of running agents: asked for beside the loop, judged in it.
//!
//! A command runs in the ring (`agt_rings::launch::Checker`), a port is knocked at from inside (`knock`); here is when that is done
//! and what is told of it. Checks belong to a
//! life: they are aborted with it, and a result that comes later is ignored. While an operator or a quarantine holds the agent
//! frozen, nothing is held against it.

mod knock;
mod looked;

use std::sync::Arc;
use std::time::Duration;

use agt_gateway::publish::Inside;
use agt_rings::launch::Checker;
use agt_sre::sli::Outcome as Evidence;
use tokio::sync::mpsc;

use self::knock::Knock;
pub use self::looked::Looked;
use super::Supervisor;
use super::agent::Agent;
use super::audience::Line;
use super::definition::Definition;
use super::event::{Event, Whose};
use super::records::wall_ms;
use super::status::{CheckSeen, HealthState, HealthStatus};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::plan::Look;
use crate::config::units::Span;
use crate::machine::health::{Health, Passed, Rules, Watch};
use crate::machine::lifecycle::{self, Death, Now, State};

const READY: Action = Action::new("health.ready");
const UNHEALTHY: Action = Action::new("health.unhealthy");

/// By what an agent is looked at.
#[derive(Debug, Clone)]
enum Means {
    Command(Arc<Checker>),
    Knock(Knock),
}

impl Means {
    async fn look(self, timeout: Span) -> std::io::Result<Looked> {
        match self {
            Means::Command(checker) => {
                let checked = tokio::task::spawn_blocking(move || checker.check(timeout.0)).await;
                let checked = checked.unwrap_or_else(|e| Err(std::io::Error::other(e)));
                checked.map(|checked| Looked::of(checked, timeout))
            }
            Means::Knock(knock) => Ok(knock.look(timeout).await),
        }
    }
}

/// The health of one agent.
#[derive(Debug, Default)]
pub(super) struct Watched {
    means: Option<Means>,
    watch: Option<Watch>,
    last: Option<CheckSeen>,
    /// Kept over a restart: it says what the restart was for.
    last_failure: Option<CheckSeen>,
}

impl Watched {
    /// The life is over, and its checks with it. What the last one said stays to be read.
    pub(super) fn end(&mut self) {
        self.means = None;
        self.watch = None;
    }

    pub(super) fn status(&self, definition: &Definition, state: &State) -> Option<HealthStatus> {
        let health = definition.plan.health.as_ref()?;
        let failures = match state {
            State::Running { unhealthy, .. } => *unhealthy,
            _ => 0,
        };
        let state = match state {
            State::Running { unhealthy: 1.., .. } => HealthState::Failing,
            State::Running { .. } if self.watch.is_some_and(|watch| watch.is_ready()) => HealthState::Healthy,
            State::Running { .. } | State::Starting => HealthState::Starting,
            State::Stopping { death: Death::Unhealthy }
            | State::Killing { death: Death::Unhealthy }
            | State::Backoff { death: Death::Unhealthy, .. }
            | State::Ended { death: Death::Unhealthy, .. } => HealthState::Unhealthy,
            _ => HealthState::Down,
        };
        Some(HealthStatus {
            state,
            failures,
            retries: health.retries,
            last: self.last.clone(),
            last_failure: self.last_failure.clone(),
        })
    }
}

/// The supervisor's own evidence of an agent's availability; `None`: there is nothing to say.
pub(super) fn evidence(agent: &Agent) -> Option<Evidence> {
    let has_check = agent.definition.plan.health.is_some();
    match agent.life.state() {
        // Not ready yet is neither up nor down, unless failures count already.
        State::Running { unhealthy: 0, .. } if has_check && !agent.health.watch.is_some_and(|w| w.is_ready()) => None,
        State::Running { unhealthy: 0, .. } => Some(Evidence::Good),
        State::Running { .. }
        | State::Backoff { .. }
        | State::Stopping { death: Death::Unhealthy }
        | State::Killing { death: Death::Unhealthy } => Some(Evidence::Bad),
        _ => None,
    }
}

/// Begins the checks of a life. `inside`: the way to its ports.
pub(super) fn begin(
    agent: &mut Agent,
    checker: Option<Checker>,
    inside: Option<Arc<dyn Inside>>,
    now: Now,
    events: &mpsc::UnboundedSender<Event>,
) {
    agent.health = Watched { last_failure: agent.health.last_failure.take(), ..Watched::default() };
    let Some(health) = &agent.definition.plan.health else { return };
    let means = match &health.look {
        Look::Command { .. } => checker.map(|checker| Means::Command(Arc::new(checker))),
        Look::Knock { port, http } => Some(Means::Knock(Knock { inside, port: *port, http: http.clone() })),
    };
    let Some(means) = means else { return };
    let rules = Rules {
        interval: health.interval.0,
        start_period: health.start_period.0,
        ready_within: agent.definition.start_timeout(),
    };
    agent.health.means = Some(means);
    agent.health.watch = Some(Watch::new(rules, now));
    arm(agent, Duration::ZERO, events);
}

/// Has a check run after a time. There is one at a time: the next is armed when the last one's result was heard.
fn arm(agent: &mut Agent, after: Duration, events: &mpsc::UnboundedSender<Event>) {
    let (Some(means), Some(health)) = (agent.health.means.clone(), &agent.definition.plan.health) else { return };
    let (whose, events, timeout) = (agent.whose(), events.clone(), health.timeout);
    // Those that have ended are let go of, or a long life would keep them all.
    while agent.served.try_join_next().is_some() {}
    agent.served.spawn(async move {
        tokio::time::sleep(after).await;
        let checked = means.look(timeout).await;
        // The loop has ended: so has the check's purpose.
        let _ = events.send(Event::Checked(whose, Box::new(checked)));
    });
}

impl Supervisor {
    /// Takes a check's result.
    pub(super) async fn checked(&mut self, whose: &Whose, checked: std::io::Result<Looked>) {
        let now = self.now();
        let quarantined = self.governor.get(&whose.agent).is_some_and(|governed| governed.quarantined.is_some());
        let events = self.events.clone();
        let Some(agent) = self.agents.get_mut(&whose.agent).filter(|agent| agent.launches == whose.life) else {
            return;
        };
        let (Some(health), true) = (&agent.definition.plan.health, matches!(agent.life.state(), State::Running { .. }))
        else {
            return;
        };
        let (interval, retries) = (health.interval.0, health.retries);
        let checked = match checked {
            Ok(checked) if !quarantined && agent.frozen.is_none() => checked,
            Ok(_) => return arm(agent, interval, &events),
            Err(e) => {
                eprintln!("error: {}: its health check can't be run: {e}", whose.agent);
                return arm(agent, interval, &events);
            }
        };
        let passed = checked.passed;
        let last = checked.seen();
        self.telemetry.checked(&whose.agent, passed);
        agent.health.last = Some(last.clone());
        if passed == Passed::No {
            agent.health.last_failure = Some(last.clone());
        }
        let Some(watch) = &mut agent.health.watch else { return };
        let judged = watch.seen(passed, now);
        arm(agent, judged.next_in, &events);
        if let Some(after) = judged.ready_after_ms {
            self.say_ready(&whose.agent, after);
        }
        let Some(counts) = judged.counts else { return };
        self.step_life(whose, lifecycle::Event::Health(counts)).await;
        let state = self.agents.get(&whose.agent).map(|agent| agent.life.state().clone());
        if matches!(state, Some(State::Stopping { death: Death::Unhealthy })) {
            let why = match counts {
                Health::NeverGood => "no health check has passed since its start".to_owned(),
                Health::Good | Health::Bad if retries == 1 => "a health check failed".to_owned(),
                Health::Good | Health::Bad => format!("{retries} health checks in a row failed"),
            };
            self.say_unhealthy(&whose.agent, &why, &last);
        }
    }

    fn say_ready(&self, name: &str, after_ms: u64) {
        let text = format!("{name}  ready after {:.1} s: its health check passes", seconds(after_ms));
        self.say(name, Line::Course, text);
        self.note_health(name, READY, &format!("after {after_ms} ms"));
    }

    fn say_unhealthy(&self, name: &str, why: &str, last: &CheckSeen) {
        let mut text = format!("warning: {name} is unhealthy: {why}; the last one {}. It is ended.", last.result);
        if let Some(line) = last.output.lines().rev().find(|line| !line.trim().is_empty()) {
            text.push_str(&format!("\n  it said: {}", super::streams::escaped(line)));
        }
        text.push_str(&format!("\nhelp: agt-supervise status {name}"));
        self.say(name, Line::Matter, text);
        self.note_health(name, UNHEALTHY, &format!("{why}; the last one {}", last.result));
    }

    fn note_health(&self, name: &str, action: Action, reason: &str) {
        let record = Record::new(wall_ms(), Actor::Supervisor, action, Outcome::Noted).agent(name).reason(reason);
        // A lost note is counted by the store, and itself recorded.
        let _ = self.store.append_audit_nowait(record);
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
