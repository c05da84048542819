//! Sockets of other programs in what an agent sees: they answer through read-only mounts too, so they are covered.
//!
//! Whoever connects to a socket has the power of the service behind it, and no Landlock right below ABI 9 stands in the way.
//! The sockets that exist when the plan is made or launched are listed here; the ring lays an empty file over each.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_rings::builtin;
use agt_rings::report::Protection;
use agt_rings::spec::Access;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::look::{Question, Seen, stands};
use super::walk::{MAX_DEPTH, MAX_NAMES};

/// The sockets in the readable trees, and those of the writable ones (`in_writable`), without those that an operator's line
/// names.
pub(super) fn to_cover(question: &Question<'_>, in_writable: Vec<PathBuf>, seen: &mut Seen) {
    let mut look = Look { sockets: in_writable, looked_at: 0, cut: None };
    for rule in question.files.iter().filter(|rule| rule.access == Access::Read && rule.path.is_dir()) {
        // What is given to it, it enters as its owner.
        look.folder(&rule.path, 0, question.is_stranger && !question.as_owner.contains(&rule.path));
    }
    if question.ring == Ring::R1 {
        for tree in builtin::definition(Ring::R1).system_read {
            look.folder(Path::new(tree), 0, question.is_stranger);
        }
    }
    if let Some(folder) = look.cut {
        let reason = format!(
            "can't be had below {}: more than {MAX_NAMES} names or {MAX_DEPTH} levels, not all looked at for sockets",
            folder.display()
        );
        let help = "name smaller folders, or ask for a ring that sees less".to_owned();
        seen.gap(Protection::IpcIsolation, reason, help);
    }
    let served = look.sockets.into_iter().filter(|path| !question.opened.sockets.contains(path) && is_served(path));
    let known = question.known.sockets.iter().filter(|path| stands(path)).cloned();
    seen.sockets = known.chain(served).collect::<BTreeSet<PathBuf>>().into_iter().collect();
}

/// Whether some process holds the socket. One that is left over from an earlier run answers nobody, never will again (who
/// binds the name anew makes a new file), and must be left to the agent, which may have made it.
///
/// Asked with the type that services hardly ever have: the kernel then says EPROTOTYPE, and the service hears nothing of it.
fn is_served(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(socket) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None) else {
        return true;
    };
    // A path that does not fit an address can't be asked about: covered.
    let Ok(address) = SocketAddrUnix::new(path) else { return true };
    !matches!(rustix::net::connect(&socket, &address), Err(Errno::CONNREFUSED | Errno::NOENT))
}

struct Look {
    sockets: Vec<PathBuf>,
    looked_at: usize,
    cut: Option<PathBuf>,
}

impl Look {
    fn folder(&mut self, folder: &Path, depth: usize, as_stranger: bool) {
        if depth > MAX_DEPTH || self.looked_at > MAX_NAMES {
            self.cut.get_or_insert_with(|| folder.to_path_buf());
            return;
        }
        if as_stranger && !folder.metadata().is_ok_and(|metadata| metadata.mode() & 0o001 != 0) {
            return;
        }
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.looked_at += 1;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.folder(&entry.path(), depth + 1, as_stranger),
                Ok(kind) if kind.is_socket() => self.sockets.push(entry.path()),
                _ => {}
            }
        }
    }
}
