//! Chaos experiments on the agents that run here: the supervisor's side of `agt-chaos`.
//!
//! The run lives in the supervisor, not in the command that asked for it, because the supervisor knows the agent's cgroup and
//! what the governor thinks of it, and because an experiment must not lose its hands when a terminal closes.

mod acts;
mod cut_off;
mod happenings;
mod journal;
mod memory;
mod places;
mod saga_steps;
mod seeing;
mod standstill;
mod target;

use std::sync::{Arc, Mutex, PoisonError};

use agt_chaos::driver::{self, AbortSwitch, Stage, abort_switch};
use agt_chaos::fault::FaultKind;
use agt_chaos::guardian::GuardianProcess;
use agt_chaos::kernel;
use agt_chaos::plan::{Plan, Problem};
use agt_chaos::report::{Report, Verdict};
use agt_chaos::spec::Spec;
use agt_chaos::undo::RunId;
use serde::{Deserialize, Serialize};

use cut_off::Open;
pub use journal::recover;
use journal::{StoreJournal, keep};
use target::AgentTarget;

use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::driver::Handle;
use crate::driver::event::Refusal;
use crate::driver::records::wall_ms;
use crate::exit;
use crate::store::{Commit, Store};

/// Run an experiment and answer with its report: POST of a spec.
pub const CHAOS_RUN: &str = "/v1/chaos/run";
/// Break the present experiment off: POST.
pub const CHAOS_ABORT: &str = "/v1/chaos/abort";
/// Reports that are kept; older ones go.
pub const REPORTS_MAX: usize = 100;
/// Under this kind they stand in the store.
pub const REPORT: &str = "chaos-report";

const BEGIN: Action = Action::new("chaos.begin");
const ABORT: Action = Action::new("chaos.abort");
const END: Action = Action::new("chaos.end");

/// The faults that `chaos.faults` may name.
#[must_use]
pub fn fault_names() -> Vec<String> {
    FaultKind::ALL.iter().map(|kind| kind.name().to_owned()).collect()
}

/// The body of [`CHAOS_ABORT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbortBody {
    /// Why; kept in the report and in the audit log.
    pub reason: String,
}

/// What was broken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    /// Which run.
    pub run: RunId,
    /// Which experiment.
    pub experiment: String,
}

/// Why an experiment has no report.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// The file doesn't make sense.
    #[error("the experiment can't be planned: {}", list(.0))]
    Bad(Vec<Problem>),
    /// Another one is on its way: one at a time.
    #[error("refused: another experiment is on its way: {0}\nhelp: agt-supervise chaos abort")]
    Busy(String),
    /// There is none to be broken off.
    #[error("no experiment is running")]
    None,
    /// The agent can't be asked.
    #[error("{0}")]
    Agent(Refusal),
    /// What gives power could not be recorded, so nothing was done.
    #[error("the audit log can't be written, so nothing was done: {0}")]
    NotRecorded(String),
    /// The kernel doesn't tell which boot this is.
    #[error("the host can't be asked: {0}")]
    Host(String),
    /// The run itself broke; the guardian undoes.
    #[error("the experiment ended without a report: {0}")]
    Broken(String),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ChaosError {
    /// The exit code for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ChaosError::Bad(_) => exit::USAGE,
            ChaosError::Busy(_) => exit::REFUSED,
            ChaosError::None | ChaosError::Agent(_) => exit::NO,
            ChaosError::NotRecorded(_) => exit::CANT_CREATE,
            ChaosError::Host(_) => exit::UNAVAILABLE,
            ChaosError::Broken(_) => exit::BUG,
        }
    }
}

/// The experiments of one supervisor: one at a time.
#[derive(Debug, Clone)]
pub struct Chaos {
    handle: Handle,
    store: Store,
    present: Arc<Mutex<Option<Present>>>,
}

#[derive(Debug)]
struct Present {
    run: RunId,
    experiment: String,
    switch: AbortSwitch,
}

