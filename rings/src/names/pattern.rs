//! Patterns over path components: `*` and `?` within a name, `**` for any number of folders.
//!
//! A matcher of our own, because the question that a rename of a folder puts is not whether its new path matches, but whether
//! anything inside it could: a pattern is run as a machine over components, and what it could still match is its set of states.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::fold::folded;

/// Longest pattern in bytes: that of a path.
const BYTES_MAX: usize = 4096;
/// Most parts of a pattern: one bit of a state set each, and one for the end.
const PARTS_MAX: usize = 127;

/// A pattern over path components, relative to a folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of folders, none included.
    Deep,
    /// One name, folded.
    Name(Vec<char>),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Nothing to match.
    #[error("it names nothing")]
    Empty,
    /// Longer than any path.
    #[error("it is longer than {BYTES_MAX} bytes or {PARTS_MAX} names")]
    TooLong,
    /// `.` or `..`.
    #[error("`{0}` names no file of its own")]
    Dots(String),
    /// `**` beside other characters.
    #[error("`**` stands alone between slashes (in `{0}`); `*` matches within a name")]
    Stars(String),
    /// A character that other matchers give a meaning.
    #[error("`{0}` has no meaning here: `*`, `?` and `**` have")]
    Unknown(char),
}

/// What a pattern has matched so far, and so what it can still match: one bit for each number of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct States(u128);

impl States {
    /// Nothing can match any more.
    pub(super) const NONE: States = States(0);

    /// Whether everything that can still match here can still match there.
    pub(super) fn within(self, other: States) -> bool {
        self.0 & !other.0 == 0
    }
}

impl Pattern {
    /// Reads a pattern. One without a slash holds at any depth.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn new(text: &str) -> Result<Pattern, BadPattern> {
        if text.len() > BYTES_MAX {
            return Err(BadPattern::TooLong);
        }
        if let Some(c) = text.chars().find(|c| matches!(c, '[' | ']' | '{' | '}' | '\\' | '!' | '\0')) {
            return Err(BadPattern::Unknown(c));
        }
        let mut parts = Vec::new();
        // A leading or trailing slash, or two in a row, separate nothing.
        for name in text.split('/').filter(|name| !name.is_empty()) {
            match name {
                "." | ".." => return Err(BadPattern::Dots(name.to_owned())),
                "**" if parts.last() == Some(&Part::Deep) => {}
                "**" => parts.push(Part::Deep),
                _ if name.contains("**") => return Err(BadPattern::Stars(name.to_owned())),
                _ => parts.push(Part::Name(folded(name.as_bytes()).chars().collect())),
            }
        }
        if !text.trim_end_matches('/').contains('/') && parts != [Part::Deep] {
            parts.insert(0, Part::Deep);
        }
        if !parts.iter().any(|part| matches!(part, Part::Name(name) if !name.is_empty())) {
            return Err(BadPattern::Empty);
        }
        if parts.len() > PARTS_MAX {
            return Err(BadPattern::TooLong);
        }
        Ok(Pattern { text: text.to_owned(), parts })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a path matches; relative to the pattern's folder.
    #[must_use]
    pub fn matches(&self, relative: &Path) -> bool {
        self.accepts(self.after(&components(relative)))
    }

    /// Whether a path whose folders are not known could match, by its last name; folded.
    pub(super) fn could_end_with(&self, folded: &str) -> bool {
        let every = (0..self.parts.len()).fold(0, |states, index| states | 1 << index);
        self.accepts(self.step(States(every), folded))
    }

    /// The states after these components, folded.
    pub(super) fn after(&self, components: &[String]) -> States {
        components.iter().fold(self.start(), |states, name| self.step(states, name))
    }

    pub(super) fn start(&self) -> States {
        States(self.closed(1))
    }

    pub(super) fn step(&self, states: States, folded: &str) -> States {
        let mut next = 0u128;
        for (index, part) in self.parts.iter().enumerate().filter(|(index, _)| states.0 & (1 << index) != 0) {
            match part {
                Part::Deep => next |= 1 << index,
                Part::Name(glob) if fits(glob, folded) => next |= 1 << (index + 1),
                Part::Name(_) => {}
            }
        }
        States(self.closed(next))
    }

    pub(super) fn accepts(&self, states: States) -> bool {
        states.0 & (1 << self.parts.len()) != 0
    }

    /// `**` may match nothing: whoever stands before it stands behind it as well.
    fn closed(&self, mut states: u128) -> u128 {
        for (index, part) in self.parts.iter().enumerate() {
            if *part == Part::Deep && states & (1 << index) != 0 {
                states |= 1 << (index + 1);
            }
        }
        states
    }
}

/// A path's names, folded.
pub(super) fn components(path: &Path) -> Vec<String> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(folded(name.as_bytes())),
        _ => None,
    });
    names.collect()
}

