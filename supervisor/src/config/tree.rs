//! A YAML document as a tree in which every key and value knows where it stands in the file.
//!
//! serde_yaml stops at the first error and its values have no positions. The tree is what lets one run report every
//! problem of a file, each with a caret; it also keeps the text of plain scalars, so that `1.10` where text is asked for
//! stays `1.10`.

use std::fmt;

/// A position: line and column from 1, columns counted in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// From where to where (end exclusive) something stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Place {
    /// First character.
    pub start: Mark,
    /// The character after the last one.
    pub end: Mark,
}

/// One value of the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// A scalar's characters as YAML understands them (quotes and escapes resolved); empty for collections.
    pub source: String,
    /// Where it stands. An alias stands where it is used.
    pub place: Place,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: `~`, `null`, or no value at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits 64 bits, signed or not.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with values, in the order of the file; keys are unique.
    Mapping(Vec<Entry>),
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key, always as text: `2:` is `"2"`.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// Its value.
    pub value: Node,
}

/// One step into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value under this key.
    Key(String),
    /// The item with this index, from 0.
    Item(usize),
}

/// The way from the root to a value: `limits.memory`, `files.read[1]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPath(pub Vec<Step>);

impl KeyPath {
    /// The path one key further down.
    #[must_use]
    pub fn key(&self, key: &str) -> KeyPath {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        KeyPath(steps)
    }

    /// The path to an item of this list.
    #[must_use]
    pub fn item(&self, index: usize) -> KeyPath {
        let mut steps = self.0.clone();
        steps.push(Step::Item(index));
        KeyPath(steps)
    }

    /// Parses dotted text, for callers who know the path when they write the code: `KeyPath::of("limits.memory")`.
    #[must_use]
    pub fn of(dotted: &str) -> KeyPath {
        KeyPath(dotted.split('.').filter(|part| !part.is_empty()).map(|part| Step::Key(part.to_owned())).collect())
    }

    /// Reads a path as [`KeyPath`] writes it: `steady_state[0].value`.
    #[must_use]
    pub fn read(text: &str) -> KeyPath {
        let mut path = KeyPath::default();
        for part in text.split(['.', '[']).filter(|part| !part.is_empty()) {
            path = match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
                Some(index) => path.item(index),
                None => path.key(part),
            };
        }
        path
    }

    /// The innermost item of a list that this is, or is in, if the list is called so.
    #[must_use]
    pub fn last_item_of(&self, list: &str) -> Option<KeyPath> {
        let at = self.0.iter().rposition(|step| matches!(step, Step::Item(_)))?;
        let called = matches!(self.0[..at].last(), Some(Step::Key(name)) if name == list);
        called.then(|| KeyPath(self.0[..=at].to_vec()))
    }

    /// Whether this is the whole document.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the value is one of an agent's environment, which may be secret and is never shown.
    #[must_use]
    pub fn is_environment_value(&self) -> bool {
        let keys: Vec<&str> = self
            .0
            .iter()
            .filter_map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Item(_) => None,
            })
            .collect();
        match keys.as_slice() {
            // An agent's own: `env.set.NAME`; `env.pass` and `env.secrets` hold names and paths.
            ["env", group, ..] => *group == "set" && keys.len() > 2,
            // A step's: `steps.NAME.env.NAME`.
            _ => keys.windows(2).any(|window| window[0] == "env"),
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item(item) => write!(f, "[{item}]")?,
            }
        }
        Ok(())
    }
}

impl Node {
    /// The value at the end of `path`, if there is one.
    #[must_use]
    pub fn get(&self, path: &KeyPath) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| match (step, &node.value) {
            (Step::Key(key), Value::Mapping(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|e| &e.value)
            }
            (Step::Item(index), Value::Sequence(items)) => items.get(*index),
            _ => None,
        })
    }

    /// The value under one key of a mapping.
    #[must_use]
    pub fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// Where the key of `path` stands; for a list item the item itself.
    #[must_use]
    pub fn key_place(&self, path: &KeyPath) -> Option<Place> {
        let (last, parents) = path.0.split_last()?;
        let parent = self.get(&KeyPath(parents.to_vec()))?;
        match (last, &parent.value) {
            (Step::Key(key), Value::Mapping(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| entry.key_place)
            }
            (Step::Item(index), Value::Sequence(items)) => items.get(*index).map(|item| item.place),
            _ => None,
        }
    }

    /// Where the value of `path` stands, or, when it is missing, the nearest thing above it that is there.
    #[must_use]
    pub fn nearest_place(&self, path: &KeyPath) -> Place {
        let mut steps = path.0.clone();
        loop {
            let here = KeyPath(steps.clone());
            if let Some(node) = self.get(&here) {
                // A collection begins on a line of its own: its key says more.
                return match node.value {
                    Value::Mapping(_) | Value::Sequence(_) => self.key_place(&here).unwrap_or(node.place),
                    _ => node.place,
                };
            }
            if steps.pop().is_none() {
                return self.place;
            }
        }
    }

    /// The deepest value that starts at `mark`, with its path.
    #[must_use]
    pub fn starting_at(&self, mark: Mark) -> Option<KeyPath> {
        fn search(node: &Node, mark: Mark, path: &KeyPath) -> Option<KeyPath> {
            let below = match &node.value {
                Value::Mapping(entries) => {
                    entries.iter().find_map(|entry| search(&entry.value, mark, &path.key(&entry.key)))
                }
                Value::Sequence(items) => {
                    items.iter().enumerate().find_map(|(index, item)| search(item, mark, &path.item(index)))
                }
                _ => None,
            };
            below.or_else(|| (node.place.start == mark).then(|| path.clone()))
        }
        search(self, mark, &KeyPath::default())
    }

    /// What the node is, in a word that a person uses.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a number",
            Value::Float(_) if self.source.bytes().all(|c| c.is_ascii_digit() || c == b'-' || c == b'+') => {
                "a number that is too large"
            }
            Value::Float(_) => "a number with a point",
            Value::Text(_) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a group of keys",
        }
    }
}
