//! The verbs, one file a subject.

pub mod act;
mod asked_about;
mod asking;
pub mod audit;
pub mod chaos;
pub mod check;
pub mod doctor;
pub mod failure;
mod handover;
pub mod host;
pub mod learn;
mod learn_scratch;
mod learn_world;
pub mod limits;
pub mod logs;
pub mod man;
mod metered;
mod namesakes;
pub mod probe;
pub mod reload;
pub mod run;
pub mod saga;
pub mod show;
pub mod slo;
mod supervise;
pub mod top;
pub mod trust;
mod used;
pub mod why;

use std::path::PathBuf;

use crate::cli::Global;
use crate::dirs::{Dirs, Environment};
pub use failure::Failure;

/// How a read verb writes its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs (`--json`).
    Json,
}

/// What a command comes to: an exit code, or a failure that carries one.
pub type Outcome = Result<u8, Failure>;

fn dirs(global: &Global) -> Result<Dirs, Failure> {
    let absolute =
        |path: &PathBuf| std::path::absolute(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())));
    let state_dir = global.state_dir.as_ref().map(absolute).transpose()?;
    let environment = Environment::of_process(state_dir);
    if environment.is_homeless() {
        let text = "HOME is not set, so there is no place for the state directory";
        return Err(Failure::usage(text).help("set HOME, or name a folder with --state-dir"));
    }
    Ok(Dirs::resolve(&environment))
}

/// A runtime for the short conversations of the client verbs.
fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Failure::new(crate::exit::BUG, format!("the asynchronous runtime can't be started: {e}")))
}

/// The first failure of [`print`]: every verb prints, and one place ends the program for all of them.
static UNPRINTED: std::sync::OnceLock<std::io::Error> = std::sync::OnceLock::new();

/// Writes data to standard output. What can't be written ends the command with 73 in [`printed`], so that no caller can forget it.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    if UNPRINTED.get().is_some() {
        return;
    }
    // On a terminal, what was said before comes before it.
    crate::say::flush();
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Only the first one counts.
        let _ = UNPRINTED.set(error);
    }
}

/// Whether all that was printed reached standard output. A reader that went away (head, less) is no failure.
///
/// # Errors
/// Exit code 73, with the system's reason.
pub(crate) fn printed() -> Result<(), Failure> {
    match UNPRINTED.get() {
        Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(crate::exit::CANT_CREATE, format!("standard output can't be written: {error}"))
                .help("what was printed is not complete; send it to a file on a disk with room"))
        }
        _ => Ok(()),
    }
}
