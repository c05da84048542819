//! Where an agent starts and, without an operator, the only place that it writes.

use std::path::{Path, PathBuf};

use super::Context;
use crate::config::diagnostic::Problem;
use crate::config::grant::Right;
use crate::config::interpolate::is_harmless;
use crate::config::tree::KeyPath;

/// The resolved workdir; `None` after a problem.
pub(super) fn resolve(context: &mut Context<'_>) -> Option<PathBuf> {
    let path = KeyPath::of("workdir");
    let typed = context.overrides.workdir.clone();
    let wanted = match (&typed, &context.spec.workdir) {
        (Some(typed), _) => context.around.cwd.join(typed),
        (None, Some(text)) => context.origin.folder.join(expand_path(context, text, &path)?),
        (None, None) => unnamed(context)?,
    };
    let resolved = existing(context, &wanted, &path)?;
    if !resolved.is_dir() {
        let problem = Problem::config(format!("the workdir {} is not a folder", wanted.display()));
        context.problem(&path, problem.label("a folder is needed"));
        return None;
    }
    if let Some(why) = context.zones.workdir_objection(&resolved) {
        let shown = shown(&wanted, &resolved);
        let message = format!("{shown} can't be a workdir: {why}");
        context.never(
            &path,
            message,
            "make a folder for the agent and put its agent.yaml there, or name one with --workdir",
        );
        return None;
    }
    if let Some(served) = held_served(context, &resolved) {
        let message = format!(
            "{} can't be a workdir: it holds the served folder {}, and who writes there writes other agents' files",
            shown(&wanted, &resolved),
            served.display()
        );
        let help = format!("make a folder in it for this agent and name that: `workdir: {}`", context.spec.name);
        context.never(&path, message, &help);
        return None;
    }
    let folder = context.origin.folder;
    let own = resolved.starts_with(folder) || typed.is_some();
    if !own && !context.rights.may_write(&resolved) {
        let message = format!(
            "{} can't be the workdir without an operator's line: it is neither the folder of the agent's file ({}) nor below it",
            shown(&wanted, &resolved),
            folder.display()
        );
        context.needs_operator(&path, message, Right::Write(resolved.clone()));
    }
    Some(resolved)
}

/// Where an agent works whose file doesn't say: the file's own folder; under `serve`, where that folder is everybody's, the one in
/// it that has the agent's name.
fn unnamed(context: &mut Context<'_>) -> Option<PathBuf> {
    let folder = context.origin.folder;
    if held_served(context, folder).is_none() {
        return Some(folder.to_path_buf());
    }
    let own = folder.join(context.spec.name.as_str());
    if own.symlink_metadata().is_ok() {
        return Some(own);
    }
    let message = format!("there is no folder {}, where `serve` lets this agent work", own.display());
    let problem = Problem::config(message).label("no `workdir:` is named").help(format!(
        "mkdir {}, or name another folder with `workdir:`; the served folder itself is for the agents' files",
        own.display()
    ));
    context.problem(&KeyPath::of("name"), problem);
    None
}

/// The served folder, if `path` is it or holds it.
pub(super) fn held_served<'a>(context: &Context<'a>, path: &Path) -> Option<&'a Path> {
    context.overrides.served.as_deref().filter(|served| served.starts_with(path))
}

/// `a (a link to b)` where the two differ.
pub(super) fn shown(wanted: &Path, resolved: &Path) -> String {
    if wanted == resolved {
        return wanted.display().to_string();
    }
    format!("{} (in truth {})", wanted.display(), resolved.display())
}

/// The path with its links resolved, or a problem with its line.
pub(super) fn existing(context: &mut Context<'_>, wanted: &Path, path: &KeyPath) -> Option<PathBuf> {
    match wanted.canonicalize() {
        Ok(resolved) if resolved.to_str().is_none() => {
            let problem = Problem::config(format!("the path {} is not UTF-8", resolved.display()));
            context.problem(path, problem.label("rename it"));
            None
        }
        Ok(resolved) => Some(resolved),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let problem = Problem::config(format!("the path {} doesn't exist", wanted.display()))
                .label("no such path")
                .help("make it, or take the line out");
            context.problem(path, problem);
            None
        }
        Err(error) => {
            let problem = Problem::config(format!("the path {} can't be looked up: {error}", wanted.display()));
            context.problem(path, problem.label("not reachable"));
            None
        }
    }
}

/// Replaces the variables of a path.
pub(super) fn expand_path(context: &mut Context<'_>, text: &str, path: &KeyPath) -> Option<PathBuf> {
    if text == "~" || text.starts_with("~/") {
        let rest = text.trim_start_matches(['~', '/']);
        let problem = Problem::config(format!("`~` is not replaced in `{path}`"))
            .label("a shell would replace it, there is none")
            .help(format!("write `${{HOME}}/{rest}`"));
        context.problem(path, problem);
        return None;
    }
    match super::super::interpolate::expand(text, &context.around.env) {
        Ok(expanded) => {
            for name in expanded.used.iter().filter(|name| !is_harmless(name)) {
                super::env::need_variable(context, name, path);
            }
            if expanded.text.is_empty() || expanded.text.contains('\0') {
                context.problem(path, Problem::config(format!("`{path}` is empty")).label("a path is needed"));
                return None;
            }
            Some(PathBuf::from(expanded.text))
        }
        Err(bad) => {
            let problem = Problem::config(format!("{bad} (`{path}`)")).label("can't be replaced");
            context
                .problem(path, problem.help("the forms are `${NAME}` and `${NAME:?message}`; `$${` is a plain `${`"));
            None
        }
    }
}
