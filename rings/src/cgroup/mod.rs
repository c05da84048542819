//! Control groups: where an agent's tree is held, counted, limited, frozen and ended.
//!
//! Why this way: production is cgroup v2, but many machines are still hybrid (limits on v1 hierarchies, an empty v2 mount
//! beside them). So a place is chosen *per controller* ([`layout`]), a supervisor's own subtree is made below the group
//! it already runs in ([`base`]), and an agent's [`group::Group`] is the same directory name in each of those hierarchies
//! ([`tree::Tree`]). Membership, kill and freeze use v2 wherever a v2 mount is writable, even an empty one; the v1 freezer
//! stands in where there is none.
//!
//! Two habits run through all of it. *Read back*: a limit is an error unless the kernel shows the value afterwards; an
//! ended tree is not ended until the kernel says empty. *Joining is not our job*: writing a pid into `cgroup.procs` costs
//! an RCU grace period, so a launcher gets a [`group::Join`] and lets the kernel (`CLONE_INTO_CGROUP`) or the child itself
//! (`tasks`) do it.
//!
//! ```text
//! <own group>/agt-supervise-<id>/              base, one per state directory
//!     supervisor/                              v2 only: ourselves, so that controllers can be enabled above
//!     agents/                                  one kill here ends every agent; carries the low CPU weight
//!         agent-<name>/                        one agent: its limits
//! ```
//!
//! ```no_run
//! use agt_rings::cgroup::{Base, Layout, Limits};
//! use std::time::Duration;
//!
//! # fn main() -> agt_rings::cgroup::Result<()> {
//! let base = Base::open(&Layout::detect()?, "4f2c9a", &[])?;
//! let left_over = base.sweep(Duration::from_secs(5))?;
//! println!("{} processes of an earlier life ended", left_over.processes);
//! let limits = Limits { memory_bytes: Some(1 << 30), cpu_millis: Some(1000), tasks: Some(256) };
//! let group = base.create("researcher", &limits)?;
//! let join = group.join()?; // to the launcher
//! # drop(join);
//! let report = group.kill(Duration::from_secs(5))?;
//! println!("{} processes ended, empty after {:?}", report.processes, report.took);
//! group.remove(Duration::from_secs(1))?;
//! # Ok(()) }
//! ```
//!
//! Sources: the kernel's `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/*.rst`, cgroups(7).
#![deny(unsafe_code)]

pub mod alarm;
pub mod base;
pub mod error;
mod file;
mod freeze;
pub mod grip;
pub mod group;
pub mod hits;
mod in_force;
mod kill;
pub mod layout;
mod limits;
mod mounts;
pub mod pressure;
mod reserve;
pub mod scope;
mod subtree;
mod total;
pub mod tree;
pub mod usage;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod kernel_tests;

pub use crate::spec::Limits;
pub use alarm::{Alarm, Wait};
pub use base::{Base, SweepReport};
pub use error::{Error, Result};
pub use grip::Grip;
pub use group::{Group, Join};
pub use hits::Hits;
pub use kill::{KillReport, Means};
pub use layout::{Controller, Gap, GapReason, Kind, Layout, Unusable};
pub use pressure::{Pressure, Pressures, Stall};
pub use reserve::Reserve;
pub use tree::Tree;
pub use usage::{Io, Usage};
