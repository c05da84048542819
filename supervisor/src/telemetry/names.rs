//! Every metric of ours: one table for the exposition, the dashboard's check and the documentation.
//!
//! Names follow Prometheus practice: prefix `agt_`, base units, `_total` for counters, `_ratio` for 0 to 1 (burn rates are ratios
//! too, and may be above 1), a state as one series per state with 0 or 1. Labels have closed sets of values: names of agents and
//! SLOs that were loaded, and words of this program. Ids (sagas, sessions, traces, pids) never label anything: each would be a
//! series for ever. `process_*` are the names that every Prometheus client library gives to the same facts, `gen_ai_*` those of OpenTelemetry.

use agt_gateway::policy::Reason;

use super::model::{BASES, OPERATIONS, OUTCOMES, PROVIDERS, REFUSALS, THROTTLES};
use super::state::{AGENT_STATES, BREAKER_STATES, CAUSES, EXTENTS, HEALTH_STATES, LIMITS, RINGS, SLO_STATUSES};

/// What a metric does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; starts again from 0 with the supervisor.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A label and the values that it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values; empty: names that were loaded (agents, SLOs, models of the price table) or our version.
    pub values: &'static [&'static str],
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels, all of them on each series.
    pub labels: &'static [Label],
    /// What it says.
    pub help: &'static str,
}

/// As `agt_gateway::flow::Kind` has them.
const NETWORK_KINDS: [&str; 7] = ["connect", "http", "https", "route", "tcp", "socks", "published"];
/// As `agt_gateway::flow::Outcome` has them.
const NETWORK_OUTCOMES: [&str; 14] = [
    "complete",
    "denied",
    "unreachable",
    "head-timeout",
    "hello-timeout",
    "connect-timeout",
    "answer-timeout",
    "idle-timeout",
    "cut-by-policy",
    "cut-with-agent",
    "hung-up",
    "distrusted",
    "broken",
    "failed-by-hook",
];
/// As `agt_gateway::policy::Reason` has them.
pub(super) const NETWORK_REASONS: [&str; Reason::ALL.len()] = {
    let mut words = [""; Reason::ALL.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = Reason::ALL[at].word();
        at += 1;
    }
    words
};

