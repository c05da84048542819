//! What is so at one moment, as series: filled anew for each scrape.
//!
//! The metrics crate's counters are whole numbers that are incremented. A sample's counters are readings with fractions (CPU
//! seconds), counted elsewhere; so they are recorded as gauges, which hold floating point, and get their own type's name when
//! the text is written.

use agt_sre::breaker::BreakerState;
use agt_sre::engine::SloStatus;
use metrics::Recorder;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::names::{self, Kind, Metric};
use super::state::{BREAKER_STATES, SLO_STATUSES};
use super::{METADATA, describe, key};

/// Most series of one sample: a bound for a mistake, far above what [`super::AGENTS_MAX`] agents need.
const SERIES_MAX: usize = 100_000;

/// Series of this moment.
pub struct Sample {
    recorder: PrometheusRecorder,
    described: Vec<&'static str>,
    counters: Vec<&'static str>,
    series: usize,
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sample").field("series", &self.series).finish_non_exhaustive()
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self::new()
    }
}

impl Sample {
    /// An empty one.
    #[must_use]
    pub fn new() -> Sample {
        let recorder = PrometheusBuilder::new().build_recorder();
        Sample { recorder, described: Vec::new(), counters: Vec::new(), series: 0 }
    }

    /// A gauge's or counter's value. The labels are those of the table, in its order.
    pub fn set(&mut self, metric: &'static Metric, labels: &[(&'static str, &str)], value: f64) {
        if self.series >= SERIES_MAX {
            return;
        }
        self.series += 1;
        if !self.described.contains(&metric.name) {
            self.described.push(metric.name);
            describe(&self.recorder, metric);
            if metric.kind == Kind::Counter {
                self.counters.push(metric.name);
            }
        }
        self.recorder.register_gauge(&key(metric, labels), &METADATA).set(value);
    }

    /// The same for a value that may be unknown: what is unknown has no series.
    pub fn set_known(&mut self, metric: &'static Metric, labels: &[(&'static str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.set(metric, labels, value);
        }
    }

    /// One series per word of a closed set, 1 for the present one. The set's label is the metric's last.
    pub fn set_state(&mut self, metric: &'static Metric, labels: &[(&'static str, &str)], now: &str) {
        let Some(set) = metric.labels.last() else { return };
        for word in set.values {
            let mut labels = labels.to_vec();
            labels.push((set.name, word));
            self.set(metric, &labels, if *word == now { 1.0 } else { 0.0 });
        }
    }

    /// One SLO of an agent, as its engine sees it.
    pub fn slo(&mut self, agent: &str, status: &SloStatus) {
        let slo = status.slo.to_string();
        let labels = [("agent", agent), ("slo", slo.as_str())];
        let with = |name: &'static str, value: &'static str| [labels[0], labels[1], (name, value)];
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
        let outcomes = [("good", status.events_total.good as f64), ("bad", status.events_total.bad as f64)];
        for (outcome, count) in outcomes {
            self.set(&names::SLO_EVENTS, &with("outcome", outcome), count);
        }
        self.set(&names::SLO_OBJECTIVE, &labels, status.objective.as_f64());
        self.set_known(&names::SLO_BUDGET_LEFT, &labels, status.budget_left());
        for burn in &status.burn {
            self.set_known(&names::SLO_BURN, &with("window", burn.look_back.as_str()), burn.rate);
        }
        debug_assert!(SLO_STATUSES.contains(&status.status.as_str()));
        self.set_state(&names::SLO_STATUS, &labels, status.status.as_str());
    }

    /// An agent's trust, 0 to 1000.
    pub fn trust(&mut self, agent: &str, score: f64) {
        self.set(&names::TRUST_SCORE, &[("agent", agent)], score);
    }

    /// An agent's circuit breaker.
    pub fn breaker(&mut self, agent: &str, state: BreakerState) {
        debug_assert!(BREAKER_STATES.contains(&state.as_str()));
        self.set_state(&names::BREAKER_STATE, &[("agent", agent)], state.as_str());
    }

    /// The exposition format's text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.recorder.handle().render();
        for name in &self.counters {
            text = text.replace(&format!("# TYPE {name} gauge\n"), &format!("# TYPE {name} counter\n"));
        }
        text
    }
}
