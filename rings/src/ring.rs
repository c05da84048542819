//! The four rings, by number. The number is the name: R0 is the most privileged, R3 the least.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A privilege ring. Compare with [`Ring::is_more_privileged_than`], not with `<`: a smaller number means more power,
/// which reads wrongly in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Ring {
    /// Host view and network, for what an operator attested.
    R0,
    /// Reads the system, writes what is declared, reaches the network through the supervisor.
    R1,
    /// An allow-list of everything: the ring for ordinary agents.
    R2,
    /// One program, no network, no children: where the unknown starts.
    R3,
}

impl Ring {
    /// All rings, most privileged first.
    pub const ALL: [Ring; 4] = [Ring::R0, Ring::R1, Ring::R2, Ring::R3];

    /// The ring's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Ring::R0 => 0,
            Ring::R1 => 1,
            Ring::R2 => 2,
            Ring::R3 => 3,
        }
    }

    /// The ring with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Ring> {
        Ring::ALL.get(usize::from(number)).copied()
    }

    /// Whether `self` holds strictly more power than `other`.
    #[must_use]
    pub fn is_more_privileged_than(self, other: Ring) -> bool {
        self.number() < other.number()
    }

    /// The less privileged of the two: how ceilings combine.
    #[must_use]
    pub fn least_privileged(self, other: Ring) -> Ring {
        if self.is_more_privileged_than(other) { other } else { self }
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{}", self.number())
    }
}

/// The text or number is not one of the four rings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown ring `{0}`: rings are 0, 1, 2 and 3 (0 the most privileged)")]
pub struct UnknownRing(pub String);

impl TryFrom<u8> for Ring {
    type Error = UnknownRing;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Ring::from_number(number).ok_or_else(|| UnknownRing(number.to_string()))
    }
}

impl From<Ring> for u8 {
    fn from(ring: Ring) -> u8 {
        ring.number()
    }
}

impl FromStr for Ring {
    type Err = UnknownRing;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(['R', 'r']).unwrap_or(text);
        digits.parse::<u8>().ok().and_then(Ring::from_number).ok_or_else(|| UnknownRing(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_privileged_never_widens() {
        for a in Ring::ALL {
            for b in Ring::ALL {
                let narrowed = a.least_privileged(b);
                assert!(!narrowed.is_more_privileged_than(a) && !narrowed.is_more_privileged_than(b));
            }
        }
    }

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        for ring in Ring::ALL {
            assert_eq!(ring.to_string().parse::<Ring>(), Ok(ring));
        }
        assert!("4".parse::<Ring>().is_err() && "".parse::<Ring>().is_err() && "R".parse::<Ring>().is_err());
    }
}
