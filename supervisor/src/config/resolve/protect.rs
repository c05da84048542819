//! Names inside writable trees that stay read-only: what would let an agent change its own rules, run as its user later
//! (git hooks, editor tasks, shell start-up files), or have its user's power at once (setuid files).
//!
//! The names that exist at launch are listed here, at any depth, within bounds; the ring masks them. A name that is a
//! link can be replaced as a link, so its target is listed and the link itself is a gap: with `enforcement: required` the
//! agent is not started until the link is gone, or the operator's file opens the name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use agt_rings::report::Protection;
use agt_rings::spec::Access;

use super::look::{Question, Seen, stands};
use super::walk::{MAX_DEPTH, MAX_NAMES, Walk};

/// Most names that are protected: each becomes a mount.
const MAX_PROTECTED: usize = 1_000;

/// What stays read-only inside the writable trees. What can't is a gap. The sockets that stood there on the way.
pub(super) fn existing(question: &Question<'_>, seen: &mut Seen) -> Vec<PathBuf> {
    let mut walk = Walk::default();
    let trees: Vec<&Path> =
        question.files.iter().filter(|rule| rule.access == Access::Write).map(|rule| rule.path.as_path()).collect();
    for tree in &trees {
        walk.tree(tree);
    }
    let inside = |path: &Path| trees.iter().any(|tree| path.starts_with(tree));
    let own = question.source;
    if inside(own) && !walk.found.contains(own) {
        walk.protect(own, 0);
    }
    let counts = |path: &Path| inside(path) && !is_opened(question, path);
    report(question, &walk, counts, seen);
    let mut protect: BTreeSet<PathBuf> = question.known.protect.iter().filter(|path| stands(path)).cloned().collect();
    let more: Vec<PathBuf> = walk.found.into_iter().filter(|path| counts(path) && !protect.contains(path)).collect();
    let room = MAX_PROTECTED.saturating_sub(protect.len());
    if more.len() > room {
        let reason = format!("leaves {} never-writable names writable", more.len() - room);
        let help = format!("name a smaller workdir: at most {MAX_PROTECTED} names are protected");
        seen.gap(Protection::FileWrite, reason, help);
    }
    protect.extend(more.into_iter().take(room));
    seen.protect = protect.into_iter().collect();
    seen.repositories = walk.repositories;
    walk.sockets
}

/// What can't be protected.
fn report(question: &Question<'_>, walk: &Walk, counts: impl Fn(&Path) -> bool, seen: &mut Seen) {
    let operator = question.operator;
    let opened = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        format!("or let it be changed: `writable: [{name}]` for this agent in {operator}")
    };
    if let Some(folder) = &walk.cut {
        let reason = format!(
            "can't be kept below {}: more than {MAX_NAMES} names or {MAX_DEPTH} levels, not all looked at",
            folder.display()
        );
        seen.gap(Protection::FileWrite, reason, "name a smaller workdir".to_owned());
    }
    for link in walk.links.iter().filter(|path| counts(path)) {
        let reason = format!("can't be kept for {}: it is a link, and a link can be replaced", link.display());
        let help = format!("put a file in the place of the link {}, {}", link.display(), opened(link));
        seen.gap(Protection::FileWrite, reason, help);
    }
    for path in walk.hard_links.iter().filter(|path| counts(path)) {
        let reason =
            format!("can't be kept for {}: it has another name (a hard link) by which it is written", path.display());
        let help =
            format!("replace it by a copy (`cp {0} {0}.new && mv {0}.new {0}`), {1}", path.display(), opened(path));
        seen.gap(Protection::FileWrite, reason, help);
    }
    for (target, link) in walk.dangling.iter().filter(|(target, link)| counts(link) && counts(&folded(target))) {
        let reason =
            format!("can't be kept for {}: it links to {}, which can still be made", link.display(), target.display());
        let help = format!("remove the link {}, {}", link.display(), opened(link));
        seen.gap(Protection::FileWrite, reason, help);
    }
}

/// The path with `..` taken literally: it names nothing that exists.
fn folded(path: &Path) -> PathBuf {
    crate::config::zones::settled(path)
}

/// Whether the operator's file opens this name or path. The agent's own file is never among them.
fn is_opened(question: &Question<'_>, path: &Path) -> bool {
    path != question.source && agt_rings::names::is_opened(&question.opened.names, question.workdir, path)
}
