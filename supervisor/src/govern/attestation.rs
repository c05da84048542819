//! An operator's word for one plan and one program, for at most a day.
//!
//! Bound to the SHA-256 of both, so that neither a changed file nor a replaced program runs under it.

use serde::{Deserialize, Serialize};

use super::ring::Attested;

/// The longest an attestation holds, in milliseconds: 24 hours.
pub const TTL_MOST_MS: i64 = 24 * 3600 * 1000;

/// What was executed, by hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// SHA-256 of the resolved plan, in hex.
    pub plan: String,
    /// SHA-256 of the program and its script, in hex; `None` when it couldn't be read.
    pub program: Option<String>,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// What it is about.
    pub subject: Subject,
    /// The operator's uid.
    pub by: u32,
    /// Why.
    pub reason: String,
    /// Milliseconds since the epoch.
    pub made_ms: i64,
    /// Milliseconds since the epoch.
    pub until_ms: i64,
}

/// Whether `attestation` covers `subject` at `now_ms`.
#[must_use]
pub fn judge(attestation: Option<&Attestation>, subject: &Subject, now_ms: i64) -> Attested {
    let Some(attestation) = attestation else { return Attested::No("none was made") };
    let Attestation { made_ms, until_ms, .. } = *attestation;
    if subject.program.is_none() {
        return Attested::No("the program can't be read");
    }
    if attestation.subject.plan != subject.plan {
        return Attested::No("the plan has changed since");
    }
    if attestation.subject.program != subject.program {
        return Attested::No("the program has changed since");
    }
    if until_ms.saturating_sub(made_ms) > TTL_MOST_MS {
        return Attested::No("it was made for more than 24 hours");
    }
    // A clock that was set back makes an attestation of the future: not valid either.
    if now_ms < made_ms || now_ms >= until_ms {
        return Attested::No("it has expired");
    }
    Attested::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(plan: &str, program: &str) -> Subject {
        Subject { plan: plan.to_owned(), program: Some(program.to_owned()) }
    }

    fn made() -> Attestation {
        Attestation { subject: subject("p", "q"), by: 0, reason: "r".to_owned(), made_ms: 1000, until_ms: 2000 }
    }

    #[test]
    fn an_attestation_holds_for_its_plan_its_program_and_its_time_only() {
        let ok = made();
        assert_eq!(judge(Some(&ok), &subject("p", "q"), 1000), Attested::Yes);
        for (subject, now) in [
            (subject("x", "q"), 1500),
            (subject("p", "x"), 1500),
            (subject("p", "q"), 2000),
            (subject("p", "q"), 999),
            (Subject { plan: "p".to_owned(), program: None }, 1500),
        ] {
            assert_ne!(judge(Some(&ok), &subject, now), Attested::Yes, "{subject:?} at {now}");
        }
        let long = Attestation { until_ms: 1001 + TTL_MOST_MS, ..made() };
        assert_ne!(judge(Some(&long), &subject("p", "q"), 1500), Attested::Yes);
        assert_ne!(judge(None, &subject("p", "q"), 1500), Attested::Yes);
    }
}
