//! The groups of an agent.yaml. Each has one `Default`, which is also what its documentation says.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::texts::Command;
use crate::config::units::{ByteSize, Cpu, Share, Span};

/// The environment: empty but for PATH and LANG, plus what stands here.
#[derive(Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnvSpec {
    /// Names of variables to take over from the supervisor's environment. Names that are not plainly harmless (locale,
    /// terminal, HOME, PATH) need a line in the operator's file: they may be secrets.
    #[schemars(schema_with = "names_schema")]
    pub pass: Vec<String>,
    /// Variables with their values. `${NAME}` and `${NAME:?message}` are replaced.
    #[schemars(schema_with = "variables_schema")]
    pub set: BTreeMap<String, String>,
    /// Variables whose value is the content of a file; each file needs a line in the operator's file.
    #[schemars(schema_with = "secrets_schema")]
    pub secrets: BTreeMap<String, SecretSpec>,
}

impl fmt::Debug for EnvSpec {
    /// Values may be secrets: only names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvSpec")
            .field("pass", &self.pass)
            .field("set", &self.set.keys().collect::<Vec<_>>())
            .field("secrets", &self.secrets)
            .finish()
    }
}

fn names_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "string", "x-check": "env-name"}, "maxItems": 200})
}

fn variables_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"x-check": "env-name"}})
}

fn secrets_schema(generator: &mut SchemaGenerator) -> Schema {
    let secret = generator.subschema_for::<SecretSpec>();
    json_schema!({"type": "object", "additionalProperties": secret, "propertyNames": {"x-check": "env-name"}})
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// The file whose content (without a newline at the end) is the value.
    #[schemars(length(min = 1))]
    pub file: String,
}

/// Files outside the workdir, and what of all files is kept from the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilesSpec {
    /// Files and folders to read. Those outside the system and the workdir need a line in the operator's file.
    #[schemars(schema_with = "paths_schema")]
    pub read: Vec<String>,
    /// Files and folders to write. Those outside the workdir need a line in the operator's file.
    #[schemars(schema_with = "paths_schema")]
    pub write: Vec<String>,
    /// Patterns of names that it neither reads nor writes: `**/.env`, `secrets/*`. Relative to the workdir, or to the folder of
    /// `read` or `write` that they are in; without a slash at any depth. What exists is hidden
    /// (it reads as empty, and what is written to it is lost), later names can't be made.
    #[schemars(schema_with = "patterns_schema")]
    pub deny: Vec<String>,
}

fn paths_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 4000}, "maxItems": 500})
}

fn patterns_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 4000}, "maxItems": 100})
}

/// Resource limits. What is left out has the ring's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSpec {
    /// Memory, swap included.
    #[schemars(with = "ByteSize")]
    pub memory: Option<ByteSize>,
    /// CPU: `0.5` CPUs or `50%` of one.
    #[schemars(with = "Cpu")]
    pub cpu: Option<Cpu>,
    /// Processes and threads together.
    #[schemars(with = "u32", range(min = 1, max = 4_194_304))]
    pub tasks: Option<u32>,
    /// Open files of each process.
    #[schemars(with = "u32", range(min = 8, max = 1_048_576))]
    pub files: Option<u32>,
    /// Requests a minute through the gateway (connections, HTTP requests, model calls) and on the control socket together.
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    pub requests_per_minute: Option<u32>,
}

/// When it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    Never,
    /// When it ended with a code other than 0 or by a signal.
    OnFailure,
    /// Always, until it is stopped.
    Always,
}

/// What happens when it ends: `window` and `attempts` bound the restarts, then the supervisor gives up and says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RestartSpec {
    /// When it is started again. Default `never`.
    pub policy: RestartPolicy,
    /// How long to wait before the next start.
    pub backoff: Backoff,
    /// The time in which `attempts` are counted. Default 10m.
    pub window: Span,
    /// Restarts within the window before the supervisor gives up. Default 5.
    #[schemars(range(min = 1, max = 10_000))]
    pub attempts: u32,
}

impl Default for RestartSpec {
    fn default() -> Self {
        let window = Span::seconds(600);
        RestartSpec { policy: RestartPolicy::Never, backoff: Backoff::default(), window, attempts: 5 }
    }
}

