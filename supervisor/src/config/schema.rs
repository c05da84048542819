//! JSON Schema (draft-07) of each kind, from the Rust types: for editors, and as the list of keys that the validator walks.
//!
//! One list of keys serves the types, the validator and the editor. Draft-07, because yaml-language-server reads nothing
//! newer. Two keywords of our own pass through editors unseen: `x-check` names the parser of a text (a size, a
//! duration), `x-kind` the kind of file.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sagas::file::SagaFile;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::spec::{AgentSpec, OperatorSpec};
use super::validate;

/// The kinds of file that this module has types for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    /// An agent.yaml.
    Agent,
    /// A saga.yaml.
    Saga,
    /// A chaos experiment.
    Chaos,
    /// The operator's file.
    Operator,
}

impl SchemaKind {
    /// Every kind.
    pub const ALL: [SchemaKind; 4] = [SchemaKind::Agent, SchemaKind::Saga, SchemaKind::Chaos, SchemaKind::Operator];

    /// The word for it: as after `kind:` in a file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            SchemaKind::Agent => "agent",
            SchemaKind::Saga => "saga",
            SchemaKind::Chaos => "chaos",
            SchemaKind::Operator => "operator",
        }
    }

    /// The kind of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<SchemaKind> {
        SchemaKind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// The schema of a kind as JSON text, keys sorted, ending with a newline.
#[must_use]
pub fn schema(kind: SchemaKind) -> String {
    let value = match kind {
        SchemaKind::Agent => value_of::<AgentSpec>("agt-supervise agent"),
        SchemaKind::Saga => value_of::<SagaFile>("agt-supervise saga"),
        SchemaKind::Chaos => value_of::<agt_chaos::spec::Spec>("agt-supervise chaos experiment"),
        SchemaKind::Operator => value_of::<OperatorSpec>("agt-supervise operator file"),
    };
    pretty(&value)
}

/// The schema of any kind, as [`schema`] gives it: for the kinds whose types live in other crates.
#[must_use]
pub fn schema_of<T: JsonSchema>(title: &str) -> String {
    pretty(&value_of::<T>(title))
}

/// The schema as a value, with the `x-` keys allowed wherever keys are fixed.
pub(super) fn value_of<T: JsonSchema>(title: &str) -> Value {
    let mut schema =
        SchemaSettings::draft07().with_transform(AllowExtensionKeys).into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), Value::from(title));
    schema.to_value()
}

/// [`value_of`], made for the validator and kept: a folder of agents is checked against one schema made once. One entry
/// for each type of file.
pub(super) fn for_checks<T: JsonSchema + 'static>() -> Arc<Value> {
    static MADE: Mutex<BTreeMap<TypeId, Arc<Value>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(made.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(validate::prepared(&value_of::<T>("")))))
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(&sorted(value)).expect("a JSON value can be written as JSON");
    text.push('\n');
    text
}

/// Keys in one order, whatever features of serde_json another crate of the build switches on.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&map[key]))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// `x-` keys are the one thing that is ignored, everywhere a fixed set of keys stands.
#[derive(Debug, Clone)]
struct AllowExtensionKeys;

impl Transform for AllowExtensionKeys {
    fn transform(&mut self, schema: &mut Schema) {
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        if closed {
            schema.insert("patternProperties".to_owned(), json!({"^x-": {}}));
        }
        transform_subschemas(self, schema);
    }
}
