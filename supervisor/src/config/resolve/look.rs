//! What stands in an agent's trees and has to be kept from it: never-writable names, files with power, sockets of others.
//!
//! Looked for when the plan is made, and again at each launch: between two lives the agent and its user have made more. So the
//! question holds all that the answer depends on, and the plan keeps what only the operator's file knows ([`Opened`]).

use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_rings::names::Pattern;
use agt_rings::report::{Gap, Protection};
use agt_rings::spec::FileRule;
use serde::{Deserialize, Serialize};

use super::{deny, protect, sockets};

/// What the operator's file opens of what is kept from agents otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Opened {
    /// Never-writable names or paths that may be changed.
    pub names: Vec<String>,
    /// Sockets of other programs that may be called.
    pub sockets: Vec<PathBuf>,
}

impl Opened {
    /// Whether it opens nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.sockets.is_empty()
    }
}

/// Whose trees are looked through, and as who the agent will stand in them.
pub(in crate::config) struct Question<'a> {
    pub(in crate::config) ring: Ring,
    pub(in crate::config) files: &'a [FileRule],
    pub(in crate::config) workdir: &'a Path,
    /// Its agent.yaml.
    pub(in crate::config) source: &'a Path,
    pub(in crate::config) opened: &'a Opened,
    /// The file's own patterns.
    pub(in crate::config) deny: &'a [Pattern],
    /// Trees in which it counts as the owner.
    pub(in crate::config) as_owner: &'a [PathBuf],
    /// Its uid is nobody else's: where strangers can't enter, it can't either.
    pub(in crate::config) is_stranger: bool,
    /// What is kept whatever the look finds, and before it: as long as it is there.
    pub(in crate::config) known: Known<'a>,
    /// The operator's file as messages name it.
    pub(in crate::config) operator: &'a str,
}

/// What an earlier look has found.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::config) struct Known<'a> {
    pub(in crate::config) protect: &'a [PathBuf],
    pub(in crate::config) sockets: &'a [PathBuf],
    pub(in crate::config) denied: &'a [PathBuf],
}

/// What was found.
#[derive(Debug, Default)]
pub(in crate::config) struct Seen {
    /// Names that stay read-only.
    pub(in crate::config) protect: Vec<PathBuf>,
    /// Sockets to cover.
    pub(in crate::config) sockets: Vec<PathBuf>,
    /// What the file's own patterns hide.
    pub(in crate::config) denied: Vec<PathBuf>,
    /// Folders of git repositories in the writable trees.
    pub(in crate::config) repositories: Vec<PathBuf>,
    /// What can't be kept.
    pub(in crate::config) gaps: Vec<Gap>,
}

impl Seen {
    pub(super) fn gap(&mut self, protection: Protection, reason: String, help: String) {
        self.gaps.push(Gap { protection, reason, help, controller: None });
    }
}

/// Looks through the trees, within bounds. Blocks for as long as the disk takes: microseconds a name.
pub(in crate::config) fn look(question: &Question<'_>) -> Seen {
    let mut seen = Seen::default();
    let in_writable = protect::existing(question, &mut seen);
    sockets::to_cover(question, in_writable, &mut seen);
    deny::existing(question, &mut seen);
    // One mask is enough, and the tighter one.
    let Seen { protect, denied, .. } = &mut seen;
    protect.retain(|path| !denied.iter().any(|hidden| path.starts_with(hidden)));
    seen
}

/// The repositories in these trees, and the first folder that was not looked into. Blocks as [`look`] does.
pub(crate) fn repositories(trees: &[PathBuf]) -> (Vec<PathBuf>, Option<PathBuf>) {
    let mut walk = super::walk::Walk::for_repositories();
    trees.iter().for_each(|tree| walk.tree(tree));
    (walk.repositories, walk.cut)
}

/// Whether a path still leads to what it named, without a link on the way. One that can't be looked at is taken to be there.
pub(super) fn stands(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match path.canonicalize() {
        Ok(real) => real == path,
        Err(e) => !matches!(e.kind(), NotFound | NotADirectory),
    }
}
