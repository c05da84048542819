//! The floor: the newest signed head once more, in a small file beside the key.
//!
//! Table and heads file can be emptied, or cut at the same place, and then agree with each other; the floor still knows how far the
//! log had come. It is made before the key is (so a key without a floor means that somebody took it away) and raised after each
//! head reached the other two places (so everything up to it must be in both). Two slots of one sector each are written in turn:
//! a power cut tears at most the one being written, and no write needs new space on a full disk.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::AuditError;
use super::head::SignedHead;

/// The file's name in the state directory.
pub const FLOOR_FILE: &str = "audit-floor";
/// Bytes of a slot: the sector that disks write whole; a head has under 400.
const SLOT: usize = 512;

/// The open file.
#[derive(Debug)]
pub struct Floor {
    path: PathBuf,
    file: File,
    /// The slot that holds the older head.
    next: usize,
}

impl Floor {
    /// Makes the file (mode 0600), or empties what a start that came no further left, and writes its first head.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn create(path: &Path, head: &SignedHead) -> Result<(), AuditError> {
        let io = |source| AuditError::Io { doing: "create", path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path).map_err(io)?;
        file.write_all_at(&slot(head), 0).and_then(|()| file.sync_all()).map_err(io)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)
    }

    /// Opens the file for raising; none when it is missing.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn open(path: &Path) -> Result<Option<Self>, AuditError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
        match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(AuditError::Io { doing: "open", path: path.to_owned(), source }),
            Ok(file) => {
                let [first, second] = Self::read(path)?.unwrap_or_default();
                let seq = |head: &Option<SignedHead>| head.as_ref().map(|head| head.head.tip.seq);
                let next = usize::from(seq(&second) < seq(&first));
                Ok(Some(Self { path: path.to_owned(), file, next }))
            }
        }
    }

    /// What the two slots hold, without a look at signatures; none when the file is missing.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn read(path: &Path) -> Result<Option<[Option<SignedHead>; 2]>, AuditError> {
        let io = |source| AuditError::Io { doing: "read", path: path.to_owned(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io)?,
        };
        let mut bytes = Vec::new();
        file.take(2 * SLOT as u64).read_to_end(&mut bytes).map_err(io)?;
        let mut heads = bytes.chunks(SLOT).map(|slot| {
            let text = std::str::from_utf8(slot).ok()?;
            SignedHead::decode(text.trim_end()).ok()
        });
        Ok(Some([heads.next().flatten(), heads.next().flatten()]))
    }

    /// Writes a newer head over the older of the two and waits for the disk.
    ///
    /// # Errors
    /// [`AuditError::Io`]; the other slot still holds the head before.
    pub fn raise(&mut self, head: &SignedHead) -> Result<(), AuditError> {
        let at = (self.next * SLOT) as u64;
        let written = self.file.write_all_at(&slot(head), at).and_then(|()| self.file.sync_data());
        written.map_err(|source| AuditError::Io { doing: "write", path: self.path.clone(), source })?;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn slot(head: &SignedHead) -> Vec<u8> {
    let mut bytes = head.encode().into_bytes();
    bytes.resize(SLOT - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::chain::{Hash, StoreId, Tip};
    use super::super::signer::Signer;
    use super::*;

    fn head(seq: u64) -> SignedHead {
        SignedHead::sign(&Signer::from_seed([1; 32]), StoreId([2; 16]), Tip { seq, hash: Hash([3; 32]) }, (1 << 53) - 1)
    }

    #[test]
    fn the_two_newest_heads_are_kept_also_across_openings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FLOOR_FILE);
        assert_eq!(Floor::read(&path).unwrap(), None);
        assert!(Floor::open(&path).unwrap().is_none());
        Floor::create(&path, &head(0)).unwrap();
        for seq in 1..6 {
            Floor::open(&path).unwrap().unwrap().raise(&head(seq)).unwrap();
            let mut held: Vec<u64> =
                Floor::read(&path).unwrap().unwrap().into_iter().flatten().map(|head| head.head.tip.seq).collect();
            held.sort_unstable();
            assert_eq!(held, [seq - 1, seq]);
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_other_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FLOOR_FILE);
        Floor::create(&path, &head(u64::from(u32::MAX))).unwrap();
        Floor::open(&path).unwrap().unwrap().raise(&head(u64::from(u32::MAX) + 1)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 2 * SLOT, "a head of the largest numbers fits a slot");
        bytes[SLOT + 10] = 0;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Floor::read(&path).unwrap(), Some([Some(head(u64::from(u32::MAX))), None]));
    }
}
