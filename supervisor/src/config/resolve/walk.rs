//! One look through the writable trees: everything in them that must not stay as it is while an agent works there.
//!
//! A single pass, because a checkout with its packages has hundreds of thousands of names: never-writable names, files that
//! carry power on disk (setuid, setgid, file capabilities), sockets, and the second names by which a protected file could be
//! changed in spite of its mask.

mod crew;

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agt_rings::attribute;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};

use crew::Folder;

use agt_rings::names::lists::{GIT_MARKS, GIT_NAMES, is_never_writable};

/// Deepest folder that is looked into, counted from the top of a tree.
pub(super) const MAX_DEPTH: usize = 32;

/// Most names that are looked at. A large checkout with its packages has a few hundred thousand.
pub(super) const MAX_NAMES: usize = 500_000;

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;
const CAPABILITY: &CStr = c"security.capability";

/// Names that the kernel lists at once.
const LISTING_BYTES: usize = 32 * 1024;

/// What a walk looks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Seeks {
    /// All that must not stay as it is.
    #[default]
    Everything,
    /// Repositories alone, wherever they are: also where none is looked for at a launch, because git looks at nothing there.
    Repositories,
}

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    seeks: Seeks,
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
    /// The first folder that was not looked into, because of a bound.
    pub(super) cut: Option<PathBuf>,
    /// Names looked at, by all who look.
    looked_at: Arc<AtomicUsize>,
    listing: Listing,
}

/// Room for the names of a folder, used again for each.
#[derive(Default)]
struct Listing(Vec<u8>);

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listing")
    }
}

impl Listing {
    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        self.0.reserve(LISTING_BYTES);
        self.0.spare_capacity_mut()
    }
}

/// Opens a folder to list it. None that can't be read by us can be entered by the agent's user either, or it is reported by the
/// ring.
fn open(folder: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty()).ok()
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Without following a link.
fn look_at(dir: &OwnedFd, name: &CStr) -> Option<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn joined(folder: &Path, name: &CStr) -> PathBuf {
    folder.join(OsStr::from_bytes(name.to_bytes()))
}

impl Walk {
    /// One that finds repositories, and nothing else.
    pub(super) fn for_repositories() -> Walk {
        Walk { seeks: Seeks::Repositories, ..Walk::default() }
    }

    /// Looks through a writable tree.
    pub(super) fn tree(&mut self, tree: &Path) {
        crew::look_through(Folder { path: tree.to_owned(), depth: 0 }, self);
    }

    /// Names looked at.
    pub(super) fn looked_at(&self) -> usize {
        self.looked_at.load(Ordering::Relaxed)
    }

    /// One that counts together with this one.
    fn another(&self) -> Walk {
        Walk { seeks: self.seeks, looked_at: Arc::clone(&self.looked_at), ..Walk::default() }
    }

    /// Adds what another has found.
    fn add(&mut self, mut other: Walk) {
        self.found.append(&mut other.found);
        self.links.append(&mut other.links);
        self.hard_links.append(&mut other.hard_links);
        self.repositories.append(&mut other.repositories);
        self.dangling.append(&mut other.dangling);
        self.sockets.append(&mut other.sockets);
        self.cut = self.cut.take().or(other.cut);
    }

    fn sort(&mut self) {
        for list in [&mut self.links, &mut self.hard_links, &mut self.repositories, &mut self.sockets] {
            list.sort();
        }
        self.dangling.sort();
    }

    fn is_cut(&mut self, folder: &Path, depth: usize) -> bool {
        let cut = depth > MAX_DEPTH || self.looked_at() > MAX_NAMES;
        if cut {
            self.cut.get_or_insert_with(|| folder.to_path_buf());
        }
        cut
    }

