//! What a run of `learn` wrote: shown, then kept or dropped.

use std::ffi::CString;
use std::fs;
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Failure;
use super::learn::LearnArgs;
use crate::exit;

/// The most that is said of what a run changed.
const CHANGED_SHOWN: usize = 10;
/// Names of a scratch folder that are looked at.
const CHANGED_MAX: usize = 10_000;

/// What the run wrote: kept or dropped, as was typed or is answered.
pub(super) fn settle(args: &LearnArgs, scratch: &Path) -> Result<(), Failure> {
    let upper = scratch.join("upper");
    let changed = changed(&upper);
    let drop_it = |why: &str| match discard(scratch) {
        Ok(()) => Ok(()),
        Err(e) => Err(Failure::new(exit::CANT_CREATE, format!("{} can't be removed{why}: {e}", scratch.display()))),
    };
    if changed.is_empty() {
        return drop_it("");
    }
    if !args.quiet {
        eprintln!("note: your files are as they were; what it wrote is in {}:", upper.display());
        changed.iter().take(CHANGED_SHOWN).for_each(|path| eprintln!("  {path}"));
        if changed.len() > CHANGED_SHOWN {
            eprintln!("  and {} more", changed.len() - CHANGED_SHOWN);
        }
    }
    let keep = match (args.keep, args.discard) {
        (true, _) => true,
        (_, true) => false,
        _ if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
            crate::say::flush();
            eprint!("Keep it? [y/N] ");
            crate::say::flush();
            let mut answer = String::new();
            // No answer is no.
            let _ = std::io::stdin().read_line(&mut answer);
            answer.trim().eq_ignore_ascii_case("y")
        }
        _ => true,
    };
    if keep {
        eprintln!("note: it is kept. To drop it: rm -r {}", scratch.display());
        return Ok(());
    }
    drop_it("")
}

/// Names that an overlay's upper layer holds, relative to it.
fn changed(upper: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = upper.is_dir().then(|| upper.to_path_buf()).into_iter().collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            // Too deep for a path, or closed: something is there all the same.
            let shown = folder.strip_prefix(upper).unwrap_or(&folder).display().to_string();
            found.push(crate::driver::streams::escaped(&shown));
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            if found.len() >= CHANGED_MAX {
                return found;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else {
                let shown = path.strip_prefix(upper).unwrap_or(&path).display().to_string();
                found.push(crate::driver::streams::escaped(&shown));
            }
        }
    }
    found.sort();
    found
}

/// Names of a folder that are kept at once while it is emptied.
const BATCH: usize = 1_000;

/// Removes a scratch folder, however deep, by a handful of descriptors: what is a folder in a folder is moved to the top first.
/// No link is followed. The kernel's own folder in it is closed even to its owner, as are some that a program made.
pub(super) fn discard(scratch: &Path) -> std::io::Result<()> {
    let top = match rustix::fs::open(scratch, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    loop {
        let names = batch(&top)?;
        if names.is_empty() {
            break;
        }
        let mut is_less = false;
        let mut failed = None;
        for name in names {
            match taken_away(&top, &name) {
                Ok(Progress::Gone) => is_less = true,
                Ok(Progress::Left(moved)) => is_less |= moved,
                Err(e) => failed = Some(e),
            }
        }
        if let Some(e) = failed.or((!is_less).then_some(Errno::NOTEMPTY)).filter(|_| !is_less) {
            return Err(e.into());
        }
    }
    fs::remove_dir(scratch)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What came of one name.
enum Progress {
    Gone,
    /// Still there, with less in it or not.
    Left(bool),
}

/// The first names of a folder.
fn batch(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let is_dot = |name: &CString| matches!(name.to_bytes(), b"." | b"..");
    let names = Dir::read_from(folder)?.map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    names.filter(|name| !name.as_ref().is_ok_and(is_dot)).take(BATCH).collect()
}

/// Removes a file; empties a folder as far as one batch goes, its folders moved to the top, and removes it if that was all.
fn taken_away(top: &OwnedFd, name: &CString) -> Result<Progress, Errno> {
    // Nobody else has these names, in no run.
    static MOVED: AtomicU64 = AtomicU64::new(0);
    if !is_folder(top, name)? {
        rustix::fs::unlinkat(top, name, AtFlags::empty())?;
        return Ok(Progress::Gone);
    }
    let folder = opened_up(top, name)?;
    let mut has_moved = false;
    for inner in batch(&folder)? {
        if is_folder(&folder, &inner)? {
            // To move a folder is to write it: its `..` changes.
            drop(opened_up(&folder, &inner)?);
            let to = format!("{}-{}", std::process::id(), MOVED.fetch_add(1, Ordering::Relaxed));
            rustix::fs::renameat(&folder, &inner, top, to)?;
        } else {
            rustix::fs::unlinkat(&folder, &inner, AtFlags::empty())?;
        }
        has_moved = true;
    }
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(Progress::Gone),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Progress::Left(has_moved)),
        Err(e) => Err(e),
    }
}

