//! The compilers change nothing: both give the policy's own answer, on every number, ABI and argument case.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::policy::{Check, Policy, Rule, Test};
use super::*;

/// Numbers that stand for all 2^32: the table and well beyond, x32's copies, and both sides of whatever value a program
/// compares anything with. A program only compares the number (never masks it), so between two such values its answer
/// can't change, and the policy's changes only within the table.
fn numbers(compiled: &[Filters]) -> BTreeSet<u32> {
    const X32: u32 = 0x4000_0000;
    let instructions = compiled.iter().flat_map(Filters::programs).flat_map(Program::as_sock_filters);
    let around = instructions.flat_map(|instruction| [-1, 0, 1].map(|step| instruction.k.wrapping_add_signed(step)));
    (0..1024).chain((0..1024).map(|number| number | X32)).chain([u32::MAX]).chain(around).collect()
}

/// x86_64, aarch64, i386, ARM, nothing, everything.
const ABIS: [u32; 6] = [0xc000_003e, 0xc000_00b7, 0x4000_0003, 0x4000_0028, 0, u32::MAX];

/// Values of one argument at which some test of the checks may turn over, with and without dirt in the high half.
fn cases(checks: &[Check], arg: u8) -> Vec<u64> {
    let clauses = checks.iter().flat_map(|check| match check {
        Check::RefuseWhen(clauses) | Check::RefuseUnless(clauses) => clauses,
        Check::AskWhen(clauses, _) | Check::AskUnless(clauses, _) => clauses,
    });
    let mut cases = vec![0u64, 1, u64::from(u32::MAX), u64::MAX];
    for condition in clauses.flatten().filter(|condition| condition.arg == arg) {
        match &condition.test {
            Test::OneOf { mask, values } | Test::NoneOf { mask, values } => {
                cases.extend(values.iter().flat_map(|v| [*v, v ^ 1, v.wrapping_add(1), v | !mask]).map(u64::from));
            }
            Test::AnyBit(bits) | Test::NoBit(bits) => {
                let single = (0..32).map(|bit| 1u32 << bit).filter(|bit| bits & bit != 0);
                cases.extend(single.chain([*bits, !bits]).map(u64::from));
            }
            Test::Above(limit) | Test::AtMost(limit) => {
                cases.extend([limit - 1, *limit, limit + 1].map(u64::from));
            }
            Test::Whole(value) | Test::NotWhole(value) => {
                cases.extend([*value, value ^ 1, value ^ 1 << 32, value & 0xffff_ffff]);
            }
        }
    }
    let dirty: Vec<u64> = cases.iter().map(|case| case ^ 0xdead_beef << 32).collect();
    cases.extend(dirty);
    cases.sort_unstable();
    cases.dedup();
    cases
}

/// Every combination of the cases of the arguments that are looked at.
fn argument_cases(rule: &Rule) -> Vec<[u64; 6]> {
    let Rule::Checked(checks) = rule else { return vec![[0; 6], [u64::MAX; 6], [1, 2, 3, 4, 5, 6]] };
    let looked_at =
        |arg: u8| checks.iter().flat_map(Check::catching_clauses).flatten().any(|condition| condition.arg == arg);
    (0..6).filter(|arg| looked_at(*arg)).fold(vec![[7; 6]], |combinations, arg| {
        let cases = cases(checks, arg);
        let with = |args: [u64; 6]| {
            cases.clone().into_iter().map(move |case| {
                let mut args = args;
                args[usize::from(arg)] = case;
                args
            })
        };
        combinations.into_iter().flat_map(with).collect()
    })
}

fn both_compilers(policy: &Policy) -> [Filters; 2] {
    [
        Filters { programs: vec![tree::compile(policy).unwrap()] },
        Filters { programs: denylist::compile(policy).unwrap() },
    ]
}

#[test]
fn compilers_and_rings_answer_as_the_policy_does_on_every_number_abi_and_argument_case() {
    let mut compared = 0;
    for ring in Ring::ALL {
        for options in all_options(ring) {
            let policy = builtin::policy(ring, &options);
            let [tree, list] = both_compilers(&policy);
            let compiled = [tree, list, Filters::for_ring(ring, &options).unwrap()];
            let everywhere = Rule::Always(policy.unknown);
            for number in numbers(&compiled) {
                let rule = policy.rules.get(&number).unwrap_or(&everywhere);
                for args in argument_cases(rule) {
                    let call = Call::new(options.arch, number, args);
                    let expected = Verdict::from(policy.decide(&call));
                    for filters in &compiled {
                        assert_eq!(filters.decide(&call), expected, "{ring} {options:?} {call:x?} {filters:?}");
                    }
                    compared += 1;
                }
                for audit_arch in ABIS.into_iter().filter(|abi| *abi != options.arch.audit()) {
                    let call = Call { number, audit_arch, args: [0; 6] };
                    for filters in &compiled {
                        assert_eq!(filters.decide(&call), Verdict::KillProcess, "{ring} {call:x?}");
                    }
                }
            }
        }
    }
    assert!(compared > 100_000, "only {compared} cases");
}

