//! Sagas in the supervisor: steps as processes in rings, on the durable journal of the state store.
//!
//! The engine (agt-saga) decides; here is its world. One module a subject: [`mod@file`] from saga.yaml to a plan whose every
//! command is resolved, [`journal`] the journal whose appends carry their audit records in the same commit, [`steps`] the
//! processes, [`output`] what they print, [`host`] lock, ground, store and signals around it, [`progress`] what a person
//! sees, [`crash`] where a test kills the supervisor.
//!
//! A command is resolved by the same rules as an agent's, from the words that the journal holds: a changed saga.yaml never
//! changes a saga that runs, while a right that an operator has taken back meanwhile is gone.

pub mod crash;
pub mod file;
pub mod host;
pub mod journal;
pub mod output;
pub mod progress;
pub mod steps;
