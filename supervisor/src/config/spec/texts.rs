//! Texts with a form of their own: names, commands, destinations.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use agt_gateway::policy::spec::Cidr;
use agt_gateway::policy::{HostPattern, PathPattern};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::ports::{ListenAt, Publish};
use crate::config::validate::is_env_name;

/// Longest name of an agent: a DNS label and a cgroup name have room for it.
const MAX_NAME: usize = 63;

/// Why a text was refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadText {
    /// What is wrong, with the value.
    pub message: String,
    /// What to write instead.
    pub instead: String,
}

pub(super) fn bad<T>(message: impl Into<String>, instead: impl Into<String>) -> Result<T, BadText> {
    Err(BadText { message: message.into(), instead: instead.into() })
}

/// The parsers that a schema's `x-check` can name, besides the quantities. An unknown check is a mistake of ours and
/// lets nothing through.
pub(in crate::config) fn check_text(check: &str, text: &str) -> Option<BadText> {
    match check {
        "name" => AgentName::parse(text).err(),
        "words" => split_words(text).err(),
        "publish" => Publish::parse(text).err(),
        "listen-at" => ListenAt::parse(text).err(),
        "host-port" => HostPort::parse(text).err(),
        "host-pattern" => not_read(text.parse::<HostPattern>(), "for example `api.example.com` or `*.example.com`"),
        "path-pattern" => not_read(text.parse::<PathPattern>(), "for example `/v1/models` or `/v1/**`"),
        "cidr" => not_read(Cidr::try_from(text.to_owned()), "for example `10.0.0.0/8` or `127.0.0.1/32`"),
        "env-name" if is_env_name(text) => None,
        "env-name" => {
            bad::<()>(format!("`{text}` can't be the name of a variable"), "letters, digits and `_`, no digit first")
                .err()
        }
        "label" if is_label(text) => None,
        "label" => {
            bad::<()>(format!("`{text}` can't be the name of a label"), "letters, digits and `_`, no digit first").err()
        }
        other => bad::<()>(format!("`{text}` can't be checked ({other})"), "this is a fault of agt-supervise").err(),
    }
}

/// What the gateway's own parsers say of a text.
fn not_read<T, E: fmt::Display>(read: Result<T, E>, form: &str) -> Option<BadText> {
    let error = read.err()?;
    bad::<()>(error.to_string(), form).err()
}

/// Label names as Prometheus has them, without its reserved `__` names.
fn is_label(name: &str) -> bool {
    is_env_name(name) && !name.starts_with("__") && name.len() <= MAX_NAME
}

/// The name of an agent: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentName(String);

impl AgentName {
    /// Checks a name.
    ///
    /// # Errors
    /// Empty, longer than 63 characters, or with other characters than small letters, digits and `-`.
    pub fn parse(text: &str) -> Result<AgentName, BadText> {
        const FORM: &str = "small letters, digits and `-`, no `-` first, at most 63 characters";
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.len() > MAX_NAME || !text.starts_with(fits) || !text.chars().all(|c| fits(c) || c == '-') {
            let better = AgentName::from_words(text);
            let instead =
                if better.0 == FALLBACK_NAME { FORM.to_owned() } else { format!("for example `{better}`: {FORM}") };
            return bad(format!("`{}` can't be an agent's name", text.chars().take(80).collect::<String>()), instead);
        }
        Ok(AgentName(text.to_owned()))
    }

    /// The nearest name to any text: for a command line that gives none.
    #[must_use]
    pub fn from_words(text: &str) -> AgentName {
        let mut name = String::new();
        for character in text.chars().flat_map(char::to_lowercase) {
            match character {
                c if c.is_ascii_lowercase() || c.is_ascii_digit() => name.push(c),
                _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
                _ => {}
            }
        }
        name.truncate(MAX_NAME);
        let name = name.trim_end_matches('-');
        AgentName(if name.is_empty() { FALLBACK_NAME.to_owned() } else { name.to_owned() })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const FALLBACK_NAME: &str = "agent";

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AgentName {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        AgentName::parse(&text)
    }
}

impl From<AgentName> for String {
    fn from(name: AgentName) -> String {
        name.0
    }
}

impl JsonSchema for AgentName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AgentName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$", "x-check": "name"})
    }
}

