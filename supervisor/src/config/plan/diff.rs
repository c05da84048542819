//! The readable difference of two plans, for `reload`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use super::{AgentPlan, EnvValue, HIDDEN_VALUE};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What: `ring_limits[2].memory_bytes`, `files`.
    pub what: String,
    /// Before; `None` = it was not there.
    pub old: Option<String>,
    /// After; `None` = it is gone.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "~ {}: {old} -> {new}", self.what),
            (None, Some(new)) => write!(f, "+ {}: {new}", self.what),
            (Some(old), None) => write!(f, "- {}: {old}", self.what),
            (None, None) => write!(f, "~ {}", self.what),
        }
    }
}

/// What changes from `old` to `new`, in a stable order; empty when nothing does.
#[must_use]
pub fn diff(old: &AgentPlan, new: &AgentPlan) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", &old.to_json(), &new.to_json(), &mut changes);
    // Values of the environment look the same on both sides: say that they differ, never how.
    for (name, after) in &new.env {
        let hidden = match (old.env.get(name), after) {
            (Some(EnvValue::Secret(before)), EnvValue::Secret(after)) if before != after => "[secret]",
            (Some(EnvValue::Plain(before)), EnvValue::Plain(after)) if before != after => HIDDEN_VALUE,
            _ => continue,
        };
        let hidden = Some(hidden.to_owned());
        changes.push(Change { what: format!("env.{name}"), old: hidden.clone(), new: hidden });
    }
    changes
}

fn compare(path: &str, old: &Json, new: &Json, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Json::Object(before), Json::Object(after)) => {
            let keys: BTreeMap<&String, ()> = before.keys().chain(after.keys()).map(|key| (key, ())).collect();
            for key in keys.into_keys() {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, before.get(key).unwrap_or(&Json::Null), after.get(key).unwrap_or(&Json::Null), changes);
            }
        }
        (Json::Array(before), Json::Array(after)) if before.len() == after.len() && path.starts_with("ring_") => {
            for (index, (one, other)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{index}]"), one, other, changes);
            }
        }
        // Lists of rules are sets to whoever reads the difference; `argv` is not, it is shown whole.
        (Json::Array(before), Json::Array(after)) if path != "argv" => {
            for gone in before.iter().filter(|item| !after.contains(item)) {
                changes.push(Change { what: path.to_owned(), old: Some(brief(gone)), new: None });
            }
            for added in after.iter().filter(|item| !before.contains(item)) {
                changes.push(Change { what: path.to_owned(), old: None, new: Some(brief(added)) });
            }
        }
        _ => {
            let shown = |value: &Json| (!value.is_null()).then(|| brief(value));
            changes.push(Change { what: path.to_owned(), old: shown(old), new: shown(new) });
        }
    }
}

/// `{"access":"read","path":"/x"}` as `read /x`; everything else as short as JSON is.
fn brief(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Object(map) if map.len() <= 3 && map.values().all(Json::is_string) => {
            map.values().filter_map(Json::as_str).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}
