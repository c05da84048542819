//! Groups that an agent keeps and that open something in its view: docker's socket, a disk, a folder of private keys.
//!
//! Judged by effect, not by name: a group counts when what it opens can be seen in this ring. Which promise that breaks depends
//! on the view. In a built root (R1 to R3) the agent would be more than "everybody" in the system's own files; in R0, which
//! has the host's files anyway, devices and sockets are what leads to more power than the user's.

use std::path::Path;

use super::mounts;
use super::protections::Facts;
use crate::builtin;
use crate::host::{GroupOpens, OpenedKind, Privilege};
use crate::ring::Ring;

/// Most places that a message names.
const NAMED_MAX: usize = 3;

/// An error when a group that can't be dropped opens something that this agent sees.
pub(super) fn refuse_opened(facts: &Facts<'_>) -> Result<(), (String, String)> {
    let Privilege::User { uid, gid } = facts.host.privilege else { return Ok(()) };
    let seen: Vec<&GroupOpens> = facts.host.groups.iter().filter(|opens| is_seen(opens, facts)).collect();
    let Some(first) = seen.first() else { return Ok(()) };
    let mut groups: Vec<String> = Vec::new();
    for opens in &seen {
        let name = opens.name.clone().unwrap_or_else(|| opens.gid.to_string());
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    let mut places: Vec<String> =
        seen.iter().take(NAMED_MAX).map(|opens| format!("{} {}", opens.kind.word(), opens.path.display())).collect();
    if seen.len() > NAMED_MAX {
        places.push(format!("{} more", seen.len() - NAMED_MAX));
    }
    let plural = if groups.len() == 1 { "group" } else { "groups" };
    let reason = format!(
        "needs your {plural} {} dropped, which no user namespace can do: it opens {}",
        groups.join(", "),
        places.join(", ")
    );
    // Of a primary group there is no dropping at all, only another one.
    let gid = if first.gid == gid { "GROUP".to_owned() } else { gid.to_string() };
    let help = format!(
        "start without it: `sudo setpriv --reuid {uid} --regid {gid} --clear-groups agt-supervise ...` (newgrp drops none); \
         or start the service as root, whose agents have no group of yours"
    );
    Err((reason, help))
}

fn is_seen(opens: &GroupOpens, facts: &Facts<'_>) -> bool {
    let spec = facts.spec;
    let path = opens.path.as_path();
    if spec.hide.iter().chain(&spec.sockets).any(|hidden| path.starts_with(hidden)) {
        return false;
    }
    let system = || in_system_view(path, spec.ring);
    match spec.ring {
        Ring::R0 => matches!(opens.kind, OpenedKind::Device | OpenedKind::Socket),
        // What the operator opens by its own path is meant to be reached; a tree is mounted without devices.
        Ring::R1 | Ring::R2 | Ring::R3 => match opens.kind {
            OpenedKind::Socket => {
                let declared = spec.files.iter().any(|rule| path.starts_with(&rule.path) && path != rule.path);
                system() || declared
            }
            OpenedKind::Device => false,
            OpenedKind::Folder | OpenedKind::File | OpenedKind::Unknown => system(),
        },
    }
}

/// Whether a path lies in what every agent of this ring sees of the system.
fn in_system_view(path: &Path, ring: Ring) -> bool {
    let definition = builtin::definition(ring);
    let listed =
        builtin::RUNTIME_TREES.iter().chain(&builtin::RUNTIME_ETC).chain(definition.system_read).map(Path::new);
    listed.filter(|tree| mounts::belongs(tree, definition)).any(|tree| path.starts_with(tree))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;
    use crate::host::{Host, Support, Tree};
    use crate::plan::{Refused, SystemTrees, compile};
    use crate::report::{Gap, Protection};
    use crate::seccomp::ExecCookie;
    use crate::spec::{Access, FileRule, Spec};

    fn opens(path: &str, kind: OpenedKind) -> GroupOpens {
        GroupOpens { gid: 999, name: Some("docker".to_owned()), path: path.into(), kind }
    }

    fn gaps(ring: Ring, groups: Vec<GroupOpens>, files: &[&str], covered: &[&str]) -> Vec<Gap> {
        let host = Host { groups, ..Host::of_today(Privilege::User { uid: 1000, gid: 1000 }) };
        let spec = Spec {
            files: files.iter().map(|path| FileRule { path: path.into(), access: Access::Write }).collect(),
            sockets: covered.iter().map(PathBuf::from).collect(),
            ..Spec::new("test", ring, "/bin/true", "/w")
        };
        let tree = |path: &&str| Tree {
            path: path.into(),
            uid: 1000,
            gid: 1000,
            id_map: Support::No { reason: "test".to_owned() },
            filesystem: "ext4".to_owned(),
        };
        let trees: Vec<Tree> = files.iter().map(tree).collect();
        match compile(&spec, &host, &trees, &SystemTrees::default(), ExecCookie::new(1)) {
            Ok(_) => Vec::new(),
            Err(Refused { gaps, .. }) => gaps,
        }
    }

    #[test]
    fn a_group_that_opens_the_dockers_socket_or_a_disk_refuses_r0_and_no_ring_that_sees_neither() {
        for (path, kind) in [("/run/docker.sock", OpenedKind::Socket), ("/dev/sda", OpenedKind::Device)] {
            let refused = gaps(Ring::R0, vec![opens(path, kind)], &[], &[]);
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert_eq!(refused[0].protection, Protection::Privileges);
            assert!(refused[0].reason.contains("docker") && refused[0].reason.contains(path), "{}", refused[0].reason);
            assert!(
                refused[0].help.contains("setpriv --reuid 1000 --regid 1000 --clear-groups"),
                "{}",
                refused[0].help
            );
            for ring in [Ring::R1, Ring::R2, Ring::R3] {
                assert_eq!(gaps(ring, vec![opens(path, kind)], &["/w"], &[]), [], "{ring}");
            }
        }
    }

    #[test]
    fn a_socket_in_a_declared_tree_counts_unless_it_is_covered_or_named_by_itself() {
        let socket = || vec![opens("/w/sub/s.sock", OpenedKind::Socket)];
        for ring in [Ring::R1, Ring::R2, Ring::R3] {
            let refused = gaps(ring, socket(), &["/w"], &[]);
            assert_eq!(
                refused.iter().map(|gap| gap.protection).collect::<Vec<_>>(),
                [Protection::OwnIdentity],
                "{ring}"
            );
            assert_eq!(gaps(ring, socket(), &["/w"], &["/w/sub/s.sock"]), []);
            assert_eq!(gaps(ring, socket(), &["/w/sub/s.sock"], &[]), []);
            assert_eq!(gaps(ring, socket(), &["/elsewhere"], &[]), []);
        }
    }

    #[test]
    fn private_keys_of_the_system_count_in_each_ring_that_sees_their_folder() {
        let keys = || vec![opens("/etc/ssl/private", OpenedKind::Folder)];
        for ring in [Ring::R1, Ring::R2, Ring::R3] {
            assert_eq!(gaps(ring, keys(), &[], &[]).len(), 1, "{ring}");
        }
        let more = || vec![opens("/var/lib/db", OpenedKind::Folder)];
        assert_eq!(gaps(Ring::R1, more(), &[], &[]).len(), 1);
        assert_eq!(gaps(Ring::R2, more(), &[], &[]), []);
        // R0 has the host's files by its definition; what its user may read is no more than the user's.
        assert_eq!(gaps(Ring::R0, keys(), &[], &[]), []);
    }
}
