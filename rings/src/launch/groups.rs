//! What our own groups open on this host: looked for where agents could see it, by the modes of what stands there.
//!
//! Only an ordinary user's launcher asks: its agents keep its groups, because a user namespace that it makes can't drop one. Each
//! entry counts when the group's bits give what neither the owner's (we are not the owner) nor everybody's give, and the kernel
//! lets us use them: access(2) also knows the folders above and the access lists.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};

use crate::builtin;
use crate::host::{GroupOpens, OpenedKind, Privilege};
use crate::ring::Ring;

/// Most names that one look takes, and how deep it goes.
const NAMES_MAX: usize = 200_000;
const DEPTH_MAX: usize = 32;
/// Most findings that are kept: one is enough to refuse, a few make a message.
const FOUND_MAX: usize = 64;

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Devices, sockets, and the parts of /etc that every ring sees.
    EveryRing,
    /// Beside those, what R1 alone sees of the system: a large look.
    R1,
}

/// What the groups of this process open.
pub(super) fn opened(privilege: Privilege, look: Look) -> Vec<GroupOpens> {
    let Privilege::User { uid, .. } = privilege else { return Vec::new() };
    let mut groups: BTreeSet<u32> =
        nix::unistd::getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect();
    groups.insert(nix::unistd::getegid().as_raw());
    let mut search = Search {
        uid,
        groups,
        names: fs::read_to_string("/etc/group").unwrap_or_default(),
        looked_at: 0,
        found: Vec::new(),
    };
    match look {
        Look::EveryRing => {
            search.devices(Path::new("/dev"), 0);
            search.sockets(&fs::read_to_string("/proc/net/unix").unwrap_or_default());
            builtin::RUNTIME_ETC.iter().for_each(|tree| search.tree(Path::new(tree), 0));
        }
        Look::R1 => {
            builtin::definition(Ring::R1).system_read.iter().for_each(|tree| search.tree(Path::new(tree), 0));
        }
    }
    search.found
}

struct Search {
    uid: u32,
    groups: BTreeSet<u32>,
    /// The text of /etc/group.
    names: String,
    looked_at: usize,
    found: Vec<GroupOpens>,
}

impl Search {
    fn devices(&mut self, folder: &Path, depth: usize) {
        for (path, metadata) in self.entries(folder, depth) {
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.devices(&path, depth + 1);
            } else if kind.is_char_device() || kind.is_block_device() {
                self.judge(path, &metadata, OpenedKind::Device);
            }
        }
    }

    /// Sockets that somebody serves, by the kernel's own list.
    fn sockets(&mut self, list: &str) {
        for path in socket_paths(list) {
            if let Ok(metadata) = fs::symlink_metadata(&path)
                && metadata.file_type().is_socket()
            {
                self.judge(path, &metadata, OpenedKind::Socket);
            }
        }
    }

    fn tree(&mut self, path: &Path, depth: usize) {
        let Ok(metadata) = fs::metadata(path) else { return };
        if !metadata.is_dir() {
            return self.judge(path.to_owned(), &metadata, OpenedKind::File);
        }
        if self.gives(&metadata).is_some() {
            return self.judge(path.to_owned(), &metadata, OpenedKind::Folder);
        }
        for (path, metadata) in self.entries(path, depth) {
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.tree(&path, depth + 1);
            } else if kind.is_file() {
                self.judge(path, &metadata, OpenedKind::File);
            }
        }
    }

    /// The names in a folder, links not followed; a bound that is met is a finding of its own.
    fn entries(&mut self, folder: &Path, depth: usize) -> Vec<(PathBuf, Metadata)> {
        if self.found.len() >= FOUND_MAX {
            return Vec::new();
        }
        if depth > DEPTH_MAX || self.looked_at > NAMES_MAX {
            let gid = nix::unistd::getegid().as_raw();
            self.found.push(GroupOpens {
                gid,
                name: self.name(gid),
                path: folder.to_owned(),
                kind: OpenedKind::Unknown,
            });
            return Vec::new();
        }
        // What we may not list, an agent of ours may not either.
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let found: Vec<_> =
            entries.flatten().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).collect();
        self.looked_at += found.len();
        found
    }

    /// The bits that only the group gives us: read 4, write 2, enter 1.
    fn gives(&self, metadata: &Metadata) -> Option<u32> {
        let theirs = metadata.uid() != self.uid && self.groups.contains(&metadata.gid());
        let bits = (metadata.mode() >> 3) & !metadata.mode() & 0o7;
        (theirs && bits != 0).then_some(bits)
    }

    fn judge(&mut self, path: PathBuf, metadata: &Metadata, kind: OpenedKind) {
        let Some(bits) = self.gives(metadata) else { return };
        let wanted = match kind {
            // A socket is called by writing.
            OpenedKind::Socket => bits & 0o2,
            // A program that only the group may start has no more power than its file: nothing is gained by setuid here.
            OpenedKind::File | OpenedKind::Device => bits & 0o6,
            OpenedKind::Folder | OpenedKind::Unknown => bits,
        };
        let usable = |bit: u32, flag| wanted & bit != 0 && eaccess(&path, flag).is_ok();
        let opens = usable(0o4, AccessFlags::R_OK) || usable(0o2, AccessFlags::W_OK) || usable(0o1, AccessFlags::X_OK);
        if opens && self.found.len() < FOUND_MAX {
            let gid = metadata.gid();
            self.found.push(GroupOpens { gid, name: self.name(gid), path, kind });
        }
    }

    fn name(&self, gid: u32) -> Option<String> {
        let gid = gid.to_string();
        let line = self.names.lines().find(|line| line.split(':').nth(2) == Some(gid.as_str()))?;
        line.split(':').next().map(str::to_owned)
    }
}

