//! What a run of `learn` wrote: shown, then kept or dropped.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Failure;
use super::learn::LearnArgs;
use crate::exit;

/// The most that is said of what a run changed.
const CHANGED_SHOWN: usize = 10;
/// Names of a scratch folder that are looked at.
const CHANGED_MAX: usize = 10_000;

/// What the run wrote: kept or dropped, as was typed or is answered.
pub(super) fn settle(args: &LearnArgs, scratch: &Path) -> Result<(), Failure> {
    let upper = scratch.join("upper");
    let changed = changed(&upper);
    let drop_it = |why: &str| match discard(scratch) {
        Ok(()) => Ok(()),
        Err(e) => Err(Failure::new(exit::CANT_CREATE, format!("{} can't be removed{why}: {e}", scratch.display()))),
    };
    if changed.is_empty() {
        return drop_it("");
    }
    if !args.quiet {
        eprintln!("note: your files are as they were; what it wrote is in {}:", upper.display());
        changed.iter().take(CHANGED_SHOWN).for_each(|path| eprintln!("  {path}"));
        if changed.len() > CHANGED_SHOWN {
            eprintln!("  and {} more", changed.len() - CHANGED_SHOWN);
        }
    }
    let keep = match (args.keep, args.discard) {
        (true, _) => true,
        (_, true) => false,
        _ if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
            crate::say::flush();
            eprint!("Keep it? [y/N] ");
            crate::say::flush();
            let mut answer = String::new();
            // No answer is no.
            let _ = std::io::stdin().read_line(&mut answer);
            answer.trim().eq_ignore_ascii_case("y")
        }
        _ => true,
    };
    if keep {
        eprintln!("note: it is kept. To drop it: rm -r {}", scratch.display());
        return Ok(());
    }
    drop_it("")
}

/// Names that an overlay's upper layer holds, relative to it.
fn changed(upper: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![upper.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            if found.len() >= CHANGED_MAX {
                return found;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else {
                let shown = path.strip_prefix(upper).unwrap_or(&path).display().to_string();
                found.push(crate::driver::streams::escaped(&shown));
            }
        }
    }
    found.sort();
    found
}

/// Removes a scratch folder. The kernel's own folder in it is closed even to its owner.
pub(super) fn discard(scratch: &Path) -> std::io::Result<()> {
    let closed = scratch.join("work/work");
    if closed.exists() {
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    }
    match fs::remove_dir_all(scratch) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
