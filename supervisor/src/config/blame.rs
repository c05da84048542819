//! Finds the value that a type refused, when serde only says in which group it stands.
//!
//! A type's own check (`try_from`) runs after the value was read, so the position that comes with its error is that of
//! the group around it. The value to blame is the one without which the error changes: groups are small and this runs
//! only once a file is wrong, so it is simply tried out.

use serde::de::DeserializeOwned;

use super::tree::{KeyPath, Node, Step, Value};
use super::validate::stand_in;
use super::yaml::{self, TypeRefusal};

/// Most trials for one error: beyond that the group is good enough.
const MAX_TRIALS: usize = 400;

/// The refusal with the path of the value itself, as near as it can be found.
pub(super) fn refine<T: DeserializeOwned>(root: &Node, mut refusal: TypeRefusal) -> TypeRefusal {
    let mut trials = 0;
    loop {
        let children: Vec<Step> = match root.get(&refusal.path).map(|node| &node.value) {
            Some(Value::Mapping(entries)) => entries.iter().map(|entry| Step::Key(entry.key.clone())).collect(),
            Some(Value::Sequence(items)) => (0..items.len()).map(Step::Item).collect(),
            _ => return refusal,
        };
        let blamed = children.into_iter().find(|child| {
            trials += 1;
            let mut trial = root.clone();
            remove(&mut trial, &refusal.path, child);
            trials <= MAX_TRIALS
                && !matches!(yaml::typed::<T>(&trial), Err(other) if bare(&other.message) == bare(&refusal.message))
        });
        match blamed {
            Some(step) => refusal.path.0.push(step),
            None => return refusal,
        }
    }
}

/// Takes the value at `path` out of the tree. False for the root.
pub(super) fn leave_out(root: &mut Node, path: &KeyPath) -> bool {
    let Some((child, parents)) = path.0.split_last() else { return false };
    remove(root, &KeyPath(parents.to_vec()), child);
    true
}

/// Puts a sound value under `key` of the group at `path`, if there is one for such a key.
pub(super) fn put(root: &mut Node, path: &KeyPath, key: &str) -> Option<()> {
    let place = root.nearest_place(path);
    let group = path.0.iter().try_fold(root, below)?;
    let Value::Mapping(entries) = &mut group.value else { return None };
    entries.push(stand_in(key, None, place)?);
    Some(())
}

fn below<'n>(node: &'n mut Node, step: &Step) -> Option<&'n mut Node> {
    match (step, &mut node.value) {
        (Step::Key(key), Value::Mapping(entries)) => {
            entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.value)
        }
        (Step::Item(index), Value::Sequence(items)) => items.get_mut(*index),
        _ => None,
    }
}

fn remove(root: &mut Node, path: &KeyPath, child: &Step) {
    let parent = path.0.iter().try_fold(root, below);
    match (parent.map(|node| &mut node.value), child) {
        (Some(Value::Mapping(entries)), Step::Key(key)) => entries.retain(|entry| entry.key != *key),
        (Some(Value::Sequence(items)), Step::Item(index)) if *index < items.len() => drop(items.remove(*index)),
        _ => {}
    }
}

impl TypeRefusal {
    /// The message without a path in front of it that the caret shows anyway.
    pub(super) fn message_alone(&self) -> &str {
        match self.message.split_once(": ") {
            Some((front, rest)) if self.path.to_string().starts_with(front) => rest,
            _ => &self.message,
        }
    }
}

/// The message without the path in front, whose indices move when an item is taken out.
fn bare(message: &str) -> &str {
    match message.split_once(": ") {
        Some((front, rest)) if !front.contains(' ') => rest,
        _ => message,
    }
}