fn a_policy() -> impl Strategy<Value = Policy> {
    // Policies that no ring has: other shapes of rules, other gaps, several checks for one call.
    let test = prop_oneof![
        (any::<u32>(), prop::collection::vec(any::<u32>(), 1..4)).prop_map(|(mask, values)| Test::OneOf {
            mask,
            values: values.into_iter().map(|value| value & mask).collect()
        }),
        prop::collection::vec(0u32..4, 1..3).prop_map(|values| Test::NoneOf { mask: 3, values }),
        prop::collection::vec(0u32..4, 1..3).prop_map(|values| Test::none_of(&values)),
        prop_oneof![1u32..8, any::<u32>().prop_map(|bits| bits | 1)].prop_map(Test::AnyBit),
        (1u32..8).prop_map(Test::NoBit),
        (0u32..8).prop_map(Test::Above),
        (0u32..8).prop_map(Test::AtMost),
        (0u64..8).prop_map(|low| Test::Whole(low | 1 << 32)),
        (0u64..8).prop_map(|low| Test::NotWhole(low | 1 << 32)),
    ];
    let condition = (0u8..3, test).prop_map(|(arg, test)| policy::Condition::new(arg, test));
    let clauses = prop::collection::vec(prop::collection::vec(condition, 1..4), 1..4);
    let check = prop_oneof![clauses.clone().prop_map(Check::RefuseWhen), clauses.clone().prop_map(Check::RefuseUnless)];
    let (creating, observed) = (policy::Notified::Creating, policy::Notified::Observed);
    let ask = prop_oneof![
        clauses.clone().prop_map(move |clauses| Check::AskWhen(clauses, creating)),
        clauses.prop_map(move |clauses| Check::AskUnless(clauses, observed)),
        Just(Check::ask(creating)),
    ];
    let checks = (prop::collection::vec(check, 0..3), prop::collection::vec(ask, 0..3))
        .prop_map(|(checks, asks)| checks.into_iter().chain(asks).collect::<Vec<_>>())
        .prop_filter("a rule that checks nothing", |checks| !checks.is_empty());
    let refuse = |refusal| Rule::Always(policy::Decision::Refuse(refusal));
    let rule = prop_oneof![
        4 => Just(Rule::Always(policy::Decision::Allow)),
        4 => Just(refuse(policy::Refusal::NotPermitted)),
        1 => Just(refuse(policy::Refusal::NoSuchCall)),
        2 => checks.prop_map(Rule::Checked),
        1 => Just(Rule::Always(policy::Decision::Notify(creating))),
    ];
    let checked = prop_oneof![
        Just(policy::Decision::Refuse(policy::Refusal::NotPermitted)),
        Just(policy::Decision::Notify(policy::Notified::Refused(policy::Refusal::NotPermitted))),
    ];
    (prop::collection::btree_map(0u32..48, rule, 0..24), checked).prop_map(|(rules, checked)| Policy {
        arch: Arch::X86_64,
        rules,
        unknown: policy::Decision::Refuse(policy::Refusal::NoSuchCall),
        checked,
    })
}

/// Mostly small numbers, where the tests above turn over, also with dirt in the high half.
fn a_register() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..10, (0u64..10).prop_map(|low| low | 1 << 32), any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compilers_answer_as_the_policy_does_for_policies_that_no_ring_has(
        policy in a_policy(),
        args in prop::collection::vec([a_register(), a_register(), a_register()], 20),
    ) {
        // Larger ones may be out of reach of BPF's jumps, which is an error and not a wrong program.
        let compiled: Vec<Filters> = [tree::compile(&policy).map(|program| vec![program]), denylist::compile(&policy)]
            .into_iter()
            .filter_map(|programs| programs.ok().map(|programs| Filters { programs }))
            .collect();
        for number in 0..64 {
            for &[a, b, c] in &args {
                let call = Call::new(Arch::X86_64, number, [a, b, c, 0, 0, 0]);
                for filters in &compiled {
                    prop_assert_eq!(filters.decide(&call), Verdict::from(policy.decide(&call)), "{:x?}", call);
                }
            }
        }
    }

    #[test]
    fn rings_answer_as_their_policies_do_to_random_calls(
        ring in prop::sample::select(&Ring::ALL[..]),
        choice in any::<prop::sample::Index>(),
        calls in prop::collection::vec((prop_oneof![0u32..480, any::<u32>()], any::<[u64; 6]>()), 50),
    ) {
        let options = *choice.get(&all_options(ring));
        let (filters, policy) = (Filters::for_ring(ring, &options).unwrap(), builtin::policy(ring, &options));
        for (number, args) in calls {
            let call = Call::new(options.arch, number, args);
            prop_assert_eq!(filters.decide(&call), Verdict::from(policy.decide(&call)));
        }
    }

    #[test]
    fn words_that_are_no_program_are_refused_and_others_end(words in prop::collection::vec(any::<u64>(), 0..12)) {
        if let Ok(program) = Program::try_from(words) {
            let (_, steps) = program.run(&Call::new(Arch::X86_64, 0, [0; 6]));
            prop_assert!(steps <= program.instructions());
        }
    }
}