/// A program with its arguments. Never empty.
///
/// Written as a list, each item is one argument. Written as one text, [`split_words`] splits it; no shell is involved
/// in either form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CommandForm")]
pub struct Command(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum CommandForm {
    Text(String),
    Words(Vec<String>),
}

impl Command {
    /// A command from its words.
    ///
    /// # Errors
    /// No word, an empty program, a NUL character (no argument of a process can have one).
    pub fn from_words(words: Vec<String>) -> Result<Command, BadText> {
        match words.first() {
            None => bad("an empty command", "the program, then its arguments: `[python3, agent.py]`"),
            Some(program) if program.is_empty() => {
                bad("the program's name is empty", "for example `[python3, agent.py]`")
            }
            Some(_) if words.iter().any(|word| word.contains('\0')) => {
                bad("a NUL character in the command", "no argument of a process can have one")
            }
            Some(_) => Ok(Command(words)),
        }
    }

    /// The words, program first.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<CommandForm> for Command {
    type Error = BadText;

    fn try_from(form: CommandForm) -> Result<Command, BadText> {
        match form {
            CommandForm::Text(text) => Command::from_words(split_words(&text)?),
            CommandForm::Words(words) => Command::from_words(words),
        }
    }
}

impl JsonSchema for Command {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1000},
                {"type": "string", "x-check": "words"}
            ],
            "examples": [["python3", "agent.py"], "python3 agent.py"]
        })
    }
}

/// Splits a command line into words without a shell: spaces separate; `'...'` keeps everything; `"..."` keeps everything
/// but `\"` and `\\`; a backslash outside quotes keeps the next character. No variables, no `*`, no pipes.
///
/// # Errors
/// An open quote, a backslash at the end, no word at all, or an unquoted operator of a shell (`|`, `>`, `;`, `&`, a
/// backquote, `$(`): such a line wants a shell and must name it.
pub fn split_words(line: &str) -> Result<Vec<String>, BadText> {
    let (mut words, mut word, mut in_word) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            c if c.is_whitespace() => {
                if in_word {
                    words.push(std::mem::take(&mut word));
                }
                in_word = false;
                continue;
            }
            '\'' => quoted(&mut characters, '\'', &mut word)?,
            '"' => quoted(&mut characters, '"', &mut word)?,
            '\\' => match characters.next() {
                Some(next) => word.push(next),
                None => return bad("a backslash ends the command", "write the command as a list"),
            },
            '|' | '>' | '<' | ';' | '&' | '`' => return wants_shell(&character.to_string(), line),
            '$' if characters.peek() == Some(&'(') => return wants_shell("$(", line),
            other => word.push(other),
        }
        in_word = true;
    }
    if in_word {
        words.push(word);
    }
    if words.is_empty() {
        return bad("an empty command", "the program, then its arguments: `[python3, agent.py]`");
    }
    Ok(words)
}

fn quoted(rest: &mut impl Iterator<Item = char>, quote: char, word: &mut String) -> Result<(), BadText> {
    while let Some(character) = rest.next() {
        match character {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match rest.next() {
                Some(next @ ('"' | '\\')) => word.push(next),
                Some(next) => word.extend(['\\', next]),
                None => break,
            },
            other => word.push(other),
        }
    }
    bad(format!("a {quote} is opened and never closed in the command"), "close it, or write the command as a list")
}

