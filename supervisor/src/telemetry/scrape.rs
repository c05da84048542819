//! One scrape: asks the loop, the store and the sources, and writes it all down.
//!
//! The supervisor's loop is asked as `ps` asks it, so a scrape costs what `ps` costs; scrapes that come closer together than
//! [`FRESH_FOR`] share one answer, so that nobody can keep the loop busy by asking. A loop that doesn't answer costs its
//! agents' state series and nothing else: what was counted is still told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::life::{Counted, Used};
use super::names;
use super::process;
use super::sample::Sample;
use super::state;
use super::{AGENTS_MAX, Telemetry};
use crate::driver::Handle;
use crate::driver::observing::GovernedNumbers;
use crate::driver::status::AgentStatus;
use crate::machine::limit_events::Limit;
use crate::store::Store;

/// How long an answer is given again.
pub const FRESH_FOR: Duration = Duration::from_millis(200);
/// How long the loop or the store may take for a scrape: far less than Prometheus's own patience of ten seconds.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a scrape needs. Clones share one.
#[derive(Debug, Clone)]
pub struct Scraper {
    telemetry: Telemetry,
    handle: Handle,
    store: Store,
    last: Arc<Mutex<Option<Given>>>,
}

/// An exposition and when it was written.
#[derive(Debug)]
struct Given {
    at: Instant,
    text: Arc<str>,
}

/// One thing that readiness depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Why not, if not.
    pub problem: Option<String>,
}

impl Scraper {
    /// A scraper.
    #[must_use]
    pub fn new(telemetry: Telemetry, handle: Handle, store: Store) -> Scraper {
        Scraper { telemetry, handle, store, last: Arc::default() }
    }

    /// The exposition of this moment.
    pub async fn exposition(&self) -> Arc<str> {
        let mut last = self.last.lock().await;
        if let Some(given) = last.as_ref().filter(|given| given.at.elapsed() < FRESH_FOR) {
            return Arc::clone(&given.text);
        }
        let text: Arc<str> = self.write().await.into();
        *last = Some(Given { at: Instant::now(), text: Arc::clone(&text) });
        text
    }

