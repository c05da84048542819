//! What a ring has of the network: in R3 nothing, or the listeners for its calls to models.
//!
//! Model access is the one thing that R3 can have beside its control socket, and it is no network: TCP over IPv4 that only calls,
//! in a namespace where nothing stands but the listeners that the supervisor serves. Without a namespace of its own the same calls
//! would reach the host's services, so there is no access then, whatever was granted.

use serde::{Deserialize, Serialize};

use super::protections::{Facts, Judgement, namespace_help, why_no_namespaces};
use crate::host::Host;
use crate::report::Protection;
use crate::ring::Ring;
use crate::spec::{Listen, ModelAccess, Spec};

/// First Landlock ABI with rules on TCP.
const TCP_ABI: u32 = 4;

/// What Landlock lets be done by TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tcp {
    /// Whatever the namespace and the filter let through: no rules.
    Unruled,
    /// Connecting to these ports, and giving a socket none. Without a port TCP is refused altogether.
    Calls(Vec<u16>),
}

/// Whether R3 really gets its listeners.
pub(super) fn models(spec: &Spec, host: &Host) -> ModelAccess {
    let has = spec.ring == Ring::R3 && host.namespaces.is_yes() && !spec.listen.is_empty();
    if has { spec.models } else { ModelAccess::None }
}

/// Whether R3 was granted its listeners and there is no network of its own to have them in.
pub(super) fn lacks_a_place(spec: &Spec, host: &Host) -> bool {
    let granted = spec.models == ModelAccess::Granted && !spec.listen.is_empty();
    spec.ring == Ring::R3 && granted && !host.namespaces.is_yes()
}

/// The listeners in the ring's own network: none where it has none, as in R0, which has the host's, and on hosts without namespaces,
/// where the filter refuses its sockets.
pub(super) fn listen(spec: &Spec, host: &Host) -> Vec<Listen> {
    if !host.namespaces.is_yes() {
        return Vec::new();
    }
    match (spec.ring, models(spec, host)) {
        (Ring::R1 | Ring::R2, _) | (Ring::R3, ModelAccess::Granted) => spec.listen.clone(),
        (Ring::R0, _) | (Ring::R3, ModelAccess::None) => Vec::new(),
    }
}

/// Landlock's rules on TCP.
pub(super) fn tcp(spec: &Spec, host: &Host, abi: u32) -> Tcp {
    if spec.ring != Ring::R3 || abi < TCP_ABI {
        return Tcp::Unruled;
    }
    Tcp::Calls(listen(spec, host).iter().map(|listen| listen.address.port()).collect())
}

/// What holds R3 to its calls, in words: by the namespace alone where the kernel has no rules on TCP.
pub(super) fn in_words(listen: &[Listen], tcp: Option<&Tcp>, abi: Option<u32>) -> String {
    let ports: Vec<String> = listen.iter().map(|listen| listen.address.port().to_string()).collect();
    let ports = ports.join(", ");
    match (tcp, abi) {
        (Some(Tcp::Calls(_)), Some(abi)) => format!("Landlock ABI {abi}: model calls to port {ports} alone"),
        _ => format!("model calls to port {ports}: nothing else listens in that namespace"),
    }
}

/// With model access R3 has no network but what the supervisor serves: that is what is promised then, and not more.
pub(super) fn promised(protection: Protection, facts: &Facts<'_>) -> Protection {
    match (protection, models(facts.spec, facts.host)) {
        (Protection::NoNetwork, ModelAccess::Granted) => Protection::NetworkIsolation,
        _ => protection,
    }
}

/// Whether it has no network but what the supervisor serves, or none at all, and by what.
pub(super) fn judged(facts: &Facts<'_>) -> Judgement {
    let mut by = Vec::new();
    if facts.host.namespaces.is_yes() {
        by.push("network namespace".to_owned());
    }
    if models(facts.spec, facts.host) == ModelAccess::Granted {
        if facts.filters {
            by.push("seccomp: sockets that only call".to_owned());
        }
        let (tcp, abi) = facts.landlock.map(|landlock| (&landlock.tcp, landlock.abi)).unzip();
        by.push(in_words(&facts.spec.listen, tcp, abi));
        return Ok(by);
    }
    if facts.filters && (facts.spec.ring == Ring::R3 || !facts.host.namespaces.is_yes()) {
        // Without a namespace the filter refuses every socket but AF_UNIX pairs: stricter than the ring, never looser.
        by.push("seccomp: no sockets".to_owned());
        if lacks_a_place(facts.spec, facts.host) {
            by.push("no model either: that takes a network namespace".to_owned());
        }
    }
    if by.is_empty() {
        return Err((
            format!("needs a network namespace ({}) or seccomp", why_no_namespaces(facts)),
            namespace_help(facts),
        ));
    }
    if !facts.host.namespaces.is_yes() && facts.spec.ring != Ring::R3 {
        return Err((
            format!("needs a network namespace ({}); seccomp refuses every socket instead", why_no_namespaces(facts)),
            namespace_help(facts),
        ));
    }
    Ok(by)
}
