//! The supervisor's loop: event -> machine -> actions -> performed.
//!
//! One task owns all agents. What blocks (a launch, a kill's wait) runs beside it and comes back as an event. What only takes
//! power (terminate, kill, freeze) is done at once and recorded right after; what gives power (a launch, a revival) is durable
//! in the audit log before it happens, and does not happen when it can't be recorded.

mod acting;
mod agent;
pub mod audience;
mod availability;
pub(crate) mod beside;
pub mod definition;
pub mod denied;
pub mod event;
pub mod experimenting;
mod governing;
pub mod ground;
mod handle;
pub mod health;
pub mod killing;
pub(crate) mod launching;
mod limit_alarms;
mod limit_watch;
pub mod limiting;
pub mod loaded;
pub mod logfile;
mod made;
mod marked;
pub mod noticing;
pub mod observing;
pub(crate) mod outlet;
mod reach;
pub mod records;
pub mod reload;
mod remedies;
pub mod sagas;
pub mod scene;
pub mod status;
pub mod status_file;
pub mod streams;
pub mod succession;
mod tame;
mod terminal;
pub mod total;
mod watching;
mod ways;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agt_rings::cgroup::Group;
use agt_rings::launch::{Exit, Running};
use tokio::sync::{mpsc, oneshot};

pub use self::handle::Handle;
pub(crate) use self::ways::{Carried, Gathered, Took};

use self::acting::Owed;
use self::agent::{Agent, STOP_WITHIN};
use self::beside::beside;
use self::definition::Definition;
use self::denied::Denied;
use self::event::{Event, Gone, Launched, NotLaunched, OutOfMemory, Refusal, Request, Whose};
use self::ground::Ground;
use self::limit_alarms::Alarms;
use self::status::{AgentStatus, KillSeen};
use self::streams::Wiring;
use crate::dirs::Dirs;
use crate::govern::Governor;
use crate::machine::lifecycle::{self, Action, Conclusion, Ended};
use crate::machine::limit_events::Meter;
use crate::store::Store;
use crate::telemetry::Telemetry;

/// Whether the supervisor outlives its agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It ends with the last one (`run`).
    UntilLast,
    /// It stays (`serve`).
    Service,
}

/// The loop's own data.
#[derive(Debug)]
pub struct Supervisor {
    mode: Mode,
    dirs: Dirs,
    ground: Arc<Ground>,
    store: Store,
    governor: Governor,
    agents: BTreeMap<String, Agent>,
    events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    began: Instant,
    ending: Ending,
    settled: Settled,
    talk: Talk,
    telemetry: Telemetry,
    ticks: u64,
    hosting: sagas::Hosting,
    /// Answers that wait for deaths.
    owed: Vec<Owed>,
    /// Work beside the agents that must be over before the end.
    holds: Arc<AtomicUsize>,
    /// The kill switch's way past this loop.
    reach: reach::Reach,
    ways: ways::Ways,
    /// How often the limits over all agents were met.
    meter: Meter,
    alarms: Option<Alarms>,
}

/// Whether the supervisor itself writes what happens to its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// Launches and ends.
    Normal,
    /// Only errors.
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Yes,
}

/// Whether whoever started the supervisor has nothing left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    No,
    Yes,
}

impl Supervisor {
    /// Makes a supervisor on laid ground.
    #[must_use]
    pub fn new(mode: Mode, dirs: Dirs, ground: Arc<Ground>, store: Store, talk: Talk) -> (Supervisor, Handle) {
        let (events, inbox) = mpsc::unbounded_channel();
        let holds = Arc::<AtomicUsize>::default();
        let alarms = Alarms::start(events.clone())
            .inspect_err(|e| eprintln!("warning: limits that agents meet are told late: {e}"))
            .ok();
        let supervisor = Supervisor {
            mode,
            dirs,
            ground,
            governor: Governor::new(store.clone()),
            store,
            agents: BTreeMap::new(),
            events,
            inbox,
            began: Instant::now(),
            ending: Ending::No,
            settled: Settled::No,
            talk,
            telemetry: Telemetry::new(),
            ticks: 0,
            hosting: sagas::Hosting::default(),
            owed: Vec::new(),
            holds,
            reach: reach::Reach::default(),
            ways: ways::Ways::default(),
            meter: Meter::default(),
            alarms,
        };
        let handle = supervisor.reached_by();
        (supervisor, handle)
    }

