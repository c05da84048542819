//! Names inside writable trees that stay read-only: what would let an agent change its own rules, run as its user later
//! (git hooks, editor tasks, shell start-up files), or have its user's power at once (setuid files).
//!
//! The names that exist at launch are listed here, at any depth, within bounds; the ring masks them. A name that is a
//! link can be replaced as a link, so its target is listed and the link itself is a gap: with `enforcement: required` the
//! agent is not started until the link is gone, or the operator's file opens the name.

use std::path::{Path, PathBuf};

use agt_rings::report::Protection;
use agt_rings::spec::{Access, FileRule};

use super::Context;
use super::walk::{MAX_DEPTH, MAX_NAMES, Walk};

/// Most names that are protected: each becomes a mount.
const MAX_PROTECTED: usize = 1_000;

/// What was found in the writable trees.
#[derive(Debug)]
pub(super) struct Seen {
    /// Names that stay read-only.
    pub(super) protected: Vec<PathBuf>,
    /// Sockets.
    pub(super) sockets: Vec<PathBuf>,
}

/// What stays read-only inside the writable trees of a plan. What can't is a gap of the plan.
pub(super) fn existing(context: &mut Context<'_>, files: &[FileRule], workdir: &Path) -> Seen {
    let mut walk = Walk::default();
    let trees: Vec<&Path> =
        files.iter().filter(|rule| rule.access == Access::Write).map(|rule| rule.path.as_path()).collect();
    for tree in &trees {
        walk.tree(tree);
    }
    let inside = |path: &Path| trees.iter().any(|tree| path.starts_with(tree));
    let own = context.origin.source;
    if inside(own) && !walk.found.contains(own) {
        walk.protect(own, 0);
    }
    let exceptions = exceptions(context, workdir);
    report(context, &walk, |path| inside(path) && !exceptions(path));
    let mut protected: Vec<PathBuf> = walk.found.into_iter().filter(|path| inside(path) && !exceptions(path)).collect();
    if protected.len() > MAX_PROTECTED {
        let reason = format!("leaves {} never-writable names writable", protected.len() - MAX_PROTECTED);
        let help = format!("name a smaller workdir: at most {MAX_PROTECTED} names are protected");
        context.gap(Protection::FileWrite, reason, help);
        protected.truncate(MAX_PROTECTED);
    }
    Seen { protected, sockets: walk.sockets }
}

/// What can't be protected.
fn report(context: &mut Context<'_>, walk: &Walk, counts: impl Fn(&Path) -> bool) {
    let operator = context.operator_file.display().to_string();
    let opened = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        format!("or let it be changed: `writable: [{name}]` for this agent in {operator}")
    };
    if let Some(folder) = &walk.cut {
        let reason = format!(
            "can't be kept below {}: more than {MAX_NAMES} names or {MAX_DEPTH} levels, not all looked at",
            folder.display()
        );
        context.gap(Protection::FileWrite, reason, "name a smaller workdir".to_owned());
    }
    for link in walk.links.iter().filter(|path| counts(path)) {
        let reason = format!("can't be kept for {}: it is a link, and a link can be replaced", link.display());
        let help = format!("put a file in the place of the link {}, {}", link.display(), opened(link));
        context.gap(Protection::FileWrite, reason, help);
    }
    for path in walk.hard_links.iter().filter(|path| counts(path)) {
        let reason =
            format!("can't be kept for {}: it has another name (a hard link) by which it is written", path.display());
        let help =
            format!("replace it by a copy (`cp {0} {0}.new && mv {0}.new {0}`), {1}", path.display(), opened(path));
        context.gap(Protection::FileWrite, reason, help);
    }
    for (target, link) in walk.dangling.iter().filter(|(target, link)| counts(link) && counts(&folded(target))) {
        let reason =
            format!("can't be kept for {}: it links to {}, which can still be made", link.display(), target.display());
        let help = format!("remove the link {}, {}", link.display(), opened(link));
        context.gap(Protection::FileWrite, reason, help);
    }
}

/// The path with `..` taken literally: it names nothing that exists.
fn folded(path: &Path) -> PathBuf {
    crate::config::zones::settled(path)
}

/// The names and paths that the operator's file opens. The agent's own file is never among them.
fn exceptions(context: &Context<'_>, workdir: &Path) -> impl Fn(&Path) -> bool + use<> {
    let own = context.origin.source.to_path_buf();
    let workdir = workdir.to_path_buf();
    let writable = context.rights.writable.clone();
    move |path| {
        path != own
            && writable.iter().any(|name| {
                // `.vscode` or `.git/config` anywhere, or one path.
                if Path::new(name).is_absolute() {
                    Path::new(name) == path
                } else {
                    path.ends_with(name) || workdir.join(name) == path
                }
            })
    }
}
