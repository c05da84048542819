//! Compensating sagas over a durable journal: pure machine, replay, driver.
//!
//! A saga is a graph of steps with effects in the world, each with a way to undo it; either all steps take effect or all
//! that did are undone, even if the supervisor is killed at any instant. The way through the crate, in the order in
//! which a saga goes it:
//!
//! - [`spec`]: what saga.yaml says, word for word;
//! - [`lint`]: everything that is wrong with it at once, or a plan;
//! - [`plan`]: the resolved saga, stored by hash in its first record;
//! - [`machine`]: the pure heart: `step(state, input, moment)` gives records and actions (diagram there);
//! - [`record`]: the records, versioned, loadable for ever;
//! - [`journal`]: where they are kept: a trait, and one in memory;
//! - [`schema`]: the shape that an output must have;
//! - [`replay`]: from records back to a saga, through the same transition table;
//! - [`driver`]: performs the actions: journal first, then the world, through the caller's [`driver::Steps`];
//! - [`inject`]: places where a test can stop the driver as a crash would;
//! - [`error`]: why a driver could not go on.
//!
//! The crate knows no process, ring, database or clock: rings are plain numbers that the caller judges, runs are the
//! caller's [`driver::Steps`], and time comes with each input.

#![forbid(unsafe_code)]

pub mod driver;
pub mod error;
pub mod id;
pub mod inject;
pub mod journal;
pub mod lint;
pub mod machine;
pub mod outcome;
pub mod plan;
pub mod record;
pub mod replay;
pub mod schema;
pub mod spec;
pub mod time;