fn is_folder(at: &OwnedFd, name: &CString) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a folder, which its owner can list and change after that.
fn opened_up(at: &OwnedFd, name: &CString) -> Result<OwnedFd, Errno> {
    let found = rustix::fs::openat(at, name, FOLDER.difference(OFlags::RDONLY).union(OFlags::PATH), Mode::empty())?;
    if rustix::fs::fstat(&found)?.st_mode & 0o700 != 0o700 {
        // By the descriptor: fchmod takes none that is only a place.
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        rustix::fs::chmod(itself, Mode::RWXU)?;
    }
    rustix::fs::openat(at, name, FOLDER, Mode::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder in a folder, so many times; each but the first made where the last one is, for no path is that long.
    fn nested(top: &Path, levels: usize) {
        let mut at = rustix::fs::open(top, FOLDER, Mode::empty()).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, "level", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "level", FOLDER, Mode::empty()).unwrap();
        }
        rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_and_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, upper) = (dir.path().join("s"), dir.path().join("s/upper"));
        fs::create_dir_all(&upper).unwrap();
        nested(&upper, 1_000);
        assert_eq!(changed(&upper).len(), 1, "it is kept if that was asked for");
        discard(&scratch).unwrap();
        assert!(!scratch.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed_and_closed_folders_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, other) = (dir.path().join("s"), dir.path().join("other"));
        fs::create_dir_all(scratch.join("work/work/in")).unwrap();
        fs::create_dir_all(scratch.join("upper/a/b")).unwrap();
        fs::create_dir_all(other.join("in")).unwrap();
        fs::write(other.join("in/file"), "mine").unwrap();
        fs::set_permissions(other.join("in"), fs::Permissions::from_mode(0o500)).unwrap();
        for link in ["link", "upper/link", "upper/a/b/link"] {
            std::os::unix::fs::symlink(&other, scratch.join(link)).unwrap();
        }
        for closed in ["work/work/in", "work/work", "upper/a/b", "upper/a"] {
            fs::set_permissions(scratch.join(closed), fs::Permissions::from_mode(0o0)).unwrap();
        }
        discard(&scratch).unwrap();
        assert!(!scratch.exists());
        assert_eq!(fs::read_to_string(other.join("in/file")).unwrap(), "mine");
        assert_eq!(other.join("in").metadata().unwrap().permissions().mode() & 0o777, 0o500);
        std::os::unix::fs::symlink(&other, &scratch).unwrap();
        assert!(discard(&scratch).is_err(), "a link is no scratch folder");
        assert!(other.join("in/file").exists());
        discard(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn a_wide_folder_is_removed_in_batches() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("s");
        for number in 0..BATCH + 10 {
            fs::create_dir_all(scratch.join(format!("upper/{number}/in"))).unwrap();
        }
        discard(&scratch).unwrap();
        assert!(!scratch.exists());
    }
}
