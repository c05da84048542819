//! The shape that a step's output must have: the part of JSON Schema that describes data.
//!
//! Written here rather than taken from a validator for all of JSON Schema, which would bring some thirty crates into a
//! library that has eight. What is known of draft 2020-12 is judged as it says there; a keyword that is not known is refused
//! when the saga is loaded, for one that is passed over would promise a check that never happens. Not known are `pattern`
//! and `format` (a regex engine each), `$ref` and what goes with it, and the `unevaluated` keywords.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::plan::same;

/// The deepest nesting of a schema: each level is a call.
pub const DEPTH_MAX: usize = 32;

/// A schema that is understood in whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// As it was written: what is journaled.
    text: Value,
    node: Node,
}

/// What is wrong with a schema itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A keyword that would not be checked.
    #[error("`{keyword}`{} is not checked here, so it is not accepted", at(.path))]
    Unknown {
        /// The keyword.
        keyword: String,
        /// Where.
        path: String,
    },
    /// A keyword with a value that makes no sense.
    #[error("`{keyword}`{} must be {wanted}", at(.path))]
    Value {
        /// The keyword.
        keyword: String,
        /// What it needs.
        wanted: &'static str,
        /// Where.
        path: String,
    },
    /// Neither a map nor true or false.
    #[error("a schema{} is a map, `true` or `false`", at(.path))]
    NoSchema {
        /// Where.
        path: String,
    },
    /// Nested too deeply.
    #[error("it is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" at `{path}`") }
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Always,
    Never,
    Rules(Vec<Rule>),
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Type(Vec<Kind>),
    Enum(Vec<Value>),
    Const(Value),
    Required(Vec<String>),
    /// `properties` and `additionalProperties`, which only make sense together.
    Properties(BTreeMap<String, Node>, Box<Node>),
    Items(Box<Node>),
    Count(Bound, u64),
    Limit(Bound, f64),
    AllOf(Vec<Node>),
    AnyOf(Vec<Node>),
    OneOf(Vec<Node>),
    Not(Box<Node>),
    UniqueItems,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Object,
    Array,
    Number,
    Integer,
    String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    MinItems,
    MaxItems,
    MinLength,
    MaxLength,
    MinProperties,
    MaxProperties,
    Minimum,
    Maximum,
    ExclusiveMinimum,
    ExclusiveMaximum,
}

