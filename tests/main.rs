//! Integration tests: one binary, a module per subject. They run the real program against the real kernel.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod audit;
mod chaos;
mod chaos_crash;
mod chaos_faults;
mod confinement;
mod docs;
mod examples;
mod faults;
mod govern;
mod handover;
mod health;
mod kill;
mod launcher;
mod lifecycle;
mod limits;
mod messages;
mod metrics;
mod names;
mod operators;
mod output;
mod overruled;
mod private_places;
mod probe;
mod r0;
mod real_agents;
mod relaunch;
mod reload;
mod resources;
mod run;
mod saga;
mod served;
mod slow_reader;
mod strange_ground;
mod support;
mod terminal;
mod tidy;
mod walls;
mod watchdog;
