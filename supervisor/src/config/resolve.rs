//! From what a file asks to what is started: requests are checked against the operator's file, links resolved, programs
//! found.
//!
//! agent.yaml is input, not authority. Each part of it is resolved by a module of its own that either puts the request
//! into the plan, or says which line of the operator's file would allow it. All problems of a file are collected; a plan
//! exists only when there are none.

mod deny;
mod env;
mod files;
mod health;
mod installation;
pub(super) mod look;
pub(super) mod models;
pub(super) mod network;
mod packages;
mod ports;
mod program;
mod protect;
mod rules;
mod shebang;
mod shims;
mod sockets;
mod strangers;
mod walk;
mod workdir;

use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_rings::spec::{Access, Enforcement, FileRule, User};
use serde::{Deserialize, Serialize};

use super::diagnostic::{Class, ConfigError, Problem, Report};
use super::document::Document;
use super::grant::{Grant, Refusal, Right};
use super::plan::{self, AgentPlan, Identity};
use super::rights::{Operator, Rights};
use super::spec::{AgentName, AgentSpec, EnforcementSpec, NestedSpec};
use super::surroundings::Surroundings;
use super::tree::KeyPath;
use super::units::{ByteSize, Cpu};
use super::zones::Zones;

/// What was typed on the command line beside the file. The person who types it is the asking user, so it needs no
/// operator where it concerns only what is theirs: their folder, their variables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// `--workdir`: this folder in place of the file's.
    pub workdir: Option<PathBuf>,
    /// `--ring`: a ceiling beside the file's; the least privileged of both counts.
    pub ring: Option<Ring>,
    /// `--env NAME`: these variables of the user's environment as well.
    pub pass: Vec<String>,
    /// `--name`: what an agent without a file is called.
    #[serde(default)]
    pub name: Option<AgentName>,
    /// `--enforcement`: for an agent without a file what `enforcement:` is in one.
    #[serde(default)]
    pub enforcement: EnforcementSpec,
    /// The folder of `serve`, which no agent may write: its files are configuration, and a new one there is started.
    #[serde(default)]
    pub served: Option<PathBuf>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The file, unless the command line is all there is.
    pub(super) document: Option<&'a Document>,
    /// Resolved path of the file, or of the program of a command line.
    pub(super) source: &'a Path,
    /// The folder that relative paths are relative to.
    pub(super) folder: &'a Path,
}

/// What all parts of the resolver share: the question, the answers so far.
pub(super) struct Context<'a> {
    pub(super) spec: &'a AgentSpec,
    pub(super) origin: Origin<'a>,
    pub(super) around: &'a Surroundings,
    pub(super) overrides: &'a Overrides,
    pub(super) rights: Rights,
    pub(super) zones: Zones,
    pub(super) operator_file: PathBuf,
    /// What the file or `--ring` asks for.
    pub(super) asked: Ring,
    /// The same, not above the operator's ceiling.
    pub(super) ceiling: Ring,
    pub(super) problems: Vec<Problem>,
    pub(super) needs_attestation: Vec<Refusal>,
    pub(super) notes: Vec<String>,
}

impl Context<'_> {
    pub(super) fn problem(&mut self, path: &KeyPath, problem: Problem) {
        let located = match self.origin.document {
            Some(document) => document.locate(problem, path),
            None => problem,
        };
        self.problems.push(located);
    }

    /// A request that only an operator can grant. In R0 the attestation stands for the operator's line, so the request
    /// goes into the plan and the plan says that it needs one.
    pub(super) fn needs_operator(&mut self, path: &KeyPath, message: String, right: Right) {
        let grant = Grant {
            agent: self.spec.name.to_string(),
            file: self.origin.source.to_path_buf(),
            operator_file: self.operator_file.clone(),
            right,
        };
        if self.ceiling == Ring::R0 {
            self.needs_attestation.push(Refusal { message, grant: Some(grant) });
            return;
        }
        let message = match &self.rights.other_file {
            Some(other) => format!("{message} (the entry that is there is for {})", other.display()),
            None => message,
        };
        let help = format!("add {grant} in {}", self.operator_file.display());
        let problem = Problem::new(Class::Refused, message).label("needs an operator").help(help).grant(grant);
        self.problem(path, problem);
    }

    /// A request that no line can allow.
    pub(super) fn never(&mut self, path: &KeyPath, message: String, help: &str) {
        self.problem(path, Problem::new(Class::Refused, message).label("never").help(help));
    }
}

