//! `reload`: files are read again, the difference is shown, and only then it is done.
//!
//! A plan is compiled once; a changed file means nothing until somebody with an operator's rights says so. The files are read
//! by the supervisor, with what was around when each was first read ([`Origin`]). Whoever agrees, agrees to a difference: its
//! token comes back with the order, and another difference by then is not done. One bad file, and nothing is done at all.

mod difference;
mod origin;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use difference::{AgentDifference, Difference, What};
pub use origin::{LAUNCHED, Launched, Origin};

use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::commands::check::surroundings;
use crate::config::{self, AgentPlan, Color, ConfigError, Overrides, Surroundings};
use crate::dirs::Dirs;
use crate::driver::Handle;
use crate::driver::definition::Definition;
use crate::driver::event::Refusal;
use crate::driver::records::wall_ms;
use crate::driver::reload::{Edit, Known, Life, Process};
use crate::exit;
use crate::store::Store;

/// Show the difference, or do what a difference says: POST.
pub const RELOAD: &str = "/v1/reload";
/// In the audit log.
pub const ACTION: Action = Action::new("reload");

/// The body of [`RELOAD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadBody {
    /// One agent; `None` for all, and for new and vanished files.
    pub agent: Option<String>,
    /// The difference that was agreed to; without it nothing is done.
    pub token: Option<String>,
    /// Why; kept in the audit log.
    #[serde(default)]
    pub reason: String,
}

/// Why nothing was reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Files are wrong; the message is whole.
    #[error("{text}")]
    Files {
        /// Everything that is wrong with them.
        text: String,
        /// The exit code of the first.
        code: u8,
    },
    /// The surroundings or the folder can't be read.
    #[error("{0}; the loaded plans stay as they are")]
    Unreadable(String),
    /// An agent has no file, or its file has another name by now.
    #[error("{0}")]
    NotNow(String),
    /// A new file has the name of an agent that is there.
    #[error(
        "{file}: the name `{name}` belongs to {other}; the loaded plans stay as they are\nhelp: give it another name, or stop that one and `agt-supervise trust forget {name} --reason \"...\"`"
    )]
    NameTaken {
        /// The new file.
        file: PathBuf,
        /// The name.
        name: String,
        /// Whose it is.
        other: PathBuf,
    },
    /// The files have changed since the difference was shown.
    #[error("the files have changed since the difference was shown; nothing was done\nhelp: agt-supervise reload")]
    ChangedAgain,
    /// The supervisor says no.
    #[error("{0}")]
    Refused(Refusal),
}

impl ReloadError {
    /// The exit code for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ReloadError::Files { code, .. } => *code,
            ReloadError::Unreadable(_) => exit::USAGE,
            ReloadError::NotNow(_) | ReloadError::Refused(Refusal::Unknown(_)) => exit::NO,
            ReloadError::NameTaken { .. } => exit::REFUSED,
            ReloadError::ChangedAgain => exit::TRY_AGAIN,
            ReloadError::Refused(refusal) => crate::control::handoff::refusal_code(refusal),
        }
    }
}

/// A folder whose files come and go.
#[derive(Debug, Clone)]
pub struct Served {
    folder: PathBuf,
    operator: Option<PathBuf>,
}

impl Served {
    /// The folder of `serve`.
    #[must_use]
    pub fn new(folder: &Path, operator: Option<&Path>, around: &Surroundings) -> Served {
        Served { folder: around.cwd.join(folder), operator: operator.map(|operator| around.cwd.join(operator)) }
    }

    /// What its files are resolved with: links of the folder followed, because that is what agents' paths are compared with.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        Overrides { served: Some(folder), ..Overrides::default() }
    }
}

/// The YAML files of a folder, by name.
///
/// # Errors
/// A folder that can't be read.
pub fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut found: Vec<PathBuf> = paths.collect::<io::Result<Vec<PathBuf>>>()?.into_iter().filter(is_yaml).collect();
    found.sort();
    Ok(found)
}

/// What reloads.
#[derive(Debug, Clone)]
pub struct Reloader {
    dirs: Dirs,
    handle: Handle,
    store: Store,
    served: Option<Served>,
}

/// A difference and what it takes to do it.
#[derive(Debug)]
struct Look {
    difference: Difference,
    edits: Vec<Edit>,
}

impl Reloader {
    /// One for this supervisor; `served` under `serve`.
    #[must_use]
    pub fn new(dirs: Dirs, handle: Handle, store: Store, served: Option<Served>) -> Reloader {
        Reloader { dirs, handle, store, served }
    }

