//! Real programs under a small filter whose calls are answered here, beside the same programs without one.

#![allow(clippy::unwrap_used)]

mod harness;
mod neighbour;
mod refusals;
mod sameness;
