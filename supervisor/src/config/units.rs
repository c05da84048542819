//! Quantities with their units: sizes, durations, CPU shares, ratios.
//!
//! A bare number is refused on purpose. `64M` is 2^20 to Docker and systemd and 10^6 to Kubernetes, and a bare `5` for a
//! time-out has been seconds, milliseconds and minutes in neighbouring tools: whoever writes a limit says what it is.
//! The parsers here are the only ones: the types' serde impls, the schema walk and the command line all call them.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Largest CPU share that can be asked for, in CPUs: far above any machine, far below overflow.
const MAX_CPUS: f64 = 4096.0;

/// Longest duration that can be asked for: ten years. Anything above is a typing error.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Why a quantity was refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadQuantity {
    /// What is wrong, with the value.
    pub message: String,
    /// What to write instead, when that can be said.
    pub instead: String,
}

impl BadQuantity {
    fn new(message: impl Into<String>, instead: impl Into<String>) -> Self {
        BadQuantity { message: message.into(), instead: instead.into() }
    }
}

/// An amount of bytes, written with a unit: `64MiB`, `64Mi` (2^20 each), `64MB` (10^6), `512B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 13] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const SIZE_HELP: &str = "KiB, MiB, GiB (or Ki, Mi, Gi) count in 1024, kB, MB, GB in 1000";

impl ByteSize {
    /// Reads a size.
    ///
    /// # Errors
    /// A missing or unknown unit, a number that is none, and amounts below one byte or above 2^64.
    pub fn parse(text: &str) -> Result<ByteSize, BadQuantity> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..split], text[split..].trim_start());
        if number.is_empty() {
            return Err(BadQuantity::new(
                format!("`{text}` is not a size"),
                format!("for example 256MiB; {SIZE_HELP}"),
            ));
        }
        let Some(&(_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(ambiguous_size(text, number, unit));
        };
        let bytes = scale(number, factor).ok_or_else(|| {
            BadQuantity::new(format!("`{text}` is not a size that this machine can count"), SIZE_HELP)
        })?;
        Ok(ByteSize(bytes))
    }
}

fn ambiguous_size(text: &str, number: &str, unit: &str) -> BadQuantity {
    let letter = unit.chars().next().map(|c| c.to_ascii_uppercase());
    let message = if unit.is_empty() {
        format!("`{text}` has no unit")
    } else if unit.len() == 1 {
        format!("`{text}` can mean 1024 or 1000 to the power")
    } else {
        format!("unknown size unit `{unit}` in `{text}`")
    };
    match letter {
        Some(letter @ ('K' | 'M' | 'G' | 'T')) => {
            let decimal = if letter == 'K' { 'k' } else { letter };
            BadQuantity::new(
                message,
                format!("write `{number}{letter}iB` (in 1024) or `{number}{decimal}B` (in 1000); {SIZE_HELP}"),
            )
        }
        None => {
            BadQuantity::new(message, format!("write `{number}MiB` (in 1024) or `{number}MB` (in 1000); {SIZE_HELP}"))
        }
        Some(_) => BadQuantity::new(message, SIZE_HELP),
    }
}

/// `number * factor` without losing a unit to floating point where the number is whole.
fn scale(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    // 2^63 is exact in f64; a fraction of that size is a typing error anyway.
    (0.0..9.2e18).contains(&value).then_some(value.round() as u64)
}

