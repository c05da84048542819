//! Every kind of change, done to a whole chain in memory, and found in its place.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::chain::Tip;
use super::super::record::{Action, Actor, Outcome};
use super::super::signer::{KeyId, Signer};
use super::*;

const STORE: StoreId = StoreId([5; 16]);

#[derive(Debug, Clone)]
struct Stored {
    seq: i64,
    record: Vec<u8>,
    hash: Vec<u8>,
}

fn record(number: u64) -> Record {
    Record::new(1_700_000_000_000, Actor::Supervisor, Action::new("test"), Outcome::Noted).detail("number", number)
}

/// Records 1 to `count` of a chain that starts behind `from`.
fn extend(rows: &mut Vec<Stored>, from: Tip, count: u64, label: &str) -> Tip {
    let mut tip = from;
    for _ in 0..count {
        let text = record(tip.seq).reason(label).encode(tip.seq + 1);
        tip = tip.next(text.as_bytes());
        rows.push(Stored { seq: tip.seq as i64, record: text.into_bytes(), hash: tip.hash.0.to_vec() });
    }
    tip
}

fn chain(count: u64) -> Vec<Stored> {
    let mut rows = Vec::new();
    extend(&mut rows, Tip::genesis(&STORE), count, "");
    rows
}

fn tip_of(rows: &[Stored], seq: u64) -> Tip {
    let row = rows.iter().find(|row| row.seq == seq as i64).unwrap();
    Tip { seq, hash: Hash::from_bytes(&row.hash).unwrap() }
}

fn heads(rows: &[Stored], at: &[u64]) -> Vec<Head> {
    let key = KeyId::of(&Signer::from_seed([1; 32]).public_key());
    at.iter().map(|seq| Head { store: STORE, tip: tip_of(rows, *seq), time_ms: 1, key }).collect()
}

fn check(rows: &[Stored], heads: &[Head]) -> Findings {
    let mut checker = Checker::new(&STORE, heads);
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|row| row.seq);
    for row in &sorted {
        checker.push(&Row { seq: row.seq, record: &row.record, hash: &row.hash });
    }
    checker.finish()
}

fn found(rows: &[Stored], heads: &[Head]) -> Vec<(Kind, u64)> {
    check(rows, heads).problems.iter().map(|problem| (problem.kind, problem.seq)).collect()
}

/// Rows `from..` with fresh numbers in their records and all hashes computed anew: what a thief without the key can do.
fn recompute(rows: &mut [Stored]) {
    let mut tip = Tip::genesis(&STORE);
    for row in rows {
        let (_, record) = Record::decode(std::str::from_utf8(&row.record).unwrap()).unwrap();
        row.record = record.encode(tip.seq + 1).into_bytes();
        tip = tip.next(&row.record);
        row.seq = tip.seq as i64;
        row.hash = tip.hash.0.to_vec();
    }
}

#[test]
fn a_whole_chain_has_no_problem_and_its_unsigned_end_is_unprotected() {
    let rows = chain(20);
    let findings = check(&rows, &heads(&rows, &[5, 17]));
    assert_eq!((findings.records, findings.unprotected, findings.problems), (20, 3, vec![]));
    assert_eq!(check(&[], &[]).problems, vec![]);
    assert_eq!(check(&rows, &heads(&rows, &[20])).unprotected, 0);
}

#[test]
fn an_edited_record_is_found_where_it_stands() {
    let mut rows = chain(20);
    let signed = heads(&rows, &[10, 20]);
    rows[6].record = record(6).reason("nothing happened").encode(7).into_bytes();
    assert_eq!(found(&rows, &signed), [(Kind::Edited, 7)]);
}

#[test]
fn two_neighbours_that_were_edited_are_both_found() {
    let mut rows = chain(20);
    for row in [6, 7] {
        rows[row].record = record(row as u64).reason("x").encode(row as u64 + 1).into_bytes();
    }
    assert_eq!(found(&rows, &[]), [(Kind::Edited, 7), (Kind::Edited, 8)]);
}

#[test]
fn a_deleted_record_is_found_also_when_the_rest_is_renumbered() {
    let mut rows = chain(20);
    let signed = heads(&rows, &[20]);
    rows.remove(6);
    assert_eq!(found(&rows, &signed), [(Kind::Deleted, 7)]);
    for row in &mut rows[6..] {
        row.seq -= 1;
    }
    assert_eq!(found(&rows, &signed)[0], (Kind::Deleted, 7));
}

#[test]
fn exchanged_records_are_found() {
    let mut rows = chain(20);
    let signed = heads(&rows, &[20]);
    (rows[3].seq, rows[11].seq) = (rows[11].seq, rows[3].seq);
    assert_eq!(found(&rows, &signed), [(Kind::Reordered, 4)]);
}