    /// Looks at the names of one folder; those of its folders that are to be looked into.
    fn folder(&mut self, Folder { path: folder, depth }: &Folder) -> Vec<Folder> {
        let (folder, depth) = (folder.as_path(), *depth);
        let mut below = Vec::new();
        if self.is_cut(folder, depth) {
            return below;
        }
        let Some(dir) = open(folder) else { return below };
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut listing = std::mem::take(&mut self.listing);
        let mut entries = RawDir::new(&dir, listing.room());
        let mut count = 0;
        while let Some(Ok(entry)) = entries.next() {
            let raw = entry.file_name();
            if is_dot(raw) {
                continue;
            }
            count += 1;
            let Some((kind, stat)) = kind(&dir, raw, entry.file_type()) else { continue };
            let name = raw.to_string_lossy();
            if self.seeks == Seeks::Repositories {
                if kind == FileType::Directory {
                    below.push(Folder { path: joined(folder, raw), depth: depth + 1 });
                }
                // A worktree's or submodule's `.git` file says where the repository is.
            } else if is_never_writable(&name) || (name == ".git" && kind != FileType::Directory) {
                self.protect(&joined(folder, raw), depth);
            } else if kind == FileType::Directory {
                below.push(Folder { path: joined(folder, raw), depth: depth + 1 });
            } else if kind == FileType::Socket {
                self.sockets.push(joined(folder, raw));
            } else if kind == FileType::RegularFile {
                self.file(&dir, folder, raw, stat);
            }
            names.extend(GIT_NAMES.iter().chain(&GIT_MARKS).find(|known| **known == name));
        }
        self.listing = listing;
        self.looked_at.fetch_add(count, Ordering::Relaxed);
        self.repository(folder, depth, &names, &mut below);
        below
    }

    /// What git obeys or runs, where a folder is git's: `.git` whatever is in it yet, a module's repository below it, a bare
    /// repository, or what a linked worktree has of one.
    fn repository(&mut self, folder: &Path, depth: usize, names: &BTreeSet<&str>, below: &mut Vec<Folder>) {
        let has = |name: &str| names.contains(name);
        let whole = has("HEAD") && has("objects") && has("refs");
        let is_git = folder.file_name().is_some_and(|name| name == ".git");
        if is_git || whole || (has("HEAD") && (has("commondir") || has("gitdir"))) {
            self.repositories.push(folder.to_path_buf());
            if self.seeks == Seeks::Repositories {
                return;
            }
            for name in GIT_NAMES.iter().filter(|name| names.contains(**name)) {
                self.protect(&folder.join(name), depth);
            }
            below.retain(|below| {
                below.path.file_name().is_none_or(|name| name != "hooks" && !(whole && name == "objects"))
            });
        }
    }

    /// A file that is protected for what it is on the disk.
    fn file(&mut self, dir: &OwnedFd, folder: &Path, name: &CStr, stat: Option<Stat>) {
        let Some(stat) = stat.or_else(|| look_at(dir, name)) else { return };
        if stat.st_mode & SET_ID != 0 || has_capability(dir, folder, name) {
            self.note(&joined(folder, name), &stat);
        }
    }

    /// Protects a name that exists.
    pub(super) fn protect(&mut self, path: &Path, depth: usize) {
        let Ok(stat) = rustix::fs::lstat(path) else { return };
        let kind = kind_of(&stat);
        if kind == FileType::Symlink {
            self.links.push(path.to_path_buf());
            if let Ok(target) = path.canonicalize() {
                self.found.insert(target);
            }
            return;
        }
        self.note(path, &stat);
        if kind == FileType::Directory {
            self.inside_protected(path, depth + 1);
        }
    }

    fn note(&mut self, path: &Path, stat: &Stat) {
        if kind_of(stat) == FileType::RegularFile && stat.st_nlink > 1 {
            self.hard_links.push(path.to_path_buf());
        }
        self.found.insert(path.to_path_buf());
    }

