//! Values that may have several forms (`oneOf`, `anyOf`): choose the form that was meant, then report only on that.
//!
//! Trying every form and reporting "matches none" is what makes other validators useless. The form is chosen by what
//! people see: a tag (`type: process`), the one key that names a variant (`http: ...`), or the YAML type.

use serde_json::{Map, Value as Json};

use super::{Found, Walker, checks, suggest};
use crate::config::diagnostic::Problem;
use crate::config::tree::{KeyPath, Node, Place, Value};

impl<'s> Walker<'s> {
    pub(super) fn union(&mut self, node: &mut Node, branches: &'s [Json], path: &KeyPath, key_place: Place) -> bool {
        let branches: Vec<&'s Json> = branches.iter().map(|branch| self.resolve(branch)).collect();
        if let Value::Mapping(_) = node.value {
            let objects: Vec<&'s Map<String, Json>> = branches
                .iter()
                .filter_map(|b| b.as_object())
                .filter(|rules| rules.contains_key("properties"))
                .collect();
            if !objects.is_empty() {
                return self.object_union(node, &objects, path, key_place);
            }
        }
        let fitting: Vec<&'s Json> = branches
            .iter()
            .copied()
            .filter(|branch| branch.as_object().is_some_and(|rules| fits(node, rules)))
            .collect();
        if let Some(problem) = constants(node, &branches, &fitting, path) {
            self.problem(path, key_place, problem.at(node.place));
            let allowed = branches.iter().filter_map(|branch| listed(branch)).flatten();
            return self.take_nearest(node, allowed, path);
        }
        match fitting.as_slice() {
            [] => {
                self.no_form(node, &branches, path, key_place);
                false
            }
            [only] => self.walk(node, only, path, key_place),
            several => self.best_of(node, several, path, key_place),
        }
    }

