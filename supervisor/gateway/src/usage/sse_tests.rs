//! Events cut in every place.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn filtered(pieces: &[&[u8]]) -> Vec<u8> {
    let mut filter = EventFilter::default();
    let judge = |event: &[u8]| if event.windows(4).any(|w| w == b"DROP") { Kept::No } else { Kept::Yes };
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&filter.feed(Bytes::copy_from_slice(piece), judge));
    }
    out.extend_from_slice(&filter.finish());
    out
}

#[test]
fn an_event_is_taken_out_wherever_it_is_cut() {
    for ending in ["\n", "\r\n", "\r"] {
        let text = "data: a\n\ndata: DROP\n\nid: 4\ndata: b\n\ndata: DROP\n\ndata: [DONE]\n\n".replace('\n', ending);
        let left = "data: a\n\nid: 4\ndata: b\n\ndata: [DONE]\n\n".replace('\n', ending);
        for first in 0..text.len() {
            for second in first..text.len() {
                let bytes = text.as_bytes();
                let out = filtered(&[&bytes[..first], &bytes[first..second], &bytes[second..]]);
                assert_eq!(String::from_utf8(out).unwrap(), left, "{first} {second} {ending:?}");
            }
        }
    }
}

#[test]
fn whole_events_pass_at_once_and_uncopied() {
    let mut filter = EventFilter::default();
    let piece = Bytes::from_static(b"data: a\n\ndata: b\n\n");
    let passed = filter.feed(piece.clone(), |_| Kept::Yes);
    assert_eq!((passed.as_ptr(), passed.len()), (piece.as_ptr(), piece.len()));
}

#[test]
fn a_huge_event_passes_in_bounded_memory_and_the_next_is_judged() {
    let mut filter = EventFilter::default();
    let mut out = filter.feed(Bytes::from_static(b"data: DROP"), |_| Kept::No).len();
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..9 {
        out += filter.feed(piece.clone(), |_| Kept::No).len();
        assert!(filter.partial.len() <= EVENT_BYTES_MAX + (1 << 20));
    }
    out += filter.feed(Bytes::from_static(b"\n"), |_| Kept::No).len();
    out += filter.feed(Bytes::from_static(b"\ndata: y\n\n"), |_| Kept::No).len();
    assert_eq!(out, 10 + (9 << 20) + 2);
}

proptest! {
    /// Nothing is lost, doubled or changed where nothing is taken out.
    #[test]
    fn what_is_kept_stays_as_it_was(pieces in prop::collection::vec("[a:\n\r ]{0,8}", 0..30)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        prop_assert_eq!(filtered(&pieces), pieces.concat());
    }

    /// The splitter finds the same events however the stream is cut.
    #[test]
    fn events_do_not_depend_on_the_cut(text in "(data: [ab]{0,3}|\n|\r\n|x){0,20}", cut in 1usize..9) {
        let split = |cut: usize| {
            let (mut splitter, mut events) = (Splitter::default(), Vec::new());
            for piece in text.as_bytes().chunks(cut) {
                splitter.feed(piece, |event| events.push(event.to_vec()));
            }
            (events, splitter.rest().to_vec())
        };
        prop_assert_eq!(split(cut), split(usize::MAX));
    }
}
