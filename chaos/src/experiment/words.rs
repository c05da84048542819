//! What moves an experiment, and what it asks for: the whole vocabulary between machine and driver.

use std::time::Duration;

use crate::interlock::Refusal;
use crate::target::{Act, Missing, Need, Observation};
use crate::undo::{JournalEntry, Undo, UndoEntry};

/// Everything that can move an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Go.
    Start,
    /// Answer to [`Action::CheckHost`].
    HostChecked(Vec<Missing>),
    /// Answer to [`Action::Observe`].
    Observed(Box<Observation>),
    /// Answer to [`Action::Observe`]: nothing to be seen, and why.
    ObserveFailed(String),
    /// Answer to [`Action::Prepare`]: the way back.
    Prepared(Vec<UndoEntry>),
    /// Answer to [`Action::Prepare`].
    PrepareRefused(Refusal),
    /// Answer to [`Action::Journal`]: it is on disk.
    Journaled,
    /// Answer to [`Action::Journal`].
    JournalFailed(String),
    /// Answer to [`Action::ArmGuardian`].
    GuardianArmed,
    /// Answer to [`Action::ArmGuardian`].
    GuardianFailed(String),
    /// The guardian ended by itself.
    GuardianEnded(String),
    /// Answer to [`Action::Inject`]: it is in force.
    Injected,
    /// Answer to [`Action::Inject`]: a part of it may be in force.
    InjectFailed(String),
    /// Answer to [`Action::Undo`] and [`Action::UndoByGuardian`]: all of it is put back.
    Undone,
    /// Answer to [`Action::Undo`] and [`Action::UndoByGuardian`].
    UndoFailed(String),
    /// Answer to [`Action::DisarmGuardian`].
    Disarmed,
    /// The operator wants it to end, and says why.
    Abort(String),
    /// Time has passed; see [`super::Experiment::wake`].
    Tick,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Which of these needs aren't met?
    CheckHost(Vec<Need>),
    /// Look.
    Observe {
        /// How far back the SLIs look.
        look_back: Duration,
    },
    /// Find the way back from these acts.
    Prepare(Vec<Act>),
    /// Make this durable.
    Journal(JournalEntry),
    /// Start a guardian that holds this undo.
    ArmGuardian {
        /// What it does when the injector dies.
        undo: Undo,
        /// What it does it after anyway, counted from now.
        within: Duration,
    },
    /// Do it to the agent.
    Inject(Vec<Act>),
    /// Put it back.
    Undo(Undo),
    /// Tell the guardian to put it back.
    UndoByGuardian,
    /// Tell the guardian that nothing is left to do.
    DisarmGuardian,
    /// The report is ready.
    Finish,
}
