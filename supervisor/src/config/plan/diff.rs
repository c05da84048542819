//! The readable difference of two plans, for `reload`.

use std::collections::BTreeMap;
use std::fmt;

use agt_gateway::policy::spec::EntrySpec;
use agt_rings::Ring;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{AgentPlan, EnvValue, HIDDEN_VALUE, network};
use crate::config::units::{ByteSize, Cpu};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What: `limits.memory in R2`, `files`.
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
    let reached = |ring: Ring| [old.ceiling, new.ceiling].iter().any(|ceiling| !ring.is_more_privileged_than(*ceiling));
    let changes = changes.into_iter().filter_map(|change| limit(change, reached));
    let mut changes: Vec<Change> = changes.collect();
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

/// Limits in the words and units of the file; `None` for those of a ring that the agent can't reach.
fn limit(change: Change, reached: impl Fn(Ring) -> bool) -> Option<Change> {
    let Some((row, rest)) = change.what.strip_prefix("ring_").and_then(|what| what.split_once(']')) else {
        return Some(change);
    };
    let Some((what, Some(ring))) = row.split_once('[').map(|(what, number)| (what, number.parse().ok())) else {
        return Some(change);
    };
    let ring = Ring::from_number(ring).filter(|ring| reached(*ring))?;
    let (name, unit): (&str, fn(u64) -> String) = match (what, rest) {
        (_, ".memory_bytes") => ("memory", |bytes| ByteSize(bytes).to_string()),
        (_, ".cpu_millis") => ("cpu", |millis| Cpu(u32::try_from(millis).unwrap_or(u32::MAX)).to_string()),
        (_, ".tasks") => ("tasks", |count| count.to_string()),
        ("requests_per_minute", _) => ("requests_per_minute", |count| count.to_string()),
        _ => ("files", |count| count.to_string()),
    };
    let shown = |value: Option<String>| value.map(|text| text.parse().map_or(text, unit));
    let which = if what == "limits_most" { "most of limits" } else { "limits" };
    Some(Change { what: format!("{which}.{name} in {ring}"), old: shown(change.old), new: shown(change.new) })
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
                let (what, text) = item(path, gone);
                changes.push(Change { what, old: Some(text), new: None });
            }
            for added in after.iter().filter(|item| !before.contains(item)) {
                let (what, text) = item(path, added);
                changes.push(Change { what, old: None, new: Some(text) });
            }
        }
        _ => {
            let shown = |value: &Json| (!value.is_null()).then(|| brief(value));
            changes.push(Change { what: path.to_owned(), old: shown(old), new: shown(new) });
        }
    }
}

/// An item of a list and what it is one of: entries of the network in words, because one that denies must not read like one that
/// allows.
fn item(path: &str, item: &Json) -> (String, String) {
    let what = match path {
        "network.entries" => "network",
        "network.ceiling.network" => "network of the operator's file",
        _ => return (path.to_owned(), brief(item)),
    };
    match serde_json::from_value::<EntrySpec>(item.clone()) {
        Ok(entry) => {
            let (row, text) = network::in_full(&entry);
            (what.to_owned(), format!("{row} {text}"))
        }
        Err(_) => (what.to_owned(), brief(item)),
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
