//! The rings' policies, put together from the groups and the argument checks: the one place that says what a ring's
//! filter answers.

use std::collections::BTreeMap;

use super::options::{Options, Sockets};
use super::policy::{Decision, Policy, Refusal, Rule};
use super::{checks, groups};
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
    Policy { arch: options.arch, rules, unknown: Decision::Refuse(Refusal::NoSuchCall) }
}

fn rule(name: &str, ring: Ring, options: &Options) -> Rule {
    let Some(group) = groups::of(name) else {
        // A test holds that there is no such call; if one slips through it is refused, not allowed.
        return Rule::Always(Decision::Refuse(Refusal::NotPermitted));
    };
    if groups::opened_for_nested(name, ring, options.nested) {
        return Rule::Always(Decision::Allow);
    }
    if let Some(refusal) = group.refused.in_ring(ring) {
        return Rule::Always(Decision::Refuse(refusal));
    }
    if group.name == groups::NAMED_SOCKETS && options.sockets == Sockets::UnixPairs {
        return Rule::Always(Decision::Refuse(Refusal::NotPermitted));
    }
    let checks: Vec<_> = checks::of(name, ring).filter_map(|rule| (rule.check)(options)).collect();
    if checks.is_empty() { Rule::Always(Decision::Allow) } else { Rule::Checked(checks) }
}
