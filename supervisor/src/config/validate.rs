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
mod mend;
mod suggest;
mod union;

use serde_json::{Map, Value as Json};

use super::diagnostic::{Problem, Show};
use super::tree::{Entry, KeyPath, Node, Place, Value};

pub(super) use checks::is_env_name;

/// Keys that start like this are ignored everywhere: a place for notes, anchors and other tools.
pub(super) const IGNORED_PREFIX: &str = "x-";

pub(super) use flatten::fold as prepared;
pub(super) use mend::stand_in;

/// What stands beside a word that is none of `names`.
pub(super) fn did_you_mean(word: &str, names: &[&str]) -> String {
    suggest::did_you_mean(&suggest::nearest(word, names.iter().copied()), "not one of the values")
}

/// Every problem found, and the paths whose values were left out or replaced for it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) problems: Vec<Problem>,
    pub(super) bad: Vec<KeyPath>,
}

/// Checks `root` against a [`prepared`] schema, turns scalars into text where text is asked for, and drops the ignored keys.
/// What has a problem is left out of the tree, so that the rest of it can be judged further.
pub(super) fn validate(root: &mut Node, schema: &Json) -> Found {
    let mut walker = Walker::new(schema.get("definitions"), schema);
    let place = first_place(root);
    if !walker.walk(root, schema, &KeyPath::default(), place) {
        walker.found.bad.push(KeyPath::default());
    }
    walker.found
}

/// What became of one value.
enum Judged {
    Sound,
    /// Wrong, and the one that was probably meant stands there now.
    Replaced,
    Unusable,
}

struct Walker<'s> {
    definitions: Option<&'s Json>,
    root: &'s Json,
    found: Found,
}

/// The first key: where a caret for "something is missing in this file" belongs.
fn first_place(node: &Node) -> Place {
    match &node.value {
        Value::Mapping(entries) => entries.first().map_or(node.place, |entry| entry.key_place),
        _ => node.place,
    }
}

