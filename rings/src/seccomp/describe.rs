//! A ring's filter in words: for `status`, the docs and whoever asks why a call was refused.

use std::collections::BTreeSet;

use serde::Serialize;

use super::policy::{Call, Decision, Refusal, Rule};
use super::{Names, Notify, Options, builtin, checks, groups};
use crate::ring::Ring;

/// What a ring's filter does, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The ring.
    pub ring: Ring,
    /// Groups of which at least one call is allowed.
    pub allowed: Vec<GroupLine>,
    /// Groups that are refused.
    pub refused: Vec<GroupLine>,
    /// Calls whose arguments are looked at.
    pub checked: Vec<CheckLine>,
    /// How many calls of the table are allowed whatever their arguments.
    pub allowed_calls: usize,
    /// How many are allowed depending on their arguments.
    pub checked_calls: usize,
    /// How many are refused.
    pub refused_calls: usize,
}

/// A group of calls with one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupLine {
    /// The group's name.
    pub name: &'static str,
    /// Why it is allowed or refused.
    pub why: &'static str,
    /// The errno of a refusal.
    pub errno: Option<&'static str>,
    /// Its calls, those that the architecture has.
    pub calls: Vec<&'static str>,
}

/// A check of arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// Whose arguments are looked at.
    pub calls: &'static [&'static str],
    /// What is refused.
    pub refuses: &'static str,
    /// Why.
    pub why: &'static str,
}

/// Describes the filter of `ring` under `options`.
#[must_use]
pub fn describe(ring: Ring, options: &Options) -> Description {
    // Who answers a refused call changes nothing about what is refused.
    let options = &Options { notify: Notify::Off, names: Names::Free, ..*options };
    let policy = builtin::policy(ring, options);
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for group in groups::GROUPS {
        let known = group.names().filter(|call| options.arch.number(call).is_some());
        let (opened, calls): (Vec<_>, Vec<_>) =
            known.partition(|call| groups::opened_for_nested(call, ring, options.nested));
        if !opened.is_empty() {
            let why = "sandboxes of its own, which an operator allowed";
            allowed.push(GroupLine { name: group.name, why, errno: None, calls: opened });
        }
        if calls.is_empty() {
            continue;
        }
        let refusal =
            if group.is_closed_by(options.sockets) { Some(Refusal::NotPermitted) } else { group.refused.in_ring(ring) };
        let errno = refusal.map(|refusal| match refusal {
            Refusal::NotPermitted => "EPERM",
            Refusal::NoSuchCall => "ENOSYS",
            Refusal::KillProcess => "SIGSYS",
        });
        let line = GroupLine { name: group.name, why: group.why, errno, calls };
        if refusal.is_some() { refused.push(line) } else { allowed.push(line) }
    }
    let checked: Vec<CheckLine> = checks::ARGUMENT_RULES
        .iter()
        .filter(|rule| rule.applies_in(ring) && (rule.check)(options).is_some())
        .map(|rule| CheckLine { calls: rule.calls, refuses: rule.refuses, why: rule.why })
        .collect();
    let count = |wanted: fn(&Rule) -> bool| policy.rules.values().filter(|rule| wanted(rule)).count();
    Description {
        ring,
        allowed,
        refused,
        checked,
        allowed_calls: count(|rule| matches!(rule, Rule::Always(Decision::Allow))),
        checked_calls: count(|rule| matches!(rule, Rule::Checked(_))),
        refused_calls: count(|rule| matches!(rule, Rule::Always(Decision::Refuse(_)))),
    }
}

/// Why `ring` refused this very call: the group's reason, or that of the argument check that caught it.
#[must_use]
pub fn reason(ring: Ring, options: &Options, call: &Call) -> Option<&'static str> {
    let name = options.arch.name(call.number)?;
    let group = groups::of(name)?;
    if group.refused.in_ring(ring).is_some() || group.is_closed_by(options.sockets) {
        return Some(group.why);
    }
    checks::of(name, ring)
        .find(|rule| (rule.check)(options).is_some_and(|check| check.catches(&call.args)))
        .map(|rule| rule.why)
}

/// Why `ring` refuses a call, by name: the group's reason, or those of its argument checks.
#[must_use]
pub fn reasons(call: &str, ring: Ring) -> Vec<&'static str> {
    let group = groups::of(call).filter(|group| group.refused.in_ring(ring).is_some()).map(|group| group.why);
    let checks = checks::of(call, ring).map(|rule| rule.why);
    group.into_iter().chain(checks).collect::<BTreeSet<_>>().into_iter().collect()
}