/// The bound paths in the text of /proc/net/unix (proc_net(5)): the eighth column, to the end of the line.
fn socket_paths(list: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| line.find(" /").map(|at| PathBuf::from(&line[at + 1..]));
    list.lines().skip(1).filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn search(uid: u32, groups: &[u32]) -> Search {
        Search {
            uid,
            groups: groups.iter().copied().collect(),
            names: "disk:x:6:\nstaff:x:50:a,b\n".to_owned(),
            looked_at: 0,
            found: Vec::new(),
        }
    }

    #[test]
    fn only_what_the_group_alone_gives_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path();
        let gid = fs::metadata(top).unwrap().gid();
        for (name, mode) in [("group", 0o640), ("all", 0o644), ("owner", 0o600), ("starts", 0o750)] {
            fs::write(top.join(name), "x").unwrap();
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let listener = UnixListener::bind(top.join("s")).unwrap();
        fs::set_permissions(top.join("s"), fs::Permissions::from_mode(0o660)).unwrap();
        // Somebody else's files, with one of their groups ours: who runs this test owns them, so the search is another's.
        let mut other = search(u32::MAX, &[gid]);
        fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
        other.tree(top, 0);
        let mut names: Vec<_> = other.found.iter().map(|f| f.path.file_name().unwrap().to_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["group", "starts"]);
        other.found.clear();
        let text = format!(
            "Num RefCount\nffff: 00000002 00000000 00010000 0001 01 4711 {}\nffff: 2 0 0 1 1 5 @abstract /x\n",
            top.join("s").display()
        );
        other.sockets(&text.replace(" @abstract /x", " @abstract"));
        assert_eq!(other.found.iter().map(|f| f.kind).collect::<Vec<_>>(), [OpenedKind::Socket]);
        let mut owner = search(fs::metadata(top).unwrap().uid(), &[gid]);
        owner.tree(top, 0);
        let mut stranger = search(u32::MAX, &[gid.wrapping_add(1)]);
        stranger.tree(top, 0);
        assert!(owner.found.is_empty() && stranger.found.is_empty());
        drop(listener);
    }

    #[test]
    fn a_folder_of_the_group_is_one_finding_whatever_is_in_it() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("private");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("key"), "x").unwrap();
        for (path, mode) in [(scratch.path(), 0o755), (folder.as_path(), 0o710)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut other = search(u32::MAX, &[fs::metadata(&folder).unwrap().gid()]);
        other.tree(scratch.path(), 0);
        assert_eq!(
            other.found.iter().map(|f| (f.path.clone(), f.kind)).collect::<Vec<_>>(),
            [(folder, OpenedKind::Folder)]
        );
    }

    #[test]
    fn a_group_is_named_as_the_system_names_it() {
        assert_eq!(search(1, &[]).name(50).as_deref(), Some("staff"));
        assert_eq!(search(1, &[]).name(51), None);
    }
}
