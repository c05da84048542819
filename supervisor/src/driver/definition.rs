//! One agent as the driver runs it: a resolved plan and what is particular to this run of it.

use std::sync::Arc;
use std::time::Duration;

use agt_rings::Ring;
use agt_rings::spec::{Spec, Terminal};

use super::audience::{Audience, Tenure};
use super::loaded::LoadedFiles;
use super::logfile::LogLimits;
use super::status_file::StatusFile;
use crate::config::AgentPlan;
use crate::config::plan::UnreadableSecret;
use crate::config::spec::RestartPolicy;
use crate::govern::governor::Vouching;
use crate::learning::Learning;
use crate::machine::lifecycle::Rules;
use crate::machine::restart::{Policy, Restart};
use crate::reloading::Origin;

/// Everything about one agent.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The compiled configuration. Its ring is the ceiling; the effective ring may be lower.
    pub plan: AgentPlan,
    /// SHA-256 of the plan, in hex.
    pub plan_hash: String,
    /// Where its final state is written as JSON.
    pub status_file: Option<StatusFile>,
    /// Whether its standard streams are a terminal made for it.
    pub terminal: Terminal,
    /// The uid of its own; the driver's to give.
    pub own_id: u32,
    /// Whether whoever starts it vouches for it.
    pub vouching: Vouching,
    /// Where the plan came from; `None` for a command line.
    pub origin: Option<Origin>,
    /// This start of it.
    pub tenure: Tenure,
    /// Who hears what is said of it, if that is not this process's own terminal.
    pub audience: Option<Audience>,
    /// Whether it is watched for a proposal.
    pub learning: Option<Arc<Learning>>,
    /// The name under which denials are told and kept, where that is not its own: the one that a proposed file will have.
    pub told_as: Option<String>,
    /// Its `TERM`, if it has a terminal and its file names none.
    pub term: Option<String>,
}

impl Definition {
    /// Wraps a plan.
    #[must_use]
    pub fn new(plan: AgentPlan) -> Definition {
        let plan_hash = plan.hash().to_string();
        Definition {
            plan,
            plan_hash,
            status_file: None,
            terminal: Terminal::None,
            own_id: 0,
            vouching: Vouching::Nobody,
            origin: None,
            tenure: Tenure::begin(),
            audience: None,
            learning: None,
            told_as: None,
            term: None,
        }
    }

    /// Makes the files that it came from known as such.
    pub fn note_files(&self, loaded: &LoadedFiles) {
        // What a command line without a file is known by is its program.
        let Some(origin) = &self.origin else { return };
        loaded.note(&self.plan.identity.source);
        origin.operator_file().iter().for_each(|file| loaded.note(file));
    }

    /// The agent's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.plan.name()
    }

    /// The name under which its denials are told and kept.
    #[must_use]
    pub fn told_as(&self) -> &str {
        self.told_as.as_deref().unwrap_or_else(|| self.name())
    }

    /// Where it works: what people know it by beside its name.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let restart = &self.plan.restart;
        let policy = match restart.policy {
            RestartPolicy::Never => Policy::Never,
            RestartPolicy::OnFailure => Policy::OnFailure,
            RestartPolicy::Always => Policy::Always,
        };
        Rules {
            restart: Restart {
                policy,
                initial: restart.backoff.initial.0,
                max: restart.backoff.max.0,
                jitter: restart.backoff.jitter.fraction(),
                attempts: restart.attempts,
                window: restart.window.0,
            },
            run_timeout: self.plan.timeouts.run.map(|span| span.0),
            stop_grace: self.plan.timeouts.stop.0,
            health_retries: self.plan.health.as_ref().map_or(u32::MAX, |health| health.retries),
        }
    }

    /// How long a launch may take.
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        self.plan.timeouts.start.0
    }

    /// Its log's ceiling.
    #[must_use]
    pub fn log_limits(&self) -> LogLimits {
        LogLimits { max_bytes: self.plan.log.max_size.0, keep: self.plan.log.keep }
    }

    /// The launch in an effective ring.
    ///
    /// # Errors
    /// A secret that can't be read.
    pub fn launch_spec(&self, ring: Ring) -> Result<Spec, UnreadableSecret> {
        let mut spec = self.plan.launch_spec(ring)?;
        spec.own_id = self.own_id;
        spec.terminal = self.terminal;
        spec.scratch = self.learning.as_ref().map(|learning| learning.scratch.clone());
        if self.terminal == Terminal::Controlling && !spec.env.iter().any(|(name, _)| name == "TERM") {
            spec.env.push(("TERM".into(), self.term.as_deref().unwrap_or("xterm-256color").into()));
        }
        Ok(spec)
    }
}
