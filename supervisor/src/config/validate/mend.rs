//! What a file would say without its mistakes: a value with a problem is left out, the others go on.
//!
//! Types, objectives, rights and paths are judged by parts that need a whole value. So that a misspelling in one line does not
//! hide what they would say of another, the tree goes on to them without the bad value, or with one that stands in for it where
//! the type demands one. Such a value never leaves the loader: a file with a problem gives no plan.

use serde_json::Value as Json;

use super::suggest;
use crate::config::tree::{Entry, Node, Place, Value};

/// Sound values for keys that a type demands, by the key's name.
fn sound(key: &str) -> Option<Value> {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    match key {
        "version" => Some(Value::Integer(1)),
        "name" | "agent" => text("stand-in"),
        "command" => {
            let word =
                Node { value: Value::Text("true".to_owned()), source: "true".to_owned(), place: Place::default() };
            Some(Value::Sequence(vec![word]))
        }
        "objective" => Some(Value::Float(0.5)),
        "value" => Some(Value::Float(0.0)),
        "tcp" => text("127.0.0.1:1"),
        "file" => text("/stand-in.yaml"),
        _ => None,
    }
}

/// A sound entry for a key, if there is a value that fits it; `only` is the one word that it may be.
pub(in crate::config) fn stand_in(key: &str, only: Option<&str>, place: Place) -> Option<Entry> {
    let value = only.map(|word| Value::Text(word.to_owned())).or_else(|| sound(key))?;
    let source = match &value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => String::new(),
    };
    Some(Entry { key: key.to_owned(), key_place: place, value: Node { value, source, place } })
}

/// Puts the value that was most likely meant in the place of one that is not in the list. False when none is near.
pub(super) fn take_nearest<'j>(node: &mut Node, allowed: impl Iterator<Item = &'j Json>) -> bool {
    let near = suggest::nearest(&node.source, allowed.filter_map(Json::as_str));
    let Some(near) = near.first() else { return false };
    node.source = (*near).to_owned();
    node.value = Value::Text(node.source.clone());
    true
}