    /// Shows the difference, and does it when its token came along.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing was changed then.
    pub async fn reload(&self, body: ReloadBody, by: u32) -> Result<Difference, ReloadError> {
        let result = self.try_reload(&body, by).await;
        if let Err(error) = &result {
            let record = Record::new(wall_ms(), Actor::Operator(by), ACTION, Outcome::Denied);
            let record = record.reason(body.reason.as_str()).detail("why", error.to_string());
            let record = body.agent.as_deref().into_iter().fold(record, Record::agent);
            // A refusal gives nothing: a note that is lost is counted.
            let _ = self.store.append_audit_nowait(record);
        }
        result
    }

    async fn try_reload(&self, body: &ReloadBody, by: u32) -> Result<Difference, ReloadError> {
        let Look { mut difference, edits } = self.look(body.agent.clone()).await?;
        match &body.token {
            None => return Ok(difference),
            Some(token) if *token != difference.token => return Err(ReloadError::ChangedAgain),
            Some(_) => {}
        }
        self.handle.reload(edits, by, body.reason.clone()).await.map_err(ReloadError::Refused)?;
        difference.applied = true;
        Ok(difference)
    }

    /// Checks and reloads at once: the signal is the operator's word. Says on standard error what came of it.
    pub async fn on_hangup(&self) {
        let by = nix::unistd::geteuid().as_raw();
        let mut body = ReloadBody { agent: None, token: None, reason: "SIGHUP".to_owned() };
        let mut done = self.reload(body.clone(), by).await;
        if let Ok(shown) = &done
            && let Some(doubtful) = shown.agents.iter().find(|a| a.what != What::Unchanged && !a.written_by.is_empty())
        {
            let (file, writers) = (doubtful.file.display(), doubtful.written_by.join(", "));
            eprintln!(
                "error: {file} has changed, and {writers} may write where it stands; the loaded plans stay as they are\nhelp: `agt-supervise reload` shows the change and asks"
            );
            return;
        }
        if let Ok(shown) = &done
            && !shown.is_empty()
        {
            body.token = Some(shown.token.clone());
            done = self.reload(body, by).await;
        }
        match done {
            Ok(difference) if difference.is_empty() => eprintln!("reload: nothing has changed"),
            Ok(difference) => eprint!("reload: done\n{difference}"),
            Err(error @ ReloadError::Files { .. }) => eprint!("{error}"),
            Err(error) => eprintln!("error: {error}"),
        }
    }

    async fn look(&self, agent: Option<String>) -> Result<Look, ReloadError> {
        let known = self.handle.plans(agent.clone()).await.map_err(ReloadError::Refused)?;
        let (dirs, served) = (self.dirs.clone(), self.served.clone());
        // Reads files, and looks for programs.
        let looked = tokio::task::spawn_blocking(move || look(&dirs, served.as_ref(), known, agent.is_some()));
        looked.await.unwrap_or_else(|e| Err(ReloadError::Unreadable(e.to_string())))
    }
}

/// Collects what becomes of each agent.
#[derive(Debug, Default)]
struct Looker {
    agents: Vec<AgentDifference>,
    edits: Vec<Edit>,
    hashes: Vec<String>,
    wrong: Vec<ConfigError>,
    /// Files that belong to an agent that stays.
    taken: BTreeSet<PathBuf>,
    /// Who has a process, and which trees it may write.
    writers: Vec<(String, Vec<PathBuf>)>,
}

fn look(dirs: &Dirs, served: Option<&Served>, known: Vec<Known>, one: bool) -> Result<Look, ReloadError> {
    let around = surroundings(dirs).map_err(|failure| ReloadError::Unreadable(failure.to_string()))?;
    let files = match served {
        Some(served) => yaml_files(&served.folder)
            .map_err(|e| ReloadError::Unreadable(format!("{}: {e}", served.folder.display())))?,
        None => Vec::new(),
    };
    let mut looker = Looker { writers: known.iter().filter_map(difference::writer).collect(), ..Looker::default() };
    let owners: Vec<(String, PathBuf)> =
        known.iter().map(|known| (known.plan.name().to_owned(), known.plan.identity.source.clone())).collect();
    for known in known {
        match &known.origin {
            None if one => {
                let name = known.plan.name();
                let text =
                    format!("{name} was started by a command line without a file: there is nothing to read again");
                return Err(ReloadError::NotNow(text));
            }
            None => {}
            Some(origin) => {
                let origin = origin.clone();
                let in_folder = served.is_some_and(|served| origin.file.parent() == Some(&served.folder));
                if in_folder && !files.contains(&origin.file) {
                    looker.gone(&known, &origin);
                } else {
                    looker.again(known, origin, &around, in_folder)?;
                }
            }
        }
    }
    if let Some(served) = served.filter(|_| !one) {
        for file in files {
            if !looker.taken.contains(&file) {
                looker.new_file(&file, served, &around, &owners)?;
            }
        }
    }
    looker.finish()
}

