//! The line of the operator's file that would allow a refused request, as data and as YAML to paste.
//!
//! A refusal that only says "no" makes people open everything. One that gives the smallest line that helps keeps the
//! operator's file small, and because the same enum is what the resolver checks, pasting the line is tested to help.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use agt_gateway::route::{RouteSpec, upstream_of};
use serde::{Deserialize, Serialize};

use super::spec::ListenAt;
use super::units::{ByteSize, Cpu};

/// One right that only an operator gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Read this tree or file.
    Read(PathBuf),
    /// Write this tree or file.
    Write(PathBuf),
    /// Write this name although it is one of the never-writable ones.
    Writable(PathBuf),
    /// Reach this destination: an entry of `network`, as it would stand there.
    Network(String),
    /// Show a port of its own at this address.
    Publish(ListenAt),
    /// Use this model route.
    Models(String),
    /// Use it in R3 too.
    ModelsInR3(String),
    /// The same, which the operator's file does not even declare yet.
    Provider(String),
    /// Be given the content of this file.
    Secret(PathBuf),
    /// Be given this variable of the supervisor's environment.
    Env(String),
    /// Run as this user.
    User(String),
    /// Build sandboxes of its own.
    NestedSandbox,
    /// This much memory.
    Memory(ByteSize),
    /// This much CPU.
    Cpu(Cpu),
    /// This many tasks.
    Tasks(u32),
    /// This many open files.
    OpenFiles(u32),
    /// This many requests a minute.
    Requests(u32),
    /// Be the target of these faults (empty: of all).
    Chaos(Vec<String>),
}

/// A right for one agent: which line, in which file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// The agent's name.
    pub agent: String,
    /// The file (or, for a command line, the program) that the name belongs to: a grant to a name alone would go to
    /// whoever takes that name.
    pub file: PathBuf,
    /// The operator's file.
    pub operator_file: PathBuf,
    /// The right.
    pub right: Right,
}

/// A request that needs an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was asked for and why it is not free.
    pub message: String,
    /// The line that would allow it; `None` where no line can.
    pub grant: Option<Grant>,
}

impl Right {
    fn key(&self) -> &'static str {
        match self {
            Right::Read(_) => "read",
            Right::Write(_) => "write",
            Right::Writable(_) => "writable",
            Right::Network(_) => "network",
            Right::Publish(_) => "publish",
            Right::Models(_) | Right::Provider(_) => "models",
            Right::ModelsInR3(_) => "models_in_r3",
            Right::Secret(_) => "secrets",
            Right::Env(_) => "env",
            Right::User(_) => "user",
            Right::NestedSandbox => "nested_sandbox",
            Right::Memory(_) => "memory",
            Right::Cpu(_) => "cpu",
            Right::Tasks(_) => "tasks",
            Right::OpenFiles(_) => "files",
            Right::Requests(_) => "requests_per_minute",
            Right::Chaos(_) => "chaos",
        }
    }

    fn value(&self) -> String {
        match self {
            Right::Read(path) | Right::Write(path) | Right::Writable(path) | Right::Secret(path) => scalar_path(path),
            Right::Network(entry) => entry.clone(),
            Right::Env(name) | Right::User(name) => scalar(name),
            Right::Models(name) | Right::ModelsInR3(name) | Right::Provider(name) => scalar(name),
            Right::Publish(at) => scalar(&at.to_string()),
            Right::NestedSandbox => "on".to_owned(),
            Right::Memory(size) => size.to_string(),
            Right::Cpu(cpu) => scalar(&cpu.to_string()),
            Right::Tasks(number) | Right::OpenFiles(number) | Right::Requests(number) => number.to_string(),
            Right::Chaos(faults) => {
                let faults: Vec<String> = faults.iter().map(|fault| scalar(fault)).collect();
                format!("{{opt_in: true, faults: [{}]}}", faults.join(", "))
            }
        }
    }

    fn is_limit(&self) -> bool {
        matches!(self, Right::Memory(_) | Right::Cpu(_) | Right::Tasks(_) | Right::OpenFiles(_) | Right::Requests(_))
    }

    fn is_list(&self) -> bool {
        !self.is_limit() && !matches!(self, Right::User(_) | Right::NestedSandbox | Right::Chaos(_))
    }
}

