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
//! Sources: the kernel's `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/*.rst`, cgroups(7).
#![deny(unsafe_code)]

pub mod base;
pub mod error;
mod file;
mod freeze;
pub mod grip;
pub mod group;
mod kill;
pub mod layout;
mod limits;
mod mounts;
mod subtree;
pub mod tree;
pub mod usage;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod kernel_tests;

pub use crate::spec::Limits;
pub use base::{Base, SweepReport};
pub use error::{Error, Result};
pub use grip::Grip;
pub use group::{Group, Join};
pub use kill::{KillReport, Means};
pub use layout::{Controller, Gap, GapReason, Kind, Layout, Unusable};
pub use tree::Tree;
pub use usage::Usage;
