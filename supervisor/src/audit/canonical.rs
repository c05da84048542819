//! The one byte form of a record: canonical JSON after RFC 8785 (JCS), over a restricted set of values.
//!
//! A hash chain needs one encoding per value, for ever and in every language. JCS is that, apart from its floats, whose text
//! form is hard to get right twice: there are none here, nor `null`. Integers stay within ±(2^53 - 1), where JCS's numbers are
//! exact; larger ones are written as text. The encoder is ours and short, so that no serializer's update can change a hash.

use std::collections::BTreeMap;

use super::AuditError;

/// The largest integer that every JSON reader keeps exactly (RFC 8785, appendix D).
pub const MAX_SAFE_INT: i64 = (1 << 53) - 1;

/// What a record's details may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number; beyond ±(2^53 - 1) it is encoded as text.
    Int(i64),
    /// Any Unicode text.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name; the encoder sorts by UTF-16 code units, as RFC 8785 asks.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// The canonical text.
    ///
    /// ```
    /// use agt_supervise::audit::canonical::Value;
    /// let value = Value::Map([("b".into(), Value::Int(1)), ("a".into(), Value::from("x\n"))].into());
    /// assert_eq!(value.to_canonical(), r#"{"a":"x\n","b":1}"#);
    /// ```
    #[must_use]
    pub fn to_canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// Reads canonical text; anything that this encoder would have written differently is refused.
    ///
    /// # Errors
    /// [`AuditError::NotCanonical`]: not JSON, a float or null in it, or another spelling of the same value.
    pub fn from_canonical(text: &str) -> Result<Self, AuditError> {
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| AuditError::NotCanonical { why: error.to_string() })?;
        let value = Self::from_json(json)?;
        if value.to_canonical() != text {
            return Err(AuditError::NotCanonical { why: "another spelling of the same value".to_owned() });
        }
        Ok(value)
    }

    fn from_json(json: serde_json::Value) -> Result<Self, AuditError> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => match number.as_i64() {
                Some(value) if (-MAX_SAFE_INT..=MAX_SAFE_INT).contains(&value) => Self::Int(value),
                _ => return Err(AuditError::NotCanonical { why: format!("{number} is no exact integer") }),
            },
            Json::String(value) => Self::Text(value),
            Json::Array(values) => Self::List(values.into_iter().map(Self::from_json).collect::<Result<_, _>>()?),
            Json::Object(members) => {
                let pairs = members.into_iter().map(|(key, value)| Ok((key, Self::from_json(value)?)));
                Self::Map(pairs.collect::<Result<_, AuditError>>()?)
            }
            Json::Null => return Err(AuditError::NotCanonical { why: "null has no place in a record".to_owned() }),
        })
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Int(value) if (-MAX_SAFE_INT..=MAX_SAFE_INT).contains(value) => out.push_str(&value.to_string()),
            Self::Int(value) => write_text(&value.to_string(), out),
            Self::Text(text) => write_text(text, out),
            Self::List(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Map(members) => write_map(members, out),
        }
    }
}

fn write_map(members: &BTreeMap<String, Value>, out: &mut String) {
    let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
    // The map sorts by UTF-8, JCS by UTF-16: they differ above U+FFFF.
    sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push('{');
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        value.write(out);
    }
    out.push('}');
}

/// RFC 8785, 3.2.2.2: the short escapes where JSON has them, `\u00xx` in lower case for other controls, all else as it is.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        // What an i64 can't hold is far beyond the exact integers: text, like all of those.
        i64::try_from(value).map_or_else(|_| Self::Text(value.to_string()), Self::Int)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(values: Vec<V>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Any value that a record may hold, small enough to try many.
    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            (-MAX_SAFE_INT..=MAX_SAFE_INT).prop_map(Value::Int),
            any::<String>().prop_map(Value::Text),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back_as_itself(value in any_value()) {
            prop_assert_eq!(Value::from_canonical(&value.to_canonical()).unwrap(), value);
        }
    }

    #[test]
    fn control_characters_have_the_rfc_spelling() {
        let text = Value::from("\u{8}\u{c}\u{1f}\u{7f}\"\\/€");
        assert_eq!(text.to_canonical(), "\"\\b\\f\\u001f\u{7f}\\\"\\\\/€\"");
    }

    #[test]
    fn members_are_sorted_by_utf16_units_as_in_the_rfc() {
        // U+1F600 is D83D DE00 in UTF-16: before U+FB33, although its UTF-8 is behind it.
        let map = Value::Map([("\u{fb33}".into(), Value::Int(1)), ("\u{1f600}".into(), Value::Int(2))].into());
        assert_eq!(map.to_canonical(), "{\"\u{1f600}\":2,\"\u{fb33}\":1}");
    }

    #[test]
    fn integers_beyond_the_exact_ones_are_text() {
        assert_eq!(Value::Int(MAX_SAFE_INT + 1).to_canonical(), "\"9007199254740992\"");
        assert_eq!(Value::from(u64::MAX).to_canonical(), "\"18446744073709551615\"");
    }

    #[test]
    fn other_spellings_floats_and_null_are_refused() {
        for text in ["{\"b\":1,\"a\":2}", "{ }", "1.0", "1e3", "null", "[1,]", "\"\\u0041\"", "{\"a\":1,\"a\":1}", "-0"]
        {
            assert!(Value::from_canonical(text).is_err(), "{text} was accepted");
        }
    }
}
