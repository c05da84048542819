//! Metrics for Prometheus: what is counted as it happens, and what is read when somebody scrapes.
//!
//! Two recorders, because the two kinds age differently. What *happens* (restarts, deaths, launches) goes into one that lives as
//! long as the supervisor; its handles are kept, so that counting costs nanoseconds. What *is* (states, memory, budgets) is
//! registered in a new recorder at each scrape ([`sample::Sample`]), so that a series ends with the thing that it describes:
//! an agent that doesn't run has no memory, and a gauge that nobody sets any more can't go on telling its last value. The
//! crate's own way to forget, an idle timeout, would also forget counters of quiet agents.
//!
//! Series of an agent: its counters stay as long as the supervisor knows it, its state too; memory and tasks exist while it
//! runs. All of an agent's counters begin at 0 when it is taken up, because Prometheus sees no increase in a series that is
//! born with its first event. No more than [`AGENTS_MAX`] agents are labelled.
//!
//! The recorders are used directly and not installed as the process's global one: tests make many, and nothing here is hidden.

pub mod endpoint;
mod life;
mod model;
pub mod names;
mod process;
pub mod sample;
pub mod scrape;
pub mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agt_rings::Ring;
use agt_rings::cgroup::{Pressures, Stall, Usage};
use metrics::{Counter, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use self::life::{Life, Used};
use self::names::{Kind, Metric};
use self::sample::Sample;
use crate::denials::Class;
use crate::driver::{Carried, Took};
use crate::machine::health::Passed;

/// Most agents that have series of their own; each has about a hundred.
pub const AGENTS_MAX: usize = 500;
/// Most parts of the program that add to a scrape.
const SOURCES_MAX: usize = 16;
/// Buckets of launches and kills, in seconds: both take a few milliseconds when all is well, and are bounded at ten seconds.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Buckets of model calls, in seconds: those that OpenTelemetry advises, and what a long answer takes.
const CALL_SECONDS: [f64; 15] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 327.68];
/// Buckets of connections and requests, in seconds: from what stays on this host to a tunnel that is open for a working day.
const NETWORK_SECONDS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];
/// Buckets of tokens: OpenTelemetry's, up to what the largest context holds.
const TOKENS: [f64; 12] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

static METADATA: Metadata<'static> = Metadata::new("agt_supervise", Level::INFO, None);

/// A part of the program that knows numbers of its own: asked at each scrape, from several threads, and expected to answer from
/// memory.
pub trait Source: Send + Sync {
    /// Adds what is so now.
    fn sample(&self, into: &mut Sample);
}

