//! Which entries of a built root can be kept between launches, and which are made anew for each agent.
//!
//! Kept: what no agent can change, because it is a read-only view of the host, or a small file of our own on a file system
//! that nobody can write. Made anew: all that an agent writes, owns or could have had a hand in (private directories,
//! writable and id-mapped trees, and the masks inside them), what belongs to its namespaces (/proc, /dev/pts), and whatever
//! lies below one of those.

use std::path::{Path, PathBuf};

use crate::plan::Mount;
use crate::spec::Access;

/// A root's entries, each part in the plan's order.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    pub(super) kept: Vec<&'a Mount>,
    pub(super) fresh: Vec<&'a Mount>,
}

/// Splits a plan's entries. Parents come first there, so an entry below a fresh one is seen after it.
pub(super) fn split(mounts: &[Mount]) -> Layers<'_> {
    let mut layers = Layers { kept: Vec::new(), fresh: Vec::new() };
    for mount in mounts {
        let below_fresh = |target: &Path| layers.fresh.iter().any(|fresh| target.starts_with(fresh.target()));
        if can_be_kept(mount) && !below_fresh(mount.target()) {
            layers.kept.push(mount);
        } else {
            layers.fresh.push(mount);
        }
    }
    layers
}

fn can_be_kept(mount: &Mount) -> bool {
    match mount {
        Mount::Bind { access, id_map, .. } => *access == Access::Read && id_map.is_none(),
        Mount::Device { .. } | Mount::Link { .. } | Mount::File { .. } => true,
        Mount::Overlay { .. }
        | Mount::Private { .. }
        | Mount::Proc { .. }
        | Mount::Terminals
        | Mount::Pin { .. }
        | Mount::Protect { .. }
        | Mount::Hide { .. } => false,
    }
}

/// Whether an entry that is a file of our own would come to lie in what the host's disk has: shown below an entry that shows it.
pub(super) fn written_to_a_tree(entry: &Mount, above: &[&Mount]) -> bool {
    let target = entry.target();
    // What is nearest decides: a private directory may lie in a tree.
    let around = above.iter().rfind(|above| target.starts_with(above.target()) && target != above.target());
    matches!(entry, Mount::File { .. } | Mount::Link { .. }) && matches!(around, Some(Mount::Bind { .. }))
}

impl Layers<'_> {
    /// The fresh entries whose mount points the kept layer has to have, because nothing fresh lies above them; by number.
    pub(super) fn on_the_kept(&self) -> impl Iterator<Item = (usize, PathBuf)> + '_ {
        let placed = |mount: &Mount| {
            matches!(
                mount,
                Mount::Bind { .. }
                    | Mount::Overlay { .. }
                    | Mount::Private { .. }
                    | Mount::Proc { .. }
                    | Mount::Terminals
            )
        };
        self.fresh.iter().enumerate().filter(move |(_, mount)| placed(mount)).filter_map(move |(number, mount)| {
            let target = mount.target();
            let covered = self.fresh[..number].iter().any(|above| placed(above) && target.starts_with(above.target()));
            (!covered).then(|| (number, target.to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ProcView;

    fn bind(path: &str, access: Access) -> Mount {
        Mount::Bind { source: path.into(), target: path.into(), access, id_map: None }
    }

    fn private(path: &str) -> Mount {
        Mount::Private { target: path.into(), mode: 0o700, execute: crate::plan::Execute::Allowed }
    }

    #[test]
    fn nothing_that_an_agent_can_write_or_owns_is_kept() {
        let owned = Mount::Bind {
            source: "/venv".into(),
            target: "/venv".into(),
            access: Access::Read,
            id_map: Some((1000, 1000)),
        };
        let mounts = [
            bind("/usr", Access::Read),
            bind("/work", Access::Write),
            owned,
            private("/tmp"),
            Mount::Proc { view: ProcView::ReadOnly },
            Mount::Terminals,
            Mount::Pin { target: "/usr/a".into() },
            Mount::Protect { target: "/usr/b".into() },
            Mount::Hide { target: "/usr/c".into() },
        ];
        let layers = split(&mounts);
        assert_eq!(layers.kept, [&mounts[0]]);
        assert_eq!(layers.fresh, mounts[1..].iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_lies_below_a_fresh_entry_is_fresh_or_it_would_be_covered() {
        let mounts = [
            bind("/etc", Access::Write),
            bind("/etc/ssl", Access::Read),
            Mount::File { target: "/etc/passwd".into(), content: String::new() },
            bind("/etcetera", Access::Read),
        ];
        let layers = split(&mounts);
        assert_eq!(layers.kept, [&mounts[3]], "a name that only begins alike lies beside it");
        assert_eq!(layers.fresh.len(), 3);
    }

    #[test]
    fn no_file_of_ours_is_written_to_a_tree_of_the_host() {
        let (etc, run) = (bind("/etc", Access::Write), private("/etc/run"));
        let file = |at: &str| Mount::File { target: at.into(), content: String::new() };
        let link = Mount::Link { target: "/etc/mtab".into(), to: "/proc/mounts".into() };
        for entry in [file("/etc/passwd"), link] {
            assert!(written_to_a_tree(&entry, &[&etc]), "{entry:?}");
            assert!(!written_to_a_tree(&entry, &[&run]) && !written_to_a_tree(&entry, &[]));
        }
        assert!(!written_to_a_tree(&file("/etc/run/x"), &[&etc, &run]), "that is the agent's own");
        assert!(!written_to_a_tree(&bind("/etc/ssl", Access::Read), &[&etc]), "that is a mount");
    }

    #[test]
    fn mount_points_are_made_ahead_only_where_no_fresh_entry_will_cover_them() {
        let mounts = [
            private("/run"),
            bind("/run/agt", Access::Read),
            bind("/srv/a", Access::Write),
            bind("/srv/a/b", Access::Write),
            Mount::Protect { target: "/usr/x".into() },
        ];
        let layers = split(&mounts);
        let places: Vec<_> = layers.on_the_kept().collect();
        assert_eq!(places, [(0, PathBuf::from("/run")), (2, PathBuf::from("/srv/a"))]);
    }
}
