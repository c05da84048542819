//! Runs AI agents the way an operating system runs processes.

pub mod commands;
