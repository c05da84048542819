//! A whole experiment on a real process: real freezer, real guardian, a journal on disk.

use std::fs::{self, File};
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use agt_chaos::driver::{self, Stage, abort_switch};
use agt_chaos::error::{JournalError, KernelError};
use agt_chaos::fault::FaultKind;
use agt_chaos::guardian::GuardianProcess;
use agt_chaos::journal::Journal;
use agt_chaos::kernel::{self, CgroupFile};
use agt_chaos::plan::Plan;
use agt_chaos::replay;
use agt_chaos::spec::{Comparison, Condition, Spec};
use agt_chaos::target::{Act, Environment, Missing, Need, Observation, OptIn, Process, Target, TargetError};
use agt_chaos::undo::{JournalEntry, Outcome, RunId, Undo, UndoEntry};

use crate::scene::runtime;

/// The first argument of a process that runs an experiment.
pub(crate) const EXPERIMENTER: &str = "--run-an-experiment";

/// A cgroup whose freezer is the whole agent.
struct Frozen {
    freezer: PathBuf,
}

impl Frozen {
    fn file(&self) -> Result<CgroupFile, TargetError> {
        let failed = |source| TargetError::Failed { doing: "opening the freezer".into(), source };
        CgroupFile::open(&self.freezer)
            .map_err(|error| failed(std::io::Error::other(error)))?
            .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
    }
}

fn kernel_failed(error: KernelError) -> TargetError {
    TargetError::Failed { doing: "using the freezer".into(), source: std::io::Error::other(error) }
}

impl Target for Frozen {
    async fn missing(&self, needs: &[Need]) -> Vec<Missing> {
        let can = |need: &Need| *need == Need::Freezer && self.freezer.exists();
        needs.iter().filter(|need| !can(need)).map(|need| Missing { need: *need, reason: "not here".into() }).collect()
    }

    async fn observe(&self, _look_back: Duration) -> Result<Observation, TargetError> {
        let state = self.file()?.read().map_err(kernel_failed)?.unwrap_or_default();
        Ok(Observation {
            environment: Environment::Dev,
            opt_in: OptIn::Any,
            incident_open: Some(false),
            process: Some(Process::Alive),
            frozen: Some(state == "FROZEN" || state == "1"),
            safety_violations: Some(0),
            slis: [("availability".to_owned(), Some(1.0))].into(),
            ..Observation::default()
        })
    }

    async fn prepare(&self, _acts: &[Act]) -> Result<Vec<UndoEntry>, TargetError> {
        Ok(kernel::thaw(&self.freezer).map_err(kernel_failed)?.into_iter().collect())
    }

    async fn perform(&self, acts: &[Act]) -> Result<(), TargetError> {
        assert_eq!(acts, [Act::Freeze]);
        let frozen = if self.freezer.ends_with("freezer.state") { "FROZEN" } else { "1" };
        self.file()?.write(frozen).map_err(kernel_failed).map(drop)
    }

    fn undo(&self, undo: &Undo) -> impl Future<Output = Result<(), TargetError>> + Send {
        let outcomes = kernel::boot_id().map(|boot| replay::apply(undo, &boot)).map_err(kernel_failed);
        async move {
            match outcomes? {
                outcomes if outcomes.iter().all(Outcome::is_settled) => Ok(()),
                outcomes => {
                    let source = std::io::Error::other(format!("{outcomes:?}"));
                    Err(TargetError::Failed { doing: "thawing".into(), source })
                }
            }
        }
    }
}

/// One JSON object a line, synced.
struct FileJournal(PathBuf);

impl Journal for FileJournal {
    async fn record(&self, entry: &JournalEntry) -> Result<(), JournalError> {
        let write = || {
            let mut file = File::options().append(true).create(true).open(&self.0)?;
            writeln!(file, "{}", serde_json::to_string(entry)?)?;
            file.sync_all()
        };
        write().map_err(|error| JournalError(error.into()))
    }
}

/// What is in a journal.
pub(crate) fn read_journal(path: &Path) -> Vec<JournalEntry> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn spec(duration: Duration) -> Spec {
    let mut spec = Spec {
        name: "hang".into(),
        agent: "victim".into(),
        fault: Some(FaultKind::ProcessHang),
        duration,
        steady_state: vec![Condition {
            sli: Some("availability".into()),
            metric: None,
            budget: None,
            comparison: Comparison::AtLeast,
            value: 0.9,
        }],
        ..Spec::default()
    };
    let short = Duration::from_millis(200);
    spec.windows.baseline = short;
    spec.windows.observe = short;
    spec.windows.look_back = short / 2;
    spec.windows.every = short / 2;
    spec
}

/// A process that runs an experiment, line by line of its timeline on stdout.
pub(crate) fn start(
    freezer: &Path,
    journal: &Path,
    duration: Duration,
) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = Command::new("/proc/self/exe");
    command.arg(EXPERIMENTER).args([freezer, journal]).arg(duration.as_millis().to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

/// The main of such a process. Its last words are the verdict.
pub(crate) fn be_experimenter(args: &[String]) -> ExitCode {
    let target = Frozen { freezer: PathBuf::from(&args[0]) };
    let journal = FileJournal(PathBuf::from(&args[1]));
    let duration = Duration::from_millis(args[2].parse().unwrap());
    let guardians = GuardianProcess::default();
    let boot = kernel::boot_id().unwrap();
    let stage = Stage { target: &target, journal: &journal, guardians: &guardians, boot };
    let plan = Plan::resolve(&spec(duration)).unwrap();
    let (_switch, ear) = abort_switch();
    let report =
        runtime().block_on(driver::run(plan, RunId("run".into()), stage, ear, |moment| println!("{}", moment.what)));
    println!("{}", report.verdict);
    ExitCode::SUCCESS
}
