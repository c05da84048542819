//! Which parts of the file system are whose: the system's, somebody's home, ours.
//!
//! All answers are about resolved paths, compared by component. A link in a home, a home that is a link, and a state
//! folder that does not exist yet all give the same answer as their targets.

use std::path::{Component, Path, PathBuf};

use super::surroundings::Surroundings;

/// Never a place to write, nor below.
const SYSTEM_TREES: [&str; 18] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/gnu",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/proc",
    "/run",
    "/sbin",
    "/snap",
    "/sys",
    "/usr",
    "/var/run",
    "/var/spool",
];

/// Shared by everybody: a folder in them may be a workdir, they themselves may not.
const SHARED_FOLDERS: [&str; 14] = [
    "/home",
    "/lost+found",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/tmp",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/mail",
    "/var/opt",
    "/var/tmp",
];

/// Programs, libraries and the public part of /etc: what every process needs and no secret stands in.
const SYSTEM_RUNTIME: [&str; 44] = [
    "/bin",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/sbin",
    "/usr",
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/java",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nodejs",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki/tls/certs",
    "/etc/profile",
    "/etc/protocols",
    "/etc/python3",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// Trees of which an operator must name each part that is opened.
const GUARDED_TREES: [(&str, &str); 7] = [
    ("/root", "it is root's home"),
    ("/run", "sockets and secrets of services live under /run"),
    ("/var/run", "sockets and secrets of services live under /run"),
    ("/proc", "other processes can be seen through /proc"),
    ("/sys", "the kernel is configured through /sys"),
    ("/dev", "it is a device"),
    ("/boot", "the kernel is started from it"),
];

/// The map of one host, for one asking user.
#[derive(Debug, Clone)]
pub(super) struct Zones {
    homes: Vec<PathBuf>,
    ours: Vec<PathBuf>,
}

/// The resolved path as far as it exists, the rest taken literally (`..` folded).
#[must_use]
pub fn settled(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(resolved) = existing.canonicalize() {
            let mut out = resolved;
            for part in missing.iter().rev() {
                match part {
                    Component::ParentDir => drop(out.pop()),
                    Component::CurDir => {}
                    other => out.push(other),
                }
            }
            return out;
        }
        let Some(last) = existing.components().next_back() else { return path.to_path_buf() };
        missing.push(last);
        match existing.parent() {
            Some(parent) => existing = parent,
            None => return path.to_path_buf(),
        }
    }
}

fn inside_any<'t>(path: &Path, trees: impl IntoIterator<Item = &'t str>) -> Option<&'t str> {
    trees.into_iter().find(|tree| path.starts_with(tree))
}

impl Zones {
    /// The map that follows from the accounts and from our own folders.
    pub(super) fn new(around: &Surroundings, operator_file: &Path) -> Zones {
        let mut homes: Vec<PathBuf> = around
            .accounts
            .iter()
            .map(|account| account.home.clone())
            .chain(around.home.clone())
            .chain([PathBuf::from("/root")])
            .filter(|home| home.is_absolute())
            .map(|home| settled(&home))
            // Service accounts have `/`, `/bin` or `/usr/sbin` as their home: no home in our sense.
            .filter(|home| home.parent().is_some() && inside_any(home, SYSTEM_TREES).is_none() && home.is_dir())
            .filter(|home| !SHARED_FOLDERS.iter().any(|shared| home == Path::new(shared)))
            .collect();
        homes.sort();
        homes.dedup();
        let ours = [&around.config_dir, &around.state_dir, &around.runtime_dir]
            .into_iter()
            .map(|folder| settled(folder))
            .chain([settled(operator_file)])
            .collect();
        Zones { homes, ours }
    }

    /// What no ring may see.
    pub(super) fn hidden(&self) -> Vec<PathBuf> {
        let mut ours = self.ours.clone();
        ours.sort();
        ours.dedup();
        ours
    }

    pub(super) fn is_home(&self, path: &Path) -> bool {
        self.homes.iter().any(|home| home == path) || path.parent() == Some(Path::new("/home"))
    }

