//! What the supervisor stands on: its cgroup subtree, its launcher and its watchdog. Made at the start, swept first; a launcher
//! or a watchdog that is ended from outside is replaced.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agt_rings::cgroup::scope::{self, Claimed};
use agt_rings::cgroup::{self, Base, Controller, Group};
use agt_rings::host::{Controllers, Support};
use agt_rings::launch::{LaunchError, Launcher};
use agt_rings::spec::Limits;
use agt_rings::watchdog::{Watchdog, WatchdogError};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::event::Event;
use super::succession::{NoLauncher, Succession};

use super::loaded::LoadedFiles;

use super::total::Total;

/// How long whatever an earlier life left may take to die.
const SWEEP_WITHIN: Duration = Duration::from_secs(10);

/// How long the end waits for others who work on the ground: the start of a watchdog is what takes longest.
const ALONE_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The ground.
#[derive(Debug)]
pub struct Ground {
    launchers: Succession,
    base: Option<Base>,
    watchdog: Mutex<Option<Watchdog>>,
    /// What the sweep at the start ended.
    pub swept: Option<cgroup::SweepReport>,
    /// The files that no agent may change.
    pub loaded: LoadedFiles,
}

/// Why there is no ground.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// No launcher.
    #[error("the launcher could not be started")]
    Launcher(#[source] LaunchError),
    /// Nobody would end the agents, were we to die.
    #[error("there is no watchdog over the agents")]
    Watchdog(#[source] WatchdogError),
    /// Something of an earlier supervisor is still alive.
    #[error("agents of an earlier supervisor could not be ended")]
    Sweep(#[source] cgroup::Error),
    /// The limits over all agents can't be kept here.
    #[error("`total:` in the operator's file can't be kept here, so nothing is started")]
    Total(#[source] cgroup::Error),
    /// There is no cgroup to keep them on.
    #[error("`total:` in the operator's file can't be kept here, so nothing is started: {0}")]
    NoTotal(String),
    /// The record of our cgroups can't be read or written.
    #[error("the record of our cgroups ({path}) can't be used")]
    Record {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Ground {
    /// Lays the ground: sweeps what an earlier supervisor of this state directory left, then makes the subtree, with the limits
    /// over all agents in `total`.
    ///
    /// # Errors
    /// Any of [`GroundError`]. A host without usable cgroups is no error: the controllers say so.
    pub fn lay(state: &Path, record: &Path, total: &Limits) -> Result<Ground, GroundError> {
        let of_record = |source| GroundError::Record { path: record.display().to_string(), source };
        match std::fs::read(record) {
            Ok(bytes) => {
                let earlier: cgroup::Tree = serde_json::from_slice(&bytes).map_err(|e| of_record(e.into()))?;
                let _ = cgroup::base::sweep_recorded(&earlier, SWEEP_WITHIN).map_err(GroundError::Sweep)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(of_record(e)),
        }
        let id = id_of(state);
        let (base, controllers, swept) = match scope::claim(&id) {
            Ok(Claimed { mut base, asked, .. }) => {
                let swept = base.sweep(SWEEP_WITHIN).map_err(GroundError::Sweep)?;
                let bytes = serde_json::to_vec(base.tree()).map_err(|e| of_record(e.into()))?;
                write_whole(record, &bytes).map_err(of_record)?;
                if let Err(e) = base.limit_all(total) {
                    // Nothing was started: what could not be closed is swept by the next start.
                    let _ = base.close();
                    return Err(GroundError::Total(e));
                }
                let controllers = controllers(&base).with(&asked);
                (Some(base), controllers, Some(swept))
            }
            Err((e, _)) if *total != Limits::default() => return Err(GroundError::NoTotal(chain(&e))),
            Err((e, asked)) => (None, Controllers::none(&chain(&e)).with(&asked), None),
        };
        let launcher = Launcher::start(controllers).map_err(GroundError::Launcher)?;
        let watchdog = base.as_ref().map(Watchdog::start).transpose().map_err(GroundError::Watchdog)?;
        Ok(Ground {
            launchers: Succession::begin(launcher),
            base,
            watchdog: Mutex::new(watchdog),
            swept,
            loaded: LoadedFiles::default(),
        })
    }

    /// The launcher process; another one where it was ended. Blocks for some milliseconds then.
    ///
    /// # Errors
    /// No other could be started, or too many were ended in a short time.
    pub fn launcher(&self) -> Result<Arc<Launcher>, NoLauncher> {
        self.launchers.present()
    }

    /// How many launchers have died and were not told of yet: from now on they are.
    pub(super) fn launchers_untold(&self) -> u64 {
        self.launchers.untold()
    }

    /// Sends [`Event::LauncherGone`] each time that a launcher was ended, from now on.
    pub(super) fn watch_launchers(&self, events: mpsc::UnboundedSender<Event>) {
        self.launchers.watch(events);
    }

    fn watchdog(&self) -> MutexGuard<'_, Option<Watchdog>> {
        self.watchdog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor that is readable once the watchdog is gone. `None` where there is none: it ends agents by their cgroup.
    #[must_use]
    pub fn watchdog_gone(&self) -> Option<std::io::Result<OwnedFd>> {
        self.watchdog().as_ref().map(|watchdog| watchdog.gone().try_clone_to_owned())
    }

    /// Starts another watchdog in place of one that is gone. Blocks for some milliseconds.
    ///
    /// # Errors
    /// No other could be started.
    pub fn renew_watchdog(&self) -> Result<(), WatchdogError> {
        let Some(base) = &self.base else { return Ok(()) };
        let mut place = self.watchdog();
        if let Some(gone) = place.take() {
            gone.dismiss();
        }
        *place = Some(Watchdog::start(base)?);
        Ok(())
    }

    /// A cgroup for one agent, with those limits that can be kept here; a launch that requires the others was refused before.
    ///
    /// # Errors
    /// What the cgroup refuses.
    pub fn group(&self, name: &str, limits: &Limits) -> Result<Option<Group>, cgroup::Error> {
        let Some(base) = &self.base else { return Ok(None) };
        base.create(name, &kept(base, limits)).map(Some)
    }

    /// What of an agent's limits is set on its group: what can be kept here, under the limits of all together.
    #[must_use]
    pub fn fitting(&self, limits: &Limits) -> Limits {
        self.base.as_ref().map_or_else(Limits::default, |base| base.under_total(&kept(base, limits)))
    }

    /// Why one of these limits can't be kept here, if one can't.
    #[must_use]
    pub fn lacks(&self, limits: &Limits) -> Option<String> {
        let Some(base) = &self.base else {
            return Some("this host gives agents no cgroup. `agt-supervise doctor` shows why".to_owned());
        };
        let wanted = [
            (Controller::Memory, limits.memory_bytes.is_some()),
            (Controller::Cpu, limits.cpu_millis.is_some()),
            (Controller::Pids, limits.tasks.is_some()),
        ];
        let (missing, _) = wanted.into_iter().find(|(controller, wanted)| *wanted && !base.keeps(*controller))?;
        let gap = base.gaps().iter().find(|gap| gap.controller == missing);
        Some(gap.map_or_else(
            || format!("there is no {missing} controller here"),
            |gap| format!("{gap}\nhelp: {}", gap.help()),
        ))
    }

    /// All agents together; `None` where they have no cgroups.
    #[must_use]
    pub fn total(&self) -> Option<Total> {
        self.base.as_ref().map(|base| Total::new(base.agents().tree().clone()))
    }

    /// Whether agents have cgroups here, so that the sweep at the start was one of all that an earlier supervisor left.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.base.is_some()
    }

    /// Takes the subtree away at a clean end, once nobody works on it any more: the renewal of a watchdog or a launch that
    /// failed may be about to let go of it. What can't be taken away is said.
    pub async fn leave(mut ground: Arc<Ground>, record: &Path) {
        let deadline = Instant::now() + ALONE_WITHIN;
        let cleared = loop {
            ground = match Arc::try_unwrap(ground) {
                Ok(alone) => break alone.clear(record).map_err(|e| chain(&e)),
                Err(_) if Instant::now() >= deadline => {
                    break Err(format!("still in use after {} s", ALONE_WITHIN.as_secs()));
                }
                Err(held) => held,
            };
            // No event tells that another holder let go.
            tokio::time::sleep(LOOK_EVERY).await;
        };
        if let Err(why) = cleared {
            eprintln!(
                "warning: our cgroups could not be removed: {why}\nhelp: {} names them; the next start with this state \
                 directory ends what is in them and removes them",
                record.display()
            );
        }
    }

    /// Takes the subtree away.
    ///
    /// # Errors
    /// When something is left in it.
    fn clear(self, record: &Path) -> Result<(), cgroup::Error> {
        drop(self.launchers);
        if let Some(watchdog) = self.watchdog.into_inner().unwrap_or_else(PoisonError::into_inner) {
            watchdog.dismiss();
        }
        if let Some(base) = self.base {
            base.close()?;
        }
        // The record names groups that are gone; a next start would find nothing under it either way.
        let _ = std::fs::remove_file(record);
        Ok(())
    }
}

/// Those limits that can be kept.
fn kept(base: &Base, limits: &Limits) -> Limits {
    Limits {
        memory_bytes: limits.memory_bytes.filter(|_| base.keeps(Controller::Memory)),
        cpu_millis: limits.cpu_millis.filter(|_| base.keeps(Controller::Cpu)),
        tasks: limits.tasks.filter(|_| base.keeps(Controller::Pids)),
    }
}

fn controllers(base: &Base) -> Controllers {
    let support = |controller: Controller| {
        if base.keeps(controller) {
            return Support::Yes;
        }
        let reason = base.gaps().iter().find(|gap| gap.controller == controller);
        Support::No { reason: reason.map_or_else(|| "not offered here".to_owned(), ToString::to_string) }
    };
    let layout = if base.tree().legacy.is_empty() { "v2" } else { "v1 hybrid" };
    Controllers {
        memory: support(Controller::Memory),
        cpu: support(Controller::Cpu),
        tasks: support(Controller::Pids),
        kill: Support::Yes,
        layout: layout.to_owned(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Stable for a state directory, and another one for another.
fn id_of(state: &Path) -> String {
    let real = state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let digest = Sha256::digest(real.as_os_str().as_encoded_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Writes beside and renames: a reader sees the old file or the new one, never half of one. Nobody else may read or write it,
/// whatever the umask: the next start kills what it names.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    std::fs::rename(&beside, path)
}
