//! A resolved, checked agent: what the supervisor starts, restarts and shows.
//!
//! Compiled once. A restart uses the loaded plan; a changed file takes effect by `reload`, which shows [`diff`]. The
//! plan's SHA-256 is what an attestation is bound to. Secret values are in memory only: `Debug` and `Serialize` both show
//! a mark in their place, so that no log, no `--json` and no state file can carry them by accident.

mod diff;
mod display;
mod health;
mod models;
mod network;
mod rates;
mod secret;
mod standing;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_rings::capability::Capabilities;
use agt_rings::names::Pattern;
use agt_rings::report::Gap;
use agt_rings::seccomp::Nested;
use agt_rings::spec::{Access, Enforcement, FileRule, Limits, Listen, Spec, Terminal, User};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::grant::Refusal;
use super::source::regular;
use super::spec::{
    ChaosSpec, Environment, HostPort, Keep, LogSpec, NestedSpec, Publish, RestartSpec, SloSpec, Stdio, Switch,
    TimeoutsSpec,
};

pub use super::resolve::look::Opened;
pub use diff::{Change, diff};
pub use health::{Ask, HealthPlan, Look};
pub use models::ModelPlan;
pub use network::{NetworkPlan, Opening, Openness, Way};
pub use rates::{BUILT_IN as BUILT_IN_RATES, RingRates};
pub use secret::{EnvValue, SecretText, UnreadableSecret};
pub(super) use standing::is_stranger;

/// Who an agent is: the name alone can be taken by anybody's file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The uid that started it.
    pub uid: u32,
    /// The resolved path of its agent.yaml; for a command line that of its script or program.
    pub source: PathBuf,
}

/// One way out of the agent's network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// Where the supervisor listens inside the agent's network.
    pub listen: SocketAddr,
    /// Where it connects to.
    pub target: HostPort,
}

/// What an earlier version's plans have: left out of the text that is hashed, so that their attestations stay true.
fn is_off(nested: &NestedSpec) -> bool {
    *nested == NestedSpec::Off
}

/// A resolved agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentPlan {
    /// Who it is.
    pub identity: Identity,
    /// The most privileged ring that it can reach.
    pub ceiling: Ring,
    /// Refuse or go on where the host falls short.
    pub enforcement: Enforcement,
    /// The program to start, links resolved; never a script or a shim.
    pub program: PathBuf,
    /// `argv`: the program as it was found first, so that a venv's python knows its venv.
    pub argv: Vec<String>,
    /// The script that the program reads, when it is an interpreter.
    pub script: Option<PathBuf>,
    /// The environment, but for HOME, TMPDIR and TERM, which belong to the launch.
    pub env: BTreeMap<String, EnvValue>,
    /// Where it starts, links resolved.
    pub workdir: PathBuf,
    /// What it may reach at its ceiling besides the ring's own system paths; the workdir included.
    pub files: Vec<FileRule>,
    /// Which of `files` were given to it, so that it reads there what their owner may read; elsewhere it is a stranger.
    pub as_owner: Vec<PathBuf>,
    /// Names inside writable trees that stay read-only: those that exist when the plan is made. Each launch adds those that
    /// exist then ([`AgentPlan::as_it_stands`]).
    pub protect: Vec<PathBuf>,
    /// Sockets of other programs in what it sees, which no ring but R0 may call.
    pub sockets: Vec<PathBuf>,
    /// Patterns of its file: what matches is hidden from it, and can't be made where it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Pattern>,
    /// What matches them when the plan is made; each launch adds what does then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<PathBuf>,
    /// What the operator's file opens of `protect` and `sockets`: what is made later is judged by it at each launch.
    #[serde(default, skip_serializing_if = "Opened::is_empty")]
    pub opened: Opened,
    /// Whether names that don't exist yet are kept from it too.
    #[serde(default, skip_serializing_if = "Keep::is_all")]
    pub keep: Keep,
    /// What no ring may see.
    pub hide: Vec<PathBuf>,
    /// Its ways out.
    pub forwards: Vec<Forward>,
    /// What it may reach.
    #[serde(default, skip_serializing_if = "NetworkPlan::is_nothing")]
    pub network: NetworkPlan,
    /// The model routes that it may use.
    #[serde(default, skip_serializing_if = "ModelPlan::is_nothing")]
    pub models: ModelPlan,
    /// Ports of its own that are shown to the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Publish>,
    /// Limits at each ring, R0 first: a demoted agent has those of its new ring.
    pub ring_limits: [Limits; 4],
    /// The most that an operator may set each limit to while it runs, without saying that it is more than the ring and the
    /// operator's file give; R0 first, `None` = no such bound.
    #[serde(default)]
    pub ring_limits_most: [Limits; 4],
    /// Requests a minute at each ring.
    #[serde(default, skip_serializing_if = "RingRates::is_built_in")]
    pub ring_requests_per_minute: RingRates,
    /// Open files of each process at each ring, R0 first; `None` = the host's.
    pub ring_open_files: [Option<u32>; 4],
    /// Whose uid it has.
    pub user: User,
    /// Whether it may build sandboxes of its own, in R1 and R2.
    #[serde(default, skip_serializing_if = "is_off")]
    pub nested_sandbox: NestedSpec,
    /// Capabilities that it keeps in R0.
    pub capabilities: Vec<String>,
    /// When it is started again.
    pub restart: RestartSpec,
    /// Its health check.
    pub health: Option<HealthPlan>,
    /// How long it may take.
    pub timeouts: TimeoutsSpec,
    /// How its input and output are connected; `None` = by context.
    pub stdio: Option<Stdio>,
    /// Its log files.
    pub log: LogSpec,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service level objectives.
    pub slos: Vec<SloSpec>,
    /// Which experiments may target it.
    pub chaos: ChaosSpec,
    /// Whether starting it by hand vouches for it.
    pub vouch: Switch,
    /// What the operator says this host is for.
    pub environment: Environment,
    /// Requests of an R0 agent that no line of the operator's file covers: the attestation is that line. Without a valid one of the
    /// plan's hash, or elsewhere than in R0, these are the refusals (exit 77).
    pub needs_attestation: Vec<Refusal>,
    /// What was narrowed or left open, in sentences for the person who starts it.
    pub notes: Vec<String>,
    /// What can't be kept of the ring's promises whatever the host offers: a never-writable name that is a link, say. Part of
    /// each launch's report, so `required` refuses.
    pub gaps: Vec<Gap>,
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanHash(pub [u8; 32]);

