//! The verifier, pure: rows and heads in, problems with their places out.
//!
//! Rows are pushed one by one in the order of their numbers, so that a log of any length needs memory for its heads alone. One
//! change is told as one problem: what merely follows from it (every hash behind a rewritten record, every head behind a cut) is
//! not told again. Records behind the last signed head are *unprotected*, which is what a SIGKILL leaves; they are no problem.

use std::collections::BTreeMap;
use std::fmt;

use super::chain::{Hash, StoreId, link};
use super::displaced::Displaced;
use super::head::Head;
use super::record::Record;

/// Most problems that are kept one by one; the rest is counted.
pub const PROBLEMS_MAX: usize = 1000;

/// What kind of change was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A record, its hash or its link to the one before was changed.
    Edited,
    /// Records are missing in the middle.
    Deleted,
    /// A record was put in.
    Inserted,
    /// Records stand in another order.
    Reordered,
    /// Two signed histories: the store was set back and went on from there.
    Forked,
    /// The end is missing: a head knows of later records.
    CutTail,
    /// The chain is whole in itself, and not the one that was signed.
    Rewritten,
    /// A head that is damaged or whose signature doesn't hold.
    BadHead,
    /// A head that one place has and the other should have.
    MissingHead,
    /// A head of another key.
    OtherKey,
    /// A head of another store.
    OtherStore,
    /// The database can't be read further.
    Unreadable,
}

impl Kind {
    /// Whether it is about the records, not about the heads.
    const fn is_of_the_chain(self) -> bool {
        matches!(
            self,
            Self::Edited | Self::Deleted | Self::Inserted | Self::Reordered | Self::Forked | Self::Unreadable
        )
    }

    /// The word for it in JSON and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Forked => "forked",
            Self::CutTail => "cut_tail",
            Self::Rewritten => "rewritten",
            Self::BadHead => "bad_head",
            Self::MissingHead => "missing_head",
            Self::OtherKey => "other_key",
            Self::OtherStore => "other_store",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// The record's number: the first one concerned.
    pub seq: u64,
    /// The same in a sentence.
    pub text: String,
}

/// A row as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The primary key.
    pub seq: i64,
    /// The record's text.
    pub record: &'a [u8],
    /// The stored hash.
    pub hash: &'a [u8],
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Findings {
    /// Rows seen.
    pub records: u64,
    /// Rows behind the last signed head.
    pub unprotected: u64,
    /// What is wrong, by place; at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// Problems beyond those.
    pub untold: u64,
}

/// What the row before offers as the hash that the next record builds on.
#[derive(Debug)]
enum Previous {
    /// Rows are missing or stand elsewhere: nothing to compare with.
    Unknown,
    Stored(Hash),
    /// The stored hash is wrong for its record: either of the two may be what the next one was built on.
    Either(Hash, Hash),
}

#[derive(Debug)]
struct Suspect {
    seq: u64,
    held: u64,
    stored: Option<Hash>,
}

/// Checks one chain.
#[derive(Debug)]
pub struct Checker {
    heads: BTreeMap<u64, Vec<Hash>>,
    previous: Previous,
    next: u64,
    records: u64,
    displaced: Displaced,
    /// The last row, while it holds a record of another number and it isn't known why.
    suspect: Option<Suspect>,
    /// Signed heads that the chain contradicts and that no other problem explains.
    contradicted: Vec<(u64, u64)>,
    good_head: u64,
    /// The last row with a problem.
    blamed: u64,
    problems: Vec<Problem>,
    untold: u64,
}

