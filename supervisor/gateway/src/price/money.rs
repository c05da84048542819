//! Money as whole billionths of a dollar.
//!
//! One token can cost less than a millionth of a dollar, and sums of floats depend on their order: hence integers, and finer
//! than the bill. 64 bits of billionths hold 18 billion dollars; sums stop there instead of starting again at nothing.

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Billionths in a dollar.
const NANOS: u64 = 1_000_000_000;
/// Digits after the point that a billionth has.
const DIGITS: usize = 9;

/// An amount of US dollars, in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

/// A text that is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMoney {
    /// Not digits with at most one point between them.
    #[error("{0:?} is no amount of dollars: write \"2.50\"")]
    Text(String),
    /// Finer than can be counted.
    #[error("{0:?} has more than {DIGITS} digits after the point")]
    TooFine(String),
    /// More than can be counted.
    #[error("{0:?} is more than can be counted")]
    TooMuch(String),
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// As much as can be counted.
    pub const MAX: Self = Self(u64::MAX);

    /// Billionths of a dollar.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Whole cents.
    pub const fn from_cents(cents: u64) -> Self {
        Self(cents.saturating_mul(NANOS / 100))
    }

    /// In billionths of a dollar.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// In millionths of a dollar, rounded up: what is not nothing stays so.
    pub const fn micros(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    /// The sum, at most [`Money::MAX`].
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least nothing.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, if it can be counted.
    pub const fn checked_plus(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Dollars with at least two digits after the point: `$2.50`, `$0.000042`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % NANOS);
        let shown = fraction.trim_end_matches('0').len().max(2);
        write!(f, "${}.{}", self.0 / NANOS, &fraction[..shown])
    }
}

impl FromStr for Money {
    type Err = BadMoney;

    fn from_str(text: &str) -> Result<Self, BadMoney> {
        decimal(text, DIGITS).map(Self)
    }
}

/// `text` as an integer of units that are `digits` decimal places below one. Signs, exponents and separators are refused.
pub(super) fn decimal(text: &str, digits: usize) -> Result<u64, BadMoney> {
    let bad = || BadMoney::Text(text.chars().take(40).collect());
    let bare = text.trim();
    let bare = bare.strip_prefix('$').unwrap_or(bare);
    let (whole, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || bare.ends_with('.') {
        return Err(bad());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > digits {
        return Err(BadMoney::TooFine(text.to_owned()));
    }
    format!("{whole}{fraction:0<digits$}").parse().map_err(|_| BadMoney::TooMuch(text.to_owned()))
}

/// Reads a decimal from a text, an integer, or a number with a point, which is read by its shortest spelling: the one that was
/// written down, as long as it has at most 15 digits.
pub(super) fn decimal_of<'de, D: Deserializer<'de>>(deserializer: D, digits: usize) -> Result<u64, D::Error> {
    struct Decimal(usize);
    impl Visitor<'_> for Decimal {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an amount of dollars, for example \"2.50\"")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            decimal(text, self.0).map_err(E::custom)
        }
        fn visit_u64<E: serde::de::Error>(self, whole: u64) -> Result<u64, E> {
            self.visit_str(&whole.to_string())
        }
        fn visit_i64<E: serde::de::Error>(self, whole: i64) -> Result<u64, E> {
            self.visit_str(&whole.to_string())
        }
        fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<u64, E> {
            self.visit_str(&number.to_string())
        }
    }
    deserializer.deserialize_any(Decimal(digits)).map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decimal_of(deserializer, DIGITS).map(Self)
    }
}

/// As a text without the sign of the dollar, which [`Deserialize`] reads back without loss.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.to_string()[1..])
    }
}

impl schemars::JsonSchema for Money {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "US dollars, for example \"2.50\"",
            "type": ["string", "number"],
            "pattern": r"^\$?[0-9]+(\.[0-9]+)?$",
            "minimum": 0
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_and_shown_without_loss() {
        for (text, nanos, shown) in [
            ("2.50", 2_500_000_000, "$2.50"),
            ("$0.1", 100_000_000, "$0.10"),
            ("12", 12_000_000_000, "$12.00"),
            ("0.000000001", 1, "$0.000000001"),
            ("1.1000000000000", 1_100_000_000, "$1.10"),
        ] {
            let money: Money = text.parse().unwrap();
            assert_eq!((money.nanos(), money.to_string().as_str()), (nanos, shown));
        }
        for bad in ["", "-1", "1e3", ".5", "5.", "1,5", "0x10", "1.2.3", "0.0000000001", "99999999999999999999", "NaN"]
        {
            assert!(bad.parse::<Money>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_in_a_file_means_its_spelling_and_never_less() {
        for (json, nanos) in
            [("0.1", 100_000_000), ("2.5", 2_500_000_000), ("3", 3_000_000_000), ("\"4.05\"", 4_050_000_000)]
        {
            assert_eq!(serde_json::from_str::<Money>(json).unwrap().nanos(), nanos, "{json}");
        }
        assert!(serde_json::from_str::<Money>("-0.5").is_err());
        assert!(serde_json::from_str::<Money>("1e-30").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos: u64) {
            let money = Money::from_nanos(nanos);
            prop_assert_eq!(money.to_string().parse::<Money>().unwrap(), money);
            let json = serde_json::to_string(&money).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
        }

        #[test]
        fn sums_stop_at_the_ends(a: u64, b: u64) {
            let (a, b) = (Money::from_nanos(a), Money::from_nanos(b));
            prop_assert!(a.plus(b) >= a && a.minus(b) <= a);
        }
    }
}