impl<'s> Walker<'s> {
    fn new(definitions: Option<&'s Json>, root: &'s Json) -> Walker<'s> {
        Walker { definitions, root, found: Found::default() }
    }

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

    /// The one word that a value may be, if it is one.
    fn only_word(&self, schema: &'s Json) -> Option<&'s str> {
        let schema = self.resolve(schema);
        if let Some(word) = schema.get("const") {
            return word.as_str();
        }
        let single = |key: &str| schema.get(key).and_then(Json::as_array).filter(|all| all.len() == 1)?.first();
        match single("enum") {
            Some(word) => word.as_str(),
            // A chain of these is as finite as one of references.
            None => ["allOf", "oneOf"].into_iter().find_map(single).and_then(|inner| self.only_word(inner)),
        }
    }

    fn problem(&mut self, path: &KeyPath, key_place: Place, problem: Problem) {
        // The value of an environment variable may be a secret: mark its name, and show no more than that.
        let problem = if path.is_environment_value() { problem.at(key_place).show(Show::UpToMark) } else { problem };
        self.found.problems.push(problem.about(path));
    }

    /// `key_place` is where a caret about the node as a whole belongs. False when the value is unusable: nothing can stand for it.
    fn walk(&mut self, node: &mut Node, schema: &'s Json, path: &KeyPath, key_place: Place) -> bool {
        let schema = self.resolve(schema);
        let Some(rules) = schema.as_object() else { return true };
        let mut usable = true;
        if let Some(all) = rules.get("allOf").and_then(Json::as_array) {
            for part in all {
                usable &= self.walk(node, part, path, key_place);
            }
        }
        if matches!(node.value, Value::Null) && !is_anything(rules) {
            let problem = Problem::config(format!("`{path}` has no value")).at(key_place).label("nothing stands here");
            let help = match rules.get("type").and_then(Json::as_str) {
                Some("object") => "give it keys, or leave it out",
                _ => "give it a value, or leave it out (`~` is YAML's word for nothing)",
            };
            self.problem(path, key_place, problem.help(help));
            return false;
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(branches) = rules.get(key).and_then(Json::as_array) {
                return usable & self.union(node, branches, path, key_place);
            }
        }
        match self.scalar_rules(node, rules, path, key_place) {
            Judged::Sound => {}
            Judged::Replaced => return usable,
            Judged::Unusable => return false,
        }
        match &mut node.value {
            Value::Mapping(entries) => usable & self.mapping(entries, rules, path, key_place),
            Value::Sequence(items) => usable & self.sequence(items, rules, path, key_place),
            _ => usable,
        }
    }

    /// Type, list of values, range and own parser.
    fn scalar_rules(
        &mut self,
        node: &mut Node,
        rules: &'s Map<String, Json>,
        path: &KeyPath,
        key_place: Place,
    ) -> Judged {
        if !checks::has_type(node, rules) {
            // Of a short list of values the nearest says more than the type does (`R2` for 2).
            let is_scalar = !matches!(node.value, Value::Mapping(_) | Value::Sequence(_));
            if is_scalar && let Some(problem) = checks::allowed_values(node, rules, path) {
                let problem = problem.at(node.place);
                self.problem(path, key_place, problem);
                return self.replaced(node, rules, path);
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
                return Judged::Unusable;
            }
        }
        if let Some(problem) = checks::value_problem(node, rules, path) {
            let problem = problem.at(node.place);
            self.problem(path, key_place, problem);
            return self.replaced(node, rules, path);
        }
        Judged::Sound
    }

    fn replaced(&mut self, node: &mut Node, rules: &Map<String, Json>, path: &KeyPath) -> Judged {
        let allowed = rules.get("enum").and_then(Json::as_array).into_iter().flatten();
        match self.take_nearest(node, allowed, path) {
            true => Judged::Replaced,
            false => Judged::Unusable,
        }
    }

    fn take_nearest<'j>(&mut self, node: &mut Node, allowed: impl Iterator<Item = &'j Json>, path: &KeyPath) -> bool {
        let taken = mend::take_nearest(node, allowed);
        if taken {
            self.found.bad.push(path.clone());
        }
        taken
    }

    fn sequence(
        &mut self,
        items: &mut Vec<Node>,
        rules: &'s Map<String, Json>,
        path: &KeyPath,
        key_place: Place,
    ) -> bool {
        let mut usable = true;
        if let Some(problem) = checks::length_problem(items.len(), rules, path) {
            self.problem(path, key_place, problem.at(key_place));
            usable = false;
        }
        let Some(item_schema) = rules.get("items") else { return usable };
        let before = items.len();
        let mut index = 0;
        items.retain_mut(|item| {
            let (place, at) = (item.place, path.item(index));
            index += 1;
            self.walk(item, item_schema, &at, place)
        });
        // Without one item the numbers of the others move: nothing more is said about this list.
        if items.len() < before {
            self.found.bad.push(path.clone());
        }
        usable
    }

    fn mapping(
        &mut self,
        entries: &mut Vec<Entry>,
        rules: &'s Map<String, Json>,
        path: &KeyPath,
        key_place: Place,
    ) -> bool {
        let known = rules.get("properties").and_then(Json::as_object);
        let open = rules.get("additionalProperties");
        // Without a word about other keys a JSON schema is open, and so is serde without `deny_unknown_fields`: here a
        // list of keys is always the whole list.
        let closed = known.is_some() && matches!(open, None | Some(Json::Bool(false)));
        if closed {
            entries.retain(|entry| !entry.key.starts_with(IGNORED_PREFIX));
        }
        let names = rules.get("propertyNames");
        let mut dropped: Vec<(String, Place)> = Vec::new();
        entries.retain_mut(|entry| {
            let below = path.key(&entry.key);
            if let Some(schema) = known.and_then(|known| known.get(&entry.key)) {
                let usable = self.walk(&mut entry.value, schema, &below, entry.key_place);
                if !usable {
                    self.found.bad.push(below);
                    dropped.push((entry.key.clone(), entry.key_place));
                }
                usable
            } else if closed {
                let problem = suggest::unknown_key(self, entry, known, path);
                self.found.problems.push(problem.about(&below));
                false
            } else {
                let mut usable = true;
                if let Some(problem) =
                    names.and_then(|names| checks::key_problem(&entry.key, self.resolve(names), &below))
                {
                    let problem = problem.at(entry.key_place).show(Show::UpToMark);
                    self.found.problems.push(problem.about(&below));
                    usable = false;
                }
                if let Some(schema @ Json::Object(_)) = open {
                    usable &= self.walk(&mut entry.value, schema, &below, entry.key_place);
                }
                if !usable {
                    self.found.bad.push(below);
                }
                usable
            }
        });
        let mut usable = true;
        for name in rules.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if entries.iter().any(|entry| entry.key == name) {
                continue;
            }
            let place = dropped.iter().find(|(key, _)| key == name).map(|(_, place)| *place);
            let only = rules.get("properties").and_then(|all| all.get(name)).and_then(|schema| self.only_word(schema));
            if place.is_none() {
                let below = path.key(name);
                self.found.problems.push(suggest::missing_key(name, only, path, key_place).about(&below));
                self.found.bad.push(below);
            }
            match stand_in(name, only, place.unwrap_or(key_place)) {
                Some(entry) => entries.push(entry),
                None => usable = false,
            }
        }
        usable
    }
}

fn is_anything(rules: &Map<String, Json>) -> bool {
    !["type", "enum", "const", "oneOf", "anyOf", "allOf", "x-check"].iter().any(|key| rules.contains_key(*key))
}
