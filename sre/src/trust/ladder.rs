//! From a score to a level of privilege: down at once, up only after a while.
//!
//! Levels are the caller's: it gives their thresholds, best level first, and gets positions back. A score that wavers
//! around a threshold must not make an agent flap, so a level is gained only by staying above its threshold plus a
//! margin for a hold time, one level at a time. A level is lost the moment the score is below its threshold.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Score;
use crate::error::Error;
use crate::time::Timestamp;

/// Thresholds of levels, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    needs: Vec<Score>,
    margin: u16,
    hold: Duration,
}

impl Ladder {
    /// A ladder. `needs` falls strictly and ends with 0, so that every score has a level; to gain a level takes its
    /// threshold plus `margin` (at most 1000) for `hold`.
    pub fn new(needs: Vec<Score>, margin: u16, hold: Duration) -> Result<Self, Error> {
        let refuse = |field, problem| Err(Error::Settings { what: "ladder", field, problem });
        if needs.last() != Some(&Score::LEAST) {
            return refuse("needs", "must end with 0: every score needs a level");
        }
        if !needs.windows(2).all(|pair| pair[0] > pair[1]) {
            return refuse("needs", "must fall strictly, best level first");
        }
        Ok(Self { needs, margin, hold })
    }

    /// The best level that a score reaches, 0 being the best. For a start; a running agent has a [`Standing`].
    pub fn level_of(&self, score: Score) -> usize {
        self.needs.iter().position(|need| score >= *need).unwrap_or(self.needs.len() - 1)
    }

    /// What it takes to gain a level.
    fn promotion_score(&self, level: usize) -> Score {
        Score::new(self.needs[level].get().saturating_add(self.margin)).unwrap_or(Score::MOST)
    }
}

/// A change of level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[must_use = "a level that is not taken away is still held"]
pub enum Move {
    /// The score fell below the level's threshold.
    Down {
        /// The level lost.
        from: usize,
        /// The level from now on.
        to: usize,
    },
    /// The score stayed above the next level's threshold and margin for the hold time.
    Up {
        /// The level left.
        from: usize,
        /// The level from now on.
        to: usize,
    },
}

/// The level that an identity holds, over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    level: usize,
    /// Since when the score has been good enough for the next level.
    rising_since: Option<Timestamp>,
}

impl Standing {
    /// The standing of an identity that starts now: the best level its score reaches.
    pub fn new(ladder: &Ladder, score: Score) -> Self {
        Self { level: ladder.level_of(score), rising_since: None }
    }

