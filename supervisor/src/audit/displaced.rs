//! Records that stand in a row of another number: was one taken out, put in, or were some exchanged?
//!
//! Taking one row out and renumbering the rest displaces everything behind it. Kept as runs with the same distance, that is one
//! entry and one answer instead of a million.

use super::check::{Kind, Problem};

/// Most runs that are kept apart; beyond it only the first places are told.
const RUNS_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Run {
    row: u64,
    held: u64,
    length: u64,
}

/// Collects displaced records.
#[derive(Debug, Default)]
pub(crate) struct Displaced {
    runs: Vec<Run>,
}

impl Displaced {
    /// Notes that row `row` holds the record numbered `held`. Rows come in order.
    pub(crate) fn note(&mut self, row: u64, held: u64) {
        let room = self.runs.len() < RUNS_MAX;
        match self.runs.last_mut() {
            Some(run) if run.row + run.length == row && run.held.checked_add(run.length) == Some(held) => {
                run.length += 1
            }
            _ if room => self.runs.push(Run { row, held, length: 1 }),
            _ => {}
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The one problem behind the displacement, if there is any.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let first = self.runs.first()?;
        if self.is_permutation() {
            let last = self.runs.last()?;
            let text =
                format!("the records in rows {} to {} stand in another order", first.row, last.row + last.length - 1);
            return Some(Problem { kind: Kind::Reordered, seq: first.row, text });
        }
        Some(if first.held > first.row {
            let text = match first.held - first.row {
                1 => format!("record {} is missing; those behind it were renumbered", first.row),
                _ => format!("records {} to {} are missing; those behind were renumbered", first.row, first.held - 1),
            };
            Problem { kind: Kind::Deleted, seq: first.row, text }
        } else {
            let text = format!("row {} holds record {} again: something was put in before it", first.row, first.held);
            Problem { kind: Kind::Inserted, seq: first.held, text }
        })
    }

    /// Whether the rows and the numbers they hold are the same set.
    fn is_permutation(&self) -> bool {
        let merged = |from: fn(&Run) -> u64| {
            let mut spans: Vec<(u64, u64)> =
                self.runs.iter().map(|run| (from(run), from(run).saturating_add(run.length))).collect();
            spans.sort_unstable();
            spans.dedup_by(|next, kept| {
                let adjoins = kept.1 == next.0;
                if adjoins {
                    kept.1 = next.1;
                }
                adjoins
            });
            spans
        };
        merged(|run| run.row) == merged(|run| run.held)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(pairs: impl IntoIterator<Item = (u64, u64)>) -> (Kind, u64) {
        let mut displaced = Displaced::default();
        for (row, held) in pairs {
            displaced.note(row, held);
        }
        let problem = displaced.problem().unwrap();
        (problem.kind, problem.seq)
    }

    #[test]
    fn exchange_removal_and_insertion_are_told_apart_and_placed() {
        assert_eq!(of([(5, 6), (6, 5)]), (Kind::Reordered, 5));
        assert_eq!(of([(2, 9), (9, 2)]), (Kind::Reordered, 2));
        assert_eq!(of([(3, 4), (4, 5), (5, 3)]), (Kind::Reordered, 3));
        assert_eq!(of((5..100).map(|row| (row, row + 1))), (Kind::Deleted, 5));
        assert_eq!(of((6..101).map(|row| (row, row - 1))), (Kind::Inserted, 5));
        assert!(Displaced::default().problem().is_none());
    }

    #[test]
    fn a_million_displaced_rows_are_one_run() {
        let mut displaced = Displaced::default();
        (5..1_000_000).for_each(|row| displaced.note(row, row + 1));
        assert_eq!(displaced.runs.len(), 1);
    }
}
