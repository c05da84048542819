//! From a path to a typed value with its positions: the one road that every kind of file takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::diagnostic::{ConfigError, Problem, Report, Show};
use super::tree::{KeyPath, Node, Place, Value};
use super::validate::Found;
use super::{blame, schema, source, validate, yaml};

/// Most values that one file's types refuse one after the other before the rest is left unsaid.
const MAX_ROUNDS: usize = 40;

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
    /// Prices of models.
    Prices,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Agent, Kind::Saga, Kind::Chaos, Kind::Operator, Kind::Prices];

    /// The word after `kind:`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Agent => "agent",
            Kind::Saga => "saga",
            Kind::Chaos => "chaos",
            Kind::Operator => "operator",
            Kind::Prices => "prices",
        }
    }

    /// How a file of this kind begins.
    pub(super) fn first_lines(self) -> &'static str {
        match self {
            Kind::Agent => "a first line `version: 1`, then `name:` and `command:`",
            Kind::Saga => "a first line `version: 1`, then `kind: saga`, `name:` and `steps:`",
            Kind::Chaos => "a first line `version: 1`, then `kind: chaos`, `name:`, `agent:` and `template:`",
            Kind::Operator => "a first line `version: 1`, then `kind: operator` and `agents:`",
            Kind::Prices => "a first line `version: 1`, then `kind: prices` and `models:`",
        }
    }

    fn reader(self) -> &'static str {
        match self {
            Kind::Agent => "agt-supervise run FILE",
            Kind::Saga => "agt-supervise saga run FILE",
            Kind::Chaos => "agt-supervise chaos run FILE",
            Kind::Operator => "agt-supervise run --operator FILE ...",
            Kind::Prices => "`models: {prices: FILE}` in the operator's file",
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
        let problem = problem.at(self.place(path)).about(path);
        if path.is_environment_value() { problem.show(Show::UpToMark) } else { problem }
    }

    /// The error for these problems.
    #[must_use]
    pub fn error(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError::from_report(Report::new(&self.shown, Arc::clone(&self.text), problems))
    }
}

/// What could be read of a file that may have problems: for the judges that come after, so that they too can be heard at once.
#[derive(Debug)]
pub struct Partial<T> {
    /// The file with everything left out, or replaced, that has a problem. Nothing is ever started from it.
    pub loaded: Loaded<T>,
    problems: Vec<Problem>,
    bad: Vec<KeyPath>,
}

/// The list whose items are judged as a whole.
const NETWORK: &str = "network";

impl<T> Partial<T> {
    /// Whether something is wrong so far.
    #[must_use]
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Whether the value at `path`, or one in it, was left out or replaced.
    #[must_use]
    pub fn is_bad(&self, path: &KeyPath) -> bool {
        self.bad.iter().any(|bad| bad.0.starts_with(&path.0))
    }

    /// The error with what a later judge found as well, without what merely follows from a value that is told already.
    #[must_use]
    pub fn error_with(self, later: Vec<Problem>) -> ConfigError {
        // An entry of `network` is judged as a whole: what is said of one with a mistake in it may be untrue once that is mended.
        let has_mistake = |item: &KeyPath| {
            let told = |problem: &Problem| problem.path.as_ref().is_some_and(|path| path.0.starts_with(&item.0));
            self.is_bad(item) || self.problems.iter().any(told)
        };
        let follows = |problem: &Problem| {
            problem.path.as_ref().is_some_and(|path| {
                self.bad.iter().any(|bad| path.0.starts_with(&bad.0))
                    || path.last_item_of(NETWORK).is_some_and(|entry| has_mistake(&entry))
            })
        };
        let news: Vec<Problem> = later.into_iter().filter(|problem| !follows(problem)).collect();
        let mut problems = self.problems;
        problems.extend(news);
        self.loaded.document.error(problems)
    }
}

/// Reads a file of this kind into its type, or reports all that is wrong with it.
///
/// A type that has no `version` and `kind` of its own needs none: both lines are checked here and not given to it.
///
/// # Errors
/// [`ConfigError::Unreadable`] and [`ConfigError::Invalid`], exit code 64 both.
pub fn load_typed<T: DeserializeOwned + JsonSchema + 'static>(
    path: &Path,
    kind: Kind,
) -> Result<Loaded<T>, ConfigError> {
    sound(load_partial(path, kind)?)
}

