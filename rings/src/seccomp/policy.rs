//! What a ring's filter shall answer, call by call: the value between the rings' tables and BPF.
//!
//! A policy can be asked directly ([`Policy::decide`]), in the plainest way there is. The compilers are tested against
//! that answer, so that no cleverness of a compiler can change what a ring means. Arguments reach a filter as 64-bit
//! registers, but the kernel reads an `int` from the low half alone: a condition compares the low 32 bits unless it
//! says [`Test::Whole`], else `1 << 32 | AF_VSOCK` would be another family to us and the same one to the kernel.

use std::collections::BTreeMap;

use super::Arch;

/// A call as a filter sees it: `struct seccomp_data` of linux/seccomp.h without the instruction pointer, which no rule
/// of ours looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The call's number; bit 30 is set for x32.
    pub number: u32,
    /// `AUDIT_ARCH_*` of the way the call came in (`int 0x80` from a 64-bit program comes in as i386).
    pub audit_arch: u32,
    /// The six argument registers, whole, whether the call uses them or not.
    pub args: [u64; 6],
}

impl Call {
    /// A call through the ordinary entry of `arch`.
    #[must_use]
    pub fn new(arch: Arch, number: u32, args: [u64; 6]) -> Call {
        Call { number, audit_arch: arch.audit(), args }
    }
}

/// How a call is turned down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// EPERM: known, and not for this ring.
    NotPermitted,
    /// ENOSYS: as if this kernel didn't have it, so that the caller takes the older way.
    NoSuchCall,
    /// SIGSYS for the whole process: the call came in by a foreign ABI, whose numbers mean something else.
    KillProcess,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[must_use]
pub enum Decision {
    /// It reaches the kernel.
    Allow,
    /// It doesn't.
    Refuse(Refusal),
    /// It waits for the filter's listener to answer.
    Notify(Notified),
}

/// Why a listener is asked. The kernel doesn't tell it: whoever listens asks the policy again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notified {
    /// To answer what the filter would have answered, and to tell of it.
    Refused(Refusal),
    /// The call may make a name: which one is for the listener to look at, and to make.
    Creating,
    /// To tell of it and to let it go on.
    Observed,
}

/// A question to one argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    /// The low 32 bits, under the mask, are one of these.
    OneOf {
        /// Which bits count.
        mask: u32,
        /// What they may be; none has a bit outside the mask.
        values: Vec<u32>,
    },
    /// The low 32 bits, under the mask, are none of these.
    NoneOf {
        /// Which bits count.
        mask: u32,
        /// What they may not be; none has a bit outside the mask.
        values: Vec<u32>,
    },
    /// At least one of these low bits is set.
    AnyBit(u32),
    /// None of these low bits is set.
    NoBit(u32),
    /// The low 32 bits, unsigned, are greater.
    Above(u32),
    /// The low 32 bits, unsigned, are not greater.
    AtMost(u32),
    /// All 64 bits are equal.
    Whole(u64),
    /// Some of the 64 bits differ.
    NotWhole(u64),
}

impl Test {
    /// The low 32 bits are one of these.
    #[must_use]
    pub fn one_of(values: &[u32]) -> Test {
        Test::OneOf { mask: u32::MAX, values: values.to_vec() }
    }

    /// The low 32 bits are none of these.
    #[must_use]
    pub fn none_of(values: &[u32]) -> Test {
        Test::NoneOf { mask: u32::MAX, values: values.to_vec() }
    }

    /// Whether an argument register passes.
    #[must_use]
    pub fn holds(&self, register: u64) -> bool {
        // The truncation is the point: it is what the kernel does with an `int`.
        let low = register as u32;
        match self {
            Test::OneOf { mask, values } => values.contains(&(low & mask)),
            Test::NoneOf { mask, values } => !values.contains(&(low & mask)),
            Test::AnyBit(bits) => low & bits != 0,
            Test::NoBit(bits) => low & bits == 0,
            Test::Above(limit) => low > *limit,
            Test::AtMost(limit) => low <= *limit,
            Test::Whole(value) => register == *value,
            Test::NotWhole(value) => register != *value,
        }
    }

    /// The test that holds exactly where this one doesn't.
    #[must_use]
    pub fn negated(&self) -> Test {
        match self.clone() {
            Test::OneOf { mask, values } => Test::NoneOf { mask, values },
            Test::NoneOf { mask, values } => Test::OneOf { mask, values },
            Test::AnyBit(bits) => Test::NoBit(bits),
            Test::NoBit(bits) => Test::AnyBit(bits),
            Test::Above(limit) => Test::AtMost(limit),
            Test::AtMost(limit) => Test::Above(limit),
            Test::Whole(value) => Test::NotWhole(value),
            Test::NotWhole(value) => Test::Whole(value),
        }
    }
}

/// A test of one argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// What is asked of it.
    pub test: Test,
}

impl Condition {
    /// Asks `test` of argument `arg` (0 to 5).
    #[must_use]
    pub fn new(arg: u8, test: Test) -> Condition {
        assert!(arg < 6, "a call has six arguments");
        if let Test::OneOf { mask, values } | Test::NoneOf { mask, values } = &test {
            assert!(!values.is_empty() && values.iter().all(|value| value & !mask == 0), "a value that can occur");
        }
        Condition { arg, test }
    }

    fn holds(&self, args: &[u64; 6]) -> bool {
        self.test.holds(args[usize::from(self.arg)])
    }
}

/// Conditions that hold together.
pub type Clause = Vec<Condition>;

