//! What model calls are counted as, in the names that OpenTelemetry's conventions for generative AI give them where they have one
//! (`gen_ai.client.token.usage` and its like; what they have no name for begins with `agt_`).
//!
//! The model of a call is the agent's own word, so its label is not: models that the price table knows are told apart, up to
//! [`MODELS_MAX`] of them; all others are `unknown` or `other`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agt_gateway::price::{Known, Money};
use agt_gateway::route::{Basis, Call, Outcome};

use super::names::{self, Metric};
use super::sample::Sample;
use super::{Telemetry, counter, histogram};

/// Most models that have series of their own.
const MODELS_MAX: usize = 50;
/// The model of a call that names none that the price table knows.
const UNKNOWN: &str = "unknown";
/// The model of a call that comes after [`MODELS_MAX`] others.
const OTHER: &str = "other";

/// What grows and has fractions, or needs a bound of its own.
#[derive(Debug, Default)]
pub(super) struct Models {
    named: Mutex<BTreeSet<String>>,
    spent: Mutex<BTreeMap<Payer, Money>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Payer {
    agent: String,
    provider: &'static str,
    model: String,
    price: &'static str,
}

impl Models {
    fn label(&self, call: &Call) -> String {
        if call.model.is_empty() || call.known == Known::Unknown {
            return UNKNOWN.to_owned();
        }
        // Listed names can be many as well: an entry of the table stands for every name that begins so.
        let short: String = call.model.chars().take(80).collect();
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= MODELS_MAX && !named.contains(&short) {
            return OTHER.to_owned();
        }
        named.insert(short.clone());
        short
    }

    pub(super) fn sample(&self, into: &mut Sample) {
        for (payer, spent) in &*self.spent.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = [
                ("agent", payer.agent.as_str()),
                ("gen_ai_provider_name", payer.provider),
                ("gen_ai_request_model", payer.model.as_str()),
                ("price", payer.price),
            ];
            #[expect(clippy::cast_precision_loss, reason = "a sum of money needs no more digits than a float has")]
            into.set(&names::MODEL_COST, &labels, spent.nanos() as f64 / 1e9);
        }
    }
}

impl Telemetry {
    /// A model call is over.
    pub(crate) fn called(&self, agent: &str, call: &Call) {
        let (provider, model) = (call.provider.name(), self.inner.models.label(call));
        let recorder = &self.inner.recorder;
        let counted = self.of(agent, |_| {
            let labels = [
                ("agent", agent),
                ("gen_ai_provider_name", provider),
                ("basis", basis(call.basis)),
                ("outcome", outcome(call.outcome)),
            ];
            counter(recorder, &names::MODEL_CALLS, &labels).increment(1);
            let whole = [
                ("agent", agent),
                ("gen_ai_operation_name", call.endpoint.operation()),
                ("gen_ai_provider_name", provider),
                ("gen_ai_request_model", model.as_str()),
            ];
            let took = |metric: &Metric, took: Duration| histogram(recorder, metric, &whole).record(took.as_secs_f64());
            took(&names::MODEL_DURATION, call.total);
            if let Some(first) = call.first_byte {
                took(&names::MODEL_FIRST, first);
            }
            let tokens = [("input", call.usage.input_total()), ("output", call.usage.output)];
            for (kind, tokens) in tokens.into_iter().filter(|_| call.basis != Basis::Nothing) {
                let [agent, operation, provider, model] = whole;
                let labels = [agent, operation, provider, model, ("gen_ai_token_type", kind)];
                #[expect(clippy::cast_precision_loss, reason = "tokens stay far below 2^53")]
                histogram(recorder, &names::MODEL_TOKENS, &labels).record(tokens as f64);
            }
        });
        if counted.is_none() || call.cost.is_zero() {
            return;
        }
        let price = if call.known == Known::Unknown { "unknown" } else { "listed" };
        let payer = Payer { agent: agent.to_owned(), provider, model, price };
        let mut spent = self.inner.models.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = spent.entry(payer).or_default();
        *sum = sum.plus(call.cost);
    }

