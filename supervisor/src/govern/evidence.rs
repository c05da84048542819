//! Evidence about one agent: from its process, from its end, and from its own mouth.
//!
//! Whose word it is goes with every sample: the engine takes an agent's own word only where it costs it.

use std::time::Duration;

use agt_sre::breaker::{BreakerState, CallOutcome, Finished, Jitter};
use agt_sre::engine::Recorded;
use agt_sre::sli::{ClassId, Evidence, Outcome, Sample, Severity, Sli, Threshold};
use agt_sre::slo::Slo;
use agt_sre::time::Timestamp;

use super::governed::{Governed, Memory, News};
use super::report::{self, Reply, Report};
use crate::machine::lifecycle::Death;

/// Tasks that an agent may have open at once on its socket.
pub const TASKS_OPEN_MAX: usize = 256;
/// Over which time throughput with a threshold is measured.
const THROUGHPUT_EVERY: Duration = Duration::from_secs(60);

/// What became of something that an agent or the kernel reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Weight {
    /// Nothing that could call for a remedy at once.
    Light,
    /// Evaluate now.
    Heavy,
}

/// What an exit code of its own says to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCounts {
    /// An answer to whoever started it.
    AsAnswer,
    /// A failure, because its file says that failures are restarted.
    AsFailure,
}

impl Governed {
    fn record(&mut self, sample: &Sample, now: Timestamp) -> Weight {
        match self.engine.record(sample, now) {
            Recorded::Rejected(_) => Weight::Light,
            Recorded::Tripped => {
                self.news = News::Some;
                Weight::Heavy
            }
            Recorded::Counted => {
                self.news = News::Some;
                Weight::Heavy
            }
        }
    }

    /// One look at its process: up and healthy, or not. The supervisor's own evidence.
    pub fn observe_up(&mut self, outcome: Outcome, now: Timestamp) {
        let _ = self.record(&Sample::new(Sli::Availability, outcome, Evidence::Supervisor), now);
        if now.since(self.life.minute) >= THROUGHPUT_EVERY {
            let ended = f64::from(self.life.ended);
            self.life.ended = 0;
            self.life.minute = now;
            let _ = self.record(&Sample::new(Sli::Throughput, Outcome::Value(ended), Evidence::SelfReported), now);
        }
    }

    /// What the ends of a saga's steps say: the supervisor's own evidence.
    pub fn observe_saga(&mut self, samples: &[Sample], violation: Option<Severity>, now: Timestamp) {
        for sample in samples {
            let _ = self.record(sample, now);
        }
        if let Some(severity) = violation {
            self.news = News::Some;
            let _ = self.trust.violation(severity, now);
        }
    }

    /// It was denied something grave: the supervisor's own evidence, for whoever tells of it can only cost the agent. Trust it
    /// costs for an attempt to escape alone: one refused mount would take most agents out of their ring at the next start.
    pub fn observe_denial(&mut self, class: ClassId, severity: Severity, now: Timestamp) -> Weight {
        if severity == Severity::Critical {
            self.news = News::Some;
            let _ = self.trust.violation(severity, now);
        }
        self.record(&Sample::safety(Outcome::Bad, class, severity), now)
    }