/// Resolves an agent.
///
/// # Errors
/// All problems of the file: 64, 77, 126 or 127 by the first that must be mended.
pub(super) fn resolve(
    spec: &AgentSpec,
    origin: Origin<'_>,
    around: &Surroundings,
    operator: Option<&Operator>,
    overrides: &Overrides,
) -> Result<AgentPlan, ConfigError> {
    let operator_file = operator.map_or_else(|| around.operator_file.clone(), |operator| operator.path.clone());
    let rights = Rights::of(operator, spec.name.as_str(), origin.source, around);
    let in_file = spec.ring.unwrap_or(Ring::R3);
    let asked = overrides.ring.map_or(in_file, |typed| typed.least_privileged(in_file));
    let ceiling = rights.ceiling.map_or(asked, |most| asked.least_privileged(most));
    let mut context = Context {
        spec,
        origin,
        around,
        overrides,
        zones: Zones::new(around, &operator_file),
        rights,
        operator_file,
        asked,
        ceiling,
        problems: Vec::new(),
        needs_attestation: Vec::new(),
        notes: Vec::new(),
    };
    let plan = context.plan();
    match plan {
        Some(plan) if context.problems.is_empty() => Ok(plan),
        _ => Err(match origin.document {
            Some(document) => document.error(context.problems),
            None => ConfigError::from_report(Report::new(Path::new(""), "".into(), context.problems)),
        }),
    }
}

