//! Privilege rings R0-R3 that the Linux kernel enforces: plan, launch, kill, probe.
//!
//! The road of a launch: [`spec::Spec`] (what is asked for, resolved and absolute) and [`host::Host`] (what this kernel
//! offers) give a [`plan::Plan`] or a list of gaps; a launcher process performs the plan; [`report`] says what was
//! really enforced. Nothing in this crate knows agent.yaml, SLOs or sagas.

pub mod builtin;
pub mod capability;
pub mod cgroup;
pub mod host;
pub mod launch;
pub mod plan;
pub mod probe;
pub mod report;
pub mod ring;
pub mod seccomp;
pub mod spec;
mod sys;
pub mod watchdog;

pub use ring::Ring;
pub use sys::{attribute, fdpass, peer};
