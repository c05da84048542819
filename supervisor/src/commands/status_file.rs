//! `--status-file`: whether it can be written is known before an agent runs for it.

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::Failure;
use crate::exit;

/// Refuses a place that can't take the file.
///
/// # Errors
/// Exit code 73: no such folder, no right to write in it, a folder under the file's own name.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refuse = |why: String| {
        let text = format!("the status file {} can't be written: {why}", path.display());
        Err(Failure::new(exit::CANT_CREATE, text)
            .help("nothing was started; name a file in a folder that you can write"))
    };
    if path.is_dir() {
        return refuse("this is a folder".to_owned());
    }
    match std::fs::metadata(folder) {
        Err(error) => return refuse(format!("{}: {error}", folder.display())),
        Ok(metadata) if !metadata.is_dir() => return refuse(format!("{} is no folder", folder.display())),
        Ok(_) => {}
    }
    match access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
        Err(errno) => refuse(format!("{}: {}", folder.display(), std::io::Error::from(errno))),
        Ok(()) => Ok(()),
    }
}
