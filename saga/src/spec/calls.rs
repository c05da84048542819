//! What a step, its probe and its undo do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::RetrySpec;

/// A request over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSpec {
    /// `GET` when absent.
    pub method: Option<String>,
    /// The URL, with `{NAME}` where the value of the input of that name stands, encoded.
    pub url: String,
    /// Parameters of the query, each with the name of the input that it carries.
    pub query: BTreeMap<String, String>,
    /// Fixed headers. Credentials are the gateway's to add.
    pub headers: BTreeMap<String, String>,
    /// The input that is sent as JSON, or a list of inputs that are sent as an object.
    pub body: Option<BodySpec>,
}

/// What a request sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BodySpec {
    /// One input.
    Input(String),
    /// An object of these inputs.
    Inputs(Vec<String>),
}

/// A tool of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct McpSpec {
    /// The server, which speaks over its standard input and output: a program and its arguments.
    pub server: Vec<String>,
    /// The tool's name.
    pub tool: String,
}

/// An agent that does the work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSpec {
    /// Its agent.yaml; relative to the saga's file.
    pub file: String,
}

/// A saga inside a saga.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubSagaSpec {
    /// Its saga.yaml; relative to the saga's file.
    pub file: String,
}

/// Operators who have to agree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalSpec {
    /// Who may answer; any operator when absent.
    pub who: Vec<String>,
    /// How many different people have to say yes; one when absent. One no is enough for no.
    pub quorum: Option<u32>,
    /// The question, for them to read.
    pub ask: String,
    /// The longest it stands open ("24h"); then it counts as refused. For ever when absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub timeout: Option<Duration>,
}

/// How an effect is undone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompensateSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// A request over HTTP instead of a command.
    pub http: Option<HttpSpec>,
    /// A call of an MCP server's tool instead of a command.
    pub mcp: Option<McpSpec>,
    /// Another agent does it.
    pub agent: Option<AgentSpec>,
    /// Another saga does it.
    pub saga: Option<SubSagaSpec>,
    /// The ring it runs in; the step's own when absent.
    pub ring: Option<u8>,
    /// The longest one attempt may take; 5 minutes when absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    pub timeout: Option<Duration>,
    /// Its own retries; 5 attempts when absent.
    pub retry: Option<RetrySpec>,
}

/// How one learns whether an effect is there. A bare command is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CheckSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// A request over HTTP instead; its answer is `{"applied": true}` or `{"applied": false}`.
    pub http: Option<HttpSpec>,
    /// A call of an MCP server's tool instead; its answer is the same.
    pub mcp: Option<McpSpec>,
    /// The longest one attempt may take; 30 seconds when absent.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
}

/// The long form of a check; the short one is its command alone.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct CheckLong {
    /// The program and its arguments.
    command: Vec<String>,
    /// A request over HTTP instead; its answer is `{"applied": true}` or `{"applied": false}`.
    http: Option<HttpSpec>,
    /// A call of an MCP server's tool instead; its answer is the same.
    mcp: Option<McpSpec>,
    /// The longest one attempt may take; 30 seconds when absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>", extend("x-check" = "duration"))]
    timeout: Option<Duration>,
}

impl<'de> Deserialize<'de> for CheckSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Check;
        impl<'de> Visitor<'de> for Check {
            type Value = CheckSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command as a list, or a map with `command` and `timeout`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<CheckSpec, A::Error> {
                let command = Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                Ok(CheckSpec { command, ..CheckSpec::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CheckSpec, A::Error> {
                let long = CheckLong::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let CheckLong { command, http, mcp, timeout } = long;
                Ok(CheckSpec { command, http, mcp, timeout })
            }
        }
        deserializer.deserialize_any(Check)
    }
}

impl JsonSchema for CheckSpec {
    fn schema_name() -> Cow<'static, str> {
        "CheckSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<CheckLong>();
        json_schema!({
            "description": "A command that says whether the effect is there.",
            "anyOf": [{"type": "array", "items": {"type": "string"}}, long],
        })
    }
}
