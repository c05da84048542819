//! One decision, as it is kept for ever.
//!
//! Every field stands inside the canonical text, the sequence number too, and the text is the only thing stored: there is no
//! column beside it that could be changed without breaking the chain. Texts are cut to fixed limits instead of refused, because
//! a record of something that has already happened must not be lost over its length.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::AuditError;
use super::canonical::Value;

/// Longest reason, agent name or text in details, in bytes; more is cut and says so.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most members of `details`.
pub const DETAILS_MAX: usize = 64;
/// Longest record, in bytes; the details of a longer one are replaced by their size. Three texts of [`TEXT_BYTES_MAX`] fit even
/// when each of their bytes is escaped to six.
pub const RECORD_BYTES_MAX: usize = 128 * 1024;
/// Deepest nesting of `details`; deeper values are replaced by their canonical text.
pub const DEPTH_MAX: usize = 8;
/// The format's number, in every record.
const FORMAT: i64 = 1;

/// Who decided or acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The supervisor by a rule of its own.
    Supervisor,
    /// An operator, by the operator socket's peer credentials.
    Operator(u32),
    /// A user without operator rights.
    Uid(u32),
    /// An agent, by its own control socket.
    Agent(String),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervisor => f.write_str("supervisor"),
            Self::Operator(uid) => write!(f, "operator:{uid}"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Agent(name) => write!(f, "agent:{name}"),
        }
    }
}

impl Actor {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "supervisor" => Some(Self::Supervisor),
            Some(("operator", uid)) => uid.parse().ok().map(Self::Operator),
            Some(("uid", uid)) => uid.parse().ok().map(Self::Uid),
            Some(("agent", name)) => Some(Self::Agent(name.to_owned())),
            _ => None,
        }
    }
}

/// What was done or asked, as a closed set of words that the code names: `launch`, `kill`, `ring.demote`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action(Cow<'static, str>);

impl Action {
    /// An action of the program.
    ///
    /// # Panics
    /// If the text isn't 1 to 64 of `a-z 0-9 _ .`; in a `const` that is a compile error.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        assert!(is_action(text.as_bytes()), "an action is 1 to 64 characters of a-z 0-9 _ .");
        Self(Cow::Borrowed(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_action(bytes: &[u8]) -> bool {
    let mut index = 0;
    while index < bytes.len() {
        if !matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.') {
            return false;
        }
        index += 1;
    }
    !bytes.is_empty() && bytes.len() <= 64
}

/// How a decision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Power was given.
    Allowed,
    /// Power was refused.
    Denied,
    /// It was done.
    Done,
    /// It was tried and did not work.
    Failed,
    /// Nothing was decided; the record says what was seen.
    Noted,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Allowed, Self::Denied, Self::Done, Self::Failed, Self::Noted];

    /// The word in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Noted => "noted",
        }
    }
}

/// One decision, before the store gives it a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When, in milliseconds since the epoch.
    pub time_ms: i64,
    /// Who.
    pub actor: Actor,
    /// The identity key of the agent it concerns; none for the supervisor as a whole.
    pub agent: Option<String>,
    /// What.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in words; may be empty.
    pub reason: String,
    /// The rest, by name.
    pub details: BTreeMap<String, Value>,
}

impl Record {
    /// A record without agent, reason and details.
    #[must_use]
    pub fn new(time_ms: i64, actor: Actor, action: Action, outcome: Outcome) -> Self {
        Self { time_ms, actor, agent: None, action, outcome, reason: String::new(), details: BTreeMap::new() }
    }

    /// Names the agent it concerns.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = Some(agent.into());
        self
    }

    /// Says why.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }

    /// The canonical text under this sequence number, within [`RECORD_BYTES_MAX`] whatever the fields hold.
    #[must_use]
    pub fn encode(&self, seq: u64) -> String {
        let details = self.details.iter().take(DETAILS_MAX).map(|(key, value)| (cut(key), bound(value, 1))).collect();
        let text = self.encode_with(seq, Value::Map(details));
        if text.len() <= RECORD_BYTES_MAX && self.details.len() <= DETAILS_MAX {
            return text;
        }
        let size = Value::Map([("dropped_bytes".to_owned(), Value::from(text.len()))].into());
        self.encode_with(seq, size)
    }

    fn encode_with(&self, seq: u64, details: Value) -> String {
        let mut members: BTreeMap<String, Value> = BTreeMap::new();
        members.insert("v".to_owned(), Value::Int(FORMAT));
        members.insert("seq".to_owned(), Value::from(seq));
        members.insert("time_ms".to_owned(), Value::Int(self.time_ms));
        members.insert("actor".to_owned(), Value::Text(cut(&self.actor.to_string())));
        if let Some(agent) = &self.agent {
            members.insert("agent".to_owned(), Value::Text(cut(agent)));
        }
        members.insert("action".to_owned(), Value::from(self.action.as_str()));
        members.insert("outcome".to_owned(), Value::from(self.outcome.as_str()));
        members.insert("reason".to_owned(), Value::Text(cut(&self.reason)));
        members.insert("details".to_owned(), details);
        Value::Map(members).to_canonical()
    }

    /// Reads a record back, with its sequence number.
    ///
    /// # Errors
    /// [`AuditError::NotCanonical`] or [`AuditError::Malformed`].
    pub fn decode(text: &str) -> Result<(u64, Self), AuditError> {
        let Value::Map(mut members) = Value::from_canonical(text)? else {
            return Err(AuditError::Malformed { field: "record" });
        };
        if take_int(&mut members, "v")? != FORMAT {
            return Err(AuditError::Malformed { field: "v" });
        }
        let seq = u64::try_from(take_int(&mut members, "seq")?).map_err(|_| AuditError::Malformed { field: "seq" })?;
        let agent = match members.contains_key("agent") {
            true => Some(take_text(&mut members, "agent")?),
            false => None,
        };
        let actor = Actor::parse(&take_text(&mut members, "actor")?).ok_or(AuditError::Malformed { field: "actor" })?;
        let action = take_text(&mut members, "action")?;
        let outcome = take_text(&mut members, "outcome")?;
        let record = Self {
            time_ms: take_int(&mut members, "time_ms")?,
            actor,
            agent,
            action: is_action(action.as_bytes())
                .then_some(Action(Cow::Owned(action)))
                .ok_or(AuditError::Malformed { field: "action" })?,
            outcome: (Outcome::ALL.into_iter().find(|known| known.as_str() == outcome))
                .ok_or(AuditError::Malformed { field: "outcome" })?,
            reason: take_text(&mut members, "reason")?,
            details: match members.remove("details") {
                Some(Value::Map(details)) => details,
                _ => return Err(AuditError::Malformed { field: "details" }),
            },
        };
        match members.is_empty() {
            true => Ok((seq, record)),
            false => Err(AuditError::Malformed { field: "record (unknown members)" }),
        }
    }
}

