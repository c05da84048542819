//! The effective ring of a launch: the least privileged of what the file, trust and the SLOs allow. Pure.
//!
//! Every launch below the ceiling carries its reason and the one command that changes it: an agent that silently starts with
//! less than its file asks for is debugged for hours.

use agt_rings::Ring;
use agt_sre::trust::Score;

/// The score that a ring needs.
#[must_use]
pub fn needs(ring: Ring) -> Score {
    let points = match ring {
        Ring::R0 => 950,
        Ring::R1 => 800,
        Ring::R2 => 600,
        Ring::R3 => 0,
    };
    Score::new(points).expect("all of them are 1000 or less")
}

/// The most privileged ring that a score alone reaches.
#[must_use]
pub fn of_score(score: Score) -> Ring {
    Ring::ALL.into_iter().find(|ring| score >= needs(*ring)).unwrap_or(Ring::R3)
}

/// The next less privileged ring; R3 has none.
#[must_use]
pub fn below(ring: Ring) -> Option<Ring> {
    Ring::from_number(ring.number() + 1)
}

/// Whether an operator attests this very plan and program now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested {
    /// Yes.
    Yes,
    /// No, and why not.
    No(&'static str),
}

/// What a choice depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// What agent.yaml asks for and the operator's file allows.
    pub ceiling: Ring,
    /// The trust score now.
    pub score: Score,
    /// For R0.
    pub attested: Attested,
    /// What an SLO has taken it down to, and which one.
    pub demoted: Option<(Ring, String)>,
}

/// A ring, and why it isn't the ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Choice {
    /// The effective ring.
    pub ring: Ring,
    /// The rule that binds; `None` at the ceiling.
    pub rule: Option<Rule>,
}

/// A rule that keeps an agent below its ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The score is too low.
    Trust {
        /// The score.
        score: Score,
    },
    /// R0 without a valid attestation.
    Attestation {
        /// What is wrong with the one there is.
        why: &'static str,
    },
    /// An SLO has demoted it.
    Slo {
        /// Which one.
        slo: String,
    },
}

/// Chooses.
pub fn choose(inputs: &Inputs) -> Choice {
    let mut choice = Choice { ring: inputs.ceiling, rule: None };
    let mut narrow = |ring: Ring, rule: Rule| {
        if choice.ring.is_more_privileged_than(ring) {
            choice = Choice { ring, rule: Some(rule) };
        }
    };
    narrow(of_score(inputs.score), Rule::Trust { score: inputs.score });
    if let Attested::No(why) = inputs.attested {
        narrow(Ring::R1, Rule::Attestation { why });
    }
    if let Some((ring, slo)) = &inputs.demoted {
        narrow(*ring, Rule::Slo { slo: slo.clone() });
    }
    choice
}

impl Choice {
    /// The one line for whoever starts it: rule, score, command.
    #[must_use]
    pub fn line(&self, name: &str, ceiling: Ring) -> Option<String> {
        let ring = self.ring;
        let why = match self.rule.as_ref()? {
            Rule::Trust { score } => {
                let need = needs(ceiling);
                let and = match ceiling {
                    Ring::R0 => format!(", and `agt-supervise attest {name} --reason \"...\" --ttl 1h` has to follow"),
                    _ => String::new(),
                };
                format!(
                    "its trust is {score} and {ceiling} needs {need}; `agt-supervise trust set {name} {need} --reason \"...\"` changes that{and}"
                )
            }
            Rule::Attestation { why } => format!(
                "R0 needs an operator's attestation ({why}); `agt-supervise attest {name} --reason \"...\" --ttl 1h` makes one"
            ),
            Rule::Slo { slo } => format!(
                "its SLO {slo} has demoted it; it returns at a start after the budget has recovered (`agt-supervise slo {name} --explain`)"
            ),
        };
        Some(format!("{name} starts in {ring}, not {ceiling}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn inputs(ceiling: Ring, score: u16) -> Inputs {
        Inputs { ceiling, score: Score::new(score).unwrap(), attested: Attested::No("none was made"), demoted: None }
    }

    #[test]
    fn thresholds_pick_the_ring() {
        for (score, ring) in [(1000, Ring::R1), (800, Ring::R1), (799, Ring::R2), (600, Ring::R2), (599, Ring::R3)] {
            assert_eq!(choose(&inputs(Ring::R0, score)).ring, ring, "{score}");
        }
        let attested = Inputs { attested: Attested::Yes, ..inputs(Ring::R0, 950) };
        assert_eq!(choose(&attested), Choice { ring: Ring::R0, rule: None });
        assert_eq!(choose(&Inputs { attested: Attested::Yes, ..inputs(Ring::R0, 949) }).ring, Ring::R1);
    }

    #[test]
    fn a_launch_below_the_ceiling_names_rule_score_and_command() {
        let line = choose(&inputs(Ring::R1, 700)).line("billing", Ring::R1).unwrap();
        assert_eq!(
            line,
            "billing starts in R2, not R1: its trust is 700 and R1 needs 800; `agt-supervise trust set billing 800 --reason \"...\"` changes that"
        );
        assert_eq!(choose(&inputs(Ring::R2, 700)).line("billing", Ring::R2), None);
    }

    proptest! {
        #[test]
        fn nothing_lifts_a_launch_above_any_of_its_bounds(
            ceiling in 0u8..4, score in 0u16..=1000, demoted in prop::option::of(0u8..4), attested: bool,
        ) {
            let ring = |n| Ring::from_number(n).unwrap();
            let inputs = Inputs {
                ceiling: ring(ceiling),
                score: Score::new(score).unwrap(),
                attested: if attested { Attested::Yes } else { Attested::No("none was made") },
                demoted: demoted.map(|n| (ring(n), "safety".to_owned())),
            };
            let chosen = choose(&inputs);
            prop_assert!(!chosen.ring.is_more_privileged_than(inputs.ceiling));
            prop_assert!(inputs.score >= needs(chosen.ring));
            prop_assert!(chosen.ring != Ring::R0 || attested);
            if let Some((bound, _)) = inputs.demoted {
                prop_assert!(!chosen.ring.is_more_privileged_than(bound));
            }
            prop_assert_eq!(chosen.rule.is_none(), chosen.ring == inputs.ceiling);
        }
    }
}
