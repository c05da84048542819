//! The folders that hold state and sockets: made with a mode of our own, and refused when others could change them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::unistd::geteuid;

use super::StoreError;

/// Makes the directory (0700, parents too) if it is missing, and checks that nobody else can change what is in it.
///
/// A directory that others can *read* is let be: service managers make it 0755, and every file of ours in it is 0600 or stricter.
pub(super) fn prepare(dir: &Path) -> Result<(), StoreError> {
    make(dir, 0o700)
}

/// Makes the folder of the logs (0700), and checks it like the state directory that it is in.
///
/// # Errors
/// [`StoreError::UnsafeDirectory`], [`StoreError::Io`], [`StoreError::DiskFull`].
pub fn prepare_logs(dir: &Path) -> Result<(), StoreError> {
    make(dir, 0o700)
}

/// Makes the folder of the sockets (0755: who may use which socket is that socket's affair), and checks that nobody else
/// can put sockets of their own there.
///
/// # Errors
/// [`StoreError::UnsafeDirectory`], [`StoreError::Io`], [`StoreError::DiskFull`].
pub fn prepare_runtime(dir: &Path) -> Result<(), StoreError> {
    make(dir, 0o755)
}

/// The umask is the caller's own affair: it neither opens nor closes what we make.
fn make(dir: &Path, mode: u32) -> Result<(), StoreError> {
    let io = |doing| move |error| StoreError::of_io(doing, dir, error);
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).mode(mode).create(parent).map_err(io("create"))?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(io("open up"))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io("create")(error)),
    }
    let meta = fs::metadata(dir).map_err(io("look at"))?;
    if !meta.is_dir() {
        return Err(io("use")(ErrorKind::NotADirectory.into()));
    }
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
