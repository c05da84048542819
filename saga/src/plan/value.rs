//! Where data comes from, and what is asked of it: references, conditions.
//!
//! References are data and not text with holes: a value keeps its JSON type from the step that gave it to the one that is
//! given it, and no value can turn into something else on the way.

use std::cmp::Ordering;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The file.
    Literal(Value),
    /// An earlier step.
    Output {
        /// That step's name.
        step: String,
        /// The keys to walk down its output; none for all of it. In a list a key is a position, from 0.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
        /// What stands in where there is nothing; without one that is a fault. A null is one.
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        default: Option<Value>,
    },
    /// A parameter of the saga.
    Param {
        /// Its name.
        name: String,
        /// The keys to walk down its value.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
    },
    /// This branch's item of the list that its step fans out over.
    Item {
        /// The keys to walk down the item.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
    },
    /// This branch's position in that list, from 0.
    Index,
}

/// When a step runs at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// A value passes a test.
    Is {
        /// Which value.
        value: Source,
        /// Which test.
        test: Test,
    },
    /// All of these hold.
    All(Vec<Condition>),
    /// One of these holds.
    Any(Vec<Condition>),
    /// This doesn't hold.
    Not(Box<Condition>),
}

/// What is asked of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It is `true`.
    True,
    /// It is there and not null, or the opposite.
    Exists(bool),
    /// It equals this.
    Equals(Value),
    /// It is one of these.
    In(Vec<Value>),
    /// It is a number above this.
    Above(f64),
    /// It is a number below this.
    Below(f64),
}

impl Condition {
    /// Whether it holds. `lookup` gives a value, `None` where there is none.
    ///
    /// # Errors
    /// The test that makes no sense for its value: a condition that can't be judged is a fault, neither true nor false.
    pub fn holds<'a>(&'a self, lookup: &impl Fn(&'a Source) -> Option<&'a Value>) -> Result<bool, String> {
        match self {
            Self::Is { value, test } => test.passes(lookup(value)),
            Self::All(parts) => parts.iter().try_fold(true, |so_far, part| Ok(part.holds(lookup)? && so_far)),
            Self::Any(parts) => parts.iter().try_fold(false, |so_far, part| Ok(part.holds(lookup)? || so_far)),
            Self::Not(part) => part.holds(lookup).map(|holds| !holds),
        }
    }

    /// All references in it.
    #[must_use]
    pub fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Is { value, .. } => vec![value],
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::sources).collect(),
            Self::Not(part) => part.sources(),
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&Value>) -> Result<bool, String> {
        if let Self::Exists(wanted) = self {
            return Ok(value.is_some_and(|value| !value.is_null()) == *wanted);
        }
        let value = value.ok_or("the value is not there")?;
        let number = || value.as_f64().ok_or_else(|| format!("{value} is no number"));
        match self {
            Self::Exists(_) => unreachable!("answered above"),
            Self::True => value.as_bool().ok_or_else(|| format!("{value} is neither true nor false")),
            Self::Equals(other) => Ok(same(value, other)),
            Self::In(list) => Ok(list.iter().any(|other| same(value, other))),
            Self::Above(bound) => Ok(number()?.partial_cmp(bound) == Some(Ordering::Greater)),
            Self::Below(bound) => Ok(number()?.partial_cmp(bound) == Some(Ordering::Less)),
        }
    }
}

/// A value that may be absent, and that may be null where it is not: serde takes the one for the other.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Whether two values are the same to a person: 1 and 1.0 are.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (x.is_f64() != y.is_f64() && x.as_f64() == y.as_f64()),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

/// Walks down a value: by key in a map, by position in a list.
pub(crate) fn walk<'a>(mut value: &'a Value, keys: &[String]) -> Option<&'a Value> {
    for key in keys {
        value = match value {
            Value::Array(list) => list.get(key.parse::<usize>().ok()?)?,
            _ => value.get(key)?,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(condition: Value, outputs: &Value) -> Result<bool, String> {
        let condition: Condition = serde_json::from_value(condition).unwrap();
        let lookup = |source: &Source| match source {
            Source::Output { keys, .. } => walk(outputs, keys),
            _ => None,
        };
        // Borrowed for as long as the condition lives, which is to the end of this function.
        condition.holds(&lookup)
    }

    fn is(key: &str, test: Value) -> Value {
        json!({"is": {"value": {"output": {"step": "a", "keys": [key]}}, "test": test}})
    }

    #[test]
    fn a_condition_that_makes_no_sense_is_neither_true_nor_false() {
        let outputs = json!({"ok": true, "n": 3, "text": "x", "null": null});
        assert_eq!(judge(is("ok", json!("true")), &outputs), Ok(true));
        assert!(judge(is("text", json!("true")), &outputs).is_err());
        assert!(judge(is("text", json!({"above": 1.0})), &outputs).is_err());
        assert!(judge(is("gone", json!({"equals": 1})), &outputs).is_err());
        assert_eq!(judge(is("gone", json!({"exists": false})), &outputs), Ok(true));
        assert_eq!(judge(is("null", json!({"exists": true})), &outputs), Ok(false));
        // One part that can't be judged spoils the whole, whatever the others say.
        let any = json!({"any": [is("ok", json!("true")), is("gone", json!("true"))]});
        assert!(judge(any, &outputs).is_err());
    }

    #[test]
    fn numbers_compare_as_numbers() {
        let outputs = json!({"n": 3, "x": 3.5});
        assert_eq!(judge(is("n", json!({"equals": 3.0})), &outputs), Ok(true));
        assert_eq!(judge(is("n", json!({"in": [1, 3]})), &outputs), Ok(true));
        assert_eq!(judge(is("x", json!({"above": 3.0})), &outputs), Ok(true));
        assert_eq!(judge(json!({"not": is("x", json!({"below": 3.5}))}), &outputs), Ok(true));
    }
}
