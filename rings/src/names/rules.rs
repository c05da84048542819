//! The rules of one launch: which names may not come to be, below which trees.
//!
//! Three kinds. Never-writable names hold at any depth, each by its last name alone, so that no move of a folder can bring one
//! about. Patterns of a user may name folders too; a move is refused where the new path could match more than the old one.
//! And a git repository that stood at launch keeps what it has: its hooks and configuration can't be made where they were
//! missing, and nothing can be put in its place. A repository of the agent's own making is its own.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fold::folded;
use super::lists::{ENDINGS, GIT_NAMES, NAMES};
use super::pattern::{Pattern, States, components};

/// How a refusal by a user's own pattern begins: the key of the agent's file that has it.
pub const DENIED: &str = "files.deny ";
/// The rule of [`Rules::paths`]. A rule is one of these words or a pattern: who reads it finds its sentence by it.
pub const PROTECTED_PATH: &str = "protected-path";
/// The rule of [`Rules::repositories`].
pub const STANDING_REPOSITORY: &str = "standing-repository";
/// The rule of a path that the kernel can't tell.
pub const PATH_TOO_LONG: &str = "path-too-long";
/// The rule of a move by which patterns would be about other folders than were meant.
pub const WORKDIR_MOVED: &str = "workdir-moved";

/// Which names an agent may not make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    /// The writable trees below which all of this holds, as the agent sees them.
    pub roots: Vec<PathBuf>,
    /// Patterns of a user, relative to the workdir, or to the outermost tree of a path that is not in it.
    pub denied: Vec<Pattern>,
    /// Where the agent starts.
    pub workdir: PathBuf,
    /// Single paths that nothing may be put at: what is masked, should its mask go with a change of the host's.
    pub paths: HashSet<PathBuf>,
    /// Never-writable names that an operator opened: a name or a path's end anywhere, a path below the workdir, or a whole path.
    pub opened: Vec<String>,
    /// Folders of git repositories that stood at launch.
    pub repositories: Vec<PathBuf>,
}

/// Where a name would come to be.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The path of the folder, as the kernel gives it; `None` where it has none to give (too long, or moved out of sight).
    pub folder: Option<&'a Path>,
    /// The name, without slashes.
    pub name: &'a OsStr,
    /// The folder is one of [`Rules::repositories`], wherever it was moved.
    pub in_repository: bool,
}

impl Place<'_> {
    fn whole(&self) -> Option<PathBuf> {
        self.folder.map(|folder| folder.join(self.name))
    }
}

/// How a name would come to be.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// By mkdir: there is nothing in it yet.
    Folder,
    /// As anything else that is new: a file, a node, a link to something.
    New,
    /// By a rename from here; what is in it is not looked at.
    Moved(Place<'a>),
}

/// What is said to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may come to be.
    Free,
    /// It may not, by this rule: one of the words above, a pattern of ours, or [`DENIED`] and a user's.
    Refused(String),
    /// It would come from outside of the trees: by EXDEV, as from another file system.
    FromOutside,
}

impl Rules {
    /// Whether a name may come to be.
    pub fn decide(&self, place: &Place<'_>, kind: Kind<'_>) -> Verdict {
        let name = folded(place.name.as_bytes());
        let Some(whole) = place.whole() else { return self.decide_blind(&name, place, kind) };
        let Some(root) = self.root_of(&whole) else { return Verdict::Free };
        if self.paths.contains(&whole) {
            return by(PROTECTED_PATH);
        }
        if let Some(refused) = self.repository(place, &whole, &name, kind) {
            return refused;
        }
        let below = whole.strip_prefix(root).unwrap_or(&whole);
        if let Some(pattern) = self.never(root, below) {
            return Verdict::Refused(pattern);
        }
        self.denied_by(&whole, kind)
    }

    /// The outermost tree with this path in it: the more of a path a pattern sees, the more it can match.
    fn root_of(&self, path: &Path) -> Option<&Path> {
        let holding = self.roots.iter().filter(|root| path.starts_with(root) && path != root.as_path());
        holding.map(PathBuf::as_path).min_by_key(|root| root.as_os_str().len())
    }

