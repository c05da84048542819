//! What is known of a saga at one moment: the fold of its records.
//!
//! Nothing here decides. Fields change in `apply` alone, so that a saga that was replayed is the saga that was lived.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::slot::{Slot, Stage};
use crate::id::{RunId, RunKind, SagaId};
use crate::journal::Summary;
use crate::plan::{Class, Plan, Step};
use crate::record::{Because, EndState};
use crate::time::later;

/// A saga.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(super) id: SagaId,
    pub(super) plan: Arc<Plan>,
    pub(super) plan_hash: String,
    pub(super) context: Arc<Value>,
    pub(super) params: Map<String, Value>,
    pub(super) phase: Phase,
    /// Set by a cancel or the deadline: no new forward work, unless the pivot was passed all the same.
    pub(super) halt: Option<Because>,
    pub(super) cancels: u32,
    pub(super) pause: Pause,
    pub(super) slots: Vec<Slot>,
    pub(super) seq: u64,
    pub(super) created_at_ms: i64,
    pub(super) changed_at_ms: i64,
    pub(super) trees: Trees,
}

/// Which way a saga goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Towards `completed`.
    Forward,
    /// Back, for this reason.
    Unwinding(Because),
    /// Nowhere.
    Ended(EndState),
}

/// Whether an operator paused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// No.
    Off,
    /// Yes: nothing new starts.
    On,
}

/// What is known of the process trees of runs in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trees {
    /// This process started them.
    Ours,
    /// A dead supervisor did, and nobody has looked yet.
    Unverified,
}

/// Why a driver has nothing more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Rest {
    /// The saga is over.
    Ended(EndState),
    /// Every way on waits for an operator.
    Stuck,
    /// An operator paused it.
    Paused,
}

impl Rest {
    /// The exit code of `saga run`: 0 completed, 1 compensated, 2 partially compensated, 3 abandoned; 75 (EX_TEMPFAIL of
    /// sysexits.h: try again) when it waits for an operator.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ended(EndState::Completed) => 0,
            Self::Ended(EndState::Compensated) => 1,
            Self::Ended(EndState::PartiallyCompensated) => 2,
            Self::Ended(EndState::Abandoned) => 3,
            Self::Stuck | Self::Paused => 75,
        }
    }

    /// The word for it in lists, metrics and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended(end) => end.as_str(),
            Self::Stuck => "stuck",
            Self::Paused => "paused",
        }
    }
}

impl State {
    /// The saga's id.
    #[must_use]
    pub fn id(&self) -> &SagaId {
        &self.id
    }

    /// Its plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The hash of its plan.
    #[must_use]
    pub fn plan_hash(&self) -> &str {
        &self.plan_hash
    }

    /// What the caller stored with it.
    #[must_use]
    pub fn context(&self) -> &Value {
        &self.context
    }

    /// What it was given when it began.
    #[must_use]
    pub fn params(&self) -> &Map<String, Value> {
        &self.params
    }

    /// Which way it goes.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// When it began, in milliseconds since the epoch.
    #[must_use]
    pub fn created_at_ms(&self) -> i64 {
        self.created_at_ms
    }

    /// The sequence number of its last record.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its steps with their plan, in the order of the file.
    pub fn steps(&self) -> impl Iterator<Item = (&Step, &Slot)> {
        self.plan.steps().iter().zip(&self.slots)
    }

    /// The runs whose end isn't recorded yet.
    #[must_use]
    pub fn in_flight(&self) -> Vec<RunId> {
        (0..self.slots.len()).filter_map(|at| self.flying_run(at)).collect()
    }

    /// Names of the steps that wait for an operator.
    #[must_use]
    pub fn parked(&self) -> Vec<String> {
        let parked = (0..self.slots.len()).filter(|at| matches!(self.slots[*at].stage, Stage::Parked { .. }));
        parked.map(|at| self.name(at)).collect()
    }

    /// Why nothing more happens by itself, if so.
    #[must_use]
    pub fn rest(&self) -> Option<Rest> {
        if let Phase::Ended(end) = self.phase {
            return Some(Rest::Ended(end));
        }
        if self.slots.iter().any(|slot| matches!(slot.stage, Stage::InFlight { .. })) {
            return None;
        }
        if self.pause == Pause::On {
            return Some(Rest::Paused);
        }
        let waits = self
            .slots
            .iter()
            .any(|slot| matches!(slot.stage, Stage::Backoff { .. } | Stage::Sleeping { .. } | Stage::Asking { .. }));
        let parked = self.slots.iter().any(|slot| matches!(slot.stage, Stage::Parked { .. }));
        (parked && !waits).then_some(Rest::Stuck)
    }

    /// When, later than `now_ms`, time alone will change something. What was due by then and hasn't started waits for
    /// something else.
    #[must_use]
    pub fn next_wake_ms(&self, now_ms: i64) -> Option<i64> {
        let due = self.slots.iter().filter_map(|slot| match slot.stage {
            Stage::Backoff { due_ms, .. } | Stage::Sleeping { due_ms } if self.pause == Pause::Off => Some(due_ms),
            Stage::Asking { due_ms } if self.pause == Pause::Off => due_ms,
            _ => None,
        });
        due.chain(self.deadline_ms()).filter(|due_ms| *due_ms > now_ms).min()
    }