const AGENT: Label = Label { name: "agent", values: &[] };
const KIND: Label = Label { name: "kind", values: &NETWORK_KINDS };
const REASON: Label = Label { name: "reason", values: &NETWORK_REASONS };
const WAY: Label = Label { name: "direction", values: &["out", "in"] };
const ENDED: Label = Label { name: "outcome", values: &NETWORK_OUTCOMES };
const SLO: Label = Label { name: "slo", values: &[] };
const STATE: Label = Label { name: "state", values: &AGENT_STATES };
const RING: Label = Label { name: "ring", values: &RINGS };
const EXTENT: Label = Label { name: "extent", values: &EXTENTS };
const CAUSE: Label = Label { name: "cause", values: &CAUSES };
const HEALTH: Label = Label { name: "state", values: &HEALTH_STATES };
const OUTCOME: Label = Label { name: "outcome", values: &["good", "bad"] };
const STATUS: Label = Label { name: "status", values: &SLO_STATUSES };
const BREAKER: Label = Label { name: "state", values: &BREAKER_STATES };
const WINDOW: Label = Label { name: "window", values: &["5m", "30m", "1h", "2h", "6h", "1d", "3d"] };
const CLASS: Label = Label { name: "class", values: &crate::denials::class::WORDS };
const LIMIT: Label = Label { name: "limit", values: &LIMITS };
const RESOURCE: Label = Label { name: "resource", values: &["cpu", "memory", "io"] };
const STALL: Label = Label { name: "kind", values: &["some", "full"] };
const DIRECTION: Label = Label { name: "direction", values: &["read", "write"] };
const OPERATION: Label = Label { name: "gen_ai_operation_name", values: &OPERATIONS };
const PROVIDER: Label = Label { name: "gen_ai_provider_name", values: &PROVIDERS };
const MODEL: Label = Label { name: "gen_ai_request_model", values: &[] };
const TOKEN: Label = Label { name: "gen_ai_token_type", values: &["input", "output"] };
const BASIS: Label = Label { name: "basis", values: &BASES };
const CALL_ENDED: Label = Label { name: "outcome", values: &OUTCOMES };
const MODEL_REASON: Label = Label { name: "reason", values: &REFUSALS };
const THROTTLE: Label = Label { name: "limit", values: &THROTTLES };
const PERIOD: Label = Label { name: "period", values: &["task", "hour", "day"] };
const PRICE: Label = Label { name: "price", values: &["listed", "unknown"] };
const VERSION: Label = Label { name: "version", values: &[] };

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:expr),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// The whole table.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO = Gauge "agt_build_info" [VERSION] "Always 1; the version is in the label.";
    AGENTS = Gauge "agt_agents" [] "Agents that the supervisor knows, running or not.";
    AGENTS_WITHOUT_SERIES = Gauge "agt_agents_without_series" []
        "Agents beyond the limit of labelled agents: they run, and have no series of their own.";
    AGENT_STATE = Gauge "agt_agent_state" [AGENT, STATE] "1 for the state that the agent is in, 0 for the others.";
    AGENT_RING = Gauge "agt_agent_ring" [AGENT, RING] "1 for the agent's effective ring, 0 for the others.";
    AGENT_ENFORCED = Gauge "agt_agent_enforced" [AGENT, EXTENT]
        "1 for how much of its ring the kernel enforces on the agent; absent before the first launch.";
    AGENT_RESTARTS = Counter "agt_agent_restarts_total" [AGENT] "Restarts by the agent's restart rule.";
    AGENT_DEATHS = Counter "agt_agent_deaths_total" [AGENT, CAUSE] "Ends of the agent's lives, by cause.";
    AGENT_HEALTH = Gauge "agt_agent_health" [AGENT, HEALTH]
        "1 for where the agent's health check stands, 0 for the others; absent for an agent without one.";
    AGENT_CHECKS = Counter "agt_agent_health_checks_total" [AGENT, OUTCOME] "Health checks of the agent, by how they ended.";
    AGENT_MEMORY = Gauge "agt_agent_memory_bytes" [AGENT] "Memory charged to the agent's cgroup; absent while it isn't running.";
    AGENT_MEMORY_LIMIT = Gauge "agt_agent_memory_limit_bytes" [AGENT] "The agent's memory limit in its effective ring.";
    AGENT_TASKS = Gauge "agt_agent_tasks" [AGENT] "Processes and threads of the agent; absent while it isn't running.";
    AGENT_CPU = Counter "agt_agent_cpu_seconds_total" [AGENT] "CPU time of the agent's cgroups, all its lives together.";
    AGENT_THROTTLED = Counter "agt_agent_cpu_throttled_seconds_total" [AGENT]
        "Time that the agent waited because its CPU quota was used up, summed over CPUs.";
    AGENT_OOM_KILLS = Counter "agt_agent_oom_kills_total" [AGENT]
        "Processes that the kernel ended at the agent's memory limit.";
    AGENT_LIMIT_HITS = Counter "agt_agent_limit_hits_total" [AGENT, LIMIT]
        "Times that the agent met a limit, as the kernel counts: processes ended (oom_kill), memory reclaimed (memory, memory_high), forks refused (tasks), CPU periods held back (cpu); absent where the host does not count it.";
    AGENT_MEMORY_PEAK = Gauge "agt_agent_memory_peak_bytes" [AGENT] "The most memory charged at any time of the agent's present life.";
    AGENT_TASKS_PEAK = Gauge "agt_agent_tasks_peak" [AGENT] "The most processes and threads at any time of the agent's present life.";
    AGENT_TASKS_LIMIT = Gauge "agt_agent_tasks_limit" [AGENT] "The agent's limit of processes and threads in its effective ring.";
    AGENT_CPU_LIMIT = Gauge "agt_agent_cpu_limit_cores" [AGENT] "The agent's CPU limit in its effective ring, in CPUs.";
    AGENT_CPU_PERIODS = Counter "agt_agent_cpu_periods_total" [AGENT] "CPU periods (100 ms) in which the agent ran under its CPU limit.";
    AGENT_PRESSURE = Counter "agt_agent_pressure_seconds_total" [AGENT, RESOURCE, STALL]
        "Time in which some, or all (full), of the agent's tasks waited for the resource; absent on hosts without pressure stall information.";
    AGENT_IO_BYTES = Counter "agt_agent_io_bytes_total" [AGENT, DIRECTION]
        "Bytes that the agent read from and wrote to block devices; absent on cgroup v1, which does not count them.";
    AGENT_IO_OPERATIONS = Counter "agt_agent_io_operations_total" [AGENT, DIRECTION]
        "Read and write operations of the agent on block devices; absent on cgroup v1.";
    TOTAL_MEMORY = Gauge "agt_total_memory_bytes" [] "Memory charged to all agents together.";
    TOTAL_MEMORY_LIMIT = Gauge "agt_total_memory_limit_bytes" [] "Memory limit of all agents together; absent without one.";
    TOTAL_TASKS = Gauge "agt_total_tasks" [] "Processes and threads of all agents together.";
    TOTAL_TASKS_LIMIT = Gauge "agt_total_tasks_limit" [] "Limit of processes and threads of all agents together; absent without one.";
    TOTAL_CPU = Counter "agt_total_cpu_seconds_total" [] "CPU time of all agents together, those that are gone included.";
    TOTAL_CPU_LIMIT = Gauge "agt_total_cpu_limit_cores" [] "CPU limit of all agents together, in CPUs; absent without one.";
    TOTAL_LIMIT_HITS = Counter "agt_total_limit_hits_total" [LIMIT]
        "Times that the limits over all agents were met; an agent that met only its own does not count here.";
    TOTAL_PRESSURE = Counter "agt_total_pressure_seconds_total" [RESOURCE, STALL]
        "Time in which some, or all (full), of the agents' tasks waited for the resource.";
    AGENT_TASK_REFUSALS = Counter "agt_agent_task_refusals_total" [AGENT] "Forks and clones that the task limit refused.";
    DENIALS = Counter "agt_denials_total" [AGENT, CLASS] "What the agent was denied, by kind: refused system calls and protected names that somebody told us of.";
    NETWORK_REQUESTS = Counter "agt_network_requests_total" [AGENT, KIND, ENDED]
        "Connections and requests through the gateway that were decided, by how they came in and how they ended.";
    NETWORK_BYTES = Counter "agt_network_bytes_total" [AGENT, WAY] "Bytes of bodies and tunnels through the gateway, by direction.";
    NETWORK_DENIALS = Counter "agt_network_denials_total" [AGENT, REASON] "Destinations that the gateway refused, by reason.";
    NETWORK_WAITED = Counter "agt_network_waited_total" [AGENT] "Connections that waited for room among those that may be open at once.";
    NETWORK_UNCOUNTED = Counter "agt_network_uncounted_total" [] "Refusals of too many kinds at once to be told apart.";
    NETWORK_IN_FLIGHT = Gauge "agt_network_in_flight" [AGENT]
        "Connections, requests and model calls of the agent that the gateway carries now; absent for an agent that has no way out.";
    NETWORK_FIRST = Histogram "agt_network_first_byte_seconds" [AGENT, KIND]
        "From the decision over a connection or request to the first byte of its answer.";
    NETWORK_DURATION = Histogram "agt_network_duration_seconds" [AGENT, KIND]
        "From the decision over a connection or request to its end.";
    THROTTLED = Counter "agt_throttled_total" [AGENT, THROTTLE]
        "What a limit refused: requests beyond the agent's rate (requests), model calls beyond one of theirs.";
    MODEL_CALLS = Counter "agt_model_calls_total" [AGENT, PROVIDER, BASIS, CALL_ENDED]
        "Model calls that left, by whether their usage was reported or had to be estimated, and by how they ended.";
    MODEL_TOKENS = Histogram "gen_ai_client_token_usage" [AGENT, OPERATION, PROVIDER, MODEL, TOKEN]
        "Tokens of a model call; input holds what came from or went to a cache, output hidden reasoning.";
    MODEL_DURATION = Histogram "gen_ai_client_operation_duration_seconds" [AGENT, OPERATION, PROVIDER, MODEL]
        "From when a model call left to its end.";
    MODEL_FIRST = Histogram "gen_ai_client_operation_time_to_first_chunk_seconds" [AGENT, OPERATION, PROVIDER, MODEL]
        "From when a model call left to the first byte of its answer.";
    MODEL_COST = Counter "agt_model_cost_usd_total" [AGENT, PROVIDER, MODEL, PRICE]
        "What model calls cost in US dollars; a model that the price table does not know is charged its worst price.";
    MODEL_IN_FLIGHT = Gauge "agt_model_in_flight" [AGENT] "Model calls of the agent that are under way.";
    MODEL_SPENT = Gauge "agt_model_spent_usd" [AGENT, PERIOD]
        "What the agent spent on models in its task, the last hour and the last day, as its caps count it.";
    MODEL_CAP = Gauge "agt_model_spend_cap_usd" [AGENT, PERIOD] "The agent's caps of that; absent without one.";
    MODEL_REFUSALS = Counter "agt_model_refusals_total" [AGENT, MODEL_REASON]
        "Model calls that were refused before they left: by a limit, or for what they were.";
    LAUNCH_SECONDS = Histogram "agt_launch_seconds" [RING]
        "From the decision to launch to the program's execution, the durable audit record included.";
    KILL_SECONDS = Histogram "agt_kill_seconds" [] "From the trigger of a kill until nothing was left of the tree.";
    KILLS_UNVERIFIED = Counter "agt_kills_unverified_total" []
        "Kills that no empty cgroup confirmed: there was none, or it did not empty in time.";
    SLO_EVENTS = Counter "agt_slo_events_total" [AGENT, SLO, OUTCOME] "Valid events of the SLO's indicator.";
    SLO_OBJECTIVE = Gauge "agt_slo_objective_ratio" [AGENT, SLO] "The SLO's objective.";
    SLO_BUDGET_LEFT = Gauge "agt_slo_budget_left_ratio" [AGENT, SLO]
        "Share of the error budget that is left in the period; absent without data.";
    SLO_BURN = Gauge "agt_slo_burn_ratio" [AGENT, SLO, WINDOW]
        "Error ratio over the look-back by 1 minus the objective; windows by their name for a period of 30 days; absent without data.";
    SLO_STATUS = Gauge "agt_slo_status" [AGENT, SLO, STATUS] "1 for the SLO's status, 0 for the others.";
    TRUST_SCORE = Gauge "agt_trust_score" [AGENT] "The agent's trust score, 0 to 1000.";
    BREAKER_STATE = Gauge "agt_breaker_state" [AGENT, BREAKER] "1 for the state of the agent's circuit breaker, 0 for the others.";
    AUDIT_RECORDS = Counter "agt_audit_records_total" [] "Records in the audit log, those of earlier supervisors included.";
    AUDIT_LOST = Counter "agt_audit_lost_total" [] "Audit records of what took power that found no room; a record tells how many.";
    AUDIT_HEADS = Counter "agt_audit_heads_total" [] "Signed heads of the audit log.";
    AUDIT_HEADS_FAILED = Counter "agt_audit_heads_failed_total" [] "Signed heads that could not be written at once.";
    STORE_COMMITS = Counter "agt_store_commits_total" [] "Transactions on the disk.";
    STORE_REQUESTS = Counter "agt_store_requests_total" [] "Requests in those transactions.";
    STORE_COMMITS_FAILED = Counter "agt_store_commits_failed_total" [] "Transactions that failed; their requests were told so.";
    STORE_REFUSED = Counter "agt_store_requests_refused_total" []
        "Requests refused to keep the last space for records of what takes power.";
    STORE_UPKEEP_FAILED = Counter "agt_store_upkeep_failed_total" [] "Log growths and checkpoints that failed: they cost speed, never data.";
    PROCESS_START = Gauge "process_start_time_seconds" [] "Start time of the supervisor since the Unix epoch.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "User and system CPU time of the supervisor.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory of the supervisor.";
    PROCESS_FDS = Gauge "process_open_fds" [] "Open file descriptors of the supervisor.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_practice() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} stands twice");
            let foreign = ["process_", "gen_ai_client_"].iter().any(|prefix| name.starts_with(prefix));
            assert!(name.starts_with("agt_") || foreign, "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            // OpenTelemetry's name for it; a token is its own unit.
            let is_tokens = name == "gen_ai_client_token_usage";
            assert!(metric.kind != Kind::Histogram || name.ends_with("_seconds") || is_tokens, "{name}");
            for wrong in ["milli", "micro", "_ms", "percent", "_kb", "_minutes"] {
                assert!(!name.contains(wrong), "{name} is not in base units");
            }
            assert!(metric.help.ends_with('.'), "{name}: the help is a sentence");
            for label in metric.labels {
                assert!(!label.name.ends_with("id") && label.name != "pid", "{name}: ids label nothing");
            }
        }
    }
}