    /// The kernel has no path to give: what could match anywhere is refused, and so is what could bring a folder here.
    fn decide_blind(&self, name: &str, place: &Place<'_>, kind: Kind<'_>) -> Verdict {
        if matches!(kind, Kind::Moved(_)) {
            return by(PATH_TOO_LONG);
        }
        if place.in_repository && is_git_name(name) {
            return by(STANDING_REPOSITORY);
        }
        match never_writable(name) {
            Some(pattern) => Verdict::Refused(pattern),
            None => match self.denied.iter().find(|pattern| pattern.could_end_with(name)) {
                Some(pattern) => Verdict::Refused(format!("{DENIED}{pattern}")),
                None => Verdict::Free,
            },
        }
    }

    /// What a repository that stood at launch does not get any more.
    fn repository(&self, place: &Place<'_>, whole: &Path, name: &str, kind: Kind<'_>) -> Option<Verdict> {
        let folder = place.folder?;
        let inside = place.in_repository || self.repositories.iter().any(|repository| repository == folder);
        if inside && is_git_name(name) && !self.is_opened(whole) {
            return Some(by(STANDING_REPOSITORY));
        }
        // A new folder in a repository's place, or above, has nothing in it, and what is made there is asked for again.
        let below = |repository: &&PathBuf| repository.starts_with(whole);
        let replaced = self.repositories.iter().find(below).filter(|_| !matches!(kind, Kind::Folder))?;
        (!self.is_opened(replaced)).then(|| by(STANDING_REPOSITORY))
    }

    /// The never-writable name on the way to a path below a tree.
    fn never(&self, root: &Path, below: &Path) -> Option<String> {
        let mut path = root.to_owned();
        below.iter().find_map(|name| {
            path.push(name);
            never_writable(&folded(name.as_bytes())).filter(|_| !self.is_opened(&path))
        })
    }

    fn denied_by(&self, whole: &Path, kind: Kind<'_>) -> Verdict {
        if self.denied.is_empty() && !matches!(kind, Kind::Moved(_)) {
            return Verdict::Free;
        }
        let from = match kind {
            Kind::Moved(from) => match from.whole() {
                Some(from) if self.root_of(&from).is_some() => Some(from),
                Some(_) => return Verdict::FromOutside,
                None => return by(PATH_TOO_LONG),
            },
            Kind::Folder | Kind::New => None,
        };
        // What is below changes what it is relative to.
        if !self.denied.is_empty() && from.is_some() && self.workdir.starts_with(whole) {
            return by(WORKDIR_MOVED);
        }
        let names = |path: &Path| relative(path, &self.workdir, &self.roots).map(components);
        let (to, from) = (names(whole), from.as_deref().map(names));
        for pattern in &self.denied {
            let Some(to) = &to else { continue };
            let mut states = pattern.start();
            for name in to {
                states = pattern.step(states, name);
                if pattern.accepts(states) {
                    return Verdict::Refused(format!("{DENIED}{pattern}"));
                }
            }
            let before = from.as_ref().map(|from| from.as_ref().map_or(States::NONE, |from| pattern.after(from)));
            if before.is_some_and(|before| !states.within(before)) {
                // What is in it can't be looked at.
                return Verdict::Refused(format!("{DENIED}{pattern}"));
            }
        }
        Verdict::Free
    }

    /// Whether an operator's line opens this path.
    fn is_opened(&self, path: &Path) -> bool {
        is_opened(&self.opened, &self.workdir, path)
    }

    /// Whether a repository may begin where this name is made: `.git`, or what git writes first into a bare one.
    #[must_use]
    pub fn begins_repository(name: &OsStr) -> bool {
        matches!(&folded(name.as_bytes())[..], ".git" | "head")
    }
}

/// Whether one of an operator's entries opens a path: `.vscode` or `.git/config` anywhere, one below the workdir, or a whole one.
#[must_use]
pub fn is_opened(opened: &[String], workdir: &Path, path: &Path) -> bool {
    opened.iter().any(|name| {
        if Path::new(name).is_absolute() {
            Path::new(name) == path
        } else {
            path.ends_with(name) || workdir.join(name) == path
        }
    })
}

/// What patterns see of a path: what is below the workdir, or else below the outermost of these trees.
#[must_use]
pub fn relative<'p>(path: &'p Path, workdir: &Path, trees: &[PathBuf]) -> Option<&'p Path> {
    path.strip_prefix(workdir).ok().or_else(|| {
        let holding = trees.iter().filter_map(|tree| path.strip_prefix(tree).ok());
        holding.max_by_key(|below| below.as_os_str().len())
    })
}