    /// It died. Failures cost availability; limits that it ran into and kills cost trust.
    pub fn died(&mut self, death: &Death, counts: ExitCounts, now: Timestamp, jitter: Jitter) -> Option<Timestamp> {
        self.life.tasks.clear();
        let permit = self.life.permit.take();
        let severity = match death {
            // The limit was met, but not by the agent.
            Death::MemoryLimit if self.memory == Memory::Pressed => None,
            Death::MemoryLimit | Death::TimeLimit => Some(Severity::Low),
            Death::Killed { reason } if reason == "ring_breach" => Some(Severity::Critical),
            Death::Killed { reason } if reason == "budget_exhausted" => Some(Severity::Medium),
            _ => None,
        };
        self.memory = Memory::Own;
        if let Some(severity) = severity {
            self.news = News::Some;
            let _ = self.trust.violation(severity, now);
        }
        let by_itself = !matches!(death, Death::Stopped { .. } | Death::Killed { .. } | Death::LaunchFailed { .. });
        if by_itself {
            let outcome = if death.is_failure() { Outcome::Bad } else { Outcome::Good };
            let _ = self.record(&Sample::new(Sli::Availability, outcome, Evidence::Supervisor), now);
        }
        let outcome = match death {
            Death::Stopped { .. } | Death::Killed { .. } => return None,
            // An exit code is an answer unless somebody said that it is to be answered by a restart.
            Death::Exit { .. } if counts == ExitCounts::AsAnswer => CallOutcome::Ok,
            death if death.is_failure() => CallOutcome::Failed,
            _ => CallOutcome::Ok,
        };
        self.news = News::Some;
        match self.breaker.finish(permit?, outcome, Duration::ZERO, now, jitter) {
            Finished::Opened { until } => Some(until),
            Finished::Counted | Finished::Ignored | Finished::Closed => None,
        }
    }

    /// Takes the agent's own word.
    pub fn hear(&mut self, report: Report, now: Timestamp) -> (Reply, Weight) {
        match report {
            Report::Start { id } => (self.task_starts(id, now), Weight::Light),
            Report::End { id, outcome, about, cost_usd, latency_s } => {
                let began = self.life.tasks.remove(&id);
                let mut weight = Weight::Light;
                let mut own = |governed: &mut Governed, sli: Sli, outcome: Outcome| {
                    let sample = Sample {
                        sli,
                        outcome,
                        evidence: Evidence::SelfReported,
                        class: ClassId::OTHER,
                        severity: Severity::Low,
                    };
                    if governed.record(&sample, now) == Weight::Heavy {
                        weight = Weight::Heavy;
                    }
                };
                if let Some(took) = latency_s.or_else(|| began.map(|began| now.since(began).as_secs_f64())) {
                    own(self, Sli::Latency, Outcome::Value(took));
                }
                if let Some(cost) = cost_usd {
                    own(self, Sli::Cost, Outcome::Value(cost));
                }
                self.life.ended = self.life.ended.saturating_add(1);
                let paced = |slo: &Slo| matches!(slo.threshold(), Some(Threshold::AtLeast(_)));
                if !self.engine.slos().any(paced) {
                    own(self, Sli::Throughput, Outcome::Good);
                }
                match outcome {
                    report::Outcome::Bad => own(self, about, Outcome::Bad),
                    // The engine refuses praise of oneself and counts the refusal.
                    report::Outcome::Ok => own(self, about, Outcome::Good),
                }
                match (outcome, about) {
                    (report::Outcome::Ok, _) => {
                        let _ = self.trust.success(Evidence::SelfReported, now);
                    }
                    (report::Outcome::Bad, Sli::Safety) => {
                        let _ = self.trust.violation(Severity::Low, now);
                    }
                    (report::Outcome::Bad, _) => {}
                }
                (Reply::taken(), weight)
            }
        }
    }

    fn task_starts(&mut self, id: String, now: Timestamp) -> Reply {
        match self.breaker.state(now) {
            BreakerState::Open { until } => {
                let wait = until.since(now).as_secs_f64();
                return Reply::later("the circuit breaker is open: no new work", Some(wait));
            }
            BreakerState::ForcedOpen => return Reply::later("the circuit breaker is held open by an operator", None),
            BreakerState::Closed | BreakerState::HalfOpen | BreakerState::Disabled => {}
        }
        if self.life.tasks.len() >= TASKS_OPEN_MAX && !self.life.tasks.contains_key(&id) {
            return Reply::later(format!("{TASKS_OPEN_MAX} tasks are open: end one first"), None);
        }
        self.life.tasks.insert(id, now);
        Reply::taken()
    }
}
