//! Integration tests: one binary, a module per subject. They run the real program against the real kernel.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod audit;
mod chaos;
mod confinement;
mod docs;
mod examples;
mod faults;
mod govern;
mod handover;
mod health;
mod kill;
mod lifecycle;
mod limits;
mod metrics;
mod probe;
mod real_agents;
mod run;
mod saga;
mod support;
mod terminal;
mod tidy;
mod watchdog;
