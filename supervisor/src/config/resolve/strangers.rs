//! Whether a stranger could start the program: an agent of root's has a uid of its own, and in a program's installation it
//! reads and executes what everybody may.
//!
//! Said when the file is read: inside the ring it would be a bare `Permission denied`. An operator's line that names the
//! program or its folder gives the agent what the owner has.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use agt_rings::Ring;

use super::Context;
use super::program::Program;
use crate::config::grant::Right;
use crate::config::tree::KeyPath;

/// Asks for an operator's line where the program or its script is for its owner alone.
pub(super) fn may_start(context: &mut Context<'_>, program: &Program) {
    let own_uid = context.spec.user.as_deref().is_none_or(|user| user == "own");
    if context.around.uid != 0 || context.ceiling == Ring::R0 || !own_uid {
        return;
    }
    let asked = [(program.program.as_path(), 0o001, "start")]
        .into_iter()
        .chain(program.script.iter().map(|script| (script.as_path(), 0o004, "read")));
    for (file, bits, act) in asked.collect::<Vec<_>>() {
        let Some(tree) = program.installation.iter().find(|tree| file.starts_with(tree)) else { continue };
        let Some(closed) = closed_to_strangers(tree, file, bits) else { continue };
        if !context.rights.may_read(file) {
            let message = format!(
                "{} needs an operator's line: {closed} is closed to other users, and the agent is one: it may not {act} it",
                file.display()
            );
            context.needs_operator(&KeyPath::of("command"), message, Right::Read(tree.clone()));
        }
    }
}

/// The first part of `file`, from `tree` on, that strangers can't pass, or can't use.
fn closed_to_strangers(tree: &Path, file: &Path, bits: u32) -> Option<String> {
    let mut parts: Vec<&Path> = file.ancestors().take_while(|part| part.starts_with(tree)).collect();
    parts.reverse();
    let lacks =
        |part: &Path, bits: u32| part.metadata().is_ok_and(|metadata| metadata.permissions().mode() & bits != bits);
    let closed = parts.into_iter().find(|part| lacks(part, if *part == file { bits } else { 0o001 }))?;
    Some(closed.display().to_string())
}
