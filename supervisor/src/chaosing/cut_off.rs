//! Experiments that the supervisor's death cut off: the next start ends them, with a record and a report.
//!
//! A run is noted in the commit of its beginning, each injection in the commit of its way back, and the note goes in the commit of its
//! end. So a start finds exactly the runs without an end, and knows whether anything was done to the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use agt_chaos::fault::Seen;
use agt_chaos::plan::Plan;
use agt_chaos::report::{AbortReason, Moment, Report, UndoState, Verdict};
use agt_chaos::undo::{RunId, UndoId};
use serde::{Deserialize, Serialize};

use super::journal::{keep, key};
use crate::driver::records::wall_ms;
use crate::store::{Commit, Store, StoreError};

/// Under this kind runs stand in the store that have no end yet.
const OPEN: &str = "chaos-open";

/// A run on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    /// What is reported if nobody watches it to its end.
    report: Report,
    /// Milliseconds since the epoch.
    began_ms: i64,
    /// How often the fault was injected.
    injections: u64,
}

/// What of a run could not be undone: the first of it, and why.
pub(super) type Left = BTreeMap<RunId, (UndoId, String)>;

impl Open {
    pub(super) fn new(run: &RunId, plan: &Plan) -> Open {
        let abort = AbortReason::SupervisorDied;
        let report = Report {
            run: run.clone(),
            experiment: plan.name.clone(),
            agent: plan.agent.clone(),
            fault: plan.fault.clone(),
            seed: plan.seed,
            bursts: plan.bursts.clone(),
            verdict: Verdict::Aborted,
            reasons: vec![abort.to_string()],
            abort: Some(abort),
            refusals: Vec::new(),
            score: None,
            steady_state: Vec::new(),
            acted: Seen::Unknown,
            restored: Seen::Unknown,
            undo: UndoState::NothingDone,
            detection: None,
            recovery: None,
            budget_burned: BTreeMap::new(),
            safety_violations: None,
            duration: Duration::ZERO,
            timeline: Vec::new(),
            timeline_dropped: 0,
        };
        Open { report, began_ms: wall_ms(), injections: 0 }
    }

    /// With one injection more.
    pub(super) fn injected(mut self) -> Open {
        self.injections += 1;
        self
    }

    /// Adds the note, or what it says now.
    pub(super) fn noted(&self, commit: Commit) -> Commit {
        let value = serde_json::to_value(self).expect("a report has only string keys and finite numbers or none");
        commit.put_state(&key(&self.report.run), OPEN, value, wall_ms())
    }

    /// The report of a run that nobody watched to its end.
    fn cut_off(self, left: &Left) -> Report {
        let Open { mut report, began_ms, injections } = self;
        let ran = u64::try_from(wall_ms().saturating_sub(began_ms)).unwrap_or(0);
        report.duration = Duration::from_millis(ran);
        report.undo = match (left.get(&report.run), injections) {
            (Some((id, reason)), _) => UndoState::NotUndone { id: id.clone(), reason: reason.clone() },
            (None, 0) => UndoState::NothingDone,
            (None, _) => UndoState::Undone,
        };
        if report.undo == UndoState::Undone {
            report.restored = Seen::Yes;
        }
        let what = "ended by the next start of the supervisor".to_owned();
        report.timeline.push(Moment { at: report.duration, what });
        report
    }
}

/// The run has an end: the note goes.
pub(super) fn closed(commit: Commit, run: &RunId) -> Commit {
    commit.delete_state(&key(run), OPEN)
}

/// Ends all runs that an earlier supervisor left without an end, after their undos were replayed.
///
/// # Errors
/// Those of the store; what could not be ended stays for the next start.
pub(super) async fn end_all(store: &Store, left: &Left) -> Result<(), StoreError> {
    for state in store.list_states(OPEN).await? {
        match serde_json::from_value::<Open>(state.value) {
            Ok(open) => {
                eprintln!(
                    "note: the experiment {} was cut off by the supervisor's end: `agt-supervise chaos report`",
                    open.report.run
                );
                keep(store, &open.cut_off(left)).await?;
            }
            // Another version's, say: it would be said at each start.
            Err(e) => {
                eprintln!("error: the note of the experiment {} can't be read, and is dropped: {e}", state.agent);
                store.commit(Commit::new().delete_state(&state.agent, OPEN)).await?;
            }
        }
    }
    Ok(())
}