impl Context<'_> {
    fn plan(&mut self) -> Option<AgentPlan> {
        if let Some(typed) = self.overrides.ring.filter(|typed| typed.is_more_privileged_than(self.asked)) {
            let number = typed.number();
            let why =
                if self.spec.ring.is_some() { "the file's ceiling is" } else { "a file without `ring:` asks for" };
            self.notes.push(format!("`--ring {number}` has no effect: {why} {}", self.asked));
        }
        if self.ceiling != self.asked {
            self.notes.push(format!("{} was asked for, the operator's file allows {}", self.asked, self.ceiling));
        }
        rules::check(self);
        let env = env::resolve(self);
        let workdir = workdir::resolve(self);
        let (forwards, network) = network::resolve(self);
        let models = models::resolve(self);
        let ports = ports::resolve(self, &forwards);
        let user = self.user();
        let nested_sandbox = self.nested_sandbox();
        let rows = rules::limits(self);
        let workdir = workdir?;
        let search = program::Search { path: env::path_of(&env), workdir: &workdir, project: self.origin.folder };
        let program = program::of_command(self, &search);
        let health = health::resolve(self, &search, &forwards);
        let files = files::resolve(self, &workdir, program.as_ref(), health.as_ref().map(|(_, installed)| installed));
        let program = program?;
        let as_owner: Vec<PathBuf> =
            files.iter().filter(|rule| files::is_given(self, &workdir, rule)).map(|r| r.path.clone()).collect();
        let opened = self.opened(&files);
        let deny = deny::patterns(self);
        let seen = look::look(&look::Question {
            ring: self.ceiling,
            files: &files,
            workdir: &workdir,
            source: self.origin.source,
            opened: &opened,
            deny: &deny,
            as_owner: &as_owner,
            is_stranger: plan::is_stranger(self.around.uid, user),
            known: look::Known::default(),
            operator: &self.operator_file.display().to_string(),
        });
        let mut env = env;
        env.extend(program.env);
        let spec = self.spec;
        Some(AgentPlan {
            identity: Identity {
                name: spec.name.to_string(),
                uid: self.around.uid,
                source: self.origin.source.to_path_buf(),
            },
            ceiling: self.ceiling,
            enforcement: match spec.enforcement {
                EnforcementSpec::Required => Enforcement::Required,
                EnforcementSpec::BestEffort => Enforcement::BestEffort,
            },
            program: program.program,
            argv: program.argv,
            script: program.script,
            env,
            workdir,
            files,
            as_owner,
            protect: seen.protect,
            sockets: seen.sockets,
            deny,
            denied: seen.denied,
            opened,
            keep: self.rights.keep,
            hide: self.zones.hidden().into_iter().chain(models::key_files(&self.rights.providers)).collect(),
            forwards,
            network,
            models,
            ports,
            ring_limits: rows.limits,
            ring_limits_most: rows.most,
            ring_requests_per_minute: rows.requests,
            ring_open_files: rows.open_files,
            user,
            nested_sandbox,
            capabilities: if self.ceiling == Ring::R0 { self.rights.capabilities.clone() } else { Vec::new() },
            restart: spec.restart.clone(),
            health: health.map(|(health, _)| health),
            timeouts: spec.timeouts.clone(),
            stdio: spec.stdio,
            log: spec.log.clone(),
            labels: spec.labels.clone(),
            slos: spec.slos.clone(),
            chaos: spec.chaos.clone(),
            vouch: self.rights.vouch,
            environment: self.rights.environment,
            needs_attestation: std::mem::take(&mut self.needs_attestation),
            notes: std::mem::take(&mut self.notes),
            gaps: seen.gaps,
        })
    }

    /// What the operator's file opens in the trees of this agent.
    fn opened(&self, files: &[FileRule]) -> look::Opened {
        let rights = &self.rights;
        let visible = |path: &Path| self.ceiling == Ring::R1 || files.iter().any(|rule| path.starts_with(&rule.path));
        let named = rights.read.iter().chain(&rights.write).filter(|path| visible(path) && !path.is_dir());
        look::Opened { names: rights.writable.clone(), sockets: named.cloned().collect() }
    }

    /// In R0 too, because a demotion would give it: R3 alone is one program, in which it could have no effect.
    fn nested_sandbox(&mut self) -> NestedSpec {
        let path = KeyPath::of("nested_sandbox");
        match (self.spec.nested_sandbox, self.spec.ring.unwrap_or(Ring::R3)) {
            (NestedSpec::Off, _) => return NestedSpec::Off,
            (NestedSpec::On, Ring::R3) => {
                let problem = Problem::config("R3 is one program: it builds no sandboxes")
                    .label("not in R3")
                    .help("`ring: 2`, or leave this line out");
                self.problem(&path, problem);
                return NestedSpec::Off;
            }
            (NestedSpec::On, _) => {}
        }
        if self.rights.nested_sandbox == NestedSpec::Off {
            let message =
                "sandboxes of its own need an operator's line: they open user namespaces and mounts to the agent";
            self.needs_operator(&path, message.to_owned(), Right::NestedSandbox);
        }
        self.notes.push(
            "it may build sandboxes of its own: namespaces and mounts are open to it in R1 and R2, and Landlock is off there"
                .to_owned(),
        );
        NestedSpec::On
    }

    fn user(&mut self) -> User {
        let Some(wanted) = self.spec.user.as_deref().filter(|user| *user != "own") else { return User::Own };
        let path = KeyPath::of("user");
        let Some(account) = self.around.account(wanted).cloned() else {
            let problem = Problem::config(format!("there is no user `{wanted}` on this host"))
                .label("unknown user")
                .help("`own` gives the agent a user that nobody else has");
            self.problem(&path, problem);
            return User::Own;
        };
        // What an unprivileged supervisor does anyway is no right.
        if account.uid == self.around.uid && account.uid != 0 {
            return User::Own;
        }
        let granted = self.rights.user.as_deref().and_then(|user| self.around.account(user));
        if granted.is_none_or(|granted| granted.uid != account.uid) {
            let message = format!("running as `{}` (uid {}) needs an operator's line", account.name, account.uid);
            self.needs_operator(&path, message, Right::User(account.name.clone()));
        }
        User::Fixed { uid: account.uid, gid: account.gid }
    }
}

pub(super) use installation::is_interpreter;

/// A read rule.
fn readable(path: PathBuf) -> FileRule {
    FileRule { path, access: Access::Read }
}

/// The right for a limit, for messages and grants.
fn limit_rights(spec: &super::spec::LimitsSpec) -> Vec<(&'static str, u64, Right)> {
    let mut rights = Vec::new();
    if let Some(ByteSize(bytes)) = spec.memory {
        rights.push(("memory", bytes, Right::Memory(ByteSize(bytes))));
    }
    if let Some(Cpu(millis)) = spec.cpu {
        rights.push(("cpu", u64::from(millis), Right::Cpu(Cpu(millis))));
    }
    if let Some(tasks) = spec.tasks {
        rights.push(("tasks", u64::from(tasks), Right::Tasks(tasks)));
    }
    if let Some(files) = spec.files {
        rights.push(("files", u64::from(files), Right::OpenFiles(files)));
    }
    if let Some(requests) = spec.requests_per_minute {
        rights.push(("requests_per_minute", u64::from(requests), Right::Requests(requests)));
    }
    rights
}
