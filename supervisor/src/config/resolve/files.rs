//! Which files an agent may reach: the workdir, the program's own installation, and what was asked for and granted.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_rings::spec::{Access, FileRule};

use super::program::Program;
use super::workdir::{existing, expand_path, held_served, shown};
use super::{Context, readable};
use crate::config::grant::Right;
use crate::config::tree::KeyPath;

pub(super) fn resolve(
    context: &mut Context<'_>,
    workdir: &Path,
    program: Option<&Program>,
    health: Option<&Vec<PathBuf>>,
) -> Vec<FileRule> {
    let access = if context.ceiling == Ring::R3 { Access::Read } else { Access::Write };
    let mut rules = vec![FileRule { path: workdir.to_path_buf(), access }];
    let installed = program.map(|program| program.installation.as_slice()).into_iter().flatten();
    rules.extend(installed.chain(health.into_iter().flatten()).cloned().map(readable));
    let spec = context.spec;
    let requests = [("files.read", &spec.files.read, Access::Read), ("files.write", &spec.files.write, Access::Write)];
    for (key, paths, access) in requests {
        for (index, text) in paths.iter().enumerate() {
            let at = KeyPath::of(key).item(index);
            let Some(wanted) = expand_path(context, text, &at) else { continue };
            let folder = context.origin.folder;
            let wanted = folder.join(wanted);
            let Some(path) = existing(context, &wanted, &at) else { continue };
            if let Some(rule) = request(context, workdir, &wanted, path, access, &at) {
                rules.push(rule);
            }
        }
    }
    let given: Vec<bool> = rules.iter().map(|rule| is_given(context, workdir, rule)).collect();
    simplified(rules.into_iter().zip(given).collect())
}

/// Whether a tree was given to the agent, so that it counts as the owner there: what it may write, its workdir, and what the
/// operator's file opens of those who start it. A program's installation was only named, by a file that may be a stranger's:
/// there it reads what everybody reads.
pub(super) fn is_given(context: &Context<'_>, workdir: &Path, rule: &FileRule) -> bool {
    let owner = || rule.path.metadata().map(|metadata| metadata.uid());
    rule.access == Access::Write
        || rule.path == workdir
        || (context.rights.may_read(&rule.path) && owner().is_ok_and(|owner| owner == context.around.uid))
}

/// One requested path: into the plan, or to the operator.
fn request(
    context: &mut Context<'_>,
    workdir: &Path,
    wanted: &Path,
    path: PathBuf,
    access: Access,
    at: &KeyPath,
) -> Option<FileRule> {
    let shown = shown(wanted, &path);
    if context.zones.is_ours(&path) {
        let message = format!("{shown} belongs to the supervisor: no agent reaches it");
        context.never(at, message, "no line of the operator's file opens it");
        return None;
    }
    if access == Access::Write && context.zones.touches_ours(&path).is_some() {
        let message = format!("{shown} holds files of the supervisor: no agent writes there");
        context.never(at, message, "name the folders in it that the agent needs");
        return None;
    }
    if access == Access::Write
        && let Some(served) = held_served(context, &path)
    {
        let message = format!("{shown} holds the served folder {}: no agent writes there", served.display());
        context.never(at, message, "name the folders in it that the agent needs");
        return None;
    }
    if is_socket(&path) && !context.rights.names_path(&path) {
        let message = format!("{shown} is a socket: whoever connects has the power of the service behind it");
        let right = if access == Access::Write { Right::Write(path.clone()) } else { Right::Read(path.clone()) };
        context.needs_operator(at, message, right);
        return Some(FileRule { path, access });
    }
    match access {
        Access::Read => {
            let free = path.starts_with(workdir) || context.rights.may_read(&path);
            if let Some(why) = context.zones.read_objection(&path).filter(|_| !free) {
                let message = format!("reading {shown} needs an operator's line: {why}");
                context.needs_operator(at, message, Right::Read(path.clone()));
            }
        }
        Access::Write => {
            if !path.starts_with(workdir) && !context.rights.may_write(&path) {
                let message = format!("writing {shown} needs an operator's line: it is outside the workdir");
                context.needs_operator(at, message, Right::Write(path.clone()));
            }
        }
    }
    let access = if context.ceiling == Ring::R3 { Access::Read } else { access };
    Some(FileRule { path, access })
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Sorted, without rules that another rule already contains. Each comes with whether its tree was given to the agent: such a
/// tree is not the same inside one that was not.
fn simplified(mut rules: Vec<(FileRule, bool)>) -> Vec<FileRule> {
    let is_write = |rule: &FileRule| rule.access == Access::Write;
    rules.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path).then(is_write(b).cmp(&is_write(a))));
    let mut kept: Vec<(FileRule, bool)> = Vec::new();
    for (rule, given) in rules {
        let covered = kept.iter().any(|(other, also)| {
            rule.path.starts_with(&other.path)
                && (is_write(other) || !is_write(&rule))
                && (*also || !given)
                && !is_socket(&rule.path)
        });
        if !covered {
            kept.push((rule, given));
        }
    }
    kept.into_iter().map(|(rule, _)| rule).collect()
}
