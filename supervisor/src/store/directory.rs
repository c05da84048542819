//! The state directory: made private, and refused when others could change it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::unistd::geteuid;

use super::StoreError;

/// Makes the directory (0700, parents too) if it is missing, and checks that nobody else can change what is in it.
///
/// A directory that others can *read* is let be: service managers make it 0755, and every file of ours in it is 0600 or stricter.
pub(super) fn prepare(dir: &Path) -> Result<(), StoreError> {
    let io = |doing| move |error| StoreError::of_io(doing, dir, error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create"))?;
    let meta = fs::metadata(dir).map_err(io("look at"))?;
    let ours = meta.uid() == geteuid().as_raw() || meta.uid() == 0;
    if meta.mode() & 0o022 != 0 || !ours {
        return Err(StoreError::UnsafeDirectory {
            path: dir.to_owned(),
            mode: meta.mode() & 0o7777,
            owner: meta.uid(),
        });
    }
    Ok(())
}

/// Creates an empty file of mode 0600 unless there is one.
///
/// SQLite would create its database with the umask's mode, and gives the files beside it the database's mode.
pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    let io = |doing| move |error| StoreError::of_io(doing, path, error);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file.sync_all().map_err(io("sync")),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io("create")(error)),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::of_io("sync", dir, error))
}
