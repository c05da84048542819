//! From a path to a typed value with its positions: the one road that every kind of file takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::diagnostic::{ConfigError, Problem, Report, Show};
use super::tree::{KeyPath, Node, Place, Value};
use super::{blame, schema, source, validate, yaml};

/// The kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One agent; the line `kind:` may be missing.
    Agent,
    /// A saga.
    Saga,
    /// A chaos experiment.
    Chaos,
    /// The operator's file.
    Operator,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Agent, Kind::Saga, Kind::Chaos, Kind::Operator];

    /// The word after `kind:`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Agent => "agent",
            Kind::Saga => "saga",
            Kind::Chaos => "chaos",
            Kind::Operator => "operator",
        }
    }

    fn reader(self) -> &'static str {
        match self {
            Kind::Agent => "agt-supervise run FILE",
            Kind::Saga => "agt-supervise saga run FILE",
            Kind::Chaos => "agt-supervise chaos run FILE",
            Kind::Operator => "agt-supervise run --operator FILE ...",
        }
    }
}

/// A file that was read: text, tree, and how the user named it.
#[derive(Debug, Clone)]
pub struct Document {
    /// The path as the user gave it, for messages.
    pub shown: PathBuf,
    /// The whole text.
    pub text: Arc<str>,
    /// The tree.
    pub root: Node,
}

/// A typed value with the document that it came from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub document: Document,
}

impl Document {
    /// Where the value of `path` stands, or the nearest thing above it.
    #[must_use]
    pub fn place(&self, path: &KeyPath) -> Place {
        if path.is_environment_value() {
            return self.root.key_place(path).unwrap_or_default();
        }
        self.root.nearest_place(path)
    }

    /// A problem put at `path`; values of the environment stay hidden.
    #[must_use]
    pub fn locate(&self, problem: Problem, path: &KeyPath) -> Problem {
        let problem = problem.at(self.place(path));
        if path.is_environment_value() { problem.show(Show::UpToMark) } else { problem }
    }

    /// The error for these problems.
    #[must_use]
    pub fn error(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError::from_report(Report::new(&self.shown, Arc::clone(&self.text), problems))
    }
}

/// Reads a file of this kind into its type, or reports all that is wrong with it.
///
/// A type that has no `version` and `kind` of its own needs none: both lines are checked here and not given to it.
///
/// # Errors
/// [`ConfigError::Unreadable`] and [`ConfigError::Invalid`], exit code 64 both.
pub fn load_typed<T: DeserializeOwned + JsonSchema>(path: &Path, kind: Kind) -> Result<Loaded<T>, ConfigError> {
    parse_typed(&source::read(path)?, path, kind)
}

/// [`load_typed`] for text that is in memory already; `shown` is the name for messages.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn parse_typed<T: DeserializeOwned + JsonSchema>(
    text: &Arc<str>,
    shown: &Path,
    kind: Kind,
) -> Result<Loaded<T>, ConfigError> {
    let fail = |problems| Err(ConfigError::from_report(Report::new(shown, Arc::clone(text), problems)));
    let mut root = match yaml::parse(text) {
        Ok(root) => root,
        Err(problems) => return fail(problems),
    };
    if let Some(problem) = other_kind(&root, kind) {
        return fail(vec![problem]);
    }
    let schema = schema::value_of::<T>(kind.word());
    let mut problems = header(&mut root, &schema, kind);
    if let Err(more) = validate::validate(&mut root, &schema) {
        problems.extend(more);
    }
    if !problems.is_empty() {
        return fail(problems);
    }
    let document = Document { shown: shown.to_path_buf(), text: Arc::clone(text), root };
    match yaml::typed(&document.root) {
        Ok(value) => Ok(Loaded { value, document }),
        Err(refusal) => {
            let refusal = blame::refine::<T>(&document.root, refusal);
            let name = if refusal.path.is_root() { String::new() } else { format!("`{}`: ", refusal.path) };
            let problem = Problem::config(format!("{name}{}", refusal.message_alone())).label("impossible value");
            let problem = document.locate(problem, &refusal.path);
            Err(document.error(vec![problem]))
        }
    }
}

/// A file of another kind gets one message that says so, not forty about its keys.
fn other_kind(root: &Node, kind: Kind) -> Option<Problem> {
    let given = root.child("kind")?;
    let other = Kind::ALL.into_iter().find(|other| *other != kind && other.word() == given.source)?;
    Some(
        Problem::config(format!("this file is `kind: {}`, expected `kind: {}`", other.word(), kind.word()))
            .at(given.place)
            .help(format!("`{}` reads it", other.reader())),
    )
}

/// Checks `version` and `kind` where the type does not demand them, and removes them where it does not know them.
fn header(root: &mut Node, schema: &serde_json::Value, kind: Kind) -> Vec<Problem> {
    let known = |key: &str| schema.get("properties").is_some_and(|properties| properties.get(key).is_some());
    let demanded = |key: &str| {
        schema
            .get("required")
            .and_then(|names| names.as_array())
            .is_some_and(|names| names.iter().any(|name| name == key))
    };
    let first = match &root.value {
        Value::Mapping(entries) => entries.first().map_or(root.place, |entry| entry.key_place),
        _ => return Vec::new(),
    };
    let mut problems = Vec::new();
    for (key, expected) in [("version", "1"), ("kind", kind.word())] {
        // A type that demands the line has its value checked with the rest; an agent's `kind` may be missing.
        if known(key) && (demanded(key) || kind == Kind::Agent) {
            continue;
        }
        match root.child(key) {
            Some(value) if value.source == expected => {}
            Some(value) => problems.push(
                Problem::config(format!("`{key}` is `{}`", value.source.chars().take(40).collect::<String>()))
                    .at(value.place)
                    .label(format!("expected `{expected}`")),
            ),
            None => problems.push(
                Problem::config(format!("the key `{key}` is missing"))
                    .at(first)
                    .label("in this file")
                    .help(format!("add a line `{key}: {expected}`")),
            ),
        }
        if !known(key)
            && let Value::Mapping(entries) = &mut root.value
        {
            entries.retain(|entry| entry.key != key);
        }
    }
    problems
}
