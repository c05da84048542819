//! Compares a spanned tree with the schema of its type and collects every problem.
//!
//! The schema is the one that schemars derives from the types, so there is no second list of keys to forget. What is
//! checked here: unknown keys (with the right one suggested), missing keys, wrong types, values outside a list or range,
//! and the texts that have a parser of their own (sizes, durations, ...). What only the type knows is left to serde,
//! which runs when nothing is wrong here.
//!
//! Where text is asked for, a plain number or `true` is taken as the characters that stand in the file (`sleep, 5` in a
//! command, `PORT: 8080` in an environment, `1.10` as a label): the tree keeps them, nothing is rounded.

mod checks;
mod flatten;
mod suggest;
mod union;

use serde_json::{Map, Value as Json};

use super::diagnostic::{Problem, Show};
use super::tree::{Entry, KeyPath, Node, Place, Value};

pub(super) use checks::is_env_name;

/// Keys that start like this are ignored everywhere: a place for notes, anchors and other tools.
pub(super) const IGNORED_PREFIX: &str = "x-";

/// Checks `root` against `schema`, turns scalars into text where text is asked for, and drops the ignored keys.
///
/// # Errors
/// Every problem found.
pub(super) fn validate(root: &mut Node, schema: &Json) -> Result<(), Vec<Problem>> {
    let schema = &flatten::fold(schema);
    let mut walker = Walker { definitions: schema.get("definitions"), root: schema, problems: Vec::new() };
    let place = first_place(root);
    walker.walk(root, schema, &KeyPath::default(), place);
    if walker.problems.is_empty() { Ok(()) } else { Err(walker.problems) }
}

struct Walker<'s> {
    definitions: Option<&'s Json>,
    root: &'s Json,
    problems: Vec<Problem>,
}

/// The first key: where a caret for "something is missing in this file" belongs.
fn first_place(node: &Node) -> Place {
    match &node.value {
        Value::Mapping(entries) => entries.first().map_or(node.place, |entry| entry.key_place),
        _ => node.place,
    }
}

impl<'s> Walker<'s> {
    fn resolve(&self, schema: &'s Json) -> &'s Json {
        let mut schema = schema;
        // A chain of references has no loop in a generated schema; the bound is for hand-written ones.
        for _ in 0..16 {
            let Some(reference) = schema.get("$ref").and_then(Json::as_str) else { break };
            if reference == "#" {
                return self.root;
            }
            let name = reference.rsplit('/').next().unwrap_or_default();
            match self.definitions.and_then(|definitions| definitions.get(name)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    fn problem(&mut self, path: &KeyPath, key_place: Place, problem: Problem) {
        // The value of an environment variable may be a secret: mark its name, and show no more than that.
        let problem = if path.is_environment_value() { problem.at(key_place).show(Show::UpToMark) } else { problem };
        self.problems.push(problem);
    }

    /// `key_place` is where a caret about the node as a whole belongs.
    fn walk(&mut self, node: &mut Node, schema: &'s Json, path: &KeyPath, key_place: Place) {
        let schema = self.resolve(schema);
        let Some(rules) = schema.as_object() else { return };
        if let Some(all) = rules.get("allOf").and_then(Json::as_array) {
            for part in all {
                self.walk(node, part, path, key_place);
            }
        }
        if matches!(node.value, Value::Null) && !is_anything(rules) {
            let problem = Problem::config(format!("`{path}` has no value")).at(key_place).label("nothing stands here");
            let help = match rules.get("type").and_then(Json::as_str) {
                Some("object") => "give it keys, or leave it out",
                _ => "give it a value, or leave it out (`~` is YAML's word for nothing)",
            };
            return self.problem(path, key_place, problem.help(help));
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(branches) = rules.get(key).and_then(Json::as_array) {
                self.union(node, branches, path, key_place);
                return;
            }
        }
        if self.scalar_rules(node, rules, path, key_place) {
            return;
        }
        match &mut node.value {
            Value::Mapping(entries) => self.mapping(entries, rules, path, key_place),
            Value::Sequence(items) => self.sequence(items, rules, path, key_place),
            _ => {}
        }
    }

    /// Type, list of values, range and own parser. True when the node is not worth a further look.
    fn scalar_rules(
        &mut self,
        node: &mut Node,
        rules: &'s Map<String, Json>,
        path: &KeyPath,
        key_place: Place,
    ) -> bool {
        if !checks::has_type(node, rules) {
            // Of a short list of values the nearest says more than the type does (`R2` for 2).
            let is_scalar = !matches!(node.value, Value::Mapping(_) | Value::Sequence(_));
            if is_scalar && let Some(problem) = checks::allowed_values(node, rules, path) {
                let problem = problem.at(node.place);
                self.problem(path, key_place, problem);
                return true;
            }
            if checks::wants_text(rules) && matches!(node.value, Value::Bool(_) | Value::Integer(_) | Value::Float(_)) {
                node.value = Value::Text(node.source.clone());
            } else {
                let place = match node.value {
                    Value::Mapping(_) | Value::Sequence(_) => key_place,
                    _ => node.place,
                };
                let problem = checks::wrong_type(node, rules, path).at(place);
                self.problem(path, key_place, problem);
                return true;
            }
        }
        if let Some(problem) = checks::value_problem(node, rules, path) {
            let problem = problem.at(node.place);
            self.problem(path, key_place, problem);
            return true;
        }
        false
    }

    fn sequence(&mut self, items: &mut [Node], rules: &'s Map<String, Json>, path: &KeyPath, key_place: Place) {
        if let Some(problem) = checks::length_problem(items.len(), rules, path) {
            self.problem(path, key_place, problem.at(key_place));
        }
        let Some(item_schema) = rules.get("items") else { return };
        for (index, item) in items.iter_mut().enumerate() {
            let place = item.place;
            self.walk(item, item_schema, &path.item(index), place);
        }
    }

    fn mapping(&mut self, entries: &mut Vec<Entry>, rules: &'s Map<String, Json>, path: &KeyPath, key_place: Place) {
        let known = rules.get("properties").and_then(Json::as_object);
        let open = rules.get("additionalProperties");
        // Without a word about other keys a JSON schema is open, and so is serde without `deny_unknown_fields`: here a
        // list of keys is always the whole list.
        let closed = known.is_some() && matches!(open, None | Some(Json::Bool(false)));
        if closed {
            entries.retain(|entry| !entry.key.starts_with(IGNORED_PREFIX));
        }
        let names = rules.get("propertyNames");
        for entry in entries.iter_mut() {
            let below = path.key(&entry.key);
            if let Some(schema) = known.and_then(|known| known.get(&entry.key)) {
                self.walk(&mut entry.value, schema, &below, entry.key_place);
            } else if closed {
                let problem = suggest::unknown_key(self, entry, known, path);
                self.problems.push(problem);
            } else {
                if let Some(problem) =
                    names.and_then(|names| checks::key_problem(&entry.key, self.resolve(names), &below))
                {
                    let problem = problem.at(entry.key_place).show(Show::UpToMark);
                    self.problems.push(problem);
                }
                if let Some(schema @ Json::Object(_)) = open {
                    self.walk(&mut entry.value, schema, &below, entry.key_place);
                }
            }
        }
        for name in rules.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|entry| entry.key == name) {
                self.problems.push(suggest::missing_key(name, path, key_place));
            }
        }
    }
}

fn is_anything(rules: &Map<String, Json>) -> bool {
    !["type", "enum", "const", "oneOf", "anyOf", "allOf", "x-check"].iter().any(|key| rules.contains_key(*key))
}
