//! A tree of decoys for each run, and a look at what became of it.
//!
//! Why one of its own: a control that got through has changed its tree. Only a tree in which nothing at all has changed is used
//! again ([`Stock`]): most attacks leave theirs as it was, and a fresh one for each is what the probe's time went into (ext4 looks
//! at every inode that was removed in the last minutes before it gives one out). Why owned by the agent's own uid (all but the workdir): then
//! permission bits let everything through, and what stops the attack is the ring. The workdir belongs to the caller, as a real
//! one does.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::attack::MARK;
use crate::plan::Ids;

/// Services beside the agent's files, which anybody may call.
pub(super) const SOCKETS: [&str; 2] = ["work/socket", "readonly/socket"];
/// The supervisor's own, in its state: hidden with it.
const CONTROL: &str = "state/control";
/// Debian's group `disk`.
const PRIVILEGED_GROUP: u32 = 6;

/// Trees that are ready to be used.
#[derive(Debug)]
pub(super) struct Stock {
    /// Where they stand.
    place: PathBuf,
    made: AtomicUsize,
    unchanged: Mutex<Vec<Tree>>,
}

impl Stock {
    /// Trees will stand below `place`.
    pub(super) fn new(place: PathBuf) -> Stock {
        Stock { place, made: AtomicUsize::new(0), unchanged: Mutex::default() }
    }

    /// One for an agent of this identity: as good as fresh.
    pub(super) fn take(&self, agent: Option<Ids>) -> io::Result<Tree> {
        let mut unchanged = self.unchanged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = unchanged.iter().position(|tree| tree.agent == agent) {
            return Ok(unchanged.swap_remove(at));
        }
        drop(unchanged);
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Tree::make(self.place.join(format!("run-{number}")), agent)
    }

    /// Keeps it if nothing in it has changed since it was made; else it goes. Nobody may use it any more.
    pub(super) fn give_back(&self, tree: Tree) {
        if tree.is_as_made() {
            self.unchanged.lock().unwrap_or_else(PoisonError::into_inner).push(tree);
        }
    }
}

/// One run's decoys.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    agent: Option<Ids>,
    /// Held open: a socket that nobody listens on answers nobody.
    listeners: Vec<UnixListener>,
    /// All of it, when it was new.
    made: Look,
}

impl Tree {
    /// Makes the tree at `root`, which must not exist yet.
    pub(super) fn make(root: PathBuf, agent: Option<Ids>) -> io::Result<Tree> {
        let mut tree = Tree { root, agent, listeners: Vec::new(), made: Look::default() };
        make_dir(&tree.root)?;
        for dir in ["outside", "outside/dir", "readonly", "readonly/dir", "installed", "state", "scratch"] {
            make_dir(&tree.root.join(dir))?;
        }
        for dir in [
            "work",
            "work/.git",
            "work/.git/hooks",
            "work/.state",
            "work/.vscode",
            "work/.claude",
            "work/vendor",
            "work/vendor/.git",
            "work/vendor/.git/hooks",
            "work/plain",
            "work/plain/.git",
            "work/a",
            "work/a/b",
            "work/a/b/c",
        ] {
            make_dir(&tree.root.join(dir))?;
        }
        let files = ["outside/secret", "readonly/file", "installed/secret.conf", "state/key", "work/.state/key"];
        for file in files {
            let path = tree.root.join(file);
            fs::write(&path, MARK)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
        for file in [
            "work/agent.yaml",
            "work/file",
            "work/.git/config",
            "work/.git/commondir",
            "work/setuid",
            "work/.mcp.json",
            "work/.envrc",
            "work/.bashrc",
        ] {
            fs::write(tree.root.join(file), "# decoy\n")?;
        }
        // For a group that opens disks (Debian's `disk`), where we can give it one.
        let group = tree.root.join("installed/group.conf");
        fs::write(&group, MARK)?;
        if chown(&group, None, Some(PRIVILEGED_GROUP)).is_ok() {
            fs::set_permissions(&group, fs::Permissions::from_mode(0o640))?;
        }
        // Of whoever started the probe, and no program: nobody gains anything by it.
        fs::set_permissions(tree.root.join("work/setuid"), fs::Permissions::from_mode(0o4644))?;
        for socket in SOCKETS.into_iter().chain([CONTROL]) {
            let path = tree.root.join(socket);
            // Where the path is too long for a socket's name, the attack's control says so.
            if let Ok(listener) = UnixListener::bind(&path) {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
                listener.set_nonblocking(true)?;
                tree.listeners.push(listener);
            }
        }
        if let Some(agent) = agent {
            for part in ["outside", "readonly", "state", "scratch"] {
                give(&tree.root.join(part), agent)?;
            }
        }
        tree.made = tree.whole();
        Ok(tree)
    }

    fn whole(&self) -> Look {
        let mut seen = Vec::new();
        look_at(&self.root, &mut seen);
        Look { seen }
    }

    /// Whether nothing in it has changed, and nobody waits at its sockets.
    fn is_as_made(&self) -> bool {
        // Who connected and is gone would still take up room at the socket.
        self.listeners.iter().for_each(|listener| while listener.accept().is_ok() {});
        self.whole() == self.made
    }

    pub(super) fn path(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }

    /// What must not change while a ring denies: outside, the read-only tree, the supervisor's state, protected names.
    pub(super) fn look(&self) -> Look {
        let parts = [
            "outside",
            "readonly",
            "state",
            "work/agent.yaml",
            "work/.git/hooks",
            "work/.git/config",
            "work/.git/commondir",
            "work/.state",
            "work/setuid",
            "work/.vscode",
            "work/.claude",
            "work/.mcp.json",
            "work/.envrc",
            "work/.bashrc",
            "work/vendor/.git/hooks",
        ];
        let mut seen = Vec::new();
        for part in parts {
            look_at(&self.root.join(part), &mut seen);
        }
        Look { seen }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Only ours, made a moment ago; what an attack left inside goes with it.
        let _gone = fs::remove_dir_all(&self.root);
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path)?;
    // Whatever the umask says: the agent's uid must get to the decoys.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn give(path: &Path, agent: Ids) -> io::Result<()> {
    chown(path, Some(agent.uid), Some(agent.gid))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), agent)?;
        }
    }
    Ok(())
}

