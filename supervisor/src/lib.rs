//! Runs AI agents the way an operating system runs processes.

// First: its macros stand in for those of the standard library in all that follows.
#[macro_use]
pub mod say;

pub mod audit;
pub mod chaosing;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod denials;
pub mod dirs;
pub mod driver;
pub mod exit;
pub mod govern;
pub mod learning;
pub mod machine;
pub mod reloading;
pub mod repositories;
pub mod sagas;
pub mod store;
pub mod telemetry;
