//! A rule as a program will answer it: returned values in place of decisions, and only the checks that make a difference.
//!
//! To the kernel a refused call that the listener tells of and a creating call that it makes are one answer, "ask the listener".
//! So where a listener is asked for all calls that can make a name, the check of their modes before it decides nothing any more,
//! and goes; what it would have refused, the listener refuses by the policy itself.

use super::bpf::verdict;
use super::policy::{Check, Clause, Condition, Decision, Policy, Rule, Test};

/// What becomes of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaf {
    /// Always this value.
    Always(u32),
    /// It depends on the arguments.
    Checked(Block),
}

/// Looks at the arguments, one after the other: the first that catches answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) steps: Vec<Step>,
    pub(super) otherwise: u32,
}

/// One look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) catches: Catches,
    pub(super) clauses: Vec<Clause>,
    pub(super) verdict: u32,
}

/// Which way a look is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Catches {
    /// It catches when a clause holds.
    When,
    /// It catches unless a clause holds.
    Unless,
}

impl Leaf {
    /// Of a rule of `policy`.
    pub(super) fn of(rule: &Rule, policy: &Policy) -> Leaf {
        let checks = match rule {
            Rule::Always(decision) => return Leaf::Always(verdict(*decision)),
            Rule::Checked(checks) => checks,
        };
        let mut otherwise = verdict(Decision::Allow);
        let mut steps: Vec<Step> = Vec::new();
        for check in checks {
            let verdict = verdict(check.asks().map_or(policy.checked, Decision::Notify));
            let (catches, clauses) = match check {
                Check::RefuseWhen(clauses) | Check::AskWhen(clauses, _) => (Catches::When, clauses),
                Check::RefuseUnless(clauses) | Check::AskUnless(clauses, _) if clauses.is_empty() => {
                    otherwise = verdict;
                    break;
                }
                Check::RefuseUnless(clauses) | Check::AskUnless(clauses, _) => (Catches::Unless, clauses),
            };
            match steps.last_mut() {
                Some(last) if catches == Catches::When && last.catches == catches && last.verdict == verdict => {
                    last.clauses.extend(clauses.iter().cloned());
                }
                _ => steps.push(Step { catches, clauses: clauses.clone(), verdict }),
            }
        }
        while steps.last().is_some_and(|last| last.verdict == otherwise) {
            steps.pop();
        }
        for step in &mut steps {
            absorb(&mut step.clauses);
        }
        if steps.is_empty() { Leaf::Always(otherwise) } else { Leaf::Checked(Block { steps, otherwise }) }
    }
}

/// Drops each clause that holds only where another one does.
fn absorb(clauses: &mut Vec<Clause>) {
    let mut at = 0;
    while at < clauses.len() {
        let wider = |(other, clause): (usize, &Clause)| {
            other != at && implies(&clauses[at], clause) && !(other > at && implies(clause, &clauses[at]))
        };
        if clauses.iter().enumerate().any(wider) {
            clauses.remove(at);
        } else {
            at += 1;
        }
    }
}

/// Whether `narrow` holds only where `wide` does, as far as their conditions show it.
fn implies(narrow: &Clause, wide: &Clause) -> bool {
    wide.iter().all(|condition| narrow.iter().any(|other| is_part(other, condition)))
}

fn is_part(narrow: &Condition, wide: &Condition) -> bool {
    if narrow.arg != wide.arg {
        return false;
    }
    match (&narrow.test, &wide.test) {
        (Test::AnyBit(few), Test::AnyBit(many)) => few & !many == 0,
        (narrow, wide) => narrow == wide,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(arg: u8, bits: u32) -> Condition {
        Condition::new(arg, Test::AnyBit(bits))
    }

    #[test]
    fn a_clause_within_another_goes_and_of_equal_ones_one_stays() {
        let mut clauses = vec![vec![bits(1, 1), bits(2, 6)], vec![bits(1, 3)], vec![bits(1, 3)], vec![bits(2, 8)]];
        absorb(&mut clauses);
        assert_eq!(clauses, [vec![bits(1, 3)], vec![bits(2, 8)]]);
    }
}
