//! Where a plan came from, so that it can be made again: the file, the operator's file, what was typed beside them, and what
//! was around whoever typed it.
//!
//! An agent that a second `run` handed over was resolved with that command's environment and folder: a reload in the
//! supervisor's own would be about another agent. So these go along. They may hold secrets: they stay in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{self, AgentPlan, ConfigError, Overrides, Surroundings};

/// Where a plan came from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The agent.yaml, absolute.
    pub file: PathBuf,
    /// The operator's file that was named, absolute.
    operator: Option<PathBuf>,
    overrides: Overrides,
    cwd: PathBuf,
    uid: u32,
    gid: u32,
    home: Option<PathBuf>,
    env: BTreeMap<String, String>,
}

/// The kind under which the store keeps [`Launched`].
pub const LAUNCHED: &str = "launched";

/// What of an origin outlives the supervisor: how the agent was last launched, for questions about it. Nothing of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launched {
    /// The agent.yaml, absolute.
    pub file: PathBuf,
    /// The operator's file that was named, absolute; without one the default one counted.
    pub operator: Option<PathBuf>,
    /// What was typed beside the file.
    pub overrides: Overrides,
}

impl fmt::Debug for Origin {
    /// The environment holds secrets: it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("file", &self.file).field("operator", &self.operator).finish_non_exhaustive()
    }
}

impl Origin {
    /// The origin of a plan that [`config::load_agent`] makes of these.
    #[must_use]
    pub fn new(file: &Path, operator: Option<&Path>, overrides: &Overrides, around: &Surroundings) -> Origin {
        Origin {
            file: around.cwd.join(file),
            operator: operator.map(|operator| around.cwd.join(operator)),
            overrides: overrides.clone(),
            cwd: around.cwd.clone(),
            uid: around.uid,
            gid: around.gid,
            home: around.home.clone(),
            env: around.env.clone(),
        }
    }

    /// The operator's file that was named, links resolved.
    #[must_use]
    pub fn operator_file(&self) -> Option<PathBuf> {
        self.operator.as_ref().and_then(|file| file.canonicalize().ok())
    }

    /// What is stored of it at a launch.
    #[must_use]
    pub fn launched(&self) -> Launched {
        Launched { file: self.file.clone(), operator: self.operator.clone(), overrides: self.overrides.clone() }
    }

    /// Makes the plan again. `now` is what surrounds the supervisor: its accounts and folders count, not its environment.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn load(&self, now: &Surroundings) -> Result<AgentPlan, ConfigError> {
        let mut around = now.clone();
        around.cwd.clone_from(&self.cwd);
        around.uid = self.uid;
        around.gid = self.gid;
        around.home.clone_from(&self.home);
        around.env.clone_from(&self.env);
        config::load_agent(&self.file, &around, self.operator.as_deref(), &self.overrides)
    }
}