    /// A model call was refused before it left.
    pub(crate) fn model_refused(&self, agent: &str, reason: &str) {
        let labels = [("agent", agent), ("reason", reason)];
        self.of(agent, |_| counter(&self.inner.recorder, &names::MODEL_REFUSALS, &labels).increment(1));
    }

    /// It has a way out: what may be counted of it begins at nothing, since Prometheus sees no increase in a series that is born with
    /// its first event.
    pub(crate) fn opened(&self, agent: &str) {
        let recorder = &self.inner.recorder;
        self.of(agent, |_| {
            let zero = |metric: &'static Metric, label: &'static str, words: &[&str]| {
                words.iter().for_each(|word| drop(counter(recorder, metric, &[("agent", agent), (label, *word)])));
            };
            zero(&names::NETWORK_DENIALS, "reason", &names::NETWORK_REASONS);
            zero(&names::NETWORK_BYTES, "direction", &["out", "in"]);
            zero(&names::THROTTLED, "limit", &THROTTLES);
            zero(&names::MODEL_REFUSALS, "reason", &REFUSALS);
            drop(counter(recorder, &names::NETWORK_WAITED, &[("agent", agent)]));
        });
    }

    /// A limit refused it something: `limit` is one of [`THROTTLES`].
    pub(crate) fn throttled(&self, agent: &str, limit: &str, times: u64) {
        let labels = [("agent", agent), ("limit", limit)];
        self.of(agent, |_| counter(&self.inner.recorder, &names::THROTTLED, &labels).increment(times));
    }

    /// Sorts what was observed into buckets, so that nothing grows where nobody scrapes.
    pub(crate) fn settle(&self) {
        self.inner.handle.run_upkeep();
    }
}

fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Reported => "reported",
        Basis::Estimated => "estimated",
        Basis::Nothing => "nothing",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Whole => "complete",
        Outcome::HungUp => "hung-up",
        Outcome::Failed(trouble) => trouble.word(),
    }
}

/// All providers' names.
pub(super) const PROVIDERS: [&str; 3] = ["openai", "anthropic", "gcp.gemini"];
/// As `agt_gateway::route::Endpoint::operation` has them.
pub(super) const OPERATIONS: [&str; 6] =
    ["chat", "text_completion", "embeddings", "generate_content", "count_tokens", "other"];
/// As [`basis`] has them.
pub(super) const BASES: [&str; 3] = ["reported", "estimated", "nothing"];
/// As [`outcome`] has them.
pub(super) const OUTCOMES: [&str; 11] = [
    "complete",
    "hung-up",
    "invalid",
    "own-key",
    "not-allowed",
    "too-large",
    "rate-limited",
    "spend-cap",
    "busy",
    "upstream",
    "stalled",
];
/// Why a call is refused: by a limit's word, or by what is wrong with it.
pub(super) const REFUSALS: [&str; 13] = [
    "requests-per-minute",
    "tokens-per-minute",
    "concurrent",
    "spend-task",
    "spend-hour",
    "spend-day",
    "invalid",
    "own-key",
    "not-allowed",
    "too-large",
    "busy",
    "upstream",
    "stalled",
];

/// What refuses without a rule's no: the agent's rate, and the limits of model calls.
pub(super) const THROTTLES: [&str; 7] = [
    "requests",
    "model-requests-per-minute",
    "model-tokens-per-minute",
    "model-concurrent",
    "model-spend-task",
    "model-spend-hour",
    "model-spend-day",
];

#[cfg(test)]
mod tests {
    use agt_gateway::route::{Endpoint, Provider};

    use super::*;

    #[test]
    fn the_words_of_labels_are_those_that_the_gateway_has() {
        for provider in [Provider::OpenAi, Provider::Anthropic, Provider::Gemini] {
            assert!(PROVIDERS.contains(&provider.name()));
        }
        for endpoint in [
            Endpoint::Chat,
            Endpoint::Completions,
            Endpoint::Responses,
            Endpoint::Embeddings,
            Endpoint::Messages,
            Endpoint::Generate,
            Endpoint::StreamGenerate,
            Endpoint::Embed,
            Endpoint::Count,
            Endpoint::Free,
        ] {
            assert!(OPERATIONS.contains(&endpoint.operation()), "{endpoint:?}");
        }
    }
}