/// Waiting times between restarts: doubled each time from `initial` up to `max`, with a random part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// The first wait. Default 1s.
    pub initial: Span,
    /// The longest wait. Default 1m.
    pub max: Span,
    /// The part of each wait that is random, so that many agents don't start together. Default 20%.
    pub jitter: Share,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { initial: Span::seconds(1), max: Span::seconds(60), jitter: Share(200) }
    }
}

/// What tells whether the agent is well: one of `command`, `http` and `tcp`.
///
/// Until it has passed once it is run more often, at least each second; those extra looks can only show that the agent is
/// ready. An agent that is not ready within `timeouts.start` (or the start period, if that is longer) is unhealthy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// A command, run inside the ring, that exits 0 while the agent is well.
    #[serde(default)]
    #[schemars(with = "Command")]
    pub command: Option<Command>,
    /// A request to a port of the agent, made inside its network; the port need not be shown.
    #[serde(default)]
    #[schemars(with = "HttpSpec")]
    pub http: Option<HttpSpec>,
    /// A port of the agent that takes connections, in the same way.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 1, max = 65535))]
    pub tcp: Option<u16>,
    /// Time between checks. Default 30s.
    #[serde(default = "HealthSpec::interval")]
    pub interval: Span,
    /// How long a check may take. Default 5s, or `interval` if that is shorter.
    #[serde(default)]
    #[schemars(with = "Span")]
    pub timeout: Option<Span>,
    /// Failures in a row that make it unhealthy. Default 3.
    #[serde(default = "HealthSpec::retries")]
    #[schemars(range(min = 1, max = 1000))]
    pub retries: u32,
    /// Time after the start in which failures don't count. Default 0s.
    #[serde(default = "HealthSpec::start_period")]
    pub start_period: Span,
}

/// A request by which an agent is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// The agent's port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What is asked for. Default `/`.
    #[serde(default = "HttpSpec::path")]
    #[schemars(length(min = 1, max = 1000))]
    pub path: String,
    /// The status of a good answer. Default: 200 to 299.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 200, max = 599))]
    pub status: Option<u16>,
}

impl HttpSpec {
    fn path() -> String {
        "/".to_owned()
    }
}

impl HealthSpec {
    fn interval() -> Span {
        Span::seconds(30)
    }

    /// How long a check may take.
    #[must_use]
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or_else(|| Span::seconds(5).min(self.interval))
    }

    fn retries() -> u32 {
        3
    }

    fn start_period() -> Span {
        Span::seconds(0)
    }
}

/// How long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutsSpec {
    /// The whole run; then it is stopped and the exit code is 124. Default: no limit.
    #[schemars(with = "Span")]
    pub run: Option<Span>,
    /// Until the first health check passes. Default 30s.
    pub start: Span,
    /// From the stop signal until the whole tree is killed. Default 10s.
    pub stop: Span,
}

impl Default for TimeoutsSpec {
    fn default() -> Self {
        TimeoutsSpec { run: None, start: Span::seconds(30), stop: Span::seconds(10) }
    }
}

/// How input and output are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stdio {
    /// Bytes untouched, both ways.
    Raw,
    /// A terminal of its own.
    Pty,
    /// Each line with the agent's name in front.
    Prefixed,
}

/// Log files of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSpec {
    /// A file that reaches this size is set aside. Default 10MiB.
    pub max_size: ByteSize,
    /// How many set-aside files are kept. Default 5.
    #[schemars(range(min = 0, max = 1000))]
    pub keep: u32,
}

impl Default for LogSpec {
    fn default() -> Self {
        LogSpec { max_size: ByteSize(10 << 20), keep: 5 }
    }
}

/// Whether chaos experiments may target the agent; needs a line in the operator's file too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChaosSpec {
    /// `true` lets experiments act on this agent. Default false.
    pub opt_in: bool,
    /// The faults that are allowed; empty means all.
    #[schemars(length(max = 100))]
    pub faults: Vec<String>,
}

/// Whether an agent may build sandboxes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NestedSpec {
    /// No namespaces, no mounts.
    #[default]
    Off,
    /// User, mount, PID and network namespaces inside its own.
    On,
}

/// What happens when this host can't enforce the ring in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementSpec {
    /// It is not started.
    #[default]
    Required,
    /// It is started, and the report says what was left out. An explicit opt-out.
    BestEffort,
}