pub(crate) fn take_int(members: &mut BTreeMap<String, Value>, field: &'static str) -> Result<i64, AuditError> {
    match members.remove(field) {
        Some(Value::Int(value)) => Ok(value),
        _ => Err(AuditError::Malformed { field }),
    }
}

pub(crate) fn take_text(members: &mut BTreeMap<String, Value>, field: &'static str) -> Result<String, AuditError> {
    match members.remove(field) {
        Some(Value::Text(value)) => Ok(value),
        _ => Err(AuditError::Malformed { field }),
    }
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}... (cut, {} bytes in all)", &text[..end], text.len())
}

fn bound(value: &Value, depth: usize) -> Value {
    match value {
        Value::Text(text) => Value::Text(cut(text)),
        Value::List(_) | Value::Map(_) if depth >= DEPTH_MAX => Value::Text("... (nested too deep)".to_owned()),
        Value::List(values) => Value::List(values.iter().map(|value| bound(value, depth + 1)).collect()),
        Value::Map(members) => {
            Value::Map(members.iter().map(|(key, value)| (cut(key), bound(value, depth + 1))).collect())
        }
        Value::Bool(_) | Value::Int(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::canonical::tests::any_value;
    use super::*;

    const LAUNCH: Action = Action::new("launch");

    #[test]
    fn a_record_has_one_documented_byte_form() {
        let record = Record::new(1_700_000_000_000, Actor::Operator(1000), LAUNCH, Outcome::Allowed)
            .agent("researcher")
            .reason("started by hand")
            .detail("ring", 2_u32);
        assert_eq!(
            record.encode(7),
            r#"{"action":"launch","actor":"operator:1000","agent":"researcher","details":{"ring":2},"outcome":"allowed","reason":"started by hand","seq":7,"time_ms":1700000000000,"v":1}"#
        );
    }

    proptest! {
        #[test]
        fn every_record_reads_back_as_written(
            time_ms in 0_i64..1 << 50,
            agent in prop::option::of(any::<String>()),
            reason in any::<String>(),
            details in prop::collection::btree_map(any::<String>(), any_value(), 0..5),
            seq in 1_u64..1 << 50,
        ) {
            let mut record = Record::new(time_ms, Actor::Agent("a".into()), LAUNCH, Outcome::Denied).reason(reason);
            record.agent = agent;
            record.details = details;
            prop_assert_eq!(Record::decode(&record.encode(seq)).unwrap(), (seq, record));
        }
    }

    #[test]
    fn no_field_can_make_a_record_too_long_or_unreadable() {
        let huge = "é".repeat(1 << 20);
        let mut record = Record::new(1, Actor::Agent(huge.clone()), LAUNCH, Outcome::Noted).agent(huge.clone());
        record.reason = huge.clone();
        for index in 0..100_u32 {
            record = record.detail(format!("{index}{huge}"), huge.clone());
        }
        let mut deep = Value::from("x");
        for _ in 0..500 {
            deep = Value::List(vec![deep]);
        }
        for record in [record.clone(), Record { details: [("deep".to_owned(), deep)].into(), ..record }] {
            let text = record.encode(1);
            assert!(text.len() <= RECORD_BYTES_MAX, "{} bytes", text.len());
            Record::decode(&text).unwrap();
        }
    }

    #[test]
    fn unknown_or_missing_members_are_refused() {
        let good = Record::new(1, Actor::Supervisor, LAUNCH, Outcome::Done).encode(1);
        for (from, to) in [
            ("\"v\":1", "\"v\":2"),
            ("\"outcome\":\"done\"", "\"outcome\":\"fine\""),
            ("\"actor\":\"supervisor\"", "\"actor\":\"operator:x\""),
            ("\"action\":\"launch\"", "\"action\":\"Launch\""),
            (",\"v\":1", ",\"v\":1,\"w\":1"),
            (",\"seq\":1", ""),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert!(Record::decode(&bad).is_err(), "{bad}");
        }
    }
}