fn by(rule: &str) -> Verdict {
    Verdict::Refused(rule.to_owned())
}

fn is_git_name(folded: &str) -> bool {
    GIT_NAMES.contains(&folded)
}

/// The rule that keeps a name from every place; folded.
fn never_writable(name: &str) -> Option<String> {
    if NAMES.contains(&name) {
        return Some(format!("**/{name}"));
    }
    ENDINGS.iter().find(|ending| name.ends_with(*ending)).map(|ending| format!("**/*{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            roots: vec!["/w".into(), "/w/inner".into(), "/data".into()],
            denied: ["**/.env", "conf/*/key", "safe/**/x"].map(|text| Pattern::new(text).expect("a pattern")).into(),
            workdir: "/w".into(),
            paths: ["/w/own-name.yml".into()].into(),
            opened: vec![".idea".into(), "a/.vscode".into()],
            repositories: vec!["/w/repo/.git".into()],
        }
    }

    fn place(path: &str) -> Place<'_> {
        let path = Path::new(path);
        Place { folder: path.parent(), name: path.file_name().expect("a name"), in_repository: false }
    }

    fn refused(path: &str, kind: Kind<'_>) -> bool {
        matches!(rules().decide(&place(path), kind), Verdict::Refused(_))
    }

    fn moved(from: &str, to: &str) -> Verdict {
        rules().decide(&place(to), Kind::Moved(place(from)))
    }

    #[test]
    fn never_writable_names_are_refused_at_any_depth_below_the_trees_and_free_elsewhere() {
        for name in NAMES {
            for top in ["/w", "/w/a/b/c/d/e", "/w/inner/x", "/data"] {
                if name == ".idea" {
                    continue;
                }
                let path = format!("{top}/{name}");
                assert!(refused(&path, Kind::New) && refused(&path, Kind::Folder), "{path}");
                assert!(matches!(moved("/w/plain", &path), Verdict::Refused(_)), "{path}");
            }
            assert!(!refused(&format!("/tmp/{name}"), Kind::New));
        }
        assert!(refused("/w/refund.saga.yaml", Kind::New) && refused("/w/own-name.yml", Kind::New));
        assert!(refused("/w/.ENVRC", Kind::New) && refused("/w/.Vscode/x", Kind::New));
        assert!(!refused("/w/envrc", Kind::New) && !refused("/w/my.yaml", Kind::New));
        assert!(refused("/w/.claude/settings.json", Kind::New), "inside one that came after the launch");
    }

    #[test]
    fn what_an_operator_opened_is_free_where_it_was_opened() {
        assert!(!refused("/w/x/.idea", Kind::Folder) && !refused("/w/x/.idea/y", Kind::New));
        assert!(!refused("/w/a/.vscode", Kind::Folder) && refused("/w/b/.vscode", Kind::Folder));
        assert!(!refused("/w/b/a/.vscode", Kind::Folder), "a path's end holds anywhere");
        let mut all = rules();
        all.opened.push("own-name.yml".into());
        assert!(matches!(all.decide(&place("/w/own-name.yml"), Kind::New), Verdict::Refused(_)), "its own file never");
    }

    #[test]
    fn a_users_patterns_hold_and_no_move_brings_a_match_about() {
        assert!(refused("/w/a/.env", Kind::New) && refused("/w/conf/x/key", Kind::New));
        assert!(!refused("/w/a/conf/x/key", Kind::New));
        assert_eq!(moved("/w/a", "/w/b"), Verdict::Free);
        for to in ["/w/conf", "/w/conf/x", "/w/safe", "/w/safe/deep/er"] {
            assert!(matches!(moved("/w/a", to), Verdict::Refused(_)), "{to}");
        }
        assert_eq!(moved("/w/conf/x", "/w/conf/y"), Verdict::Free, "what is in it was kept there already");
        assert_eq!(moved("/w/conf/x", "/w/z"), Verdict::Free);
        assert!(refused("/data/a/.env", Kind::New) && refused("/data/conf/x/key", Kind::New), "in a tree of its own");
        assert!(matches!(moved("/data/a", "/data/conf"), Verdict::Refused(_)));
        let inner = Rules { roots: vec!["/w".into()], workdir: "/w/x/y".into(), ..rules() };
        assert!(matches!(inner.decide(&place("/w/x"), Kind::Moved(place("/w/z"))), Verdict::Refused(_)));
        assert_eq!(moved("/tmp/x", "/w/z"), Verdict::FromOutside);
    }

    #[test]
    fn a_repository_that_stood_gets_no_hooks_and_nothing_in_its_place() {
        for name in ["hooks", "config", "commondir", "gitdir", "config.worktree", "HOOKS"] {
            let path = format!("/w/repo/.git/{name}");
            assert!(refused(&path, Kind::Folder) && refused(&path, Kind::New), "{path}");
        }
        assert!(!refused("/w/repo/.git/HEAD", Kind::New) && !refused("/w/repo/.git/modules/x/config", Kind::New));
        // It was moved away: a folder can come there, empty, and is kept as the old one was.
        for path in ["/w/repo", "/w/repo/.git"] {
            assert!(!refused(path, Kind::Folder) && refused(path, Kind::New), "{path}");
            assert!(matches!(moved("/w/evil", path), Verdict::Refused(_)), "{path}");
        }
        let elsewhere = Place { in_repository: true, ..place("/w/moved/hooks") };
        assert!(matches!(rules().decide(&elsewhere, Kind::Folder), Verdict::Refused(_)));
    }

    #[test]
    fn a_rule_is_a_word_or_a_pattern_and_never_tells_a_path() {
        let blind = Place { folder: None, name: OsStr::new("y"), in_repository: true };
        let rules = rules();
        let told = [
            (rules.decide(&place("/w/own-name.yml"), Kind::New), PROTECTED_PATH),
            (rules.decide(&place("/w/repo/.git/config"), Kind::New), STANDING_REPOSITORY),
            (moved("/w/evil", "/w/repo"), STANDING_REPOSITORY),
            (rules.decide(&Place { name: OsStr::new("hooks"), ..blind }, Kind::Folder), STANDING_REPOSITORY),
            (rules.decide(&blind, Kind::Moved(place("/w/x"))), PATH_TOO_LONG),
            (rules.decide(&place("/w/x/plain"), Kind::Moved(blind)), PATH_TOO_LONG),
            (moved("/w/a", "/w/conf"), "files.deny conf/*/key"),
            (rules.decide(&place("/w/x/.vscode"), Kind::Folder), "**/.vscode"),
        ];
        for (verdict, rule) in told {
            assert_eq!(verdict, by(rule));
        }
        let inner = Rules { roots: vec!["/w".into()], workdir: "/w/x/y".into(), ..rules };
        assert_eq!(inner.decide(&place("/w/x"), Kind::Moved(place("/w/z"))), by(WORKDIR_MOVED));
    }

    #[test]
    fn a_repository_of_its_own_is_free() {
        for path in ["/w/new/.git", "/w/new/.git/hooks", "/w/.git/hooks", "/w/bare.git/hooks"] {
            assert!(!refused(path, Kind::Folder), "{path}");
        }
        assert!(!refused("/w/new/.git/hooks/pre-commit", Kind::New) && !refused("/w/new/.git/config", Kind::New));
        assert_eq!(moved("/w/new/.git/config.lock", "/w/new/.git/config"), Verdict::Free);
        assert_eq!(moved("/w/new/.git", "/w/other/.git"), Verdict::Free);
    }

    #[test]
    fn where_the_kernel_has_no_path_whatever_could_match_is_refused() {
        let blind = |name: &'static str| Place { folder: None, name: OsStr::new(name), in_repository: false };
        let rules = rules();
        for name in [".envrc", ".env", "key", "x", "a.saga.yaml"] {
            assert!(matches!(rules.decide(&blind(name), Kind::New), Verdict::Refused(_)), "{name}");
        }
        assert_eq!(rules.decide(&blind("plain"), Kind::New), Verdict::Free);
        assert!(matches!(rules.decide(&blind("plain"), Kind::Moved(place("/w/x"))), Verdict::Refused(_)));
        assert!(matches!(rules.decide(&place("/w/x/plain"), Kind::Moved(blind("y"))), Verdict::Refused(_)));
    }
}