    async fn write(&self) -> String {
        let mut sample = Sample::new();
        sample.set(&names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        process::sample(&mut sample);
        if let Ok(Ok(observed)) = timeout(ANSWER_WITHIN, self.handle.observe()).await {
            add_agents(&mut sample, &self.telemetry, &observed.agents);
            add_governed(&mut sample, &self.telemetry, &observed.governed);
        }
        self.add_store(&mut sample).await;
        self.telemetry.inner.models.sample(&mut sample);
        for source in self.telemetry.sources() {
            source.sample(&mut sample);
        }
        sorted(&(self.telemetry.render() + &sample.render()))
    }

    async fn add_store(&self, sample: &mut Sample) {
        let counts = self.store.counts();
        let counted = [
            (&names::AUDIT_LOST, counts.lost_notes),
            (&names::AUDIT_HEADS, counts.heads),
            (&names::AUDIT_HEADS_FAILED, counts.failed_heads),
            (&names::STORE_COMMITS, counts.commits),
            (&names::STORE_REQUESTS, counts.requests),
            (&names::STORE_COMMITS_FAILED, counts.failed_commits),
            (&names::STORE_REFUSED, counts.refused_for_reserve),
            (&names::STORE_UPKEEP_FAILED, counts.failed_upkeep),
        ];
        for (metric, count) in counted {
            sample.set(metric, &[], count as f64);
        }
        let last = timeout(ANSWER_WITHIN, self.store.read(crate::store::Reader::audit_last)).await;
        sample.set_known(&names::AUDIT_RECORDS, &[], last.ok().and_then(Result::ok).map(|seq| seq as f64));
    }

    /// What the supervisor depends on, each with its problem if it has one.
    pub async fn checks(&self) -> [Check; 2] {
        [self.check_loop(ANSWER_WITHIN).await, self.check_store().await]
    }

    /// Whether the loop answers in time.
    pub async fn check_loop(&self, within: Duration) -> Check {
        let problem = match timeout(within, self.handle.observe()).await {
            Ok(Ok(_)) => None,
            Ok(Err(refusal)) => Some(refusal.to_string()),
            Err(_) => Some(format!("no answer within {} s", within.as_secs())),
        };
        Check { name: "loop", problem }
    }

    async fn check_store(&self) -> Check {
        let problem = match timeout(ANSWER_WITHIN, self.store.read(crate::store::Reader::audit_last)).await {
            Ok(Ok(_)) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(_) => Some(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
        };
        Check { name: "store", problem }
    }
}

fn add_agents(sample: &mut Sample, telemetry: &Telemetry, agents: &[AgentStatus]) {
    let mut unlabelled = 0_u32;
    for agent in agents {
        let Some(used) = telemetry.total_used(&agent.name, agent.life, agent.usage.as_ref()) else {
            unlabelled += 1;
            continue;
        };
        let labels = [("agent", agent.name.as_str())];
        sample.set_state(&names::AGENT_STATE, &labels, state::agent_state(&agent.state, agent.frozen));
        sample.set_state(&names::AGENT_RING, &labels, state::ring(agent.ring));
        if let Some(report) = &agent.report {
            sample.set_state(&names::AGENT_ENFORCED, &labels, report.extent());
        }
        if let Some(health) = &agent.health {
            sample.set_state(&names::AGENT_HEALTH, &labels, health.state.word());
        }
        let usage = agent.usage.unwrap_or_default();
        let number = |value: Option<u64>| value.map(|value| value as f64);
        let seconds = |usec: Option<u64>| usec.map(|usec| usec as f64 / 1e6);
        sample.set_known(&names::AGENT_MEMORY, &labels, number(usage.memory_bytes));
        sample.set_known(&names::AGENT_TASKS, &labels, number(usage.tasks));
        sample.set_known(&names::AGENT_MEMORY_LIMIT, &labels, number(agent.memory_limit_bytes));
        sample.set_known(&names::AGENT_MEMORY_PEAK, &labels, number(usage.memory_peak_bytes));
        sample.set_known(&names::AGENT_TASKS_PEAK, &labels, number(usage.tasks_peak));
        let wanted = &agent.limits.wanted;
        sample.set_known(&names::AGENT_TASKS_LIMIT, &labels, wanted.tasks.map(f64::from));
        sample.set_known(&names::AGENT_CPU_LIMIT, &labels, wanted.cpu_millis.map(|millis| f64::from(millis) / 1000.0));
        sample.set_known(&names::AGENT_CPU, &labels, seconds(used.get(Counted::CpuUsec)));
        sample.set_known(&names::AGENT_THROTTLED, &labels, seconds(used.get(Counted::ThrottledUsec)));
        sample.set_known(&names::AGENT_OOM_KILLS, &labels, number(used.get(Counted::Hits(Limit::OomKill))));
        sample.set_known(&names::AGENT_TASK_REFUSALS, &labels, number(used.get(Counted::Hits(Limit::Tasks))));
        sample.set_known(&names::AGENT_CPU_PERIODS, &labels, number(used.get(Counted::Periods)));
        add_used(sample, &agent.name, &used);
        add_metered(sample, agent);
    }
    sample.set(&names::AGENTS, &[], agents.len() as f64);
    sample.set(&names::AGENTS_WITHOUT_SERIES, &[], f64::from(unlabelled));
    debug_assert!(unlabelled == 0 || agents.len() > AGENTS_MAX || telemetry.lives().len() >= AGENTS_MAX);
}

/// What it asks of the gateway and of models.
fn add_metered(sample: &mut Sample, agent: &AgentStatus) {
    let name = agent.name.as_str();
    let in_flight = agent.requests.in_flight.map(|count| count as f64);
    sample.set_known(&names::NETWORK_IN_FLIGHT, &[("agent", name)], in_flight);
    let Some(models) = &agent.models else { return };
    sample.set(&names::MODEL_IN_FLIGHT, &[("agent", name)], models.in_flight.into());
    for spend in &models.spend {
        let labels = [("agent", name), ("period", spend.period.as_str())];
        sample.set(&names::MODEL_SPENT, &labels, spend.spent_usd);
        sample.set_known(&names::MODEL_CAP, &labels, spend.cap_usd);
    }
}

/// What has a second label beside the agent's.
fn add_used(sample: &mut Sample, agent: &str, used: &Used) {
    let number = |counted: Counted| used.get(counted).map(|value| value as f64);
    let seconds = |counted: Counted| number(counted).map(|usec| usec / 1e6);
    for limit in Limit::ALL {
        let labels = [("agent", agent), ("limit", limit.word())];
        sample.set_known(&names::AGENT_LIMIT_HITS, &labels, number(Counted::Hits(limit)));
    }
    let stalls = [
        ("cpu", "some", Counted::CpuSome),
        ("cpu", "full", Counted::CpuFull),
        ("memory", "some", Counted::MemorySome),
        ("memory", "full", Counted::MemoryFull),
        ("io", "some", Counted::IoSome),
        ("io", "full", Counted::IoFull),
    ];
    for (resource, kind, counted) in stalls {
        let labels = [("agent", agent), ("resource", resource), ("kind", kind)];
        sample.set_known(&names::AGENT_PRESSURE, &labels, seconds(counted));
    }
    let traffic = [("read", Counted::ReadBytes, Counted::Reads), ("write", Counted::WrittenBytes, Counted::Writes)];
    for (direction, bytes, operations) in traffic {
        let labels = [("agent", agent), ("direction", direction)];
        sample.set_known(&names::AGENT_IO_BYTES, &labels, number(bytes));
        sample.set_known(&names::AGENT_IO_OPERATIONS, &labels, number(operations));
    }
}

fn add_governed(sample: &mut Sample, telemetry: &Telemetry, governed: &[GovernedNumbers]) {
    for numbers in governed.iter().filter(|numbers| telemetry.is_labelled(&numbers.agent)) {
        numbers.slos.iter().for_each(|slo| sample.slo(&numbers.agent, slo));
        sample.trust(&numbers.agent, numbers.trust.into());
        sample.breaker(&numbers.agent, numbers.breaker);
    }
}

/// Families and their series by name: the recorders hold them in no order, and people read this too. A histogram keeps its
/// lines: buckets stand in order of their bounds, not of their text.
fn sorted(text: &str) -> String {
    let mut families: Vec<String> = text
        .split("\n\n")
        .filter(|family| !family.trim().is_empty())
        .map(|family| {
            let mut lines: Vec<&str> = family.lines().filter(|line| !line.is_empty()).collect();
            if !lines.iter().any(|line| line.starts_with("# TYPE") && line.ends_with(" histogram")) {
                // HELP before TYPE before the series, as `#` sorts before letters.
                lines.sort_unstable();
            }
            lines.join("\n")
        })
        .collect();
    families.sort_unstable();
    families.join("\n\n") + "\n"
}