/// The one place for an experiment; free again when this is dropped, however the run ended.
#[derive(Debug)]
struct Place(Arc<Mutex<Option<Present>>>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Chaos {
    /// No experiment yet.
    #[must_use]
    pub fn new(handle: Handle, store: Store) -> Chaos {
        Chaos { handle, store, present: Arc::default() }
    }

    /// Runs an experiment to its end. It goes on when the asker goes away.
    ///
    /// # Errors
    /// [`ChaosError`]; a refusal by an interlock is a report, not an error.
    pub async fn run(&self, spec: &Spec, by: u32) -> Result<Report, ChaosError> {
        let plan = Plan::resolve(spec).map_err(ChaosError::Bad)?;
        self.handle.scene(&plan.agent).await.map_err(ChaosError::Agent)?;
        let boot = kernel::boot_id().map_err(|e| ChaosError::Host(e.to_string()))?;
        let run = RunId(format!("{}-{:x}-{:04x}", plan.name, wall_ms(), rand::random::<u16>()));
        let (switch, ear) = abort_switch();
        let place = self.take_place(&run, &plan, switch)?;
        let begun = Record::new(wall_ms(), Actor::Operator(by), BEGIN, Outcome::Allowed)
            .agent(plan.agent.as_str())
            .detail("run", run.0.as_str())
            .detail("fault", plan.fault_kind().name());
        let open = Open::new(&run, &plan);
        let begins = open.noted(Commit::new().audit(begun));
        self.store.commit(begins).await.map_err(|e| ChaosError::NotRecorded(e.to_string()))?;
        let target = AgentTarget::new(self.handle.clone(), plan.agent.clone());
        let store = self.store.clone();
        // Its report is journaled before the supervisor may end, also when the agents are dead.
        let hold = self.handle.hold();
        let experiment = tokio::spawn(async move {
            let journal = StoreJournal::new(store.clone(), plan.fault_kind(), open);
            let guardians = GuardianProcess::default();
            let stage = Stage { target: &target, journal: &journal, guardians: &guardians, boot };
            let report = driver::run(plan, run, stage, ear, |_| {}).await;
            drop(place);
            conclude(&store, &report).await;
            drop(hold);
            report
        });
        experiment.await.map_err(|e| ChaosError::Broken(e.to_string()))
    }

    fn take_place(&self, run: &RunId, plan: &Plan, switch: AbortSwitch) -> Result<Place, ChaosError> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = present.as_ref() {
            return Err(ChaosError::Busy(format!("{} ({})", other.experiment, other.run)));
        }
        *present = Some(Present { run: run.clone(), experiment: plan.name.clone(), switch });
        Ok(Place(Arc::clone(&self.present)))
    }

    /// Breaks the present experiment off; it is undone before its report comes.
    ///
    /// # Errors
    /// [`ChaosError::None`].
    pub fn abort(&self, reason: &str, by: u32) -> Result<Aborted, ChaosError> {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(present) = present.as_ref() else { return Err(ChaosError::None) };
        present.switch.abort(reason);
        let record = Record::new(wall_ms(), Actor::Operator(by), ABORT, Outcome::Done)
            .reason(reason)
            .detail("run", present.run.0.as_str());
        let _ = self.store.append_audit_nowait(record);
        Ok(Aborted { run: present.run.clone(), experiment: present.experiment.clone() })
    }
}

/// Records the end and keeps the report. The report that the asker gets doesn't depend on either.
async fn conclude(store: &Store, report: &Report) {
    if let Err(e) = keep(store, report).await {
        eprintln!("warning: the report of {} could not be stored: {e}", report.run);
    }
}

/// The exit code for a verdict.
#[must_use]
pub fn verdict_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Fail | Verdict::Inconclusive | Verdict::Aborted => exit::NO,
        Verdict::Refused => exit::REFUSED,
    }
}