impl Looker {
    fn push(&mut self, agent: &str, file: &Path, what: What, changes: Vec<config::Change>) {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let others = self.writers.iter().filter(|(name, trees)| {
            name != agent && !changes.is_empty() && trees.iter().any(|tree| real.starts_with(tree))
        });
        let difference = AgentDifference {
            agent: agent.to_owned(),
            file: file.to_owned(),
            what,
            written_by: others.map(|(name, _)| name.clone()).collect(),
            changes,
            attestation_void: false,
        };
        self.agents.push(difference);
    }

    fn gone(&mut self, known: &Known, origin: &Origin) {
        self.push(known.plan.name(), &origin.file, What::Stop, Vec::new());
        self.edits.push(Edit::Stop(known.plan.name().to_owned()));
    }

    /// A file that an agent came from.
    fn again(
        &mut self,
        known: Known,
        origin: Origin,
        around: &Surroundings,
        in_folder: bool,
    ) -> Result<(), ReloadError> {
        let old = &known.plan;
        let plan = match origin.load(around) {
            Ok(plan) => plan,
            Err(error) => {
                self.taken.insert(origin.file);
                self.wrong.push(error);
                return Ok(());
            }
        };
        if plan.identity != old.identity {
            if in_folder && plan.name() != old.name() {
                // The file is another agent's now: that one is found among the new ones.
                self.gone(&known, &origin);
                return Ok(());
            }
            let (file, name, now) = (origin.file.display(), old.name(), plan.name());
            return Err(ReloadError::NotNow(format!(
                "{file} was the file of {name} and is that of {now} ({}) now; the loaded plans stay as they are\nhelp: agt-supervise stop {name}, then run the file again",
                plan.identity.source.display()
            )));
        }
        self.taken.insert(origin.file.clone());
        let changes = config::diff(old, &plan);
        let hash = plan.hash().to_string();
        if changes.is_empty() && hash == known.plan_hash {
            self.push(old.name(), &origin.file, What::Unchanged, Vec::new());
            return Ok(());
        }
        let what = match known.life {
            Life::Dead => What::Keep,
            Life::Runs if difference::needs_no_restart(old, &plan) => What::Adopt,
            Life::Runs => What::Restart,
        };
        self.push(old.name(), &origin.file, what, changes);
        if let Some(last) = self.agents.last_mut() {
            last.attestation_void = known.attested;
        }
        self.hashes.push(hash);
        let process = if what == What::Restart { Process::Restarted } else { Process::Left };
        self.edits.push(Edit::Change { plan: Box::new(plan), from: known.plan_hash, process });
        Ok(())
    }

    fn new_file(
        &mut self,
        file: &Path,
        served: &Served,
        around: &Surroundings,
        owners: &[(String, PathBuf)],
    ) -> Result<(), ReloadError> {
        let origin = Origin::new(file, served.operator.as_deref(), &served.overrides(), around);
        let plan: AgentPlan = match origin.load(around) {
            Ok(plan) => plan,
            Err(error) => {
                self.wrong.push(error);
                return Ok(());
            }
        };
        let name = plan.name().to_owned();
        let source = plan.identity.source.clone();
        let here = self.edits.iter().filter_map(|edit| match edit {
            Edit::Start(definition) => Some((definition.name(), &definition.plan.identity.source)),
            Edit::Change { .. } | Edit::Stop(_) => None,
        });
        let all = owners.iter().map(|(name, source)| (name.as_str(), source)).chain(here);
        if let Some((_, other)) = all.into_iter().find(|(known, _)| *known == name) {
            return Err(ReloadError::NameTaken { file: file.to_owned(), name, other: other.clone() });
        }
        debug_assert!(source.is_absolute());
        self.push(&name, file, What::Start, Vec::new());
        let mut definition = Definition::new(plan);
        self.hashes.push(definition.plan_hash.clone());
        definition.origin = Some(origin);
        self.edits.push(Edit::Start(Box::new(definition)));
        Ok(())
    }

    fn finish(self) -> Result<Look, ReloadError> {
        if let Some(first) = self.wrong.first() {
            let code = first.exit_code();
            let stay = |error: ConfigError| {
                error.with_consequence("nothing was reloaded: the loaded plans stay as they are").render(Color::Never)
            };
            return Err(ReloadError::Files { text: self.wrong.into_iter().map(stay).collect(), code });
        }
        let mut hasher = Sha256::new();
        hasher.update(b"agt-reload-v1\n");
        hasher.update(serde_json::to_vec(&(&self.agents, &self.hashes)).expect("a difference is plain data"));
        let token = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Look { difference: Difference { agents: self.agents, token, applied: false }, edits: self.edits })
    }
}
