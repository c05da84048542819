//! Limits as agent.yaml and the operator's file say them.

use crate::price::Money;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of one agent, or of all agents of a ring together. What is left out is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSpec {
    /// Model calls a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, input and output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub tokens_per_minute: Option<u64>,
    /// Model calls at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub concurrent: Option<u32>,
    /// Money.
    #[serde(skip_serializing_if = "SpendSpec::is_nothing")]
    pub spend: SpendSpec,
}

/// Caps of money.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpendSpec {
    /// For the task at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Money")]
    pub task: Option<Money>,
    /// In any 60 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Money")]
    pub hour: Option<Money>,
    /// In any 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Money")]
    pub day: Option<Money>,
}

impl SpendSpec {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl LimitSpec {
    /// Whether it limits nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The tighter of two in every line: an agent's own limits under the operator's.
    #[must_use]
    pub fn under(&self, ceiling: &Self) -> Self {
        fn tighter<T: Ord + Copy>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        Self {
            requests_per_minute: tighter(self.requests_per_minute, ceiling.requests_per_minute),
            tokens_per_minute: tighter(self.tokens_per_minute, ceiling.tokens_per_minute),
            concurrent: tighter(self.concurrent, ceiling.concurrent),
            spend: SpendSpec {
                task: tighter(self.spend.task, ceiling.spend.task),
                hour: tighter(self.spend.hour, ceiling.spend.hour),
                day: tighter(self.spend.day, ceiling.spend.day),
            },
        }
    }
}