    /// Whether `path` (resolved) is part of the system: nobody's place to write.
    pub(super) fn is_system(&self, path: &Path) -> bool {
        inside_any(path, SYSTEM_TREES).is_some() && self.home_of(path).is_none()
    }

    /// The innermost home that `path` is in.
    fn home_of(&self, path: &Path) -> Option<PathBuf> {
        let known =
            self.homes.iter().filter(|home| path.starts_with(home)).max_by_key(|home| home.components().count());
        let below_home = path.strip_prefix("/home").ok().and_then(|rest| rest.components().next());
        known.cloned().or_else(|| below_home.map(|first| Path::new("/home").join(first)))
    }

    /// The dot-folder of a home that `path` is, or is in.
    fn dot_folder_of(&self, path: &Path) -> Option<PathBuf> {
        let home = self.home_of(path)?;
        let first = path.strip_prefix(&home).ok()?.components().next()?;
        first.as_os_str().to_string_lossy().starts_with('.').then(|| home.join(first))
    }

    fn holds_a_home(&self, path: &Path) -> Option<&PathBuf> {
        self.homes.iter().find(|home| home.starts_with(path) && *home != path)
    }

    /// Our folder that `path` is, is in, or holds.
    pub(super) fn touches_ours(&self, path: &Path) -> Option<&PathBuf> {
        self.ours.iter().find(|own| path.starts_with(own) || (own.starts_with(path) && !self.is_operator_file(own)))
    }

    /// The operator's file may stand beside an agent.yaml (examples do): it is protected there, not a reason to refuse.
    fn is_operator_file(&self, own: &Path) -> bool {
        self.ours.last().is_some_and(|file| file == own)
    }

    /// Whether `path` is our folder or in it.
    pub(super) fn is_ours(&self, path: &Path) -> bool {
        self.ours.iter().any(|own| path.starts_with(own))
    }

    /// Why `path` (resolved) can never be a workdir; `None` = it can.
    pub(super) fn workdir_objection(&self, path: &Path) -> Option<String> {
        if path.parent().is_none() {
            return Some("it is the root of the file system".to_owned());
        }
        if inside_any(path, SYSTEM_TREES).is_some() || SHARED_FOLDERS.iter().any(|shared| path == Path::new(shared)) {
            return Some("it is a system folder".to_owned());
        }
        if self.is_home(path) {
            return Some("it is a home".to_owned());
        }
        if let Some(home) = self.holds_a_home(path) {
            return Some(format!("it holds the home {}", home.display()));
        }
        if let Some(folder) = self.dot_folder_of(path) {
            return Some(format!("{} is a dot-folder of a home, where keys and settings are kept", folder.display()));
        }
        self.touches_ours(path)
            .map(|own| format!("the supervisor keeps its own files in {}, which no agent may reach", own.display()))
    }

    /// Whether everybody may read `path` (resolved); else why not.
    pub(super) fn read_objection(&self, path: &Path) -> Option<String> {
        if inside_any(path, SYSTEM_RUNTIME).is_some() && self.home_of(path).is_none() {
            return None;
        }
        if let Some(home) = self.home_of(path) {
            return Some(format!("it is in the home {}", home.display()));
        }
        if let Some((_, why)) = GUARDED_TREES.iter().find(|(tree, _)| path.starts_with(tree)) {
            return Some((*why).to_owned());
        }
        Some("it is neither in the workdir nor part of the system or of the program".to_owned())
    }

    /// Whether a whole tree can be opened as a program's installation: never a home, what holds one, or a folder in
    /// which other programs keep their settings.
    pub(super) fn can_be_installation(&self, tree: &Path) -> bool {
        let direct_dot_folder = self.dot_folder_of(tree).is_some_and(|folder| folder == tree);
        tree.parent().is_some()
            && !self.is_home(tree)
            && self.holds_a_home(tree).is_none()
            && self.touches_ours(tree).is_none()
            && !SHARED_FOLDERS.iter().any(|shared| tree == Path::new(shared))
            && !GUARDED_TREES.iter().any(|(guarded, _)| *guarded != "/root" && tree.starts_with(guarded))
            && !tree.starts_with("/etc")
            && (!direct_dot_folder || tree.join("pyvenv.cfg").is_file())
    }
}