    /// The level held; 0 is the best.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Follows a score. To be called after every change of it and now and then, since decay changes it too.
    pub fn follow(&mut self, ladder: &Ladder, score: Score, now: Timestamp) -> Option<Move> {
        // A standing stored under a longer ladder holds the lowest level of a shorter one.
        let from = self.level.min(ladder.needs.len() - 1);
        self.level = from;
        let reached = ladder.level_of(score);
        if reached > from {
            *self = Self { level: reached, rising_since: None };
            return Some(Move::Down { from, to: reached });
        }
        if from == 0 || score < ladder.promotion_score(from - 1) {
            self.rising_since = None;
            return None;
        }
        // A clock set back starts the hold anew rather than shortening it.
        let since = self.rising_since.filter(|since| *since <= now).unwrap_or(now);
        self.rising_since = Some(since);
        if now.since(since) < ladder.hold {
            return None;
        }
        *self = Self { level: from - 1, rising_since: None };
        Some(Move::Up { from, to: from - 1 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn score(score: u16) -> Score {
        Score::new(score).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn ladder() -> Ladder {
        let needs = [950, 800, 600, 0].map(score).to_vec();
        Ladder::new(needs, 20, Duration::from_secs(600)).unwrap()
    }

    #[test]
    fn a_start_takes_the_level_its_score_reaches() {
        for (points, level) in [(1000, 0), (950, 0), (949, 1), (800, 1), (799, 2), (600, 2), (599, 3), (0, 3)] {
            assert_eq!(ladder().level_of(score(points)), level, "{points}");
        }
    }

    #[test]
    fn a_level_is_lost_at_once_and_several_at_a_time() {
        let mut standing = Standing::new(&ladder(), score(960));
        assert_eq!(standing.follow(&ladder(), score(599), at(0)), Some(Move::Down { from: 0, to: 3 }));
        assert_eq!(standing.follow(&ladder(), score(599), at(0)), None);
    }

    #[test]
    fn a_level_is_gained_by_staying_above_threshold_and_margin() {
        let ladder = ladder();
        let mut standing = Standing::new(&ladder, score(500));
        assert_eq!(standing.follow(&ladder, score(619), at(0)), None);
        assert_eq!(standing.follow(&ladder, score(619), at(10_000)), None, "above the threshold, not the margin");
        assert_eq!(standing.follow(&ladder, score(990), at(10_000)), None);
        assert_eq!(standing.follow(&ladder, score(990), at(10_599)), None);
        assert_eq!(standing.follow(&ladder, score(990), at(10_600)), Some(Move::Up { from: 3, to: 2 }));
        assert_eq!(standing.follow(&ladder, score(990), at(10_601)), None, "each level takes its own hold time");
        assert_eq!(standing.follow(&ladder, score(990), at(11_201)), Some(Move::Up { from: 2, to: 1 }));
    }

    #[test]
    fn a_dip_or_a_clock_set_back_starts_the_hold_anew() {
        let ladder = ladder();
        let mut standing = Standing::new(&ladder, score(500));
        assert_eq!(standing.follow(&ladder, score(700), at(1_000)), None);
        assert_eq!(standing.follow(&ladder, score(610), at(1_300)), None);
        assert_eq!(standing.follow(&ladder, score(700), at(1_301)), None);
        assert_eq!(standing.follow(&ladder, score(700), at(1_700)), None);
        assert_eq!(standing.follow(&ladder, score(700), at(50)), None);
        assert_eq!(standing.follow(&ladder, score(700), at(649)), None);
        assert_eq!(standing.follow(&ladder, score(700), at(650)), Some(Move::Up { from: 3, to: 2 }));
    }

    #[test]
    fn ladders_without_a_lowest_level_or_order_are_refused() {
        let hold = Duration::ZERO;
        assert!(Ladder::new(vec![], 0, hold).is_err());
        assert!(Ladder::new(vec![score(800)], 0, hold).is_err());
        assert!(Ladder::new(vec![score(0), score(0)], 0, hold).is_err());
        assert!(Ladder::new(vec![score(500), score(800), score(0)], 0, hold).is_err());
        let one = Ladder::new(vec![score(0)], 0, hold).unwrap();
        let mut from_longer = Standing { level: 3, rising_since: None };
        assert_eq!(from_longer.follow(&one, score(500), at(0)), None);
        assert_eq!(from_longer.level(), 0);
    }

    proptest! {
        #[test]
        fn no_level_is_ever_held_that_the_score_does_not_reach(
            start in 0u16..=1000, steps in prop::collection::vec((0u16..=1000, 0u64..700), 0..100),
        ) {
            let ladder = ladder();
            let mut standing = Standing::new(&ladder, score(start));
            let mut now = 0;
            for (points, wait) in steps {
                now += wait;
                let before = standing.level();
                let moved = standing.follow(&ladder, score(points), at(now));
                prop_assert!(standing.level() >= ladder.level_of(score(points)));
                match moved {
                    None => prop_assert_eq!(standing.level(), before),
                    Some(Move::Down { from, to }) => prop_assert!(from == before && to == standing.level() && to > from),
                    Some(Move::Up { from, to }) => prop_assert!(from == before && to == standing.level() && to + 1 == from),
                }
            }
        }
    }
}