    fn reached_by(&self) -> Handle {
        Handle { events: self.events.clone(), holds: Arc::clone(&self.holds), reach: self.reach.clone() }
    }

    /// Counts into these metrics instead of some that nobody reads.
    #[must_use]
    pub fn counting_into(mut self, telemetry: Telemetry) -> Supervisor {
        self.telemetry = telemetry;
        self
    }

    /// Runs until the last agent is dead (or, as a service, until asked to end). Nothing of any agent is left then.
    pub async fn run(mut self) {
        let ticks = governing::tick(self.events.clone());
        watching::watch(&self.ground, self.events.clone());
        self.ground.watch_launchers(self.events.clone());
        while let Some(event) = self.inbox.recv().await {
            self.handle(event).await;
            self.forget_retired();
            let idle = self.agents.values().all(Agent::is_dead) && self.hosting.is_empty();
            let over = self.ending == Ending::Yes || (self.mode == Mode::UntilLast && self.settled == Settled::Yes);
            if idle && over && self.holds.load(Ordering::SeqCst) == 0 {
                break;
            }
        }
        ticks.abort();
        if let Err(e) = self.governor.flush().await {
            eprintln!("error: what the agents have earned and spent could not be stored: {e}");
        }
        streams::last_words(self.agents.values_mut().map(|agent| &mut agent.pumps).collect()).await;
        Ground::leave(self.ground, &self.dirs.cgroup_record()).await;
        if let Err(e) = self.store.close().await {
            eprintln!("error: the state store could not be closed in order: {e}");
        }
    }

