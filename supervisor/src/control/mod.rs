//! The operator socket: HTTP and JSON on a unix socket that no ring can see, answered to those whom the kernel names.
//!
//! HTTP because `curl --unix-socket` is in every operator's hands; peer credentials because a token could be stolen.

pub mod client;
pub mod gate;
pub mod handoff;
pub(crate) mod listener;
pub mod protocol;
pub mod sagas;
pub mod server;
pub mod steps;
