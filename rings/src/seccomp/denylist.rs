//! Deny-lists by the crate seccompiler: the never-allowed of R0 and R1, and the independent check of our own compiler.
//!
//! seccompiler emits one comparison for each listed call, answers one thing to all of them, and doesn't know x32. For a
//! short deny-list that is sound: EPERM for the list, and beside it a small program of our own ([`tree`])
//! for what needs another answer: ENOSYS, x32, numbers that no list can name. For the allow-lists of R2 and R3 it is
//! not: R2's policy takes seven times the instructions and eight times the time to load. But the two compilers share
//! no code below the policy, so a test that finds them equal on every number is worth something.

use std::collections::BTreeMap;

use libc::sock_filter;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::bpf::{opcode, verdict};
use super::policy::{Check, Clause, Condition, Decision, Policy, Refusal, Rule, Test};
use super::program::Program;
use super::{Arch, Error, tree};

/// Compiles a policy into deny-lists and the program for what they leave over, in the order to load them.
///
/// # Errors
/// Those of [`refusals`] and [`tree::compile`].
pub fn compile(policy: &Policy) -> Result<Vec<Program>, Error> {
    let mut programs = refusals(policy)?;
    programs.push(tree::compile(&remainder(policy))?);
    Ok(programs)
}

/// All that is answered with EPERM, and all that is left to the listener, as one program each; everything else passes, but for
/// foreign ABIs, which kill.
///
/// # Errors
/// What seccompiler refuses, or a program that isn't one ([`Error::DenyList`], [`Error::Malformed`]).
pub fn refusals(policy: &Policy) -> Result<Vec<Program>, Error> {
    let eperm = Decision::Refuse(Refusal::NotPermitted);
    let mut programs = Vec::new();
    for action in [verdict(eperm), libc::SECCOMP_RET_USER_NOTIF] {
        let rules = listed(policy, action)?;
        if !rules.is_empty() || (programs.is_empty() && action != verdict(eperm)) {
            programs.push(list(policy.arch, rules, action)?);
        }
    }
    Ok(programs)
}

/// The calls that are answered with `action`, always (no rules: to seccompiler such a call matches always) or under rules.
fn listed(policy: &Policy, action: u32) -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    let mut listed = BTreeMap::new();
    for (&number, rule) in &policy.rules {
        match rule {
            Rule::Always(decision) if verdict(*decision) == action => {
                listed.insert(i64::from(number), Vec::new());
            }
            Rule::Always(_) => {}
            Rule::Checked(checks) => {
                let of_action =
                    |check: &&Check| verdict(check.asks().map_or(policy.checked, Decision::Notify)) == action;
                let clauses: Vec<Clause> = checks.iter().filter(of_action).flat_map(Check::catching_clauses).collect();
                let rule: Result<Vec<_>, _> = if clauses.contains(&Clause::new()) {
                    Ok(Vec::new())
                } else if clauses.is_empty() {
                    continue;
                } else {
                    clauses.iter().flat_map(alternatives).map(SeccompRule::new).collect()
                };
                listed.insert(i64::from(number), rule.map_err(Error::DenyList)?);
            }
        }
    }
    Ok(listed)
}

/// seccompiler's program, whose one answer is `action`: it knows EPERM, and no listener.
fn list(arch: Arch, rules: BTreeMap<i64, Vec<SeccompRule>>, action: u32) -> Result<Program, Error> {
    let target = match arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm.clone(), target).map_err(Error::DenyList)?;
    let program = BpfProgram::try_from(filter).map_err(Error::DenyList)?;
    let eperm = u32::from(eperm);
    let answer = |code, k| if code == opcode::RETURN && k == eperm { action } else { k };
    Program::new(
        program.iter().map(|i| sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: answer(i.code, i.k) }).collect(),
    )
}

/// The policy with EPERM and the listener left out: what is answered with ENOSYS or a signal stays.
fn remainder(policy: &Policy) -> Policy {
    let missing = Rule::Always(Decision::Refuse(Refusal::NoSuchCall));
    let rules = policy.rules.iter().map(|(number, rule)| {
        let kept = if *rule == missing { missing.clone() } else { Rule::Always(Decision::Allow) };
        (*number, kept)
    });
    Policy { rules: rules.collect(), ..policy.clone() }
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