    /// A read-only folder does not protect what its names lead to: other names of its files, targets of its links, sockets.
    fn inside_protected(&mut self, folder: &Path, depth: usize) {
        if self.is_cut(folder, depth) {
            return;
        }
        let Some(dir) = open(folder) else { return };
        let mut room = Listing::default();
        let mut entries = RawDir::new(&dir, room.room());
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            self.looked_at.fetch_add(1, Ordering::Relaxed);
            let path = joined(folder, name);
            let Some(stat) = look_at(&dir, name) else { continue };
            match kind_of(&stat) {
                FileType::Directory => self.inside_protected(&path, depth + 1),
                FileType::Socket => self.sockets.push(path),
                FileType::Symlink => match (path.canonicalize(), std::fs::read_link(&path)) {
                    (Ok(target), _) => drop(self.found.insert(target)),
                    (Err(_), Ok(target)) => self.dangling.push((folder.join(target), path)),
                    (Err(_), Err(_)) => {}
                },
                FileType::RegularFile if stat.st_nlink > 1 => self.hard_links.push(path),
                _ => {}
            }
        }
    }
}

/// What a name is: from the listing, which nearly every file system fills in, or by a look at it.
fn kind(dir: &OwnedFd, name: &CStr, listed: FileType) -> Option<(FileType, Option<Stat>)> {
    if listed != FileType::Unknown {
        return Some((listed, None));
    }
    let stat = look_at(dir, name)?;
    Some((kind_of(&stat), Some(stat)))
}

/// Whether a file gives power by being executed, by a capability; [`Walk::file`] looks for the other way. Rewritten through shared
/// memory it would keep that: the kernel takes it off at a write(2), and not at a store.
fn has_capability(dir: &OwnedFd, folder: &Path, name: &CStr) -> bool {
    // An error is a kernel's or a filter's that does not know the call.
    attribute::has(dir.as_fd(), name, CAPABILITY).unwrap_or_else(|_| has_capability_by_path(folder, name))
}

fn has_capability_by_path(folder: &Path, name: &CStr) -> bool {
    // Asked for with no room for the value: its length is the answer.
    let path = CString::new([folder.as_os_str().as_bytes(), b"/", name.to_bytes()].concat());
    path.is_ok_and(|path| rustix::fs::lgetxattr(&path, CAPABILITY, &mut [0u8; 0][..]).is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
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

    #[test]
    fn a_large_tree_that_two_look_through_gives_all_of_it_once_and_in_one_order() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        let mut expected = BTreeSet::new();
        for number in 0..60 {
            let folder = top.join(format!("{}/{number}", number % 7));
            fs::create_dir_all(&folder).unwrap();
            (0..30).for_each(|name| fs::write(folder.join(format!("f{name}")), "").unwrap());
            fs::set_permissions(folder.join("f3"), fs::Permissions::from_mode(0o4755)).unwrap();
            fs::hard_link(folder.join("f3"), folder.join("again")).unwrap();
            std::os::unix::fs::symlink("f1", folder.join(".envrc")).unwrap();
            expected.extend(["f1", "f3", "again"].map(|name| folder.join(name)));
        }
        for _ in 0..20 {
            let walk = walked(&top);
            assert_eq!(walk.found, expected);
            assert_eq!((walk.links.len(), walk.hard_links.len(), walk.looked_at()), (60, 120, 60 * 33 + 7));
            assert!(walk.links.is_sorted() && walk.hard_links.is_sorted() && walk.cut.is_none());
        }
    }

    #[test]
    fn a_file_capability_is_found_with_the_new_call_and_without() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        make(&top, &[], &["able", "plain"]);
        // cap_net_raw=p, version 2: see capability.h.
        let value = [0x00, 0x00, 0x00, 0x02, 0x00, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let set = rustix::fs::lsetxattr(top.join("able"), CAPABILITY, &value, rustix::fs::XattrFlags::empty());
        if set == Err(rustix::io::Errno::PERM) {
            eprintln!("SKIPPED: only root can give a file a capability");
            return;
        }
        set.unwrap();
        assert_eq!(walked(&top).found, BTreeSet::from([top.join("able")]));
        assert!(has_capability_by_path(&top, c"able") && !has_capability_by_path(&top, c"plain"));
    }
}