/// `*` any characters, `?` one. Greedy with one way back: linear but for the last star.
fn fits(glob: &[char], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < name.len() {
        match glob.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[seen] => (at, seen) = (at + 1, seen + 1),
            _ => match star {
                Some((back, taken)) => {
                    star = Some((back, taken + 1));
                    (at, seen) = (back + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|c| *c == '*')
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Pattern, BadPattern> {
        Pattern::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(Path::new(path))
    }

    #[test]
    fn stars_match_within_a_name_and_double_stars_across_names() {
        for (pattern, path) in [
            ("**/.env", ".env"),
            ("**/.env", "a/b/.env"),
            (".env", "a/b/.env"),
            (".env.*", "a/.env.local"),
            (".git/hooks/*", ".git/hooks/pre-commit"),
            ("**/.git/hooks/*", "a/.git/hooks/pre-commit"),
            ("a/**/x", "a/x"),
            ("a/**/x", "a/b/c/x"),
            ("a/**", "a/b/c"),
            ("/a/?.txt/", "a/b.txt"),
            ("*", "a/b"),
            ("a/**/**/x", "a/x"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("**/.env", "a/.envrc"),
            (".git/hooks/*", "a/.git/hooks/pre-commit"),
            ("a/*", "a/b/c"),
            ("a/?", "a/bb"),
            ("a/**/x", "b/x"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn what_would_mean_something_elsewhere_is_refused_here() {
        for text in ["", "/", "**", "a/../b", "./a", "a**b", "**.env", "[ab]", "{a,b}", "!a", "a\\b", "\u{200b}"] {
            assert!(Pattern::new(text).is_err(), "{text:?}");
        }
        assert!(Pattern::new(&"a/".repeat(PARTS_MAX + 1)).is_err());
        assert!(Pattern::new(&"a/".repeat(PARTS_MAX)).is_ok());
    }

    #[test]
    fn a_stored_pattern_is_the_same_one() {
        let pattern = Pattern::new("**/x/*.pem").unwrap();
        let stored = serde_json::to_string(&pattern).unwrap();
        assert_eq!(stored, r#""**/x/*.pem""#);
        assert_eq!(serde_json::from_str::<Pattern>(&stored).unwrap(), pattern);
        assert!(serde_json::from_str::<Pattern>(r#""a/../b""#).is_err());
    }

    /// By trying everything: what the pattern means, said in the plainest way.
    fn naive(parts: &[&str], names: &[&str]) -> bool {
        match parts.split_first() {
            None => names.is_empty(),
            Some((&"**", rest)) => (0..=names.len()).any(|skipped| naive(rest, &names[skipped..])),
            Some((part, rest)) => {
                names.split_first().is_some_and(|(name, more)| naive_name(part, name) && naive(rest, more))
            }
        }
    }

    fn naive_name(glob: &str, name: &str) -> bool {
        let mut chars = glob.chars();
        match chars.next() {
            None => name.is_empty(),
            Some('*') => {
                let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
                ends.into_iter().any(|at| naive_name(chars.as_str(), &name[at..]))
            }
            Some(c) => {
                let mut rest = name.chars();
                rest.next().is_some_and(|first| c == '?' || c == first) && naive_name(chars.as_str(), rest.as_str())
            }
        }
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![Just("**".to_owned()), "[ab?]{1,3}", "[ab]{0,2}\\*[ab?]{0,2}(\\*[ab]{1,2})?"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_machine_says_what_trying_everything_says(
            parts in proptest::collection::vec(part(), 2..5),
            names in proptest::collection::vec("[ab]{1,3}", 0..6),
        ) {
            let Ok(pattern) = Pattern::new(&parts.join("/")) else { return Ok(()) };
            let (parts, names): (Vec<&str>, Vec<&str>) =
                (parts.iter().map(String::as_str).collect(), names.iter().map(String::as_str).collect());
            prop_assert_eq!(pattern.matches(Path::new(&names.join("/"))), naive(&parts, &names));
        }

        #[test]
        fn what_moves_to_states_within_its_own_matches_nothing_new(
            parts in proptest::collection::vec(part(), 1..5),
            old in proptest::collection::vec("[ab]{1,2}", 0..4),
            new in proptest::collection::vec("[ab]{1,2}", 0..4),
            inside in proptest::collection::vec("[ab]{1,2}", 1..4),
        ) {
            let Ok(pattern) = Pattern::new(&parts.join("/")) else { return Ok(()) };
            let whole = |top: &[String]| pattern.accepts(pattern.after(&[top, &inside[..]].concat()));
            if pattern.after(&new).within(pattern.after(&old)) && whole(&new) {
                prop_assert!(whole(&old));
            }
        }
    }
}
