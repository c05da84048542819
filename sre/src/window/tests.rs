#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::sli::Counts;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

const GOOD: Counts = Counts { good: 1, bad: 0, claimed: 0 };
const BAD: Counts = Counts { good: 0, bad: 1, claimed: 0 };

/// Events one by one, counted the slow way.
fn naive(events: &[(u64, Counts)], keep: impl Fn(u64) -> bool) -> Counts {
    events.iter().filter(|(time, _)| keep(*time)).fold(Counts::default(), |sum, (_, counted)| sum.plus(*counted))
}

#[test]
fn an_event_leaves_the_window_after_its_length_and_within_one_bucket_more() {
    let mut windows = Windows::new([(Duration::from_secs(60), 6)]);
    windows.add(at(5_000), BAD);
    assert_eq!(windows.sum(0, at(64_999)), BAD, "inside");
    assert_eq!(windows.sum(0, at(69_999)), BAD, "the last millisecond of the oldest bucket");
    assert_eq!(windows.sum(0, at(70_000)), Counts::default(), "gone");
    assert_eq!(windows.total(), BAD, "the running total never forgets");
}

#[test]
fn a_jump_of_years_empties_the_window_in_bounded_time() {
    let mut windows = Windows::new([(Duration::from_secs(60), 60)]);
    windows.add(at(0), BAD);
    windows.add(at(u64::MAX / 2), GOOD);
    assert_eq!(windows.sum(0, at(u64::MAX / 2)), GOOD);
    windows.add(at(u64::MAX), GOOD);
    assert_eq!(windows.sum(0, at(u64::MAX)), GOOD);
}

#[test]
fn reading_in_the_past_of_the_ring_reads_its_present() {
    let mut windows = Windows::new([(Duration::from_secs(60), 6)]);
    windows.add(at(100_000), BAD);
    assert_eq!(windows.sum(0, at(1)), BAD);
}

#[test]
fn damaged_buckets_are_told_from_sound_ones() {
    let total = Counts { good: 2, bad: 1, claimed: 0 };
    let bucket = |start_ms, counted| Bucket { start_ms, counted };
    let ok = [bucket(10, GOOD), bucket(20, BAD)];
    assert!(buckets_are_sound(&ok, total, at(20)));
    assert!(!buckets_are_sound(&ok, total, at(19)), "from the future");
    assert!(!buckets_are_sound(&[ok[1], ok[0]], total, at(20)), "out of order");
    assert!(!buckets_are_sound(&[bucket(10, Counts { good: 3, ..GOOD })], total, at(20)), "more than the total");
    assert!(!buckets_are_sound(&[bucket(10, Counts { claimed: 1, ..GOOD })], total, at(20)), "more claimed than bad");
    assert!(!buckets_are_sound(&[bucket(10, Counts { good: u64::MAX, ..BAD })], total, at(20)), "overflowing");
}

prop_compose! {
    /// Events in order of time, with gaps from none to several windows.
    fn events()(steps in prop::collection::vec((prop_oneof![0u64..40, 0u64..3_000], any::<bool>()), 0..200))
        -> Vec<(u64, Counts)>
    {
        let mut time = 0;
        steps.into_iter().map(|(step, good)| { time += step; (time, if good { GOOD } else { BAD }) }).collect()
    }
}

proptest! {
    #[test]
    fn a_window_counts_exactly_the_events_of_its_buckets(
        events in events(), length in 1u64..2_000, buckets in 1usize..40, later in 0u64..3_000,
    ) {
        let mut windows = Windows::new([(Duration::from_millis(length), buckets)]);
        let width = length.div_ceil(buckets as u64);
        for (index, (time, counted)) in events.iter().enumerate() {
            windows.add(at(*time), *counted);
            let oldest = (time / width).saturating_sub(buckets as u64);
            let expected = naive(&events[..=index], |event| event / width >= oldest);
            prop_assert_eq!(windows.sum(0, at(*time)), expected);
        }
        let now = events.last().map_or(0, |(time, _)| *time) + later;
        let oldest = (now / width).saturating_sub(buckets as u64);
        prop_assert_eq!(windows.sum(0, at(now)), naive(&events, |event| event / width >= oldest));
    }

    #[test]
    fn a_window_never_forgets_early_and_at_most_one_bucket_late(
        events in events(), length in 10u64..2_000, buckets in 1usize..40, later in 0u64..3_000,
    ) {
        let mut windows = Windows::new([(Duration::from_millis(length), buckets)]);
        for (time, counted) in &events {
            windows.add(at(*time), *counted);
        }
        let now = events.last().map_or(0, |(time, _)| *time) + later;
        let width = length.div_ceil(buckets as u64);
        let sum = windows.sum(0, at(now));
        let least = naive(&events, |event| event + length > now);
        let most = naive(&events, |event| event + width * (buckets as u64 + 1) > now);
        prop_assert!(sum.good >= least.good && sum.bad >= least.bad, "{sum:?} < {least:?}");
        prop_assert!(sum.good <= most.good && sum.bad <= most.bad, "{sum:?} > {most:?}");
    }

    #[test]
    fn saved_and_loaded_windows_count_the_same_now_and_later(events in events(), later in events()) {
        let lengths = [(Duration::from_millis(1_000), 30), (Duration::from_millis(70), 7)];
        let mut kept = Windows::new(lengths);
        for (time, counted) in &events {
            kept.add(at(*time), *counted);
        }
        let saved = [kept.buckets(0), kept.buckets(1)];
        let mut loaded = Windows::new(lengths);
        loaded.load(kept.total(), |index| &saved[index]);
        let start = events.last().map_or(0, |(time, _)| *time);
        for (time, counted) in &later {
            for index in 0..2 {
                prop_assert_eq!(kept.sum(index, at(start + time)), loaded.sum(index, at(start + time)));
            }
            kept.add(at(start + time), *counted);
            loaded.add(at(start + time), *counted);
        }
        prop_assert_eq!(kept.total(), loaded.total());
    }
}
