//! Ratios between 0 and 1, and objectives below 1, as exact integers.
//!
//! 1 - 0.995 is 0.0050000000000000044 in binary floating point, so five bad events of a hundred would burn at
//! 9.99999999999999 and a threshold could be missed by a rounding error. In parts per billion the subtraction is
//! exact, and comparisons against thresholds are integer comparisons (see [`crate::burn`]).

use std::fmt;

use serde::{Serialize, Serializer};

/// One, in parts per billion.
const ONE_PPB: u32 = 1_000_000_000;

/// A ratio from 0 to 1, exact to nine decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ratio {
    ppb: u32,
}

impl Ratio {
    /// Nothing.
    pub const ZERO: Self = Self { ppb: 0 };
    /// All.
    pub const ONE: Self = Self { ppb: ONE_PPB };

    /// A ratio from a number, rounded to nine decimals; `None` unless it lies in 0..=1.
    pub fn new(value: f64) -> Option<Self> {
        // The cast is exact enough: the value is at most 1e9 and already rounded.
        (0.0..=1.0).contains(&value).then(|| Self { ppb: (value * f64::from(ONE_PPB)).round() as u32 })
    }

    /// Whole percent, at most 100.
    pub const fn percent(percent: u32) -> Self {
        Self { ppb: if percent >= 100 { ONE_PPB } else { percent * 10_000_000 } }
    }

    /// Parts per billion, 0..=1,000,000,000.
    pub const fn ppb(self) -> u32 {
        self.ppb
    }

    /// As a number, 0..=1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.ppb) / f64::from(ONE_PPB)
    }

    /// This ratio plus another, at most one.
    pub const fn plus(self, other: Self) -> Self {
        let sum = self.ppb + other.ppb;
        Self { ppb: if sum > ONE_PPB { ONE_PPB } else { sum } }
    }

    /// Whether `part` of `whole` is at least this ratio. Nothing of nothing is not.
    pub fn reached_by(self, part: u64, whole: u64) -> bool {
        whole > 0 && u128::from(part) * u128::from(ONE_PPB) >= u128::from(whole) * u128::from(self.ppb)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&percent(self.as_f64()))
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

/// The share of valid events that must be good: 0 <= objective < 1. At 1 or more there is no error budget to divide
/// by, and no service keeps such a promise, so it can't be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Objective(Ratio);

impl Objective {
    /// An objective; `None` at 1.
    pub fn new(ratio: Ratio) -> Option<Self> {
        (ratio < Ratio::ONE).then_some(Self(ratio))
    }

    /// As a number, 0..1.
    pub fn as_f64(self) -> f64 {
        self.0.as_f64()
    }

    /// The share of valid events that may be bad (1 - objective), never zero.
    pub fn allowed(self) -> Ratio {
        Ratio { ppb: ONE_PPB - self.0.ppb }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A share as percent for people: `99.5 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// A number for people: four significant digits, or all whole ones, without trailing zeros.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return format!("{value}");
    }
    let whole_digits = value.abs().log10().floor() as i32 + 1;
    // Objectives such as 99.999 % must not round up to a promise nobody made: two more digits near a hundred.
    let significant = if (99.0..100.0).contains(&value.abs()) { 9 } else { 4 };
    let decimals = usize::try_from((significant - whole_digits).clamp(0, 12)).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn allowed_share_is_exact() {
        let objective = Objective::new(Ratio::new(0.995).unwrap()).unwrap();
        assert_eq!(objective.allowed().ppb(), 5_000_000);
        assert_eq!(objective.allowed().as_f64(), 0.005);
    }

    #[test]
    fn objective_of_one_and_what_rounds_to_one_cannot_be_built() {
        assert!(Objective::new(Ratio::ONE).is_none());
        assert!(Objective::new(Ratio::new(0.999_999_999_9).unwrap()).is_none());
        assert!(Objective::new(Ratio::new(0.999_999_999).unwrap()).is_some());
        assert!(Objective::new(Ratio::ZERO).is_some());
    }

    #[test]
    fn only_numbers_from_zero_to_one_are_ratios() {
        for bad in [-0.1, 1.000_1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Ratio::new(bad), None, "{bad}");
        }
        assert_eq!(Ratio::new(-0.0), Some(Ratio::ZERO));
        assert_eq!(Ratio::percent(250), Ratio::ONE);
    }

    #[test]
    fn nothing_of_nothing_reaches_no_ratio() {
        assert!(!Ratio::ZERO.reached_by(0, 0));
        assert!(Ratio::ZERO.reached_by(0, 1));
        assert!(Ratio::percent(50).reached_by(5, 10));
        assert!(!Ratio::percent(50).reached_by(4, 10));
    }

    #[test]
    fn numbers_read_well_and_objectives_never_round_up() {
        for (value, text) in
            [(10.0, "10"), (14.4, "14.4"), (0.05, "0.05"), (1234567.8, "1234568"), (0.0, "0"), (1.0 / 3.0, "0.3333")]
        {
            assert_eq!(number(value), text);
        }
        assert_eq!(Ratio::new(0.99999).unwrap().to_string(), "99.999 %");
        assert_eq!(Ratio::percent(20).to_string(), "20 %");
    }
}