/// [`load_typed`] for text that is in memory already; `shown` is the name for messages.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn parse_typed<T: DeserializeOwned + JsonSchema + 'static>(
    text: &Arc<str>,
    shown: &Path,
    kind: Kind,
) -> Result<Loaded<T>, ConfigError> {
    sound(parse_partial(text, shown, kind)?)
}

fn sound<T>(partial: Partial<T>) -> Result<Loaded<T>, ConfigError> {
    if partial.has_problems() { Err(partial.error_with(Vec::new())) } else { Ok(partial.loaded) }
}

/// Reads what can be read of a file.
///
/// # Errors
/// As [`load_typed`], when so much is wrong that there is no value at all.
pub fn load_partial<T: DeserializeOwned + JsonSchema + 'static>(
    path: &Path,
    kind: Kind,
) -> Result<Partial<T>, ConfigError> {
    parse_partial(&source::read(path)?, path, kind)
}

/// [`load_partial`] for text that is in memory already.
///
/// # Errors
/// As [`load_partial`].
pub(super) fn parse_partial<T: DeserializeOwned + JsonSchema + 'static>(
    text: &Arc<str>,
    shown: &Path,
    kind: Kind,
) -> Result<Partial<T>, ConfigError> {
    let fail = |problems| Err(ConfigError::from_report(Report::new(shown, Arc::clone(text), problems)));
    let (mut root, mut problems) = match yaml::parse(text, kind) {
        Ok(read) => read,
        Err(problem) => return fail(vec![*problem]),
    };
    if let Some(problem) = other_kind(&root, kind) {
        return fail(vec![problem]);
    }
    let schema = schema::for_checks::<T>();
    problems.extend(header(&mut root, &schema, kind));
    let Found { problems: more, mut bad } = validate::validate(&mut root, &schema);
    problems.extend(more);
    let mut document = Document { shown: shown.to_path_buf(), text: Arc::clone(text), root };
    // One round for each value that its type refuses; all but the last leave one out.
    for _ in 0..MAX_ROUNDS {
        match yaml::typed(&document.root) {
            Ok(value) => return Ok(Partial { loaded: Loaded { value, document }, problems, bad }),
            Err(refusal) => {
                let refusal = blame::refine::<T>(&document.root, refusal);
                let demanded = demanded(&refusal, &bad);
                if demanded.is_none() {
                    let problem = refused(&refusal.path, refusal.message_alone());
                    problems.push(document.locate(problem.label("impossible value"), &refusal.path));
                }
                bad.push(refusal.path.clone());
                let put = demanded.and_then(|key| blame::put(&mut document.root, &refusal.path, &key));
                if put.is_none() && !blame::leave_out(&mut document.root, &refusal.path) {
                    break;
                }
            }
        }
    }
    fail(problems)
}

/// What a type says of a value, in the words of files: without the names and places that its reader puts around it.
fn refused(path: &KeyPath, message: &str) -> Problem {
    let name = if path.is_root() { String::new() } else { format!("`{path}`: ") };
    let message = message.strip_prefix(&format!("{path}: ")).unwrap_or(message);
    let message = match message.rsplit_once(" at line ") {
        Some((text, place)) if place.bytes().all(|b| b.is_ascii_digit() || b" column".contains(&b)) => text,
        _ => message,
    };
    let problem = Problem::config(format!("{name}{message}"));
    if message.ends_with("expected a duration") { problem.help("for example `5s`, `90s` or `1h 30m`") } else { problem }
}

/// The key that the type misses only because its value was left out before.
fn demanded(refusal: &yaml::TypeRefusal, bad: &[KeyPath]) -> Option<String> {
    let key = refusal.message_alone().strip_prefix("missing field `")?.split('`').next()?;
    bad.contains(&refusal.path.key(key)).then(|| key.to_owned())
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
                    .about(&KeyPath::of(key))
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
