//! The `ports` that a file shows to the host: on loopback they are free, beyond it an operator's line names each.

use agt_rings::Ring;

use super::Context;
use crate::config::diagnostic::Problem;
use crate::config::grant::Right;
use crate::config::plan::Forward;
use crate::config::spec::{ListenAt, Publish};
use crate::config::tree::KeyPath;

/// Resolves them. `forwards`: what the gateway listens at inside.
pub(super) fn resolve(context: &mut Context<'_>, forwards: &[Forward]) -> Vec<Publish> {
    let asked = context.spec.ports.clone();
    let list = KeyPath::of("ports");
    if asked.is_empty() {
        return asked;
    }
    match context.ceiling {
        Ring::R0 => context.notes.push(
            "ports are shown from a ring's own network, in R1 and R2; in R0 it listens on the host itself".to_owned(),
        ),
        Ring::R3 => {
            let problem = Problem::config("R3 listens nowhere: it has no port to show").label("not in R3");
            context.problem(&list, problem.help("`ring: 2`, or leave this line out"));
            return Vec::new();
        }
        Ring::R1 | Ring::R2 => {}
    }
    for (index, port) in asked.iter().enumerate() {
        let path = list.item(index);
        if let Some(other) = asked[..index].iter().find(|other| other.overlaps(port)) {
            let text = format!("`{}` is listened at for `{other}` already", port.listen);
            context.problem(&path, Problem::config(text).label("twice").help("each address and port shows one port"));
            continue;
        }
        if !is_its_own(context, port.port, &path, forwards) {
            continue;
        }
        let allowed = context.rights.publish.iter().any(|at| at.covers(port.listen));
        if port.needs_operator() && !allowed {
            let message = match port.listen.ip().is_loopback() {
                true => {
                    format!("showing a port at {} needs an operator's line: ports below 1024 are root's", port.listen)
                }
                false => format!("showing a port at {} needs an operator's line: only loopback is free", port.listen),
            };
            context.needs_operator(&path, message, Right::Publish(ListenAt(port.listen)));
        }
    }
    asked
}

/// Whether a port inside is the agent's; what stands at one of the gateway's is not shown or asked as if it were.
pub(super) fn is_its_own(context: &mut Context<'_>, port: u16, path: &KeyPath, forwards: &[Forward]) -> bool {
    let Some(forward) = forwards.iter().find(|forward| forward.listen.port() == port) else { return true };
    let text = format!("port {port} inside is the gateway's own, for `tcp: {}` of `network`", forward.target);
    let problem = Problem::config(text).label("not the agent's").help("have the agent listen at another port");
    context.problem(path, problem);
    false
}
