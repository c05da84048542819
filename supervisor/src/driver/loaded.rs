//! The configuration that this supervisor goes by: every file that it loaded is read-only in every agent's view, and no agent
//! writes the folder whose new files are started.
//!
//! A file's own plan can't know its neighbours: they come with another `run`, a reload, a saga. So this is asked at each launch,
//! of an agent and of a saga's step alike, by whoever stands on the ground.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use agt_rings::Ring;
use agt_rings::report::{Gap, Protection};
use agt_rings::spec::{Access, Spec};

/// What was loaded.
#[derive(Debug, Default)]
pub struct LoadedFiles {
    served: Mutex<Option<PathBuf>>,
    files: Mutex<BTreeSet<PathBuf>>,
}

/// A launch that could write the served folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} holds the served folder {}, and who writes there writes other agents' files\nhelp: give it a folder below it as `workdir:`",
    .tree.display(), .served.display()
)]
pub struct WritesServed {
    /// What it may write.
    pub tree: PathBuf,
    /// The folder.
    pub served: PathBuf,
}

impl LoadedFiles {
    /// From now on new files of this folder (links resolved) may be started.
    pub fn serve(&self, folder: PathBuf) {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder);
    }

    /// This file (links resolved) was loaded.
    pub fn note(&self, file: &Path) {
        // A command line without a file is known by a word.
        if file.is_absolute() {
            self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_path_buf());
        }
    }

    /// The launch, with every loaded file that it could write made read-only. R0 has the host's own view, and an operator's
    /// attestation for it.
    ///
    /// # Errors
    /// [`WritesServed`].
    pub fn guarded(&self, spec: &Spec) -> Result<Spec, WritesServed> {
        let mut spec = spec.clone();
        if spec.ring == Ring::R0 {
            return Ok(spec);
        }
        let trees: Vec<PathBuf> =
            spec.files.iter().filter(|rule| rule.access == Access::Write).map(|rule| rule.path.clone()).collect();
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(served) = served
            && let Some(tree) = trees.iter().find(|tree| served.starts_with(tree))
        {
            return Err(WritesServed { tree: tree.clone(), served });
        }
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for file in files.iter().filter(|file| trees.iter().any(|tree| file.starts_with(tree))) {
            let Ok(metadata) = file.symlink_metadata() else { continue };
            if !spec.protect.contains(file) {
                spec.protect.push(file.clone());
            }
            let known = |gap: &Gap| gap.reason.contains(&*file.to_string_lossy());
            if metadata.nlink() > 1 && !spec.gaps.iter().any(known) {
                spec.gaps.push(Gap {
                    protection: Protection::FileWrite,
                    reason: format!(
                        "can't be kept for {}: it has another name (a hard link) by which it is written",
                        file.display()
                    ),
                    help: format!("replace it by a copy (`cp {0} {0}.new && mv {0}.new {0}`)", file.display()),
                    controller: None,
                });
            }
        }
        Ok(spec)
    }
}
