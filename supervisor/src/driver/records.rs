//! What of the agents' lives goes into the audit log, and what is said on standard error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agt_rings::spec::Enforcement;

use super::agent::Again;
use super::audience::Line;
use super::event::Refusal;
use super::streams::Wiring;
use super::{Ending, Supervisor};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::machine::lifecycle::{self, Conclusion, Death, State};
use crate::reloading::{LAUNCHED, Origin};
use crate::store::{Commit, Store, StoreError};

pub(super) const LAUNCH: Action = Action::new("launch");
pub(super) const STOP: Action = Action::new("stop");
pub(super) const KILL: Action = Action::new("kill");
pub(super) const FREEZE: Action = Action::new("freeze");
pub(super) const THAW: Action = Action::new("thaw");
pub(super) const RESTART: Action = Action::new("restart");
pub(super) const REVIVE: Action = Action::new("revive");
pub(super) const END: Action = Action::new("end");

/// Milliseconds since the epoch, for records; a clock before 1970 counts as 0.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long the loop waits for the disk before it refuses what was to be recorded.
pub(super) const RECORDED_WITHIN: Duration = Duration::from_secs(5);

/// What gives power could not be recorded, and what helps.
pub(super) fn not_recorded(error: &StoreError) -> Refusal {
    let help = error.help().map_or_else(String::new, |help| format!("\nhelp: {help}"));
    Refusal::NotRecorded(super::launching::in_full(error) + &help)
}

/// Waits for the disk, but not for ever: those whom the loop supervises must not go unsupervised. What comes too late is not done.
/// It may still reach the log, so a note behind it says that.
pub(super) async fn in_time<T>(store: &Store, what: Record, recorded: impl Future<Output = T>) -> Result<T, Refusal> {
    match tokio::time::timeout(RECORDED_WITHIN, recorded).await {
        Ok(recorded) => Ok(recorded),
        Err(_) => {
            let late =
                Record { outcome: Outcome::Failed, ..what }.detail("why", "the disk answered too late: not done");
            let _ = store.append_audit_nowait(late);
            let within = RECORDED_WITHIN.as_secs();
            Err(Refusal::NotRecorded(format!("the disk has not answered within {within} s, so it was not done")))
        }
    }
}

/// What an operator asked of the governor, for the case that it can't be recorded.
pub(super) fn asked(by: u32, agent: &str) -> Record {
    Record::new(wall_ms(), Actor::Operator(by), Action::new("operator.ask"), Outcome::Failed).agent(agent)
}

