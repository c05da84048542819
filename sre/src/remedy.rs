//! What an SLO asks for when it goes wrong: which action on which trigger, and when it lets go again.
//!
//! This crate acts on nothing: an action is a word that the caller translates ("demote" may mean a ring, a replica or
//! a queue). A remedy speaks once when its trigger begins to hold and stays in force until the trigger has been quiet
//! for a while, so that a burn that comes and goes does not make an agent flap between two levels.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ratio::Ratio;
use crate::sli::Sli;

/// Budget that must be left before remedies of a spent budget let go.
pub const RELEASE_LEFT: Ratio = Ratio::percent(20);

/// How far above its own limit a budget must rise before a remedy `on: budget` lets go.
pub const RELEASE_MARGIN: Ratio = Ratio::percent(5);

/// What is to be done, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Tell somebody.
    Alert,
    /// Let it do less per minute. Not among the words of a file yet: nothing counts an agent's requests before the gateway
    /// does, and a remedy that does nothing must not be asked for.
    #[schemars(skip)]
    Throttle,
    /// Take privileges away.
    Demote,
    /// Open its circuit breaker: no new work.
    Break,
    /// Freeze it and cut it off.
    Quarantine,
    /// End it, verified.
    Kill,
}

impl Action {
    /// The word used in agent.yaml and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Throttle => "throttle",
            Self::Demote => "demote",
            Self::Break => "break",
            Self::Quarantine => "quarantine",
            Self::Kill => "kill",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a remedy waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// A ticket alert holds.
    Ticket,
    /// A page alert holds.
    Page,
    /// Less than this share of the budget is left.
    Budget(Ratio),
    /// The budget is spent.
    Exhausted,
    /// An absolute safety trip, whatever the ratio says.
    Trip,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticket => f.write_str("ticket"),
            Self::Page => f.write_str("page"),
            Self::Budget(below) => write!(f, "budget below {below}"),
            Self::Exhausted => f.write_str("exhausted"),
            Self::Trip => f.write_str("trip"),
        }
    }
}

/// One line of an SLO's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Remedy {
    /// When.
    pub on: Trigger,
    /// What.
    pub action: Action,
}

impl Remedy {
    /// What an SLO does that names no remedies. Safety may demote, break and kill; everything else only tells.
    pub fn defaults(sli: Sli) -> Vec<Self> {
        let alerts = [Trigger::Ticket, Trigger::Page, Trigger::Exhausted];
        let mut remedies: Vec<Self> = alerts.map(|on| Self { on, action: Action::Alert }).to_vec();
        if sli == Sli::Safety {
            remedies.push(Self { on: Trigger::Page, action: Action::Demote });
            remedies.push(Self { on: Trigger::Exhausted, action: Action::Demote });
            remedies.push(Self { on: Trigger::Exhausted, action: Action::Break });
            remedies.push(Self::TRIP);
        }
        remedies
    }

    /// What a safety SLO does on a trip unless its remedies name another action for it. An escape attempt must not go
    /// unanswered because somebody listed only the remedies they thought of.
    pub const TRIP: Self = Self { on: Trigger::Trip, action: Action::Kill };
}