#[test]
fn an_inserted_record_is_found() {
    let mut rows = chain(20);
    let signed = heads(&rows, &[20]);
    for row in &mut rows[6..] {
        row.seq += 1;
    }
    let text = record(6).reason("planted").encode(7);
    let tip = tip_of(&rows, 6).next(text.as_bytes());
    rows.push(Stored { seq: 7, record: text.into_bytes(), hash: tip.hash.0.to_vec() });
    let problems = found(&rows, &signed);
    assert!(problems.contains(&(Kind::Inserted, 7)), "{problems:?}");
    let mut rows = chain(3);
    rows.push(Stored { seq: -1, ..rows[0].clone() });
    assert_eq!(found(&rows, &[]), [(Kind::Inserted, 0)]);
}

#[test]
fn a_cut_tail_is_found_below_a_known_head_and_only_there() {
    let rows = chain(20);
    let signed = heads(&rows, &[10, 18]);
    assert_eq!(found(&rows[..12], &signed), [(Kind::CutTail, 13)]);
    assert_eq!(found(&rows[..18], &signed), []);
    assert_eq!(found(&[], &signed), [(Kind::CutTail, 1)]);
}

#[test]
fn a_chain_computed_anew_is_found_behind_the_last_head_that_fits() {
    let mut rows = chain(20);
    let signed = heads(&rows, &[5, 10, 15, 20]);
    rows[6].record = record(6).reason("nothing happened").encode(7).into_bytes();
    recompute(&mut rows);
    assert_eq!(found(&rows, &signed), [(Kind::Rewritten, 6)]);
    assert_eq!(found(&rows, &[]), [], "without heads nobody can tell");
}

#[test]
fn a_record_removed_from_a_chain_computed_anew_is_found() {
    let mut rows = chain(20);
    let signed = heads(&rows, &[5, 10, 20]);
    rows.remove(6);
    recompute(&mut rows);
    let problems = found(&rows, &signed);
    assert!(problems.contains(&(Kind::Rewritten, 6)), "{problems:?}");
    assert!(problems.contains(&(Kind::CutTail, 20)), "{problems:?}");
}

#[test]
fn a_store_that_was_set_back_and_went_on_is_a_fork() {
    let first = chain(20);
    let mut rows = first[..12].to_vec();
    let from = tip_of(&rows, 12);
    extend(&mut rows, from, 13, "second history");
    let mut signed = heads(&first, &[10, 20]);
    signed.extend(heads(&rows, &[15, 25]));
    assert_eq!(found(&rows, &signed), [(Kind::Forked, 16)]);
    let mut signed = heads(&first, &[20]);
    signed.extend(heads(&rows, &[20]));
    assert_eq!(found(&rows, &signed), [(Kind::Forked, 20)]);
}

#[test]
fn a_chain_of_another_store_does_not_fit() {
    let mut rows = Vec::new();
    extend(&mut rows, Tip::genesis(&StoreId([6; 16])), 5, "");
    assert_eq!(found(&rows, &[]), [(Kind::Edited, 1)]);
}

#[test]
fn problems_are_bounded_and_the_rest_is_counted() {
    let mut rows = chain(PROBLEMS_MAX as u64 + 50);
    for row in &mut rows {
        row.record = b"{}".to_vec();
    }
    let findings = check(&rows, &[]);
    assert_eq!((findings.problems.len(), findings.untold), (PROBLEMS_MAX, 50));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn any_changed_byte_in_any_record_or_hash_is_found_there(
        row in 0_usize..6, index in any::<prop::sample::Index>(), flip in 1_u8.., in_hash in any::<bool>(),
    ) {
        let mut rows = chain(6);
        let signed = heads(&rows, &[6]);
        let bytes = if in_hash { &mut rows[row].hash } else { &mut rows[row].record };
        let index = index.index(bytes.len());
        bytes[index] ^= flip;
        let problems = check(&rows, &signed).problems;
        prop_assert!(!problems.is_empty());
        // A digit of the number itself may change: then the row is displaced, which is told by the same place.
        prop_assert_eq!(problems[0].seq, row as u64 + 1, "{:?}", problems);
    }

    #[test]
    fn any_rewrite_below_a_head_is_found(at in 0_usize..10, head in 1_u64..=10) {
        let mut rows = chain(10);
        let signed = heads(&rows, &[head]);
        rows[at].record = record(99).encode(at as u64 + 1).into_bytes();
        recompute(&mut rows);
        prop_assert_eq!(!check(&rows, &signed).problems.is_empty(), (at as u64) < head);
    }
}
