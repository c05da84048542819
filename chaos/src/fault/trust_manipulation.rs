//! The agent has a low trust score for a while: is it demoted, do its rights shrink, does it cope?
//!
//! Down only: an experiment that raised a score would hand out a ring. The agent's own score goes on underneath, with all that
//! it earns and loses, and counts again after the undo: as if nothing had been done, baseline included. The lowered one lives
//! in the supervisor's memory only, so that a crash leaves nothing to repair.

use serde::{Deserialize, Serialize};

use super::{About, Fault, Risk, Seen};
use crate::plan::Problem;
use crate::spec::Parameters;
use crate::target::{Act, Need, Observation};

/// See [`super::FaultKind::TrustManipulation`].
pub const ABOUT: About = About {
    does: "puts a lower trust score in the place of the agent's own: the governor chooses its ring by it",
    undo: "the agent's own score counts again, with what it earned and lost meanwhile; dies with the supervisor",
    sign: "the score that decides is the experiment's or lower",
    needs: &[Need::TrustScores],
    risk: Risk::Errors,
    watch: "safety",
    parameters: &["score"],
};

/// The tier "probationary" begins here: R3, and nothing else.
const DEFAULT_SCORE: u16 = 300;
/// Scores go from 0 to this.
const SCORE_MAX: u16 = 1000;

/// The fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustManipulation {
    /// The score meanwhile.
    pub score: u16,
}

impl TrustManipulation {
    /// 300 unless it says otherwise.
    pub fn new(parameters: &Parameters) -> Result<Self, Problem> {
        let score = parameters.score.unwrap_or(DEFAULT_SCORE);
        if score > SCORE_MAX {
            return Err(Problem::new("parameters.score", format!("{score} is no trust score (0 to {SCORE_MAX})")));
        }
        Ok(Self { score })
    }
}

impl Fault for TrustManipulation {
    fn acts(&self) -> Vec<Act> {
        vec![Act::SetTrust(self.score)]
    }

    fn refuse(&self, now: &Observation) -> Option<String> {
        match now.trust {
            Some(present) if present <= self.score => {
                Some(format!("its score is {present}, and {} would not be less", self.score))
            }
            Some(_) => None,
            None => Some("its present trust score can't be read".to_owned()),
        }
    }

    fn acted(&self, _before: &Observation, now: &Observation) -> Seen {
        let in_force = now.trust_replaced.zip(now.trust).map(|(replaced, trust)| replaced && trust <= self.score);
        Seen::from(in_force)
    }

    fn restored(&self, _before: &Observation, now: &Observation) -> Seen {
        Seen::from(now.trust_replaced.map(|replaced| !replaced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_would_rise_is_refused() {
        let fault = TrustManipulation { score: 300 };
        let at = |trust| Observation { trust, ..Observation::default() };
        assert!(fault.refuse(&at(Some(250))).is_some());
        assert!(fault.refuse(&at(Some(300))).is_some());
        assert!(fault.refuse(&at(None)).is_some());
        assert!(fault.refuse(&at(Some(700))).is_none());
    }

    #[test]
    fn no_score_above_a_thousand() {
        assert!(TrustManipulation::new(&Parameters { score: Some(1001), ..Parameters::default() }).is_err());
    }
}
