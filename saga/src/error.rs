//! Why a driver could not go on.
//!
//! None of these loses anything: the journal holds all that was acknowledged, and a later `resume` goes on from there.
//! A saga that fails is no error: it has an end state.

use crate::id::{RunId, SagaId};
use crate::journal::JournalError;
use crate::machine::{IllegalEvent, Refused};
use crate::plan::ParamsError;
use crate::replay::ReplayError;

/// Why a driver could not go on with a saga.
#[derive(Debug, thiserror::Error)]
pub enum SagaError {
    /// The journal can't be written or read. Running steps were ended; their outcome is unknown.
    #[error("saga {saga}: nothing more can be recorded, so nothing more is done")]
    Journal {
        /// The saga.
        saga: SagaId,
        /// What the journal said.
        #[source]
        source: JournalError,
    },
    /// The journal's records make no saga.
    #[error("saga {saga}: its journal can't be used")]
    Replay {
        /// The saga.
        saga: SagaId,
        /// What is wrong with it.
        #[source]
        source: ReplayError,
    },
    /// The command or input makes no sense where the saga stands. Nothing changed.
    #[error("saga {saga}")]
    Refused {
        /// The saga.
        saga: SagaId,
        /// Why.
        #[source]
        source: Refused,
    },
    /// It can't begin with these parameters. Nothing was recorded.
    #[error("saga {saga} can't begin")]
    Params {
        /// The saga.
        saga: SagaId,
        /// Why.
        #[source]
        source: ParamsError,
    },
    /// A bug in this crate: the policy proposed what the table forbids. Nothing of it was recorded.
    #[error("saga {saga}: refused a step that the rules forbid")]
    Illegal {
        /// The saga.
        saga: SagaId,
        /// Which.
        #[source]
        source: IllegalEvent,
    },
    /// This driver drives it already.
    #[error("saga {saga} is being driven already")]
    AlreadyDriven {
        /// The saga.
        saga: SagaId,
    },
    /// The process trees of a dead supervisor could not be verified empty. Nothing was decided.
    #[error("saga {saga}: the old process trees are not known to be empty")]
    TreesNotEmpty {
        /// The saga.
        saga: SagaId,
        /// What the caller's `Steps` said.
        #[source]
        source: StepsError,
    },
    /// A run was to be ended, and its tree is not known to be empty after several tries. Its outcome stays unrecorded.
    #[error("run {run} could not be ended")]
    NotEnded {
        /// The run.
        run: RunId,
        /// What the caller's `Steps` said last.
        #[source]
        source: StepsError,
    },
    /// A hook stopped the driver.
    #[error("stopped by a hook {point}")]
    Stopped {
        /// Where.
        point: String,
    },
}

/// Why the caller's `Steps` could not say that a tree is empty. The caller's own error, in whole.
pub type StepsError = Box<dyn std::error::Error + Send + Sync>;
