//! What a model call used, read from answers of the providers, plain and streamed.
//!
//! The providers count differently; here is one way: [`Usage::input`] is what was read fresh, cached parts stand beside it, and
//! output holds hidden reasoning. An answer is read as it passes ([`Reader`]): nothing is held back, memory is bounded whatever
//! comes, and fields that nobody has seen yet are skipped. Of a stream only those events are parsed that hold usage.

mod estimate;
mod reader;
mod scan;
mod shape;
mod sse;

pub use estimate::{Seen, estimate};
pub(crate) use reader::tells_usage;
pub use reader::{Reader, Report};
pub use sse::{EventCutter, EventFilter, Kept};

/// The shape in which an answer tells its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// OpenAI's Chat Completions, Completions and Embeddings.
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Gemini's generateContent and streamGenerateContent.
    Gemini,
}

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One JSON document (Gemini streams one array of them).
    Json,
    /// Server-sent events (WHATWG HTML, section 9.2).
    Events,
}

/// Tokens of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input read fresh: neither from a cache nor written to one.
    pub input: u64,
    /// Input read from the provider's cache.
    pub cached: u64,
    /// Input written to the provider's cache.
    pub cache_write: u64,
    /// Input written to the provider's cache for an hour.
    pub cache_write_long: u64,
    /// Output, hidden reasoning included.
    pub output: u64,
    /// How much of the output was hidden reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// All input, however it was charged: `gen_ai.usage.input_tokens` of OpenTelemetry.
    pub fn input_total(&self) -> u64 {
        [self.cached, self.cache_write, self.cache_write_long]
            .iter()
            .fold(self.input, |sum, part| sum.saturating_add(*part))
    }

    /// Input and output.
    pub fn total(&self) -> u64 {
        self.input_total().saturating_add(self.output)
    }
}

/// Gives the data of one server-sent event to `each`; none: it has none.
pub(crate) fn event_data<T>(event: &[u8], each: impl FnOnce(&[u8]) -> T) -> Option<T> {
    sse::with_data(event, each)
}