impl Supervisor {
    /// A launch gives power: it is on the disk before it happens. With it goes what it was launched from, for `why`.
    pub(super) async fn record_launch(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(agent) = self.agents.get(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        let definition = &agent.definition;
        let mut record = Record::new(wall_ms(), Actor::Uid(definition.plan.identity.uid), LAUNCH, Outcome::Allowed)
            .agent(name)
            .detail("ring", agent.ring.to_string())
            .detail("trust", self.score_of(name))
            .detail("plan", definition.plan_hash.as_str())
            .detail("program", definition.plan.program.display().to_string());
        let shows = definition.plan.ports_at(agent.ring);
        if !shows.is_empty() {
            let shows: Vec<String> = shows.iter().map(ToString::to_string).collect();
            record = record.detail("shows", shows.join(", "));
        }
        let launched = definition.origin.as_ref().map(Origin::launched);
        if let Some(operator) = launched.as_ref().and_then(|launched| launched.operator.as_ref()) {
            record = record.detail("operator", operator.display().to_string());
        }
        let commit = Commit::new().audit(record.clone());
        let commit = match &launched {
            Some(launched) => {
                commit.put_state(name, LAUNCHED, serde_json::to_value(launched).expect("plain data"), wall_ms())
            }
            // A run to learn from is not how the agent is launched.
            None if definition.learning.is_some() => commit,
            None => commit.delete_state(name, LAUNCHED),
        };
        in_time(&self.store, record, self.store.commit(commit)).await?.map(drop).map_err(|e| not_recorded(&e))
    }

    pub(super) async fn durable(&self, record: Record) -> Result<(), Refusal> {
        let what = record.clone();
        in_time(&self.store, what, self.store.append_audit(record)).await?.map(drop).map_err(|e| not_recorded(&e))
    }

    /// What takes power is noted after the fact; a lost note is counted by the store and itself recorded.
    pub(super) fn note_taking(&self, name: &str, action: Action, reason: &str) {
        let record = Record::new(wall_ms(), Actor::Supervisor, action, Outcome::Done).agent(name).reason(reason);
        self.note(record);
    }

    /// Notes a record without waiting; a lost note is counted by the store and itself recorded.
    pub(super) fn note(&self, record: Record) {
        let _ = self.store.append_audit_nowait(record);
    }

    /// Notes an end that a rule of ours wants. Whoever orders a stop or a kill notes that themselves, with their reason.
    pub(super) fn note_ending(&self, name: &str, action: Action) {
        match self.agents.get(name).map(|agent| agent.life.state()) {
            Some(State::Stopping { death: Death::Stopped { .. } } | State::Killing { death: Death::Killed { .. } }) => {
            }
            Some(State::Killing { death: Death::Stopped { .. } }) => {
                self.note_taking(name, action, "its stop was not heeded within its grace, or was asked for again");
            }
            Some(State::Stopping { death } | State::Killing { death }) => self.note_taking(name, action, death.word()),
            _ => self.note_taking(name, action, ""),
        }
    }

    pub(super) fn announce(&self, name: &str) {
        let Some(agent) = self.agents.get(name) else { return };
        let Some(plan) = &agent.plan else { return };
        let limits = &plan.limits;
        let mut line = format!("{name}  {}", plan.ring);
        if let Some(bytes) = limits.memory_bytes {
            line.push_str(&format!("  memory {}", bytes_text(bytes)));
        }
        if let Some(millis) = limits.cpu_millis {
            line.push_str(&format!("  cpu {}%", millis / 10));
        }
        if let Some(tasks) = limits.tasks {
            line.push_str(&format!("  tasks {tasks}"));
        }
        let rules = agent.definition.plan.files.len();
        line.push_str(&format!("  {rules} file rule{}", if rules == 1 { "" } else { "s" }));
        for to in agent.definition.plan.destinations_at(agent.ring) {
            line.push_str(&format!("  net {to}"));
        }
        for port in agent.shown.status() {
            line.push_str(&format!("  shows {} -> {}", port.listen, port.port));
        }
        line.push_str(&format!("   enforced: {}", plan.report.extent()));
        // Where less would do, it is said what there is.
        if agent.definition.plan.enforcement == Enforcement::BestEffort {
            for kept in &plan.report.enforced {
                line.push_str(&format!("\n  {:<20} {}", kept.protection.name(), kept.by.join(", ")));
            }
        }
        for words in agt_rings::report::in_words(&plan.report.gaps) {
            line.push_str(&format!("\n  not enforced: {words}"));
        }
        self.say(name, Line::Course, line);
    }

    /// Says, records and answers that an agent is dead.
    pub(super) async fn bury(&mut self, name: &str, death: &Death, again_in: Option<Duration>) {
        let record = Record::new(wall_ms(), Actor::Supervisor, END, Outcome::Noted)
            .agent(name)
            .reason(death.word())
            .detail("exit_code", i64::from(death.exit_code()));
        let _ = self.store.append_audit_nowait(record);
        self.telemetry.died(name, death.word());
        if again_in.is_some() {
            self.telemetry.restarts(name);
        }
        self.note_death(name, death);
        if matches!(death, Death::Taken) {
            // With its launcher, perhaps: the word of that may still be on its way, and this may be the last thing that is said.
            self.launcher_gone();
        }
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.last_death = Some(death.clone());
        let conclusion = agent.conclusion().unwrap_or(Conclusion { death: death.clone(), gave_up_after: None });
        let mut text = obituary(name, death, again_in, agent.life.restarts());
        if let Some(denials) = agent.denied.end(&self.store) {
            text.push_str(&format!("   {denials}"));
        }
        if let Some(restarts) = conclusion.gave_up_after {
            text.push_str(&format!("\nerror: {name}: gave up after {restarts} restarts within its window"));
        }
        let failed_launch = matches!(death, Death::LaunchFailed { .. });
        self.say(name, if failed_launch { Line::Matter } else { Line::Course }, text);
        if again_in.is_some() {
            return;
        }
        let Some(agent) = self.agents.get_mut(name) else { return };
        if agent.again == Again::Yes {
            agent.again = Again::No;
            // Killed, or everything ends: whoever wanted it started again was overruled.
            if self.ending == Ending::No && !matches!(death, Death::Killed { .. }) {
                self.pay_overruled(name);
                Box::pin(self.step(name, lifecycle::Event::Launch)).await;
                return;
            }
        }
        let Some(agent) = self.agents.get_mut(name) else { return };
        // Whoever gave it its streams sees their end now; should it live again, its words go to its log.
        agent.wiring = Wiring::Log;
        agent.shown = super::ways::Shown::default();
        let mut status = agent.status();
        status.governed = self.governor.get(name).map(|governed| governed.status(self.governor.now()));
        if let Some(file) = &agent.definition.status_file {
            let text = serde_json::to_string_pretty(&status).expect("a status is plain data");
            if let Err(e) = file.write(&(text + "\n")) {
                eprintln!("error: {name}: the status file {} can't be written: {e}", file.path().display());
            }
        }
        agent.audience = None;
        if let Some(done) = agent.done.take() {
            let _ = done.send(Ok(conclusion));
        }
        self.pay_for(name);
    }
}

/// What is said of a death, in one line.
#[must_use]
pub fn obituary(name: &str, death: &Death, again_in: Option<Duration>, restarts: u32) -> String {
    let mut line = match death {
        Death::Exit { code } => format!("{name}  exited {code}"),
        Death::Signal { signal } => format!("{name}  was ended by signal {signal}"),
        Death::MemoryLimit => format!("{name}  met its memory limit and was ended by the kernel"),
        Death::TimeLimit => format!("{name}  ran into its time limit and was ended"),
        Death::Unhealthy => format!("{name}  failed its health check and was ended"),
        Death::Killed { reason } => {
            format!("{name}  killed ({reason}): stays dead until `agt-supervise revive {name}`")
        }
        Death::Stopped { code } => format!("{name}  stopped, exit code {code}"),
        Death::LaunchFailed { error, .. } => format!("error: {name} was not started: {error}"),
        Death::Taken => format!("{name}  was ended from outside, with everything it had started"),
    };
    if let Some(delay) = again_in {
        line.push_str(&format!("; restart {restarts} in {:.1} s", delay.as_secs_f64()));
    }
    line
}

fn bytes_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    UNITS
        .iter()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size))
        .map_or_else(|| format!("{bytes} B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// The time of day in UTC, for people.
pub(super) fn clock() -> String {
    let seconds = wall_ms().div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
