//! What `ps` and `status` show of an agent's requests and of its model calls.

use agt_gateway::limit::Standing;
use agt_gateway::limit::spec::SpendSpec;
use agt_gateway::price::Money;
use serde::{Deserialize, Serialize};

use crate::driver::agent::Agent;

/// Requests of an agent, by whatever way they came, since somebody started it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestsStatus {
    /// So many a minute hold in its ring; `null` before its first launch.
    pub per_minute: Option<u64>,
    /// So many could be made at once now.
    pub left: Option<u64>,
    /// Let through.
    pub made: u64,
    /// Refused, for they were too many.
    pub throttled: u64,
    /// Under way in the gateway now; `null` without a way out.
    pub in_flight: Option<usize>,
}

/// Model calls of an agent, since the supervisor started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelsStatus {
    /// Calls that left and are over.
    pub calls: u64,
    /// Calls that were refused before they left.
    pub refused: u64,
    /// Of them, by a limit.
    pub throttled: u64,
    /// Under way now.
    pub in_flight: u32,
    /// Tokens of input, cached ones included.
    pub input_tokens: u64,
    /// Tokens of output, hidden reasoning included.
    pub output_tokens: u64,
    /// What calls under way can still cost, in US dollars.
    pub reserved_usd: f64,
    /// What was spent, as the caps count it: in the task, the last hour, the last day.
    pub spend: [SpendStatus; 3],
}

/// Money of one period.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpendStatus {
    /// `task`, `hour` or `day`.
    pub period: String,
    /// In US dollars.
    pub spent_usd: f64,
    /// Its cap; `null` without one.
    pub cap_usd: Option<f64>,
}

/// Calls and tokens, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::driver) struct Tally {
    pub(in crate::driver) calls: u64,
    pub(in crate::driver) refused: u64,
    pub(in crate::driver) throttled: u64,
    pub(in crate::driver) input_tokens: u64,
    pub(in crate::driver) output_tokens: u64,
}

#[expect(clippy::cast_precision_loss, reason = "an amount of money needs no more digits than a float has")]
fn usd(money: Money) -> f64 {
    money.nanos() as f64 / 1e9
}

impl ModelsStatus {
    pub(in crate::driver) fn new(tally: Tally, standing: &Standing, caps: &SpendSpec) -> ModelsStatus {
        let spend = |period: &str, spent: Money, cap: Option<Money>| SpendStatus {
            period: period.to_owned(),
            spent_usd: usd(spent),
            cap_usd: cap.map(usd),
        };
        let Tally { calls, refused, throttled, input_tokens, output_tokens } = tally;
        ModelsStatus {
            calls,
            refused,
            throttled,
            in_flight: standing.in_flight,
            input_tokens,
            output_tokens,
            reserved_usd: usd(standing.reserved),
            spend: [
                spend("task", standing.task, caps.task),
                spend("hour", standing.hour, caps.hour),
                spend("day", standing.day, caps.day),
            ],
        }
    }
}

impl Agent {
    pub(in crate::driver) fn requests_status(&self) -> RequestsStatus {
        let pace = self.rate.pace();
        RequestsStatus {
            per_minute: pace.per_minute,
            left: pace.left,
            made: pace.taken,
            throttled: pace.refused,
            in_flight: self.way_out.as_ref().map(|way| way.counts().in_flight),
        }
    }
}
