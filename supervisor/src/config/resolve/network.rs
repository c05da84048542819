//! The `network` entries: each must be covered by the operator's, and those that name an address of loopback are listened at inside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use agt_gateway::host::Host;
use agt_gateway::policy::spec::{CeilingSpec, EntrySpec};
use agt_gateway::policy::{BadPolicy, Lacks, RuleId, shortfalls};
use agt_rings::Ring;

use super::Context;
use crate::config::diagnostic::Problem;
use crate::config::grant::{Right, flow};
use crate::config::plan::{Forward, NetworkPlan, Openness};
use crate::config::spec::{HostPort, Target};
use crate::config::tree::KeyPath;

/// Resolves the ways out.
pub(super) fn resolve(context: &mut Context<'_>) -> (Vec<Forward>, NetworkPlan) {
    let entries = context.spec.network.clone();
    let mut ceiling =
        CeilingSpec { network: context.rights.network.clone(), addresses: context.rights.addresses.clone() };
    match shortfalls(&entries, &ceiling) {
        Ok(found) => {
            for short in found {
                let entry = &entries[short.index];
                refuse(context, short.index, entry, short.lacks);
                // In R0 the attestation stands for the operator's line; elsewhere the refusal keeps the plan from being.
                ceiling.network.push(entry.clone());
            }
        }
        Err(bad) => {
            let path = place(&KeyPath::of("network"), &bad);
            let text = wrong(&bad);
            context.problem(&path, Problem::config(text).label("no entry"));
        }
    }
    let forwards = forwards(context, &entries);
    context.notes.extend(entries.iter().filter_map(past_the_proxy));
    if context.ceiling == Ring::R3 {
        return (Vec::new(), NetworkPlan::default());
    }
    let openness = if context.rights.known && !Ring::R1.is_more_privileged_than(context.ceiling) {
        Openness::PublicInR1
    } else {
        Openness::Listed
    };
    (forwards, NetworkPlan { entries, ceiling, openness })
}

/// An entry for this host's loopback by `host`: programs ask their own loopback for it, because NO_PROXY says so.
fn past_the_proxy(entry: &EntrySpec) -> Option<String> {
    let host = entry.host.as_ref()?.to_string();
    let address = match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => address,
        Err(_) if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    let port = entry.port.or(entry.ports.first().copied()).map_or(443, |port| port.number());
    let to = SocketAddr::new(address, port);
    Some(format!(
        "programs reach {host} past the proxy, on the agent's own loopback (NO_PROXY): `tcp: {to}` brings this host's port there"
    ))
}

/// Where in a file the entry stands that makes no policy.
pub(in crate::config) fn place(list: &KeyPath, bad: &BadPolicy) -> KeyPath {
    match bad {
        BadPolicy::TooMany { .. } => list.clone(),
        BadPolicy::Entry { index, .. } => list.item(*index),
    }
}

/// What is wrong with it.
pub(in crate::config) fn wrong(bad: &BadPolicy) -> String {
    match bad {
        BadPolicy::TooMany { .. } => bad.to_string(),
        BadPolicy::Entry { wrong, .. } => wrong.to_string(),
    }
}

/// Whether an error is about the operator's list.
pub(in crate::config) fn is_operators(bad: &BadPolicy) -> bool {
    matches!(bad, BadPolicy::Entry { rule: RuleId::Operator(_), .. })
}

fn refuse(context: &mut Context<'_>, index: usize, entry: &EntrySpec, lacks: Lacks) {
    let path = KeyPath::of("network").item(index);
    let (path, message) = match (&entry.tcp, &entry.host) {
        (Some(to), _) => (
            path.key("tcp"),
            format!("connecting to {} needs an operator's line: no destination is free", String::from(to.clone())),
        ),
        (None, Some(host)) => {
            (path.key("host"), format!("reaching {host} needs an operator's line: no destination is free"))
        }
        (None, None) => (path, "this needs an operator's line".to_owned()),
    };
    let message = match lacks {
        Lacks::Entry => message,
        Lacks::Address(zone) => format!("{message} ({zone} addresses must be named there themselves)"),
    };
    context.needs_operator(&path, message, Right::Network(flow(entry)));
}

/// Entries with an address of loopback: the agent finds the destination at the same address inside. Others are reached by SOCKS5.
fn forwards(context: &mut Context<'_>, entries: &[EntrySpec]) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(to) = &entry.tcp else { continue };
        let Host::Address(address) = to.0.host else { continue };
        if !address.is_loopback() {
            continue;
        }
        let listen = SocketAddr::new(address, to.0.port);
        if forwards.iter().any(|forward| forward.listen == listen) {
            let problem = Problem::config(format!("`{listen}` stands here twice"));
            context.problem(&KeyPath::of("network").item(index).key("tcp"), problem);
            continue;
        }
        forwards.push(Forward { listen, target: HostPort(Target::Address(listen)) });
    }
    forwards
}
