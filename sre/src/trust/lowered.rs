//! A score that stands below the identity's own for a while, as somebody who tampers with it would make it.
//!
//! What is taken away is kept beside the identity's own points and never mixed with them: successes, violations and decay go on
//! underneath, an operator's word too. So giving it back leaves exactly the score that would be there had nothing been taken,
//! baseline included. It is no part of a snapshot: a lowered score dies with whoever lowered it, and needs no repair after a
//! crash. It can only lower: a raised score would hand out what nobody granted.

use super::{Changed, Score, Trust};
use crate::time::Timestamp;

impl Trust {
    /// Lowers the score that counts to `to` until [`Trust::give_back`]; nothing happens to one that is lower already. What the
    /// identity earns and loses meanwhile moves it from there.
    pub fn lower(&mut self, to: Score, now: Timestamp) -> Changed {
        self.settle(now);
        let before = self.counting(self.points);
        self.taken = self.taken.max(self.points - f64::from(to.0));
        Changed { before, after: self.counting(self.points) }
    }

    /// Ends [`Trust::lower`]: the own score counts again. Changes nothing when nothing was taken.
    pub fn give_back(&mut self, now: Timestamp) -> Changed {
        self.settle(now);
        let before = self.counting(self.points);
        self.taken = 0.0;
        Changed { before, after: self.counting(self.points) }
    }

    /// The identity's own score while another one counts; `None` while its own does.
    pub fn own_score(&self, now: Timestamp) -> Option<Score> {
        (self.taken > 0.0).then(|| Score::from_points(self.points_at(self.clock.peek(now))))
    }

    /// The score that counts with so many own points.
    pub(super) fn counting(&self, points: f64) -> Score {
        Score::from_points(points - self.taken)
    }
}