impl Checker {
    /// A checker for this store's chain. `heads` are those whose signature holds, of this store, from all places.
    pub fn new<'h>(store: &StoreId, heads: impl IntoIterator<Item = &'h Head>) -> Self {
        let mut by_seq: BTreeMap<u64, Vec<Hash>> = BTreeMap::new();
        for head in heads {
            let hashes = by_seq.entry(head.tip.seq).or_default();
            if !hashes.contains(&head.tip.hash) {
                hashes.push(head.tip.hash);
            }
        }
        Self {
            heads: by_seq,
            previous: Previous::Stored(store.genesis()),
            next: 1,
            records: 0,
            displaced: Displaced::default(),
            suspect: None,
            contradicted: Vec::new(),
            good_head: 0,
            blamed: 0,
            problems: Vec::new(),
            untold: 0,
        }
    }

    /// Takes the next row, in the order of the primary key.
    pub fn push(&mut self, row: &Row<'_>) {
        self.records += 1;
        let Some(seq) = u64::try_from(row.seq).ok().filter(|seq| *seq > 0) else {
            self.blame(Kind::Inserted, 0, format!("there is a row with the number {}", row.seq));
            return;
        };
        if seq > self.next {
            let text = match seq - self.next {
                1 => format!("record {} is missing", self.next),
                _ => format!("records {} to {} are missing", self.next, seq - 1),
            };
            self.blame(Kind::Deleted, self.next, text);
            self.previous = Previous::Unknown;
        }
        self.next = seq + 1;
        let stored = Hash::from_bytes(row.hash);
        // What the row before would have to be hashed as, if it is in its place.
        let needed = |suspect: &Suspect| suspect.stored.is_some_and(|before| Some(link(&before, row.record)) == stored);
        let held =
            std::str::from_utf8(row.record).ok().and_then(|text| Record::decode(text).ok()).map(|(held, _)| held);
        match (held, stored) {
            (Some(held), stored) if held != seq => {
                self.settle_suspect(None);
                self.suspect = Some(Suspect { seq, held, stored });
                self.blamed = seq;
                self.previous = Previous::Unknown;
            }
            (Some(_), Some(stored)) => {
                let in_place = self.suspect.as_ref().map(needed);
                self.settle_suspect(in_place);
                self.check_link(seq, row.record, stored);
            }
            (None, Some(stored)) => {
                self.blame(Kind::Edited, seq, format!("record {seq} is no record any more"));
                self.previous = Previous::Stored(stored);
            }
            (_, None) => {
                self.blame(Kind::Edited, seq, format!("the hash of record {seq} has {} bytes", row.hash.len()));
                self.previous = Previous::Unknown;
            }
        }
        self.check_heads(seq, stored);
    }

    /// A record under another number was either moved here with its hash, or it is the right one with an edited number: then the
    /// hash beside it is the one that the next record (or a head) builds on.
    fn settle_suspect(&mut self, in_place: Option<bool>) {
        let Some(Suspect { seq, held, .. }) = self.suspect.take() else {
            return;
        };
        match in_place {
            Some(true) => self.blame(Kind::Edited, seq, format!("record {seq} names itself {held}")),
            Some(false) | None => self.displaced.note(seq, held),
        }
    }

    fn check_link(&mut self, seq: u64, record: &[u8], stored: Hash) {
        let (expected, other) = match &self.previous {
            Previous::Unknown => (stored, None),
            Previous::Stored(hash) => (link(hash, record), None),
            Previous::Either(hash, other) => (link(hash, record), Some(link(other, record))),
        };
        if stored == expected || other == Some(stored) {
            self.previous = Previous::Stored(stored);
            return;
        }
        self.blame(Kind::Edited, seq, format!("record {seq}, its hash or the hash before it was changed"));
        self.previous = Previous::Either(stored, expected);
    }

    fn check_heads(&mut self, seq: u64, stored: Option<Hash>) {
        let Some(signed) = self.heads.get(&seq) else {
            return;
        };
        let fits = stored.is_some_and(|stored| signed.contains(&stored));
        let forked = signed.len() > 1;
        if forked {
            self.blame(Kind::Forked, seq, format!("{} different histories were signed at record {seq}", signed.len()));
        }
        if fits {
            self.good_head = seq;
            let is_here = |suspect: &Suspect| suspect.seq == seq;
            if self.suspect.as_ref().is_some_and(is_here) {
                self.settle_suspect(Some(true));
            }
        } else if self.blamed != seq && !forked {
            self.contradicted.push((self.good_head, seq));
        }
    }

    fn blame(&mut self, kind: Kind, seq: u64, text: String) {
        self.blamed = seq;
        self.add(Problem { kind, seq, text });
    }

    fn add(&mut self, problem: Problem) {
        match self.problems.len() < PROBLEMS_MAX {
            true => self.problems.push(problem),
            false => self.untold += 1,
        }
    }

    /// Adds a problem found elsewhere (in the heads, say) to the same list.
    pub fn report(&mut self, problem: Problem) {
        self.add(problem);
    }

    /// The number of the last row, 0 before any.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// All rows were pushed: what is wrong?
    pub fn finish(mut self) -> Findings {
        // Nothing follows the last record: a higher number means that one before it is gone.
        let edited = self.suspect.as_ref().map(|suspect| suspect.held < suspect.seq && self.displaced.is_empty());
        self.settle_suspect(edited);
        if let Some(problem) = self.displaced.problem() {
            self.add(problem);
        }
        let last = self.last();
        let last_head = self.heads.keys().next_back().copied().unwrap_or(0);
        if last_head > last {
            let text = format!("the log ends at record {last}, a signed head knows of record {last_head}");
            self.add(Problem { kind: Kind::CutTail, seq: last + 1, text });
        }
        self.add_contradictions();
        self.problems.sort_by_key(|problem| (problem.seq, problem.kind));
        let unprotected = last.saturating_sub(last_head);
        Findings { records: self.records, unprotected, problems: self.problems, untold: self.untold }
    }

    /// A head that the chain contradicts is a fork when a later head fits (both were signed), else a rewritten chain.
    fn add_contradictions(&mut self) {
        let mut told_after = None;
        for (good, seq) in std::mem::take(&mut self.contradicted) {
            let chain = self.problems.iter().filter(|problem| problem.kind.is_of_the_chain());
            let explained = chain.into_iter().any(|problem| (good + 1..=seq).contains(&problem.seq));
            if explained || told_after == Some(good) {
                continue;
            }
            told_after = Some(good);
            let (kind, what) = match self.good_head > seq {
                true => (Kind::Forked, "another history was signed"),
                false => (Kind::Rewritten, "the chain was computed anew"),
            };
            let text = format!("somewhere in records {} to {seq} {what}: the head at {seq} doesn't fit", good + 1);
            self.add(Problem { kind, seq: good + 1, text });
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
