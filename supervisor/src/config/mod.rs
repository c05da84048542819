//! Configuration: from YAML files to plans, with every mistake reported at once.
//!
//! The road: [`source`] reads a bounded file, [`yaml`] makes a spanned tree of it, `validate` compares the tree with the
//! schema of the types in [`spec`], serde gives the typed value, [`resolve`](load_agent) checks each request against the
//! operator's file and what is around, and gives an [`AgentPlan`]. Nothing is started by anything in here, and nothing
//! is decided outside: a file either gives a plan, or a [`ConfigError`] with all that is wrong, where, and what helps.

mod blame;
pub mod diagnostic;
mod document;
pub mod grant;
mod interpolate;
pub mod plan;
mod resolve;
mod rights;
mod schema;
pub mod source;
pub mod spec;
mod surroundings;
pub mod tree;
pub mod units;
mod validate;
mod wish;
pub mod yaml;
mod zones;

#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agt_rings::names::lists;
use agt_rings::spec::Access;

use sha2::{Digest, Sha256};

pub use diagnostic::{Class, Color, ConfigError, Problem, Report};
pub use document::{Document, Kind, Loaded, Partial, load_partial, load_typed, parse_typed};
pub use grant::{Grant, Refusal, Right};
pub use plan::{AgentPlan, Change, Identity, PlanHash, diff};
pub use resolve::Overrides;
pub(crate) use resolve::look::repositories;
pub use rights::{Commanders, Operator, load_operator};
pub use schema::{SchemaKind, schema, schema_of};
pub use spec::{AgentName, AgentSpec, Command, OperatorSpec};
pub use surroundings::{Account, OwnFolders, RingDefaults, RingTable, Surroundings};

pub use wish::{Wish, quoted};
pub use zones::settled;

use resolve::Origin;
use tree::KeyPath;

/// Loads, checks and resolves one agent.
///
/// `operator` names the operator's file; without one the file of [`Surroundings::operator_file`] is used if it is there.
///
/// # Errors
/// Everything that is wrong with the agent's file, with the operator's file, or with the agent's requests.
pub fn load_agent(
    path: &Path,
    around: &Surroundings,
    operator: Option<&Path>,
    overrides: &Overrides,
) -> Result<AgentPlan, ConfigError> {
    load_agent_with(path, around, operator, overrides, &[])
}

/// [`load_agent`] of the file as it would be with these lines more: what `why` asks, so that its answer is the resolver's own.
///
/// # Errors
/// As [`load_agent`]; what the wishes lack is among the problems, with the operator's line that would allow it.
pub fn load_agent_with(
    path: &Path,
    around: &Surroundings,
    operator: Option<&Path>,
    overrides: &Overrides,
    wishes: &[Wish],
) -> Result<AgentPlan, ConfigError> {
    let mut partial =
        load_partial::<AgentSpec>(&around.cwd.join(path), Kind::Agent).map_err(|error| error.shown_as(path))?;
    partial.loaded.document.shown = path.to_path_buf();
    wishes.iter().for_each(|wish| wish.add_to(&mut partial.loaded.value));
    let operator = match find_operator(operator, around) {
        Err(_) if partial.has_problems() => return Err(partial.error_with(Vec::new())),
        other => other?,
    };
    let source = around
        .cwd
        .join(path)
        .canonicalize()
        .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
    let folder = source.parent().unwrap_or(Path::new("/")).to_path_buf();
    let Loaded { value, document } = &partial.loaded;
    let origin = Origin { document: Some(document), source: &source, folder: &folder };
    let resolved = resolve::resolve(value, origin, around, operator.as_ref(), overrides);
    if !partial.has_problems() {
        return resolved;
    }
    let later = resolved.err().and_then(|error| error.report().map(|report| report.problems.clone()));
    let rests_on_sound = |problem: &Problem| founded(problem, &partial);
    let later = later.unwrap_or_default().into_iter().filter(rests_on_sound).collect();
    Err(partial.error_with(later))
}

