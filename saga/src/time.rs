//! Time and chance as arguments: what a decision may know of the world.
//!
//! The machine reads no clock and draws no number; both come with the input, and what came of them (a due time) is
//! journaled. A replay therefore gives the same saga, whenever and wherever it happens.

/// One uniform draw from 0 to `u32::MAX`: the jitter of a backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(pub u32);

impl Draw {
    /// No jitter: the whole delay. For tests and for reckoning the longest wait.
    pub const LONGEST: Self = Self(u32::MAX);

    /// A draw of its own for each of several waits that begin at one moment.
    #[must_use]
    pub fn nth(self, number: usize) -> Self {
        // Steps of the golden ratio spread any count of points evenly (Weyl's sequence), and 0 keeps the draw itself.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Self(self.0.wrapping_add(number.wrapping_mul(0x9e37_79b9)))
    }

    /// `whole_ms` scaled by this draw: full jitter, from zero to all of it ("Exponential Backoff And Jitter", AWS
    /// Architecture Blog, 2015: of the variants tried there, full jitter made the least work).
    #[must_use]
    pub fn of(self, whole_ms: u64) -> u64 {
        let scaled = u128::from(whole_ms) * u128::from(self.0) / u128::from(u32::MAX);
        u64::try_from(scaled).expect("a fraction of a u64 fits a u64")
    }
}

/// When a decision is made, and with which draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// For the waits that begin now.
    pub draw: Draw,
}

/// `base` plus `add` milliseconds, without overflow.
pub(crate) fn later(base_ms: i64, add_ms: u64) -> i64 {
    base_ms.saturating_add(i64::try_from(add_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_spans_from_nothing_to_the_whole_delay() {
        assert_eq!(Draw(0).of(1000), 0);
        assert_eq!(Draw::LONGEST.of(1000), 1000);
        assert_eq!(Draw(u32::MAX / 2).of(1000), 499);
        assert_eq!(Draw::LONGEST.of(u64::MAX), u64::MAX);
    }
}
