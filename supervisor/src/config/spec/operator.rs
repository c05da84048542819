//! The operator's file: who may command, what each ring may use, what each agent may have.
//!
//! An agent.yaml may come from a cloned repository; this file is where authority stands. A grant names the agent's file
//! beside its name, because a name alone can be taken by anybody's file.

use std::collections::BTreeMap;

use agt_gateway::limit::spec::LimitSpec;
use agt_gateway::policy::spec::{EntrySpec, RangeSpec};
use agt_gateway::route::RouteSpec;
use agt_rings::Ring;
use agt_rings::spec::Limits;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::parts::{ChaosSpec, LimitsSpec, NestedSpec};
use super::ports::ListenAt;
use super::{Version, ring_schema};
use crate::config::units::{ByteSize, Cpu};

/// What operators have decided for this host.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorSpec {
    /// Version of this format: 1.
    pub version: Version,
    /// `operator`.
    pub kind: OperatorKind,
    /// Who may command the supervisor, besides root and the user that runs it. Read when the supervisor starts.
    #[serde(default)]
    pub operators: Operators,
    /// What this host is for. Default production: no chaos experiment runs there.
    #[serde(default)]
    pub environment: Environment,
    /// The ring that no agent may pass, unless its own entry says so.
    #[serde(default)]
    #[schemars(schema_with = "ring_schema")]
    pub ceiling: Option<Ring>,
    /// `off`: starting an agent by hand no longer vouches for it. Default on.
    #[serde(default)]
    pub vouch: Switch,
    /// Limits of each ring, in place of the built-in ones: the default and the most that agents get without a grant.
    #[serde(default)]
    #[schemars(schema_with = "rings_schema")]
    pub rings: BTreeMap<String, RingLimits>,
    /// Limits of all agents together. Read when the supervisor starts, which is refused where the host can't keep one.
    #[serde(default)]
    pub total: TotalSpec,
    /// Model routes: to whom they lead, what they cost.
    #[serde(default)]
    pub models: ModelsSpec,
    /// What single agents may have, by name.
    #[serde(default)]
    #[schemars(schema_with = "agents_schema")]
    pub agents: BTreeMap<String, AgentGrant>,
}

/// Model routes of this host. An agent gets those that its entry names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsSpec {
    /// Routes by name: `openai`, `anthropic` and `gemini` need nothing but a key, others say their upstream and what it speaks.
    pub providers: BTreeMap<String, RouteSpec>,
    /// A file with prices of models, over the built-in ones; relative to this file's folder.
    #[schemars(with = "String")]
    pub prices: Option<String>,
    /// What the agents of a ring may use together, by its number.
    #[schemars(schema_with = "model_rings_schema")]
    pub rings: BTreeMap<String, LimitSpec>,
}

/// Who may command the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Operators {
    /// Users, by name or uid.
    pub users: Vec<String>,
    /// Groups, by name or gid.
    pub groups: Vec<String>,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real users depend on it.
    #[default]
    Production,
    /// A rehearsal.
    Staging,
    /// A developer's machine.
    Dev,
}

/// The kind of the operator's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperatorKind {
    /// The operator's file.
    #[default]
    Operator,
}

/// Which of the never-writable names are kept from an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those that exist at launch, by masks, and those that don't, by answering each call that could make one.
    #[default]
    All,
    /// Those that exist at launch.
    Existing,
}

impl Keep {
    /// Whether it is the default.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Keep::All
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    #[default]
    On,
    /// Off.
    Off,
}

/// Limits of all agents together. What is left out is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TotalSpec {
    /// Memory, swap included.
    #[schemars(with = "ByteSize")]
    pub memory: Option<ByteSize>,
    /// CPU: `0.5` CPUs or `50%` of one.
    #[schemars(with = "Cpu")]
    pub cpu: Option<Cpu>,
    /// Processes and threads together.
    #[schemars(with = "u32", range(min = 1, max = 4_194_303))]
    pub tasks: Option<u32>,
}