/// What stands beside a word that is none of `names`: the nearest, if one is near.
#[must_use]
pub fn did_you_mean(word: &str, names: &[&str]) -> String {
    validate::did_you_mean(word, names)
}

/// Whether what a later judge says of a file with mistakes rests on values that are sound: rights on the agent's name and ring,
/// programs and files on the command and what it is looked up with.
fn founded(problem: &Problem, partial: &Partial<AgentSpec>) -> bool {
    let is_bad = |keys: &[&str]| keys.iter().any(|key| partial.is_bad(&KeyPath::of(key)));
    let below = |key: &str| problem.path.as_ref().is_some_and(|path| path.0.starts_with(&KeyPath::of(key).0));
    match problem.class {
        Class::Refused => !is_bad(&["name", "ring", "command", "workdir"]),
        Class::NotExecutable | Class::NotFound => !is_bad(&["command", "workdir", "env", "ring"]),
        Class::Config if below("files") || below("command") => !is_bad(&["command", "workdir"]),
        Class::Config => true,
    }
}

/// Resolves a command line that has no file (`run --ring N -- COMMAND`): named after its script or program unless `--name`
/// was typed, working where the user stands, with the user's own PATH (the user typed the command and means the program that they see).
///
/// # Errors
/// As [`load_agent`].
pub fn agent_from_command(
    words: Vec<String>,
    around: &Surroundings,
    operator: Option<&Path>,
    overrides: &Overrides,
) -> Result<AgentPlan, ConfigError> {
    let command = Command::from_words(words).map_err(|bad| {
        let problem = Problem::config(bad.message).help(bad.instead);
        ConfigError::from_report(Report::new(Path::new(""), "".into(), vec![problem]))
    })?;
    let operator = find_operator(operator, around)?;
    let cwd =
        around.cwd.canonicalize().map_err(|source| ConfigError::Unreadable { path: around.cwd.clone(), source })?;
    let workdir = overrides.workdir.as_ref().map_or_else(|| cwd.clone(), |typed| cwd.join(typed));
    let named = named_by(&command, &workdir);
    let mut spec = AgentSpec::new(overrides.name.clone().unwrap_or_else(|| derived_name(&named)), command);
    spec.ring = overrides.ring;
    spec.enforcement = overrides.enforcement;
    if around.env.contains_key("PATH") {
        spec.env.pass = vec!["PATH".to_owned()];
    }
    let origin = Origin { document: None, source: &named, folder: &cwd };
    resolve::resolve(&spec, origin, around, operator.as_ref(), overrides)
}

/// Resolves a spec that was made from another file of ours (a step of a saga): `source` is that file, resolved, and its
/// folder is the one that relative paths are relative to. Without a document problems have no place: the caller knows the
/// line; with one they stand where the keys of the same names do in it.
///
/// # Errors
/// As [`load_agent`].
pub fn agent_from_spec(
    spec: &AgentSpec,
    source: &Path,
    document: Option<&Document>,
    around: &Surroundings,
    operator: Option<&Path>,
) -> Result<AgentPlan, ConfigError> {
    let operator = find_operator(operator, around)?;
    let folder = source.parent().unwrap_or(Path::new("/"));
    let origin = Origin { document, source, folder };
    resolve::resolve(spec, origin, around, operator.as_ref(), &Overrides::default())
}

/// The name of an agent without a file: its script's or program's, and six hexadecimal digits for where that stands. They make it
/// another one than an agent.yaml's of that name and than a `main.py`'s in another folder; the same program has the same name
/// each time, and so keeps its trust.
fn derived_name(named: &Path) -> AgentName {
    let mut stem = plain_name(named).to_string();
    stem.truncate(MAX_STEM);
    let digest = Sha256::digest(named.as_os_str().as_encoded_bytes());
    let digits: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    AgentName::from_words(&format!("{stem}-{digits}"))
}

/// The name of a script or program, for a file that somebody will write.
#[must_use]
pub fn plain_name(named: &Path) -> AgentName {
    let stem = named.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    AgentName::from_words(&stem)
}

/// Longest part of a derived name before its digits.
const MAX_STEM: usize = 48;