    fn now(&self) -> lifecycle::Now {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Timer(whose, lifecycle::Timer::Backoff) if self.waits_for_breaker(&whose) => {}
            Event::Timer(whose, timer) => {
                let event = match timer {
                    lifecycle::Timer::Grace => lifecycle::Event::GraceOver,
                    lifecycle::Timer::Run => lifecycle::Event::RunTimeOver,
                    lifecycle::Timer::Backoff => lifecycle::Event::BackoffOver,
                };
                self.step_life(&whose, event).await;
            }
            Event::Launched(whose, result) => self.launched(&whose, *result).await,
            Event::Exited(whose, gone) => self.exited(&whose, *gone).await,
            Event::Killed(whose, report) => {
                if let Some(gone) = self.note_kill(&whose, report) {
                    self.exited(&whose, gone).await;
                }
            }
            Event::Checked(whose, checked) => self.checked(&whose, *checked).await,
            Event::Request(request) => self.request(request).await,
            Event::Said(whose, report, answer) => self.said(&whose, report, answer).await,
            Event::LimitMet(whose) => self.limit_met(&whose),
            Event::Noticed(whose, heard) => self.noticed(&whose, heard).await,
            Event::Limited(limited) => self.limited(*limited),
            Event::Passed(gathered) => self.passed(*gathered).await,
            Event::Released => {}
            Event::Tick => self.look_around().await,
            Event::WatchdogGone => self.watchdog_gone(),
            Event::LauncherGone => self.launcher_gone(),
        }
    }

    async fn request(&mut self, request: Request) {
        match request {
            Request::Add { definition, wiring, done } => self.add(*definition, wiring, done).await,
            Request::Status { agent, answer } => {
                let seen = self.named(agent.as_deref()).map(|names| self.see(&names));
                let _ = answer.send(seen);
            }
            Request::Observe { answer } => {
                let _ = answer.send(self.observe());
            }
            Request::Scene { agent, answer } => {
                let _ = answer.send(self.scene(&agent));
            }
            Request::Experiment { agent, order, answer } => {
                let _ = answer.send(self.experiment(&agent, order).await);
            }
            Request::Act { agent, act, by, reason, answer } => {
                self.act(agent.as_deref(), act, by, reason, answer).await
            }
            Request::Limit { body, by, answer } => self.limit(body, by, answer).await,
            Request::Saga(ask) => self.saga(ask).await,
            Request::Reload(ask) => self.reload(ask).await,
            Request::Wish { agent, tenure, wish, by } => self.wish(&agent, tenure, wish, by).await,
            Request::Settle => self.settled = Settled::Yes,
            Request::Govern { ask, by, answer } => {
                let _ = answer.send(self.govern(ask, by).await);
            }
            Request::Shutdown => self.end_all(1).await,
            // A stop during a stop ends its grace. No kill switch: nobody said that they must not be started again.
            Request::ShutdownNow => self.end_all(2).await,
        }
    }

    fn is_ending(&self) -> bool {
        self.ending == Ending::Yes
    }

    async fn end_all(&mut self, stops: usize) {
        self.ending = Ending::Yes;
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            let Some(agent) = self.agents.get_mut(&name).filter(|agent| !agent.is_dead()) else { continue };
            agent.not_again();
            for _ in 0..stops {
                self.step(&name, lifecycle::Event::Stop).await;
            }
            self.note_taking(&name, records::STOP, "the supervisor was told to end");
        }
    }

    fn named(&self, agent: Option<&str>) -> Result<Vec<String>, Refusal> {
        match agent {
            None => Ok(self.agents.keys().cloned().collect()),
            Some(name) if self.agents.contains_key(name) => Ok(vec![name.to_owned()]),
            Some(name) => Err(Refusal::Unknown(name.to_owned())),
        }
    }

    fn statuses(&self, names: &[String]) -> Vec<AgentStatus> {
        self.see(names).into_iter().map(observing::Seen::read).collect()
    }

    async fn add(
        &mut self,
        mut definition: Definition,
        wiring: Wiring,
        done: oneshot::Sender<Result<Conclusion, Refusal>>,
    ) {
        let name = definition.name().to_owned();
        if self.ending == Ending::Yes {
            let _ = done.send(Err(Refusal::Ending));
            return;
        }
        if let Some(known) = self.agents.get(&name) {
            let refusal = if known.definition.plan.identity != definition.plan.identity {
                let other = known.definition.plan.identity.source.display().to_string();
                Some(Refusal::NameTaken { name: name.clone(), other })
            } else if !known.is_dead() {
                Some(Refusal::AlreadyRuns(name.clone()))
            } else {
                None
            };
            if let Some(refusal) = refusal {
                let _ = done.send(Err(refusal));
                return;
            }
        }
        if let Err(refusal) = self.take_up(&definition).await {
            let _ = done.send(Err(refusal));
            return;
        }
        definition.own_id = self.own_id(&definition);
        definition.note_files(&self.ground.loaded);
        let log = self.dirs.logs().join(format!("{name}.log"));
        let mut agent = Agent::new(definition, wiring, log, done);
        // Lives are counted on: what is late from an earlier one must not be taken for this one's.
        agent.launches = self.agents.get(&name).map_or(0, |known| known.launches);
        agent.denied = Denied::recall(&self.store, agent.definition.told_as()).await;
        self.agents.insert(name.clone(), agent);
        self.begin_task(&name).await;
        self.step(&name, lifecycle::Event::Launch).await;
    }

    /// A uid of the agent's own: from its identity, so that it is the same at each launch, and never one that another agent
    /// here has.
    fn own_id(&self, definition: &Definition) -> u32 {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        definition.plan.identity.hash(&mut hasher);
        let count = agt_rings::builtin::OWN_ID_COUNT;
        let first = u32::try_from(hasher.finish() % u64::from(count)).expect("below a u32 count");
        let taken = |id: u32| {
            self.agents
                .values()
                .any(|other| other.definition.own_id == id && other.definition.name() != definition.name())
        };
        (0..count)
            .map(|offset| agt_rings::builtin::OWN_ID_BASE + (first + offset) % count)
            .find(|id| !taken(*id))
            .expect("there are more ids than agents")
    }

    /// Feeds an event of one particular life; events of earlier lives are late and mean nothing.
    async fn step_life(&mut self, whose: &Whose, event: lifecycle::Event) {
        if self.agents.get(&whose.agent).is_some_and(|agent| agent.launches == whose.life) {
            self.step(&whose.agent, event).await;
        }
    }

    async fn step(&mut self, name: &str, event: lifecycle::Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let now = self.now();
            let Some(agent) = self.agents.get_mut(name) else { return };
            let actions = agent.life.step(event, now, rand::random());
            for action in actions {
                if let Some(follow_up) = self.perform(name, action).await {
                    next = Some(follow_up);
                }
            }
        }
    }

    /// Performs one action. An action that fails at once answers with the event that says so.
    async fn perform(&mut self, name: &str, action: Action) -> Option<lifecycle::Event> {
        let events = self.events.clone();
        let agent = self.agents.get_mut(name)?;
        match action {
            Action::Arm(timer, after) => agent.arm(timer, after, &events),
            Action::DisarmAll => agent.disarm_all(),
            Action::Terminate => {
                if let Some(running) = &agent.running {
                    // ESRCH: it has ended, and its exit is on the way.
                    let _ = running.signal(libc::SIGTERM);
                }
                self.note_ending(name, records::STOP);
            }
            Action::KillTree => {
                agent.strikes += 1;
                kill_tree(agent.whose(), agent.group.clone(), agent.running.clone(), events);
                self.note_ending(name, records::KILL);
            }
            Action::Launch => return self.launch(name).await,
            Action::Announce => self.announce(name),
            Action::Bury { death, again_in } => self.bury(name, &death, again_in).await,
        }
        None
    }

    async fn launched(&mut self, whose: &Whose, result: Result<Launched, NotLaunched>) {
        let now = self.now();
        let Some(agent) = self.agents.get_mut(&whose.agent).filter(|a| a.launches == whose.life) else { return };
        match result {
            Ok(mut launched) => {
                let made = ways::Made::by(&mut launched.running, whose, agent.ring);
                health::begin(agent, launched.running.take_checker(), made.inside(), now, &self.events);
                let (notices, names) = (launched.running.take_notices(), launched.plan.names.as_ref());
                let ear = noticing::of_agent(whose, agent, notices, names, &self.events);
                let running = Arc::new(launched.running);
                self.reach.enter(&whose.agent, &running, launched.group.as_ref());
                agent.running = Some(Arc::clone(&running));
                agent.group = launched.group.clone();
                governing::serve(agent, whose, &launched.plan, &self.events);
                agent.plan = Some(launched.plan);
                agent.started = Some(Instant::now());
                self.telemetry.launched(&whose.agent, agent.ring);
                watch(whose.clone(), running, launched.group, ear, self.events.clone());
                self.open_way_out(&whose.agent, made);
                self.listen_for_limits(whose);
                self.step_life(whose, lifecycle::Event::Started).await;
            }
            Err(failed) => {
                let event = lifecycle::Event::LaunchFailed { error: failed.error, code: failed.code };
                self.step_life(whose, event).await;
            }
        }
    }

    async fn exited(&mut self, whose: &Whose, gone: Gone) {
        self.heed_kill_marks().await;
        let Some(agent) = self.agents.get_mut(&whose.agent).filter(|agent| agent.launches == whose.life) else {
            return;
        };
        if agent.strikes > 0 {
            agent.gone = Some(gone);
            return;
        }
        self.close_way_out(&whose.agent).await;
        let Some(agent) = self.agents.get_mut(&whose.agent) else { return };
        if let Some(usage) = &gone.usage {
            self.telemetry.used(&whose.agent, whose.life, usage);
            agent.oom_kills_before += usage.oom_kills.unwrap_or(0);
        }
        self.reach.leave(&whose.agent);
        agent.running = None;
        agent.group = None;
        agent.started = None;
        agent.frozen = None;
        agent.served.abort_all();
        agent.health.end();
        self.listen_no_more(&whose.agent);
        if let Some(usage) = &gone.usage {
            self.count_hits(&whose.agent, &usage.hits());
        }
        let status = |usage: agt_rings::launch::Usage| usage.status;
        let ended = match gone.exit {
            Exit::Ended(usage) if libc::WIFEXITED(status(usage)) && libc::WEXITSTATUS(status(usage)) == 0 => {
                Ended::Exit(0)
            }
            // The OOM killer ends by SIGKILL: whoever died of another signal outlived what it did.
            Exit::Ended(usage)
                if libc::WIFSIGNALED(status(usage)) && libc::WTERMSIG(status(usage)) != libc::SIGKILL =>
            {
                Ended::Signal(libc::WTERMSIG(status(usage)))
            }
            _ if gone.out_of_memory == OutOfMemory::Seen => Ended::OutOfMemory,
            Exit::Ended(usage) if libc::WIFEXITED(status(usage)) => Ended::Exit(libc::WEXITSTATUS(status(usage))),
            Exit::Ended(usage) => Ended::Signal(libc::WTERMSIG(status(usage))),
            Exit::Taken => Ended::Taken,
        };
        self.step_life(whose, lifecycle::Event::Ended(ended)).await;
    }

    /// Notes what a kill did; the end that waited for the last of them.
    fn note_kill(&mut self, whose: &Whose, seen: KillSeen) -> Option<Gone> {
        self.telemetry.killed(seen.took_us.map(Duration::from_micros));
        let agent = self.agents.get_mut(&whose.agent).filter(|agent| agent.launches == whose.life)?;
        agent.strikes = agent.strikes.saturating_sub(1);
        agent.kill = Some(seen);
        if agent.strikes == 0 { agent.gone.take() } else { None }
    }
}

