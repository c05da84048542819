//! Space kept back for the last records of a stop.
//!
//! A file of real blocks that is deleted when the disk is full, so that records of what took power still fit. Until it can be made
//! again, requests that give power are refused: they must not eat what was freed for the others.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;

use super::StoreError;

/// The reserve's file name in the state directory.
pub(super) const RESERVE_FILE: &str = "reserve";
/// Its size, in bytes: some hundred records, the pages they touch and a head.
pub(super) const RESERVE_BYTES: i64 = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Takes the reserve; a disk without that much space is full.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let mut reserve = Self { path: dir.join(RESERVE_FILE), held: false };
        reserve.retake()?;
        Ok(reserve)
    }

    /// Takes it again if it was released.
    pub(super) fn retake(&mut self) -> Result<(), StoreError> {
        if self.held {
            return Ok(());
        }
        let io = |doing| {
            let path = &self.path;
            move |error| StoreError::of_io(doing, path, error)
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&self.path).map_err(io("create"))?;
        if let Err(errno) = posix_fallocate(&file, 0, RESERVE_BYTES) {
            // What could be had of it would only be missing elsewhere.
            fs::remove_file(&self.path).map_err(io("remove"))?;
            return Err(io("fill")(errno.into()));
        }
        self.held = true;
        Ok(())
    }

    /// Gives the space back to the disk. `false` if it had been given back already.
    pub(super) fn release(&mut self) -> Result<bool, StoreError> {
        if !std::mem::take(&mut self.held) {
            return Ok(false);
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::of_io("remove", &self.path, error)),
            _ => Ok(true),
        }
    }
}
