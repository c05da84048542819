//! "Did you mean": the nearest key, the key's right place, or the name that other tools give it.

use serde_json::{Map, Value as Json};

use super::Walker;
use super::checks::shorten;
use crate::config::diagnostic::{Problem, Show};
use crate::config::tree::{Entry, KeyPath, Place, Value};

/// What other tools call our keys (compose, systemd, Kubernetes, MCP clients). Used only where our key exists.
const SYNONYMS: [(&str, &str); 31] = [
    ("cmd", "command"),
    ("args", "command"),
    ("exec", "command"),
    ("entrypoint", "command"),
    ("cwd", "workdir"),
    ("dir", "workdir"),
    ("directory", "workdir"),
    ("workingdir", "workdir"),
    ("workingdirectory", "workdir"),
    ("environment", "env"),
    ("environ", "env"),
    ("envs", "env"),
    ("net", "network"),
    ("egress", "network"),
    ("volumes", "files"),
    ("mounts", "files"),
    ("paths", "files"),
    ("healthcheck", "health"),
    ("resources", "limits"),
    ("mem", "memory"),
    ("cpus", "cpu"),
    ("pids", "tasks"),
    ("nofile", "files"),
    ("max", "attempts"),
    ("maxattempts", "attempts"),
    ("maxretries", "attempts"),
    ("retries", "attempts"),
    ("grace", "stop"),
    ("stopgrace", "stop"),
    ("graceperiod", "stop"),
    ("terminationgraceperiod", "stop"),
];

/// Letters and digits only, lower case: `stopGrace`, `stop-grace` and `stop_grace` are the same word.
fn squeezed(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The names that are nearest to what was typed, if they are near enough to be meant: one, or two that are equally near.
pub(super) fn nearest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let word = squeezed(&shorten(typed));
    let distance = |name: &str| {
        let target = squeezed(name);
        let shorter = word.len().min(target.len());
        if word == target {
            0
        } else if shorter >= 3 && (word.starts_with(&target) || target.starts_with(&word)) {
            // A plural, a prefix, an abbreviation.
            1
        } else {
            strsim::damerau_levenshtein(&word, &target)
        }
    };
    let mut ranked: Vec<(usize, &str)> = names.map(|name| (distance(name), name)).collect();
    ranked.sort_by_key(|(distance, name)| (*distance, name.len().abs_diff(typed.len())));
    let Some(best) = ranked.first().map(|(distance, _)| *distance) else { return Vec::new() };
    if best > (word.len().max(3) / 3).max(1) {
        return Vec::new();
    }
    ranked.iter().take_while(|(distance, _)| *distance == best).take(2).map(|(_, name)| *name).collect()
}

/// What stands beside the caret: the suggestion, or `otherwise`.
pub(super) fn did_you_mean(near: &[impl AsRef<str>], otherwise: &str) -> String {
    match near {
        [] => otherwise.to_owned(),
        [one] => format!("did you mean `{}`?", one.as_ref()),
        [one, other, ..] => format!("did you mean `{}` or `{}`?", one.as_ref(), other.as_ref()),
    }
}

pub(super) fn unknown_key(
    walker: &Walker<'_>,
    entry: &Entry,
    known: Option<&Map<String, Json>>,
    path: &KeyPath,
) -> Problem {
    let key = shorten(&entry.key);
    let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    let here = if path.is_root() { "at the top".to_owned() } else { format!("under `{path}`") };
    let synonym = SYNONYMS
        .iter()
        .find(|(foreign, ours)| *foreign == squeezed(&entry.key) && names.contains(ours))
        .map(|(_, ours)| *ours);
    let near = synonym.map_or_else(|| nearest(&entry.key, names.iter().copied()), |ours| vec![ours]);
    let otherwise = match known.and_then(|known| elsewhere(walker, &entry.key, known)) {
        Some(parent) => format!("it belongs under `{parent}`"),
        None => "no such key".to_owned(),
    };
    let label = did_you_mean(&near, &otherwise);
    let full = path.key(&key);
    let show = match entry.value.value {
        // An unknown scalar could be a secret under a misspelt name: show the key alone.
        Value::Text(_) if is_secret_like(&entry.key) => Show::UpToMark,
        _ => Show::Line,
    };
    Problem::config(format!("unknown key `{full}`"))
        .at(entry.key_place)
        .label(label)
        .show(show)
        .help(format!("keys {here}: {}", names.join(", ")))
}

/// A name under which people keep what nobody should read.
fn is_secret_like(key: &str) -> bool {
    let word = squeezed(key);
    ["key", "token", "secret", "passw", "credential", "auth"].iter().any(|part| word.contains(part))
}

/// The sibling group that has a key of this very name: `memory:` written at the top belongs under `limits`.
fn elsewhere<'k>(walker: &Walker<'_>, key: &str, known: &'k Map<String, Json>) -> Option<&'k str> {
    let word = squeezed(key);
    known
        .iter()
        .find(|(_, schema)| {
            walker.objects_of(schema).iter().any(|properties| properties.keys().any(|name| squeezed(name) == word))
        })
        .map(|(name, _)| name.as_str())
}

impl<'s> Walker<'s> {
    /// The property lists that a schema can stand for.
    fn objects_of<'k>(&'k self, schema: &'k Json) -> Vec<&'k Map<String, Json>>
    where
        's: 'k,
    {
        let mut schema = schema;
        if let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.rsplit('/').next())
            && let Some(target) = self.definitions.and_then(|definitions| definitions.get(name))
        {
            schema = target;
        }
        let mut found: Vec<&Map<String, Json>> =
            schema.get("properties").and_then(Json::as_object).into_iter().collect();
        for key in ["anyOf", "oneOf", "allOf"] {
            for branch in schema.get(key).and_then(Json::as_array).into_iter().flatten() {
                found.extend(self.objects_of(branch));
            }
        }
        found
    }
}

/// `only` is the one word that its value may be.
pub(super) fn missing_key(name: &str, only: Option<&str>, path: &KeyPath, key_place: Place) -> Problem {
    let full = path.key(name);
    let value = only.unwrap_or("...");
    let help = match full.to_string().as_str() {
        "version" => "add a first line `version: 1`".to_owned(),
        "name" => "add `name: my-agent`: small letters, digits and `-`".to_owned(),
        "command" => "add `command: [python3, agent.py]`: the program and its arguments".to_owned(),
        _ if path.is_root() => format!("add a line `{name}: {value}`"),
        _ => format!("add `{name}:` under `{path}`"),
    };
    Problem::config(format!("the key `{full}` is missing"))
        .at(key_place)
        .label(if path.is_root() { "in this file".to_owned() } else { format!("in `{path}`") })
        .help(help)
}
