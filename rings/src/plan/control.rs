//! Where an agent finds its control socket: shown last, so that nothing covers it, and never inside somebody's tree.

use std::path::{Path, PathBuf};

use super::{Mount, Plan, Root};
use crate::ring::Ring;
use crate::spec::Access;

/// Where an agent with a built root finds the folder of its own control socket.
pub const CONTROL: &str = "/run/agt";

impl Plan {
    /// Shows `folder` of the host read-only: the folder of this agent's control socket, and of nobody else's. With a built root
    /// it stands at [`CONTROL`], with the host's tree (R0) at its own path, through the cover of the supervisor's folders.
    /// `None` where there is no view of its own to show it in, or where a declared tree covers `/run`: a mount point must never
    /// be made inside somebody's tree.
    pub fn show_control(&mut self, folder: &Path) -> Option<PathBuf> {
        match &mut self.root {
            Root::Built { mounts, .. } => {
                let control = PathBuf::from(CONTROL);
                let covered =
                    |mount: &Mount| matches!(mount, Mount::Bind { target, .. } if control.starts_with(target));
                if mounts.iter().any(covered) {
                    return None;
                }
                let last = |mount: &Mount| matches!(mount, Mount::Protect { .. } | Mount::Hide { .. });
                let at = mounts.iter().position(last).unwrap_or(mounts.len());
                let (source, target) = (folder.to_owned(), control.clone());
                mounts.insert(at, Mount::Bind { source, target, access: Access::Read, id_map: None });
                Some(control)
            }
            Root::Host { show, .. } => {
                *show = Some(folder.to_owned());
                Some(folder.to_owned())
            }
            // Nothing is hidden from R0 there. The other rings have no socket call that would reach it.
            Root::Unchanged => (self.ring == Ring::R0).then(|| folder.to_owned()),
        }
    }
}