impl Schema {
    /// Understands a schema.
    ///
    /// # Errors
    /// [`SchemaError`] for the first thing in it that isn't known.
    pub fn new(text: Value) -> Result<Self, SchemaError> {
        let node = node(&text, "", 0)?;
        Ok(Self { text, node })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &Value {
        &self.text
    }

    /// Whether a value has this shape.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its place.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.node.check(value, "")
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Keywords that say nothing about which values are valid.
const ANNOTATIONS: [&str; 8] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"];

fn node(text: &Value, path: &str, depth: usize) -> Result<Node, SchemaError> {
    if depth > DEPTH_MAX {
        return Err(SchemaError::TooDeep);
    }
    let map = match text {
        Value::Bool(true) => return Ok(Node::Always),
        Value::Bool(false) => return Ok(Node::Never),
        Value::Object(map) => map,
        _ => return Err(SchemaError::NoSchema { path: path.to_owned() }),
    };
    let mut rules = Vec::new();
    for (keyword, value) in map {
        if !ANNOTATIONS.contains(&keyword.as_str()) && keyword != "additionalProperties" {
            rules.push(Parser { map, keyword, path, depth }.rule(value)?);
        }
    }
    if map.contains_key("additionalProperties") && !map.contains_key("properties") {
        rules.push(Parser { map, keyword: "properties", path, depth }.rule(&Value::Object(Map::new()))?);
    }
    Ok(Node::Rules(rules))
}

struct Parser<'a> {
    map: &'a Map<String, Value>,
    keyword: &'a str,
    path: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn rule(&self, value: &Value) -> Result<Rule, SchemaError> {
        Ok(match self.keyword {
            "type" => Rule::Type(self.kinds(value)?),
            "enum" => Rule::Enum(value.as_array().ok_or_else(|| self.wants("a list"))?.clone()),
            "const" => Rule::Const(value.clone()),
            "required" => Rule::Required(self.texts(value)?),
            "properties" => {
                let map = value.as_object().ok_or_else(|| self.wants("a map"))?;
                let property = |(key, value): (&String, &Value)| Ok((key.clone(), self.below(key, value)?));
                let properties = map.iter().map(property).collect::<Result<_, _>>()?;
                let others = self.map.get("additionalProperties");
                let others = others.map_or(Ok(Node::Always), |other| self.below("additionalProperties", other))?;
                Rule::Properties(properties, Box::new(others))
            }
            "items" => Rule::Items(Box::new(self.below("items", value)?)),
            "allOf" => Rule::AllOf(self.nodes(value)?),
            "anyOf" => Rule::AnyOf(self.nodes(value)?),
            "oneOf" => Rule::OneOf(self.nodes(value)?),
            "not" => Rule::Not(Box::new(self.below("not", value)?)),
            "uniqueItems" => match value.as_bool().ok_or_else(|| self.wants("true or false"))? {
                true => Rule::UniqueItems,
                false => Rule::AllOf(Vec::new()),
            },
            _ => self.bound(value)?,
        })
    }

    fn bound(&self, value: &Value) -> Result<Rule, SchemaError> {
        let bound = match self.keyword {
            "minItems" => Bound::MinItems,
            "maxItems" => Bound::MaxItems,
            "minLength" => Bound::MinLength,
            "maxLength" => Bound::MaxLength,
            "minProperties" => Bound::MinProperties,
            "maxProperties" => Bound::MaxProperties,
            "minimum" => Bound::Minimum,
            "maximum" => Bound::Maximum,
            "exclusiveMinimum" => Bound::ExclusiveMinimum,
            "exclusiveMaximum" => Bound::ExclusiveMaximum,
            _ => {
                let (keyword, path) = (self.keyword.to_owned(), self.path.to_owned());
                return Err(SchemaError::Unknown { keyword, path });
            }
        };
        match bound {
            Bound::Minimum | Bound::Maximum | Bound::ExclusiveMinimum | Bound::ExclusiveMaximum => {
                Ok(Rule::Limit(bound, value.as_f64().ok_or_else(|| self.wants("a number"))?))
            }
            _ => Ok(Rule::Count(bound, value.as_u64().ok_or_else(|| self.wants("a whole number"))?)),
        }
    }

    fn kinds(&self, value: &Value) -> Result<Vec<Kind>, SchemaError> {
        let words = if value.is_string() { vec![value.clone()] } else { value.as_array().cloned().unwrap_or_default() };
        let kind = |word: &Value| match word.as_str() {
            Some("null") => Ok(Kind::Null),
            Some("boolean") => Ok(Kind::Boolean),
            Some("object") => Ok(Kind::Object),
            Some("array") => Ok(Kind::Array),
            Some("number") => Ok(Kind::Number),
            Some("integer") => Ok(Kind::Integer),
            Some("string") => Ok(Kind::String),
            _ => Err(self.wants("a type's name, or a list of them")),
        };
        if words.is_empty() {
            return Err(self.wants("a type's name, or a list of them"));
        }
        words.iter().map(kind).collect()
    }

    fn texts(&self, value: &Value) -> Result<Vec<String>, SchemaError> {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| self.wants("a list of texts"));
        value.as_array().ok_or_else(|| self.wants("a list of texts"))?.iter().map(text).collect()
    }

    fn nodes(&self, value: &Value) -> Result<Vec<Node>, SchemaError> {
        let list = value.as_array().filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| self.wants("a list of schemas"))?;
        list.iter().map(|value| self.below(self.keyword, value)).collect()
    }

    fn below(&self, key: &str, value: &Value) -> Result<Node, SchemaError> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        node(value, &path, self.depth + 1)
    }

    fn wants(&self, wanted: &'static str) -> SchemaError {
        SchemaError::Value { keyword: self.keyword.to_owned(), wanted, path: self.path.to_owned() }
    }
}

