//! Groups whose keys come from two places (serde's `flatten`): each form gets all of its keys.
//!
//! schemars writes such a group as `properties` beside `oneOf` or `anyOf`. Taken apart, neither half knows the other's
//! keys, and a strict check of one half refuses the other's; so they are put together once, before the walk.

use serde_json::{Map, Value as Json};

/// The schema with every split group folded into its forms.
pub(super) fn fold(schema: &Json) -> Json {
    let definitions = schema.get("definitions").cloned().unwrap_or_default();
    folded(schema, &definitions)
}

fn folded(schema: &Json, definitions: &Json) -> Json {
    match schema {
        Json::Object(map) => {
            let mut map: Map<String, Json> =
                map.iter().map(|(key, value)| (key.clone(), folded(value, definitions))).collect();
            for keyword in ["oneOf", "anyOf", "allOf"] {
                fold_one(&mut map, keyword, definitions);
            }
            Json::Object(map)
        }
        Json::Array(items) => Json::Array(items.iter().map(|item| folded(item, definitions)).collect()),
        other => other.clone(),
    }
}

fn fold_one(map: &mut Map<String, Json>, keyword: &str, definitions: &Json) {
    if !map.get("properties").is_some_and(Json::is_object) {
        return;
    }
    let Some(Json::Array(branches)) = map.get(keyword) else { return };
    let branches: Vec<Map<String, Json>> = branches.iter().filter_map(|branch| target(branch, definitions)).collect();
    let are_groups = branches.iter().all(|branch| branch.contains_key("properties"));
    if branches.is_empty() || !are_groups {
        return;
    }
    map.remove(keyword);
    if keyword == "allOf" {
        branches.iter().for_each(|branch| merge(map, branch));
        return;
    }
    let own: Map<String, Json> = map
        .iter()
        .filter(|(key, _)| ["properties", "required", "type"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let whole = branches.into_iter().map(|mut branch| {
        merge(&mut branch, &own);
        Json::Object(branch)
    });
    let whole = whole.collect();
    ["properties", "required", "additionalProperties"].iter().for_each(|key| drop(map.remove(*key)));
    map.insert(keyword.to_owned(), Json::Array(whole));
}

fn target(branch: &Json, definitions: &Json) -> Option<Map<String, Json>> {
    let branch = match branch.get("$ref").and_then(Json::as_str).and_then(|reference| reference.rsplit('/').next()) {
        Some(name) => definitions.get(name)?,
        None => branch,
    };
    branch.as_object().cloned()
}

/// Adds the keys of `other` to `map`; a key that stands in both keeps the form of `map`.
fn merge(map: &mut Map<String, Json>, other: &Map<String, Json>) {
    let mut properties = map.get("properties").and_then(Json::as_object).cloned().unwrap_or_default();
    for (key, value) in other.get("properties").and_then(Json::as_object).into_iter().flatten() {
        properties.entry(key.clone()).or_insert_with(|| value.clone());
    }
    map.insert("properties".to_owned(), Json::Object(properties));
    let mut required: Vec<Json> = map.get("required").and_then(Json::as_array).cloned().unwrap_or_default();
    for name in other.get("required").and_then(Json::as_array).into_iter().flatten() {
        if !required.contains(name) {
            required.push(name.clone());
        }
    }
    map.insert("required".to_owned(), Json::Array(required));
}
