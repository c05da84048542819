//! What can be wrong with one value: its type, its range, its form.

use serde_json::{Map, Value as Json};

use super::suggest;
use crate::config::diagnostic::Problem;
use crate::config::spec;
use crate::config::tree::{KeyPath, Node, Value};
use crate::config::units::{BadQuantity, ByteSize, Cpu, Share, Span};

fn types(rules: &Map<String, Json>) -> Vec<&str> {
    match rules.get("type") {
        Some(Json::String(one)) => vec![one.as_str()],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of(node: &Node, name: &str) -> bool {
    match (&node.value, name) {
        (Value::Null, "null")
        | (Value::Bool(_), "boolean")
        | (Value::Integer(_), "integer" | "number")
        | (Value::Text(_), "string")
        | (Value::Sequence(_), "array")
        | (Value::Mapping(_), "object") => true,
        (Value::Float(number), "number") => number.is_finite(),
        _ => false,
    }
}

pub(super) fn has_type(node: &Node, rules: &Map<String, Json>) -> bool {
    let types = types(rules);
    types.is_empty() || types.iter().any(|name| is_of(node, name))
}

pub(super) fn wants_text(rules: &Map<String, Json>) -> bool {
    types(rules).contains(&"string")
}

/// "text", "a list or text": what `rules` asks for.
fn wanted(rules: &Map<String, Json>) -> String {
    let names: Vec<&str> = types(rules)
        .iter()
        .filter(|name| **name != "null")
        .map(|name| match *name {
            "string" => "text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a group of keys",
            other => other,
        })
        .collect();
    names.join(" or ")
}

pub(super) fn wrong_type(node: &Node, rules: &Map<String, Json>, path: &KeyPath) -> Problem {
    let name = if path.is_root() { "the file".to_owned() } else { format!("`{path}`") };
    let wanted = match rules.get("title").and_then(Json::as_str).filter(|_| rules.contains_key("x-check")) {
        Some(title) => title.to_owned(),
        None => wanted(rules),
    };
    let problem = Problem::config(format!("{name} must be {wanted}, this is {}", node.kind_name()))
        .label(format!("expected {wanted}"));
    match (&node.value, types(rules).as_slice()) {
        (Value::Text(text), types) if types.contains(&"boolean") && is_yes_or_no(text) => {
            problem.help("YAML 1.2 knows `true` and `false` only")
        }
        (Value::Text(text), types) if types.contains(&"array") && is_nothing(text) => {
            problem.help("leave the line out: nothing is what there is without it")
        }
        (Value::Text(_), types) if types.contains(&"array") && !has_text_items(rules) => {
            problem.help("a list has one `- ` line of its own for each item")
        }
        (Value::Text(text), types) if types.contains(&"array") => {
            problem.help(format!("a list is written `[{}]` or one `- ` line for each item", shorten(text)))
        }
        (Value::Mapping(_), types) if types.contains(&"array") => {
            problem.help("put `- ` before each item to make it a list")
        }
        (Value::Float(_), types) if types.contains(&"integer") && node.source.contains('.') => {
            problem.help("write it without a point")
        }
        _ => match examples(rules).or_else(|| only_key(node, rules)).or_else(|| keys(rules)) {
            Some(examples) => problem.help(examples),
            None => problem,
        },
    }
}

fn examples(rules: &Map<String, Json>) -> Option<String> {
    let examples: Vec<String> = rules.get("examples")?.as_array()?.iter().map(|e| format!("`{}`", bare(e))).collect();
    Some(format!("for example {}", examples.join(", ")))
}

/// How a single value is written where a group with one key is wanted. The value is not repeated: it can be a secret.
fn only_key(node: &Node, rules: &Map<String, Json>) -> Option<String> {
    let keys = rules.get("properties")?.as_object().filter(|_| matches!(node.value, Value::Text(_)))?;
    let key = keys.keys().next().filter(|_| keys.len() == 1)?;
    Some(format!("the value stands under `{key}`: write `{{{key}: ...}}`"))
}

/// What stands in a group, where something else was written.
fn keys(rules: &Map<String, Json>) -> Option<String> {
    let keys = rules.get("properties")?.as_object().filter(|keys| !keys.is_empty())?;
    let names: Vec<&str> = keys.keys().map(String::as_str).collect();
    Some(format!("write `{{KEY: ...}}`, with one or more of these keys: {}", names.join(", ")))
}

/// A JSON value as one would write it in YAML.
pub(super) fn bare(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_nothing(text: &str) -> bool {
    ["", "none", "nothing", "no", "off", "deny", "false"].contains(&text.to_ascii_lowercase().as_str())
}

fn has_text_items(rules: &Map<String, Json>) -> bool {
    rules.get("items").and_then(|items| items.get("type")).is_some_and(|kind| kind == "string")
}

fn is_yes_or_no(text: &str) -> bool {
    ["yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
}

/// A value for a message: short, so that a megabyte of text does not become a message of a megabyte.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// List of values, range, length and own parser of a scalar.
pub(super) fn value_problem(node: &Node, rules: &Map<String, Json>, path: &KeyPath) -> Option<Problem> {
    if matches!(node.value, Value::Sequence(_) | Value::Mapping(_)) {
        return None;
    }
    if node.source.contains('\0') {
        return Some(Problem::config(format!("`{path}` contains a NUL character")).label("no path or argument can"));
    }
    allowed_values(node, rules, path)
        .or_else(|| range(node, rules, path))
        .or_else(|| text_length(node, rules, path))
        .or_else(|| own_parser(&node.source, rules, path))
}

pub(super) fn allowed_values(node: &Node, rules: &Map<String, Json>, path: &KeyPath) -> Option<Problem> {
    let allowed: Vec<&Json> = match (rules.get("const"), rules.get("enum")) {
        (Some(only), _) => vec![only],
        (_, Some(Json::Array(several))) => several.iter().collect(),
        _ => return None,
    };
    not_among(node, &allowed, path)
}

/// The problem that a value is none of `allowed`, with the nearest one suggested.
pub(super) fn not_among(node: &Node, allowed: &[&Json], path: &KeyPath) -> Option<Problem> {
    if allowed.iter().any(|value| equals(node, value)) {
        return None;
    }
    let names: Vec<String> = allowed.iter().map(|value| bare(value)).collect();
    let values = format!("values of `{path}`: {}", names.join(", "));
    if node.source == "throttle" && names.iter().any(|name| name == "demote") {
        let message = format!("`throttle` can't be a remedy yet (`{path}`): nothing counts an agent's requests");
        return Some(Problem::config(message).label("it would do nothing").help(values));
    }
    let problem = Problem::config(format!("unknown value `{}` for `{path}`", shorten(&node.source))).help(values);
    // `R2` where 2 is meant, `Never` where `never` is.
    let typed = node.source.trim_start_matches(['r', 'R']);
    if matches!(node.value, Value::Text(_)) && names.contains(&node.source) {
        let message = format!("`{path}` must be a number, this is text: `{}` in quotes", shorten(&node.source));
        return Some(Problem::config(message).label(format!("write {} without quotes", node.source)));
    }
    let are_numbers = allowed.iter().all(|value| value.is_number());
    let near = match names.iter().find(|name| *name == typed) {
        Some(name) => vec![name.as_str()],
        // Of numbers none is "like" another; of rings the one with the fewest rights is offered, never more.
        None if are_numbers => names.last().filter(|_| names.len() > 1).map(String::as_str).into_iter().collect(),
        None => suggest::nearest(&node.source, names.iter().map(String::as_str)),
    };
    Some(problem.label(suggest::did_you_mean(&near, "not one of the values")))
}

fn equals(node: &Node, value: &Json) -> bool {
    match (&node.value, value) {
        (Value::Bool(a), Json::Bool(b)) => a == b,
        (Value::Integer(a), Json::Number(b)) => b.as_i64().map(i128::from) == Some(*a),
        (Value::Float(a), Json::Number(b)) => b.as_f64() == Some(*a),
        (Value::Text(a), Json::String(b)) => a == b,
        _ => false,
    }
}

fn range(node: &Node, rules: &Map<String, Json>, path: &KeyPath) -> Option<Problem> {
    let value = match node.value {
        Value::Integer(value) => value as f64,
        Value::Float(value) => value,
        _ => return None,
    };
    let number = |key: &str| rules.get(key).and_then(Json::as_f64);
    let widest = match rules.get("format").and_then(Json::as_str) {
        Some("uint8") => Some(f64::from(u8::MAX)),
        Some("uint16") => Some(f64::from(u16::MAX)),
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    };
    let least = number("minimum");
    let most = match (number("maximum"), widest) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let above = number("exclusiveMinimum");
    let below = number("exclusiveMaximum");
    let bad = |limit: String| {
        Some(Problem::config(format!("`{path}` is {}: it must be {limit}", node.source)).label("impossible value"))
    };
    match (least, most, above, below) {
        (Some(least), _, _, _) if value < least => bad(format!("{least} or more")),
        (_, Some(most), _, _) if value > most => bad(format!("{most} or less")),
        (_, _, Some(above), _) if value <= above => bad(format!("more than {above}")),
        (_, _, _, Some(below)) if value >= below => bad(format!("less than {below}")),
        _ => None,
    }
}

fn text_length(node: &Node, rules: &Map<String, Json>, path: &KeyPath) -> Option<Problem> {
    let Value::Text(text) = &node.value else { return None };
    let length = text.chars().count() as u64;
    if rules.get("minLength").and_then(Json::as_u64).is_some_and(|least| length < least) {
        return Some(Problem::config(format!("`{path}` is empty")).label("give it a value, or leave it out"));
    }
    let most = rules.get("maxLength").and_then(Json::as_u64)?;
    (length > most).then(|| {
        Problem::config(format!("`{path}` has {length} characters, the limit is {most}")).label("impossible value")
    })
}

pub(super) fn length_problem(count: usize, rules: &Map<String, Json>, path: &KeyPath) -> Option<Problem> {
    let count = count as u64;
    if let Some(least) = rules.get("minItems").and_then(Json::as_u64).filter(|least| count < *least) {
        return Some(
            Problem::config(format!("`{path}` has {count} items, it needs {least}")).label("impossible value"),
        );
    }
    let most = rules.get("maxItems").and_then(Json::as_u64)?;
    (count > most)
        .then(|| Problem::config(format!("`{path}` has {count} items, the limit is {most}")).label("impossible value"))
}

/// The parser that `x-check` names. One table for values and keys.
fn own_parser(text: &str, rules: &Map<String, Json>, path: &KeyPath) -> Option<Problem> {
    let from_quantity = |result: Result<(), BadQuantity>| {
        result.err().map(|bad| {
            Problem::config(format!("{} (`{path}`)", bad.message)).label("impossible value").help(bad.instead)
        })
    };
    match rules.get("x-check").and_then(Json::as_str)? {
        "size" => from_quantity(ByteSize::parse(text).map(drop)),
        "duration" => from_quantity(Span::parse(text).map(drop)),
        "cpu" => from_quantity(Cpu::parse(text).map(drop)),
        "share" => from_quantity(Share::parse(text).map(drop)),
        name => spec::check_text(name, text).map(|bad| {
            Problem::config(format!("{} (`{path}`)", bad.message)).label("impossible value").help(bad.instead)
        }),
    }
}

/// What is wrong with a key that is free to choose (a variable's name, a label, an agent).
pub(super) fn key_problem(key: &str, rules: &Json, path: &KeyPath) -> Option<Problem> {
    let rules = rules.as_object()?;
    if let Some(allowed) = rules.get("enum").and_then(Json::as_array)
        && !allowed.iter().any(|value| bare(value) == key)
    {
        let names: Vec<String> = allowed.iter().map(bare).collect();
        return Some(
            Problem::config(format!("unknown key `{path}`"))
                .label("not one of the keys")
                .help(format!("keys here: {}", names.join(", "))),
        );
    }
    own_parser(key, rules, path)
}

/// Whether `name` can be the name of an environment variable (POSIX: letters, digits, underscore, no digit first).
pub(in crate::config) fn is_env_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
