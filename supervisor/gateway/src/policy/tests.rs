//! Decisions: tables of single rules, and what must hold of all policies.
#![allow(clippy::unwrap_used)]

mod attacks;
mod laws;
mod lists;
mod words;

use hyper::Method;

use super::spec::{CeilingSpec, EntrySpec};
use super::*;
use crate::host::Authority;

/// Entries as somebody writes them in YAML's flow form, which is JSON.
fn entries(json: &str) -> Vec<EntrySpec> {
    serde_json::from_str(json).unwrap()
}

fn ceiling(json: &str) -> CeilingSpec {
    serde_json::from_str(json).unwrap()
}

/// Everything that an operator can allow without naming an address.
const WIDE: &str = r#"{"network": [{"host": "*", "ports": [22, 80, 443, 8443]}]}"#;

fn listed(agent: &str, operator: &str) -> Policy {
    Policy::new(1, Reach::Listed, &entries(agent), &ceiling(operator)).unwrap()
}

fn open(agent: &str, operator: &str) -> Policy {
    Policy::new(1, Reach::Open, &entries(agent), &ceiling(operator)).unwrap()
}

fn connect(to: &str) -> Ask {
    Ask::new(Authority::parse(to).unwrap(), Via::Connect)
}

fn by(via: Via, to: &str) -> Ask {
    Ask::new(Authority::parse(to).unwrap(), via)
}

fn http(method: &str, to: &str, path: &str) -> Ask {
    by(Via::Http { method: Method::from_bytes(method.as_bytes()).unwrap(), path: path.to_owned() }, to)
}

fn denied(policy: &Policy, ask: &Ask) -> (String, &'static str) {
    match policy.decide(ask) {
        Verdict::Denied(denial) => (denial.rule.to_string(), denial.reason.word()),
        Verdict::Allowed(permit) => panic!("{ask} is allowed: {permit:?}"),
    }
}

fn allowed(policy: &Policy, ask: &Ask) -> Permit {
    match policy.decide(ask) {
        Verdict::Allowed(permit) => permit,
        Verdict::Denied(denial) => panic!("{ask} is denied: {denial}"),
    }
}

fn is_allowed(policy: &Policy, ask: &Ask) -> bool {
    matches!(policy.decide(ask), Verdict::Allowed(_))
}
