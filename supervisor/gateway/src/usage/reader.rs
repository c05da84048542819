//! Reads usage out of an answer that passes by.

use super::scan::Scanner;
use super::shape::Told;
use super::sse::{Splitter, with_data};
use super::{Framing, Seen, Shape, Usage};
use serde::Deserialize;
use std::borrow::Cow;

/// Longest name of a model that is kept.
const MODEL_BYTES_MAX: usize = 256;

/// What an answer said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its usage as far as it came.
    pub usage: Option<Usage>,
    /// Whether that is all: an answer can tell its input at the beginning and be cut before it tells its output.
    pub complete: bool,
    /// The model that answered.
    pub model: Option<String>,
    /// What passed, for an estimate.
    pub seen: Seen,
}

/// Reads one answer. Memory is bounded by the longest event that is read; nothing that passes can make it fail.
#[derive(Debug)]
pub struct Reader {
    shape: Shape,
    source: Source,
    seen: Seen,
}

#[derive(Debug)]
enum Source {
    Json(Scanner),
    Events { splitter: Splitter, told: Box<Found> },
}

/// What events told so far.
#[derive(Debug, Default)]
struct Found {
    usage: Option<Told>,
    /// The last word on usage was said.
    last: bool,
    model: Option<String>,
}

/// The parts of any provider's event that are read.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(default)]
    usage: Option<Told>,
    #[serde(default, rename = "usageMetadata")]
    metadata: Option<Told>,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(default, borrow, rename = "modelVersion")]
    version: Option<Cow<'a, str>>,
    /// Anthropic's message_start.
    #[serde(default, borrow)]
    message: Option<Inner<'a>>,
    /// OpenAI's response.created and response.completed.
    #[serde(default, borrow)]
    response: Option<Inner<'a>>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(default)]
    usage: Option<Told>,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
}

impl Reader {
    /// For an answer of `shape` that comes as `framing`.
    pub fn new(shape: Shape, framing: Framing) -> Self {
        let source = match framing {
            Framing::Json => Source::Json(Scanner::new(&["usage", "usageMetadata", "model", "modelVersion"])),
            Framing::Events => Source::Events { splitter: Splitter::default(), told: Box::default() },
        };
        Self { shape, source, seen: Seen::default() }
    }

    /// The next bytes of the answer's body, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        match &mut self.source {
            Source::Json(scanner) => {
                scanner.feed(bytes);
                self.seen.document(bytes.len());
            }
            Source::Events { splitter, told } => {
                let (shape, seen) = (self.shape, &mut self.seen);
                splitter.feed(bytes, |event| {
                    with_data(event, |data| told.read(data, shape, seen));
                });
            }
        }
    }

    /// The answer is over: `whole` if it ended by itself.
    pub fn finish(self, whole: bool) -> Report {
        match self.source {
            Source::Json(scanner) => {
                let told = scanner.value("usage").or(scanner.value("usageMetadata"));
                // Serde would read a list as the fields in their order.
                let told = told.filter(|json| json.trim_ascii_start().starts_with(b"{"));
                let told: Option<Told> = told.and_then(|json| serde_json::from_slice(json).ok());
                let model = scanner.value("model").or(scanner.value("modelVersion"));
                let model = model.and_then(|json| serde_json::from_slice(json).ok());
                let usage = told.and_then(|told| told.usage(self.shape));
                Report { complete: whole && usage.is_some(), usage, model: model.and_then(short), seen: self.seen }
            }
            Source::Events { splitter, mut told } => {
                let mut seen = self.seen;
                // The last event of a stream that ends without an empty line.
                with_data(splitter.rest(), |data| told.read(data, self.shape, &mut seen));
                let usage = told.usage.and_then(|told| told.usage(self.shape));
                // Gemini counts on in each event: only its end tells that the last count was the last.
                let complete = usage.is_some() && if self.shape == Shape::Gemini { whole } else { told.last };
                Report { usage, complete, model: told.model.and_then(short), seen }
            }
        }
    }
}

impl Found {
    fn read(&mut self, data: &[u8], shape: Shape, seen: &mut Seen) {
        if data == b"[DONE]" {
            return;
        }
        seen.event(data.len());
        let Ok(text) = std::str::from_utf8(data) else { return };
        let worth = match shape {
            Shape::Gemini => text.contains("\"usageMetadata\""),
            _ => tells_usage(text),
        };
        if !worth && self.model.is_some() {
            return;
        }
        let Ok(event) = serde_json::from_str::<Event<'_>>(text) else { return };
        let (mut usage, mut model) = (event.usage.or(event.metadata), event.model.or(event.version));
        // What message_start tells is the beginning; all else is the last word of its kind.
        let begins = event.message.is_some();
        for inner in [event.message, event.response].into_iter().flatten() {
            usage = usage.or(inner.usage);
            model = model.or(inner.model);
        }
        if let Some(model) = model.and_then(|model| short(model.into_owned())) {
            self.model = Some(model);
        } else if self.model.is_none() {
            // It has none; to look for it in every event would be to parse them all.
            self.model = (seen.looked() >= EVENTS_WITHOUT_MODEL).then(String::new);
        }
        if let Some(usage) = usage {
            self.usage = Some(self.usage.map_or(usage, |earlier| earlier.then(usage)));
            self.last |= !begins;
        }
    }
}

/// Events that are parsed in search of a model's name.
const EVENTS_WITHOUT_MODEL: u64 = 4;

/// Whether `"usage"` stands in an event as a field that is not null: OpenAI sends a null one in each.
pub(crate) fn tells_usage(text: &str) -> bool {
    if !text.contains("\"usage\"") {
        return false;
    }
    text.match_indices("\"usage\"").any(|(at, name)| {
        let after = text[at + name.len()..].trim_start();
        after.strip_prefix(':').is_some_and(|value| value.trim_start().starts_with('{'))
    })
}

fn short(model: String) -> Option<String> {
    (!model.is_empty() && model.len() <= MODEL_BYTES_MAX).then_some(model)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