/// The metrics of one supervisor. Clones are handles to the same.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// By the ring's number.
    launch_seconds: [Histogram; 4],
    kill_seconds: Histogram,
    kills_unverified: Counter,
    lives: Mutex<BTreeMap<String, Life>>,
    models: model::Models,
    sources: Mutex<Vec<Arc<dyn Source>>>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("agents", &self.lives().len()).finish_non_exhaustive()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Metrics that nothing has happened to yet.
    #[must_use]
    pub fn new() -> Telemetry {
        let mut builder = PrometheusBuilder::new();
        for metric in names::ALL.iter().filter(|metric| metric.kind == Kind::Histogram) {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, buckets(metric)).expect("there are buckets");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        names::ALL.iter().for_each(|metric| describe(&recorder, metric));
        let launch_seconds = state::RINGS.map(|ring| histogram(&recorder, &names::LAUNCH_SECONDS, &[("ring", ring)]));
        let kill_seconds = histogram(&recorder, &names::KILL_SECONDS, &[]);
        let kills_unverified = counter(&recorder, &names::KILLS_UNVERIFIED, &[]);
        let (lives, models, sources) = (Mutex::default(), model::Models::default(), Mutex::default());
        let inner = Inner { recorder, handle, launch_seconds, kill_seconds, kills_unverified, lives, models, sources };
        Telemetry { inner: Arc::new(inner) }
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<String, Life>> {
        self.inner.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of an agent's life, if it has series of its own.
    fn of<T>(&self, agent: &str, act: impl FnOnce(&mut Life) -> T) -> Option<T> {
        let mut lives = self.lives();
        if !lives.contains_key(agent) {
            if lives.len() >= AGENTS_MAX {
                return None;
            }
            lives.insert(agent.to_owned(), Life::new(&self.inner.recorder, agent));
        }
        lives.get_mut(agent).map(act)
    }

    /// A launch was decided.
    pub fn launching(&self, agent: &str) {
        self.of(agent, |life| life.begin(Instant::now()));
    }

    /// The program was executed.
    pub fn launched(&self, agent: &str, ring: Ring) {
        let took = self.of(agent, |life| life.started()).flatten().map(|began| began.elapsed());
        if let Some(took) = took {
            self.observe(&self.inner.launch_seconds[usize::from(ring.number())], took);
        }
    }

    /// A life's last numbers, read when its tree was gone. `life` counts launches.
    pub fn used(&self, agent: &str, life: u64, usage: &Usage) {
        self.of(agent, |known| known.observe(life, usage));
    }

    /// It is dead. A death without a life (a dead agent that is killed so that it stays dead) is none.
    pub fn died(&self, agent: &str, cause: &'static str) {
        self.of(agent, |life| life.end(cause));
    }

    /// A health check has ended.
    pub fn checked(&self, agent: &str, passed: Passed) {
        self.of(agent, |life| life.checked(passed));
    }

    /// It was denied something.
    pub fn denied(&self, agent: &str, class: Class, times: u64) {
        self.of(agent, |life| life.denied(class, times));
    }

    /// So much passed the gateway.
    pub(crate) fn carried(&self, agent: &str, kind: &str, outcome: &str, sum: Carried) {
        let recorder = &self.inner.recorder;
        self.of(agent, |_| {
            let labels = [("agent", agent), ("kind", kind), ("outcome", outcome)];
            counter(recorder, &names::NETWORK_REQUESTS, &labels).increment(sum.count);
            for (direction, bytes) in [("out", sum.sent), ("in", sum.received)] {
                let labels = [("agent", agent), ("direction", direction)];
                counter(recorder, &names::NETWORK_BYTES, &labels).increment(bytes);
            }
        });
    }

    /// So long it took, each: to the first byte of the answer, if one came, and to the end.
    pub(crate) fn timed(&self, agent: &str, kind: &str, each: &[Took]) {
        let recorder = &self.inner.recorder;
        self.of(agent, |_| {
            let labels = [("agent", agent), ("kind", kind)];
            let first = histogram(recorder, &names::NETWORK_FIRST, &labels);
            let whole = histogram(recorder, &names::NETWORK_DURATION, &labels);
            for took in each {
                took.first_byte.iter().for_each(|took| first.record(took.as_secs_f64()));
                whole.record(took.total.as_secs_f64());
            }
        });
    }

    /// The gateway refused it destinations.
    pub(crate) fn kept_in(&self, agent: &str, reason: &str, times: u64) {
        let labels = [("agent", agent), ("reason", reason)];
        self.of(agent, |_| counter(&self.inner.recorder, &names::NETWORK_DENIALS, &labels).increment(times));
    }

    /// Its connections waited for room.
    pub(crate) fn connections_waited(&self, agent: &str, times: u64) {
        let labels = [("agent", agent)];
        self.of(agent, |_| counter(&self.inner.recorder, &names::NETWORK_WAITED, &labels).increment(times));
    }

    /// Refusals that were not told apart.
    pub(crate) fn uncounted(&self, times: u64) {
        if times > 0 {
            counter(&self.inner.recorder, &names::NETWORK_UNCOUNTED, &[]).increment(times);
        }
    }

    /// Its restart rule starts it again.
    pub fn restarts(&self, agent: &str) {
        self.of(agent, |life| life.restarts.increment(1));
    }

    /// A kill has done its work; `None`: no empty cgroup confirmed it.
    pub fn killed(&self, took: Option<Duration>) {
        match took {
            Some(took) => self.observe(&self.inner.kill_seconds, took),
            None => self.inner.kills_unverified.increment(1),
        }
    }

    /// Adds a part of the program to each scrape. More than a fixed number is a mistake of the program, and is left out.
    pub fn add_source(&self, source: Arc<dyn Source>) {
        let mut sources = self.inner.sources.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(sources.len() < SOURCES_MAX, "who adds sources in a loop?");
        if sources.len() < SOURCES_MAX {
            sources.push(source);
        }
    }

    fn sources(&self) -> Vec<Arc<dyn Source>> {
        self.inner.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an agent has series of its own.
    fn is_labelled(&self, agent: &str) -> bool {
        self.of(agent, |_| ()).is_some()
    }

    /// What the agent's lives have used, the present one included; `None` when it has no series.
    fn total_used(&self, agent: &str, life: u64, usage: Option<&Usage>) -> Option<Used> {
        self.of(agent, |known| {
            if let Some(usage) = usage {
                known.observe(life, usage);
            }
            known.used()
        })
    }

    fn observe(&self, histogram: &Histogram, took: Duration) {
        histogram.record(took.as_secs_f64());
        // Samples wait in memory until somebody sorts them into buckets. Launches and kills are rare enough to do it at once, so
        // that no timer is needed and nothing grows when nobody scrapes.
        self.inner.handle.run_upkeep();
    }

    /// What was counted, in the exposition format.
    fn render(&self) -> String {
        self.inner.handle.render()
    }
}

/// Stall times as series: resource, kind, seconds.
pub(crate) fn pressure(pressures: &Pressures) -> impl Iterator<Item = (&'static str, &'static str, f64)> {
    let resources = [("cpu", pressures.cpu), ("memory", pressures.memory), ("io", pressures.io)];
    #[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
    let seconds = |stall: Stall| stall.total_usec as f64 / 1e6;
    resources.into_iter().filter_map(|(resource, pressure)| Some((resource, pressure?))).flat_map(
        move |(resource, pressure)| {
            let some = Some((resource, "some", seconds(pressure.some)));
            let full = pressure.full.map(|full| (resource, "full", seconds(full)));
            some.into_iter().chain(full)
        },
    )
}

fn buckets(metric: &Metric) -> &'static [f64] {
    match metric.name {
        name if name == names::MODEL_TOKENS.name => &TOKENS,
        name if name.starts_with("gen_ai_") => &CALL_SECONDS,
        name if name.starts_with("agt_network_") => &NETWORK_SECONDS,
        _ => &SECONDS,
    }
}

fn describe(recorder: &PrometheusRecorder, metric: &Metric) {
    let (name, help) = (metric.name.into(), SharedString::const_str(metric.help));
    match metric.kind {
        Kind::Counter => recorder.describe_counter(name, None, help),
        Kind::Gauge => recorder.describe_gauge(name, None, help),
        Kind::Histogram => recorder.describe_histogram(name, None, help),
    }
}

fn key(metric: &Metric, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(
        metric.labels.iter().map(|label| label.name).eq(labels.iter().map(|(name, _)| *name)),
        "{}: {labels:?}",
        metric.name
    );
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

fn counter(recorder: &PrometheusRecorder, metric: &Metric, labels: &[(&'static str, &str)]) -> Counter {
    let counter = recorder.register_counter(&key(metric, labels), &METADATA);
    counter.increment(0);
    counter
}

fn histogram(recorder: &PrometheusRecorder, metric: &Metric, labels: &[(&'static str, &str)]) -> Histogram {
    recorder.register_histogram(&key(metric, labels), &METADATA)
}

#[cfg(test)]
mod tests;
