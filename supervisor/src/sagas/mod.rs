//! Sagas in the supervisor: steps as processes in rings, on the durable journal of the state store.
//!
//! The engine (agt-saga) decides; here is its world. One module a subject: [`mod@file`] from saga.yaml to a plan whose every
//! command is resolved, [`journal`] the journal whose appends carry their audit records in the same commit, [`hosted`] the
//! sagas of a running supervisor, `audience` who hears of them, [`steps`] the processes, [`live`] those that run now, `given` and [`output`] what they get
//! and print, `noticing` what they are denied, `not_yet` what the engine can plan and nobody here performs, [`evidence`] what their ends say about the saga, [`ambush`] where an experiment waits for one, [`host`] what
//! needs no supervisor, [`progress`] what a person sees, [`crash`] where a test kills the supervisor.
//!
//! A command is resolved by the same rules as an agent's, from the words that the journal holds: a changed saga.yaml never
//! changes a saga that runs, while a right that an operator has taken back meanwhile is gone.

pub mod ambush;
mod audience;
pub mod crash;
pub mod evidence;
pub mod file;
mod given;
pub mod host;
pub mod hosted;
pub mod journal;
pub mod live;
mod not_yet;
mod noticing;
pub mod output;
pub mod progress;
pub mod spec;
pub mod steps;
