//! What a call took whose answer did not say so.
//!
//! A stream that was cut, by whichever side, was still generated and is billed. The truth is then unknown, and nothing would be a
//! way to get answers for free: read almost all of it, then hang up. The estimate leans to the dear side and never passes what
//! was reserved; a charge by estimate is flagged as one.

use super::Usage;
use std::time::Duration;

/// Bytes of text in a token, at most: English has four, code and other scripts fewer.
const BYTES_PER_TOKEN: u64 = 3;
/// Tokens that a model makes in a second while nothing of them is shown (hidden reasoning, a whole answer under way): a fast one.
const TOKENS_PER_SECOND: u128 = 200;

/// What was seen of an answer as it passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    events: u64,
    bytes: u64,
    /// The smallest event: what every event carries besides its text.
    smallest: u64,
}

impl Seen {
    /// An event with so many bytes of data passed.
    pub(super) fn event(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.smallest = if self.events == 0 { bytes } else { self.smallest.min(bytes) };
        self.events += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Bytes of a document passed.
    pub(super) fn document(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Events that passed.
    pub(super) fn looked(&self) -> u64 {
        self.events
    }

    /// Tokens that may have been in it: one an event at least, and one for so many bytes above the smallest event.
    fn tokens(&self) -> u64 {
        let text = self.bytes.saturating_sub(self.events.saturating_mul(self.smallest));
        self.events.saturating_add(text.div_ceil(BYTES_PER_TOKEN))
    }
}

/// An estimate of what was used.
///
/// `told` is what the answer said before it broke off; `request_bytes` the size of the request's body, `u64::MAX` where it says
/// nothing about the input; `unseen` how long the model
/// may have worked without showing anything; `most_input` and `most_output` what was reserved.
pub fn estimate(
    told: Option<Usage>,
    seen: &Seen,
    request_bytes: u64,
    unseen: Duration,
    (most_input, most_output): (u64, u64),
) -> Usage {
    let told = told.unwrap_or_default();
    let hidden = u64::try_from(unseen.as_millis() * TOKENS_PER_SECOND / 1_000).unwrap_or(u64::MAX);
    let output = seen.tokens().saturating_add(hidden).min(most_output).max(told.output);
    if told.input_total() > 0 {
        return Usage { output, ..told };
    }
    let input = request_bytes.div_ceil(BYTES_PER_TOKEN).min(most_input).max(1);
    Usage { input, output, ..Usage::default() }
}
