//! A log file with a ceiling: what an agent prints can't fill the disk.
//!
//! The file is renamed to `.1` when it is full, `.1` to `.2` and so on; the oldest goes. A disk that is full costs log lines,
//! counted, and never the agent.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLimits {
    /// Bytes in one file.
    pub max_bytes: u64,
    /// Full files kept beside the present one.
    pub keep: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { max_bytes: 10 * 1024 * 1024, keep: 3 }
    }
}

/// An open log.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    limits: LogLimits,
    file: Option<File>,
    written: u64,
    lost: u64,
}

impl LogFile {
    /// Opens a log for appending. The directory must exist.
    #[must_use]
    pub fn open(path: PathBuf, limits: LogLimits) -> LogFile {
        let mut log = LogFile { path, limits, file: None, written: 0, lost: 0 };
        log.reopen();
        log
    }

    fn reopen(&mut self) {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        self.file = options.open(&self.path).ok();
        self.written = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }

    /// Bytes that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Appends; rolls over first when the file would grow past its ceiling.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.written > 0 && self.written + bytes.len() as u64 > self.limits.max_bytes {
            self.roll();
        }
        let room = usize::try_from(self.limits.max_bytes).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        match self.file.as_mut().map(|file| file.write_all(kept)) {
            Some(Ok(())) => {
                self.written += kept.len() as u64;
                self.lost += (bytes.len() - kept.len()) as u64;
            }
            // Full disk or an unwritable directory: the next append tries again.
            Some(Err(_)) => self.lost += bytes.len() as u64,
            None => {
                self.lost += bytes.len() as u64;
                self.reopen();
            }
        }
    }

    fn roll(&mut self) {
        let numbered = |n: u32| Path::new(&format!("{}.{n}", self.path.display())).to_owned();
        for n in (1..self.limits.keep).rev() {
            // A missing older file is the ordinary case at first.
            let _ = std::fs::rename(numbered(n), numbered(n + 1));
        }
        let rolled = if self.limits.keep == 0 {
            std::fs::remove_file(&self.path)
        } else {
            std::fs::rename(&self.path, numbered(1))
        };
        if rolled.is_err() {
            // Can't roll: start over in the same file rather than grow past the ceiling.
            if let Some(file) = &self.file {
                let _ = file.set_len(0);
            }
        }
        self.reopen();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_log_never_grows_past_its_ceiling() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = LogFile::open(path.clone(), LogLimits { max_bytes: 100, keep: 2 });
        for _ in 0..100 {
            log.append(&[b'x'; 30]);
        }
        log.append(&[b'y'; 1000]);
        let sizes: Vec<u64> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 3, "the file and two older ones");
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        assert_eq!(log.lost(), 900);
    }
}
