//! What this host would make of launches that nobody asks for yet: the data behind `check`.
//!
//! As with the survey nothing is guessed: it is the launcher's own compilation, so that what `check` says and what `run` refuses
//! with are the same words.

use super::Error;
use super::session::{GONE_WITHIN, control_groups};
use crate::host::Controllers;
use crate::launch::Launcher;
use crate::plan::{Plan, Refused};
use crate::spec::Spec;

/// Compiles each spec as a supervisor here would, and starts none of them. Leaves nothing behind. Call it from a process whose
/// `main` begins with the hook of the launcher.
///
/// # Errors
/// [`Error`] when the launcher can't be started or a file of a spec can't be looked at.
pub fn outlook(specs: &[Spec]) -> Result<Vec<Result<Plan, Refused>>, Error> {
    let (base, controllers, _) = control_groups()?;
    let judged = judge(specs, controllers);
    if let Some(base) = base {
        base.agents().kill(GONE_WITHIN).map(drop)?;
        base.close()?;
    }
    judged
}

fn judge(specs: &[Spec], controllers: Controllers) -> Result<Vec<Result<Plan, Refused>>, Error> {
    let launcher = Launcher::start(controllers)?;
    specs.iter().map(|spec| Ok(launcher.compile(spec)?)).collect()
}
