//! Model routes as the operator's file declares them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Whose language a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// OpenAI's, which many others speak.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's Gemini.
    Gemini,
}

impl Provider {
    /// As `gen_ai.provider.name` of OpenTelemetry names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gcp.gemini",
        }
    }
}

/// Where the key of a route comes from. Read by the supervisor, in its own world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "KeyFields", into = "KeyFields")]
pub enum KeySpec {
    /// A file; white space around the key does not count.
    File(PathBuf),
    /// A variable of the supervisor's own environment.
    Variable(String),
}

/// A key as it is written: `key: {file: /etc/agt/openai.key}`. Not an enum, which YAML would want to be tagged.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct KeyFields {
    /// The file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PathBuf")]
    file: Option<PathBuf>,
    /// The variable of the supervisor's own environment that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    env: Option<String>,
}

/// A key that is said to be in two places, or in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key comes from one place: say `file` or `env`")]
pub struct BadKeySpec;

impl TryFrom<KeyFields> for KeySpec {
    type Error = BadKeySpec;

    fn try_from(fields: KeyFields) -> Result<Self, BadKeySpec> {
        match (fields.file, fields.env) {
            (Some(file), None) => Ok(Self::File(file)),
            (None, Some(variable)) => Ok(Self::Variable(variable)),
            _ => Err(BadKeySpec),
        }
    }
}

impl From<KeySpec> for KeyFields {
    fn from(spec: KeySpec) -> Self {
        match spec {
            KeySpec::File(file) => Self { file: Some(file), env: None },
            KeySpec::Variable(name) => Self { file: None, env: Some(name) },
        }
    }
}

/// Whether a call may make the provider fetch or run something by itself: its web search, URLs that it loads, its code
/// interpreter, remote tools. To an agent whose network is closed that would be a way out that no allow-list sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Refused.
    #[default]
    Closed,
    /// Allowed; what it costs beyond tokens is not metered.
    Open,
}

/// Whether the gateway asks for the usage of a stream where the client did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AskUsage {
    /// It asks, and takes the extra event out again.
    #[default]
    On,
    /// For an upstream that does not know `stream_options`: streams are charged by estimate.
    Off,
}

/// One model route. Its name is the first part of its path; `openai`, `anthropic` and `gemini` need nothing but a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteSpec {
    /// Base URL of the upstream as its clients have it, `https://api.example.com/v1` or `http://10.0.0.5:8000`. Left out: the
    /// provider's own.
    #[schemars(with = "String")]
    pub upstream: Option<String>,
    /// Whose language it speaks. Left out: that of its name.
    #[schemars(with = "Provider")]
    pub speaks: Option<Provider>,
    /// Its key. Left out: none is sent.
    #[schemars(with = "KeySpec")]
    pub key: Option<KeySpec>,
    /// Further calls that are allowed, as `GET /v1/files`; `*` stands for one part of a path. They count as calls, but tokens and
    /// money of them are not metered.
    pub allow: Vec<String>,
    /// Further headers of the agent that are passed on.
    pub headers: Vec<String>,
    /// Whether the provider may fetch for the agent.
    pub reach: Reach,
    /// Whether usage of streams is asked for.
    pub ask_usage: AskUsage,
    /// How long an upstream may be silent once it has begun to answer, and before it begins to answer a stream.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idle: Duration,
    /// How long it may take to begin an answer that is not a stream.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub answer: Duration,
    /// How long an answer may take as a whole.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub total: Duration,
    /// How large an answer may be, in bytes.
    pub answer_bytes: u64,
}

impl Default for RouteSpec {
    fn default() -> Self {
        Self {
            upstream: None,
            speaks: None,
            key: None,
            allow: Vec::new(),
            headers: Vec::new(),
            reach: Reach::default(),
            ask_usage: AskUsage::default(),
            idle: Duration::from_secs(60),
            answer: Duration::from_secs(300),
            total: Duration::from_secs(1800),
            answer_bytes: 64 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_route_is_read_as_it_is_written() {
        let text = r#"{"upstream": "https://llm.example/v1", "speaks": "openai", "key": {"file": "/etc/agt/key"}, "reach": "open",
            "ask_usage": "off", "idle": "90s", "total": "1h", "allow": ["GET /v1/files"]}"#;
        let spec: RouteSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.key, Some(KeySpec::File("/etc/agt/key".into())));
        let again: RouteSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        assert_eq!((spec.idle, spec.answer), (Duration::from_secs(90), Duration::from_secs(300)));
        for bad in [
            r#"{"key": {}}"#,
            r#"{"key": {"file": "a", "env": "B"}}"#,
            r#"{"key": {"text": "sk-1"}}"#,
            r#"{"key": "sk-1"}"#,
        ] {
            assert!(serde_json::from_str::<RouteSpec>(bad).is_err(), "{bad}");
        }
        let schema = serde_json::to_string(&schemars::schema_for!(RouteSpec)).unwrap();
        assert!(schema.contains("\"env\"") && !schema.contains("\"Variable\""), "{schema}");
    }
}
