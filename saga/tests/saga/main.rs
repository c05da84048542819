//! Tests of the crate from outside: one binary, one module a subject.
#![allow(clippy::unwrap_used)]

mod cases;
mod crash;
mod driver;
mod everywhere;
mod fixtures;
mod kinds;
mod lint;
mod machine;
mod world;
