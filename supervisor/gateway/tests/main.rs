//! The gateway with real sockets on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod corpus;
mod live;
mod malformed;
mod plain;
mod rig;
mod tunnels;