fn wants_shell<T>(operator: &str, line: &str) -> Result<T, BadText> {
    let line = serde_json::Value::from(line).to_string();
    bad(
        format!("`{operator}` in the command: no shell reads it"),
        format!("name the shell: `[sh, -c, {line}]`, or put quotes around `{operator}`"),
    )
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A numeric address.
    Address(SocketAddr),
    /// A name, resolved by the supervisor.
    Name {
        /// Host name, in small letters, without a dot at the end.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
}

/// A destination as written: `127.0.0.1:8099`, `[::1]:8099`, `db.internal:5432`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort(pub Target);

impl HostPort {
    /// Reads a destination.
    ///
    /// # Errors
    /// A URL, a missing or impossible port, an IPv6 address without brackets, a host name with other characters than
    /// letters, digits, `-` and `.`, or a number that is no address in the usual spelling (`0x7f.1`, `127.1`).
    pub fn parse(text: &str) -> Result<HostPort, BadText> {
        const FORM: &str = "write host:port, for example `127.0.0.1:8099`";
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return bad(format!("`{text}` is a URL"), format!("write host and port only, for example `{host}`"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                bad(format!("`{text}` has port 0"), "ports are 1 to 65535")
            } else {
                Ok(HostPort(Target::Address(address)))
            };
        }
        if text.parse::<IpAddr>().is_ok() {
            return bad(format!("`{text}` has no port"), FORM);
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return bad(format!("`{text}` has no port"), format!("write `{text}:443`, or the port that is meant"));
        };
        let Some(port) = port.parse::<u16>().ok().filter(|number| *number != 0 && !port.starts_with('+')) else {
            return bad(format!("`{port}` is not a port (`{text}`)"), "ports are 1 to 65535");
        };
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let label = |part: &str| {
            (1..=63).contains(&part.len())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        // A last label of digits is a disguised address (`2130706433`, `127.1`): refuse rather than guess.
        let numeric = name.rsplit('.').next().is_some_and(|last| {
            last.starts_with("0x") || (!last.is_empty() && last.chars().all(|c| c.is_ascii_digit()))
        });
        if numeric || name.len() > 253 || !name.split('.').all(label) {
            return bad(format!("`{host}` is neither a host name nor an address"), FORM);
        }
        Ok(HostPort(Target::Name { host: name, port }))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Address(address) => write!(f, "{address}"),
            Target::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        HostPort::parse(&text)
    }
}

impl From<HostPort> for String {
    fn from(value: HostPort) -> String {
        value.to_string()
    }
}

impl JsonSchema for HostPort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostPort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "x-check": "host-port", "title": "host:port", "examples": ["127.0.0.1:8099"]})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "0", "my-agent", &"x".repeat(63)] {
            assert!(AgentName::parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "-a", "A", "a_b", "a/b", "..", "é", &"x".repeat(64)] {
            assert!(AgentName::parse(wrong).is_err(), "{wrong}");
        }
        assert!(AgentName::parse("My Agent").unwrap_err().instead.contains("`my-agent`"));
    }

    #[test]
    fn words_are_split_without_a_shell() {
        let words = |line: &str| split_words(line).unwrap();
        assert_eq!(words("python3  x.py 'a b' \"c \\\" d\" e\\ f ''"), ["python3", "x.py", "a b", "c \" d", "e f", ""]);
        assert_eq!(words("echo $HOME *.txt"), ["echo", "$HOME", "*.txt"]);
        assert_eq!(words("sh -c 'a | b > c; d && e'"), ["sh", "-c", "a | b > c; d && e"]);
        for wants in ["a | b", "a > b", "a; b", "a && b", "a `b`", "a $(b)"] {
            assert!(split_words(wants).unwrap_err().instead.contains("sh, -c"), "{wants}");
        }
        for wrong in ["", "  ", "a 'b", "a \"b", "a \\"] {
            assert!(split_words(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn destinations_in_disguise_are_refused() {
        for good in ["127.0.0.1:8099", "[::1]:80", "db.internal:5432", "localhost:1"] {
            assert_eq!(HostPort::parse(good).unwrap().to_string(), good);
        }
        let refused = [
            "127.0.0.1",
            "::1",
            "::1:80",
            "http://a.example/",
            "a.example",
            "a.example:0",
            "a.example:65536",
            "a:b",
            ":80",
            "127.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "0x7f.1:80",
            "a b:80",
            "user@host:80",
            "*.example:80",
            "a..b:80",
            "host:+80",
        ];
        for wrong in refused {
            assert!(HostPort::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back_whole(words in proptest::collection::vec("[^'\0]{0,12}", 1..6)) {
            let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_words(&line).unwrap(), words);
        }

        #[test]
        fn any_text_gives_a_valid_name(text in "\\PC{0,90}") {
            let name = AgentName::from_words(&text);
            prop_assert!(AgentName::parse(name.as_str()).is_ok(), "{}", name);
        }
    }
}
