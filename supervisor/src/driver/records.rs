//! What of the agents' lives goes into the audit log, and what is said on standard error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::event::Refusal;
use super::streams::Wiring;
use super::{Again, Supervisor, Talk};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::machine::lifecycle::{self, Death};
use crate::store::StoreError;

pub(super) const LAUNCH: Action = Action::new("launch");
pub(super) const STOP: Action = Action::new("stop");
pub(super) const KILL: Action = Action::new("kill");
pub(super) const FREEZE: Action = Action::new("freeze");
pub(super) const THAW: Action = Action::new("thaw");
pub(super) const END: Action = Action::new("end");

/// Milliseconds since the epoch, for records; a clock before 1970 counts as 0.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What gives power could not be recorded, and what helps.
pub(super) fn not_recorded(error: &StoreError) -> Refusal {
    let help = error.help().map_or_else(String::new, |help| format!("\nhelp: {help}"));
    Refusal::NotRecorded(super::launching::in_full(error) + &help)
}

impl Supervisor {
    /// A launch gives power: it is on the disk before it happens.
    pub(super) async fn record_launch(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(agent) = self.agents.get(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        let definition = &agent.definition;
        let record = Record::new(wall_ms(), Actor::Uid(definition.plan.identity.uid), LAUNCH, Outcome::Allowed)
            .agent(name)
            .detail("ring", agent.ring.to_string())
            .detail("trust", self.score_of(name))
            .detail("plan", definition.plan_hash.as_str())
            .detail("program", definition.plan.program.display().to_string());
        self.durable(record).await
    }

    async fn durable(&self, record: Record) -> Result<(), Refusal> {
        self.store.append_audit(record).await.map(drop).map_err(|e| not_recorded(&e))
    }

    /// What takes power is noted after the fact; a lost note is counted by the store and itself recorded.
    pub(super) fn note_taking(&self, name: &str, action: Action, reason: &str) {
        let record = Record::new(wall_ms(), Actor::Supervisor, action, Outcome::Done).agent(name).reason(reason);
        let _ = self.store.append_audit_nowait(record);
    }

    pub(super) fn announce(&self, name: &str) {
        let Some(agent) = self.agents.get(name) else { return };
        let Some(plan) = &agent.plan else { return };
        if self.talk == Talk::Quiet {
            return;
        }
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
        line.push_str(&format!("  {} file rules", agent.definition.plan.files.len()));
        for forward in agent.definition.plan.forwards_at(agent.ring) {
            line.push_str(&format!("  net {}", forward.target));
        }
        line.push_str(&format!("   enforced: {}", plan.report.extent()));
        eprintln!("{line}");
        for words in agt_rings::report::in_words(&plan.report.gaps) {
            eprintln!("  not enforced: {words}");
        }
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
        let quiet = self.talk == Talk::Quiet;
        self.note_death(name, death);
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.last_death = Some(death.clone());
        let failed_launch = matches!(death, Death::LaunchFailed { .. });
        if failed_launch || !quiet {
            eprintln!("{}", obituary(name, death, again_in, agent.life.restarts()));
            if matches!(agent.life.state(), lifecycle::State::Ended { gave_up: lifecycle::GaveUp::Yes, .. }) {
                eprintln!("error: {name}: gave up after {} restarts within its window", agent.life.restarts());
            }
        }
        if again_in.is_some() {
            return;
        }
        if agent.again == Again::Yes {
            agent.again = Again::No;
            Box::pin(self.step(name, lifecycle::Event::Launch)).await;
            return;
        }
        // Whoever gave it its streams sees their end now; should it live again, its words go to its log.
        agent.wiring = Wiring::Log;
        let mut status = agent.status();
        status.governed = self.governor.get(name).map(|governed| governed.status(self.governor.now()));
        if let Some(file) = &agent.definition.status_file {
            let text = serde_json::to_string_pretty(&status).expect("a status is plain data");
            if let Err(e) = file.write(&(text + "\n")) {
                eprintln!("error: {name}: the status file {} can't be written: {e}", file.path().display());
            }
        }
        for owed in agent.owed.drain(..) {
            let _ = owed.send(Ok(vec![status.clone()]));
        }
        if let Some(done) = agent.done.take() {
            let _ = done.send(Ok(death.clone()));
        }
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
