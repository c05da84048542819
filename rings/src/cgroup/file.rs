//! Reading and writing one control file, with path and value in every error.
//!
//! Why our own: a control file must exist already, so it is never opened with `O_CREAT` (on a read-only or missing
//! group that would turn "no such limit" into "permission denied").

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;

use super::error::{Error, Result};

/// The whole file, trimmed.
pub(super) fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// The whole file, or `None` when it does not exist (an older kernel, a controller that is off).
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(Error::Read { source, .. }) if is_gone(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file with one number.
pub(super) fn read_u64(path: &Path) -> Result<u64> {
    number(path, &read(path)?)
}

/// A file with one number, or `None` when it does not exist.
pub(super) fn read_u64_if_there(path: &Path) -> Result<Option<u64>> {
    read_if_there(path)?.map(|text| number(path, &text)).transpose()
}

fn number(path: &Path, text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::Malformed {
        path: path.to_owned(),
        found: text.to_owned(),
        expected: "a whole number",
    })
}

/// The number behind `key` in a flat keyed file (`key value` lines), `None` without such a line.
pub(super) fn flat_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Writes one value.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    let written =
        OpenOptions::new().write(true).truncate(true).open(path).and_then(|mut f| f.write_all(value.as_bytes()));
    written.map_err(|source| Error::Write { path: path.to_owned(), value: value.to_owned(), source })
}

/// Whether the kernel says that a group or file is not there (any more): removed groups answer ENODEV on open files.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENODEV))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flat_keys_are_whole_words() {
        let text = "oom 1\noom_kill 2\noom_group_kill 3\n";
        assert_eq!(flat_key(text, "oom"), Some(1));
        assert_eq!(flat_key(text, "oom_kill"), Some(2));
        assert_eq!(flat_key(text, "oom_k"), None);
    }

    #[test]
    fn missing_file_is_none_and_nonsense_is_an_error_with_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pids.current");
        assert_eq!(read_u64_if_there(&path).unwrap(), None);
        fs::write(&path, "many\n").unwrap();
        let message = read_u64(&path).unwrap_err().to_string();
        assert!(message.contains("pids.current") && message.contains("many"), "{message}");
    }

    #[test]
    fn writing_never_creates_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.max");
        assert!(matches!(write(&path, "1"), Err(Error::Write { .. })));
        assert!(!path.exists());
    }
}
