//! What a saga is given when it begins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema::Schema;

/// One parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// What stands in when it isn't given, perhaps a null; without one it must be.
    #[serde(default, deserialize_with = "super::present", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The shape it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
}

/// Why a saga can't begin with what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// It has no default and wasn't given.
    #[error("the saga needs the parameter `{name}`")]
    Missing {
        /// Which.
        name: String,
    },
    /// The saga has no such parameter.
    #[error("the saga has no parameter `{name}`")]
    Unknown {
        /// Which.
        name: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// Not of its shape.
    #[error("parameter `{name}`: {fault}")]
    Shape {
        /// Which.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
}

pub(super) fn complete(
    declared: &BTreeMap<String, Param>,
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, ParamsError> {
    if let Some(name) = given.keys().find(|name| !declared.contains_key(*name)) {
        return Err(ParamsError::Unknown { name: name.clone(), known: declared.keys().cloned().collect() });
    }
    let mut complete = Map::new();
    for (name, param) in declared {
        let value = given.remove(name).or_else(|| param.default.clone());
        let value = value.ok_or_else(|| ParamsError::Missing { name: name.clone() })?;
        if let Some(schema) = &param.schema {
            schema.check(&value).map_err(|fault| ParamsError::Shape { name: name.clone(), fault })?;
        }
        complete.insert(name.clone(), value);
    }
    Ok(complete)
}