impl Node {
    fn check(&self, value: &Value, path: &str) -> Result<(), String> {
        match self {
            Self::Always => Ok(()),
            Self::Never => Err(format!("{} must not be there", named(path))),
            Self::Rules(rules) => rules.iter().try_for_each(|rule| rule.check(value, path)),
        }
    }
}

fn named(path: &str) -> String {
    if path.is_empty() { "it".to_owned() } else { format!("`{path}`") }
}

impl Rule {
    fn check(&self, value: &Value, path: &str) -> Result<(), String> {
        let fault = |what: String| Err(format!("{} {what}", named(path)));
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let fits = |nodes: &[Node]| nodes.iter().filter(|node| node.check(value, path).is_ok()).count();
        match self {
            Self::Type(kinds) if !kinds.iter().any(|kind| kind.is(value)) => {
                let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
                fault(format!("is not of type {}", words.join(" or ")))
            }
            Self::Enum(list) if !list.iter().any(|other| same(value, other)) => {
                fault("is none of the values allowed".to_owned())
            }
            Self::Const(other) if !same(value, other) => fault(format!("is not {other}")),
            Self::Required(keys) => match value.as_object() {
                Some(map) => match keys.iter().find(|key| !map.contains_key(*key)) {
                    Some(key) => fault(format!("lacks `{key}`")),
                    None => Ok(()),
                },
                None => Ok(()),
            },
            Self::Properties(properties, others) => {
                let Some(map) = value.as_object() else { return Ok(()) };
                map.iter().try_for_each(|(key, value)| properties.get(key).unwrap_or(others).check(value, &below(key)))
            }
            Self::Items(node) => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                list.iter().enumerate().try_for_each(|(at, value)| node.check(value, &below(&at.to_string())))
            }
            Self::Count(bound, limit) => match bound.count(value).filter(|count| bound.broken(*count, *limit)) {
                Some(count) => fault(format!("has a size of {count}, {} is {limit}", bound.as_str())),
                None => Ok(()),
            },
            Self::Limit(bound, limit) => match value.as_f64().filter(|number| bound.broken(*number, *limit)) {
                Some(number) => fault(format!("is {number}, {} is {limit}", bound.as_str())),
                None => Ok(()),
            },
            Self::AllOf(nodes) => nodes.iter().try_for_each(|node| node.check(value, path)),
            Self::AnyOf(nodes) if fits(nodes) == 0 => fault("fits none of the shapes allowed".to_owned()),
            Self::OneOf(nodes) if fits(nodes) != 1 => {
                fault(format!("fits {} of the shapes allowed, not one", fits(nodes)))
            }
            Self::Not(node) if node.check(value, path).is_ok() => fault("has a shape that is not allowed".to_owned()),
            Self::UniqueItems => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let twice = list.iter().enumerate().any(|(at, one)| list[..at].iter().any(|other| same(one, other)));
                if twice { fault("has an item twice".to_owned()) } else { Ok(()) }
            }
            Self::Type(_) | Self::Enum(_) | Self::Const(_) | Self::AnyOf(_) | Self::OneOf(_) | Self::Not(_) => Ok(()),
        }
    }
}

impl Kind {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::Number => value.is_number(),
            // 1.0 is an integer there (section 6.1.1).
            Self::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Self::String => value.is_string(),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::String => "string",
        }
    }
}

impl Bound {
    /// The size that it speaks of; none for values of other types.
    fn count(self, value: &Value) -> Option<u64> {
        let count = match self {
            Self::MinItems | Self::MaxItems => value.as_array()?.len(),
            Self::MinLength | Self::MaxLength => value.as_str()?.chars().count(),
            _ => value.as_object()?.len(),
        };
        u64::try_from(count).ok()
    }