/// What a command line is known by: the script that its interpreter reads, else its program.
fn named_by(command: &Command, workdir: &Path) -> PathBuf {
    let words = command.words();
    let is_interpreter =
        Path::new(&words[0]).file_name().is_some_and(|name| resolve::is_interpreter(&name.to_string_lossy()));
    let files = words.iter().skip(1).map(|word| workdir.join(word));
    let script = files.filter(|_| is_interpreter).find(|path| path.is_file());
    let program = || {
        let path = workdir.join(&words[0]);
        if words[0].contains('/') { path } else { PathBuf::from(&words[0]) }
    };
    let path = script.unwrap_or_else(program);
    path.canonicalize().unwrap_or(path)
}

/// Who may command a supervisor here, by the operator's file that counts.
///
/// # Errors
/// A wrong operator's file.
pub fn commanders(named: Option<&Path>, around: &Surroundings) -> Result<Commanders, ConfigError> {
    Ok(find_operator(named, around)?.map(|operator| operator.commanders).unwrap_or_default())
}

/// The limits of all agents together, from the same file.
///
/// # Errors
/// A wrong operator's file.
pub fn total(named: Option<&Path>, around: &Surroundings) -> Result<agt_rings::spec::Limits, ConfigError> {
    Ok(find_operator(named, around)?.map(|operator| operator.spec.total.limits()).unwrap_or_default())
}

/// Whether somebody may ask for this folder whole: no home, nothing that holds one, none of ours, no folder of everybody.
#[must_use]
pub fn may_be_asked_for_whole(folder: &Path, around: &Surroundings) -> bool {
    const TOP: usize = 2;
    folder.components().count() > TOP && zones::Zones::new(around, &around.operator_file).can_be_installation(folder)
}

/// Why nobody should be offered a line for this path, though an operator could write one: what of /etc only root may read, and
/// for writing the system and the never-writable names.
#[must_use]
pub fn not_to_be_offered(path: &Path, access: Access, around: &Surroundings) -> Option<String> {
    if is_kept_secret(path) {
        return Some("only root may read that".to_owned());
    }
    if access == Access::Read {
        return None;
    }
    if let Some(name) = never_writable_part(path) {
        return Some(format!("`{name}` is run or obeyed later by its user, so no agent writes it"));
    }
    let is_system = zones::Zones::new(around, &around.operator_file).is_system(path);
    is_system.then(|| "that is part of the system; let it write in its own folder".to_owned())
}

/// Whether this is, or lies in, something of /etc that is root's and closed to others: shadow, sudoers, host keys.
fn is_kept_secret(path: &Path) -> bool {
    const OF_OTHERS: u32 = 0o004;
    let is_closed = |part: &Path| match part.metadata() {
        Ok(found) => found.uid() == 0 && found.mode() & OF_OTHERS == 0,
        Err(e) => e.kind() == std::io::ErrorKind::PermissionDenied,
    };
    path.starts_with("/etc") && path.ancestors().take_while(|part| *part != Path::new("/etc")).any(is_closed)
}

/// The part of a path by which it is never writable.
fn never_writable_part(path: &Path) -> Option<String> {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy().to_lowercase()).collect();
    let of_git = |at: usize| at > 0 && parts[at - 1] == ".git" && lists::GIT_NAMES.contains(&parts[at].as_str());
    (0..parts.len()).find(|at| lists::is_never_writable(&parts[*at]) || of_git(*at)).map(|at| parts[at].clone())
}

/// The operator's file that counts: the one that was named, else the default one if it is there.
fn find_operator(named: Option<&Path>, around: &Surroundings) -> Result<Option<Operator>, ConfigError> {
    match named {
        Some(path) => {
            let full = around.cwd.join(path);
            // A file that it names, a price table, keeps its own name.
            let shown = |error: ConfigError| if error.file() == full { error.shown_as(path) } else { error };
            load_operator(&full, around).map(Some).map_err(shown)
        }
        None if around.operator_file.symlink_metadata().is_ok() => {
            load_operator(&around.operator_file, around).map(Some)
        }
        None => Ok(None),
    }
}