    fn no_form(&mut self, node: &Node, branches: &[&'s Json], path: &KeyPath, key_place: Place) {
        let mut types: Vec<Json> = Vec::new();
        for branch in branches {
            match branch.get("type") {
                Some(Json::Array(several)) => types.extend(several.iter().cloned()),
                Some(one) => types.push(one.clone()),
                None => {}
            }
        }
        types.dedup();
        let rules = Map::from_iter([("type".to_owned(), Json::Array(types))]);
        let place = if matches!(node.value, Value::Mapping(_) | Value::Sequence(_)) { key_place } else { node.place };
        let problem = checks::wrong_type(node, &rules, path).at(place);
        self.problem(path, key_place, problem);
    }

    /// Walks copies against each form and keeps the result with the fewest problems.
    fn best_of(&mut self, node: &mut Node, branches: &[&'s Json], path: &KeyPath, key_place: Place) -> bool {
        let mut best: Option<(Node, Found, bool)> = None;
        for branch in branches {
            let mut copy = node.clone();
            let mut trial = Walker::new(self.definitions, self.root);
            let usable = trial.walk(&mut copy, branch, path, key_place);
            if best.as_ref().is_none_or(|(_, found, _)| trial.found.problems.len() < found.problems.len()) {
                best = Some((copy, trial.found, usable));
            }
        }
        let Some((copy, found, usable)) = best else { return true };
        *node = copy;
        self.found.problems.extend(found.problems);
        self.found.bad.extend(found.bad);
        usable
    }

    fn object_union(
        &mut self,
        node: &mut Node,
        objects: &[&'s Map<String, Json>],
        path: &KeyPath,
        key_place: Place,
    ) -> bool {
        if let Some(tag) = tag_of(objects) {
            return self.tagged(node, objects, &tag, path, key_place);
        }
        let Value::Mapping(entries) = &node.value else { return true };
        // Externally tagged: each form has exactly one required key, which names it.
        let variant = |rules: &&'s Map<String, Json>| -> Option<&'s str> {
            match rules.get("required")?.as_array()?.as_slice() {
                [only] => only.as_str(),
                _ => None,
            }
        };
        let names: Option<Vec<&str>> = objects.iter().map(variant).collect();
        if let Some(names) = names {
            let chosen = names.iter().position(|name| entries.iter().any(|entry| entry.key == *name));
            if let Some(index) = chosen {
                return self.walk_rules(node, objects[index], path, key_place);
            }
            let problem = match entries.first() {
                Some(entry) => {
                    let near = suggest::nearest(&entry.key, names.iter().copied());
                    let label = suggest::did_you_mean(&near, "no such key");
                    Problem::config(format!("unknown key `{}`", path.key(&checks::shorten(&entry.key))))
                        .at(entry.key_place)
                        .label(label)
                }
                None => Problem::config(format!("`{path}` is empty")).at(key_place).label("one key is needed"),
            };
            self.found.problems.push(problem.help(format!("one of: {}", names.join(", "))).about(path));
            return false;
        }
        match objects {
            [only] => self.walk_rules(node, only, path, key_place),
            several => {
                // Untagged: the form that shares most keys with what was written.
                let shared = |rules: &&&'s Map<String, Json>| {
                    let known = rules.get("properties").and_then(Json::as_object);
                    entries.iter().filter(|entry| known.is_some_and(|known| known.contains_key(&entry.key))).count()
                };
                match several.iter().max_by_key(shared) {
                    Some(rules) => self.walk_rules(node, rules, path, key_place),
                    None => true,
                }
            }
        }
    }

    fn walk_rules(&mut self, node: &mut Node, rules: &'s Map<String, Json>, path: &KeyPath, key_place: Place) -> bool {
        match &mut node.value {
            Value::Mapping(entries) => self.mapping(entries, rules, path, key_place),
            _ => true,
        }
    }

    fn tagged(
        &mut self,
        node: &mut Node,
        objects: &[&'s Map<String, Json>],
        tag: &str,
        path: &KeyPath,
        key_place: Place,
    ) -> bool {
        let values: Vec<&'s Json> = objects.iter().filter_map(|rules| tag_value(rules, tag)).collect();
        let Some(given) = node.child(tag) else {
            let names: Vec<String> = values.iter().map(|value| checks::bare(value)).collect();
            let problem = suggest::missing_key(tag, None, path, key_place);
            let problem = problem.help(format!("`{tag}:` is one of: {}", names.join(", "))).about(&path.key(tag));
            self.found.problems.push(problem);
            return false;
        };
        if let Some(problem) = checks::not_among(given, &values, &path.key(tag)) {
            let problem = problem.at(given.place).about(&path.key(tag));
            self.found.problems.push(problem);
            return false;
        }
        let index = values.iter().position(|value| checks::bare(value) == given.source).unwrap_or(0);
        self.walk_rules(node, objects[index], path, key_place)
    }
}

fn fits(node: &Node, rules: &Map<String, Json>) -> bool {
    checks::has_type(node, rules)
        || (checks::wants_text(rules) && matches!(node.value, Value::Bool(_) | Value::Integer(_) | Value::Float(_)))
}

/// The allowed values of a form that is a fixed value or a list of them.
fn listed(branch: &Json) -> Option<Vec<&Json>> {
    match (branch.get("const"), branch.get("enum")) {
        (Some(only), _) => Some(vec![only]),
        (_, Some(Json::Array(several))) => Some(several.iter().collect()),
        _ => None,
    }
}

/// The problem that a scalar is none of the fixed values, when fixed values are all that would fit.
fn constants(node: &Node, branches: &[&Json], fitting: &[&Json], path: &KeyPath) -> Option<Problem> {
    if matches!(node.value, Value::Sequence(_) | Value::Mapping(_)) {
        return None;
    }
    let candidates = if fitting.is_empty() { branches } else { fitting };
    let lists: Option<Vec<Vec<&Json>>> = candidates.iter().map(|branch| listed(branch)).collect();
    let mut allowed: Vec<&Json> = lists?.into_iter().flatten().collect();
    if allowed.is_empty() {
        return None;
    }
    // Forms with data next to the fixed values (`never` or `{after: 5s}`) are named too.
    allowed.dedup();
    checks::not_among(node, &allowed, path)
}

/// The key that tells the forms apart: present in each with one fixed value.
fn tag_of(objects: &[&Map<String, Json>]) -> Option<String> {
    let first = objects.first()?.get("properties")?.as_object()?;
    first
        .keys()
        .find(|key| objects.len() > 1 && objects.iter().all(|rules| tag_value(rules, key).is_some()))
        .map(|key| (*key).clone())
}

fn tag_value<'s>(rules: &&'s Map<String, Json>, key: &str) -> Option<&'s Json> {
    let schema = rules.get("properties")?.get(key)?;
    match (schema.get("const"), schema.get("enum").and_then(Json::as_array).map(Vec::as_slice)) {
        (Some(only), _) => Some(only),
        (_, Some([only])) => Some(only),
        _ => None,
    }
}