    fn broken<N: PartialOrd>(self, found: N, limit: N) -> bool {
        match self {
            Self::MinItems | Self::MinLength | Self::MinProperties | Self::Minimum => found < limit,
            Self::MaxItems | Self::MaxLength | Self::MaxProperties | Self::Maximum => found > limit,
            Self::ExclusiveMinimum => found <= limit,
            Self::ExclusiveMaximum => found >= limit,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::MinItems | Self::MinLength | Self::MinProperties | Self::Minimum => "the least",
            Self::MaxItems | Self::MaxLength | Self::MaxProperties | Self::Maximum => "the most",
            Self::ExclusiveMinimum => "what it must be above",
            Self::ExclusiveMaximum => "what it must be below",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn judge(schema: Value, value: Value) -> Result<(), String> {
        Schema::new(schema).unwrap().check(&value)
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let order = json!({"type": "object", "required": ["id"], "additionalProperties": false, "properties": {
            "id": {"type": "integer", "minimum": 1}, "lines": {"type": "array", "maxItems": 2,
                "items": {"type": "object", "properties": {"sku": {"type": "string", "minLength": 2}}}}}});
        let judge = |value| judge(order.clone(), value);
        assert_eq!(judge(json!({"id": 7, "lines": [{"sku": "ab"}]})), Ok(()));
        for (value, fault) in [
            (json!(7), "it is not of type object"),
            (json!({}), "it lacks `id`"),
            (json!({"id": 0}), "`id` is 0, the least is 1"),
            (json!({"id": 1.5}), "`id` is not of type integer"),
            (json!({"id": 1, "x": 1}), "`x` must not be there"),
            (json!({"id": 1, "lines": [{"sku": "a"}]}), "`lines.0.sku` has a size of 1, the least is 2"),
            (json!({"id": 1, "lines": [{}, {}, {}]}), "`lines` has a size of 3, the most is 2"),
        ] {
            assert_eq!(judge(value.clone()), Err(fault.to_owned()), "{value}");
        }
    }

    #[test]
    fn combinations_hold_as_the_specification_says() {
        let one = json!({"oneOf": [{"type": "integer"}, {"minimum": 2}]});
        assert!(judge(one.clone(), json!(1)).is_ok());
        assert!(judge(one.clone(), json!(2.5)).is_ok());
        assert!(judge(one, json!(3)).is_err());
        assert!(judge(json!({"anyOf": [{"const": 1}, {"const": "a"}]}), json!(1.0)).is_ok());
        assert!(judge(json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!(3)).is_err());
        assert!(judge(json!({"not": {"type": "null"}}), json!(null)).is_err());
        assert!(judge(json!({"enum": [1, null]}), json!(null)).is_ok());
        assert!(judge(json!({"uniqueItems": true}), json!([1, 1.0])).is_err());
        assert!(judge(json!({"type": ["string", "null"]}), json!(null)).is_ok());
        assert!(judge(json!({"exclusiveMaximum": 3}), json!(3)).is_err());
        assert!(judge(json!({"additionalProperties": {"type": "integer"}}), json!({"x": "a"})).is_err());
        assert!(judge(json!(false), json!(1)).is_err());
        // Keywords about other types say nothing (section 6).
        assert!(judge(json!({"minLength": 9, "required": ["x"], "minimum": 7}), json!([])).is_ok());
    }

    #[test]
    fn a_keyword_that_would_not_be_checked_is_refused() {
        for keyword in ["pattern", "format", "$ref", "unevaluatedProperties", "requried"] {
            let error = Schema::new(json!({"properties": {"a": {keyword: "x"}}})).unwrap_err();
            assert_eq!(error.to_string(), format!("`{keyword}` at `a` is not checked here, so it is not accepted"));
        }
        assert!(Schema::new(json!({"type": "strnig"})).is_err());
        assert!(Schema::new(json!({"properties": 7})).is_err());
        assert!(Schema::new(json!([])).is_err());
        let deep = (0..40).fold(json!(true), |inner, _| json!({"not": inner}));
        assert_eq!(Schema::new(deep), Err(SchemaError::TooDeep));
    }
}