impl fmt::Display for ByteSize {
    /// The largest unit that shows the amount exactly, binary before decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS.iter().find(|(name, factor)| {
            (name.ends_with("iB") || name.ends_with('B')) && self.0 >= *factor && self.0.is_multiple_of(*factor)
        });
        match exact {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time, written with units: `5s`, `1h30m`, `250ms`, `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const TIME_HELP: &str = "units are d, h, m, s and ms, largest first: `5s`, `1h30m`, `250ms`";

impl Span {
    /// A span of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Span {
        Span(Duration::from_secs(seconds))
    }

    /// Reads a duration.
    ///
    /// # Errors
    /// A bare number, an unknown unit, units out of order or twice, and more than ten years.
    pub fn parse(text: &str) -> Result<Span, BadQuantity> {
        let text = text.trim();
        let bad = |message: String| BadQuantity::new(message, TIME_HELP);
        if text.is_empty() {
            return Err(bad("an empty text is not a duration".to_owned()));
        }
        let (mut rest, mut total, mut last_factor) = (text, 0_u64, u64::MAX);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(bad(format!("`{text}` is not a duration")));
            }
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            if unit.is_empty() {
                return Err(BadQuantity::new(
                    format!("`{text}` has no unit"),
                    format!("write `{text}s` for seconds, `{text}m` for minutes; {TIME_HELP}"),
                ));
            }
            let Some(&(_, factor)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(bad(format!("unknown time unit `{unit}` in `{text}`")));
            };
            if factor >= last_factor {
                return Err(bad(format!("the units of `{text}` are not in order")));
            }
            let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
            total =
                part.and_then(|part| total.checked_add(part)).ok_or_else(|| bad(format!("`{text}` is too long")))?;
            last_factor = factor;
            rest = tail;
        }
        let span = Duration::from_millis(total);
        if span > MAX_DURATION {
            return Err(bad(format!("`{text}` is longer than ten years")));
        }
        Ok(Span(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in TIME_UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A share of CPU time in thousandths of one CPU, written as a number of CPUs (`0.5`, `2`) or as a percentage of one
/// CPU (`50%`, `200%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Cpu(pub u32);

impl Cpu {
    /// Reads a CPU share.
    ///
    /// # Errors
    /// Anything that is neither a number nor a percentage, less than a thousandth of a CPU, more than 4096 CPUs.
    pub fn parse(text: &str) -> Result<Cpu, BadQuantity> {
        const HELP: &str = "write CPUs (`0.5`, `2`) or a share of one CPU (`50%`, `200%`)";
        let trimmed = text.trim();
        let (number, factor) = match trimmed.strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 10.0),
            None => (trimmed, 1000.0),
        };
        if !number.starts_with(|c: char| c.is_ascii_digit()) || number.contains(['e', 'E']) {
            return Err(BadQuantity::new(format!("`{trimmed}` is not a CPU share"), HELP));
        }
        if let Some(millis) = trimmed.strip_suffix('m').and_then(|m| m.parse::<f64>().ok()) {
            return Err(BadQuantity::new(
                format!("`{trimmed}` is not a CPU share here"),
                format!("write `{}`: CPUs, not thousandths", millis / 1000.0),
            ));
        }
        let value: f64 =
            number.parse().map_err(|_| BadQuantity::new(format!("`{trimmed}` is not a CPU share"), HELP))?;
        let millis = (value * factor).round();
        if millis < 1.0 {
            return Err(BadQuantity::new(format!("`{trimmed}` leaves no CPU at all"), "the least is 0.001 (0.1%)"));
        }
        if millis > MAX_CPUS * 1000.0 {
            return Err(BadQuantity::new(format!("`{trimmed}` is more CPUs than a machine has"), HELP));
        }
        Ok(Cpu(millis as u32))
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(10) {
            write!(f, "{}%", self.0 / 10)
        } else {
            write!(f, "{}.{}%", self.0 / 10, self.0 % 10)
        }
    }
}

/// A part of a whole from 0 to 1 in thousandths, written `0.2` or `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Share(pub u16);

impl Share {
    /// Reads a share.
    ///
    /// # Errors
    /// Anything that is neither a number from 0 to 1 nor a percentage from 0 % to 100 %.
    pub fn parse(text: &str) -> Result<Share, BadQuantity> {
        const HELP: &str = "write a part of the whole: `0.2` or `20%`";
        let trimmed = text.trim();
        let (number, factor) = match trimmed.strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 10.0),
            None => (trimmed, 1000.0),
        };
        let value = number
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| number.parse::<f64>().ok())
            .flatten()
            .ok_or_else(|| BadQuantity::new(format!("`{trimmed}` is not a share"), HELP))?;
        let thousandths = (value * factor).round();
        if thousandths > 1000.0 {
            return Err(BadQuantity::new(format!("`{trimmed}` is more than the whole"), HELP));
        }
        Ok(Share(thousandths as u16))
    }

    /// The share as a fraction, 0.0 to 1.0.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(10) {
            write!(f, "{}%", self.0 / 10)
        } else {
            write!(f, "{}.{}%", self.0 / 10, self.0 % 10)
        }
    }
}

/// Text or a number, as YAML gives it for `cpu: 0.5`.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(f64),
}

