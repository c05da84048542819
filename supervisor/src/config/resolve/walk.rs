//! One look through the writable trees: everything in them that must not stay as it is while an agent works there.
//!
//! A single pass, because a checkout with its packages has hundreds of thousands of names: never-writable names, files that
//! carry power on disk (setuid, setgid, file capabilities), sockets, and the second names by which a protected file could be
//! changed in spite of its mask.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use agt_rings::names::lists::{GIT_MARKS, GIT_NAMES, is_never_writable};

/// Deepest folder that is looked into, counted from the top of a tree.
pub(super) const MAX_DEPTH: usize = 32;

/// Most names that are looked at. A large checkout with its packages has a few hundred thousand.
pub(super) const MAX_NAMES: usize = 500_000;

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Names to protect, links resolved.
    pub(super) found: BTreeSet<PathBuf>,
    /// Protected names that are links: the link itself can be replaced.
    pub(super) links: Vec<PathBuf>,
    /// Protected files with another name.
    pub(super) hard_links: Vec<PathBuf>,
    /// Links inside protected folders to names that do not exist and could be made.
    pub(super) dangling: Vec<(PathBuf, PathBuf)>,
    /// Folders of git repositories.
    pub(super) repositories: Vec<PathBuf>,
    /// Sockets.
    pub(super) sockets: Vec<PathBuf>,
    /// Names looked at.
    pub(super) looked_at: usize,
    /// The first folder that was not looked into, because of a bound.
    pub(super) cut: Option<PathBuf>,
}

impl Walk {
    /// Looks through a writable tree.
    pub(super) fn tree(&mut self, tree: &Path) {
        self.folder(tree, 0);
    }

    fn is_cut(&mut self, folder: &Path, depth: usize) -> bool {
        let cut = depth > MAX_DEPTH || self.looked_at > MAX_NAMES;
        if cut {
            self.cut.get_or_insert_with(|| folder.to_path_buf());
        }
        cut
    }

    fn folder(&mut self, folder: &Path, depth: usize) {
        if self.is_cut(folder, depth) {
            return;
        }
        // A folder that can't be read by us can't be entered by the agent's user either, or it is reported by the ring.
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut below = Vec::new();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for entry in entries.flatten() {
            self.looked_at += 1;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Ok(kind) = entry.file_type() else { continue };
            // A worktree's or submodule's `.git` file says where the repository is.
            if is_never_writable(&name) || (name == ".git" && !kind.is_dir()) {
                self.protect(&entry.path(), depth);
            } else if kind.is_dir() {
                below.push(entry.path());
            } else {
                self.file(&entry, kind);
            }
            names.extend(GIT_NAMES.iter().chain(&GIT_MARKS).find(|known| **known == name));
        }
        let has = |name: &str| names.contains(name);
        // `.git` whatever is in it yet, a module's repository below it, a bare repository, or what a linked worktree has of
        // one: git runs its hooks and obeys its config.
        let whole = has("HEAD") && has("objects") && has("refs");
        let is_git = folder.file_name().is_some_and(|name| name == ".git");
        if is_git || whole || (has("HEAD") && (has("commondir") || has("gitdir"))) {
            self.repositories.push(folder.to_path_buf());
            for name in GIT_NAMES.iter().filter(|name| names.contains(**name)) {
                self.protect(&folder.join(name), depth);
            }
            below.retain(|path| path.file_name().is_none_or(|name| name != "hooks" && !(whole && name == "objects")));
        }
        for path in below {
            self.folder(&path, depth + 1);
        }
    }

    /// A file that is protected for what it is on the disk, or a socket.
    fn file(&mut self, entry: &DirEntry, kind: FileType) {
        if kind.is_socket() {
            self.sockets.push(entry.path());
        } else if kind.is_file()
            && let Ok(metadata) = entry.metadata()
        {
            let path = entry.path();
            if carries_power(&path, &metadata) {
                self.note(&path, &metadata);
            }
        }
    }

    /// Protects a name that exists.
    pub(super) fn protect(&mut self, path: &Path, depth: usize) {
        let Ok(metadata) = path.symlink_metadata() else { return };
        if metadata.is_symlink() {
            self.links.push(path.to_path_buf());
            if let Ok(target) = path.canonicalize() {
                self.found.insert(target);
            }
            return;
        }
        self.note(path, &metadata);
        if metadata.is_dir() {
            self.inside_protected(path, depth + 1);
        }
    }

    fn note(&mut self, path: &Path, metadata: &Metadata) {
        if metadata.is_file() && metadata.nlink() > 1 {
            self.hard_links.push(path.to_path_buf());
        }
        self.found.insert(path.to_path_buf());
    }

