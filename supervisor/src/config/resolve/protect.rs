//! Names inside writable trees that stay read-only: what would let an agent change its own rules, or run as its user
//! later (git hooks, editor tasks, shell start-up files).
//!
//! The names that exist at launch are listed here, at any depth, within bounds; the ring masks them. A name that is a
//! link can be replaced as a link, so its target is listed and the link itself is reported as a gap.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agt_rings::spec::{Access, FileRule};

use super::Context;

/// Deepest folder that is looked into, counted from the top of a writable tree.
const MAX_DEPTH: usize = 32;

/// Most names that are looked at. A large checkout with its packages has a few hundred thousand.
const MAX_NAMES: usize = 500_000;

/// Most names that are protected: each becomes a mount.
const MAX_PROTECTED: usize = 1_000;

/// Files and folders that are protected wherever they stand.
const NAMES: [&str; 26] = [
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".claude",
    ".cshrc",
    ".cursor",
    ".envrc",
    ".gitconfig",
    ".idea",
    ".inputrc",
    ".kshrc",
    ".login",
    ".mcp.json",
    ".profile",
    ".tcshrc",
    ".vscode",
    ".xprofile",
    ".xsessionrc",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zshenv",
    ".zshrc",
    "agent.yaml",
    "operator.yaml",
];

/// Our own files under other names end like this: `refund.saga.yaml`.
const ENDINGS: [&str; 4] = [".agent.yaml", ".saga.yaml", ".chaos.yaml", ".operator.yaml"];

/// More files of ours that are protected wherever they stand.
const OUR_NAMES: [&str; 3] = ["saga.yaml", "chaos.yaml", "ring.yaml"];

/// What stays read-only inside the writable trees of a plan.
pub(super) fn existing(context: &mut Context<'_>, files: &[FileRule], workdir: &Path) -> Vec<PathBuf> {
    let mut walk = Walk { found: BTreeSet::new(), links: Vec::new(), hard_links: Vec::new(), looked_at: 0, cut: None };
    let trees: Vec<&Path> =
        files.iter().filter(|rule| rule.access == Access::Write).map(|rule| rule.path.as_path()).collect();
    for tree in &trees {
        walk.folder(tree, 0);
    }
    let inside = |path: &Path| trees.iter().any(|tree| path.starts_with(tree));
    if inside(context.origin.source) {
        walk.found.insert(context.origin.source.to_path_buf());
    }
    if let Some(folder) = walk.cut {
        context.gaps.push(format!(
            "never-writable names below {} were not all looked for: more than {MAX_NAMES} names or {MAX_DEPTH} levels",
            folder.display()
        ));
    }
    for link in walk.links {
        context
            .gaps
            .push(format!("{} is a link: its target is protected, the link itself can be replaced", link.display()));
    }
    for path in walk.hard_links {
        context.gaps.push(format!("{} has another name (a hard link) by which it could be written", path.display()));
    }
    let exceptions = exceptions(context, workdir);
    let mut protected: Vec<PathBuf> = walk.found.into_iter().filter(|path| !exceptions(path)).collect();
    if protected.len() > MAX_PROTECTED {
        context.gaps.push(format!("{} never-writable names, of which {MAX_PROTECTED} are protected", protected.len()));
        protected.truncate(MAX_PROTECTED);
    }
    protected
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

struct Walk {
    found: BTreeSet<PathBuf>,
    links: Vec<PathBuf>,
    hard_links: Vec<PathBuf>,
    looked_at: usize,
    cut: Option<PathBuf>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, depth: usize) {
        if depth > MAX_DEPTH || self.looked_at > MAX_NAMES {
            self.cut.get_or_insert_with(|| folder.to_path_buf());
            return;
        }
        // A folder that can't be read by us can't be entered by the agent's user either, or it is reported by the ring.
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut below = Vec::new();
        let (mut has_head, mut has_objects, mut has_refs) = (false, false, false);
        for entry in entries.flatten() {
            self.looked_at += 1;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = entry.path();
            match name.as_ref() {
                "HEAD" => has_head = true,
                "objects" => has_objects = true,
                "refs" => has_refs = true,
                _ => {}
            }
            if is_protected_name(&name) {
                self.protect(&path);
                continue;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if name == ".git" && !kind.is_dir() {
                // A worktree's or submodule's `.git` file says where the repository is.
                self.protect(&path);
            } else if kind.is_dir() {
                below.push(path);
            }
        }
        // `.git`, a module's repository below it, or a bare repository: git runs its hooks and obeys its config.
        if has_head && has_objects && has_refs {
            for name in ["hooks", "config", "config.worktree"] {
                self.protect(&folder.join(name));
            }
            below.retain(|path| path.file_name().is_none_or(|name| name != "objects" && name != "hooks"));
        }
        for path in below {
            self.folder(&path, depth + 1);
        }
    }

    fn protect(&mut self, path: &Path) {
        let Ok(metadata) = path.symlink_metadata() else { return };
        if metadata.is_symlink() {
            self.links.push(path.to_path_buf());
            if let Ok(target) = path.canonicalize() {
                self.found.insert(target);
            }
            return;
        }
        if metadata.is_file() && metadata.nlink() > 1 {
            self.hard_links.push(path.to_path_buf());
        }
        self.found.insert(path.to_path_buf());
    }
}

fn is_protected_name(name: &str) -> bool {
    NAMES.contains(&name) || OUR_NAMES.contains(&name) || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn walked(tree: &Path) -> Walk {
        let mut walk =
            Walk { found: BTreeSet::new(), links: Vec::new(), hard_links: Vec::new(), looked_at: 0, cut: None };
        walk.folder(tree, 0);
        walk
    }

    #[test]
    fn never_writable_names_are_found_at_any_depth() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        for folder in [
            "a/.git/hooks",
            "a/.git/objects",
            "a/.git/refs",
            "b/c/d/.vscode",
            "bare.git/hooks",
            "bare.git/objects",
            "bare.git/refs",
        ] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        for file in [
            "a/.git/HEAD",
            "a/.git/config",
            "bare.git/HEAD",
            "bare.git/config",
            "b/.envrc",
            ".mcp.json",
            "b/c/agent.yaml",
            "x.saga.yaml",
            "plain.txt",
        ] {
            fs::write(top.join(file), "x").unwrap();
        }
        let found = walked(&top).found;
        for name in [
            "a/.git/hooks",
            "a/.git/config",
            "bare.git/hooks",
            "bare.git/config",
            "b/c/d/.vscode",
            "b/.envrc",
            ".mcp.json",
            "b/c/agent.yaml",
            "x.saga.yaml",
        ] {
            assert!(found.contains(&top.join(name)), "{name} in {found:?}");
        }
        assert_eq!(found.len(), 9);
    }

    #[test]
    fn links_are_reported_and_their_targets_protected() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        fs::write(top.join("rules"), "x").unwrap();
        std::os::unix::fs::symlink("rules", top.join(".envrc")).unwrap();
        fs::write(top.join(".bashrc"), "x").unwrap();
        fs::hard_link(top.join(".bashrc"), top.join("other")).unwrap();
        // A loop of links must not hold the walk.
        std::os::unix::fs::symlink(".", top.join("loop")).unwrap();
        let walk = walked(&top);
        assert_eq!((walk.links, walk.hard_links), (vec![top.join(".envrc")], vec![top.join(".bashrc")]));
        assert!(walk.found.contains(&top.join("rules")));
    }
}
