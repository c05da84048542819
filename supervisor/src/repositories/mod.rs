//! Repositories that an agent made: what git would run or obey in them, for the user who is about to type `git` there.
//!
//! A repository of an agent's own making is its own, hooks and settings too, so what it planted is told when it has ended. Nothing of
//! it is run or followed: its files are opened below the writable tree without any link on the way, read up to a bound, and read by
//! us, because git itself obeys a repository's settings while it prints them.

mod settings;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use agt_rings::names::Rules;
use agt_rings::notice::escaped;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Most repositories that are told.
const REPOSITORIES_MAX: usize = 64;
/// Most names of a list.
const LISTED_MAX: usize = 16;
/// Most names of a hooks folder that are looked at.
const HOOKS_MAX: usize = 1_000;
/// Most bytes of a configuration that are read.
const CONFIG_BYTES_MAX: u64 = 256 * 1024;
/// Most bytes of a shown path, and of a shown name.
const PATH_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 100;

/// A repository that was not there when the agent was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its folder, `.git` or a bare one; escaped where it can't be shown as it is.
    pub path: String,
    /// Hooks that git would run, at most 16.
    pub hooks: Vec<String>,
    /// Settings by which git runs or reads something else, at most 16: `core.fsmonitor`.
    pub settings: Vec<String>,
    /// Hooks and settings beyond those.
    pub more: usize,
    /// What could not be looked at, so that nothing is known of it.
    pub unread: Vec<String>,
}

impl Made {
    /// Whether git would do there what its user has not asked for, or nobody knows.
    #[must_use]
    pub fn matters(&self) -> bool {
        !(self.hooks.is_empty() && self.settings.is_empty() && self.unread.is_empty())
    }

    /// In a line; what is in it was the agent's to choose, so it is a list and no sentence.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("made a repository: {}", self.path);
        let parts = [("hooks", &self.hooks), ("config runs", &self.settings), ("not to be read", &self.unread)];
        for (what, names) in parts.into_iter().filter(|(_, names)| !names.is_empty()) {
            line.push_str(&format!("; {what}: {}", names.join(", ")));
        }
        if self.more > 0 {
            line.push_str(&format!("; and {} more", self.more));
        }
        line + ". Look before you use git there."
    }
}

/// What a look has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The repositories, by path.
    pub made: Vec<Made>,
    /// What was not looked at: more than our bounds, or a disk that took too long.
    pub missed: Option<String>,
}

/// Looks at what came to be in the writable trees. `places` are those at which a repository was seen to begin: one of them may since
/// have been moved, so the trees are looked through, and more of them than at a launch. Blocks for the disk.
#[must_use]
pub fn look(rules: &Rules, places: &BTreeSet<PathBuf>) -> Found {
    let (walked, cut) = crate::config::repositories(&rules.roots);
    let all: BTreeSet<&PathBuf> =
        walked.iter().chain(places).filter(|path| !rules.repositories.contains(path)).collect();
    let mut found =
        Found { made: Vec::new(), missed: cut.map(|folder| format!("not all below {} was looked at", shown(&folder))) };
    for place in all {
        let Some(made) = rules.roots.iter().find(|root| place.starts_with(root)).and_then(|root| at(root, place))
        else {
            continue;
        };
        if found.made.len() == REPOSITORIES_MAX {
            found.missed.get_or_insert_with(|| format!("more than {REPOSITORIES_MAX} repositories"));
            break;
        }
        found.made.push(made);
    }
    found
}

/// A repository at a place below a tree; `None` where there is none.
fn at(root: &Path, place: &Path) -> Option<Made> {
    let mut made = Made { path: shown(place), hooks: Vec::new(), settings: Vec::new(), more: 0, unread: Vec::new() };
    let folder = match open_below(root, place.strip_prefix(root).ok()?) {
        Ok(folder) => folder,
        // Gone again, a file that points elsewhere, or somebody's link.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return None,
        Err(e) => {
            made.unread.push(io::Error::from(e).to_string());
            return Some(made);
        }
    };
    let has = |name: &str| rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let whole = has("HEAD") && (has("objects") || has("commondir") || has("gitdir"));
    // One that is not whole becomes so by the user's own `git init`.
    if !whole && place.file_name() != Some(OsStr::new(".git")) {
        return None;
    }
    hooks(&folder, &mut made);
    for name in ["config", "config.worktree"] {
        match read(&folder, name) {
            Ok(text) => list(settings::that_run(&text), &mut made.settings, &mut made.more),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => made.unread.push(format!("{name} ({e})")),
        }
    }
    (whole || made.matters()).then_some(made)
}