impl fmt::Display for Grant {
    /// `read: [/data]` under `agents.researcher`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = (self.right.key(), self.right.value());
        match (self.right.is_limit(), self.right.is_list()) {
            (true, _) => write!(f, "`limits: {{{key}: {value}}}` under `agents.{}`", self.agent),
            (_, true) => write!(f, "`{key}: [{value}]` under `agents.{}`", self.agent),
            _ => write!(f, "`{key}: {value}` under `agents.{}`", self.agent),
        }
    }
}

/// The `agents:` section that gives all of `grants`, with a first line that says where it belongs.
#[must_use]
pub fn yaml_block<'a>(grants: impl Iterator<Item = &'a Grant>) -> Option<String> {
    let mut grants: Vec<&Grant> = grants.collect();
    grants.sort();
    grants.dedup();
    let first = grants.first()?;
    let mut out = format!("an operator can allow this in {}:\n", first.operator_file.display());
    if !first.operator_file.exists() {
        out.push_str("    version: 1\n    kind: operator\n");
    }
    let providers = grants.iter().filter_map(|grant| match &grant.right {
        Right::Provider(name) => Some(provider(name)),
        _ => None,
    });
    let providers: Vec<String> = providers.collect();
    if !providers.is_empty() {
        let _ = writeln!(out, "    models: {{providers: {{{}}}}}", providers.join(", "));
    }
    out.push_str("    agents:\n");
    let mut agents: BTreeMap<&str, Vec<&Grant>> = BTreeMap::new();
    for grant in &grants {
        agents.entry(&grant.agent).or_default().push(grant);
    }
    for (agent, grants) in agents {
        let _ = writeln!(out, "      {}:\n        file: {}", scalar(agent), scalar_path(&grants[0].file));
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for grant in grants.iter().filter(|grant| grant.right.is_list()) {
            lists.entry(grant.right.key()).or_default().push(grant.right.value());
        }
        for (key, values) in lists {
            let _ = writeln!(out, "        {key}: [{}]", values.join(", "));
        }
        let limits: Vec<String> = grants
            .iter()
            .filter(|grant| grant.right.is_limit())
            .map(|grant| format!("{}: {}", grant.right.key(), grant.right.value()))
            .collect();
        if !limits.is_empty() {
            let _ = writeln!(out, "        limits: {{{}}}", limits.join(", "));
        }
        for grant in grants.iter().filter(|grant| !grant.right.is_list() && !grant.right.is_limit()) {
            let _ = writeln!(out, "        {}: {}", grant.right.key(), grant.right.value());
        }
    }
    out.truncate(out.trim_end().len());
    Some(out)
}

/// A model route as its declaration would begin: with a place for its key and, where its name does not say it, its upstream.
#[must_use]
pub fn provider(name: &str) -> String {
    let more = match upstream_of(name, &RouteSpec::default()) {
        Some(_) => "",
        None => "speaks: openai, upstream: \"https://api.example.com/v1\", ",
    };
    format!("{}: {{{more}key: {{file: /path/to/{}.key}}}}", scalar(name), name.escape_default())
}

fn scalar_path(path: &Path) -> String {
    scalar(&path.display().to_string())
}

/// A YAML scalar that reads back as exactly this text, quoted only where it must be.
#[must_use]
pub fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'))
        && !["true", "false", "null", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// An entry of a list as one line of YAML: `{host: "api.example.com", ports: [8443]}`.
#[must_use]
pub fn flow(entry: &impl Serialize) -> String {
    fn of(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::String(text) => scalar(text),
            serde_json::Value::Array(items) => format!("[{}]", items.iter().map(of).collect::<Vec<_>>().join(", ")),
            serde_json::Value::Object(keys) => {
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}: {}", of(value))).collect();
                format!("{{{}}}", keys.join(", "))
            }
            other => other.to_string(),
        }
    }
    of(&serde_json::to_value(entry).expect("what was read from YAML can be written"))
}
