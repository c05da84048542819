//! The health check: its program is found like the agent's, its port must be the agent's own.

use std::path::PathBuf;

use agt_rings::Ring;
use hyper::http::uri::PathAndQuery;

use super::{Context, ports, program};
use crate::config::diagnostic::Problem;
use crate::config::plan::{Ask, Forward, HealthPlan, Look};
use crate::config::spec::{Command, HealthSpec, HttpSpec};
use crate::config::tree::KeyPath;

/// Resolves it; with it the folders that its program needs.
pub(super) fn resolve(
    context: &mut Context<'_>,
    search: &program::Search<'_>,
    forwards: &[Forward],
) -> Option<(HealthPlan, Vec<PathBuf>)> {
    let health = context.spec.health.as_ref()?;
    let (look, installation) = look(context, health, search, forwards)?;
    let plan = HealthPlan {
        look,
        interval: health.interval,
        timeout: health.timeout(),
        retries: health.retries,
        start_period: health.start_period,
    };
    Some((plan, installation))
}

fn look(
    context: &mut Context<'_>,
    health: &HealthSpec,
    search: &program::Search<'_>,
    forwards: &[Forward],
) -> Option<(Look, Vec<PathBuf>)> {
    match (&health.command, &health.http, health.tcp) {
        (Some(command), None, None) => of_command(context, command, search),
        (None, Some(http), None) => {
            let path = KeyPath::of("health.http");
            let ask = ask(context, http, &path)?;
            knock(context, http.port, &path.key("port"), forwards)?;
            Some((Look::Knock { port: http.port, http: Some(ask) }, Vec::new()))
        }
        (None, None, Some(port)) => {
            knock(context, port, &KeyPath::of("health.tcp"), forwards)?;
            Some((Look::Knock { port, http: None }, Vec::new()))
        }
        _ => {
            let problem = Problem::config("a health check is one of `command`, `http` and `tcp`").label("not one");
            let help = "for example `health: {http: {port: 8080, path: /health}}`";
            context.problem(&KeyPath::of("health"), problem.help(help));
            None
        }
    }
}

fn of_command(
    context: &mut Context<'_>,
    command: &Command,
    search: &program::Search<'_>,
) -> Option<(Look, Vec<PathBuf>)> {
    let program = program::find(context, search, command.words(), &KeyPath::of("health.command"))?;
    Some((Look::Command { program: program.program, argv: program.argv }, program.installation))
}

fn ask(context: &mut Context<'_>, http: &HttpSpec, path: &KeyPath) -> Option<Ask> {
    let is_path = http.path.starts_with('/') && http.path.parse::<PathAndQuery>().is_ok();
    if !is_path {
        let problem = Problem::config(format!("`{}` is no path", http.path)).label("no path");
        context.problem(&path.key("path"), problem.help("for example `/health`, blanks written as %20"));
        return None;
    }
    Some(Ask { path: http.path.clone(), status: http.status })
}

fn knock(context: &mut Context<'_>, port: u16, path: &KeyPath, forwards: &[Forward]) -> Option<()> {
    if context.ceiling == Ring::R3 {
        let problem = Problem::config("R3 listens nowhere: it has no port to knock at").label("not in R3");
        context.problem(path, problem.help("`ring: 2`, or a `command`"));
        return None;
    }
    ports::is_its_own(context, port, path, forwards).then_some(())
}
