//! What an agent asks and what its model calls cost, in words: for `ps` and `status`.

use agt_gateway::price::Money;

use crate::driver::status::AgentStatus;
use crate::driver::status::metered::{ModelsStatus, RequestsStatus, SpendStatus};

/// `12`, `12 (3 refused)`.
pub(super) fn requests(agent: &AgentStatus) -> String {
    let RequestsStatus { made, throttled, .. } = agent.requests;
    if throttled == 0 { made.to_string() } else { format!("{made} ({throttled} refused)") }
}

/// `$0.02/$20.00`: of the last day and its cap; `-` without model routes.
pub(super) fn spent(agent: &AgentStatus) -> String {
    let day = agent.models.as_ref().map(|models| &models.spend[2]);
    day.map_or_else(
        || "-".to_owned(),
        |day| match day.cap_usd {
            Some(cap) => format!("{}/{}", dollars(day.spent_usd), dollars(cap)),
            None => dollars(day.spent_usd),
        },
    )
}

/// The lines of `status`.
pub(super) fn lines(agent: &AgentStatus) -> String {
    let requests = &agent.requests;
    let mut text = format!("  requests: {} made, {} refused", requests.made, requests.throttled);
    if let Some(under_way) = requests.in_flight {
        text.push_str(&format!(", {under_way} under way"));
    }
    match (requests.per_minute, requests.left) {
        (Some(most), Some(left)) => text.push_str(&format!("; {most} a minute, {left} left\n")),
        _ => text.push('\n'),
    }
    if let Some(models) = &agent.models {
        text.push_str(&of_models(models));
    }
    text
}

fn of_models(models: &ModelsStatus) -> String {
    let ModelsStatus { calls, refused, in_flight, input_tokens, output_tokens, reserved_usd, spend, .. } = models;
    let reserved = match *reserved_usd > 0.0 {
        true => format!("   (up to {} more under way)", dollars(*reserved_usd)),
        false => String::new(),
    };
    let spent: Vec<String> = spend.iter().map(of_period).collect();
    format!(
        "  models: {calls} calls, {refused} refused, {in_flight} under way; {input_tokens} tokens in, {output_tokens} out\n  \
         spent: {}{reserved}\n",
        spent.join(", ")
    )
}

fn of_period(spend: &SpendStatus) -> String {
    let when = match spend.period.as_str() {
        "task" => "in this task".to_owned(),
        period => format!("in the last {period}"),
    };
    match spend.cap_usd {
        Some(cap) => format!("{} of {} {when}", dollars(spend.spent_usd), dollars(cap)),
        None => format!("{} {when}", dollars(spend.spent_usd)),
    }
}

/// As amounts of money are written everywhere.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was billionths before it was a float; a cast stops at the ends"
)]
fn dollars(usd: f64) -> String {
    Money::from_nanos((usd * 1e9).round() as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spending_is_said_with_its_caps_and_none_where_there_is_none() {
        let period = |period: &str, spent_usd, cap_usd| SpendStatus { period: period.to_owned(), spent_usd, cap_usd };
        let models = ModelsStatus {
            calls: 3,
            refused: 1,
            input_tokens: 3000,
            output_tokens: 1500,
            reserved_usd: 0.25,
            spend: [period("task", 0.0225, Some(0.05)), period("hour", 0.0225, None), period("day", 1.5, Some(20.0))],
            ..ModelsStatus::default()
        };
        assert_eq!(
            of_models(&models),
            "  models: 3 calls, 1 refused, 0 under way; 3000 tokens in, 1500 out\n  spent: $0.0225 of $0.05 in this task, \
             $0.0225 in the last hour, $1.50 of $20.00 in the last day   (up to $0.25 more under way)\n"
        );
    }
}