macro_rules! quantity {
    ($type:ident, text, $check:literal, $title:literal, $examples:tt) => {
        impl TryFrom<String> for $type {
            type Error = BadQuantity;

            fn try_from(text: String) -> Result<Self, BadQuantity> {
                $type::parse(&text)
            }
        }
        quantity!($type, $check, $title, $examples, json_schema!({"type": "string"}));
    };
    ($type:ident, number, $check:literal, $title:literal, $examples:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match TextOrNumber::deserialize(deserializer)? {
                    TextOrNumber::Text(text) => text,
                    TextOrNumber::Number(number) => number.to_string(),
                };
                $type::parse(&text).map_err(serde::de::Error::custom)
            }
        }
        quantity!($type, $check, $title, $examples, json_schema!({"type": ["string", "number"]}));
    };
    ($type:ident, $check:literal, $title:literal, $examples:tt, $schema:expr) => {
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = $schema;
                schema.insert("x-check".to_owned(), $check.into());
                schema.insert("title".to_owned(), $title.into());
                schema.insert("examples".to_owned(), serde_json::json!($examples));
                schema
            }
        }
    };
}

quantity!(ByteSize, text, "size", "a size with its unit", ["256MiB", "64MB", "1GiB"]);
quantity!(Span, text, "duration", "a duration with its unit", ["5s", "1h30m", "250ms"]);
quantity!(Cpu, number, "cpu", "CPUs or a share of one", [0.5, "50%", 2]);
quantity!(Share, number, "share", "a part of the whole", [0.2, "20%"]);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_mean_what_their_units_say() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("64Mi", 64 << 20),
            ("64MB", 64_000_000),
            ("1.5GiB", 3 << 29),
            ("2kB", 2000),
            ("2KiB", 2048),
            ("512B", 512),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn a_bare_64m_is_refused_with_both_spellings_offered() {
        for text in ["64M", "64m", "64"] {
            let refused = ByteSize::parse(text).unwrap_err();
            assert!(refused.instead.contains("`64MiB`") && refused.instead.contains("`64MB`"), "{text}: {refused:?}");
        }
        let refused = ByteSize::parse("8KB").unwrap_err();
        assert!(refused.instead.contains("`8KiB`") && refused.instead.contains("`8kB`"), "{refused:?}");
    }

    #[test]
    fn nonsense_sizes_are_refused() {
        for text in
            ["", "MiB", "-1MiB", "1.2.3MiB", "99999999999TiB", "64mib", "64 pigs", "NaNMiB", "1e3MiB", "0x10MiB"]
        {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_largest_unit_first() {
        for (text, millis) in
            [("5s", 5_000), ("1h30m", 5_400_000), ("250ms", 250), ("2d", 172_800_000), ("1m1s", 61_000), ("0s", 0)]
        {
            assert_eq!(Span::parse(text), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in
            ["5", "", "s", "5M", "30m1h", "5s5s", "1.5h", "-5s", "99999999999999999999s", "5000d", "5 s", "5sec"]
        {
            assert!(Span::parse(text).is_err(), "{text}");
        }
        assert!(Span::parse("5").unwrap_err().instead.contains("`5s`"));
    }

    #[test]
    fn cpu_reads_cpus_and_percent() {
        for (text, millis) in [("0.5", 500), ("50%", 500), ("2", 2000), ("200%", 2000), ("0.001", 1), ("12.5%", 125)] {
            assert_eq!(Cpu::parse(text), Ok(Cpu(millis)), "{text}");
        }
        for text in ["0", "-1", "500m", "", "%", "1e9", "inf", "NaN", "5000", "half"] {
            assert!(Cpu::parse(text).is_err(), "{text}");
        }
        assert!(Cpu::parse("500m").unwrap_err().instead.contains("`0.5`"));
    }

    #[test]
    fn a_share_is_never_more_than_the_whole() {
        assert_eq!(Share::parse("20%"), Ok(Share(200)));
        assert_eq!(Share::parse("0.2"), Ok(Share(200)));
        for text in ["101%", "1.1", "-1%", "", "NaN", "x"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same(bytes in any::<u64>(), millis in 0..300_000_000_000_u64, cpu in 1..4_096_000_u32) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(Span::parse(&span.to_string()), Ok(span));
            prop_assert_eq!(Cpu::parse(&Cpu(cpu).to_string()), Ok(Cpu(cpu)));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}") {
            let _ = (ByteSize::parse(&text), Span::parse(&text), Cpu::parse(&text), Share::parse(&text));
        }
    }
}
