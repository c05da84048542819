//! Takes copies of a key out of what passes.
//!
//! Upstreams reflect what they were sent: in errors, in debug fields, in echo services that were declared as models. The agent
//! must not learn the key from them. A copy may be cut between pieces anywhere, so the end of a piece that could be the beginning
//! of one waits for the next; nearly no piece ends so, and those pass untouched. A copy is overwritten with stars of the same
//! length: lengths that were announced stay true.

use bytes::{Bytes, BytesMut};
use std::fmt;
use std::sync::Arc;

/// What is looked for.
#[derive(Clone, Default)]
pub struct Needles {
    texts: Arc<[Needle]>,
}

struct Needle {
    text: Box<[u8]>,
    /// Horspool's table: how far to go on by the byte under the needle's end.
    skip: Box<[u16; 256]>,
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Needles({} hidden)", self.texts.len())
    }
}

impl Needles {
    /// The different ones of `texts`; empty ones are not looked for.
    pub fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let mut known: Vec<String> = Vec::new();
        for text in texts {
            if !text.is_empty() && text.len() <= usize::from(u16::MAX) && !known.contains(&text) {
                known.push(text);
            }
        }
        Self { texts: known.into_iter().map(|text| Needle::new(text.into_bytes().into())).collect() }
    }

    /// Overwrites every copy in `bytes`; none: there was none.
    pub(super) fn clean(&self, bytes: &[u8]) -> Option<BytesMut> {
        let mut cleaned: Option<BytesMut> = None;
        for needle in &*self.texts {
            let mut from = 0;
            while let Some(at) = needle.find(bytes, from) {
                cleaned.get_or_insert_with(|| BytesMut::from(bytes))[at..at + needle.text.len()].fill(b'*');
                from = at + 1;
            }
        }
        cleaned
    }

    /// How many bytes at the end of `bytes` could be the beginning of a copy.
    fn begun(&self, bytes: &[u8]) -> usize {
        self.texts.iter().map(|needle| needle.begun(bytes)).max().unwrap_or(0)
    }
}

impl Needle {
    fn new(text: Box<[u8]>) -> Self {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let mut skip = Box::new([length; 256]);
        for (at, byte) in (0u16..).zip(&text[..text.len() - 1]) {
            skip[usize::from(*byte)] = length - 1 - at;
        }
        Self { text, skip }
    }

    fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(window) = bytes.get(at..at + self.text.len()) {
            let last = window[window.len() - 1];
            // Nearly always that byte says no: the rest is compared only where it does not.
            if last == self.text[self.text.len() - 1] && *window == *self.text {
                return Some(at);
            }
            at += usize::from(self.skip[usize::from(last)]);
        }
        None
    }

    fn begun(&self, bytes: &[u8]) -> usize {
        let most = bytes.len().min(self.text.len() - 1);
        let tail = &bytes[bytes.len() - most..];
        let begins = |from: &usize| tail[*from] == self.text[0] && self.text.starts_with(&tail[*from..]);
        (0..most).find(begins).map_or(0, |from| most - from)
    }
}

/// Cleans one answer.
#[derive(Debug)]
pub struct Redactor {
    needles: Needles,
    waiting: BytesMut,
}

impl Redactor {
    /// Looks for `needles`.
    pub fn new(needles: Needles) -> Self {
        Self { needles, waiting: BytesMut::new() }
    }

    /// What of `bytes`, and of what waited, passes now.
    pub fn feed(&mut self, bytes: Bytes) -> Bytes {
        let mut bytes = bytes;
        if !self.waiting.is_empty() {
            self.waiting.extend_from_slice(&bytes);
            bytes = self.waiting.split().freeze();
        }
        if let Some(cleaned) = self.needles.clean(&bytes) {
            bytes = cleaned.freeze();
        }
        let waits = self.needles.begun(&bytes);
        if waits > 0 {
            self.waiting.extend_from_slice(&bytes.split_off(bytes.len() - waits));
        }
        bytes
    }

    /// Nothing more comes: what still waited is no copy.
    pub fn finish(&mut self) -> Bytes {
        // An empty buffer that is frozen would still be put on the heap.
        if self.waiting.is_empty() { Bytes::new() } else { self.waiting.split().freeze() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn run(needle: &str, pieces: &[&[u8]]) -> Vec<u8> {
        let mut redactor = Redactor::new(Needles::new([needle.to_owned()]));
        let mut out: Vec<u8> = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&redactor.feed(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&redactor.finish());
        out
    }

    #[test]
    fn a_copy_is_found_wherever_it_is_cut() {
        let text = b"data: {\"key\":\"sk-secret-0123\"}\n\nssk-secret-sk-secret-0123sk-secret";
        for first in 0..text.len() {
            for second in first..text.len() {
                let out = run("sk-secret-0123", &[&text[..first], &text[first..second], &text[second..]]);
                assert_eq!(out, b"data: {\"key\":\"**************\"}\n\nssk-secret-**************sk-secret");
            }
        }
    }

    #[test]
    fn a_piece_that_ends_harmlessly_passes_at_once_and_uncopied() {
        let mut redactor = Redactor::new(Needles::new(["sk-secret-0123".to_owned()]));
        let piece = Bytes::from_static(b"data: {\"x\":\"sk-\"}\n\n");
        let passed = redactor.feed(piece.clone());
        assert_eq!((passed.as_ptr(), passed.len()), (piece.as_ptr(), piece.len()));
    }

    proptest! {
        #[test]
        fn no_copy_passes_and_lengths_stay(
            pieces in prop::collection::vec("[ab]{0,6}", 0..20), needle in "[ab]{2,5}",
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            let whole = pieces.concat();
            let out = run(&needle, &pieces);
            prop_assert_eq!(out.len(), whole.len());
            prop_assert!(!out.windows(needle.len()).any(|window| window == needle.as_bytes()));
            let clean = !whole.windows(needle.len()).any(|window| window == needle.as_bytes());
            if clean {
                prop_assert_eq!(out, whole);
            }
        }
    }
}
