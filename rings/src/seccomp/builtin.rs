//! The rings' policies, put together from the groups and the argument checks: the one place that says what a ring's
//! filter answers.

use std::collections::BTreeMap;

use super::options::Options;
use super::policy::{Decision, Notified, Policy, Refusal, Rule};
use super::{asks, checks, groups};
use crate::ring::Ring;

/// What `ring` answers to every call.
///
/// Refused calls that this kernel generation knows get EPERM; unassigned and newer numbers, x32 among them, get ENOSYS
/// in every ring: a list can't rule on what it doesn't know, and ENOSYS is what programs are prepared for. x32 isn't
/// answered with a signal because -1, which programs pass for calls that their headers lack, has bit 30 set as well.
#[must_use]
pub fn policy(ring: Ring, options: &Options) -> Policy {
    let rules: BTreeMap<u32, Rule> =
        options.arch.calls().map(|(number, name)| (number, rule(name, ring, options))).collect();
    let checked = refusal(Refusal::NotPermitted, ring, options);
    Policy { arch: options.arch, rules, unknown: Decision::Refuse(Refusal::NoSuchCall), checked }
}

/// What no ring may ever do, R0's list, answered as R1 answers: the wall behind R1's own.
#[must_use]
pub fn never(options: &Options) -> Policy {
    let mut policy = policy(Ring::R0, options);
    let answer = refusal(Refusal::NotPermitted, Ring::R1, options);
    for rule in policy.rules.values_mut().filter(|rule| **rule == Rule::Always(policy.checked)) {
        *rule = Rule::Always(answer);
    }
    policy.checked = answer;
    policy
}

/// How a ring answers what it refuses. R0 has no listener: programs there may want one of their own, and a task has one at most.
fn refusal(refusal: Refusal, ring: Ring, options: &Options) -> Decision {
    if refusal == Refusal::NotPermitted && options.need_listener() && ring != Ring::R0 {
        Decision::Notify(Notified::Refused(refusal))
    } else {
        Decision::Refuse(refusal)
    }
}

fn rule(name: &str, ring: Ring, options: &Options) -> Rule {
    let refused = |how| Rule::Always(refusal(how, ring, options));
    let Some(group) = groups::of(name) else {
        // A test holds that there is no such call; if one slips through it is refused, not allowed.
        return refused(Refusal::NotPermitted);
    };
    if groups::opened_for_nested(name, ring, options.nested) {
        return Rule::Always(Decision::Allow);
    }
    if let Some(how) = group.refused.in_ring(ring) {
        return refused(how);
    }
    if group.is_closed_by(options.sockets) {
        return refused(Refusal::NotPermitted);
    }
    let checks = checks::of(name, ring).filter_map(|rule| (rule.check)(options));
    let checks: Vec<_> = checks.chain(asks::of(name, ring, options)).collect();
    if checks.is_empty() { Rule::Always(Decision::Allow) } else { Rule::Checked(checks) }
}
