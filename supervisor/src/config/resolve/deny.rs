//! What a file's own patterns keep from the agent (`files.deny`): names that exist in what it may reach are hidden, later ones can't
//! be made where it writes.
//!
//! A pattern only ever takes, so no operator is asked. A look of its own, because it goes through readable trees too, and only agents
//! with patterns pay for it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_rings::names::{Pattern, relative};
use agt_rings::report::Protection;

use super::Context;
use super::look::{Question, Seen, stands};
use super::walk::{MAX_DEPTH, MAX_NAMES};
use crate::config::diagnostic::Problem;
use crate::config::spec::Keep;
use crate::config::tree::KeyPath;

/// Most names that are hidden: each becomes a mount.
const MAX_HIDDEN: usize = 1_000;

/// The patterns of a file, with a problem for each text that is none.
pub(super) fn patterns(context: &mut Context<'_>) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for (index, text) in context.spec.files.deny.iter().enumerate() {
        match Pattern::new(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(bad) => {
                let problem = Problem::config(format!("`{text}` is no pattern: {bad}"))
                    .label("no pattern")
                    .help("`**/.env` or `.env` at any depth, `secrets/*` in the workdir's folder `secrets`");
                context.problem(&KeyPath::of("files.deny").item(index), problem);
            }
        }
    }
    if !patterns.is_empty() && context.ceiling == Ring::R0 {
        context.notes.push("`files.deny` holds from R1 on: R0 has the host's files".to_owned());
    }
    if !patterns.is_empty() && context.rights.keep == Keep::Existing {
        let note = "`files.deny` hides what exists; the operator's `protect: existing` lets later names be made";
        context.notes.push(note.to_owned());
    }
    patterns
}

/// What exists and matches. What can't be hidden for sure is a gap.
pub(super) fn existing(question: &Question<'_>, seen: &mut Seen) {
    if question.deny.is_empty() {
        return;
    }
    let trees: Vec<PathBuf> = question.files.iter().map(|rule| rule.path.clone()).collect();
    let mut look =
        Look { question, trees: &trees, found: BTreeSet::new(), linked: Vec::new(), looked_at: 0, cut: None };
    trees.iter().for_each(|tree| look.folder(tree, 0));
    if let Some(folder) = look.cut {
        let reason = format!(
            "can't be kept below {} for `files.deny`: more than {MAX_NAMES} names, {MAX_DEPTH} levels or {MAX_HIDDEN} matches",
            folder.display()
        );
        seen.gap(
            Protection::FileRead,
            reason,
            "name smaller folders, or a pattern that matches their folder".to_owned(),
        );
    }
    for path in look.linked {
        let reason =
            format!("can't be kept for {}: it has another name (a hard link) by which it is reached", path.display());
        let help = format!("replace it by a copy: `cp {0} {0}.new && mv {0}.new {0}`", path.display());
        seen.gap(Protection::FileRead, reason, help);
    }
    let known = question.known.denied.iter().filter(|path| stands(path)).cloned();
    seen.denied = known.chain(look.found).collect::<BTreeSet<_>>().into_iter().collect();
}

struct Look<'a> {
    question: &'a Question<'a>,
    trees: &'a [PathBuf],
    found: BTreeSet<PathBuf>,
    linked: Vec<PathBuf>,
    looked_at: usize,
    cut: Option<PathBuf>,
}

impl Look<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) {
        let is_full = depth > MAX_DEPTH || self.looked_at > MAX_NAMES || self.found.len() >= MAX_HIDDEN;
        if is_full {
            self.cut.get_or_insert_with(|| folder.to_path_buf());
            return;
        }
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.looked_at += 1;
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if self.matches(&path) {
                self.take(path);
            } else if kind.is_dir() {
                self.folder(&path, depth + 1);
            }
        }
    }

    fn matches(&self, path: &Path) -> bool {
        let Some(below) = relative(path, self.question.workdir, self.trees) else { return false };
        self.question.deny.iter().any(|pattern| pattern.matches(below))
    }

    /// Hides a name, or what it leads to: a link's own name can't be made again.
    fn take(&mut self, path: PathBuf) {
        let Ok(real) = path.canonicalize() else { return };
        // What it leads to outside of the trees is nothing that the agent sees.
        if !self.trees.iter().any(|tree| real.starts_with(tree) && real != *tree) {
            return;
        }
        if real.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() > 1) {
            self.linked.push(path);
        }
        self.found.insert(real);
    }
}