    /// A read-only folder does not protect what its names lead to: other names of its files, targets of its links, sockets.
    fn inside_protected(&mut self, folder: &Path, depth: usize) {
        if self.is_cut(folder, depth) {
            return;
        }
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.looked_at += 1;
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                self.inside_protected(&path, depth + 1);
            } else if metadata.file_type().is_socket() {
                self.sockets.push(path);
            } else if metadata.is_symlink() {
                match (path.canonicalize(), fs::read_link(&path)) {
                    (Ok(target), _) => drop(self.found.insert(target)),
                    (Err(_), Ok(target)) => self.dangling.push((folder.join(target), path)),
                    (Err(_), Err(_)) => {}
                }
            } else if metadata.is_file() && metadata.nlink() > 1 {
                self.hard_links.push(path);
            }
        }
    }
}

/// Whether a file gives power by being executed. Rewritten through shared memory it would keep that: the kernel takes the
/// bits off at a write(2), and not at a store.
fn carries_power(path: &Path, metadata: &Metadata) -> bool {
    // Asked for with no room for the value: its length is the answer.
    let capability = || rustix::fs::lgetxattr(path, c"security.capability", &mut [0u8; 0][..]).is_ok();
    metadata.mode() & SET_ID != 0 || capability()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn walked(tree: &Path) -> Walk {
        let mut walk = Walk::default();
        walk.tree(tree);
        walk
    }

    fn make(top: &Path, folders: &[&str], files: &[&str]) {
        folders.iter().for_each(|folder| fs::create_dir_all(top.join(folder)).unwrap());
        files.iter().for_each(|file| fs::write(top.join(file), "x").unwrap());
    }

    #[test]
    fn never_writable_names_are_found_at_any_depth() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        let folders = [
            "a/.git/hooks",
            "a/.git/objects",
            "a/.git/refs",
            "b/c/d/.vscode",
            "bare.git/hooks",
            "bare.git/objects",
            "bare.git/refs",
        ];
        let files = [
            "a/.git/HEAD",
            "a/.git/config",
            "bare.git/HEAD",
            "bare.git/config",
            "b/.envrc",
            ".mcp.json",
            "b/c/agent.yaml",
            "x.saga.yaml",
            "plain.txt",
        ];
        make(&top, &folders, &files);
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
        let mut repositories = walked(&top).repositories;
        repositories.sort();
        assert_eq!(repositories, [top.join("a/.git"), top.join("bare.git")]);
    }

    #[test]
    fn what_leads_git_to_another_repository_is_protected_and_hooks_without_a_repository_too() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        make(
            &top,
            &["a/.git/worktrees/w", "b/.git/hooks"],
            &[
                "a/.git/commondir",
                "a/.git/worktrees/w/HEAD",
                "a/.git/worktrees/w/commondir",
                "a/.git/worktrees/w/gitdir",
                "a/.git/worktrees/w/index",
            ],
        );
        let expected =
            ["a/.git/commondir", "a/.git/worktrees/w/commondir", "a/.git/worktrees/w/gitdir", "b/.git/hooks"];
        assert_eq!(walked(&top).found, expected.iter().map(|name| top.join(name)).collect());
    }

    #[test]
    fn links_are_reported_and_their_targets_protected() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        make(&top, &[".git/hooks"], &["rules", ".bashrc", "hook", ".git/hooks/linked"]);
        std::os::unix::fs::symlink("rules", top.join(".envrc")).unwrap();
        fs::hard_link(top.join(".bashrc"), top.join("other")).unwrap();
        fs::hard_link(top.join(".git/hooks/linked"), top.join("plain")).unwrap();
        std::os::unix::fs::symlink("../../hook", top.join(".git/hooks/pre-commit")).unwrap();
        std::os::unix::fs::symlink("../../missing", top.join(".git/hooks/pre-push")).unwrap();
        // A loop of links must not hold the walk.
        std::os::unix::fs::symlink(".", top.join("loop")).unwrap();
        let walk = walked(&top);
        assert_eq!(walk.links, [top.join(".envrc")]);
        let mut hard_links = walk.hard_links;
        hard_links.sort();
        assert_eq!(hard_links, [top.join(".bashrc"), top.join(".git/hooks/linked")]);
        assert_eq!(walk.dangling.len(), 1);
        assert!(walk.found.contains(&top.join("rules")) && walk.found.contains(&top.join("hook")));
    }

    #[test]
    fn files_with_power_and_sockets_are_found_and_plain_ones_are_not() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        make(&top, &["bin"], &["bin/set", "bin/group", "bin/plain"]);
        for (name, mode) in [("set", 0o4755), ("group", 0o2755), ("plain", 0o755)] {
            fs::set_permissions(top.join("bin").join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let _socket = std::os::unix::net::UnixListener::bind(top.join("s")).unwrap();
        let walk = walked(&top);
        assert_eq!(walk.found, BTreeSet::from([top.join("bin/group"), top.join("bin/set")]));
        assert_eq!(walk.sockets, [top.join("s")]);
    }
}
