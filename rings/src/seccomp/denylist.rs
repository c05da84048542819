//! Deny-lists by the crate seccompiler: what R0 and R1 run with, and the independent check of our own compiler.
//!
//! seccompiler emits one comparison for each listed call, answers one thing to all of them, and doesn't know x32. For a
//! deny-list that is sound and short enough: EPERM for the list, and beside it a small program of our own
//! ([`tree`](super::tree)) for what needs another answer: ENOSYS, x32, numbers that no list can name. For the
//! allow-lists of R2 and R3 it is not: the same policy takes five times the instructions and ten times the time to
//! load. But the two compilers share no code below the policy, so a test that finds them equal on every number is
//! worth something.

use std::collections::BTreeMap;

use libc::sock_filter;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::policy::{Clause, Condition, Decision, Policy, Refusal, Rule, Test};
use super::program::Program;
use super::{Arch, Error, tree};

/// Compiles a policy into a deny-list and the program for what it leaves over, in the order to load them.
///
/// # Errors
/// What seccompiler refuses, or a program that isn't one ([`Error::DenyList`], [`Error::Malformed`]).
pub fn compile(policy: &Policy) -> Result<Vec<Program>, Error> {
    Ok(vec![refusals(policy)?, tree::compile(&remainder(policy))?])
}

/// All that is answered with EPERM, by seccompiler.
fn refusals(policy: &Policy) -> Result<Program, Error> {
    let mut rules = BTreeMap::new();
    for (&number, rule) in &policy.rules {
        match rule {
            // To seccompiler a call without rules matches always.
            Rule::Always(Decision::Refuse(Refusal::NotPermitted)) => {
                rules.insert(i64::from(number), Vec::new());
            }
            Rule::Always(_) => {}
            Rule::Checked(checks) => {
                let clauses = checks.iter().flat_map(|check| check.refusing_clauses());
                let rule: Result<Vec<_>, _> =
                    clauses.flat_map(|clause| alternatives(&clause)).map(SeccompRule::new).collect();
                rules.insert(i64::from(number), rule.map_err(Error::DenyList)?);
            }
        }
    }
    let arch = match policy.arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    let errno = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).map_err(Error::DenyList)?;
    let program = BpfProgram::try_from(filter).map_err(Error::DenyList)?;
    Program::new(program.iter().map(|i| sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect())
}

/// The policy with EPERM left out: what is answered with ENOSYS or a signal stays.
fn remainder(policy: &Policy) -> Policy {
    let missing = Rule::Always(Decision::Refuse(Refusal::NoSuchCall));
    let rules = policy.rules.iter().map(|(number, rule)| {
        let kept = if *rule == missing { missing.clone() } else { Rule::Always(Decision::Allow) };
        (*number, kept)
    });
    Policy { arch: policy.arch, rules: rules.collect(), unknown: policy.unknown }
}

/// A clause as seccompiler's conjunctions: each of our tests is a choice among some of its conditions.
fn alternatives(clause: &Clause) -> Vec<Vec<SeccompCondition>> {
    clause.iter().fold(vec![Vec::new()], |products, condition| {
        let choices = choices(condition);
        let extend = |product: &Vec<SeccompCondition>| {
            let product = product.clone();
            choices.clone().into_iter().map(move |choice| [product.clone(), choice].concat()).collect::<Vec<_>>()
        };
        products.iter().flat_map(extend).collect()
    })
}

/// One test as a disjunction of conjunctions.
fn choices(condition: &Condition) -> Vec<Vec<SeccompCondition>> {
    let one = |length, op, value| {
        SeccompCondition::new(condition.arg, length, op, value).expect("a condition's argument is 0 to 5")
    };
    let low = |op, value: u32| one(Length::Dword, op, u64::from(value));
    let masked = |mask: u32, value| low(Op::MaskedEq(u64::from(mask)), value);
    match &condition.test {
        Test::OneOf { mask: u32::MAX, values } => values.iter().map(|value| vec![low(Op::Eq, *value)]).collect(),
        Test::OneOf { mask, values } => values.iter().map(|value| vec![masked(*mask, *value)]).collect(),
        Test::NoneOf { mask: u32::MAX, values } => vec![values.iter().map(|value| low(Op::Ne, *value)).collect()],
        Test::NoneOf { mask, values } => {
            let mut outside = Vec::new();
            cubes_outside(*mask, values, (0, 0), &mut outside);
            outside.into_iter().map(|(mask, value)| vec![masked(mask, value)]).collect()
        }
        Test::AnyBit(bits) => {
            let single = (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| bits & bit != 0);
            single.map(|bit| vec![masked(bit, bit)]).collect()
        }
        Test::NoBit(bits) => vec![vec![masked(*bits, 0)]],
        Test::Above(limit) => vec![vec![low(Op::Gt, *limit)]],
        Test::AtMost(limit) => vec![vec![low(Op::Le, *limit)]],
        Test::Whole(value) => vec![vec![one(Length::Qword, Op::Eq, *value)]],
        Test::NotWhole(value) => vec![vec![one(Length::Qword, Op::Ne, *value)]],
    }
}

/// The values under `mask` that are none of `values`, as (mask, value) pairs: seccompiler has no masked inequality.
/// Fixes one bit after the other from the top (`fixed` so far) and stops where no value is left.
fn cubes_outside(mask: u32, values: &[u32], fixed: (u32, u32), found: &mut Vec<(u32, u32)>) {
    if !values.iter().any(|value| value & fixed.0 == fixed.1) {
        found.push(fixed);
        return;
    }
    let open = mask & !fixed.0;
    if open == 0 {
        return;
    }
    let bit = 1 << open.ilog2();
    cubes_outside(mask, values, (fixed.0 | bit, fixed.1), found);
    cubes_outside(mask, values, (fixed.0 | bit, fixed.1 | bit), found);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubes_cover_exactly_what_is_outside() {
        for values in [vec![1, 2], vec![0], vec![15], vec![1, 5], (0..16).collect()] {
            let mut cubes = Vec::new();
            cubes_outside(0xf, &values, (0, 0), &mut cubes);
            for value in 0..16 {
                let covered = cubes.iter().filter(|(mask, fixed)| value & mask == *fixed).count();
                assert_eq!(covered, usize::from(!values.contains(&value)), "{value} {values:?}");
            }
        }
    }
}
