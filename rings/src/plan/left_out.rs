//! What a test of the rings leaves out of a launch, to see what rests on it.
//!
//! Most layers are data of the plan (filters, rules, namespaces, mounts) and can be taken out of it. These four are steps that every
//! launch takes, so that leaving them out needs a word in the plan. [`compile`](super::compile) never says it, and only a debug
//! build's launch hears it.

use serde::{Deserialize, Serialize};

use super::Plan;

/// A step of the launch that a test of the rings leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// no_new_privs, and nosuid on the mounts.
    NoNewPrivileges,
    /// The init stays dumpable.
    NonDumpable,
    /// The limits of open files and core dumps.
    Limits,
    /// The closing of descriptors.
    Descriptors,
}

impl Plan {
    /// Whether this launch leaves the step out. In a release build nothing can.
    #[must_use]
    pub fn leaves_out(&self, step: LeftOut) -> bool {
        cfg!(debug_assertions) && self.left_out == Some(step)
    }
}
