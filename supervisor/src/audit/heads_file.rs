//! The second place of the heads: an append-only file, one head a line, synced, outside the database and, if the operator says
//! so, outside the state directory.
//!
//! Who can rewrite the database can also drop the heads in it; this file is what then still knows how long the chain was. A line
//! that a crash or a full disk tore is marked as torn when the file is opened again, so that it is told from a changed one.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::AuditError;
use super::head::{HEAD_BYTES_MAX, SignedHead};

/// The file's name in the state directory, unless the operator puts it elsewhere.
pub const HEADS_FILE: &str = "audit-heads.log";
/// Ends a line that was cut off by a crash.
const TORN: &str = "#torn";

/// The open file.
#[derive(Debug)]
pub struct HeadsFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines; what stands behind them is a line that could not be finished.
    length: u64,
}

/// How the file ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Its last whole head.
    pub last: Option<SignedHead>,
    /// Whether a line that a crash or a full disk cut off follows it.
    pub torn: bool,
}

/// One line of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A head, whose signature is yet to be checked.
    Head(SignedHead),
    /// A head that was being written when the machine or the disk gave up.
    Torn,
    /// Neither: somebody wrote here.
    Damaged,
}

impl Line {
    /// The number of the record under the head, if it is one.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        match self {
            Self::Head(head) => Some(head.head.tip.seq),
            Self::Torn | Self::Damaged => None,
        }
    }
}

impl HeadsFile {
    /// Opens or creates the file (mode 0600) and marks a torn last line.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let io = |doing| {
            let path = path.to_owned();
            move |source| AuditError::Io { doing, path, source }
        };
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path).map_err(io("open"))?;
        let mut length = file.seek(SeekFrom::End(0)).map_err(io("read"))?;
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1)).map_err(io("read"))?;
            file.read_exact(&mut last).map_err(io("read"))?;
            if last != *b"\n" {
                let mark = format!("{TORN}\n");
                file.write_all(mark.as_bytes()).map_err(io("append to"))?;
                length += mark.len() as u64;
            }
        }
        file.sync_all().map_err(io("sync"))?;
        // The name too must survive a power cut, or the file does not.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("sync the folder of"))?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Appends a head and waits for the disk.
    ///
    /// # Errors
    /// [`AuditError::Io`]; what was written of the line is taken back, or marked as torn at the next opening.
    pub fn append(&mut self, head: &SignedHead) -> Result<(), AuditError> {
        let line = format!("{}\n", head.encode());
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // A second failure changes nothing for the caller: the line counts as torn either way.
            let _ = self.file.set_len(self.length);
            return Err(AuditError::Io { doing: "append to", path: self.path.clone(), source });
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// The file's end: its last whole head, without a look at its signature (none in an empty file), and whether a torn line
    /// follows.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn end(path: &Path) -> Result<End, AuditError> {
        let io = |source| AuditError::Io { doing: "read", path: path.to_owned(), source };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(End::default()),
            other => other.map_err(io)?,
        };
        let length = file.metadata().map_err(io)?.len();
        // A torn line can follow a torn line, but no more than a few: each needs a crash of its own.
        file.seek(SeekFrom::Start(length.saturating_sub(64 * HEAD_BYTES_MAX as u64))).map_err(io)?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).map_err(io)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let torn = whole < tail.len() || tail[..whole].ends_with(format!("{TORN}\n").as_bytes());
        let mut lines = tail[..whole].split(|byte| *byte == b'\n').rev();
        let last = lines.find_map(|line| SignedHead::decode(std::str::from_utf8(line).ok()?).ok());
        Ok(End { last, torn })
    }

    /// Reads a file line by line, with line numbers from 1.
    ///
    /// # Errors
    /// [`AuditError::Io`], also for each line.
    pub fn lines(path: &Path) -> Result<impl Iterator<Item = Result<(u64, Line), AuditError>>, AuditError> {
        let io = {
            let path = path.to_owned();
            move |source| AuditError::Io { doing: "read", path: path.clone(), source }
        };
        let mut reader = BufReader::new(File::open(path).map_err(&io)?);
        let mut number = 0;
        Ok(std::iter::from_fn(move || match read_line(&mut reader) {
            Ok(None) => None,
            Ok(Some(line)) => {
                number += 1;
                Some(Ok((number, line)))
            }
            Err(error) => Some(Err(io(error))),
        }))
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    // The bound keeps a file of one endless line from filling the memory.
    let read = reader.by_ref().take(4 * HEAD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    let Some(line) = line.strip_suffix(b"\n") else {
        // Without its newline it is the file's last line, still being written or cut off, or one that is far too long.
        return Ok(Some(if read < 4 * HEAD_BYTES_MAX { Line::Torn } else { Line::Damaged }));
    };
    if line.ends_with(TORN.as_bytes()) {
        return Ok(Some(Line::Torn));
    }
    let head = std::str::from_utf8(line).ok().and_then(|line| SignedHead::decode(line).ok());
    Ok(Some(head.map_or(Line::Damaged, Line::Head)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::super::chain::{Hash, StoreId, Tip};
    use super::super::signer::Signer;
    use super::*;

    fn head(seq: u64) -> SignedHead {
        SignedHead::sign(&Signer::from_seed([1; 32]), StoreId([2; 16]), Tip { seq, hash: Hash([3; 32]) }, 5)
    }

    fn read(path: &Path) -> Vec<Line> {
        HeadsFile::lines(path).unwrap().map(|line| line.unwrap().1).collect()
    }

    #[test]
    fn heads_read_back_in_order_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        HeadsFile::open(&path).unwrap().append(&head(1)).unwrap();
        HeadsFile::open(&path).unwrap().append(&head(2)).unwrap();
        assert_eq!(read(&path), [Line::Head(head(1)), Line::Head(head(2))]);
        assert_eq!(HeadsFile::end(&path).unwrap(), End { last: Some(head(2)), torn: false });
    }

    #[test]
    fn a_torn_line_is_told_from_a_changed_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        let line = head(1).encode();
        fs::write(&path, format!("{line}\n{}", &line[..50])).unwrap();
        assert_eq!(read(&path), [Line::Head(head(1)), Line::Torn]);
        assert_eq!(HeadsFile::end(&path).unwrap(), End { last: Some(head(1)), torn: true });
        HeadsFile::open(&path).unwrap().append(&head(2)).unwrap();
        assert_eq!(read(&path), [Line::Head(head(1)), Line::Torn, Line::Head(head(2))]);
        fs::write(&path, format!("{}\n{line}\n", line.replace("seq", "sea"))).unwrap();
        assert_eq!(read(&path), [Line::Damaged, Line::Head(head(1))]);
    }

    #[test]
    fn a_file_without_a_newline_does_not_fill_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        fs::write(&path, vec![b'x'; 10 * HEAD_BYTES_MAX]).unwrap();
        let lines = read(&path);
        assert!(lines.contains(&Line::Damaged) && lines.len() <= 4, "{lines:?}");
    }
}
