//! One agent's runtime: its machine, its process, its timers, and who waits for its end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agt_gateway::limit::rate::Rate;
use agt_rings::Ring;
use agt_rings::cgroup::Group;
use agt_rings::launch::Running;
use agt_rings::plan::Plan;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::audience::{Audience, Tenure};
use super::definition::Definition;
use super::denied::Denied;
use super::event::{Event, Gone, Refusal, Whose};
use super::health::Watched;
use super::limiting::ByHand;
use super::status::{AgentStatus, Frozen, KillSeen};
use super::streams::Wiring;
use crate::machine::lifecycle::{Conclusion, Death, GaveUp, Lifecycle, State, Timer};
use crate::machine::limit_events::Meter;
use crate::repositories::Found;

/// How long a status may look at the kernel's numbers: it reads a handful of small files.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(10);

/// One agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) definition: Definition,
    pub(super) wiring: Wiring,
    /// The effective ring of the present or next life.
    pub(super) ring: Ring,
    pub(super) life: Lifecycle,
    pub(super) launches: u64,
    pub(super) running: Option<Arc<Running>>,
    pub(super) group: Option<Arc<Group>>,
    pub(super) plan: Option<Plan>,
    pub(super) started: Option<Instant>,
    pub(super) last_death: Option<Death>,
    pub(super) kill: Option<KillSeen>,
    /// Kills of the present life that have not reported yet.
    pub(super) strikes: u32,
    /// Its end, while a kill has yet to say what it did: whoever asked for the kill is owed its numbers.
    pub(super) gone: Option<Gone>,
    pub(super) log: PathBuf,
    /// Pumps of the present life; they end by themselves when the streams do.
    pub(super) pumps: JoinSet<()>,
    /// Watchers of the present life; aborted with it.
    pub(super) served: JoinSet<()>,
    /// Its place in the gateway, in a life that has a way out; taken with it.
    pub(super) way_out: Option<agt_gateway::live::Agent>,
    /// The ports that it shows to the host.
    pub(super) shown: super::ways::Shown,
    /// Its requests a minute, by whatever way.
    pub(super) rate: Arc<Rate>,
    /// The model routes of a launch that is on its way.
    pub(super) models: Option<agt_gateway::live::Models>,
    timers: HashMap<Timer, AbortHandle>,
    pub(super) done: Option<oneshot::Sender<Result<Conclusion, Refusal>>>,
    /// Whose it is, until `done` is told.
    pub(super) tenure: Tenure,
    /// Who hears what is said of it, if that is not this process's own terminal.
    pub(super) audience: Option<Audience>,
    /// Who holds its tasks.
    pub(super) frozen: Option<Frozen>,
    /// Start again once it is dead.
    pub(super) again: Again,
    /// OOM kills in its earlier lives.
    pub(super) oom_kills_before: u64,
    /// Its control socket, until its process is there to be served.
    pub(super) control: Option<UnixListener>,
    /// Its health checks.
    pub(super) health: Watched,
    /// Limits that an operator set while it ran, in place of its plan's.
    pub(super) by_hand: Option<ByHand>,
    /// New limits are on their way to the kernel.
    pub(super) limiting: bool,
    /// Whether they are to be set once more then.
    pub(super) limits_again: bool,
    /// How often its limits were met.
    pub(super) meter: Meter,
    /// What it was denied.
    pub(super) denied: Denied,
    /// The repositories that its last life left.
    pub(super) made: Found,
}

/// Whether a stop is the first half of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    No,
    Yes,
    /// Its file is gone: it is forgotten once it is dead, whatever else wanted it started again.
    Never,
}

impl Agent {
    pub(super) fn new(
        mut definition: Definition,
        wiring: Wiring,
        log: PathBuf,
        done: oneshot::Sender<Result<Conclusion, Refusal>>,
    ) -> Agent {
        Agent {
            ring: definition.plan.ceiling,
            tenure: definition.tenure,
            audience: definition.audience.take(),
            frozen: None,
            life: Lifecycle::new(definition.rules()),
            definition,
            wiring,
            launches: 0,
            running: None,
            group: None,
            plan: None,
            started: None,
            last_death: None,
            kill: None,
            strikes: 0,
            gone: None,
            log,
            pumps: JoinSet::new(),
            served: JoinSet::new(),
            way_out: None,
            shown: super::ways::Shown::default(),
            models: None,
            rate: Rate::new(None),
            timers: HashMap::new(),
            done: Some(done),
            again: Again::No,
            oom_kills_before: 0,
            control: None,
            health: Watched::default(),
            by_hand: None,
            limiting: false,
            limits_again: false,
            meter: Meter::default(),
            denied: Denied::default(),
            made: Found::default(),
        }
    }

    pub(super) fn whose(&self) -> Whose {
        Whose { agent: self.definition.name().to_owned(), life: self.launches }
    }

    /// Has it started again once it is dead.
    pub(super) fn start_again(&mut self) {
        if self.again != Again::Never {
            self.again = Again::Yes;
        }
    }

    /// It is being ended for good: a restart that was on its way is off.
    pub(super) fn not_again(&mut self) {
        if self.again == Again::Yes {
            self.again = Again::No;
        }
    }

    /// How it ended; `None` while it lives or has not lived.
    pub(super) fn conclusion(&self) -> Option<Conclusion> {
        let gave_up = matches!(self.life.state(), State::Ended { gave_up: GaveUp::Yes, .. });
        let gave_up_after = gave_up.then(|| self.life.restarts());
        self.last_death.clone().map(|death| Conclusion { death, gave_up_after })
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.life.state(), State::Ended { .. } | State::Idle)
    }

    pub(super) fn arm(&mut self, timer: Timer, after: Duration, events: &mpsc::UnboundedSender<Event>) {
        self.disarm(timer);
        let (whose, events) = (self.whose(), events.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            // The loop has ended: so has the timer's purpose.
            let _ = events.send(Event::Timer(whose, timer));
        });
        self.timers.insert(timer, task.abort_handle());
    }

    fn disarm(&mut self, timer: Timer) {
        if let Some(armed) = self.timers.remove(&timer) {
            armed.abort();
        }
    }

    pub(super) fn disarm_all(&mut self) {
        self.timers.drain().for_each(|(_, armed)| armed.abort());
    }

    /// What the loop knows; the kernel's numbers are read by [`super::observing::Seen`].
    pub(super) fn status(&self) -> AgentStatus {
        AgentStatus {
            name: self.definition.name().to_owned(),
            life: self.launches,
            state: self.life.state().clone(),
            ring: self.ring,
            ceiling: self.definition.plan.ceiling,
            report: self.plan.as_ref().map(|plan| plan.report.clone()),
            protected: self.plan.iter().flat_map(Plan::protected).map(Into::into).collect(),
            pid: self.running.as_ref().map(|running| running.pid()),
            up_ms: self.started.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            restarts: self.life.restarts(),
            last_death: self.last_death.clone(),
            exit_code: self.conclusion().map(|end| end.exit_code()),
            usage: None,
            memory_limit_bytes: self.limits_at(self.ring).memory_bytes,
            limits: self.limits_status(),
            ports: self.shown.status(),
            requests: self.requests_status(),
            models: None,
            log: Some(self.log.clone()).filter(|log| log.exists()),
            kill: self.kill.clone(),
            governed: None,
            frozen: self.frozen,
            remark: None,
            health: self.health.status(&self.definition, self.life.state()),
            made: self.made.clone(),
        }
    }
}