/// A look at a call's arguments that may end it: turned down (as the policy turns down what it looks at), or left to the
/// listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Check {
    /// Turned down when any clause holds.
    RefuseWhen(Vec<Clause>),
    /// Turned down unless some clause holds.
    RefuseUnless(Vec<Clause>),
    /// The listener's when any clause holds.
    AskWhen(Vec<Clause>, Notified),
    /// The listener's unless some clause holds.
    AskUnless(Vec<Clause>, Notified),
}

impl Check {
    /// The listener's always.
    #[must_use]
    pub fn ask(what: Notified) -> Check {
        Check::AskUnless(Vec::new(), what)
    }

    /// Whether the check ends the call, one way or the other.
    #[must_use]
    pub fn catches(&self, args: &[u64; 6]) -> bool {
        let any = |clauses: &[Clause]| clauses.iter().any(|clause| clause.iter().all(|c| c.holds(args)));
        match self {
            Check::RefuseWhen(clauses) | Check::AskWhen(clauses, _) => any(clauses),
            Check::RefuseUnless(clauses) | Check::AskUnless(clauses, _) => !any(clauses),
        }
    }

    /// Whom the listener is asked for; `None` for a check that turns down.
    #[must_use]
    pub fn asks(&self) -> Option<Notified> {
        match self {
            Check::RefuseWhen(_) | Check::RefuseUnless(_) => None,
            Check::AskWhen(_, what) | Check::AskUnless(_, what) => Some(*what),
        }
    }

    /// The clauses of which one must hold for the check to end the call, whichever way it is written.
    #[must_use]
    pub fn catching_clauses(&self) -> Vec<Clause> {
        match self {
            Check::RefuseWhen(clauses) | Check::AskWhen(clauses, _) => clauses.clone(),
            // not (a and b or c and d) = (not a or not b) and (not c or not d), multiplied out again.
            Check::RefuseUnless(clauses) | Check::AskUnless(clauses, _) => {
                clauses.iter().fold(vec![Clause::new()], |products, clause| {
                    products
                        .iter()
                        .flat_map(|product| {
                            clause.iter().map(move |condition| {
                                let negated = Condition::new(condition.arg, condition.test.negated());
                                product.iter().cloned().chain([negated]).collect()
                            })
                        })
                        .collect()
                })
            }
        }
    }
}

/// What a policy says about one number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Always the same answer.
    Always(Decision),
    /// Allowed unless one of these ends it; the first that does so counts. Those that turn down come before those that ask.
    Checked(Vec<Check>),
}

/// The answer to every call: by number for those of the table, ENOSYS for the rest, death for foreign ABIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The ABI that the numbers belong to.
    pub arch: Arch,
    /// A rule for each number of the architecture's table.
    pub rules: BTreeMap<u32, Rule>,
    /// The answer to a number without a rule: unassigned, newer than the table, or x32.
    pub unknown: Decision,
    /// What a check that turns down answers.
    pub checked: Decision,
}

impl Policy {
    /// The answer to `call`, by looking it up.
    pub fn decide(&self, call: &Call) -> Decision {
        if call.audit_arch != self.arch.audit() {
            return Decision::Refuse(Refusal::KillProcess);
        }
        match self.rules.get(&call.number) {
            None => self.unknown,
            Some(Rule::Always(decision)) => *decision,
            Some(Rule::Checked(checks)) => match checks.iter().find(|check| check.catches(&call.args)) {
                None => Decision::Allow,
                Some(check) => check.asks().map_or(self.checked, Decision::Notify),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<Test> {
        vec![
            Test::one_of(&[1, 2]),
            Test::OneOf { mask: 0xf, values: vec![1, 2] },
            Test::AnyBit(0o6000),
            Test::Above(76),
            Test::Whole(0x1_0000_0001),
        ]
    }

    #[test]
    fn high_half_of_an_int_argument_counts_for_nothing() {
        for test in tests().into_iter().filter(|test| !matches!(test, Test::Whole(_))) {
            for low in [0u64, 1, 2, 17, 0o4000, 77, 0xffff_ffff] {
                assert_eq!(test.holds(low), test.holds(low | 0xdead_beef << 32), "{test:?} {low}");
            }
        }
        assert!(!Test::Whole(1).holds(1 | 1 << 32));
    }

    #[test]
    fn a_negated_test_holds_exactly_where_the_test_does_not() {
        for test in tests() {
            for register in [0u64, 1, 2, 17, 0o4000, 76, 77, 0xffff_ffff, 0x1_0000_0001, u64::MAX] {
                assert_ne!(test.holds(register), test.negated().holds(register), "{test:?} {register:#x}");
            }
            assert_eq!(test.negated().negated(), test);
        }
    }

    #[test]
    fn refuse_unless_multiplies_out_to_the_same_refusals() {
        let clauses = vec![
            vec![Condition::new(0, Test::one_of(&[1]))],
            vec![
                Condition::new(0, Test::one_of(&[2, 10])),
                Condition::new(1, Test::OneOf { mask: 0xf, values: vec![1] }),
            ],
        ];
        let check = Check::RefuseUnless(clauses);
        let multiplied = Check::RefuseWhen(check.catching_clauses());
        for family in 0..12 {
            for kind in [0, 1, 2, 3, 0x801, 0x80001] {
                let args = [family, kind, 0, 0, 0, 0];
                assert_eq!(check.catches(&args), multiplied.catches(&args), "{args:?}");
            }
        }
    }
}