impl TotalSpec {
    /// In the kernel's units.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.memory.map(|size| size.0),
            cpu_millis: self.cpu.map(|cpu| cpu.0),
            tasks: self.tasks,
        }
    }
}

/// Limits of a ring on this host.
pub type RingLimits = LimitsSpec;

/// What one agent may have beyond what everybody may.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentGrant {
    /// The agent.yaml (for a command line: the program) that the name stands for; relative to this file's folder.
    #[schemars(length(min = 1))]
    pub file: String,
    /// The ring that it may at most reach.
    #[serde(default)]
    #[schemars(schema_with = "ring_schema")]
    pub ceiling: Option<Ring>,
    /// Files and folders that it may read. A socket must be named itself.
    #[serde(default)]
    pub read: Vec<String>,
    /// Files and folders that it may write (and read).
    #[serde(default)]
    pub write: Vec<String>,
    /// Names that are otherwise never writable (`.git/config`, `.vscode`, ...), as paths or as names.
    #[serde(default)]
    pub writable: Vec<String>,
    /// `existing`: of the never-writable names only those that exist at launch are kept from it. Default `all`: they can't be
    /// made either.
    #[serde(default)]
    pub protect: Keep,
    /// Destinations that it may reach: entries as in its own file, which may be wider (`host: "*"`) or deny.
    #[serde(default)]
    pub network: Vec<EntrySpec>,
    /// Addresses that aren't public (loopback, private ranges) and that it may reach all the same.
    #[serde(default)]
    pub addresses: Vec<RangeSpec>,
    /// Where ports of it may be shown beyond loopback, or below port 1024: `0.0.0.0:8080`, `127.0.0.1:80`.
    #[serde(default)]
    pub publish: Vec<ListenAt>,
    /// Model routes that it may use, by the names that they have under `models.providers`.
    #[serde(default)]
    pub models: Vec<String>,
    /// Those of `models` that it keeps in R3, which has no network otherwise. Default none.
    #[serde(default)]
    pub models_in_r3: Vec<String>,
    /// The most that it may use of them; its own file can only say less.
    #[serde(default)]
    pub model_limits: LimitSpec,
    /// Files whose content it may be given.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Variables of the supervisor's environment that it may be given.
    #[serde(default)]
    #[schemars(schema_with = "env_names_schema")]
    pub env: Vec<String>,
    /// The user that it may run as, by name or uid.
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<String>,
    /// `on`: it may build sandboxes of its own. This opens user namespaces and mounts, much of the kernel, to it.
    #[serde(default)]
    pub nested_sandbox: NestedSpec,
    /// The most of each resource that it may ask for.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// Whether chaos experiments may target it.
    #[serde(default)]
    pub chaos: ChaosSpec,
    /// `off`: starting it by hand does not vouch for it.
    #[serde(default)]
    #[schemars(with = "Switch")]
    pub vouch: Option<Switch>,
    /// Capabilities that it keeps in R0, by name (`net_bind_service`).
    #[serde(default)]
    pub capabilities: Vec<String>,
}

fn rings_schema(generator: &mut SchemaGenerator) -> Schema {
    let limits = generator.subschema_for::<RingLimits>();
    json_schema!({
        "type": "object",
        "additionalProperties": limits,
        "propertyNames": {"enum": ["0", "1", "2", "3"]}
    })
}

fn model_rings_schema(generator: &mut SchemaGenerator) -> Schema {
    let limits = generator.subschema_for::<LimitSpec>();
    json_schema!({
        "type": "object",
        "additionalProperties": limits,
        "propertyNames": {"enum": ["0", "1", "2", "3"]}
    })
}

fn agents_schema(generator: &mut SchemaGenerator) -> Schema {
    let grant = generator.subschema_for::<AgentGrant>();
    json_schema!({"type": "object", "additionalProperties": grant, "propertyNames": {"x-check": "name"}})
}

fn env_names_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "string", "x-check": "env-name"}})
}