impl std::fmt::Display for PlanHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for PlanHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlanHash({self})")
    }
}

/// Whether a source is a file of ours, by its name: a program or script that a command line is known by has another one.
#[must_use]
pub fn is_file_of_ours(source: &Path) -> bool {
    source.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

impl AgentPlan {
    /// The agent's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Whether it comes from a file of ours; else a command line is all there is, known by its script or program.
    #[must_use]
    pub fn has_file(&self) -> bool {
        is_file_of_ours(&self.identity.source)
    }

    /// SHA-256 of the plan (values of secrets left out: a rotated key is no new plan).
    #[must_use]
    pub fn hash(&self) -> PlanHash {
        let bytes = serde_json::to_vec(self).expect("a plan has only texts, numbers and lists");
        let mut hasher = Sha256::new();
        hasher.update(b"agt-plan-v1\n");
        hasher.update(bytes);
        PlanHash(hasher.finalize().into())
    }

    /// SHA-256 of the files that are executed: the program and, for a script, the script.
    ///
    /// # Errors
    /// A file that can't be read any more, is no regular file, or is larger than 4 GiB.
    pub fn program_hash(&self) -> io::Result<PlanHash> {
        let mut hasher = Sha256::new();
        hasher.update(b"agt-program-v1\n");
        for path in [Some(&self.program), self.script.as_ref()].into_iter().flatten() {
            let file = regular(path)?;
            let length = file.metadata()?.len();
            if length > MAX_PROGRAM {
                let why = format!("{} has {length} bytes: no program has more than {MAX_PROGRAM}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            hasher.update(length.to_le_bytes());
            // A file that grows while it is read has no end.
            let mut file = file.take(MAX_PROGRAM);
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
            }
        }
        Ok(PlanHash(hasher.finalize().into()))
    }

    /// Limits in this ring. Only a ring at or below the ceiling makes sense.
    #[must_use]
    pub fn limits_at(&self, ring: Ring) -> Limits {
        self.ring_limits[usize::from(ring.number())]
    }

    /// The most of each limit in this ring.
    #[must_use]
    pub fn limits_most_at(&self, ring: Ring) -> Limits {
        self.ring_limits_most[usize::from(ring.number())]
    }

    /// Open files of each process in this ring.
    #[must_use]
    pub fn open_files_at(&self, ring: Ring) -> Option<u32> {
        self.ring_open_files[usize::from(ring.number())]
    }

    /// File rules in this ring: R3 writes nothing but its private HOME and TMPDIR, whatever the ceiling says.
    #[must_use]
    pub fn files_at(&self, ring: Ring) -> Vec<FileRule> {
        let narrow = |rule: &FileRule| match ring {
            Ring::R3 => FileRule { path: rule.path.clone(), access: Access::Read },
            Ring::R0 | Ring::R1 | Ring::R2 => rule.clone(),
        };
        self.files.iter().map(narrow).collect()
    }

    /// The whole environment, secrets read from their files now.
    ///
    /// # Errors
    /// A secret's file that can't be read, is larger than 64 KiB, or holds a NUL.
    pub fn environment(&self) -> Result<Vec<(OsString, OsString)>, UnreadableSecret> {
        self.env.iter().map(|(name, value)| Ok((name.into(), value.reveal(name)?.into()))).collect()
    }

    /// The launch that this plan asks for in the effective ring `ring` (never above the ceiling).
    ///
    /// # Errors
    /// As [`AgentPlan::environment`].
    pub fn launch_spec(&self, ring: Ring) -> Result<Spec, UnreadableSecret> {
        let ring = ring.least_privileged(self.ceiling);
        let mut env = self.environment()?;
        env.extend(self.way_variables(ring).into_iter().map(|(name, value)| (name.into(), value.into())));
        Ok(Spec {
            name: self.identity.name.clone(),
            ring,
            enforcement: self.enforcement,
            program: self.program.clone(),
            argv: self.argv.iter().map(OsString::from).collect(),
            env,
            workdir: self.workdir.clone(),
            files: self.files_at(ring),
            as_owner: self.as_owner.clone(),
            scratch: None,
            protect: self.protect.clone(),
            gaps: self.gaps.clone(),
            sockets: self.sockets.clone(),
            names: None,
            hide: self.hide.clone(),
            listen: self.openings_at(ring).iter().map(|opening| Listen { address: opening.listen }).collect(),
            models: self.models.access(),
            inbound: self.inbound_at(ring),
            limits: self.limits_at(ring),
            user: self.user,
            own_id: 0,
            nested: if is_off(&self.nested_sandbox) { Nested::Refused } else { Nested::Allowed },
            // Every name was checked when the operator's file was read.
            capabilities: Capabilities::named(self.capabilities.iter().map(String::as_str)).unwrap_or_default(),
            open_files: self.open_files_at(ring),
            terminal: Terminal::None,
            check: self.health.as_ref().and_then(HealthPlan::check),
        })
    }

    /// The plan with its secret values, for the one road on which they travel: from a second `run` to the supervisor
    /// that takes its agents over. Never log or store it.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let secrets: BTreeMap<&str, &str> = self
            .env
            .iter()
            .filter_map(|(name, value)| match value {
                EnvValue::Secret(text) => Some((name.as_str(), text.reveal())),
                EnvValue::Plain(_) | EnvValue::SecretFile(_) => None,
            })
            .collect();
        serde_json::to_vec(&(self, secrets)).expect("a plan can be written as JSON")
    }

    /// Reads what [`AgentPlan::to_wire`] wrote.
    ///
    /// # Errors
    /// Bytes that are no plan.
    pub fn from_wire(bytes: &[u8]) -> serde_json::Result<AgentPlan> {
        let (mut plan, secrets): (AgentPlan, BTreeMap<String, String>) = serde_json::from_slice(bytes)?;
        for (name, text) in secrets {
            plan.env.insert(name, EnvValue::Secret(SecretText::new(text)));
        }
        Ok(plan)
    }

    /// The plan as JSON for people and scripts. No value of the environment is in it: people write keys into `env.set`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).expect("a plan can be written as JSON");
        value["ring_requests_per_minute"] = serde_json::json!(self.ring_requests_per_minute);
        if let Some(env) = value.get_mut("env").and_then(serde_json::Value::as_object_mut) {
            for variable in env.values_mut().filter(|variable| variable.get("plain").is_some()) {
                *variable = serde_json::json!({"plain": HIDDEN_VALUE});
            }
        }
        value
    }
}

/// Largest program that is hashed, in bytes.
const MAX_PROGRAM: u64 = 4 << 30;

/// What is shown of a value of the environment.
const HIDDEN_VALUE: &str = "[set]";

/// `a, b, c` for messages.
fn joined<T: std::fmt::Display>(items: &[T]) -> String {
    let mut out = String::new();
    for (index, item) in items.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let _ = write!(out, "{separator}{item}");
    }
    out
}