/// Kills beside the loop: it waits for no lock, disk or queue of ours.
fn kill_tree(
    whose: Whose,
    group: Option<Arc<Group>>,
    running: Option<Arc<Running>>,
    events: mpsc::UnboundedSender<Event>,
) {
    // Its end comes back as an event.
    drop(beside("agt-kill", move || {
        let seen = killing::end(group.as_deref(), running.as_deref(), STOP_WITHIN).unwrap_or_else(|e| {
            eprintln!("error: {}: the kill could not be verified: {}", whose.agent, launching::in_full(&e));
            KillSeen::unverified()
        });
        let _ = events.send(Event::Killed(whose, seen));
    }));
}

/// Waits for the end of one life and verifies that nothing is left of it.
fn watch(
    whose: Whose,
    running: Arc<Running>,
    group: Option<Arc<Group>>,
    ear: Option<Arc<noticing::Ear>>,
    events: mpsc::UnboundedSender<Event>,
) {
    tokio::spawn(async move {
        let exit = match launching::exit_of(&running).await {
            Ok(exit) => exit,
            Err(e) => {
                eprintln!("error: {}: how it ended can't be read: {e}", whose.agent);
                Exit::Taken
            }
        };
        let name = whose.agent.clone();
        let gone = beside("agt-clear", move || launching::clear_away(&name, exit, &running, group.as_deref())).await;
        let gone = gone.unwrap_or(Gone { exit, out_of_memory: OutOfMemory::NotSeen, usage: None });
        // What it was denied comes before its end.
        if let Some(ear) = ear {
            ear.last().await;
        }
        let _ = events.send(Event::Exited(whose, Box::new(gone)));
    });
}