/// Inodes, sizes and change times: the change time moves with every kind of change (content, mode, owner, times, attributes,
/// links) and can't be set back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    seen: Vec<(PathBuf, u64, u64, i64, i64)>,
}

fn look_at(path: &Path, seen: &mut Vec<(PathBuf, u64, u64, i64, i64)>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    seen.push((path.to_owned(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()));
    if meta.is_dir() {
        let mut names: Vec<PathBuf> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        names.sort();
        names.iter().for_each(|name| look_at(name, seen));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn every_kind_of_change_is_seen_and_reading_is_none() {
        type Change = fn(&Tree);
        let changes: [(&str, Change); 7] = [
            ("write", |t| fs::write(t.path("outside/secret"), MARK).unwrap()),
            ("chmod", |t| {
                fs::set_permissions(t.path("readonly/file"), fs::Permissions::from_mode(0o604)).unwrap();
            }),
            ("create", |t| fs::write(t.path("work/.git/hooks/pre-commit"), "x").unwrap()),
            ("remove", |t| fs::remove_file(t.path("work/agent.yaml")).unwrap()),
            ("link", |t| fs::hard_link(t.path("readonly/file"), t.path("scratch/l")).unwrap()),
            ("rename", |t| fs::rename(t.path("outside/dir"), t.path("outside/dir2")).unwrap()),
            ("utime", |t| {
                let moment = nix::sys::time::TimeVal::new(1, 0);
                nix::sys::stat::utimes(&t.path("state/key"), &moment, &moment).unwrap();
            }),
        ];
        let dir = tempfile::tempdir().unwrap();
        for (name, change) in changes {
            let tree = Tree::make(dir.path().join(name), None).unwrap();
            let before = tree.look();
            fs::read(tree.path("outside/secret")).unwrap();
            assert_eq!(tree.look(), before, "reading before {name}");
            // The kernel's clock for change times ticks each few milliseconds.
            let until = fs::metadata(tree.path("outside/secret")).unwrap().ctime_nsec();
            while fs::write(tree.path("scratch/t"), "t").is_ok()
                && fs::metadata(tree.path("scratch/t")).unwrap().ctime_nsec() == until
            {}
            change(&tree);
            assert_ne!(tree.look(), before, "{name}");
        }
    }

    #[test]
    fn a_tree_is_used_again_only_when_nothing_in_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let stock = Stock::new(dir.path().to_owned());
        let first = stock.take(None).unwrap();
        let root = first.root.clone();
        UnixStream::connect(first.path("work/socket")).unwrap();
        fs::read(first.path("outside/secret")).unwrap();
        stock.give_back(first);
        let again = stock.take(None).unwrap();
        assert_eq!(again.root, root, "nothing has changed");
        let refused = again.listeners[0].accept().unwrap_err().kind();
        assert_eq!(refused, io::ErrorKind::WouldBlock, "nobody waits at its socket");
        // Also where no attack is judged by it: a later one would find it there.
        fs::create_dir(again.path("work/a/left")).unwrap();
        stock.give_back(again);
        assert!(!root.exists(), "it has changed");
        let third = stock.take(None).unwrap();
        assert_ne!(third.root, root);
        let back = third.root.clone();
        stock.give_back(third);
        let ids = Ids { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
        assert_ne!(stock.take(Some(ids)).unwrap().root, back, "another identity's");
    }

    #[test]
    fn a_tree_is_gone_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        drop(Tree::make(dir.path().join("t"), None).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
