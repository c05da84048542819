//! The steps of a file, as a list or as a map.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::StepSpec;

/// How the steps were written; names in messages follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepsForm {
    /// `steps: [{name: a, ...}]`, shown as `steps[0]`.
    #[default]
    List,
    /// `steps: {a: {...}}`, shown as `steps.a`.
    Map,
}

/// The steps in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepsSpec {
    /// List or map.
    pub form: StepsForm,
    /// The steps; two of one name are both here, for the linter to name.
    pub list: Vec<StepSpec>,
}

impl Serialize for StepsSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StepsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Steps;
        impl<'de> Visitor<'de> for Steps {
            type Value = StepsSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of steps, or a map from names to steps")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StepsSpec, A::Error> {
                let mut list = Vec::new();
                while let Some(step) = seq.next_element()? {
                    list.push(step);
                }
                Ok(StepsSpec { form: StepsForm::List, list })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StepsSpec, A::Error> {
                let mut list = Vec::new();
                while let Some((name, mut step)) = map.next_entry::<String, StepSpec>()? {
                    if !step.name.is_empty() && step.name != name {
                        let both = format!("step `{name}` calls itself `{}`: leave `name` out here", step.name);
                        return Err(de::Error::custom(both));
                    }
                    step.name = name;
                    list.push(step);
                }
                Ok(StepsSpec { form: StepsForm::Map, list })
            }
        }
        deserializer.deserialize_any(Steps)
    }
}

impl JsonSchema for StepsSpec {
    fn schema_name() -> Cow<'static, str> {
        "StepsSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let step = generator.subschema_for::<StepSpec>();
        json_schema!({
            "description": "A list of steps with a name each, or a map from name to step.",
            "anyOf": [
                {"type": "array", "items": step},
                {"type": "object", "additionalProperties": step},
            ],
        })
    }
}
