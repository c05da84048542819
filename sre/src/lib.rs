//! SLIs, SLOs, error budgets, burn rates, circuit breakers and trust: numbers in, verdicts out.
//!
//! This crate knows no rings, no processes, no files and no clock. Time and randomness are arguments; what is to be
//! done comes out as data, and somebody else does it.
//!
//! The road of a sample: [`spec`] checks what agent.yaml says and gives [`slo::Slo`]s; an [`engine::Engine`] counts
//! [`sli::Sample`]s into rings of time buckets ([`window`]); [`budget`] and [`burn`] are the arithmetic over them; what
//! begins to hold comes out as an [`engine::Verdict`] that names an action of the SLO's policy ([`remedy`]). Beside it
//! stand a circuit [`breaker`] and a [`trust`] score, and [`export`] writes the same arithmetic as Prometheus rules.
//!
//! ```
//! use agt_sre::engine::Engine;
//! use agt_sre::sli::{Evidence, Outcome, Sample, Sli};
//! use agt_sre::spec::default_safety;
//! use agt_sre::time::Timestamp;
//!
//! let mut engine = Engine::new(vec![default_safety()])?;
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! for _ in 0..20 {
//!     let _ = engine.record(&Sample::new(Sli::Safety, Outcome::Bad, Evidence::Supervisor), now);
//! }
//! let gravest = &engine.evaluate(now)[0];
//! assert_eq!(gravest.reason, "the error budget is spent: 20 bad of 20 in 30d, 100 % errors where 1 % are allowed = 10000 % of the budget");
//! assert!(engine.evaluate(now).is_empty(), "a verdict is given once");
//! # Ok::<(), agt_sre::error::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod breaker;
pub mod budget;
pub mod burn;
pub mod engine;
pub mod error;
pub mod export;
#[cfg(test)]
mod json;
pub mod ratio;
pub mod remedy;
pub mod sli;
pub mod slo;
pub mod spec;
pub mod time;
pub mod trust;
pub mod window;
