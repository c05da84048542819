//! Where each provider tells its usage, and how it counts.
//!
//! Sources: OpenAI API reference (`CompletionUsage`, `ResponseUsage`), Anthropic API reference (`Usage`, "Streaming Messages":
//! the counts of `message_delta` are cumulative), Gemini API reference (`UsageMetadata`: `promptTokenCount` holds the cached
//! part, `candidatesTokenCount` does not hold the thoughts). A count that is missing or null is 0; a negative or broken one makes
//! the whole usage unread, and the call is charged by estimate.

use super::{Shape, Usage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One piece of usage as a provider tells it; fields of all of them, for a gateway in between may mix them.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    // OpenAI's Chat Completions.
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    prompt_tokens_details: Option<Details>,
    #[serde(deserialize_with = "lenient")]
    completion_tokens_details: Option<Details>,
    // OpenAI's Responses and Anthropic's Messages.
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    input_tokens_details: Option<Details>,
    #[serde(deserialize_with = "lenient")]
    output_tokens_details: Option<Details>,
    // Anthropic alone.
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    cache_creation: Option<CacheCreation>,
    // Gemini.
    #[serde(rename = "promptTokenCount")]
    prompt: Option<u64>,
    #[serde(rename = "candidatesTokenCount")]
    candidates: Option<u64>,
    #[serde(rename = "cachedContentTokenCount")]
    cached_content: Option<u64>,
    #[serde(rename = "thoughtsTokenCount")]
    thoughts: Option<u64>,
    #[serde(rename = "toolUsePromptTokenCount")]
    tool_prompt: Option<u64>,
    #[serde(rename = "totalTokenCount")]
    total: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Option<u64>,
}

/// A part in a form that nobody has seen yet is skipped, so that it does not hide the counts beside it.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    // As bare JSON first: Serde would read a list as the fields in their order, too.
    let part = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(part.filter(|part| part.get().starts_with('{')).and_then(|part| serde_json::from_str(part.get()).ok()))
}

impl Told {
    /// Later counts over earlier ones: Anthropic tells the input first and the output last.
    pub(super) fn then(self, later: Self) -> Self {
        Self {
            prompt_tokens: later.prompt_tokens.or(self.prompt_tokens),
            completion_tokens: later.completion_tokens.or(self.completion_tokens),
            prompt_tokens_details: later.prompt_tokens_details.or(self.prompt_tokens_details),
            completion_tokens_details: later.completion_tokens_details.or(self.completion_tokens_details),
            input_tokens: later.input_tokens.or(self.input_tokens),
            output_tokens: later.output_tokens.or(self.output_tokens),
            input_tokens_details: later.input_tokens_details.or(self.input_tokens_details),
            output_tokens_details: later.output_tokens_details.or(self.output_tokens_details),
            cache_creation_input_tokens: later.cache_creation_input_tokens.or(self.cache_creation_input_tokens),
            cache_read_input_tokens: later.cache_read_input_tokens.or(self.cache_read_input_tokens),
            cache_creation: later.cache_creation.or(self.cache_creation),
            prompt: later.prompt.or(self.prompt),
            candidates: later.candidates.or(self.candidates),
            cached_content: later.cached_content.or(self.cached_content),
            thoughts: later.thoughts.or(self.thoughts),
            tool_prompt: later.tool_prompt.or(self.tool_prompt),
            total: later.total.or(self.total),
        }
    }

    /// The usage, if anything of it is told.
    pub(super) fn usage(&self, shape: Shape) -> Option<Usage> {
        match shape {
            Shape::Chat => self.chat(),
            Shape::Responses => self.responses(),
            Shape::Messages => self.messages(),
            Shape::Gemini => self.gemini(),
        }
    }

    fn chat(&self) -> Option<Usage> {
        self.prompt_tokens.or(self.completion_tokens)?;
        let (input, output) = (self.prompt_tokens.unwrap_or(0), self.completion_tokens.unwrap_or(0));
        Some(openai(input, output, self.prompt_tokens_details, self.completion_tokens_details))
    }

    fn responses(&self) -> Option<Usage> {
        self.input_tokens.or(self.output_tokens)?;
        let (input, output) = (self.input_tokens.unwrap_or(0), self.output_tokens.unwrap_or(0));
        Some(openai(input, output, self.input_tokens_details, self.output_tokens_details))
    }

    fn messages(&self) -> Option<Usage> {
        self.input_tokens.or(self.output_tokens)?;
        let written = self.cache_creation_input_tokens.unwrap_or(0);
        let long = self.cache_creation.and_then(|written| written.ephemeral_1h_input_tokens).unwrap_or(0);
        Some(Usage {
            input: self.input_tokens.unwrap_or(0),
            cached: self.cache_read_input_tokens.unwrap_or(0),
            cache_write: written.saturating_sub(long),
            cache_write_long: long,
            output: self.output_tokens.unwrap_or(0),
            reasoning: 0,
        })
    }

    fn gemini(&self) -> Option<Usage> {
        self.prompt.or(self.candidates).or(self.total)?;
        let cached = self.cached_content.unwrap_or(0);
        let prompt = self.prompt.unwrap_or(0);
        let thoughts = self.thoughts.unwrap_or(0);
        let tools = self.tool_prompt.unwrap_or(0);
        // Vertex says only the total of an answer that was blocked; what is in no other count is charged as output.
        let parts = [prompt, tools, self.candidates.unwrap_or(0), thoughts];
        let rest =
            self.total.unwrap_or(0).saturating_sub(parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part)));
        Some(Usage {
            input: prompt.saturating_sub(cached).saturating_add(tools),
            cached: cached.min(prompt),
            output: self.candidates.unwrap_or(0).saturating_add(thoughts).saturating_add(rest),
            reasoning: thoughts,
            ..Usage::default()
        })
    }
}

/// OpenAI counts cached and written tokens within the input, and reasoning within the output.
fn openai(input: u64, output: u64, input_details: Option<Details>, output_details: Option<Details>) -> Usage {
    let details = input_details.unwrap_or_default();
    let cached = details.cached_tokens.unwrap_or(0).min(input);
    let cache_write = details.cache_write_tokens.unwrap_or(0).min(input - cached);
    Usage {
        input: input - cached - cache_write,
        cached,
        cache_write,
        cache_write_long: 0,
        output,
        reasoning: output_details.unwrap_or_default().reasoning_tokens.unwrap_or(0).min(output),
    }
}
