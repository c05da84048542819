//! Room in the write-ahead log, ahead of the writer.
//!
//! A sync of a file that grew writes the file system's journal as well as the data, two or three times the work of a sync over
//! blocks that are there. So zeros are appended to the log before they are needed; SQLite ends a log at the first frame whose
//! checksum is wrong, and zeros are never right (https://www.sqlite.org/fileformat2.html#walformat). Copying the log back into the
//! database happens here too, after the callers have their answers, and starts the log from its beginning again.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::StoreError;
use super::connection::PAGE_BYTES;

/// Bytes of a frame: a page and its header.
const FRAME_BYTES: u64 = PAGE_BYTES + 24;
/// The log grows by this much at a time, in bytes.
const STEP_BYTES: u64 = 512 * 1024;
/// Less room than this ahead, and the log grows.
const LOW_BYTES: u64 = 256 * 1024;
/// Frames after which the log is copied back: as many bytes as SQLite's own default.
const CHECKPOINT_FRAMES: u64 = 2000;

/// The log's fill, as far as the writer knows it.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    /// Frames written since the log began anew; an upper estimate between checkpoints.
    frames: u64,
    /// The file's length.
    length: u64,
}

impl Wal {
    pub(super) fn new(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), frames: 0, length: 0 }
    }

    /// Notes a commit of about this many pages.
    pub(super) fn wrote(&mut self, pages: u64) {
        self.frames += pages;
    }

    /// Grows the log when little room is left. A failure costs speed and nothing else: a full disk shows at the next commit.
    pub(super) fn make_room(&mut self) -> Result<(), StoreError> {
        let used = self.frames * FRAME_BYTES;
        if used + LOW_BYTES <= self.length {
            return Ok(());
        }
        self.grow(used + LOW_BYTES).map_err(|error| StoreError::of_io("grow", &self.path, error))
    }

    fn grow(&mut self, wanted: u64) -> std::io::Result<()> {
        let mut log = OpenOptions::new().write(true).open(&self.path)?;
        // Another commit may have grown it: only what is behind its end is ours to fill.
        self.length = log.seek(SeekFrom::End(0))?;
        if self.length < wanted {
            let target = wanted.next_multiple_of(STEP_BYTES);
            let written = log.write_all(&vec![0; (target - self.length) as usize]).and_then(|()| log.sync_data());
            if written.is_err() {
                // Half-made room holds blocks that the next commit needs more.
                log.set_len(self.length)?;
            }
            written?;
            self.length = target;
        }
        Ok(())
    }

    /// Copies the log back when it is long enough. `true` if it did so.
    pub(super) fn checkpoint_if_due(&mut self, connection: &Connection, database: &Path) -> Result<bool, StoreError> {
        if self.frames < CHECKPOINT_FRAMES {
            return Ok(false);
        }
        let answer: (i64, i64, i64) = connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(|error| StoreError::of_sqlite(database, error))?;
        // Copied back in full, the next commit starts over; held up by a reader, it goes on behind the end.
        let (busy, log, copied) = answer;
        self.frames = if busy == 0 && log == copied { 0 } else { u64::try_from(log).unwrap_or(0) };
        Ok(true)
    }
}
