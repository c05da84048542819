//! Reads a configuration file: bounded, regular files only, UTF-8 with a position for what is not.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{ConfigError, Problem, Report};
use super::tree::{Mark, Place};

/// Largest file that is read. A real one has a few kilobytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// The text of `path`.
///
/// # Errors
/// A file that can't be opened, is no regular file, is larger than [`MAX_BYTES`], or is not UTF-8.
pub fn read(path: &Path) -> Result<Arc<str>, ConfigError> {
    let file = open(path)?;
    read_from(&file, path)
}

/// The text of a file that a repository brings along and that is only looked into; `None` unless it is a regular file of at
/// most `most` bytes in UTF-8. A link to a device or a FIFO must not hold or feed us.
pub(super) fn small_text(path: &Path, most: u64) -> Option<String> {
    let file = regular(path).ok()?;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= most).then_some(text)
}

/// Opens a regular file and nothing else.
///
/// # Errors
/// What open(2) says; `InvalidInput` for anything but a regular file.
pub(super) fn regular(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

/// Opens without blocking on a FIFO and without becoming a terminal's session leader.
pub(super) fn open(path: &Path) -> Result<File, ConfigError> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(|source| unreadable(path, source))
}

/// The text of an open file; `path` is only for messages.
pub(super) fn read_from(file: &File, path: &Path) -> Result<Arc<str>, ConfigError> {
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    let refuse = |problem: Problem| ConfigError::from_report(Report::new(path, Arc::from(""), vec![problem]));
    if metadata.is_dir() {
        return Err(refuse(Problem::config("a file was expected, this is a folder").help("name the file in it")));
    }
    if !metadata.is_file() {
        return Err(refuse(Problem::config("a regular file was expected, this is a pipe, socket or device")));
    }
    let too_large = |bytes: u64| {
        refuse(
            Problem::config(format!("the file has {bytes} bytes or more, the limit is {MAX_BYTES} (1 MiB)"))
                .help("keep data in files of their own and name their paths here"),
        )
    };
    if metadata.len() > MAX_BYTES {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    // The size can change between stat and read: the bound holds for what is really read.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|source| unreadable(path, source))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    decode(bytes).map_err(|problem| refuse(*problem))
}

fn decode(bytes: Vec<u8>) -> Result<Arc<str>, Box<Problem>> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let line = valid.matches('\n').count() + 1;
        let column = valid.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Problem::config(format!("the file is not UTF-8: the first wrong byte is in line {line}, column {column}"))
            .at(point(line, column))
            .help("save it as UTF-8 without a byte order mark")
    });
    let text = text.map_err(Box::new)?;
    Ok(Arc::from(text.strip_prefix('\u{feff}').unwrap_or(&text)))
}

/// The place of one character.
pub(super) fn point(line: usize, column: usize) -> Place {
    Place { start: Mark { line, column }, end: Mark { line, column: column + 1 } }
}

fn unreadable(path: &Path, source: io::Error) -> ConfigError {
    ConfigError::Unreadable { path: path.to_path_buf(), source }
}
