//! The policy of a plan without its namespaces: a child of the caller itself, with the steps that an init's child takes.
//!
//! No agent is started so. It is the floor under every launch (limits, uid, Landlock, seccomp, cgroup, exec) and is here to be
//! measured apart from what namespaces cost.

use std::os::fd::OwnedFd;

use super::child::{self, For, Prepared};
use super::given::Wiring;
use super::rules;
use super::running::LaunchError;
use super::streams::Streams;
use crate::cgroup::Join;
use crate::plan::Plan;

/// A plan's policy, its Landlock rules built once.
#[derive(Debug)]
pub struct Alone {
    plan: Plan,
    landlock: Option<OwnedFd>,
}

impl Alone {
    /// Builds the Landlock rules, in the caller's own view of the files.
    ///
    /// # Errors
    /// [`LaunchError::Step`].
    pub fn new(plan: &Plan) -> Result<Alone, LaunchError> {
        Ok(Alone { plan: plan.clone().unheard(), landlock: rules::landlock(plan)? })
    }

    /// Starts the program; returns its pidfd once it was executed. The caller waits for it and reaps it.
    ///
    /// # Errors
    /// [`LaunchError::Step`]; the child is left as a zombie then.
    pub fn start(&self, streams: Streams, join: Join) -> Result<OwnedFd, LaunchError> {
        let wiring = Wiring {
            streams: [streams.stdin, streams.stdout, streams.stderr],
            cgroup: join.into_cgroup,
            tasks: join.tasks,
        };
        let prepared = Prepared::new(&self.plan, &For::Agent(&wiring), self.landlock.as_ref())?;
        Ok(child::start(&prepared)?.pidfd)
    }
}
