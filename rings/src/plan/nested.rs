//! Sandboxes inside a ring: where an operator's word for them takes effect, and what it opens.

use super::protections::Facts;
use crate::host::{Host, Privilege};
use crate::ring::Ring;
use crate::seccomp::Nested;
use crate::spec::Spec;

/// Whether this launch may build sandboxes: asked for, in R1 or R2, behind namespaces of its own, and not as the uid that owns the
/// host's /proc, whose writable files would be the agent's then.
pub(super) fn given(spec: &Spec, host: &Host) -> Nested {
    let owns_proc = matches!(host.privilege, Privilege::User { uid: 0, .. });
    let fits = matches!(spec.ring, Ring::R1 | Ring::R2) && host.namespaces.is_yes() && !owns_proc;
    if fits { spec.nested } else { Nested::Refused }
}

/// For the report, beside the filter: what it lets through by the operator's word, or that the word has no effect here.
pub(super) fn in_words(facts: &Facts<'_>) -> Option<String> {
    match (facts.spec.nested, given(facts.spec, facts.host)) {
        (Nested::Refused, _) => None,
        (Nested::Allowed, Nested::Allowed) => Some(
            "open by the operator's file: namespaces and mounts for sandboxes of its own, without Landlock, with a whole /proc, \
             and names that are not there at launch"
                .to_owned(),
        ),
        (Nested::Allowed, Nested::Refused) => {
            Some("sandboxes of its own stay refused (that takes R1 or R2 with namespaces, and not uid 0)".to_owned())
        }
    }
}