    /// What lists show of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            id: self.id.as_str().to_owned(),
            name: self.plan.name().to_owned(),
            state: self.word().to_owned(),
            finished: matches!(self.phase, Phase::Ended(_)),
            updated_ms: self.changed_at_ms,
        }
    }

    /// The word for its state in lists and metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.rest(), &self.phase) {
            (Some(rest), _) => rest.as_str(),
            (None, _) if self.pause == Pause::On => "paused",
            (None, Phase::Unwinding(_)) => "compensating",
            (None, _) => "running",
        }
    }

    /// Marks the runs in flight as those of a dead supervisor.
    pub(crate) fn doubt_trees(&mut self) {
        if !self.in_flight().is_empty() {
            self.trees = Trees::Unverified;
        }
    }

    /// The run of a slot that is in flight.
    pub(super) fn flying_run(&self, at: usize) -> Option<RunId> {
        match self.slots[at].stage {
            Stage::InFlight { kind, attempt } => Some(self.run_id(&self.name(at), kind, attempt)),
            _ => None,
        }
    }

    pub(super) fn run_id(&self, step: &str, kind: RunKind, attempt: u32) -> RunId {
        RunId { saga: self.id.clone(), step: step.to_owned(), kind, attempt }
    }

    /// Whether the point of no return lies behind.
    pub(super) fn past_pivot(&self) -> bool {
        let passed = |at: usize| matches!(self.slots[at].stage, Stage::Done | Stage::Skipped | Stage::Bypassed);
        self.plan.pivot().is_some_and(passed)
    }

    /// Whether forward work may start: the rule that no forward action happens while unwinding.
    pub(super) fn goes_forward(&self) -> bool {
        self.phase == Phase::Forward && (self.halt.is_none() || self.past_pivot())
    }

    /// The same for one slot: a branch that doesn't count goes back whichever way the saga goes.
    pub(super) fn slot_goes_forward(&self, at: usize) -> bool {
        self.goes_forward() && !self.slots[at].is_lost()
    }

    /// Whether effects of this slot are being undone.
    pub(super) fn slot_goes_back(&self, at: usize) -> bool {
        matches!(self.phase, Phase::Unwinding(_)) || self.slots[at].is_lost()
    }

    /// Whether nothing stands in the way of undoing it. Nothing is ever built on a branch that doesn't count.
    pub(super) fn free_to_undo(&self, at: usize) -> bool {
        self.slots[at].is_lost()
            || (matches!(self.phase, Phase::Unwinding(_)) && !self.forward_in_flight() && self.nothing_built_on(at))
    }

    /// When the saga's own time is up, as long as that matters.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        let matters = self.phase == Phase::Forward && self.halt.is_none() && !self.past_pivot();
        let limit_ms = self.plan.timeout_ms().filter(|_| matters)?;
        // What is left of branches that nobody needs holds nothing up, so that it is no reason to undo the rest.
        let is_open =
            |slot: &Slot| !slot.is_lost() && !matches!(slot.stage, Stage::Done | Stage::Skipped | Stage::Bypassed);
        self.slots.iter().any(is_open).then_some(())?;
        Some(later(self.created_at_ms, limit_ms))
    }

    pub(super) fn forward_in_flight(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.stage, Stage::InFlight { kind: RunKind::Forward, .. }))
    }

    /// Whether every step that `at` waits for is out of its way.
    pub(super) fn ready(&self, at: usize) -> bool {
        let passed = |need: &usize| matches!(self.slots[*need].stage, Stage::Done | Stage::Skipped | Stage::Bypassed);
        self.plan.needs(self.slots[at].of).iter().all(passed)
    }

    /// Whether, going back, nothing is left to do for `at`.
    pub(super) fn settled(&self, at: usize) -> bool {
        let slot = &self.slots[at];
        if let Some(branches) = &slot.branches {
            return slot.stage != Stage::Spread && branches.clone().all(|branch| self.settled(branch));
        }
        let reads_only = self.step(at).class == Class::ReadOnly;
        match slot.stage {
            Stage::Waiting | Stage::Failed | Stage::Undone | Stage::Left | Stage::Skipped | Stage::Bypassed => true,
            Stage::Done | Stage::Spoiled => reads_only,
            Stage::Parked { .. } => reads_only && slot.is_lost(),
            _ => false,
        }
    }

    pub(super) fn all_done(&self) -> bool {
        (0..self.slots.len()).all(|at| match &self.slots[at] {
            slot if slot.is_lost() => self.settled(at),
            slot => matches!(slot.stage, Stage::Done | Stage::Skipped | Stage::Bypassed),
        })
    }

    pub(super) fn all_settled(&self) -> bool {
        (0..self.slots.len()).all(|at| self.settled(at))
    }

    /// Whether everything that was built on `at` is settled, so that `at` itself may be undone.
    ///
    /// All descendants count, not only the nearest: between two effects may stand a step that only reads.
    pub(super) fn nothing_built_on(&self, at: usize) -> bool {
        self.plan.descendants(self.slots[at].of).iter().all(|after| self.settled(*after))
    }
}
