//! Sizes and shares with their unit in the text: `256MiB`, `10%`.
//!
//! A bare `64M` is refused with both readings offered, because Docker and systemd read 2^20 and Kubernetes 10^6; a value
//! that reads two ways must never become a limit.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no size and no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing that looks like a whole number with a unit.
    #[error("`{0}` is no size: write a whole number and a unit, like `256MiB`")]
    NotASize(String),
    /// `64M`: which of the two?
    #[error("`{text}` reads two ways: write `{number}{prefix}iB` (2^10) or `{number}{prefix}B` (10^3)")]
    Ambiguous {
        /// What was written.
        text: String,
        /// The number in it.
        number: u64,
        /// `K`, `M` or `G`.
        prefix: char,
    },
    /// More than 64 bits hold.
    #[error("`{0}` is more than this machine can count")]
    TooLarge(String),
    /// Not `N%` with N from 1 to 6400.
    #[error("`{0}` is no share of a CPU: write whole percents of one CPU from `1%` to `6400%`")]
    NotAShare(String),
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let not = || UnitError::NotASize(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(not)?;
        let number: u64 = text[..digits].parse().map_err(|_| not())?;
        let factor: u64 = match text[digits..].trim_start() {
            "B" => 1,
            "KiB" | "Ki" => 1 << 10,
            "MiB" | "Mi" => 1 << 20,
            "GiB" | "Gi" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            short @ ("k" | "K" | "M" | "G") => {
                let prefix = short.chars().next().expect("the arm holds only one-letter texts").to_ascii_uppercase();
                return Err(UnitError::Ambiguous { text: text.to_owned(), number, prefix });
            }
            _ => return Err(not()),
        };
        number.checked_mul(factor).map(Bytes).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 > 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A share of one CPU, in thousandths of it: 1000 is one full CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuShare(pub u32);

/// The largest share that a file may ask for: 64 CPUs.
const SHARE_PERCENT_MAX: u32 = 6400;

impl FromStr for CpuShare {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let percent = text.strip_suffix('%').and_then(|digits| digits.trim_end().parse::<u32>().ok());
        match percent {
            Some(percent @ 1..=SHARE_PERCENT_MAX) => Ok(CpuShare(percent * 10)),
            _ => Err(UnitError::NotAShare(text.to_owned())),
        }
    }
}

impl fmt::Display for CpuShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 / 10)
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

as_text!(Bytes, "Bytes", r"^[0-9]+ ?(B|KiB|MiB|GiB|Ki|Mi|Gi|kB|KB|MB|GB)$");
as_text!(CpuShare, "CpuShare", r"^[0-9]+ ?%$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_systems() {
        assert_eq!("16MiB".parse(), Ok(Bytes(16 << 20)));
        assert_eq!("16Mi".parse(), Ok(Bytes(16 << 20)));
        assert_eq!("16MB".parse(), Ok(Bytes(16_000_000)));
        assert_eq!("1 GiB".parse(), Ok(Bytes(1 << 30)));
    }

    #[test]
    fn bare_prefix_is_refused_with_both_spellings() {
        let error = "64M".parse::<Bytes>().unwrap_err().to_string();
        assert!(error.contains("`64MiB`") && error.contains("`64MB`"), "{error}");
    }

    #[test]
    fn sizes_without_unit_or_too_large_are_refused() {
        assert!("64".parse::<Bytes>().is_err());
        assert!("".parse::<Bytes>().is_err());
        assert!("-1MiB".parse::<Bytes>().is_err());
        assert!(matches!("18446744073709551615GiB".parse::<Bytes>(), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn a_share_of_nothing_is_refused() {
        assert_eq!("10%".parse(), Ok(CpuShare(100)));
        assert!("0%".parse::<CpuShare>().is_err());
        assert!("0.1".parse::<CpuShare>().is_err());
        assert!("6401%".parse::<CpuShare>().is_err());
    }

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [Bytes(0), Bytes(1), Bytes(1024), Bytes(3 << 20), Bytes((1 << 30) + 1)] {
            assert_eq!(bytes.to_string().parse(), Ok(bytes));
        }
    }
}