fn hooks(folder: &OwnedFd, made: &mut Made) {
    let open = open_at(folder, "hooks", OFlags::DIRECTORY).and_then(Dir::new);
    let entries = match open {
        Ok(entries) => entries,
        Err(Errno::NOENT) => return,
        // A file there is no folder of hooks; a link is one of somebody else's.
        Err(e) => return made.unread.push(format!("hooks ({})", io::Error::from(e))),
    };
    let Ok(dir) = open_at(folder, "hooks", OFlags::DIRECTORY) else { return };
    let mut names = BTreeSet::new();
    for (count, entry) in entries.flatten().enumerate() {
        if count == HOOKS_MAX {
            made.unread.push(format!("hooks beyond {HOOKS_MAX} names"));
            break;
        }
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || name.to_bytes().ends_with(b".sample") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let runs = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => stat.st_mode & 0o111 != 0,
            FileType::Symlink => true,
            _ => false,
        };
        if runs {
            names.insert(escaped(name.to_bytes(), NAME_BYTES_MAX));
        }
    }
    list(names, &mut made.hooks, &mut made.more);
}

fn list(names: BTreeSet<String>, into: &mut Vec<String>, more: &mut usize) {
    for name in names {
        if into.len() < LISTED_MAX {
            into.push(name);
        } else {
            *more += 1;
        }
    }
}

fn shown(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes(), PATH_BYTES_MAX)
}

/// A folder below a tree, without a link on the way.
fn open_below(root: &Path, relative: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&root, relative, flags, Mode::empty(), resolve)
}

/// A name in a folder, if it is no link; a FIFO holds nobody up.
fn open_at(folder: &OwnedFd, name: &str, kind: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | kind;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

fn read(folder: &OwnedFd, name: &str) -> io::Result<String> {
    let file = File::from(open_at(folder, name, OFlags::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(io::Error::other(format!("longer than {CONFIG_BYTES_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn executable(path: &Path) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn what_git_would_run_is_listed_wherever_the_repository_was_moved_and_what_stood_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        for repository in ["stood/.git", "moved/.git", "quiet/.git", "bare.git"] {
            fs::create_dir_all(top.join(repository).join("objects")).unwrap();
            fs::create_dir_all(top.join(repository).join("refs")).unwrap();
            fs::create_dir_all(top.join(repository).join("hooks")).unwrap();
            fs::write(top.join(repository).join("HEAD"), "ref: refs/heads/main\n").unwrap();
            fs::write(top.join(repository).join("config"), "[core]\n\tbare = false\n").unwrap();
            executable(&top.join(repository).join("hooks/pre-push.sample"));
        }
        executable(&top.join("stood/.git/hooks/pre-commit"));
        executable(&top.join("moved/.git/hooks/pre-commit"));
        fs::write(top.join("moved/.git/hooks/plain"), "").unwrap();
        symlink("/bin/true", top.join("bare.git/hooks/post-merge")).unwrap();
        fs::write(top.join("moved/.git/config"), "[core]\n\tfsmonitor = ./x\n").unwrap();
        // Moved to where no launch looks, from where one was begun; and one that is not whole yet.
        fs::create_dir_all(top.join("quiet/.git/objects/in/.git/hooks")).unwrap();
        executable(&top.join("quiet/.git/objects/in/.git/hooks/pre-commit"));
        let rules = Rules { roots: vec![top.clone()], repositories: vec![top.join("stood/.git")], ..Rules::default() };
        let places = BTreeSet::from([top.join("was/.git")]);
        let found = look(&rules, &places);
        let told: Vec<_> = found.made.iter().filter(|made| made.matters()).collect();
        let name = |path: &str| top.join(path).to_str().unwrap().to_owned();
        assert_eq!(
            told.iter().map(|made| made.path.clone()).collect::<Vec<_>>(),
            ["bare.git", "moved/.git", "quiet/.git/objects/in/.git"].map(name)
        );
        assert_eq!(
            (&told[0].hooks[..], &told[1].hooks[..]),
            (&["post-merge".to_owned()][..], &["pre-commit".to_owned()][..])
        );
        assert_eq!(
            told[1].line(),
            format!(
                "made a repository: {}; hooks: pre-commit; config runs: core.fsmonitor. Look before you use git there.",
                name("moved/.git")
            )
        );
        assert_eq!((found.made.len(), found.missed), (4, None));
    }

    #[test]
    fn links_and_pipes_are_not_followed_and_said() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        let tree = top.join("tree");
        fs::create_dir_all(tree.join("a/.git/objects")).unwrap();
        fs::write(tree.join("a/.git/HEAD"), "").unwrap();
        fs::create_dir(top.join("outside")).unwrap();
        fs::write(top.join("outside/config"), "[core]\nfsmonitor = x\n").unwrap();
        symlink(top.join("outside"), tree.join("a/.git/hooks")).unwrap();
        symlink(top.join("outside/config"), tree.join("a/.git/config.worktree")).unwrap();
        nix::unistd::mkfifo(&tree.join("a/.git/config"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink(tree.join("a"), tree.join("b")).unwrap();
        let rules = Rules { roots: vec![tree.clone()], ..Rules::default() };
        let found = look(&rules, &BTreeSet::from([tree.join("b/.git"), top.join("outside")]));
        assert_eq!(found.made.len(), 1, "{found:?}");
        let unread = found.made[0].unread.join(" ");
        assert!(found.made[0].settings.is_empty() && found.made[0].hooks.is_empty());
        assert!(["hooks", "config ", "config.worktree"].iter().all(|name| unread.contains(name)), "{unread}");
    }
}
