//! Server-sent events, found in bytes that pass by.
//!
//! Providers send whole events in a piece nearly always, so that is the quick way: nothing is copied. An event that is cut between
//! pieces is put together in a buffer with a bound; a larger one is passed on unread. Lines end with LF, CR LF or CR, an event
//! ends with an empty line (WHATWG HTML, section 9.2.6).

use bytes::{Bytes, BytesMut};

/// Longest event that is read: the last one of a Responses stream repeats the whole answer.
pub(super) const EVENT_BYTES_MAX: usize = 4 << 20;

/// Where the first event in `bytes` ends (behind its empty line), if it does. `from` is where to begin: what stands before holds
/// no end. A CR at the very end may still be followed by its LF: the event then waits.
fn event_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        let first = at + found;
        let after = line_end(bytes, first)?;
        match bytes.get(after) {
            Some(b'\n' | b'\r') => return line_end(bytes, after),
            _ => at = after,
        }
    }
    None
}

/// Behind the end of a line that begins at `at`.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    match (bytes[at], bytes.get(at + 1)) {
        (b'\n', _) => Some(at + 1),
        (b'\r', Some(b'\n')) => Some(at + 2),
        (b'\r', Some(_)) => Some(at + 1),
        // LF may follow; if it does not, the next piece shows it.
        _ => None,
    }
}

/// The values of an event's data lines.
fn data_lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    event.split(|b| matches!(b, b'\n' | b'\r')).filter_map(|line| {
        let value = line.strip_prefix(b"data:")?;
        Some(value.strip_prefix(b" ").unwrap_or(value))
    })
}

/// Gives the data of an event to `each`: borrowed where it is one line, joined by LF where it is several.
pub(super) fn with_data<T>(event: &[u8], each: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let mut lines = data_lines(event);
    let first = lines.next()?;
    match lines.next() {
        None => Some(each(first)),
        Some(second) => {
            let joined: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
            Some(each(&joined.join(&b'\n')))
        }
    }
}

/// Cuts bytes into events.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Of an event whose end has not come.
    partial: Vec<u8>,
    /// The event at hand is longer than is read.
    skipping: bool,
    /// The end of what is skipped: an end of event can be cut between pieces.
    skipped_tail: Vec<u8>,
}

impl Splitter {
    /// Calls `each` with every event that ends in `bytes`; what was too long is not shown.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        if self.skipping {
            self.skipped_tail.extend_from_slice(rest);
            let Some(end) = event_end(&self.skipped_tail, 0) else {
                let keep = self.skipped_tail.len().min(TAIL);
                self.skipped_tail.drain(..self.skipped_tail.len() - keep);
                return;
            };
            rest = &rest[rest.len() - (self.skipped_tail.len() - end)..];
            (self.skipping, self.skipped_tail) = (false, Vec::new());
        }
        if !self.partial.is_empty() {
            let known = self.partial.len();
            let room = EVENT_BYTES_MAX.saturating_sub(known);
            self.partial.extend_from_slice(&rest[..rest.len().min(room)]);
            match event_end(&self.partial, known.saturating_sub(TAIL)) {
                Some(end) => {
                    each(&self.partial[..end]);
                    rest = &rest[end - known..];
                    self.partial.clear();
                }
                None if rest.len() >= room => {
                    self.skip(rest);
                    return;
                }
                None => return,
            }
        }
        while let Some(end) = event_end(rest, 0) {
            each(&rest[..end]);
            rest = &rest[end..];
        }
        match rest.len() < EVENT_BYTES_MAX {
            true => self.partial.extend_from_slice(rest),
            false => self.skip(rest),
        }
        if self.partial.is_empty() {
            // Grown once for a large event, it need not stay.
            self.partial = Vec::new();
        }
    }

    fn skip(&mut self, rest: &[u8]) {
        let keep = rest.len().min(TAIL);
        (self.skipping, self.partial) = (true, Vec::new());
        self.skipped_tail = rest[rest.len() - keep..].to_vec();
    }

    /// What came after the last event that ended.
    pub(super) fn rest(&self) -> &[u8] {
        &self.partial
    }
}

/// Bytes that the end of an event can need: CR LF CR LF.
const TAIL: usize = 4;

/// Cuts a stream into its events, each handed on by itself once it is whole.
#[derive(Debug, Default)]
pub struct EventCutter {
    waiting: BytesMut,
    /// Before this there is no end: a long event that comes in small pieces is looked through once, not once a piece.
    looked: usize,
}

impl EventCutter {
    /// More of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next whole event; one that is too long to wait for comes in parts.
    pub fn next_event(&mut self) -> Option<Bytes> {
        match event_end(&self.waiting, self.looked) {
            Some(end) => {
                self.looked = 0;
                Some(self.waiting.split_to(end).freeze())
            }
            None if self.waiting.len() > EVENT_BYTES_MAX => Some(self.rest()),
            None => {
                self.looked = self.waiting.len().saturating_sub(TAIL);
                None
            }
        }
    }

    /// The stream is over: what came after its last event.
    pub fn rest(&mut self) -> Bytes {
        self.looked = 0;
        self.waiting.split().freeze()
    }
}

/// Whether an event is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Passed on.
    Yes,
    /// Taken out.
    No,
}

/// Takes events out of a stream. Bytes pass as they come; only the beginning of an event whose end has not come waits, which a
/// client could not use before anyway, and that within a bound.
#[derive(Debug, Default)]
pub struct EventFilter {
    partial: BytesMut,
    /// Before this there is no end in `partial`.
    looked: usize,
    /// The event at hand is longer than is held: it passes.
    passing: bool,
}

impl EventFilter {
    /// What of `bytes`, and of what waited, passes now.
    pub fn feed(&mut self, bytes: Bytes, mut judge: impl FnMut(&[u8]) -> Kept) -> Bytes {
        let mut bytes = bytes;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(&bytes);
            let is_short = self.partial.len() <= EVENT_BYTES_MAX && !self.passing;
            if is_short && event_end(&self.partial, self.looked).is_none() {
                // A long event in small pieces is neither copied nor looked through once a piece.
                self.looked = self.partial.len().saturating_sub(TAIL);
                return Bytes::new();
            }
            bytes = self.partial.split().freeze();
        }
        let looked = std::mem::take(&mut self.looked);
        let (mut from, mut start) = (0, 0);
        let mut passed: Option<BytesMut> = None;
        while let Some(end) = event_end(&bytes, from.max(looked)) {
            let judged = if std::mem::take(&mut self.passing) { Kept::Yes } else { judge(&bytes[from..end]) };
            if judged == Kept::No {
                passed.get_or_insert_default().extend_from_slice(&bytes[start..from]);
                start = end;
            }
            from = end;
        }
        let waits = bytes.len() - from;
        let until = if self.passing || waits > EVENT_BYTES_MAX {
            self.passing = waits > 0;
            // The end of an event may be cut: its first half waits.
            let held = bytes[from..].iter().rev().take(TAIL).take_while(|b| matches!(b, b'\n' | b'\r')).count();
            bytes.len() - held
        } else {
            from
        };
        self.partial.extend_from_slice(&bytes[until..]);
        if !self.passing {
            self.looked = self.partial.len().saturating_sub(TAIL);
        }
        match passed {
            None => bytes.slice(start..until),
            Some(mut passed) => {
                passed.extend_from_slice(&bytes[start..until]);
                passed.freeze()
            }
        }
    }

    /// Nothing more comes: what still waited.
    pub fn finish(&mut self) -> Bytes {
        self.looked = 0;
        self.partial.split().freeze()
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
