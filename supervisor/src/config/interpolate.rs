//! `${NAME}` and `${NAME:?message}` in values of the environment and in paths, and nowhere else.
//!
//! Two forms and no more: defaults (`:-`) hide a missing setting, nested forms hide everything. `$${` stands for a plain
//! `${`; any other `$` is itself. Which names may be read is not decided here: a file from a stranger must not copy the
//! user's keys into an agent, so the names that were used come back with the text.

use std::collections::BTreeMap;

/// Longest result: what a path or a variable can reasonably hold.
const MAX_EXPANDED: usize = 64 * 1024;

/// A text with its variables replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The variables that went into it, each once.
    pub(super) used: Vec<String>,
}

/// Why a text can't be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadExpansion {
    /// The variable has no value.
    #[error("the variable `{name}` is not set{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    NotSet {
        /// The variable.
        name: String,
        /// What the file says about that.
        message: Option<String>,
    },
    /// A form that is not one of the two.
    #[error("`${{{0}}}` is not a form that is known here")]
    UnknownForm(String),
    /// No closing brace.
    #[error("a `${{` is opened and never closed")]
    Open,
    /// The result is too long.
    #[error("the text is longer than {MAX_EXPANDED} bytes with its variables replaced")]
    TooLong,
}

/// Replaces the variables of `text` by their values in `env`.
pub(super) fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<Expanded, BadExpansion> {
    let (mut out, mut used, mut rest) = (String::new(), Vec::new(), text);
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            // `$${` is a plain `${`.
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or(BadExpansion::Open)?;
        let (name, message) = match inner[..end].split_once(":?") {
            Some((name, message)) => (name, Some(message.to_owned())),
            None => (&inner[..end], None),
        };
        if !super::validate::is_env_name(name) {
            return Err(BadExpansion::UnknownForm(inner[..end].chars().take(60).collect()));
        }
        match env.get(name) {
            // As in shells, `:?` refuses an empty value too.
            Some(value) if !(value.is_empty() && message.is_some()) => out.push_str(value),
            _ => return Err(BadExpansion::NotSet { name: name.to_owned(), message }),
        }
        if !used.iter().any(|known| known == name) {
            used.push(name.to_owned());
        }
        if out.len() > MAX_EXPANDED {
            return Err(BadExpansion::TooLong);
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(Expanded { text: out, used })
}

/// Variables that say nothing about their owner but how they read and where their screen is. Everything else may be a
/// secret.
pub(super) fn is_harmless(name: &str) -> bool {
    const NAMES: [&str; 18] = [
        "CI",
        "CLICOLOR",
        "COLORTERM",
        "COLUMNS",
        "EDITOR",
        "FORCE_COLOR",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LINES",
        "LOGNAME",
        "NO_COLOR",
        "PATH",
        "PWD",
        "SHELL",
        "TERM",
        "TZ",
        "USER",
    ];
    NAMES.contains(&name) || name.starts_with("LC_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn env() -> BTreeMap<String, String> {
        [("A", "one"), ("EMPTY", ""), ("NESTED", "${A}")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn two_forms_are_replaced_and_values_are_never_read_again() {
        let text = |input: &str| expand(input, &env()).unwrap().text;
        assert_eq!(text("${A}/x-${A}"), "one/x-one");
        assert_eq!(text("${A:?say so}"), "one");
        assert_eq!(text("[${EMPTY}]"), "[]");
        assert_eq!(text("${NESTED}"), "${A}");
        assert_eq!(text("$A $5 $$ $${A} 100$"), "$A $5 $$ ${A} 100$");
        assert_eq!(expand("${A}${A}${EMPTY}", &env()).unwrap().used, ["A", "EMPTY"]);
    }

    #[test]
    fn every_other_form_is_refused() {
        for wrong in ["${A:-x}", "${A:=x}", "${}", "${1}", "${A B}", "${${A}}", "${A", "${A-x}", "${#A}"] {
            assert!(matches!(expand(wrong, &env()), Err(BadExpansion::UnknownForm(_) | BadExpansion::Open)), "{wrong}");
        }
        let missing = expand("${GONE:?set it}", &env()).unwrap_err();
        assert_eq!(missing.to_string(), "the variable `GONE` is not set: set it");
        assert!(expand("${EMPTY:?must have a value}", &env()).is_err());
    }

    #[test]
    fn expansion_is_bounded() {
        let env = BTreeMap::from([("BIG".to_owned(), "x".repeat(40_000))]);
        assert_eq!(expand("${BIG}${BIG}", &env), Err(BadExpansion::TooLong));
    }
}
