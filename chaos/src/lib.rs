//! Chaos experiments on one agent: a fault that acts, is seen to act, and is undone whoever dies meanwhile.
//!
//! The road of an experiment: a [`spec::Spec`] (what the YAML says) becomes a [`plan::Plan`] (checked, with the fault from
//! the [`catalog`] and the [`schedule`] from the seed). [`experiment::Experiment`] is the pure machine that decides;
//! [`driver::run`] performs its actions on a [`target::Target`], which the supervisor implements, and ends with a
//! [`report::Report`].
//!
//! Three things put a fault right, in this order: the supervisor itself, the [`guardian`] process when the supervisor dies
//! or hangs, and [`replay::replay`] of the journaled [`undo`]s at the next start. The machine has no path to an injection
//! that doesn't first make the undo durable and then arm the guardian.
//!
//! ```
//! use agt_chaos::plan::Plan;
//! use agt_chaos::spec::Spec;
//!
//! let spec: Spec = serde_json::from_str(
//!     r#"{"name": "hang", "agent": "researcher", "template": "process-hang", "duration": "20s",
//!         "steady_state": [{"sli": "availability", "comparison": "at-least", "value": 0.9}]}"#,
//! )?;
//! let plan = Plan::resolve(&spec).expect("no problems");
//! assert_eq!(plan.total().as_secs(), 30 + 20 + 60);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! A program that runs experiments calls [`guardian::main_if_guardian`] and then [`hog::main_if_hog`] first in its `main`.
//!
//! Nothing here knows agent.yaml, rings, SLO arithmetic or sagas: those are the target's.

#![deny(unsafe_code)]

pub mod catalog;
pub mod driver;
pub mod error;
pub mod experiment;
pub mod fault;
pub mod guardian;
pub mod hog;
pub mod interlock;
pub mod journal;
pub mod kernel;
pub mod plan;
pub mod replay;
pub mod report;
pub mod schedule;
pub mod score;
pub mod spec;
pub mod target;
pub mod undo;
pub mod unit;
