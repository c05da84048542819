//! Limits as agent.yaml and the operator's file say them.

use crate::price::Money;
use schemars::JsonSchema;
use serde::Deserialize;

/// Limits of one agent, or of all agents of a ring together. What is left out is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSpec {
    /// Model calls a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, input and output.
    pub tokens_per_minute: Option<u64>,
    /// Model calls at the same time.
    pub concurrent: Option<u32>,
    /// Money.
    pub spend: SpendSpec,
}

/// Caps of money.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpendSpec {
    /// For the task at hand.
    pub task: Option<Money>,
    /// In any 60 minutes.
    pub hour: Option<Money>,
    /// In any 24 hours.
    pub day: Option<Money>,
}

impl LimitSpec {
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
