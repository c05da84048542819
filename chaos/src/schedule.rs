//! Where in the faulty phase the bursts fall: a pure function of the seed.
//!
//! The generator is named (ChaCha with 8 rounds) and the numbers are mapped here, not by a distribution of the library,
//! so that a seed in an old report still gives the same schedule after every upgrade.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// One stretch of time in which the fault acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    /// From the beginning of the faulty phase.
    #[serde(with = "crate::report::seconds", rename = "start_seconds")]
    pub start: Duration,
    /// How long it lasts.
    #[serde(with = "crate::report::seconds", rename = "length_seconds")]
    pub length: Duration,
}

impl Burst {
    /// When it is over, from the beginning of the faulty phase.
    pub fn end(&self) -> Duration {
        self.start + self.length
    }
}

/// `count` bursts of `length` each, spread evenly at random over `phase`, in order, never overlapping. Lengths that don't
/// fit are cut to an equal share of the phase.
///
/// The free time (phase minus all bursts) is cut at `count` sorted random points; burst `i` starts at point `i` plus the
/// bursts before it. So one burst as long as the phase always starts at zero.
pub fn schedule(seed: u64, phase: Duration, count: u32, length: Duration) -> Vec<Burst> {
    let count = count.max(1);
    let length = length.min(phase / count);
    let free = u64::try_from((phase - length * count).as_millis()).unwrap_or(u64::MAX);
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut points: Vec<u64> = (0..count).map(|_| below(generator.next_u64(), free)).collect();
    points.sort_unstable();
    points
        .iter()
        .zip(0..)
        .map(|(point, i)| Burst { start: Duration::from_millis(*point) + length * i, length })
        .collect()
}

/// Maps 64 random bits to `0..=most` by multiply and shift.
fn below(bits: u64, most: u64) -> u64 {
    let wide = u128::from(bits) * (u128::from(most) + 1);
    u64::try_from(wide >> 64).expect("the product of two 64-bit numbers, shifted by 64, has 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_whole_burst_starts_at_once() {
        assert_eq!(schedule(7, s(30), 1, s(30)), [Burst { start: s(0), length: s(30) }]);
    }

    /// Fails when the generator or the mapping changes: old reports name their seed, so that must never happen.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let starts: Vec<_> = schedule(42, s(60), 3, s(5)).iter().map(|b| b.start.as_millis()).collect();
        assert_eq!(starts, GOLDEN_42);
    }

    const GOLDEN_42: [u128; 3] = [19_238, 35_686, 52_763];

    #[test]
    fn another_seed_gives_another_schedule() {
        let schedules: std::collections::BTreeSet<_> =
            (0..50).map(|seed| schedule(seed, s(600), 3, s(5)).iter().map(|b| b.start).collect::<Vec<_>>()).collect();
        assert!(schedules.len() >= 49, "{} of 50", schedules.len());
    }

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_schedule(seed: u64, phase in 1_u64..3600, count in 1_u32..33, length in 1_u64..600) {
            prop_assert_eq!(schedule(seed, s(phase), count, s(length)), schedule(seed, s(phase), count, s(length)));
        }

        #[test]
        fn bursts_are_in_order_apart_and_inside(seed: u64, phase in 1_u64..3600, count in 1_u32..33, length in 1_u64..600) {
            let bursts = schedule(seed, s(phase), count, s(length));
            prop_assert_eq!(bursts.len(), count as usize);
            prop_assert!(bursts.windows(2).all(|pair| pair[0].end() <= pair[1].start));
            prop_assert!(bursts.iter().all(|burst| burst.end() <= s(phase)));
        }
    }
}
