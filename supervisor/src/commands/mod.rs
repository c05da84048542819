//! The verbs, one file a subject.

pub mod act;
pub mod audit;
pub mod chaos;
pub mod check;
pub mod doctor;
pub mod failure;
mod handover;
pub mod host;
pub mod man;
mod namesakes;
pub mod probe;
pub mod run;
pub mod saga;
pub mod show;
pub mod slo;
pub mod trust;

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
    Ok(Dirs::resolve(&Environment::of_process(state_dir)))
}

/// A runtime for the short conversations of the client verbs.
fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Failure::new(crate::exit::BUG, format!("the asynchronous runtime can't be started: {e}")))
}

/// Writes data to standard output; a reader that went away (head, less) is no failure.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
