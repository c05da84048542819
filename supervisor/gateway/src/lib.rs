//! The gateway: the only way out of a ring, and the meter on every model call.
//!
//! An agent's network namespace has nothing but loopback and a listener that was opened there for us. Whatever is accepted there
//! is decided (`policy`), resolved and dialled here, outside, and counted. This crate knows no rings, no agents' files and no
//! store: the supervisor hands in listeners and policies, and takes what happened ([`flow`]).
#![forbid(unsafe_code)]

pub mod dial;
pub mod flow;
pub mod forward;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzzed;
pub mod hello;
pub mod hook;
pub mod host;
pub mod intercept;
pub mod limit;
pub mod live;
pub mod policy;
pub mod price;
pub mod proxy;
pub mod publish;
pub mod resolve;
pub mod route;
pub mod socks;
pub mod usage;
pub mod zone;
