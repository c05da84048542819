//! The file that `--status-file` names: written once, when an agent is dead for good.
//!
//! Its folder may be the agent's own workdir, and we may be root. So the folder is held from before the launch, the text goes
//! into a new file beside it, and a rename puts that in the name's place: whatever the agent has put there (a link, a FIFO,
//! another name of somebody's file) is replaced and never opened.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Names tried for the new file before giving up: somebody else's leftovers, or an agent in our way.
const NAMES_MAX: u32 = 16;

/// A place for a final state.
#[derive(Debug, Clone)]
pub struct StatusFile {
    folder: Arc<OwnedFd>,
    name: OsString,
    path: PathBuf,
}

impl StatusFile {
    /// Takes hold of the folder. To be called before any agent runs that could rearrange the path to it.
    ///
    /// # Errors
    /// A folder that isn't there or can't be entered; a path that names no file, or a folder.
    pub fn new(path: &Path) -> io::Result<StatusFile> {
        let path = std::path::absolute(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        };
        let folder = open(parent, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY, Mode::empty())?;
        nix::unistd::faccessat(&folder, ".", nix::unistd::AccessFlags::W_OK, AtFlags::AT_EACCESS)?;
        let (name, folder) = (name.to_owned(), Arc::new(folder));
        let there = fstatat(&*folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        if there.is_ok_and(|there| there.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()) {
            return Err(Errno::EISDIR.into());
        }
        Ok(StatusFile { folder, name, path: path.clone() })
    }

    /// The path as it was given, made absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `text` in the place of whatever has the name.
    ///
    /// # Errors
    /// What the kernel says (a full disk, no right); the old file stands then.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let (mut file, beside) = self.make()?;
        let done = file
            .write_all(text.as_bytes())
            .and_then(|()| Ok(renameat(&*self.folder, beside.as_os_str(), &*self.folder, self.name.as_os_str())?));
        if done.is_err() {
            // The error that counts is the first.
            let _ = unlinkat(&*self.folder, beside.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        done
    }

    fn make(&self) -> io::Result<(File, OsString)> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..NAMES_MAX {
            let mut beside = OsString::from(".");
            beside.push(&self.name);
            beside.push(format!(".{:08x}", rand::random::<u32>()));
            match openat(&*self.folder, beside.as_os_str(), flags, Mode::from_bits_truncate(0o644)) {
                Ok(file) => return Ok((File::from(file), beside)),
                Err(e) => last = e.into(),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn link_in_its_place_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        let place = dir.path().join("status.json");
        let status = StatusFile::new(&place).unwrap();
        std::os::unix::fs::symlink(&victim, &place).unwrap();
        status.write("{}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "{}\n");
        assert!(!std::fs::symlink_metadata(&place).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn folder_that_is_not_there_is_known_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(StatusFile::new(&dir.path().join("no/status.json")).is_err());
        assert!(StatusFile::new(Path::new("/")).is_err());
    }
}
