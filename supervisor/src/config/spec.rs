//! What an agent.yaml and the operator's file say: serde and schemars types, nothing decided yet.
//!
//! These types are the one list of keys: the validator, the editor schema and serde all read it from here. Defaults
//! stand in one `Default` impl for each group. A missing line never gives a right: the default of every key is the
//! narrowest value that lets a program run.

mod operator;
mod parts;
mod ports;
mod texts;

use std::collections::BTreeMap;

use agt_gateway::limit::spec::LimitSpec;
use agt_gateway::policy::spec::EntrySpec;
use agt_rings::Ring;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

pub use operator::{AgentGrant, Environment, Keep, ModelsSpec, OperatorSpec, Operators, RingLimits, Switch};
pub use parts::{
    Backoff, ChaosSpec, EnforcementSpec, EnvSpec, FilesSpec, HealthSpec, HttpSpec, LimitsSpec, LogSpec, NestedSpec,
    RestartPolicy, RestartSpec, SecretSpec, Stdio, TimeoutsSpec,
};
pub use ports::{ListenAt, Publish};
pub(super) use texts::check_text;
pub use texts::{AgentName, BadText, Command, HostPort, Target, split_words};

/// An SLO as written; the SLO engine's own type and checks.
pub use agt_sre::spec::SloSpec;

/// One agent: what it is, what it may do, what happens when it ends.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Version of this format: 1.
    pub version: Version,
    /// `agent`; may be left out.
    #[serde(default)]
    pub kind: AgentKind,
    /// The agent's name: small letters, digits and `-`, at most 63 characters.
    pub name: AgentName,
    /// The program and its arguments, as a list, or as one text that is split into words without a shell.
    pub command: Command,
    /// Where it starts, and the only place that it may write without an operator: the folder of this file (default) or
    /// one below it.
    #[serde(default)]
    #[schemars(with = "String")]
    pub workdir: Option<String>,
    /// The environment. Clean by default.
    #[serde(default)]
    pub env: EnvSpec,
    /// The ring that it may at most reach: 0 (most privileged) to 3. Default 3: leaving the line out never gives power.
    #[serde(default)]
    #[schemars(schema_with = "ring_schema")]
    pub ring: Option<Ring>,
    /// What happens when this host can't enforce the ring in full.
    #[serde(default)]
    pub enforcement: EnforcementSpec,
    /// The user that it runs as: `own` (default: a user of its own when the supervisor is root), or a name or uid that
    /// the operator's file allows.
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<String>,
    /// Whether it may build sandboxes of its own (bwrap and the like) in R1 or R2: `on` needs the operator's line.
    #[serde(default)]
    pub nested_sandbox: NestedSpec,
    /// Files outside the workdir, and what of all files is kept from the agent.
    #[serde(default)]
    pub files: FilesSpec,
    /// Destinations that it may reach; each needs a line in the operator's file.
    #[serde(default)]
    pub network: Vec<EntrySpec>,
    /// Ports of its own that it shows to this host: `8080`, `8080 -> 3000`, `127.0.0.1:8080 -> 8080`. Beyond loopback, and below
    /// port 1024, each needs a line in the operator's file.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub ports: Vec<Publish>,
    /// Model routes that it uses, by the names that the operator's file gives them (`openai`); each needs a line there.
    #[serde(default)]
    pub models: Vec<String>,
    /// The most that it may use of them: what its task should cost. The operator's own limits hold besides.
    #[serde(default)]
    pub model_limits: LimitSpec,
    /// Resource limits; the defaults are those of the ring.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// What happens when it ends.
    #[serde(default)]
    pub restart: RestartSpec,
    /// What tells whether the agent is well: a command inside the ring, or a port of its that answers.
    #[serde(default)]
    #[schemars(with = "HealthSpec")]
    pub health: Option<HealthSpec>,
    /// How long it may run, start and take to stop.
    #[serde(default)]
    pub timeouts: TimeoutsSpec,
    /// How its input and output are connected; the default depends on where it is started.
    #[serde(default)]
    #[schemars(with = "Stdio")]
    pub stdio: Option<Stdio>,
    /// Size and number of its log files.
    #[serde(default)]
    pub log: LogSpec,
    /// Labels for metrics and lists.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,
    /// Service level objectives.
    #[serde(default)]
    pub slos: Vec<SloSpec>,
    /// Whether chaos experiments may target it.
    #[serde(default)]
    pub chaos: ChaosSpec,
}

impl AgentSpec {
    /// The least that an agent needs.
    #[must_use]
    pub fn new(name: AgentName, command: Command) -> AgentSpec {
        AgentSpec {
            version: Version,
            kind: AgentKind::Agent,
            name,
            command,
            workdir: None,
            env: EnvSpec::default(),
            ring: None,
            enforcement: EnforcementSpec::default(),
            user: None,
            nested_sandbox: NestedSpec::default(),
            files: FilesSpec::default(),
            network: Vec::new(),
            ports: Vec::new(),
            models: Vec::new(),
            model_limits: LimitSpec::default(),
            limits: LimitsSpec::default(),
            restart: RestartSpec::default(),
            health: None,
            timeouts: TimeoutsSpec::default(),
            stdio: None,
            log: LogSpec::default(),
            labels: BTreeMap::new(),
            slos: Vec::new(),
            chaos: ChaosSpec::default(),
        }
    }
}

/// The version of the format. There is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "u64")]
pub struct Version;

/// Another version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("version {0} is not known, this program reads version 1")]
pub struct UnknownVersion(pub u64);

impl TryFrom<u64> for Version {
    type Error = UnknownVersion;

    fn try_from(number: u64) -> Result<Version, UnknownVersion> {
        if number == 1 { Ok(Version) } else { Err(UnknownVersion(number)) }
    }
}

impl JsonSchema for Version {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "const": 1})
    }
}

/// The kind of an agent's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// An agent.
    #[default]
    Agent,
}

fn ring_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "enum": [0, 1, 2, 3]})
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 200},
        "propertyNames": {"x-check": "label"}
    })
}
